package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
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

// filled has so many objects, whose keys it returns in an order that is not
// that of the bytes.
func filled(n int) (*fakeBucket, []string) {
	b := newFakeBucket()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", n-1-i)
		_ = b.make("root/"+keys[i], nil, driver.Options{}, nil)
	}
	return b, keys
}

// wantKept checks that an error of Delete names these keys in this order, and
// that they are what the bucket has.
func wantKept(t *testing.T, b *fakeBucket, err error, asked int, want ...string) *store.DeleteError {
	t.Helper()
	var kept *store.DeleteError
	if !errors.As(err, &kept) {
		t.Fatalf("Delete = %v, want a DeleteError", err)
	}
	var got []string
	for _, u := range kept.Failed {
		got = append(got, u.Key)
		if !strings.HasPrefix(u.Err.Error(), "delete fake://bucket/root/"+u.Key+": ") {
			t.Errorf("of %s: %v", u.Key, u.Err)
		}
		if _, there := b.objects["root/"+u.Key]; !there {
			t.Errorf("%s is gone", u.Key)
		}
	}
	if !slices.Equal(got, want) || len(b.objects) != len(want) || kept.Of != asked {
		t.Errorf("%d objects are left, and of %d the error names %q, want %q", len(b.objects), kept.Of, got, want)
	}
	return kept
}

func TestRefusedDeletesDoNotStopTheOthers(t *testing.T) {
	for _, batch := range []int{1, 3, 100} {
		b, keys := filled(20)
		b.traits.Batch = batch
		b.refuse = func(key string) error {
			if key == "root/k7" || key == "root/k11" || key == "root/k12" {
				return driver.Permanent(errors.New("locked"), "wait for "+key)
			}
			return nil
		}
		err := New(b, "root/", quick()).Delete(t.Context(), append(keys, "absent", "k7")...)
		wantKept(t, b, err, 22, "k12", "k11", "k7")
		if want := "delete fake://bucket/root/k12: locked (and 2 more of 22 objects)"; err.Error() != want {
			t.Errorf("Delete = %v, want %s", err, want)
		}
		if fault.Status(err) != fault.Usage || fault.Hint(err) != "wait for root/k12" {
			t.Errorf("status %d, hint %q", fault.Status(err), fault.Hint(err))
		}
		if n := b.count("delete"); n != (22+batch-1)/batch {
			t.Errorf("%d requests of %d keys: what is refused was tried again", n, batch)
		}
	}
}

// TestOnlyWhatMayBeMendedIsDeletedAgain: of one batch some are locked for good,
// some fail twice and some always.
func TestOnlyWhatMayBeMendedIsDeletedAgain(t *testing.T) {
	b, keys := filled(10)
	tries := map[string]int{}
	b.refuse = func(key string) error {
		tries[key]++
		switch {
		case key == "root/k3":
			return driver.Permanent(errors.New("locked"), "")
		case key == "root/k5" && tries[key] < 3, key == "root/k1", key == "root/k8":
			return errors.New("busy with " + key)
		}
		return nil
	}
	policy := quick()
	policy.Tries = 4
	err := New(b, "root/", policy).Delete(t.Context(), keys...)
	kept := wantKept(t, b, err, 10, "k8", "k3", "k1")
	if tries["root/k3"] != 1 || tries["root/k5"] != 3 || tries["root/k8"] != 4 || tries["root/k0"] != 1 {
		t.Errorf("tried %v", tries)
	}
	if fault.Status(err) != fault.Failed || fault.Status(kept.Failed[1].Err) != fault.Usage {
		t.Errorf("Delete = %v, and %v", err, kept.Failed[1].Err)
	}
	for i, words := range []string{"busy with root/k8 (tried 4 times", "locked", "busy with root/k1"} {
		if !strings.Contains(kept.Failed[i].Err.Error(), words) {
			t.Errorf("%v, want %s", kept.Failed[i].Err, words)
		}
	}
	// One that is never done is no outage: the other batches are tried.
	b, keys = filled(10)
	b.traits.Batch, b.traits.Parallel = 2, 1
	b.refuse = func(key string) error {
		if key == "root/k9" {
			return errors.New("busy")
		}
		return nil
	}
	wantKept(t, b, New(b, "root/", policy).Delete(t.Context(), keys...), 10, "k9")
}

// TestAnOutageEndsTheDelete: the third request of ten and all after it have no
// answer.
func TestAnOutageEndsTheDelete(t *testing.T) {
	b, keys := filled(20)
	b.traits.Batch, b.traits.Parallel = 2, 1
	b.refuse = func(key string) error {
		if key == "root/k19" {
			return driver.Permanent(errors.New("locked"), "")
		}
		return nil
	}
	down, lost := errors.New("fake: connection refused"), 0
	b.fault = func(string) (error, error) {
		if b.calls["delete"] > 2 {
			lost++
			return down, nil
		}
		return nil, nil
	}
	policy := quick()
	policy.Tries = 3
	err := New(b, "root/", policy).Delete(t.Context(), keys...)
	kept := wantKept(t, b, err, 20, append([]string{"k19"}, keys[4:]...)...)
	if lost != 3 {
		t.Errorf("%d requests had no answer; the Delete went on after the first batch of them", lost)
	}
	for _, u := range kept.Failed[1:] {
		if !errors.Is(u.Err, down) || fault.Status(u.Err) != fault.Failed {
			t.Errorf("%v", u.Err)
		}
	}
	if errors.Is(err, down) || fault.Status(err) != fault.Usage {
		t.Errorf("Delete = %v, which is not about the first", err)
	}
}

func TestACancelledDeleteNamesWhatWasNotTried(t *testing.T) {
	b, keys := filled(20)
	b.traits.Batch, b.traits.Parallel = 2, 1
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	b.gate = func(op, key string) {
		if op == "delete" && strings.Contains(key, "root/k14") {
			cancel(cause)
		}
	}
	err := New(b, "root/", quick()).Delete(ctx, keys...)
	kept := wantKept(t, b, err, 20, keys[4:]...)
	if !errors.Is(err, cause) || !errors.Is(kept.Failed[15].Err, cause) {
		t.Errorf("Delete = %v", err)
	}
	if err := New(b, "root/", quick()).Delete(ctx); err != nil {
		t.Errorf("Delete of nothing = %v", err)
	}
}

// TestWhereTheDriverCannotSayAllOfABatchCount: its answer to a request is an
// error about all of it.
func TestWhereTheDriverCannotSayAllOfABatchCount(t *testing.T) {
	b, keys := filled(6)
	b.traits.Batch, b.traits.Parallel = 2, 1
	b.fault = func(string) (error, error) {
		if b.calls["delete"] == 2 {
			return driver.Permanent(errors.New("AccessDenied"), ""), nil
		}
		return nil, nil
	}
	wantKept(t, b, New(b, "root/", quick()).Delete(t.Context(), keys...), 6, keys[2:4]...)
}

func TestDiscardTriesAgainAndRemovesNoObject(t *testing.T) {
	b, _ := filled(1)
	s := New(b, "root/", quick())
	for range 2 {
		if _, err := b.Begin(t.Context(), "root/k0", driver.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	failed := 0
	b.fault = func(op string) (error, error) {
		if op == "discard" && failed == 0 {
			failed++
			return nil, errors.New("fake: the answer is lost")
		}
		return nil, nil
	}
	var all []store.Leftover
	for l, err := range s.Leftovers(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	if len(all) != 2 || all[0].Key != "k0" {
		t.Fatalf("leftovers %+v", all)
	}
	if err := s.Discard(t.Context(), all[0]); err != nil || failed != 1 || len(b.uploads) != 1 {
		t.Errorf("Discard = %v; %d answers were lost, %d uploads are left", err, failed, len(b.uploads))
	}
	err := s.Discard(t.Context(), store.Leftover{Name: "k0", Key: "k0"})
	if fault.Status(err) != fault.Usage || err.Error() != "discard fake://bucket/root/k0: no upload has this name" || len(b.objects) != 1 {
		t.Errorf("Discard of an object = %v", err)
	}
	if err := s.Discard(t.Context(), store.Leftover{Name: "x", Key: "../x"}); fault.Status(err) != fault.Usage {
		t.Errorf("Discard of a bad key = %v", err)
	}
	var none store.Store = New(struct{ driver.Driver }{b}, "root/", quick())
	if err := store.Discard(t.Context(), none, all[1]); fault.Status(err) != fault.Usage {
		t.Errorf("Discard where there are none = %v", err)
	}
}
