//go:build linux

package test

import (
	"bytes"
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"walg/lib/store/s3list"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

// A bucket on which a delete is watched, and the program killed at the n-th
// request that removes objects: before it arrives, or before its answer.
type deadly struct {
	fake  *s3list.Fake
	proxy *httptest.Server
	kill  func()
	at    int
	after bool

	lists  int         // so far
	onList func(n int) // called with each

	mu    sync.Mutex
	idle  sync.Cond
	busy  int // requests at work
	seen  int
	fired bool
}

func newDeadly(t *testing.T, dir string) *deadly {
	t.Helper()
	d := &deadly{fake: s3list.New(t, s3list.Synthetic{})}
	d.idle.L = &d.mu
	for _, key := range keysBelow(t, dir) {
		d.fake.Put(key, read(t, filepath.Join(dir, key)))
	}
	target, err := url.Parse(d.fake.Env()["AWS_ENDPOINT"])
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorLog = log.New(io.Discard, "", 0) // of a client that is dead
	d.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fatal, after, kill := d.look(r)
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.busy--
			d.idle.Broadcast()
		}()
		if !fatal {
			forward.ServeHTTP(w, r)
			return
		}
		if after {
			forward.ServeHTTP(httptest.NewRecorder(), r)
		}
		kill()
	}))
	t.Cleanup(d.proxy.Close)
	return d
}

// look counts a request, and tells whether it is the one.
func (d *deadly) look(r *http.Request) (fatal, after bool, kill func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy++
	if r.URL.Query().Get("list-type") == "2" && d.onList != nil {
		d.lists++
		d.onList(d.lists)
	}
	if _, deletes := r.URL.Query()["delete"]; deletes && r.Method == http.MethodPost {
		d.seen++
		fatal = d.seen == d.at
		d.fired = d.fired || fatal
	}
	return fatal, d.after, d.kill
}

// run runs walg-retain, and kills it at the request number at, 0 for never.
func (d *deadly) run(t *testing.T, at int, after bool, args ...string) (killed bool) {
	t.Helper()
	cmd := exec.Command("walg-retain", args...)
	cmd.Env = os.Environ()
	for name, value := range d.fake.Env() {
		if name == "AWS_ENDPOINT" {
			value = d.proxy.URL
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var msg bytes.Buffer
	cmd.Stderr = &msg
	d.mu.Lock()
	d.at, d.after, d.seen, d.fired = at, after, 0, false
	d.kill = func() { cmd.Process.Kill() }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.mu.Unlock()
	err := cmd.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.busy > 0 {
		d.idle.Wait()
	}
	if cmd.ProcessState.ExitCode() == 66 && slices.Contains(args, "target") {
		err = nil // the last run had removed all of it, and was killed after that
	}
	if (err != nil) != d.fired {
		t.Fatalf("%q, killed at request %d: %v, %v\n%s", args, at, d.fired, err, &msg)
	}
	return d.fired
}

// say runs walg-retain to its end, and returns what it says.
func (d *deadly) say(t *testing.T, args ...string) (string, int) {
	t.Helper()
	env := []string{"AWS_ENDPOINT=" + d.proxy.URL}
	for name, value := range d.fake.Env() {
		if name != "AWS_ENDPOINT" {
			env = append(env, name+"="+value)
		}
	}
	out, msg, status := execute(t, env, append([]string{"walg-retain"}, args...)...)
	return out + msg, status
}

func (d *deadly) keys(all []string) (keys []string) {
	for _, key := range all {
		if d.fake.Has(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// consistent fails the test unless each backup of which the sentinel is there
// has all of its objects, what it is based on, and the segment that it needs.
func consistent(t *testing.T, dir string, all, keys []string) {
	t.Helper()
	have := map[string]bool{}
	for _, key := range keys {
		have[key] = true
	}
	for _, key := range keys {
		below, ok := strings.CutSuffix(key, sentinelEnd)
		if !ok {
			continue
		}
		needs := []string{"wal_005/" + segmentName.FindString(below) + ".lz4"}
		for _, other := range all {
			if strings.HasPrefix(other, below+"/") {
				needs = append(needs, other)
			}
		}
		if base, _ := decode(t, read(t, filepath.Join(dir, key)))["DeltaFrom"].(string); base != "" {
			needs = append(needs, "basebackups_005/"+base+sentinelEnd)
		}
		for _, need := range needs {
			if !have[need] {
				t.Errorf("%s is there, and %s is not", key, need)
			}
		}
	}
}

func TestADeleteKilledAtAnyBatchIsConsistentAndGoesOn(t *testing.T) {
	dir := store(t)
	fill(t, dir)
	all := keysBelow(t, dir)
	r := random(t)
	kills := 0
	policies := []string{
		"retain FULL 1", "before base_" + wal24(1, 8), "everything", "garbage",
		"target base_" + wal24(1, 2), "target FIND_FULL base_" + wal24(1, 6) + "_D_" + wal24(1, 4),
	}
	for _, words := range slices.Repeat(policies, rounds(1, 20)) {
		args := append([]string{"delete", "--confirm", "--grace", "0", "--batch", strconv.Itoa(2 + r.IntN(3))}, strings.Fields(words)...)
		whole := newDeadly(t, dir)
		whole.run(t, 0, false, args...)
		want := whole.keys(all)
		for n := 1; ; n++ {
			d := newDeadly(t, dir)
			if !d.run(t, n, r.IntN(2) == 0, args...) {
				if n == 1 {
					t.Errorf("%s: no request removes anything", words)
				}
				break
			}
			kills++
			consistent(t, dir, all, d.keys(all))
			// Once more on the way, and then to the end.
			if d.run(t, 1+r.IntN(3), r.IntN(2) == 0, args...) {
				consistent(t, dir, all, d.keys(all))
				d.run(t, 0, false, args...)
			}
			if got := d.keys(all); !slices.Equal(got, want) {
				t.Errorf("%q, killed at request %d: in the end there are\n%q, want\n%q", args, n, got, want)
			}
		}
	}
	t.Logf("%d kills", kills)
}

// While the plan is read the archive goes on: what comes meanwhile is not part of
// it, and must not suffer from it.
func TestWhatChangesAfterThePlanIsNotHurt(t *testing.T) {
	dir := store(t)
	fill(t, dir)
	all := keysBelow(t, dir)
	victim := "basebackups_005/base_" + wal24(1, 4) + "_D_" + wal24(1, 2)
	// finish makes the victim's objects those of another backup.
	finish := func(d *deadly, name, base string) {
		below := "basebackups_005/" + name
		for _, key := range all {
			if rest, ok := strings.CutPrefix(key, victim+"/"); ok {
				d.fake.Put(below+"/"+rest, read(t, filepath.Join(dir, key)))
			}
		}
		text := strings.ReplaceAll(string(read(t, filepath.Join(dir, victim+sentinelEnd))), `"DeltaFrom":"base_`+wal24(1, 2)+`"`, `"DeltaFrom":"`+base+`"`)
		d.fake.Put(below+sentinelEnd, []byte(text))
	}
	for name, c := range map[string]struct {
		words  string
		change func(d *deadly)
		status int
		stays  string // what would have gone
	}{
		"a delta is made on a target": {"target base_" + wal24(1, 4) + "_D_" + wal24(1, 2), func(d *deadly) {
			finish(d, "base_"+wal24(1, 15)+"_D_"+wal24(1, 4), "base_"+wal24(1, 4)+"_D_"+wal24(1, 2))
		}, 1, victim + sentinelEnd},
		"a target is marked": {"target base_" + wal24(1, 10) + "_D_" + wal24(1, 8), func(d *deadly) {
			key := "basebackups_005/base_" + wal24(1, 10) + "_D_" + wal24(1, 8) + "/metadata.json"
			d.fake.Put(key, bytes.ReplaceAll(read(t, filepath.Join(dir, key)), []byte("false"), []byte("true")))
		}, 64, "basebackups_005/base_" + wal24(1, 10) + "_D_" + wal24(1, 8) + sentinelEnd},
		"an old one is marked": {"retain FULL 1", func(d *deadly) {
			key := "basebackups_005/base_" + wal24(1, 2) + "/metadata.json"
			d.fake.Put(key, bytes.ReplaceAll(read(t, filepath.Join(dir, key)), []byte("false"), []byte("true")))
		}, 0, "wal_005/" + wal24(1, 2) + ".lz4"},
		"an unfinished one gets another part": {"garbage BACKUPS", func(d *deadly) {
			d.fake.Put("basebackups_005/base_"+wal24(1, 1)+"/tar_partitions/part_002.tar.lz4", []byte("x"))
		}, 1, "basebackups_005/base_" + wal24(1, 1) + "/tar_partitions/part_001.tar.lz4"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeadly(t, dir)
			d.fake.Put("basebackups_005/base_"+wal24(1, 1)+"/tar_partitions/part_001.tar.lz4", []byte("x"))
			args := append([]string{"delete", "--confirm", "--grace", "0"}, strings.Fields(c.words)...)
			d.mu.Lock()
			d.onList = func(n int) {
				if n == 2 { // the one after that of the plan
					c.change(d)
				}
			}
			d.mu.Unlock()
			if out, status := d.say(t, args...); status != c.status {
				t.Errorf("status %d, want %d\n%s", status, c.status, out)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.lists < 3 || !d.fake.Has(c.stays) {
				t.Errorf("%s is gone, after %d listings", c.stays, d.lists)
			}
		})
	}
}

// On a disk the kill comes at any moment.
func TestADeleteOnADiskKilledAtAnyMomentIsConsistentAndGoesOn(t *testing.T) {
	origin := store(t)
	fill(t, origin)
	all := keysBelow(t, origin)
	want := []string(nil)
	r := random(t)
	killed := 0
	for range rounds(15, 300) {
		dir := store(t)
		fill(t, dir)
		args := []string{"delete", "retain", "FULL", "1", "--confirm", "--batch", "1", "--prefix", dir}
		if want == nil {
			if out, msg, status := execute(t, nil, append([]string{"walg-retain"}, args...)...); status != 0 {
				t.Fatalf("status %d\n%s%s", status, out, msg)
			}
			want = keysBelow(t, dir)
			continue
		}
		if storetest.KillAtRandom(t, exec.Command("walg-retain", args...), time.Duration(1+r.IntN(40))*time.Millisecond) {
			killed++
		}
		consistent(t, origin, all, keysBelow(t, dir))
		if out, msg, status := execute(t, nil, append([]string{"walg-retain"}, args...)...); status != 0 {
			t.Fatalf("status %d\n%s%s", status, out, msg)
		}
		if got := keysBelow(t, dir); !slices.Equal(got, want) {
			t.Errorf("in the end there are\n%q, want\n%q", got, want)
		}
	}
	if killed == 0 {
		t.Error("none was killed; the test proves nothing")
	}
}

// locked is a bucket of MinIO's with versions, in which objects can be locked.
type locked struct {
	api    *s3.Client
	bucket string
	t      *testing.T
}

func newLocked(t *testing.T) (l *locked, settings []string) {
	t.Helper()
	st := storages[slices.IndexFunc(storages, func(st storage) bool { return st.server == "minio" })]
	env := servertest.Get(t, st.server).Env
	l = &locked{t: t, bucket: "locked-" + strings.ToLower(rand.Text())}
	l.api = s3.New(s3.Options{
		BaseEndpoint: aws.String(env["AWS_ENDPOINT"]), Region: env["AWS_REGION"], UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], ""),
	})
	_, err := l.api.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &l.bucket, ObjectLockEnabledForBucket: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	return l, append(st.settings(t), st.prefix+"=s3://"+l.bucket+"/main", "S3_ENABLE_VERSIONING=enabled")
}

// lock forbids to remove the newest version of an object until then, which the
// owner may change.
func (l *locked) lock(key string, until time.Time) {
	l.t.Helper()
	_, err := l.api.PutObjectRetention(l.t.Context(), &s3.PutObjectRetentionInput{
		Bucket: &l.bucket, Key: aws.String("main/" + key), BypassGovernanceRetention: aws.Bool(true),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeGovernance, RetainUntilDate: &until},
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// unlock takes the lock away.
func (l *locked) unlock(key string) {
	l.t.Helper()
	_, err := l.api.PutObjectRetention(l.t.Context(), &s3.PutObjectRetentionInput{
		Bucket: &l.bucket, Key: aws.String("main/" + key), BypassGovernanceRetention: aws.Bool(true), Retention: &types.ObjectLockRetention{},
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// versions are the keys of all versions and markers, each once.
func (l *locked) versions() (keys []string) {
	l.t.Helper()
	pages := s3.NewListObjectVersionsPaginator(l.api, &s3.ListObjectVersionsInput{Bucket: &l.bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		for _, v := range page.Versions {
			keys = append(keys, strings.TrimPrefix(*v.Key, "main/"))
		}
		for _, m := range page.DeleteMarkers {
			keys = append(keys, strings.TrimPrefix(*m.Key, "main/"))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// What is locked stays, is told, and does not hold up the rest; a backup whose
// sentinel stays keeps all that it needs. When the locks are gone the next run
// finishes, and no version of anything is left behind.
func TestLockedObjectsInAVersionedBucketStayAndTheRestGoes(t *testing.T) {
	together(t)
	dir := store(t)
	fill(t, dir)
	all := keysBelow(t, dir)
	l, settings := newLocked(t)
	s := client(t, settings...)
	s.upload(dir)
	s.upload(dir) // two versions of each
	delta := "basebackups_005/base_" + wal24(1, 4) + "_D_" + wal24(1, 2)
	locks := []string{
		delta + sentinelEnd,
		"basebackups_005/base_" + wal24(1, 8) + "/tar_partitions/part_001.tar.lz4",
		"wal_005/" + wal24(1, 1) + ".lz4",
	}
	for _, key := range locks {
		l.lock(key, time.Now().Add(time.Hour))
	}
	line := "walg-delete retain FULL 1 --grace 0 --confirm"
	_, msg, status := s.run(line)
	if status != 1 || !strings.Contains(msg, "3 objects stay") {
		t.Fatalf("status %d\n%s", status, msg)
	}
	for _, key := range locks {
		if strings.Count(msg, key+" stays: ") != 1 {
			t.Errorf("%s is not told to stay:\n%s", key, msg)
		}
	}
	// All WAL from the start of base 2 on stays, because a delta on it does. The
	// parts of the unfinished base 3 come after that. The metadata of base 8 says
	// what its part belongs to.
	locks = append(locks, "basebackups_005/base_"+wal24(1, 8)+"/metadata.json")
	want := slices.DeleteFunc(slices.Clone(all), func(key string) bool {
		gone := []string{wal24(1, 6) + "_D_", wal24(1, 10) + "_D_", "base_" + wal24(1, 8)}
		return !slices.Contains(locks, key) && (slices.ContainsFunc(gone, func(s string) bool { return strings.Contains(key, s) }) ||
			strings.HasPrefix(key, "wal_005/"+wal24(1, 0)))
	})
	if got := s.listed(""); !slices.Equal(got, want) {
		t.Errorf("left are\n%q, want\n%q", got, want)
	}
	for _, key := range locks[:3] {
		l.unlock(key)
	}
	s.must(line)
	if _, msg, status := sh(t, line, "WALG_FILE_PREFIX="+dir); status != 0 {
		t.Fatalf("on a disk: status %d\n%s", status, msg)
	}
	want = keysBelow(t, dir)
	if got := s.listed(""); !slices.Equal(got, want) {
		t.Errorf("in the end there are\n%q, want\n%q", got, want)
	}
	if got := l.versions(); !slices.Equal(got, want) {
		t.Errorf("there are versions of\n%q, want\n%q", got, want)
	}
}
