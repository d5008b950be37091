// Package storetest checks that a backend keeps the contract of package
// store, sentence by sentence. A backend's test calls Main from TestMain and
// Run from a test.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
)

// rounds is how often what depends on chance is done, with WALG_SOAK set as
// often as it takes to be sure.
func rounds() int {
	if os.Getenv("WALG_SOAK") != "" {
		return 200
	}
	return 20
}

// A Backend is what the suite needs to know of a store.
type Backend struct {
	// New makes an empty place that is gone after the test, and returns its
	// address.
	New func(t *testing.T) string
	// Open opens the store at an address, in this process or in a child of it.
	Open func(address string) (store.Store, error)
	// Meta says that the store keeps metadata.
	Meta bool
	// PartSize is the size of the first parts of an upload, or 0 where an
	// upload has no parts.
	PartSize int64
	// Lingers says that what an aborted upload has sent cannot be removed: only
	// time does, and Leftovers shows it until then.
	Lingers bool
	// Weak says that the storage has no atomic conditional create: of several
	// writers at once more than one may believe that it won.
	Weak bool
}

// childEnv holds the address when a child process is to Put.
const childEnv = "STORETEST_ADDRESS"

const killedKey = "killed/object"

// killedSize makes some parts, so that a Put is killed in and between them.
func (b Backend) killedSize() int64 { return max(16<<20, 3*b.PartSize+1) }

// Main runs the tests, or the Put of a process that Run will kill.
func Main(m *testing.M, b Backend) {
	Child(b)
	os.Exit(m.Run())
}

// Child does that Put and exits, where this process is for it. It is for a
// TestMain that goes on with something else than Main.
func Child(b Backend) {
	address, child := os.LookupEnv(childEnv)
	if !child {
		return
	}
	s, err := b.Open(address)
	if err == nil {
		fmt.Println("open")
		err = s.Put(context.Background(), killedKey, Content(killedKey, b.killedSize()), store.PutOptions{})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run checks the whole contract, each subtest on an empty store.
func Run(t *testing.T, b Backend) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"PutThenGetGivesTheSameBytes", (*suite).sizes},
		{"KeysOfAllShapes", (*suite).keys},
		{"BadKeysAreRefusedByAllMethods", (*suite).badKeys},
		{"GetFromAnOffset", (*suite).offsets},
		{"PutReplaces", (*suite).replaces},
		{"GetSurvivesAReplacement", (*suite).survives},
		{"AbsentIsErrNotExist", (*suite).absent},
		{"IfAbsentRefusesAnExistingObject", (*suite).ifAbsent},
		{"IfAbsentHasOneWinner", (*suite).oneWinner},
		{"WritersOfOneKeyLeaveOneWhole", (*suite).lastWriter},
		{"ReaderErrorLeavesThePreviousObject", (*suite).readerError},
		{"CancelledPutLeavesThePreviousObject", (*suite).cancelled},
		{"CancelledContextFailsEverything", (*suite).done},
		{"NothingIsVisibleInFlight", (*suite).inFlight},
		{"OddReaders", (*suite).oddReaders},
		{"MetadataIsKept", (*suite).meta},
		{"BadMetadataIsRefused", (*suite).badMeta},
		{"ListIsSortedAndComplete", (*suite).list},
		{"ListOfAPrefix", (*suite).listPrefix},
		{"ListStopsHalfWay", (*suite).listStops},
		{"DeleteRemovesMany", (*suite).deleteMany},
		{"DeleteWhileOthersPut", (*suite).deleteRace},
		{"SyncOfAnObject", (*suite).sync},
		{"URLsAreAbsolute", (*suite).urls},
		{"KilledPutLeavesNothingOrAll", (*suite).killed},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := b.New(t)
			s, err := b.Open(address)
			if err != nil {
				t.Fatal(err)
			}
			test.run(&suite{T: t, b: b, address: address, s: s})
		})
	}
}

type suite struct {
	*testing.T
	b       Backend
	address string
	s       store.Store
}

// Content returns n bytes that differ from key to key and from block to block.
func Content(key string, n int64) io.Reader {
	block := []byte(strings.Repeat(key+" 0123456789 ", 1<<16/(len(key)+12)+1))
	return io.LimitReader(&pattern{block: block}, n)
}

type pattern struct {
	block []byte
	at    int64
}

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at%int64(len(p.block)):])
	// One byte in 4096 tells where in the stream it is.
	for i := range n {
		if at := p.at + int64(i); at%4096 == 0 {
			b[i] = byte(at>>12) ^ byte(at>>20)
		}
	}
	p.at += int64(n)
	return n, nil
}

func content(key string, n int64) []byte {
	p, err := io.ReadAll(Content(key, n))
	if err != nil {
		panic(err) // memory does not fail
	}
	return p
}

func (s *suite) put(key, text string) {
	s.Helper()
	if err := s.s.Put(s.Context(), key, strings.NewReader(text), store.PutOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) get(key string) string {
	s.Helper()
	r, info, err := s.s.Get(s.Context(), key, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	p, err := io.ReadAll(r)
	if err != nil {
		s.Fatal(err)
	}
	if info.Size != int64(len(p)) || info.Key != key {
		s.Fatalf("Get(%q) says key %q, %d bytes; read %d", key, info.Key, info.Size, len(p))
	}
	return string(p)
}

// wantKeys checks what List shows below prefix.
func (s *suite) wantKeys(prefix string, want ...string) {
	s.Helper()
	var got []string
	for info, err := range s.s.List(s.Context(), prefix) {
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		s.Fatalf("List(%q) = %q, want %q", prefix, got, want)
	}
}

func (s *suite) wantAbsent(key string) {
	s.Helper()
	if _, _, err := s.s.Get(s.Context(), key, 0); !errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Absent {
		s.Fatalf("Get(%q) = %v, want fs.ErrNotExist, status 66", key, err)
	}
	if _, err := s.s.Stat(s.Context(), key); !errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Absent {
		s.Fatalf("Stat(%q) = %v, want fs.ErrNotExist, status 66", key, err)
	}
}

func (s *suite) sizes() {
	const mib = 1 << 20
	sizes := []int64{0, 1, 4095, 4096, 65537, mib - 1, mib, mib + 1, 8*mib - 1, 8 * mib, 8*mib + 3}
	if part := s.b.PartSize; part > 0 {
		sizes = append(sizes, part-1, part, part+1, 2*part, 3*part+part/3)
	}
	if os.Getenv("WALG_SOAK") != "" || s.b.PartSize > 0 {
		sizes = append(sizes, 200_000_000)
	}
	for _, size := range sizes {
		key := fmt.Sprintf("sizes/%d", size)
		before := time.Now()
		if err := s.s.Put(s.Context(), key, Content(key, size), store.PutOptions{}); err != nil {
			s.Fatal(err)
		}
		r, got, err := s.s.Get(s.Context(), key, 0)
		if err != nil {
			s.Fatal(err)
		}
		if err := same(r, Content(key, size)); err != nil || got.Size != size {
			s.Errorf("object of %d bytes came back with %d: %v", size, got.Size, err)
		}
		r.Close()
		info, err := s.s.Stat(s.Context(), key)
		if err != nil {
			s.Fatal(err)
		}
		const skew = time.Hour // the storage has its own clock
		if info.Size != size || info.Key != key || info.ModTime.Before(before.Add(-skew)) || info.ModTime.After(time.Now().Add(skew)) {
			s.Errorf("Stat(%q) = %+v", key, info)
		}
		if err := s.s.Delete(s.Context(), key); err != nil {
			s.Error(err)
		}
	}
}

// same compares two streams without holding them.
func same(a, b io.Reader) error {
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := 0; ; at += len(bufA) {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		switch {
		case !bytes.Equal(bufA[:n], bufB[:m]):
			return fmt.Errorf("other bytes than were put, from %d on", at)
		case errA != errB:
			return fmt.Errorf("ends at %d with %w", at+n, errA)
		case errA != nil:
			if errA == io.EOF || errA == io.ErrUnexpectedEOF {
				return nil
			}
			return errA
		}
	}
}

func (s *suite) keys() {
	keys := []string{
		"a", "b/c", "b/d/e/f/g/h", "b/d-e", "b/d.e", "b/d0", " leading and trailing ", "with space/and more",
		"per%20cent", "plus+and&=?#;,@!$'()*~", "Grüße/日本語/🐘", "..dots", "...", ".hidden/.x", "-dash", "a:b", `quote"s'`,
		strings.Repeat("x", 64), "wal_005/" + strings.Repeat("0123456789ABCDEF", 4), strings.Repeat("n", 200),
		strings.TrimSuffix(strings.Repeat("deep/", 100), "/"), "not.tmp", "x.tmp.20261122T164420Z", "x.tmp.-0123456789abcdef",
	}
	for _, key := range keys {
		s.put(key, "content of "+key)
	}
	for _, key := range keys {
		if got := s.get(key); got != "content of "+key {
			s.Errorf("Get(%q) = %q", key, got)
		}
	}
	s.wantKeys("", slices.Sorted(slices.Values(keys))...)
	if err := s.s.Delete(s.Context(), keys...); err != nil {
		s.Fatal(err)
	}
	s.wantKeys("")
}

// BadKeys are keys that no store may take.
var BadKeys = []string{
	"", "/", "/a", "a/", "a//b", "//a", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b", "a/.",
	"a\x00b", "a\nb", "a\tb", "\x1b[2J", "a\x7f", "a\u0085b", "bad\xffutf8",
	"x.tmp.20261122T164420Z-0123456789abcdef", "d/x.tmp.20261122T164420Z-0123456789abcdef", "x.tmp.20261122T164420Z-0123456789abcdef/y",
	strings.Repeat("k/", store.MaxKey/2) + "k",
}

func (s *suite) badKeys() {
	s.put("good", "stays")
	for _, key := range BadKeys {
		_, _, getErr := s.s.Get(s.Context(), key, 0)
		_, statErr := s.s.Stat(s.Context(), key)
		for op, err := range map[string]error{
			"Put":    s.s.Put(s.Context(), key, strings.NewReader("x"), store.PutOptions{}),
			"Get":    getErr,
			"Stat":   statErr,
			"Delete": s.s.Delete(s.Context(), "good", key),
			"Sync":   store.Sync(s.Context(), s.s, key),
		} {
			if fault.Status(err) != fault.Usage {
				s.Errorf("%s(%q) = %v, want status 64", op, key, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", "a//", "./", "a/../b", "a\nb"} {
		var last error
		for _, err := range s.s.List(s.Context(), prefix) {
			last = err
		}
		if fault.Status(last) != fault.Usage {
			s.Errorf("List(%q) = %v, want status 64", prefix, last)
		}
	}
	s.wantKeys("", "good") // nothing is deleted before all keys are looked at
}

func (s *suite) offsets() {
	const size = 3<<20 + 5
	want := content("o", size)
	if err := s.s.Put(s.Context(), "o", bytes.NewReader(want), store.PutOptions{}); err != nil {
		s.Fatal(err)
	}
	for _, offset := range []int64{0, 1, 4096, 1<<20 - 1, 1 << 20, size - 1, size} {
		r, info, err := s.s.Get(s.Context(), "o", offset)
		if err != nil {
			s.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want[offset:]) || info.Size != size {
			s.Errorf("Get from %d: %d bytes of %d, %v; want %d", offset, len(got), info.Size, err, size-offset)
		}
	}
	for _, offset := range []int64{-1, size + 1, 1 << 62} {
		if r, _, err := s.s.Get(s.Context(), "o", offset); err == nil || errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				r.Close()
			}
			s.Errorf("Get from %d: %v, want an error that is not ErrNotExist", offset, err)
		}
	}
}

func (s *suite) replaces() {
	for _, text := range []string{"first, the longest of all", "second", "", "third one"} {
		s.put("k", text)
		if got := s.get("k"); got != text {
			s.Errorf("got %q, want %q", got, text)
		}
		s.wantKeys("", "k")
	}
}

func (s *suite) survives() {
	const size = 4 << 20
	if err := s.s.Put(s.Context(), "k", Content("old", size), store.PutOptions{}); err != nil {
		s.Fatal(err)
	}
	r, _, err := s.s.Get(s.Context(), "k", 0)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		s.Fatal(err)
	}
	if err := s.s.Put(s.Context(), "k", Content("new", size), store.PutOptions{}); err != nil {
		s.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	// A store that cannot keep the old bytes may fail, but never mix the two.
	if got := append(head, rest...); err == nil && !bytes.Equal(got, content("old", size)) {
		s.Errorf("a reader of the old object got %d other bytes", len(got))
	}
}

func (s *suite) absent() {
	s.put("dir/object", "x")
	s.wantAbsent("nothing")
	s.wantAbsent("dir")            // a directory, where there are any
	s.wantAbsent("dir/nothing")    //
	s.wantAbsent("dir/object/sub") // below an object
	s.wantAbsent("no/such/dir/x")
	for _, key := range []string{"nothing", "dir/object/sub", "no/such/dir/x"} {
		if err := s.s.Delete(s.Context(), key); err != nil {
			s.Errorf("Delete of absent %q: %v", key, err)
		}
	}
	if err := s.s.Delete(s.Context()); err != nil {
		s.Errorf("Delete of nothing: %v", err)
	}
	if err := s.s.Delete(s.Context(), "dir"); err != nil {
		s.Errorf("Delete of a directory's name: %v", err)
	}
	s.wantKeys("", "dir/object")
	s.wantKeys("no/such/")
}

func (s *suite) ifAbsent() {
	o := store.PutOptions{IfAbsent: true}
	if err := s.s.Put(s.Context(), "d/k", strings.NewReader("first"), o); err != nil {
		s.Fatal(err)
	}
	err := s.s.Put(s.Context(), "d/k", strings.NewReader("second"), o)
	if !errors.Is(err, fs.ErrExist) || fault.Status(err) != fault.Exists {
		s.Errorf("second Put = %v, want fs.ErrExist, status 73", err)
	}
	if got := s.get("d/k"); got != "first" {
		s.Errorf("got %q", got)
	}
	// The object that appears while the second one is being read wins too.
	r := io.MultiReader(strings.NewReader("late"), hook(func() { s.put("d/l", "early") }))
	if err := s.s.Put(s.Context(), "d/l", r, o); !errors.Is(err, fs.ErrExist) {
		s.Errorf("late Put = %v, want fs.ErrExist", err)
	}
	if got := s.get("d/l"); got != "early" {
		s.Errorf("got %q", got)
	}
	s.wantKeys("", "d/k", "d/l")
	s.noLeftovers()
}

// hook is a reader that does something and is at its end.
type hook func()

func (h hook) Read([]byte) (int, error) { h(); return 0, io.EOF }

func (s *suite) noLeftovers() {
	s.Helper()
	for l, err := range store.FindLeftovers(s.Context(), s.s, "") {
		if err != nil || !s.b.Lingers {
			s.Errorf("leftover %+v, %v", l, err)
		}
	}
}

func (s *suite) oneWinner() {
	const writers = 32
	for k := range rounds() {
		key := fmt.Sprintf("race%d/object", k)
		start := make(chan struct{})
		var wins atomic.Int32
		var winner atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				<-start
				// Each writer its own size, so that a mixture shows.
				r := Content(fmt.Sprint("writer", w), int64(1000+w))
				err := s.s.Put(s.Context(), key, r, store.PutOptions{IfAbsent: true})
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store(int64(w))
				case !errors.Is(err, fs.ErrExist):
					s.Errorf("writer %d of %s: %v", w, key, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := wins.Load(); n == 0 || n > 1 && !s.b.Weak {
			s.Fatalf("%s: %d writers won", key, n)
		}
		w := winner.Load()
		got := s.get(key)
		if s.b.Weak {
			w = int64(len(got) - 1000)
		}
		if got != string(content(fmt.Sprint("writer", w), 1000+w)) {
			s.Fatalf("%s: not what writer %d wrote", key, w)
		}
	}
	s.noLeftovers()
}

func (s *suite) lastWriter() {
	const writers, rounds = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range rounds {
				if err := s.s.Put(s.Context(), "d/k", Content(fmt.Sprint(w), 1<<20), store.PutOptions{}); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := s.get("d/k")
	for w := range writers {
		if got == string(content(fmt.Sprint(w), 1<<20)) {
			return
		}
	}
	s.Errorf("%d bytes that no writer wrote", len(got))
}

func (s *suite) readerError() {
	s.put("old", "old content")
	cause := errors.New("the producer died")
	faulty := &fault.Error{Status: fault.Unearned, Err: cause}
	for _, size := range []int64{0, 1, 1 << 20, 9<<20 + 1} {
		for _, key := range []string{"old", "new/one"} {
			r := io.MultiReader(Content(key, size), iotest.ErrReader(faulty))
			err := s.s.Put(s.Context(), key, r, store.PutOptions{IfAbsent: key != "old"})
			if !errors.Is(err, cause) || fault.Status(err) != fault.Unearned {
				s.Errorf("Put after %d bytes = %v, want the reader's error and its status", size, err)
			}
			s.wantAbsent("new/one")
			if got := s.get("old"); got != "old content" {
				s.Errorf("the old object is now %d bytes", len(got))
			}
		}
	}
	// The error comes together with data, and so does an unexpected end.
	r := iotest.DataErrReader(io.MultiReader(strings.NewReader("some"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err := s.s.Put(s.Context(), "new/two", r, store.PutOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("Put = %v, want io.ErrUnexpectedEOF", err)
	}
	s.wantKeys("", "old")
	s.noLeftovers()
}

func (s *suite) cancelled() {
	s.put("old", "old content")
	cause := errors.New("told to stop")
	for _, key := range []string{"old", "new"} {
		for _, at := range []io.Reader{Content(key, 1<<40), strings.NewReader("all of it")} {
			ctx, cancel := context.WithCancelCause(s.Context())
			// Cancelled in the middle, and cancelled at the end of the data.
			r := io.MultiReader(io.LimitReader(at, 3<<20), hook(func() { cancel(cause) }), at)
			if err := s.s.Put(ctx, key, r, store.PutOptions{}); !errors.Is(err, cause) {
				s.Errorf("Put = %v, want the cause of the cancelling", err)
			}
			cancel(nil)
		}
	}
	s.wantAbsent("new")
	if got := s.get("old"); got != "old content" {
		s.Errorf("the old object is now %d bytes", len(got))
	}
	s.wantKeys("", "old")
	s.noLeftovers()
}

func (s *suite) done() {
	s.put("k", strings.Repeat("x", 100))
	cause := errors.New("too late")
	ctx, cancel := context.WithCancelCause(s.Context())
	r, _, err := s.s.Get(ctx, "k", 0)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	cancel(cause)
	_, readErr := io.ReadAll(r)
	_, _, getErr := s.s.Get(ctx, "k", 0)
	_, statErr := s.s.Stat(ctx, "k")
	var listErr error
	for _, err := range s.s.List(ctx, "") {
		listErr = err
	}
	for op, err := range map[string]error{
		"Read": readErr, "Get": getErr, "Stat": statErr, "List": listErr,
		"Put":    s.s.Put(ctx, "new", strings.NewReader("x"), store.PutOptions{}),
		"Delete": s.s.Delete(ctx, "k"),
	} {
		if !errors.Is(err, cause) {
			s.Errorf("%s = %v, want the context's cause", op, err)
		}
	}
	var kept *store.DeleteError
	if err := s.s.Delete(ctx, "l", "k", "absent"); !errors.As(err, &kept) || kept.Of != 3 {
		s.Fatalf("Delete = %v, want a DeleteError of 3 keys", err)
	}
	var left []string
	for _, u := range kept.Failed {
		left = append(left, u.Key)
		if !errors.Is(u.Err, cause) || !strings.HasPrefix(u.Err.Error(), "delete "+store.URL(s.s, u.Key)+": ") {
			s.Errorf("of %s Delete says: %v", u.Key, u.Err)
		}
	}
	if !slices.Equal(left, []string{"l", "k", "absent"}) {
		s.Errorf("after a Delete that tried nothing there may be %q still, want all", left)
	}
	s.wantKeys("", "k")
}

func (s *suite) inFlight() {
	s.put("d/old", "old content")
	look := hook(func() {
		s.wantKeys("", "d/old")
		s.wantAbsent("d/new")
		s.wantAbsent("e/new")
		if got := s.get("d/old"); got != "old content" {
			s.Errorf("in flight the old object has %d bytes", len(got))
		}
	})
	for _, key := range []string{"d/old", "d/new", "e/new"} {
		r := io.MultiReader(Content(key, 10<<20), look, Content(key, 1<<20), look, iotest.ErrReader(errors.New("enough")))
		if err := s.s.Put(s.Context(), key, r, store.PutOptions{}); err == nil {
			s.Errorf("Put(%q) succeeded", key)
		}
	}
}

func (s *suite) oddReaders() {
	want := content("odd", 70000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte at a time":  iotest.OneByteReader,
		"half of each read":   iotest.HalfReader,
		"data with the error": iotest.DataErrReader,
		"nothing now and then": func(r io.Reader) io.Reader {
			return &stutter{r: r}
		},
	} {
		if err := s.s.Put(s.Context(), "odd", wrap(bytes.NewReader(want)), store.PutOptions{}); err != nil {
			s.Fatalf("%s: %v", name, err)
		}
		if got := s.get("odd"); got != string(want) {
			s.Errorf("%s: %d bytes came back", name, len(got))
		}
	}
	if err := s.s.Put(s.Context(), "never", nothing{}, store.PutOptions{}); !errors.Is(err, io.ErrNoProgress) {
		s.Errorf("a reader that returns nothing for ever: %v, want io.ErrNoProgress", err)
	}
	s.wantAbsent("never")
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

type stutter struct {
	r     io.Reader
	empty bool
}

func (s *stutter) Read(p []byte) (int, error) {
	if s.empty = !s.empty; s.empty {
		return 0, nil
	}
	return s.r.Read(p)
}

func (s *suite) meta() {
	want := map[string]string{"sha256": strings.Repeat("ab", 32), "a-b_9": "two words = x;y", "empty": ""}
	for _, o := range []store.PutOptions{{Meta: want}, {Meta: want, IfAbsent: true}} {
		if err := s.s.Delete(s.Context(), "d/k"); err != nil {
			s.Fatal(err)
		}
		if err := s.s.Put(s.Context(), "d/k", strings.NewReader("x"), o); err != nil {
			s.Fatal(err)
		}
		info, err := s.s.Stat(s.Context(), "d/k")
		if err != nil {
			s.Fatal(err)
		}
		r, got, err := s.s.Get(s.Context(), "d/k", 0)
		if err != nil {
			s.Fatal(err)
		}
		r.Close()
		if s.b.Meta && !(maps.Equal(info.Meta, want) && maps.Equal(got.Meta, want)) {
			s.Errorf("Stat says %q and Get %q, want %q", info.Meta, got.Meta, want)
		}
	}
	s.put("d/k", "without")
	if info, err := s.s.Stat(s.Context(), "d/k"); err != nil || len(info.Meta) != 0 {
		s.Errorf("the metadata of the replaced object stays: %q, %v", info.Meta, err)
	}
}

func (s *suite) badMeta() {
	for _, meta := range []map[string]string{
		{"": "x"}, {"Upper": "x"}, {"a b": "x"}, {"9a": "x"}, {"a": "line\nbreak"}, {"a": " x"}, {"a": "x "}, {"a": "ü"},
		{strings.Repeat("n", 65): "x"}, {"a": strings.Repeat("v", store.MaxMeta)},
	} {
		err := s.s.Put(s.Context(), "k", strings.NewReader("x"), store.PutOptions{Meta: meta})
		if fault.Status(err) != fault.Usage {
			s.Errorf("Put with metadata %.60q = %v, want status 64", meta, err)
		}
	}
	s.wantAbsent("k")
}

// fill puts n small objects in many directories, several at once.
func (s *suite) fill(n int) []string {
	s.Helper()
	keys := make([]string, n)
	for i := range keys {
		// Names such that a directory "d1" has neighbours "d1-" and "d1.x".
		keys[i] = fmt.Sprintf([]string{"d%d/o%d", "d%d-/o%d", "d%d.x/o%d", "d%d/sub/o%d", "e%d-o%d"}[i%5], i%7, i)
	}
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				if err := s.s.Put(s.Context(), keys[i], strings.NewReader(keys[i]), store.PutOptions{}); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(keys)
	return keys
}

func (s *suite) list() {
	keys := s.fill(2500)
	s.wantKeys("", keys...)
	for info, err := range s.s.List(s.Context(), "d1") {
		if err != nil {
			s.Fatal(err)
		}
		if info.Size != int64(len(info.Key)) || info.ModTime.IsZero() || info.Meta != nil {
			s.Fatalf("List says %+v", info)
		}
	}
}

func (s *suite) listPrefix() {
	keys := []string{"a/b/c", "a/b", "a", "a-b", "ab/c", "b", "a/bc/d", "a/b.d/x", "ab/cd", "é/x"}
	for _, key := range keys {
		// Where there are directories a key cannot be both.
		if key != "a" && key != "a/b" {
			s.put(key, key)
		}
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == "a" || k == "a/b" })
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "a/b.", "ab", "ab/c", "b", "c", "é", "é/", "é/x", "a/.", ".", "a/.."} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		s.wantKeys(prefix, want...)
	}
}

func (s *suite) listStops() {
	keys := s.fill(100)
	for stop := range 20 {
		var got []string
		for info, err := range s.s.List(s.Context(), "") {
			if err != nil {
				s.Fatal(err)
			}
			if got = append(got, info.Key); len(got) > stop {
				break
			}
		}
		if !slices.Equal(got, keys[:stop+1]) {
			s.Fatalf("stopped after %d: %q", stop+1, got)
		}
	}
	// An object that is deleted while it is listed is no error.
	n := 0
	for info, err := range s.s.List(s.Context(), "") {
		if err != nil {
			s.Fatal(err)
		}
		n++
		if err := s.s.Delete(s.Context(), info.Key, keys[len(keys)-1]); err != nil {
			s.Fatal(err)
		}
	}
	if n < len(keys)-1 {
		s.Errorf("%d of %d objects were listed while they were deleted", n, len(keys))
	}
	s.wantKeys("")
}

func (s *suite) deleteMany() {
	keys := s.fill(1500)
	s.put("stays", "x")
	keys = append(keys, "absent", "absent/too")
	if err := s.s.Delete(s.Context(), keys...); err != nil {
		s.Fatal(err)
	}
	s.wantKeys("", "stays")
	if err := s.s.Delete(s.Context(), keys...); err != nil {
		s.Errorf("Delete again: %v", err)
	}
	s.put("given/twice", "x")
	if err := s.s.Delete(s.Context(), "given/twice", "given/twice"); err != nil {
		s.Errorf("Delete of the same twice: %v", err)
	}
}

// deleteRace takes the last object of a directory away while another arrives.
func (s *suite) deleteRace() {
	const workers, rounds = 4, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				key := fmt.Sprintf("deep/er/%d-%d", w, i)
				if err := s.s.Put(s.Context(), key, strings.NewReader(key), store.PutOptions{}); err != nil {
					s.Errorf("Put: %v", err)
					return
				}
				if _, err := s.s.Stat(s.Context(), key); err != nil {
					s.Errorf("Stat after Put: %v", err)
				}
				if err := s.s.Delete(s.Context(), key); err != nil {
					s.Errorf("Delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s.wantKeys("")
}

func (s *suite) sync() {
	s.put("d/e/k", "x")
	if err := store.Sync(s.Context(), s.s, "d/e/k"); err != nil {
		s.Error(err)
	}
	if err := store.Sync(s.Context(), s.s, "d/e/l"); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("Sync of an absent object = %v, want fs.ErrNotExist", err)
	}
}

func (s *suite) urls() {
	url := store.URL(s.s, "a b/ü")
	if scheme, rest, ok := strings.Cut(url, "://"); !ok || scheme == "" || !strings.HasSuffix(rest, "/a b/ü") {
		s.Errorf("URL = %q", url)
	}
	_, _, err := s.s.Get(s.Context(), "a b/ü", 0)
	if err == nil || strings.Count(err.Error(), url) != 1 || !strings.HasPrefix(err.Error(), "get ") {
		s.Errorf("error %q does not name operation and object, once", err)
	}
}

func (s *suite) killed() {
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	want := content(killedKey, s.b.killedSize())
	child := func() *exec.Cmd {
		cmd := exec.Command(self, "-test.run=^$")
		cmd.Env = append(os.Environ(), childEnv+"="+s.address)
		return cmd
	}
	// One that is left alone says how long a Put takes here.
	begun := time.Now()
	if out, err := child().CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	within := time.Since(begun) * 5 / 4
	if err := s.s.Delete(s.Context(), killedKey); err != nil {
		s.Fatal(err)
	}
	absent, whole := 0, 0
	for range rounds() {
		KillAtRandom(s.T, child(), within)
		_, err := s.s.Stat(s.Context(), killedKey)
		if errors.Is(err, fs.ErrNotExist) {
			// A server may have had all of it when the process was killed, and be
			// at work yet.
			var seen []string
			for info, err := range s.s.List(s.Context(), "") {
				if err != nil {
					s.Fatal(err)
				}
				seen = append(seen, info.Key)
			}
			if len(seen) == 0 {
				absent++
				continue
			}
			if !slices.Equal(seen, []string{killedKey}) {
				s.Fatalf("List = %q", seen)
			}
		}
		if whole++; s.get(killedKey) != string(want) {
			s.Fatal("a killed Put left an object that is not whole")
		}
		s.wantKeys("", killedKey)
		if err := s.s.Delete(s.Context(), killedKey); err != nil {
			s.Fatal(err)
		}
	}
	if absent == 0 {
		s.Error("no process was killed before it was done; the test proves nothing")
	}
	for _, l := range s.leftovers() {
		// Not every storage says when an upload began.
		if l.Key != killedKey || l.Started.IsZero() && l.ModTime.IsZero() || l.Size > int64(len(want)) {
			s.Errorf("leftover %+v", l)
		}
	}
	s.Logf("%d killed before the object was there, %d after", absent, whole)
	s.discard(string(want))
}

// leftovers returns those of killedKey too where a storage shows them only by
// their key.
func (s *suite) leftovers() (all []store.Leftover) {
	s.Helper()
	for _, prefix := range []string{"", killedKey} {
		for l, err := range store.FindLeftovers(s.Context(), s.s, prefix) {
			if err != nil {
				s.Fatal(err)
			}
			if !slices.ContainsFunc(all, func(o store.Leftover) bool { return o.Name == l.Name && o.Started.Equal(l.Started) }) {
				all = append(all, l)
			}
		}
	}
	return all
}

// discard removes what the killed ones left, beside the object that they were to
// become and another one.
func (s *suite) discard(want string) {
	s.put("killed/other", "other")
	objects := []string{"killed/other"}
	if !s.b.Lingers { // there the object would take them away
		if err := s.s.Put(s.Context(), killedKey, strings.NewReader(want), store.PutOptions{}); err != nil {
			s.Fatal(err)
		}
		objects = []string{killedKey, "killed/other"}
	}
	// A server may be at work yet for a process that was killed.
	all, discarded := s.leftovers(), 0
	for end := time.Now().Add(time.Minute); len(all) > 0 && time.Now().Before(end); all = s.leftovers() {
		for _, l := range all {
			err := store.Discard(s.Context(), s.s, l)
			if s.b.Lingers {
				if fault.Status(err) != fault.Usage {
					s.Errorf("Discard(%+v) = %v, want status 64", l, err)
				}
				continue
			}
			if err == nil {
				err = store.Discard(s.Context(), s.s, l)
			}
			if err != nil {
				s.Fatalf("Discard(%+v), or again = %v", l, err)
			}
			discarded++
		}
		if s.b.Lingers {
			break
		}
	}
	if !s.b.Lingers && len(all) > 0 {
		s.Errorf("after they were discarded there are %+v", all)
	}
	for _, key := range []string{killedKey, "killed/other", "killed", "absent"} {
		for _, l := range []store.Leftover{{Name: key, Key: key}, {Name: "killed/other", Key: key}} {
			err := store.Discard(s.Context(), s.s, l)
			if _, ok := s.s.(store.Leftovers); ok && !s.b.Lingers && fault.Status(err) != fault.Usage {
				s.Errorf("Discard(%+v), which is no leftover, = %v, want status 64", l, err)
			}
		}
	}
	s.wantKeys("", objects...)
	if !s.b.Lingers && s.get(killedKey) != want || s.get("killed/other") != "other" {
		s.Error("an object is another after the leftovers beside it were discarded")
	}
	s.Logf("%d leftovers discarded", discarded)
}
