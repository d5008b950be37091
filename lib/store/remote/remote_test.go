package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/storetest"
)

// buckets are the fake buckets of this process by their address.
var buckets = map[string]*fakeBucket{}

func backend(prepare func(*fakeBucket)) storetest.Backend {
	return storetest.Backend{
		Meta: true,
		New: func(t *testing.T) string {
			b := newFakeBucket()
			b.gate = func(op, key string) {
				if op == "part" && strings.HasSuffix(key, "killed/object") {
					time.Sleep(10 * time.Millisecond) // there is time to be killed in
				}
			}
			prepare(b)
			url, stop := b.serve()
			t.Cleanup(stop)
			buckets[url] = b
			return url
		},
		Open: func(address string) (store.Store, error) {
			if b := buckets[address]; b != nil {
				return New(b, "root dir/", quick()), nil
			}
			return New(&fakeClient{newFakeBucket(), address}, "root dir/", quick()), nil // in the child
		},
	}
}

func TestMain(m *testing.M) { storetest.Main(m, backend(nil)) }

func TestConformance(t *testing.T) {
	storetest.Run(t, backend(func(*fakeBucket) {}))
}

func TestConformanceWherePartsAreAStream(t *testing.T) {
	storetest.Run(t, backend(func(b *fakeBucket) { b.traits.Stream = true }))
}

// TestConformanceOnABadNetwork: three of ten requests fail, half of them after
// the storage has done what was asked; and answers are cut.
func TestConformanceOnABadNetwork(t *testing.T) {
	storetest.Run(t, backend(func(b *fakeBucket) {
		b.fault = flaky(0.3, 4711)
		b.cut = func(n int) int { return max(n*2/3, min(n, 1000)) }
	}))
}

func contents(n int) []byte {
	p, _ := io.ReadAll(storetest.Content("x", int64(n)))
	return p
}

func TestPartSizesReachTheLargestObject(t *testing.T) {
	for _, test := range []struct {
		traits  driver.Traits
		largest int64
	}{
		{driver.Traits{PartSize: 20 << 20, MaxPart: 5 << 30, MaxParts: 10_000}, 5 << 40},
		{driver.Traits{PartSize: 5 << 20, MaxPart: 5 << 30, MaxParts: 10_000}, 5 << 40 / 4},
		{driver.Traits{PartSize: 8 << 20, MaxPart: 4000 << 20, MaxParts: 50_000}, 15 << 40},
		{driver.Traits{PartSize: 16 << 20}, 50 << 30},
	} {
		s := &Store{traits: test.traits}
		at, n, last := int64(0), 0, int64(0)
		for at < test.largest {
			size := s.partSize(at)
			if size < last || test.traits.MaxPart > 0 && size > test.traits.MaxPart {
				t.Fatalf("part %d has %d bytes after one of %d", n+1, size, last)
			}
			at, n, last = at+size, n+1, size
		}
		if test.traits.MaxParts > 0 && n > test.traits.MaxParts {
			t.Errorf("%+v: %d parts for %d bytes", test.traits, n, test.largest)
		}
	}
	if s := (&Store{traits: driver.Traits{PartSize: 20 << 20, MaxParts: 10_000}}); s.partSize(29<<30) != 20<<20 {
		t.Errorf("parts grow before 29 GiB are sent")
	}
}

func TestTooManyPartsIsAnErrorAndNoObject(t *testing.T) {
	b := newFakeBucket()
	b.traits.MaxParts, b.traits.MaxPart = 10, 1<<20
	s := New(b, "", quick())
	err := s.Put(t.Context(), "k", storetest.Content("k", 12<<20), store.PutOptions{})
	if err == nil || !strings.Contains(err.Error(), "no more than 10 parts") {
		t.Errorf("Put = %v", err)
	}
	if len(b.objects) != 0 || len(b.uploads) != 0 {
		t.Errorf("%d objects, %d uploads are left", len(b.objects), len(b.uploads))
	}
}

// TestALostAnswerToTheCommitIsNoFailure: the storage has made the object and
// the answer is lost; the second try finds it there.
func TestALostAnswerToTheCommitIsNoFailure(t *testing.T) {
	for _, size := range []int{10, 5 << 20} {
		for _, ifAbsent := range []bool{false, true} {
			b := newFakeBucket()
			lost := 0
			b.fault = func(op string) (error, error) {
				if (op == "whole" || op == "commit") && lost == 0 {
					lost++
					return nil, errors.New("fake: connection reset")
				}
				return nil, nil
			}
			s := New(b, "", quick())
			if err := s.Put(t.Context(), "k", bytes.NewReader(contents(size)), store.PutOptions{IfAbsent: ifAbsent}); err != nil {
				t.Errorf("%d bytes, IfAbsent %v: %v", size, ifAbsent, err)
			}
			if lost != 1 || len(b.uploads) != 0 {
				t.Errorf("%d answers were lost, %d uploads left", lost, len(b.uploads))
			}
		}
	}
}

// TestAnotherWritersObjectIsNotTakenForOurs: the answer is lost and nothing was
// made; meanwhile another one made the object.
func TestAnotherWritersObjectIsNotTakenForOurs(t *testing.T) {
	b := newFakeBucket()
	lost := 0
	b.fault = func(op string) (error, error) {
		if op == "whole" && lost == 0 {
			lost++
			_ = b.make("k", []byte("theirs"), driver.Options{Meta: map[string]string{mark: "theirs"}}, nil)
			return errors.New("fake: connection reset"), nil
		}
		return nil, nil
	}
	s := New(b, "", quick())
	err := s.Put(t.Context(), "k", strings.NewReader("ours"), store.PutOptions{IfAbsent: true})
	if !errors.Is(err, fs.ErrExist) || fault.Status(err) != fault.Exists || lost != 1 {
		t.Errorf("Put = %v, want fs.ErrExist", err)
	}
}

func TestPatienceEnds(t *testing.T) {
	b := newFakeBucket()
	b.fault = func(string) (error, error) { return errors.New("fake: 503"), nil }
	notices := 0
	p := Policy{Tries: 4, MinDelay: time.Microsecond, Notice: func(error) { notices++ }}
	_, err := New(b, "", p).Stat(t.Context(), "k")
	if err == nil || !strings.Contains(err.Error(), "tried 4 times") || b.count("stat") != 4 || notices != 3 || fault.Status(err) != fault.Failed {
		t.Errorf("%v after %d tries, %d notices", err, b.count("stat"), notices)
	}
	// The budget ends it where there are many tries left.
	p = Policy{Tries: 1 << 30, MinDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond, Budget: 50 * time.Millisecond}
	begun := time.Now()
	if _, err := New(b, "", p).Stat(t.Context(), "k"); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestOneTryIsBounded(t *testing.T) {
	b := newFakeBucket()
	release := make(chan struct{})
	defer close(release)
	b.gate = func(string, string) {
		select {
		case <-release:
		case <-time.After(20 * time.Millisecond):
		}
	}
	_, err := New(b, "", Policy{Tries: 2, Timeout: time.Millisecond, MinDelay: time.Microsecond}).Stat(t.Context(), "k")
	if err == nil || !strings.Contains(err.Error(), "not done after 1ms (tried 2 times") {
		t.Errorf("Stat = %v", err)
	}
}

func TestWhatTheStorageAsksToWaitIsWaited(t *testing.T) {
	b := newFakeBucket()
	asked := 0
	b.fault = func(string) (error, error) {
		if asked++; asked == 1 {
			return &driver.Later{After: 30 * time.Millisecond, Err: errors.New("fake: slow down")}, nil
		}
		return nil, nil
	}
	begun := time.Now()
	_, err := New(b, "", quick()).Stat(t.Context(), "k")
	if !errors.Is(err, fs.ErrNotExist) || asked != 2 || time.Since(begun) < 30*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	// Longer than the budget allows is not waited for.
	asked = 0
	b.fault = func(string) (error, error) {
		asked++
		return &driver.Later{After: time.Hour, Err: errors.New("fake: slow down")}, nil
	}
	if _, err := New(b, "", quick()).Stat(t.Context(), "k"); err == nil || asked != 1 {
		t.Errorf("%v after %d tries", err, asked)
	}
}

func TestPermanentErrorsAreNotTriedAgain(t *testing.T) {
	b := newFakeBucket()
	b.fault = func(string) (error, error) {
		return driver.Permanent(errors.New("AccessDenied"), "look at FAKE_KEY"), nil
	}
	s := New(b, "", quick())
	for op, f := range map[string]func() error{
		"whole": func() error { return s.Put(t.Context(), "k", strings.NewReader("x"), store.PutOptions{}) },
		"begin": func() error { return s.Put(t.Context(), "k", storetest.Content("k", 5<<20), store.PutOptions{}) },
		"read":  func() error { _, _, err := s.Get(t.Context(), "k", 0); return err },
		"stat":  func() error { _, err := s.Stat(t.Context(), "k"); return err },
		"page": func() (last error) {
			for _, last = range s.List(t.Context(), "") {
			}
			return last
		},
		"delete": func() error { return s.Delete(t.Context(), "k") },
	} {
		if err := f(); fault.Status(err) != fault.Usage || fault.Hint(err) != "look at FAKE_KEY" || b.count(op) != 1 {
			t.Errorf("%s: %v (status %d, hint %q) after %d tries", op, err, fault.Status(err), fault.Hint(err), b.count(op))
		}
	}
}

// TestAReplacedObjectIsNotMixed: the object is replaced while it is read, by
// one of the same size.
func TestAReplacedObjectIsNotMixed(t *testing.T) {
	b := newFakeBucket()
	s := New(b, "", quick())
	if err := s.Put(t.Context(), "k", storetest.Content("old", 5<<20), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Put(t.Context(), "k", storetest.Content("new", 5<<20), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, driver.ErrChanged) || fault.Status(err) != fault.Failed {
		t.Errorf("%d bytes, %v; want ErrChanged", n, err)
	}
}

func TestDamageInTheStorageIsFound(t *testing.T) {
	for _, size := range []int{1000, 5 << 20} {
		b := newFakeBucket()
		s := New(b, "", quick())
		if err := s.Put(t.Context(), "k", bytes.NewReader(contents(size)), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		o := b.objects["k"]
		o.data[size/2] ^= 1
		r, _, err := s.Get(t.Context(), "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		// The small object's checksum comes with Stat only, for which nobody
		// asks: a driver that can say it with Read does.
		if n, err := io.Copy(io.Discard, r); size > 300_000 && (fault.Status(err) != fault.Data || n != int64(size)) {
			t.Errorf("%d of %d bytes, %v; want status 65", n, size, err)
		}
		r.Close()
	}
}

func TestMemoryIsThatOfThePieces(t *testing.T) {
	b := newFakeBucket()
	s := New(b, "", quick())
	if err := s.Put(t.Context(), "k", storetest.Content("k", 20<<20), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var reading, most atomic.Int64
	b.gate = func(op, _ string) {
		if op == "read" {
			reading.Add(1)
		}
	}
	r, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 100)
	if _, err := io.ReadFull(r, buf); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // long enough for more reads, were there any
	most.Store(reading.Load())
	if want := int64(1 + s.traits.Parallel); most.Load() > want {
		t.Errorf("%d pieces were read ahead, want at most %d", most.Load(), want)
	}
}

// TestAPartThatFailsEndsThePut: the reader is not read to its end first.
func TestAPartThatFailsEndsThePut(t *testing.T) {
	b := newFakeBucket()
	b.fault = func(op string) (error, error) {
		if op == "part" {
			return driver.Permanent(errors.New("QuotaExceeded"), ""), nil
		}
		return nil, nil
	}
	s := New(b, "", quick())
	err := s.Put(t.Context(), "k", storetest.Content("k", 1<<50), store.PutOptions{})
	if err == nil || !strings.Contains(err.Error(), "put fake://bucket/k: upload part ") || !strings.Contains(err.Error(), "QuotaExceeded") {
		t.Errorf("Put = %v", err)
	}
	if len(b.uploads) != 0 {
		t.Error("the upload is left")
	}
}

func TestAListingOutOfOrderIsRefused(t *testing.T) {
	b := newFakeBucket()
	for _, key := range []string{"b", "a"} {
		_ = b.make(key, nil, driver.Options{}, nil)
	}
	s := New(&shuffled{b}, "", quick())
	var last error
	for _, err := range s.List(t.Context(), "") {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), `lists "a" after "b"`) {
		t.Errorf("List = %v", last)
	}
}

type shuffled struct{ *fakeBucket }

func (s *shuffled) Page(context.Context, string, string) ([]store.Info, string, error) {
	return []store.Info{{Key: "b"}, {Key: "a"}}, "", nil
}

func TestRefusedDeletesDoNotStopTheOthers(t *testing.T) {
	b := newFakeBucket()
	b.traits.Batch = 1
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint("k", i))
		_ = b.make(keys[i], nil, driver.Options{}, nil)
	}
	s := New(&locked{b}, "", quick())
	err := s.Delete(t.Context(), keys...)
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "delete fake://bucket/k7: locked") {
		t.Errorf("Delete = %v", err)
	}
	if len(b.objects) != 1 {
		t.Errorf("%d objects are left", len(b.objects))
	}
}

type locked struct{ *fakeBucket }

func (l *locked) Delete(ctx context.Context, keys []string) error {
	if keys[0] == "k7" {
		return driver.Permanent(errors.New("locked"), "")
	}
	return l.fakeBucket.Delete(ctx, keys)
}
