package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"walg/lib/fault"
	"walg/lib/rate"
)

func TestTempNamesAreRecognised(t *testing.T) {
	start := time.Date(2026, 11, 22, 16, 44, 20, 999, time.FixedZone("", 3600))
	temp := TempName("segment.lz4", start, 0x0123456789abcdef)
	if want := "segment.lz4.tmp.20261122T154420Z-0123456789abcdef"; temp != want {
		t.Fatalf("TempName = %q, want %q", temp, want)
	}
	name, at, ok := ParseTemp(temp)
	if !ok || name != "segment.lz4" || !at.Equal(start.Truncate(time.Second)) {
		t.Errorf("ParseTemp = %q, %v, %v", name, at, ok)
	}
	for _, other := range []string{
		"", "x", "x.tmp", ".tmp.20261122T154420Z-0123456789abcdef", "x.tmp.20261122T154420Z-0123456789abcde",
		"x.tmp.20261122T154420Z-0123456789abcdeff", "x.tmp.20261122T154420Z-0123456789ABCDEF", "x.tmp.20261122154420Z-0123456789abcdef",
	} {
		if _, _, ok := ParseTemp(other); ok {
			t.Errorf("%q counts as temporary", other)
		}
	}
}

func TestTempNamesGoThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[^/\x00\n]{1,40}`).Draw(t, "name")
		start := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "start"), 0)
		temp := TempName(name, start, rapid.Uint64().Draw(t, "random"))
		got, at, ok := ParseTemp(temp)
		if !ok || got != name || !at.Equal(start) {
			t.Fatalf("%q came back as %q, %v, %v", temp, got, at, ok)
		}
		if ValidKey("d/"+temp) == nil {
			t.Fatalf("%q is a valid key", temp)
		}
	})
}

func TestPrefixOfAValidKeyIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[ab.]{1,4}(/[ab.]{0,3}){0,3}`).Draw(t, "key")
		if ValidKey(key) != nil {
			return
		}
		for i := range len(key) + 1 {
			if err := ValidPrefix(key[:i]); err != nil {
				t.Fatalf("%q is valid, its prefix %q is not: %v", key, key[:i], err)
			}
		}
	})
}

// A box is the least store that wrappers can be tested on.
type box struct {
	mu  sync.Mutex
	got []string // the keys that it was asked for
}

func (b *box) note(keys ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, keys...)
}

func (b *box) Put(_ context.Context, key string, r io.Reader, _ PutOptions) error {
	b.note(key)
	_, err := io.Copy(io.Discard, r)
	return err
}

func (b *box) Get(_ context.Context, key string, _ int64) (io.ReadCloser, Info, error) {
	b.note(key)
	return io.NopCloser(strings.NewReader(strings.Repeat("x", 1000))), Info{Key: key, Size: 1000}, nil
}

func (b *box) Stat(_ context.Context, key string) (Info, error) {
	b.note(key)
	if strings.HasSuffix(key, "absent") {
		return Info{}, fs.ErrNotExist
	}
	return Info{Key: key}, nil
}

func (b *box) List(_ context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		_ = yield(Info{Key: prefix + "1"}, nil) && yield(Info{Key: prefix + "2"}, nil) && yield(Info{}, errors.New("list broke"))
	}
}

func (b *box) Delete(_ context.Context, keys ...string) error {
	b.note(keys...)
	return nil
}

func TestPrefixIsPutBeforeKeysAndTakenAway(t *testing.T) {
	b, ctx := &box{}, t.Context()
	s, err := Prefix(b, "/a/b/")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, "p", strings.NewReader(""), PutOptions{}); err != nil {
		t.Error(err)
	}
	if _, info, err := s.Get(ctx, "g", 0); err != nil || info.Key != "g" {
		t.Errorf("Get: %+v, %v", info, err)
	}
	if info, err := s.Stat(ctx, "s"); err != nil || info.Key != "s" {
		t.Errorf("Stat: %+v, %v", info, err)
	}
	if err := s.Delete(ctx, "d", "e"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(b.got, " "); got != "a/b/p a/b/g a/b/s a/b/d a/b/e" {
		t.Errorf("the store was asked for %s", got)
	}
	var keys []string
	var last error
	for info, err := range s.List(ctx, "l") {
		if last = err; err == nil {
			keys = append(keys, info.Key)
		}
	}
	if strings.Join(keys, " ") != "l1 l2" || last == nil {
		t.Errorf("List: %q, %v", keys, last)
	}
	if got := URL(s, "k"); got != "a/b/k" {
		t.Errorf("URL = %q", got)
	}
}

// A keeper refuses to delete some keys, and has leftovers.
type keeper struct {
	box
	refuse map[string]error
}

func (k *keeper) Delete(_ context.Context, keys ...string) error {
	kept := &DeleteError{Of: len(keys)}
	for _, key := range keys {
		if err := k.refuse[key]; err != nil {
			kept.Failed = append(kept.Failed, Undeleted{key, err})
		}
	}
	if kept.Failed == nil {
		return nil
	}
	return kept
}

func (k *keeper) Leftovers(_ context.Context, prefix string) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) { yield(Leftover{Name: prefix + ".tmp", Key: prefix}, nil) }
}

func (k *keeper) Discard(_ context.Context, l Leftover) error {
	k.note(l.Name, l.Key)
	return k.refuse[l.Key]
}

func TestWhatStaysIsNamedByTheWrappersKeys(t *testing.T) {
	locked, broken := fault.WithHint(fault.New(fault.Usage, "delete x://p/a: locked"), "wait"), errors.New("delete x://p/c: broken")
	s, err := Prefix(Rate(&keeper{refuse: map[string]error{"p/a": locked, "p/c": broken}}, 1), "p")
	if err != nil {
		t.Fatal(err)
	}
	err = s.Delete(t.Context(), "c", "b", "a")
	var kept *DeleteError
	if !errors.As(err, &kept) || kept.Of != 3 || len(kept.Failed) != 2 || kept.Failed[0] != (Undeleted{"c", broken}) || kept.Failed[1] != (Undeleted{"a", locked}) {
		t.Fatalf("Delete = %#v", err)
	}
	if err.Error() != "delete x://p/c: broken (and 1 more of 3 objects)" || !errors.Is(err, broken) || fault.Status(err) != fault.Failed {
		t.Errorf("Delete = %v, status %d", err, fault.Status(err))
	}
	err = s.Delete(t.Context(), "a", "b")
	if err == nil || err.Error() != "delete x://p/a: locked" || fault.Status(err) != fault.Usage || fault.Hint(err) != "wait" {
		t.Errorf("Delete = %v, status %d, hint %q", err, fault.Status(err), fault.Hint(err))
	}
	if err := s.Delete(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "a", "../x"); fault.Status(err) != fault.Usage || errors.As(err, &kept) {
		t.Errorf("Delete of a bad key = %v", err)
	}
}

func TestLeftoversAreDiscardedByTheNamesThatWereListed(t *testing.T) {
	cause := errors.New("no")
	k := &keeper{refuse: map[string]error{"p/never": cause}}
	s, err := Prefix(Rate(k, 1), "p")
	if err != nil {
		t.Fatal(err)
	}
	for l, err := range FindLeftovers(t.Context(), s, "d/k") {
		if err != nil || l.Key != "d/k" {
			t.Fatalf("leftover %+v, %v", l, err)
		}
		if err := Discard(t.Context(), s, l); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(k.got, " "); got != "p/d/k.tmp p/d/k" {
		t.Errorf("the store was asked to discard %s", got)
	}
	if err := Discard(t.Context(), s, Leftover{Name: "never.tmp", Key: "never"}); !errors.Is(err, cause) {
		t.Errorf("Discard = %v", err)
	}
	if err := Discard(t.Context(), s, Leftover{Name: "../x", Key: "../x"}); fault.Status(err) != fault.Usage {
		t.Errorf("Discard of a bad key = %v", err)
	}
	none, err := Prefix(Rate(&box{}, 1), "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := Discard(t.Context(), none, Leftover{Name: "k.tmp", Key: "k"}); fault.Status(err) != fault.Usage {
		t.Errorf("Discard in a store without leftovers = %v", err)
	}
}

func TestPrefixDoesNotMakeABadKeyGood(t *testing.T) {
	s, err := Prefix(&box{}, "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "/x", "..", "../x"} {
		if _, err := s.Stat(t.Context(), key); fault.Status(err) != fault.Usage {
			t.Errorf("Stat(%q) = %v", key, err)
		}
	}
	for _, dir := range []string{"..", "a//b", "a/../b", "a\nb"} {
		if _, err := Prefix(&box{}, dir); fault.Status(err) != fault.Usage {
			t.Errorf("Prefix(%q) = %v", dir, err)
		}
	}
	if s, err := Prefix(s, "//"); err != nil || s == nil {
		t.Errorf("an empty prefix: %v", err)
	}
}

func TestSyncOfAStoreThatIsAlwaysDurableLooksForTheObject(t *testing.T) {
	s, err := Prefix(Rate(&box{}, 10), "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := Sync(t.Context(), s, "k"); err != nil {
		t.Error(err)
	}
	if err := Sync(t.Context(), s, "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sync = %v", err)
	}
	for range FindLeftovers(t.Context(), s, "") {
		t.Error("a leftover of a store that has none")
	}
}

func TestRateHolds(t *testing.T) {
	for _, limit := range []int64{1, 100, 1 << 20, 20 << 20} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := Rate(&box{}, limit).Put(t.Context(), "k", io.LimitReader(zeros{}, 10*limit), PutOptions{})
			if took := time.Since(start); err != nil || took < 9800*time.Millisecond || took > 10*time.Second {
				t.Errorf("10 s worth of %d B/s took %v, %v", limit, took, err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestRateIsSharedAndAPauseSavesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Rate(&box{}, 1000)
		time.Sleep(time.Hour)
		start := time.Now()
		done := make(chan error)
		go func() { done <- s.Put(t.Context(), "k", io.LimitReader(zeros{}, 1000), PutOptions{}) }()
		r, _, err := s.Get(t.Context(), "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 1800*time.Millisecond || took > 2*time.Second {
			t.Errorf("two times 1000 bytes at 1000 B/s took %v", took)
		}
	})
}

func TestRateEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		err := Rate(&box{}, 1).Put(ctx, "k", zeros{}, PutOptions{})
		if !errors.Is(err, cause) {
			t.Errorf("Put = %v", err)
		}
	})
}

func TestRatePassesErrorsOn(t *testing.T) {
	cause := errors.New("broken")
	err := Rate(&box{}, 1<<30).Put(t.Context(), "k", iotest.ErrReader(cause), PutOptions{})
	if !errors.Is(err, cause) {
		t.Errorf("Put = %v", err)
	}
	if err := iotest.TestReader(rate.New(1<<40).Reader(t.Context(), strings.NewReader("some text")), []byte("some text")); err != nil {
		t.Error(err)
	}
	if s := Store(&box{}); Rate(s, 0) != s || Rate(s, -1) != s {
		t.Error("no limit is a wrapper")
	}
}
