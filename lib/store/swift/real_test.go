package swift

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	api "github.com/ncw/swift/v2"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

// large puts an object of so many parts of five bytes.
func large(ctx context.Context, d *Driver, key string, parts int, o driver.Options) ([]byte, error) {
	up, err := d.Begin(ctx, key, o)
	if err != nil {
		return nil, err
	}
	var all []byte
	for n := range parts {
		data := fmt.Appendf(nil, "%04d\n", n)
		if err := up.Part(ctx, n+1, int64(len(all)), data); err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	err = up.Commit(ctx, parts, driver.Sum{Size: int64(len(all)), CRC32C: crc32.Checksum(all, castagnoli)})
	if err != nil {
		return nil, errors.Join(err, up.Abort(ctx))
	}
	return all, nil
}

func mustLarge(t *testing.T, d *Driver, key string, parts int) []byte {
	t.Helper()
	all, err := large(t.Context(), d, key, parts, driver.Options{Meta: map[string]string{"walg-put": key}})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, d *Driver, key string, at, n int64) (string, driver.Object) {
	t.Helper()
	body, o, err := d.Read(t.Context(), key, at, n, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	p, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(p), o
}

// segments lists what is in the container of parts below a prefix.
func segments(t *testing.T, d *Driver, prefix string) []string {
	t.Helper()
	page, err := d.list(t.Context(), d.segments, prefix, "")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range page {
		names = append(names, e.Name)
	}
	return names
}

func leftovers(t *testing.T, d *Driver, prefix string) []store.Leftover {
	t.Helper()
	var all []store.Leftover
	for l, err := range d.Unfinished(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func TestLargeObjects(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	d.ability.Store(&ability{bulk: true, segments: 3})
	// Ten parts at most: from the eleventh small one on Swift waits a second each.
	for _, c := range []struct {
		key   string
		parts int
	}{
		{"one", 1}, {"three", 3}, {"four", 4}, {"three levels", 10},
		{"per%20cent+&=?#;,'()*~/Grüße 日本語/:" + strings.Repeat("x", 200), 4},
		{strings.Repeat("n", maxLarge-len(root)), 4},
	} {
		key := root + c.key
		want := mustLarge(t, d, key, c.parts)
		o, err := d.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if o.Size != int64(len(want)) || o.MD5 != nil || o.CRC32C == nil || *o.CRC32C != crc32.Checksum(want, castagnoli) ||
			!maps.Equal(o.Meta, map[string]string{"walg-put": key}) {
			t.Errorf("%s: Stat says %+v", c.key, o)
		}
		if got, _ := read(t, d, key, 0, 1<<20); got != string(want) {
			t.Errorf("%s: read %q", c.key, got)
		}
		if n := int64(len(want)); n > 7 {
			if got, o := read(t, d, key, 3, n-5); got != string(want[3:n-2]) || o.Size != n {
				t.Errorf("%s: range gives %q of %d", c.key, got, o.Size)
			}
		}
		page, _, err := d.Page(t.Context(), key, "")
		if err != nil || len(page) != 1 || page[0].Size != int64(len(want)) {
			t.Errorf("%s: listed as %+v, %v", c.key, page, err)
		}
		if n := len(segments(t, d, key)); n < c.parts {
			t.Errorf("%s: %d segments", c.key, n)
		}
		if l := leftovers(t, d, root); len(l) != 0 {
			t.Errorf("%s: leftovers %+v", c.key, l)
		}
		if err := d.Delete(t.Context(), []string{key, root + "absent"}); err != nil {
			t.Error(err)
		}
		if s := segments(t, d, root); len(s) != 0 {
			t.Errorf("%s: Delete leaves %q", c.key, s)
		}
	}
}

func TestReplacingALargeObjectRemovesItsParts(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	key := root + "k"
	for _, bulk := range []bool{true, false} {
		d.ability.Store(&ability{bulk: bulk, segments: 3})
		mustLarge(t, d, key, 5)
		old := segments(t, d, root)
		_, o := read(t, d, key, 0, 1)
		want := mustLarge(t, d, key, 4)
		now := segments(t, d, root)
		if got, _ := read(t, d, key, 0, 100); got != string(want) || slices.ContainsFunc(now, func(s string) bool { return slices.Contains(old, s) }) {
			t.Errorf("read %q; of %q there is %q", got, old, now)
		}
		if _, _, err := d.Read(t.Context(), key, 1, 1, o.Version); !errors.Is(err, driver.ErrChanged) {
			t.Errorf("read of the old object: %v", err)
		}
		if err := d.Whole(t.Context(), key, []byte("small"), driver.Options{}); err != nil {
			t.Fatal(err)
		}
		if got, _ := read(t, d, key, 0, 100); got != "small" || len(segments(t, d, root)) != 0 {
			t.Errorf("read %q, left %q", got, segments(t, d, root))
		}
	}
}

// A commit whose answer was lost is done again, over its own object.
func TestACommitThatIsRepeatedKeepsItsParts(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	lost := &losing{next: d.c.Transport, what: "PUT", path: "/walg/" + root}
	d.c.Transport = lost
	for _, o := range []driver.Options{{}, {IfAbsent: true}} {
		o.Meta = map[string]string{"walg-put": "it"}
		key := root + fmt.Sprint("if absent ", o.IfAbsent)
		up, err := d.Begin(t.Context(), key, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Part(t.Context(), 1, 0, []byte("content")); err != nil {
			t.Fatal(err)
		}
		lost.times.Store(1)
		if err := up.Commit(t.Context(), 1, driver.Sum{Size: 7}); err == nil || fault.Status(err) != fault.Failed {
			t.Errorf("first commit: %v", err)
		}
		err = up.Commit(t.Context(), 1, driver.Sum{Size: 7})
		if o.IfAbsent != errors.Is(err, fs.ErrExist) || !o.IfAbsent && err != nil {
			t.Errorf("second commit: %v", err)
		}
		// Where nobody finds out that it is ours, its parts stay all the same.
		if err := up.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if got, _ := read(t, d, key, 0, 100); got != "content" {
			t.Errorf("read %q", got)
		}
	}
}

// losing drops answers, as a network does.
type losing struct {
	next       http.RoundTripper
	what, path string
	times      atomic.Int32
}

func (l *losing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err == nil && req.Method == l.what && strings.Contains(req.URL.Path, l.path) && l.times.Add(-1) >= 0 {
		resp.Body.Close()
		return nil, errors.New("connection reset by peer")
	}
	return resp, err
}

// bending changes the last byte of what is put.
type bending struct{ next http.RoundTripper }

func (b bending) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == "PUT" && req.Body != nil {
		p, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		p[len(p)-1]++
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(p))
	}
	return b.next.RoundTrip(req)
}

func TestTheServerChecksWhatArrives(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	up, err := d.Begin(t.Context(), root+"large", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	straight := d.c.Transport
	bent, _ := newDriver(servertest.Get(t, "swift").Env)
	bent.c.Transport = bending{straight}
	up.(*upload).d = bent
	for what, err := range map[string]error{
		"object": bent.Whole(t.Context(), root+"k", []byte("content"), driver.Options{}),
		"part":   up.Part(t.Context(), 1, 0, []byte("content")),
	} {
		if err == nil || fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "422") {
			t.Errorf("%s: %v, want 422, and to try again", what, err)
		}
	}
	// A part that is not what it was when it was sent.
	up.(*upload).d = d
	if err := up.Part(t.Context(), 1, 0, []byte("content")); err != nil {
		t.Fatal(err)
	}
	name := segments(t, d, root)[0]
	if err := d.put(t.Context(), d.segments, name, nil, api.Headers{}, []byte("CONTENT")); err != nil {
		t.Fatal(err)
	}
	if err := up.Commit(t.Context(), 1, driver.Sum{Size: 7}); err == nil || fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "Etag Mismatch") {
		t.Errorf("commit of a changed part: %v", err)
	}
	for _, n := range []int{1, 2} {
		if err := up.Commit(t.Context(), n, driver.Sum{Size: 6}); err == nil {
			t.Errorf("commit of %d parts, 6 bytes, which are one of 7", n)
		}
	}
	if err := up.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if page, _, err := d.Page(t.Context(), root, ""); err != nil || len(page) != 0 || len(segments(t, d, root)) != 0 {
		t.Errorf("there is %+v, %q, %v", page, segments(t, d, root), err)
	}
}

// Of writers that race for one name more than one may win, by bad luck, but
// one does, all others are told that they lost, and the object is whole and a winner's.
func TestWritersThatRace(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	s := remote.New(d, root, remote.Policy{})
	const writers = 32
	for round := range 5 {
		key := fmt.Sprint("race", round)
		var won [writers]atomic.Bool
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				err := s.Put(t.Context(), key, storetest.Content(fmt.Sprint(w), int64(1000+w)), store.PutOptions{IfAbsent: true})
				won[w].Store(err == nil)
				if err != nil && !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		got, o := read(t, d, root+key, 0, 1<<20)
		w := int(o.Size) - 1000
		want, _ := io.ReadAll(storetest.Content(fmt.Sprint(w), o.Size))
		if w < 0 || w >= writers || !won[w].Load() || got != string(want) {
			t.Errorf("%s: %d bytes of writer %d, who is no winner, or not whole", key, o.Size, w)
		}
		if err := s.Put(t.Context(), key, strings.NewReader("late"), store.PutOptions{IfAbsent: true}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: a late writer: %v", key, err)
		}
	}
}

func TestIfAbsentOfLargeObjects(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	const writers = 8
	var won atomic.Int32
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			_, err := large(t.Context(), d, root+"k", w+1, driver.Options{IfAbsent: true, Meta: map[string]string{"walg-put": fmt.Sprint(w)}})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist) && !strings.Contains(err.Error(), "newer object"):
				t.Error(err)
			}
		})
	}
	group.Wait()
	got, o := read(t, d, root+"k", 0, 1000)
	if won.Load() == 0 || len(got) != int(o.Size) || len(got)%5 != 0 {
		t.Errorf("%d won; read %q of %d", won.Load(), got, o.Size)
	}
	if _, err := large(t.Context(), d, root+"k", 3, driver.Options{IfAbsent: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("later: %v", err)
	}
}

func TestUnfinishedUploads(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	d.ability.Store(&ability{bulk: true, segments: 2})
	want := mustLarge(t, d, root+"b", 3)
	for _, key := range []string{"a", "b", "b c"} {
		up, err := d.Begin(t.Context(), root+key, driver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			if err := up.Part(t.Context(), n, 0, []byte("0123456789")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := up.(*upload).nest(t.Context(), []part{up.(*upload).parts[1]}, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	all := leftovers(t, d, root)
	for _, l := range all {
		keys = append(keys, strings.TrimPrefix(l.Key, root))
		if l.Size != 30 || l.Started.IsZero() || l.ModTime.Before(l.Started) {
			t.Errorf("%+v", l)
		}
	}
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"a", "b", "b c"}) || !slices.IsSortedFunc(all, func(a, b store.Leftover) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("leftovers %+v", all)
	}
	if one := leftovers(t, d, root+"a"); len(one) != 1 {
		t.Errorf("below a: %+v", one)
	}
	if got, _ := read(t, d, root+"b", 0, 100); got != string(want) {
		t.Errorf("read %q", got)
	}
	// The parts of an object look like those of an upload.
	parts := segments(t, d, root+"b.tmp.")
	own := slices.DeleteFunc(slices.Clone(parts), func(name string) bool {
		return slices.ContainsFunc(all, func(l store.Leftover) bool { return strings.HasPrefix(name, l.Name+"/") })
	})
	if len(own) == 0 || len(own) == len(parts) {
		t.Fatalf("of the parts %q these are the object's: %q", parts, own)
	}
	for _, name := range []string{path.Dir(own[0]), root + "b"} {
		if err := d.Discard(t.Context(), store.Leftover{Name: name, Key: root + "b"}); fault.Status(err) != fault.Usage {
			t.Errorf("discard of the object's own %s = %v, want status 64", name, err)
		}
	}
	for range 2 { // an absent one is no error
		for _, l := range all {
			if err := d.Discard(t.Context(), l); err != nil {
				t.Errorf("discard %s: %v", l.Name, err)
			}
		}
	}
	if left := leftovers(t, d, root); len(left) != 0 {
		t.Errorf("discarded, and there are %+v", left)
	}
	if left := segments(t, d, root); !slices.Equal(left, own) {
		t.Errorf("of the parts there are %q, want %q", left, own)
	}
	if got, _ := read(t, d, root+"b", 0, 100); got != string(want) {
		t.Errorf("afterwards the object reads %q", got)
	}
}

// Large objects of Swift's own client, and what it makes of ours.
func TestTheStockClientAgrees(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	dir := t.TempDir()
	env := os.Environ()
	for name, value := range servertest.Get(t, "swift").Env {
		env = append(env, name+"="+value)
	}
	client := func(args ...string) {
		t.Helper()
		cmd := exec.Command("swift", append([]string{"--auth-version", "1", "--auth", servertest.Get(t, "swift").Env["OS_AUTH_URL"],
			"--user", "test:tester", "--key", servertest.Get(t, "swift").Env["OS_PASSWORD"]}, args...)...)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	want := mustLarge(t, d, root+"ours", 8)
	client("download", "walg", root+"ours", "-o", "ours")
	if got, err := os.ReadFile(filepath.Join(dir, "ours")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the client read %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "theirs"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	client("upload", "walg", "theirs", "--object-name", root+"static", "-S", "15", "--use-slo", "--segment-container", "their_parts")
	client("upload", "walg", "theirs", "--object-name", root+"dynamic", "-S", "15", "--segment-container", "their_parts")
	for _, key := range []string{root + "static", root + "dynamic"} {
		if got, o := read(t, d, key, 0, 1000); got != string(want) || o.Size != 40 || o.MD5 != nil {
			t.Errorf("%s: read %q of %+v", key, got, o)
		}
		if got, o := read(t, d, key, 25, 10); got != string(want[25:35]) || o.Size != 40 {
			t.Errorf("%s: range gives %q of %+v", key, got, o)
		}
		if o, err := d.Stat(t.Context(), key); err != nil || o.Size != 40 {
			t.Errorf("%s: %+v, %v", key, o, err)
		}
	}
	_, o := read(t, d, root+"dynamic", 0, 1)
	if body, _, err := d.Read(t.Context(), root+"dynamic", 20, 10, o.Version); err != nil {
		t.Errorf("dynamic, the same version: %v", err)
	} else {
		body.Close()
	}
	theirs := func() int {
		page, err := d.list(t.Context(), "their_parts", "", "")
		if err != nil {
			t.Fatal(err)
		}
		return len(page)
	}
	before := theirs()
	if err := d.Whole(t.Context(), root+"static", []byte("x"), driver.Options{}); err != nil {
		t.Fatal(err)
	}
	if n := before - theirs(); n != 3 {
		t.Errorf("replacing a static large object removed %d parts, want 3", n)
	}
	if err := d.Delete(t.Context(), []string{root + "static", root + "dynamic"}); err != nil {
		t.Fatal(err)
	}
	if n := before - theirs(); n != 3 {
		t.Errorf("%d parts are gone, want 3: those of a dynamic one stay", n)
	}
	if page, _, err := d.Page(t.Context(), root, ""); err != nil || len(page) != 1 {
		t.Errorf("there is %+v, %v", page, err)
	}
}

func TestWrongPasswordAndMissingContainer(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", map[string]string{"OS_PASSWORD": "the-secret"})
	_, err := d.Stat(t.Context(), root+"k")
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "OS_PASSWORD") || strings.Contains(err.Error(), "the-secret") {
		t.Errorf("wrong password: %v, hint %q", err, fault.Hint(err))
	}
	d, _ = real(t, "swift", nil)
	d.container, d.segments = "nowhere", "nowhere_segments"
	_, stat := d.Stat(t.Context(), "k")
	_, _, got := d.Read(t.Context(), "k", 0, 1, "")
	_, _, list := d.Page(t.Context(), "", "")
	_, begin := d.Begin(t.Context(), "k", driver.Options{})
	for op, err := range map[string]error{"stat": stat, "read": got, "list": list, "begin": begin,
		"put":    d.Whole(t.Context(), "k", []byte("x"), driver.Options{IfAbsent: true}),
		"delete": d.Delete(t.Context(), []string{"k"})} {
		if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_SWIFT_PREFIX") {
			t.Errorf("%s: %v, hint %q", op, err, fault.Hint(err))
		}
	}
}

// Keystone, in short: all but the login is the same.
func TestVersion3(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift-v3", nil)
	d.partSize = mib
	s := remote.New(d, root, remote.Policy{})
	for _, size := range []int64{0, 1000, 3*mib + 1} {
		key := fmt.Sprint("k", size)
		if err := s.Put(t.Context(), key, storetest.Content(key, size), store.PutOptions{IfAbsent: true, Meta: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
		r, info, err := s.Get(t.Context(), key, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		want, _ := io.ReadAll(storetest.Content(key, size))
		if err != nil || !bytes.Equal(got, want) || info.Meta["a"] != "b" {
			t.Errorf("%d bytes: %d came back, %v, %+v", size, len(got), err, info)
		}
	}
	n := 0
	for _, err := range s.List(t.Context(), "k") {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), "k0", "k1000", fmt.Sprint("k", 3*mib+1)); err != nil || n != 3 {
		t.Errorf("%d listed; delete: %v", n, err)
	}
	if left := segments(t, d, root); len(left) != 0 {
		t.Errorf("left %q", left)
	}

	for name, change := range map[string]map[string]string{
		"wrong password": {"OS_PASSWORD": "the-secret"},
		"wrong project":  {"OS_PROJECT_NAME": "other"},
		"wrong region":   {"OS_REGION_NAME": "Nowhere"},
	} {
		bad, _ := real(t, "swift-v3", change)
		_, err := bad.Stat(t.Context(), "k")
		hint := fault.Hint(err)
		if fault.Status(err) != fault.Usage || strings.Contains(err.Error(), "the-secret") || !strings.Contains(hint, slices.Collect(maps.Keys(change))[0]) {
			t.Errorf("%s: %v, hint %q", name, err, hint)
		}
	}
}

// An application credential is a login of its own, made by Keystone.
func TestVersion3ApplicationCredential(t *testing.T) {
	t.Parallel()
	env := servertest.Get(t, "swift-v3").Env
	d, _ := real(t, "swift-v3", nil)
	if _, _, err := d.Page(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string, into any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, env["OS_AUTH_URL"]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		req.Header.Set("X-Auth-Token", d.c.AuthToken)
		req.Header.Set("X-Subject-Token", d.c.AuthToken)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode < 300 {
			err = json.Unmarshal(text, into)
		}
		if err != nil || resp.StatusCode > 299 {
			t.Fatalf("%s: %s, %v: %s", path, resp.Status, err, text)
		}
	}
	var token struct {
		Token struct{ User struct{ ID string } }
	}
	ask("GET", "/auth/tokens", "", &token)
	var made struct {
		Credential struct{ ID, Secret string } `json:"application_credential"`
	}
	name := rand.Text()
	ask("POST", "/users/"+url.PathEscape(token.Token.User.ID)+"/application_credentials", `{"application_credential": {"name": "`+name+`"}}`, &made)
	none := map[string]string{"OS_USERNAME": "", "OS_PASSWORD": "", "OS_PROJECT_NAME": "", "OS_USER_DOMAIN_NAME": "", "OS_PROJECT_DOMAIN_NAME": ""}
	for name, change := range map[string]map[string]string{
		"by id":   {"OS_APPLICATION_CREDENTIAL_ID": made.Credential.ID},
		"by name": {"OS_APPLICATION_CREDENTIAL_NAME": name, "OS_USERNAME": env["OS_USERNAME"], "OS_USER_DOMAIN_NAME": env["OS_USER_DOMAIN_NAME"]},
	} {
		settings := maps.Clone(none)
		maps.Copy(settings, change)
		settings["OS_APPLICATION_CREDENTIAL_SECRET"] = made.Credential.Secret
		d, root := real(t, "swift-v3", settings)
		if err := d.Whole(t.Context(), root+"k", []byte("x"), driver.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Delete(t.Context(), []string{root + "k"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
