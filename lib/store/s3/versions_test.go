package s3

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
)

// versioned answers with versions and markers by key, takes away what is
// deleted, and refuses to delete the version "locked".
type versioned struct {
	*fake
	mu       sync.Mutex
	versions map[string][]string
	markers  map[string][]string
	deletes  [][]string // KEY VERSION, by request
	most     atomic.Int32
	now      atomic.Int32
}

var identifier = regexp.MustCompile("<Object><Key>(.*?)</Key><VersionId>(.*?)</VersionId></Object>")

func newVersioned(t *testing.T) *versioned {
	v := &versioned{fake: newFake(t), versions: map[string][]string{}, markers: map[string][]string{}}
	v.answer("GET /walg?versions", func(w http.ResponseWriter, r *http.Request) {
		now := v.now.Add(1)
		defer v.now.Add(-1)
		for most := v.most.Load(); now > most && !v.most.CompareAndSwap(most, now); most = v.most.Load() {
		}
		time.Sleep(5 * time.Millisecond) // so that others come meanwhile
		v.mu.Lock()
		defer v.mu.Unlock()
		var all strings.Builder
		for kind, entries := range map[string]map[string][]string{"Version": v.versions, "DeleteMarker": v.markers} {
			for key, ids := range entries {
				for _, id := range ids {
					if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
						fmt.Fprintf(&all, "<%s><Key>%s</Key><VersionId>%s</VersionId></%s>", kind, key, id, kind)
					}
				}
			}
		}
		sends(200, "<ListVersionsResult><IsTruncated>false</IsTruncated>"+all.String()+"</ListVersionsResult>")(w, r)
	})
	v.answer("POST /walg?delete", func(w http.ResponseWriter, r *http.Request) {
		body := v.request(t, "POST /walg?delete").body
		v.mu.Lock()
		defer v.mu.Unlock()
		var sent []string
		var refused strings.Builder
		for _, m := range identifier.FindAllStringSubmatch(body, -1) {
			key, id := m[1], m[2]
			sent = append(sent, key+" "+id)
			if id == "locked" {
				fmt.Fprintf(&refused, "<Error><Key>%s</Key><VersionId>%s</VersionId><Code>AccessDenied</Code><Message>locked</Message></Error>", key, id)
				continue
			}
			gone := func(s string) bool { return s == id }
			v.versions[key], v.markers[key] = slices.DeleteFunc(v.versions[key], gone), slices.DeleteFunc(v.markers[key], gone)
		}
		v.deletes = append(v.deletes, sent)
		sends(200, "<DeleteResult>"+refused.String()+"</DeleteResult>")(w, r)
	})
	return v
}

func TestMarkersGoWhenAllVersionsAreGone(t *testing.T) {
	t.Parallel()
	v := newVersioned(t)
	v.versions = map[string][]string{"hidden": {"1", "locked", "2"}, "k": {"1", "2"}, "k/other": {"9"}, "seen": {"locked"}}
	v.markers = map[string][]string{"hidden": {"m1", "m2"}, "k": {"m3"}, "bare": {"m4"}, "k/other": {"m9"}}
	d := v.driver(t, m{"S3_ENABLE_VERSIONING": "enabled"})
	err := d.Delete(t.Context(), []string{"absent", "seen", "k", "hidden", "bare"})
	var left driver.Undeleted
	if !errors.As(err, &left) || len(left) != 2 || left[0].Key != "seen" || left[1].Key != "hidden" || fault.Status(err) != fault.Usage {
		t.Errorf("Delete = %v, %v", err, left)
	}
	if len(v.deletes) != 2 {
		t.Fatalf("deleted by %d requests: %q", len(v.deletes), v.deletes)
	}
	for i, want := range [][]string{{"hidden 1", "hidden 2", "hidden locked", "k 1", "k 2", "seen locked"}, {"bare m4", "k m3"}} {
		if got := slices.Sorted(slices.Values(v.deletes[i])); !slices.Equal(got, want) {
			t.Errorf("request %d deletes %q, want %q", i, got, want)
		}
	}
}

// A version that comes between the two sweeps, and is hidden again, must not
// come to light.
func TestMarkersStayAboveAVersionThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	v := newVersioned(t)
	v.versions, v.markers = map[string][]string{"k": {"1"}}, map[string][]string{"k": {"m1"}}
	came := 0
	inner := v.on["POST /walg?delete"]
	v.answer("POST /walg?delete", func(w http.ResponseWriter, r *http.Request) {
		inner(w, r)
		v.mu.Lock()
		defer v.mu.Unlock()
		if came++; came == 1 {
			v.versions["k"], v.markers["k"] = append(v.versions["k"], "2"), append(v.markers["k"], "m2")
		}
	})
	d := v.driver(t, m{"S3_ENABLE_VERSIONING": "enabled"})
	if err := d.Delete(t.Context(), []string{"k"}); !errors.Is(err, errNewVersion) || len(v.markers["k"]) != 2 {
		t.Errorf("Delete = %v; %q are left", err, v.markers)
	}
	// It may be mended by another try.
	if err := remote.New(d, "", remote.Policy{}).Delete(t.Context(), "k"); err != nil || len(v.versions["k"])+len(v.markers["k"]) != 0 {
		t.Errorf("Delete = %v; %q and %q are left", err, v.versions, v.markers)
	}
	v.answer("GET /walg?versions", sends(200, "<html>hello</html>"))
	if err := d.Delete(t.Context(), []string{"k"}); fault.Status(err) != fault.Failed {
		t.Errorf("no listing: %v", err)
	}
}

func TestVersionsOfManyKeysAreListedSideBySideAndDeletedTogether(t *testing.T) {
	t.Parallel()
	v := newVersioned(t)
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("k%03d", i))
		v.versions[keys[i]] = []string{"1", "2", "3"}
	}
	d := v.driver(t, m{"S3_ENABLE_VERSIONING": "enabled", "S3_DELETE_BATCH_SIZE": "100"})
	if err := d.Delete(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	for _, sent := range v.deletes {
		if len(sent) > 100 {
			t.Errorf("a request deletes %d versions", len(sent))
		}
	}
	if len(v.deletes) != 3 || len(v.requests("GET /walg?versions")) != 100 {
		t.Errorf("%d requests delete what %d list", len(v.deletes), len(v.requests("GET /walg?versions")))
	}
	if most := v.most.Load(); most < 2 || most > listings {
		t.Errorf("%d listings at once, want 2 to %d", most, listings)
	}
}

// TestALockedVersionStaysHidden: in a bucket with object lock some objects are
// locked by themselves, below a marker or in sight.
func TestALockedVersionStaysHidden(t *testing.T) {
	t.Parallel()
	for _, mode := range []types.ObjectLockRetentionMode{types.ObjectLockRetentionModeGovernance, types.ObjectLockRetentionModeCompliance} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			plain := bucket(t, "minio", true, false, nil) // object lock brings versions
			s, api := remote.New(once{plain}, "", remote.Policy{}), raw(t, plain)
			var keys []string
			for i := range 30 {
				keys = append(keys, fmt.Sprintf("k%02d", i))
				put(t, s, keys[i], "old")
				put(t, s, keys[i], "new")
			}
			// Long enough for a slow machine, and over before anybody cleans up.
			until := time.Now().Add(2 * time.Minute)
			locked := []string{"k20", "k07", "k00"}
			for _, key := range locked {
				if _, err := api.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{Bucket: &plain.bucket, Key: aws.String(key),
					Retention: &types.ObjectLockRetention{Mode: mode, RetainUntilDate: &until}}); err != nil {
					t.Fatal(err)
				}
			}
			hidden := []string{"k07", "k00", "k11"} // as an ordinary Delete does
			if err := s.Delete(t.Context(), hidden...); err != nil {
				t.Fatal(err)
			}
			settings := maps.Clone(servertest.Get(t, "minio").Env)
			settings["S3_ENABLE_VERSIONING"] = "enabled"
			d, err := New(t.Context(), plain.bucket, &driver.Settings{Get: func(name string) string { return settings[name] }})
			if err != nil {
				t.Fatal(err)
			}
			all := remote.New(once{d}, "", remote.Policy{})
			for range 2 {
				slices.Reverse(keys)
				err = all.Delete(t.Context(), append([]string{"absent"}, keys...)...)
				var kept *store.DeleteError
				if !errors.As(err, &kept) || fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "locked") || kept.Of != 31 {
					t.Fatalf("Delete = %v, status %d, hint %q", err, fault.Status(err), fault.Hint(err))
				}
				var got []string
				for _, u := range kept.Failed {
					got = append(got, u.Key)
				}
				want := slices.Sorted(slices.Values(locked))
				if keys[0] != "k00" {
					slices.Reverse(want)
				}
				if !slices.Equal(got, want) {
					t.Errorf("the error names %q, want %q", got, want)
				}
			}
			for _, key := range keys {
				objects, markers := versions(t, d, key)
				wantObjects, wantMarkers := 0, 0
				if slices.Contains(locked, key) {
					wantObjects = 1
					if slices.Contains(hidden, key) {
						wantMarkers = 1
					}
				}
				if objects != wantObjects || markers != wantMarkers {
					t.Errorf("of %s there are %d versions and %d markers, want %d and %d", key, objects, markers, wantObjects, wantMarkers)
				}
				if _, err := all.Stat(t.Context(), key); key != "k20" && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s has come to life: %v", key, err)
				} else if key == "k20" && err != nil {
					t.Errorf("%s, which is locked in sight: %v", key, err)
				}
			}
		})
	}
}
