package gcs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/wire"
)

// chunk is the smallest.
const chunk = chunkStep

// fake speaks the part of Google's JSON interface that resumable uploads need,
// as its documentation says and as fake-gcs-server does not: a chunk that comes
// twice is taken once, a session that is done repeats its answer, and the
// checksum is compared. It breaks what plan tells it to.
type fake struct {
	// plan is asked at each request of an upload: its number, from 0 (which
	// opens the session). It returns what goes wrong.
	plan func(n int) trouble

	url      string
	done     chan struct{} // closed when the test ends
	mu       sync.Mutex
	n        int
	data     []byte // of the one session
	finished bool   // it is
	object   *resource
	metadata map[string]string
}

type trouble struct {
	status int  // answered instead, where it is not 0
	lost   bool // the answer is lost
	hangs  bool // there is none
}

type resource struct {
	Name       string            `json:"name"`
	Size       int               `json:"size,string"`
	Generation string            `json:"generation"`
	CRC32C     string            `json:"crc32c"`
	Metadata   map[string]string `json:"metadata"`
}

func newFake(t *testing.T, plan func(n int) trouble) *fake {
	f := &fake{plan: plan, done: make(chan struct{})}
	server := httptest.NewServer(f)
	f.url = server.URL
	t.Cleanup(func() { close(f.done); server.Close() })
	return f
}

func (f *fake) driver(t *testing.T, stall time.Duration, env ...string) *Driver {
	t.Helper()
	all := map[string]string{"STORAGE_EMULATOR_HOST": f.url, "GCS_MAX_CHUNK_SIZE": "1"}
	for i := 0; i < len(env); i += 2 {
		all[env[i]] = env[i+1]
	}
	s := settings(all)
	s.Stall = stall
	d, err := New(t.Context(), "b", s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (f *fake) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	switch r.Method {
	case http.MethodDelete:
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.object == nil || r.URL.Query().Get("generation") != f.object.Generation {
			refuse(w, http.StatusNotFound, "notFound", "No such object: b/k")
			return
		}
		f.object = nil
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodGet:
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.object == nil {
			refuse(w, http.StatusNotFound, "notFound", "No such object: b/k")
			return
		}
		json.NewEncoder(w).Encode(f.object)
		return
	}
	f.mu.Lock()
	n := f.n
	f.n++
	f.mu.Unlock()
	what := f.plan(n)
	switch {
	case what.hangs:
		select {
		case <-f.done:
		case <-r.Context().Done():
		}
		return
	case what.status != 0:
		refuse(w, what.status, "fake", "as planned")
		return
	}
	rec := httptest.NewRecorder()
	f.upload(rec, r, body)
	if what.lost {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes())
}

func refuse(w http.ResponseWriter, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-GUploader-UploadID", "ABC-1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"errors":[{"message":%[2]q,"domain":"global","reason":%q}]}}`, status, message, reason)
}

func (f *fake) upload(w http.ResponseWriter, r *http.Request, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Query().Get("uploadType") == "resumable" {
		var o resource
		json.Unmarshal(body, &o)
		f.metadata, f.data, f.finished = o.Metadata, nil, false
		w.Header().Set("Location", f.url+"/session")
		return
	}
	if !f.finished {
		var from, to, total int
		span := r.Header.Get("Content-Range")
		last := false
		if _, err := fmt.Sscanf(span, "bytes */%d", &total); err == nil {
			from, last = total, true
		} else if _, err := fmt.Sscanf(span, "bytes %d-%d/%d", &from, &to, &total); err == nil {
			last = true
		} else if _, err := fmt.Sscanf(span, "bytes %d-%d/*", &from, &to); err != nil {
			refuse(w, http.StatusBadRequest, "invalid", "Content-Range "+span)
			return
		}
		if from > len(f.data) {
			refuse(w, http.StatusServiceUnavailable, "backendError", "a gap")
			return
		}
		f.data = append(f.data[:from], body...)
		if !last {
			w.Header().Set("X-Http-Status-Code-Override", "308")
			return
		}
		if want := r.Header.Get("X-Goog-Hash"); want != "crc32c="+sum(f.data) {
			refuse(w, http.StatusBadRequest, "invalid", `Provided CRC32C "`+want+`" doesn't match calculated CRC32C "`+sum(f.data)+`".`)
			return
		}
		f.object, f.finished = &resource{"k", len(f.data), "7", sum(f.data), f.metadata}, true
	}
	json.NewEncoder(w).Encode(f.object)
}

// TestChunksAreSentAgain: the whole object is there after each kind of trouble
// that passes, at the beginning, in the middle and at the end.
func TestChunksAreSentAgain(t *testing.T) {
	for name, what := range map[string]trouble{
		"503": {status: 503}, "429": {status: 429}, "408": {status: 408}, "lost answers": {lost: true}, "hangs": {hangs: true},
	} {
		for at := range 4 {
			t.Run(fmt.Sprint(name, " at ", at), func(t *testing.T) {
				t.Parallel()
				fired := false
				f := newFake(t, func(n int) trouble {
					if n == at {
						fired = true
						return what
					}
					return trouble{}
				})
				data := sample(t, 2*chunk+5)
				s := remote.New(f.driver(t, 300*time.Millisecond), "", remote.Policy{})
				put(t, s, "k", data, store.PutOptions{})
				if !fired || !bytes.Equal(f.data, data) || f.object == nil || f.requests() != 5 {
					t.Errorf("fired %v, %d bytes, %d requests", fired, len(f.data), f.requests())
				}
			})
		}
	}
}

// TestOwnObjectAfterALostAnswer: a server that has forgotten the session when
// the last chunk comes again says that there is an object: it is ours.
func TestOwnObjectAfterALostAnswer(t *testing.T) {
	for _, status := range []int{http.StatusPreconditionFailed, http.StatusNotFound, http.StatusGone} {
		f := newFake(t, func(n int) trouble {
			switch n {
			case 3:
				return trouble{lost: true}
			case 4:
				return trouble{status: status}
			}
			return trouble{}
		})
		s := remote.New(f.driver(t, time.Second), "", remote.Policy{})
		r := &inject{data: sample(t, 2*chunk+5)}
		if err := s.Put(t.Context(), "k", r, store.PutOptions{IfAbsent: true}); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if f.requests() != 5 {
			t.Errorf("%d requests", f.requests())
		}
	}
	// Where it is another's it is not.
	f := newFake(t, func(n int) trouble {
		switch n {
		case 3:
			return trouble{status: 503}
		case 4:
			return trouble{status: http.StatusPreconditionFailed}
		}
		return trouble{}
	})
	s := remote.New(f.driver(t, time.Second), "", remote.Policy{})
	r := &inject{data: sample(t, 2*chunk+5), then: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.object = &resource{"k", 1, "3", "", map[string]string{"walg-put": "another"}}
	}}
	if err := s.Put(t.Context(), "k", r, store.PutOptions{IfAbsent: true}); fault.Status(err) != fault.Exists {
		t.Errorf("another's object: %v", err)
	}
}

// inject is a reader of data that does something at its end.
type inject struct {
	data []byte
	then func()
}

func (r *inject) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		if r.then != nil {
			r.then()
		}
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// send is an upload of three chunks by the driver alone.
func send(t *testing.T, d *Driver) (driver.Upload, error) {
	t.Helper()
	up, err := d.Begin(t.Context(), "k", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data := sample(t, chunk)
	whole := driver.Sum{Size: 3 * chunk}
	for n := range 3 {
		if err := up.Part(t.Context(), n+1, int64(n*chunk), data); err != nil {
			return up, err
		}
		whole.CRC32C = crc32.Update(whole.CRC32C, castagnoli, data)
	}
	return up, up.Commit(t.Context(), 3, whole)
}

// TestRetriesOfAChunkEnd: by their number, by the time, and where trying again
// is no use.
func TestRetriesOfAChunkEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		what   trouble
		env    []string
		stall  time.Duration
		words  string
		status int
		most   int // requests
	}{
		{"by number", trouble{status: 503}, []string{"GCS_MAX_RETRIES", "3"}, time.Minute, "fake: as planned (503, request ABC-1) (tried 3 times)", 1, 2 + 3},
		{"by time", trouble{hangs: true}, nil, 60 * time.Millisecond, "less than 4096 bytes moved in 60ms (tried ", 1, 2 + 6},
		{"denied", trouble{status: 403}, nil, time.Minute, "fake: as planned (403, request ABC-1)", 64, 2 + 1},
		{"forgotten", trouble{status: 404}, nil, time.Minute, "the storage has forgotten the upload", 1, 2 + 1},
		{"gone", trouble{status: 410}, nil, time.Minute, "(410, request ABC-1)", 1, 2 + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(n int) trouble {
				if n >= 2 {
					return c.what
				}
				return trouble{}
			})
			d := f.driver(t, c.stall, c.env...)
			d.seen.Store(true)
			up, err := send(t, d)
			if err == nil || !strings.Contains(err.Error(), c.words) || fault.Status(err) != c.status {
				t.Errorf("%v, status %d; want %q, %d", err, fault.Status(err), c.words, c.status)
			}
			if n := f.requests(); n > c.most || n < 3 {
				t.Errorf("%d requests, want 3 to %d", n, c.most)
			}
			if err := up.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			if f.object != nil {
				t.Error("there is an object")
			}
		})
	}
}

// TestProgressBeginsTheCountAnew: each chunk may fail as often as another.
func TestProgressBeginsTheCountAnew(t *testing.T) {
	f := newFake(t, func(n int) trouble {
		if n%2 == 1 {
			return trouble{status: 503}
		}
		return trouble{}
	})
	if _, err := send(t, f.driver(t, time.Minute, "GCS_MAX_RETRIES", "2")); err != nil {
		t.Error(err)
	}
	if f.object == nil || f.object.Size != 3*chunk {
		t.Errorf("%+v", f.object)
	}
}

// TestADamagedUploadIsRefused: where the server compares, nothing appears, and
// the status is that of a failure that may pass.
func TestADamagedUploadIsRefused(t *testing.T) {
	f := newFake(t, nil)
	f.plan = func(n int) trouble {
		if n == 2 {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.data[100] ^= 1
		}
		return trouble{}
	}
	_, err := send(t, f.driver(t, time.Minute))
	if err == nil || fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "match calculated CRC32C") || f.object != nil {
		t.Errorf("%v, %+v", err, f.object)
	}
}

// TestWhatIsCommittedIsWhatWasSummed: the sum that the store has made of its
// input goes before the library's of what reached it.
func TestWhatIsCommittedIsWhatWasSummed(t *testing.T) {
	f := newFake(t, func(int) trouble { return trouble{} })
	d := f.driver(t, time.Minute)
	for _, whole := range []driver.Sum{{Size: chunk + 1, CRC32C: 1}, {Size: chunk}} {
		up, err := d.Begin(t.Context(), "k", driver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		data := sample(t, chunk+1)
		if err := errors.Join(up.Part(t.Context(), 1, 0, data[:chunk]), up.Part(t.Context(), 2, chunk, data[chunk:])); err != nil {
			t.Fatal(err)
		}
		if err := up.Commit(t.Context(), 2, whole); fault.Status(err) != fault.Data || f.object != nil || !strings.HasSuffix(err.Error(), "it was removed") {
			t.Errorf("%+v: %v", whole, err)
		}
	}
}

// TestAbortEndsWhatIsOnItsWay and sends nothing more, after no chunk, after
// some, and while one is stuck.
func TestAbortEndsWhatIsOnItsWay(t *testing.T) {
	for _, parts := range []int{0, 1, 2} {
		f := newFake(t, func(n int) trouble { return trouble{hangs: n == 2} })
		d := f.driver(t, time.Minute)
		up, err := d.Begin(t.Context(), "k", driver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range parts {
			if err := up.Part(t.Context(), n+1, int64(n*chunk), make([]byte, chunk)); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if err := up.Abort(t.Context()); err != nil || time.Since(begun) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		n := f.requests()
		if err := up.Commit(t.Context(), parts, driver.Sum{}); err == nil {
			t.Error("Commit after Abort")
		}
		if f.requests() != n || f.object != nil {
			t.Errorf("after %d parts: %d requests, then %d", parts, n, f.requests())
		}
	}
}

// TestACancelledPartEndsTheUpload: the library's Writer knows only one context.
func TestACancelledPartEndsTheUpload(t *testing.T) {
	f := newFake(t, func(n int) trouble { return trouble{hangs: n == 1} })
	up, err := f.driver(t, time.Minute).Begin(t.Context(), "k", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Part(t.Context(), 1, 0, make([]byte, chunk)); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	begun := time.Now()
	if err := up.Part(ctx, 2, chunk, make([]byte, chunk)); !errors.Is(err, cause) || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	if err := up.Commit(t.Context(), 2, driver.Sum{}); err == nil || f.object != nil {
		t.Errorf("Commit after that: %v", err)
	}
}

// TestStalledChunksSayWhy: the cause is the stall, not a cancelled context.
func TestStalledChunksSayWhy(t *testing.T) {
	f := newFake(t, func(int) trouble { return trouble{hangs: true} })
	_, err := send(t, f.driver(t, 50*time.Millisecond, "GCS_MAX_RETRIES", "2"))
	if !errors.Is(err, wire.ErrStalled) || !strings.HasSuffix(err.Error(), "(tried 2 times)") {
		t.Error(err)
	}
}
