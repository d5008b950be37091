package gcs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/storetest"
)

// request is what a recorder keeps of one.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	begins       string // of the body
}

// recorder stands before the server, keeps what passes, and may change it.
type recorder struct {
	change func(*http.Request)

	mu       sync.Mutex
	requests []request
}

func (p place) recorded(t *testing.T) (place, *recorder) {
	t.Helper()
	rec := &recorder{change: func(*http.Request) {}}
	upstream := &url.URL{Scheme: "http", Host: p.Env["STORAGE_EMULATOR_HOST"]}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		if r.In.Method == http.MethodPost {
			r.Out.Host = r.In.Host // so that chunks come this way too; reads want the server's own
		}
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.change(r)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec.mu.Lock()
		rec.requests = append(rec.requests, request{r.Method, r.URL.Path, r.URL.Query(), r.Header.Clone(), string(body[:min(len(body), 1000)])})
		rec.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	p.Env = maps.Clone(p.Env)
	p.Env["STORAGE_EMULATOR_HOST"] = front.URL
	return p, rec
}

// take returns what was recorded since the last time.
func (r *recorder) take() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.requests
	r.requests = nil
	return taken
}

func sample(t *testing.T, n int64) []byte {
	t.Helper()
	data, err := io.ReadAll(storetest.Content(t.Name(), n))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, s store.Store, key string, data []byte, o store.PutOptions) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s store.Store, key string) []byte {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sum(data []byte) string {
	n := crc32.Checksum(data, castagnoli)
	return base64.StdEncoding.EncodeToString([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// TestWholeSendsTheChecksum: without it half a body could become an object.
func TestWholeSendsTheChecksum(t *testing.T) {
	p, rec := server(t).recorded(t)
	s := p.store(t)
	data := sample(t, 100_000)
	put(t, s, "k", data, store.PutOptions{IfAbsent: true})
	sent := rec.take()
	if len(sent) != 1 {
		t.Fatalf("%d requests", len(sent))
	}
	r := sent[0]
	if r.query.Get("uploadType") != "multipart" || r.query.Get("ifGenerationMatch") != "0" ||
		!strings.Contains(r.begins, `"crc32c":"`+sum(data)+`"`) || !strings.Contains(r.begins, "application/octet-stream") {
		t.Errorf("%+v", r)
	}
	put(t, s, "k", data, store.PutOptions{})
	if r := rec.take()[0]; r.query.Has("ifGenerationMatch") {
		t.Errorf("without IfAbsent: %v", r.query)
	}
}

// TestADamagedWholeIsRefusedAndSentAgain: the server compares.
func TestADamagedWholeIsRefusedAndSentAgain(t *testing.T) {
	p, rec := server(t).recorded(t)
	data := sample(t, 100_000)
	var damaged atomic.Int32
	rec.change = func(r *http.Request) {
		if r.Method == http.MethodPost && damaged.Add(1) <= 2 {
			damage(r)
		}
	}
	s := p.store(t)
	put(t, s, "k", data, store.PutOptions{})
	if n := damaged.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	if !bytes.Equal(get(t, s, "k"), data) {
		t.Error("other bytes came back")
	}
}

// damage changes a byte in the middle of a request's body.
func damage(r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a short one shows
	body[len(body)/2] ^= 1
	r.Body = io.NopCloser(bytes.NewReader(body))
}

// TestChunksAndTheChecksumOfTheWhole: chunks are as large as the setting,
// rounded up, and the last one carries the checksum of all.
func TestChunksAndTheChecksumOfTheWhole(t *testing.T) {
	const chunk = 2 * 256 << 10
	for _, size := range []int64{chunk + 1, 2 * chunk, 3*chunk - 1} {
		p, rec := server(t, "GCS_MAX_CHUNK_SIZE", "300000").recorded(t)
		s := p.store(t)
		data := sample(t, size)
		put(t, s, "k", data, store.PutOptions{Meta: map[string]string{"a": "b"}})
		var ranges, sums []string
		for _, r := range rec.take() {
			ranges = append(ranges, r.header.Get("Content-Range"))
			sums = append(sums, r.header.Get("X-Goog-Hash"))
		}
		want := []string{""} // the session
		for at := int64(0); at < size; at += chunk {
			total, end := "*", min(at+chunk, size)
			if end-at < chunk {
				total = fmt.Sprint(size)
			}
			want = append(want, fmt.Sprintf("bytes %d-%d/%s", at, end-1, total))
		}
		if size%chunk == 0 {
			want = append(want, fmt.Sprintf("bytes */%d", size))
		}
		if !slices.Equal(ranges, want) {
			t.Errorf("size %d: chunks %q, want %q", size, ranges, want)
		}
		for i, got := range sums {
			if want := "crc32c=" + sum(data); i == len(sums)-1 && got != want || i < len(sums)-1 && got != "" {
				t.Errorf("request %d: X-Goog-Hash %q", i, got)
			}
		}
		if !bytes.Equal(get(t, s, "k"), data) {
			t.Error("other bytes came back")
		}
	}
}

// TestADamagedChunkIsNoticed: this server does not compare, so that the object
// is there and must go; and it must not be taken for a success.
func TestADamagedChunkIsNoticed(t *testing.T) {
	p, rec := server(t, "GCS_MAX_CHUNK_SIZE", "262144").recorded(t)
	var fired atomic.Bool
	rec.change = func(r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Range"), "bytes 262144-") {
			damage(r)
			fired.Store(true)
		}
	}
	s := p.store(t)
	err := s.Put(t.Context(), "k", bytes.NewReader(sample(t, 700_000)), store.PutOptions{})
	if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "damaged on its way") || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("%v", err)
	}
	if !fired.Load() {
		t.Error("nothing was damaged")
	}
	if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damaged object: %v", err)
	}
}

// TestEncryptionKeyGoesWithTheRequests: the server ignores keys, so that only
// the headers show.
func TestEncryptionKeyGoesWithTheRequests(t *testing.T) {
	key := bytes.Repeat([]byte{7, 200}, 16)
	p, rec := server(t, "GCS_ENCRYPTION_KEY", base64.StdEncoding.EncodeToString(key), "GCS_MAX_CHUNK_SIZE", "262144").recorded(t)
	s := p.store(t)
	digest := sha256.Sum256(key)
	check := func(what string, requests []request, want int) {
		t.Helper()
		keyed := 0
		for _, r := range requests {
			algorithm, got, hash := r.header.Get("X-Goog-Encryption-Algorithm"), r.header.Get("X-Goog-Encryption-Key"), r.header.Get("X-Goog-Encryption-Key-Sha256")
			if algorithm == "" && got == "" && hash == "" {
				continue
			}
			keyed++
			if algorithm != "AES256" || got != base64.StdEncoding.EncodeToString(key) || hash != base64.StdEncoding.EncodeToString(digest[:]) {
				t.Errorf("%s: %q %q", what, algorithm, hash)
			}
		}
		if keyed != want {
			t.Errorf("%s: %d of %d requests have the key, want %d", what, keyed, len(requests), want)
		}
	}
	data := sample(t, 600_000)
	put(t, s, "small", []byte("x"), store.PutOptions{})
	check("small", rec.take(), 1)
	put(t, s, "large", data, store.PutOptions{})
	check("large", rec.take(), 1) // the session has it then for its chunks
	if !bytes.Equal(get(t, s, "large"), data) {
		t.Error("other bytes came back")
	}
	check("get", rec.take(), 1)
	if _, err := s.Stat(t.Context(), "large"); err != nil {
		t.Error(err)
	}
	check("stat", rec.take(), 1)
	if err := s.Delete(t.Context(), "large"); err != nil {
		t.Error(err)
	}
	check("delete", rec.take(), 0)
}

// TestIfAbsentWithChunks: a rival that comes while chunks are sent wins, and of
// many writers one does.
func TestIfAbsentWithChunks(t *testing.T) {
	s := server(t, "GCS_MAX_CHUNK_SIZE", "262144").store(t)
	data := sample(t, 600_000)
	absent := store.PutOptions{IfAbsent: true}
	late := iotest.OneByteReader(strings.NewReader("x"))
	rival := readerFunc(func([]byte) (int, error) {
		put(t, s, "late", []byte("early"), store.PutOptions{})
		return 0, io.EOF
	})
	if err := s.Put(t.Context(), "late", io.MultiReader(bytes.NewReader(data), late, rival), absent); fault.Status(err) != fault.Exists {
		t.Errorf("the late writer: %v", err)
	}
	if got := get(t, s, "late"); string(got) != "early" {
		t.Errorf("%d bytes", len(got))
	}
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch err := s.Put(t.Context(), "race", bytes.NewReader(data), absent); {
			case err == nil:
				wins.Add(1)
			case fault.Status(err) != fault.Exists:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || !bytes.Equal(get(t, s, "race"), data) {
		t.Errorf("%d writers won", wins.Load())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAMissingBucketIsNoMissingObject(t *testing.T) {
	p := server(t)
	p.Bucket = "walg-there-is-no-such-bucket"
	d := p.driver(t)
	_, _, readErr := d.Read(t.Context(), "k", 0, 10, "")
	_, statErr := d.Stat(t.Context(), "k")
	_, _, pageErr := d.Page(t.Context(), "", "")
	up, err := d.Begin(t.Context(), "k", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, d.Traits().PartSize)
	upErr := errors.Join(up.Part(t.Context(), 1, 0, part), up.Part(t.Context(), 2, int64(len(part)), part[:1]),
		up.Commit(t.Context(), 2, driver.Sum{Size: int64(len(part)) + 1}))
	for op, err := range map[string]error{
		"Read": readErr, "Stat": statErr, "Page": pageErr, "upload": upErr,
		"Whole":  d.Whole(t.Context(), "k", []byte("x"), driver.Options{}),
		"Delete": d.Delete(t.Context(), []string{"k"}),
	} {
		if errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_GS_PREFIX") {
			t.Errorf("%s: %v, hint %q", op, err, fault.Hint(err))
		}
	}
}

func TestWhatReadAndStatSayOfAnObject(t *testing.T) {
	d := server(t).driver(t)
	data := sample(t, 1000)
	want := map[string]string{"walg-put": "X", "a_b-c": `"`, "empty": "", "quotes": `""`, "text": ` a "b" `[1:]}
	want["text"] = strings.TrimSpace(want["text"])
	if err := d.Whole(t.Context(), "dir/k", data, driver.Options{Meta: want}); err != nil {
		t.Fatal(err)
	}
	stat, err := d.Stat(t.Context(), "dir/k")
	if err != nil {
		t.Fatal(err)
	}
	body, read, err := d.Read(t.Context(), "dir/k", 10, 20, stat.Version)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	body.Close()
	if err != nil || !bytes.Equal(got, data[10:30]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for op, o := range map[string]driver.Object{"Stat": stat, "Read": read} {
		if o.Key != "dir/k" || o.Size != 1000 || time.Since(o.ModTime).Abs() > time.Hour || o.Version == "" ||
			o.CRC32C == nil || *o.CRC32C != crc32.Checksum(data, castagnoli) || !maps.Equal(o.Meta, want) {
			t.Errorf("%s: %+v", op, o)
		}
	}
	if stat.Version != read.Version {
		t.Errorf("versions %s and %s", stat.Version, read.Version)
	}
	if _, _, err := d.Read(t.Context(), "dir/k", 1001, 1, ""); !errors.Is(err, driver.ErrRange) {
		t.Errorf("behind the end: %v", err)
	}
	if _, _, err := d.Read(t.Context(), "dir/none", 0, 1, ""); !errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Absent {
		t.Errorf("absent: %v", err)
	}
	if err := d.Whole(t.Context(), "dir/k", nil, driver.Options{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // replaced, then gone
		if _, _, err := d.Read(t.Context(), "dir/k", 0, 1, stat.Version); !errors.Is(err, driver.ErrChanged) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another generation: %v", err)
		}
		if err := d.Delete(t.Context(), []string{"dir/k", "dir/none"}); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := d.Read(t.Context(), "dir/k", 0, 1, "bogus"); fault.Status(err) != fault.Usage {
		t.Errorf("bogus version: %v", err)
	}
}

// TestABucketWithVersionsLooksPlain: old generations do not show, and one that
// is being read stays readable.
func TestABucketWithVersionsLooksPlain(t *testing.T) {
	p := server(t)
	p.Bucket += "-v"
	resp, err := http.Post("http://"+p.Env["STORAGE_EMULATOR_HOST"]+"/storage/v1/b?project=test", "application/json",
		strings.NewReader(`{"name":"`+p.Bucket+`","versioning":{"enabled":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	d, s := p.driver(t), p.store(t)
	put(t, s, "k", []byte("one"), store.PutOptions{})
	first, err := d.Stat(t.Context(), p.Root+"k")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", []byte("two"), store.PutOptions{})
	body, _, err := d.Read(t.Context(), p.Root+"k", 0, 10, first.Version)
	if err != nil {
		t.Fatal(err)
	}
	old, err := io.ReadAll(body)
	body.Close()
	if err != nil || string(old) != "one" || string(get(t, s, "k")) != "two" {
		t.Errorf("old %q, %v", old, err)
	}
	page, _, err := d.Page(t.Context(), "", "")
	if err != nil || len(page) != 1 {
		t.Errorf("%d objects, %v", len(page), err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted: %v", err)
	}
}

// cutter is a fake that serves one object by ranges and cuts each answer short.
func cutter(t *testing.T, data []byte, most int) (*Driver, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("X-Goog-Generation", "5")
		w.Header().Add("X-Goog-Hash", "crc32c="+sum(data))
		w.Header().Add("X-Goog-Hash", "md5=AAAAAAAAAAAAAAAAAAAAAA==")
		cut := &short{ResponseWriter: w, left: most}
		http.ServeContent(cut, r, "", time.Now(), bytes.NewReader(data))
		if cut.left == 0 {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(fake.Close)
	d, err := New(t.Context(), "b", settings(map[string]string{"STORAGE_EMULATOR_HOST": fake.URL}))
	if err != nil {
		t.Fatal(err)
	}
	return d, &asked
}

type short struct {
	http.ResponseWriter
	left int
}

func (s *short) Write(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	m, err := s.ResponseWriter.Write(p[:n])
	if err == nil && n < len(p) {
		s.ResponseWriter.(http.Flusher).Flush()
		err = io.ErrShortWrite
	}
	return m, err
}

// TestABrokenBodyIsNotAskedForAgain: the library would do so without end. The
// store goes on where it was.
func TestABrokenBodyIsNotAskedForAgain(t *testing.T) {
	data := sample(t, 1_000_000)
	d, asked := cutter(t, data, 400_000)
	body, o, err := d.Read(t.Context(), "k", 0, 1_000_000, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	body.Close()
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 400_000 || asked.Load() != 1 || o.Size != 1_000_000 {
		t.Errorf("%d of %d bytes by %d requests, %v", len(got), o.Size, asked.Load(), err)
	}
	if o.CRC32C == nil {
		t.Errorf("no checksum in %+v", o)
	}
	if got := get(t, remote.New(d, "", remote.Policy{MinDelay: time.Millisecond}), "k"); !bytes.Equal(got, data) {
		t.Errorf("%d bytes by the store", len(got))
	}
	if n := asked.Load(); n != 1+3 {
		t.Errorf("%d requests in all, want 4", n)
	}
}

// TestCancelledRequestsEnd: against a fake that never answers.
func TestCancelledRequestsEnd(t *testing.T) {
	done := make(chan struct{})
	fake := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-done
	}))
	t.Cleanup(func() { close(done); fake.Close() })
	cause := errors.New("told to stop")
	for _, byTimeout := range []bool{false, true} {
		env := map[string]string{"STORAGE_EMULATOR_HOST": fake.URL}
		want := "told to stop"
		if byTimeout {
			env["GCS_CONTEXT_TIMEOUT"] = "1"
			want = "not done after 1s (GCS_CONTEXT_TIMEOUT)"
		}
		d, err := New(t.Context(), "b", settings(env))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for op, f := range map[string]func(context.Context) error{
			"Whole":  func(ctx context.Context) error { return d.Whole(ctx, "k", []byte("x"), driver.Options{}) },
			"Read":   func(ctx context.Context) error { _, _, err := d.Read(ctx, "k", 0, 1, ""); return err },
			"Stat":   func(ctx context.Context) error { _, err := d.Stat(ctx, "k"); return err },
			"Page":   func(ctx context.Context) error { _, _, err := d.Page(ctx, "", ""); return err },
			"Delete": func(ctx context.Context) error { return d.Delete(ctx, []string{"k"}) },
			"Part": func(ctx context.Context) error {
				up, err := d.Begin(t.Context(), "k", driver.Options{})
				if err != nil {
					return err
				}
				defer up.Abort(t.Context())
				part := make([]byte, d.Traits().PartSize)
				if err := up.Part(ctx, 1, 0, part); err != nil {
					return fmt.Errorf("the first part: %w", err)
				}
				return up.Part(ctx, 2, int64(len(part)), part)
			},
		} {
			wg.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if !byTimeout {
					time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
				}
				begun := time.Now()
				err := f(ctx)
				if err == nil || err.Error() != want || time.Since(begun) > 5*time.Second {
					t.Errorf("%s: %v after %v, want %q", op, err, time.Since(begun), want)
				}
			})
		}
		wg.Wait()
	}
}
