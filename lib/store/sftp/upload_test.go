package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/storetest"
	"walg/lib/store/wire"
)

// A small put is cut at each of its requests, before it reaches the server or
// before its answer comes back. It succeeds all the same, once, and leaves
// nothing behind.
func TestSmallPutSurvivesEachCut(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for kind, requests := range map[string]int{"replace": 9, "absent": 10, "directory": 8} {
		for n := range requests {
			for side := range 2 {
				t.Run(fmt.Sprint(kind, n, side), func(t *testing.T) {
					t.Parallel()
					x, q := p.newProxy(t)
					d := q.open(t)
					_, err := d.conn(t.Context())
					must(t, err)
					key := fmt.Sprintf("%s%d%d/k", kind, n, side)
					dir := filepath.Dir(p.file(key))
					if kind != "directory" {
						must(t, os.Mkdir(dir, 0o777))
						must(t, os.Chmod(dir, 0o777))
					}
					if kind == "replace" {
						must(t, os.WriteFile(p.file(key), []byte("old"), 0o666))
					}
					if side == 0 {
						x.after(pieces(n), nil)
					} else {
						x.after(nil, pieces(n))
					}
					o := store.PutOptions{IfAbsent: kind != "replace"}
					must(t, q.store(d).Put(t.Context(), key, strings.NewReader("new one"), o))
					got, err := os.ReadFile(p.file(key))
					if err != nil || string(got) != "new one" {
						t.Errorf("the server has %q, %v", got, err)
					}
					entries, err := os.ReadDir(dir)
					if err != nil || len(entries) != 1 {
						t.Errorf("the directory has %v, %v", entries, err)
					}
					if x.wasCut() == 0 {
						t.Error("nothing was cut")
					}
				})
			}
		}
	}
}

// The answer to the request that makes the object does not come.
func TestCommitWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, absent := range []bool{false, true} {
		p := newPlace(t)
		x, q := p.newProxy(t)
		d := q.open(t)
		must(t, os.WriteFile(p.file("other"), []byte("old"), 0o666))
		u, err := d.Begin(t.Context(), p.key("k"), driver.Options{IfAbsent: absent})
		must(t, err)
		must(t, u.Part(t.Context(), 1, 0, []byte("first ")))
		must(t, u.Part(t.Context(), 2, 6, []byte("second")))
		x.after(nil, once(func() bool { _, err := os.Lstat(p.file("k")); return err == nil }))
		whole := driver.Sum{Size: 12}
		wantError(t, u.Commit(t.Context(), 2, whole), fault.Failed, "the connection was lost", "")
		if x.wasCut() != 1 {
			t.Error("nothing was cut")
		}
		must(t, u.Commit(t.Context(), 2, whole))
		must(t, u.Commit(t.Context(), 2, whole)) // and once more
		p.wantTree(t, "k", "other")
	}
}

// The same, but the object is another's: the conditional put has lost.
func TestCommitThatLostIsToldSo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	x, q := p.newProxy(t)
	u, err := q.open(t).begin(t.Context(), p.key("k"), driver.Options{IfAbsent: true})
	must(t, err)
	must(t, u.Part(t.Context(), 1, 0, []byte("mine")))
	other := func(int) bool {
		// As soon as the part is durable and about to be linked.
		fi, err := os.Lstat("/" + strings.TrimPrefix(u.temp, "/"))
		if err == nil && fi.Size() == 4 {
			os.WriteFile(p.file("k"), []byte("your"), 0o666)
		}
		return false
	}
	x.after(other, nil)
	if err := u.Commit(t.Context(), 1, driver.Sum{Size: 4}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Commit = %v", err)
	}
	// As after an answer that was lost.
	u.landing = true
	if err := u.Commit(t.Context(), 1, driver.Sum{Size: 4}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Commit again = %v", err)
	}
	must(t, u.Abort(t.Context()))
	p.wantTree(t, "k")
	if got, _ := os.ReadFile(p.file("k")); string(got) != "your" {
		t.Errorf("the object is %q", got)
	}
}

func TestLargePutSurvivesCuts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	x, q := p.newProxy(t)
	const size = 45 * mib
	x.after(bytes(15*mib, 20*mib, mib), nil)
	must(t, q.store(q.open(t)).Put(t.Context(), "k", storetest.Content("k", size), store.PutOptions{}))
	if cuts := x.wasCut(); cuts != 3 {
		t.Errorf("%d cuts", cuts)
	}
	p.wantContent(t, "k", size)
	p.wantTree(t, "k")
}

// wantContent compares a file of the server with storetest.Content.
func (p place) wantContent(t *testing.T, key string, size int64) {
	t.Helper()
	f, err := os.Open(p.file(key))
	must(t, err)
	defer f.Close()
	same(t, f, storetest.Content(key, size))
}

func same(t *testing.T, a, b io.Reader) {
	t.Helper()
	bufA, bufB := make([]byte, mib), make([]byte, mib)
	for at := 0; ; at += mib {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if string(bufA[:n]) != string(bufB[:m]) || errA != errB {
			t.Fatalf("differs after %d: %d and %d bytes, %v, %v", at, n, m, errA, errB)
		}
		if errA != nil {
			return
		}
	}
}

// A server that was restarted may have lost what it had taken and not yet
// written. The size alone would not show it.
func TestServerThatLostAPart(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for name, damage := range map[string]func(temp string) error{
		"zeros": func(temp string) error { return os.WriteFile(temp, make([]byte, 4), 0o644) },
		"short": func(temp string) error { return os.Truncate(temp, 1) },
		"gone":  os.Remove,
	} {
		u, err := p.open(t).begin(t.Context(), p.key(name), driver.Options{})
		must(t, err)
		must(t, u.Part(t.Context(), 1, 0, []byte("data")))
		u.c.fail(errors.New("power cut"))
		must(t, damage(u.temp))
		words := "the server lost what it had taken, at 0"
		if name == "gone" {
			words = "the temporary file is gone"
		}
		wantError(t, u.Part(t.Context(), 2, 4, []byte("more")), fault.Failed, words, "")
		wantError(t, u.Commit(t.Context(), 2, driver.Sum{Size: 8}), fault.Failed, words, "")
		must(t, u.Abort(t.Context()))
	}
	// What is durable is not read back, and nothing that is whole is refused.
	u, err := p.open(t).begin(t.Context(), p.key("k"), driver.Options{})
	must(t, err)
	must(t, u.Part(t.Context(), 1, 0, []byte("data")))
	u.mu.Lock()
	must(t, u.sync(t.Context()))
	u.mu.Unlock()
	if len(u.loose) != 0 || u.looseIn != 0 {
		t.Errorf("%d bytes are loose", u.looseIn)
	}
	must(t, u.Part(t.Context(), 2, 4, []byte("more")))
	u.c.fail(errors.New("cut"))
	must(t, u.Commit(t.Context(), 2, driver.Sum{Size: 8}))
	if got, err := os.ReadFile(p.file("k")); string(got) != "datamore" {
		t.Errorf("the object is %q, %v", got, err)
	}
}

func TestCommitChecksTheSize(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	u, err := p.open(t).Begin(t.Context(), p.key("k"), driver.Options{})
	must(t, err)
	must(t, u.Part(t.Context(), 1, 0, []byte("data")))
	wantError(t, u.Commit(t.Context(), 1, driver.Sum{Size: 5}), fault.Data, "the server has 4 bytes of 5", "")
	must(t, u.Abort(t.Context()))
	p.wantTree(t)
}

func TestAbortOnANewConnection(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	up, err := d.Begin(t.Context(), p.key("a/b/k"), driver.Options{})
	must(t, err)
	must(t, up.Part(t.Context(), 1, 0, []byte("data")))
	d.line.fail(errors.New("cut"))
	must(t, up.Abort(t.Context()))
	must(t, up.Abort(t.Context()))
	p.wantTree(t)
}

// While objects are replaced a reader sees the one or the other, whole, and
// never none.
func TestReplacementIsAtomic(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	s := p.store(d)
	text := func(i int) string { return strings.Repeat(fmt.Sprint(i%10), 1000+i) }
	must(t, s.Put(t.Context(), "k", strings.NewReader(text(0)), store.PutOptions{}))
	var writer sync.WaitGroup
	defer writer.Wait()
	done := make(chan struct{})
	writer.Go(func() {
		defer close(done)
		for i := range 40 {
			if err := s.Put(t.Context(), "k", strings.NewReader(text(i)), store.PutOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got, err := os.ReadFile(p.file("k"))
		if err != nil || len(got) < 1000 || string(got) != strings.Repeat(string(got[0]), len(got)) {
			t.Fatalf("a reader saw %d bytes, %v", len(got), err)
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	must(t, p.store(d).Put(t.Context(), "a/b/k", strings.NewReader("x"), store.PutOptions{}))
	// As with a server whose umask is 0.
	c := d.line
	must(t, c.sftp.Chmod(p.file("a/b"), 0o777))
	must(t, c.limitMode(t.Context(), p.file("a/b")))
	u, err := d.begin(t.Context(), p.key("a/l"), driver.Options{})
	must(t, err)
	must(t, u.file.Chmod(0o666))
	must(t, u.Commit(t.Context(), 0, driver.Sum{}))
	for name, want := range map[string]os.FileMode{"a": 0o755, "a/b": 0o755, "a/b/k": 0o644, "a/l": 0o644} {
		if fi, err := os.Stat(p.file(name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", name, fi.Mode(), err)
		}
	}
}

// A server without extensions can make objects, but not replace them.
func TestServerWithoutExtensions(t *testing.T) {
	t.Parallel()
	p := new(fakeServer).start(t, nil)
	d := p.open(t)
	s := remote.New(d, "", remote.Policy{})
	must(t, s.Put(t.Context(), "d/k", strings.NewReader("first"), store.PutOptions{}))
	must(t, s.Put(t.Context(), "d/l", strings.NewReader("first"), store.PutOptions{IfAbsent: true}))
	err := s.Put(t.Context(), "d/k", strings.NewReader("second"), store.PutOptions{})
	wantError(t, err, fault.Usage, "the server answers ", "cannot replace an object (it has no posix-rename@openssh.com)")
	err = s.Put(t.Context(), "d/k", strings.NewReader("second"), store.PutOptions{IfAbsent: true})
	if fault.Status(err) != fault.Exists {
		t.Errorf("Put = %v, want status 73", err)
	}
	r, _, err := s.Get(t.Context(), "d/k", 0)
	must(t, err)
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "first" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for l, err := range s.Leftovers(t.Context(), "") {
		t.Errorf("leftover %v, %v", l, err)
	}
	must(t, s.Delete(t.Context(), "d/k", "d/l", "none"))
	for info, err := range s.List(t.Context(), "") {
		t.Errorf("still there: %v, %v", info, err)
	}
}

// A request that stalls is given up, on whichever side, and the next one has a
// new connection. Nobody is watched who waits for nothing.
func TestStalledRequests(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	x, q := p.newProxy(t)
	must(t, os.WriteFile(p.file("k"), []byte("data"), 0o666))
	d := q.open(t)
	const limit = time.Second
	hurry := func() {
		t.Helper()
		c, err := d.conn(t.Context())
		must(t, err)
		c.line.mu.Lock()
		defer c.line.mu.Unlock()
		c.line.limit = limit
	}
	stat := func() error { _, err := d.Stat(t.Context(), p.key("k")); return err }
	part := make([]byte, 8*mib)
	hurry()
	idle := d.line
	must(t, stat())
	time.Sleep(limit * 5 / 4) // that nothing happens is the test
	if must(t, stat()); idle != d.line {
		t.Error("a connection on which nothing was waited for was closed")
	}
	u, err := d.begin(t.Context(), p.key("l"), driver.Options{})
	must(t, err)
	for _, test := range []struct {
		op string
		f  func() error
	}{
		{"stat", stat},
		{"part", func() error { return u.Part(t.Context(), 1, 0, part) }},
		{"connect", stat},
	} {
		if test.op == "connect" {
			d.stall = limit
		} else {
			hurry()
			if test.op == "part" {
				must(t, u.Part(t.Context(), 1, 0, part[:1])) // opens the file again
			}
		}
		x.freeze()
		begun := time.Now()
		if err := test.f(); !errors.Is(err, wire.ErrStalled) {
			t.Errorf("%s = %v", test.op, err)
		}
		if took := time.Since(begun); took > 10*limit {
			t.Errorf("%s was given up after %v", test.op, took)
		}
		d.stall = defaultStall
		x.thaw()
	}
	must(t, u.Part(t.Context(), 1, 0, part))
	must(t, u.Commit(t.Context(), 1, driver.Sum{Size: 8 * mib}))
	p.wantTree(t, "k", "l")
}

// A server that answers nothing does not hold up who has been told to stop.
func TestCancelledRequests(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	x, q := p.newProxy(t)
	d := q.open(t)
	must(t, os.WriteFile(p.file("k"), []byte("data"), 0o666))
	_, err := d.Stat(t.Context(), p.key("k"))
	must(t, err)
	cause := errors.New("told to stop")
	for _, op := range []string{"Stat", "connect", "wait for another's connection"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		x.freeze()
		var other sync.WaitGroup
		if op == "wait for another's connection" {
			d.gate <- struct{}{}
			other.Go(func() { <-ctx.Done(); <-d.gate })
		}
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		begun := time.Now()
		if _, err := d.Stat(ctx, p.key("k")); !errors.Is(err, cause) {
			t.Errorf("%s = %v, want the cause", op, err)
		}
		if took := time.Since(begun); took > grace+2*time.Second {
			t.Errorf("%s ended after %v", op, took)
		}
		x.thaw()
		other.Wait()
	}
	_, err = d.Stat(t.Context(), p.key("k"))
	must(t, err)
}

// A request that is cancelled while the server is well leaves the connection
// to others.
func TestCancelledPutKeepsTheConnection(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	u, err := d.begin(t.Context(), p.key("k"), driver.Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.Part(ctx, 1, 0, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Part = %v", err)
	}
	if u.c.broken() {
		t.Error("the connection was closed")
	}
	must(t, u.Abort(t.Context()))
}

// OpenSSH on Linux opens a directory as a file and syncs it; what syncDir does
// where that fails is nothing.
func TestDirectoriesCanBeSynced(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c, err := p.open(t).conn(t.Context())
	must(t, err)
	for _, ext := range []string{extRename, extLink, extSync, extSpace} {
		if _, ok := c.sftp.HasExtension(ext); !ok {
			t.Errorf("the server has no %s", ext)
		}
	}
	f, err := c.sftp.Open(p.Root)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, c.syncDir(t.Context(), p.Root))
	must(t, c.syncDir(t.Context(), p.Root+"/none"))
	c.fail(errors.New("cut"))
	wantError(t, c.syncDir(t.Context(), p.Root), fault.Failed, "the connection was lost: cut", "")
}
