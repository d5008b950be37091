package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// fakeBucket is a driver that keeps objects in memory, and fails as often as
// it is told: before it has done anything, or after, when only the answer is
// lost.
type fakeBucket struct {
	traits driver.Traits
	fault  func(op string) (before, after error) // nil never fails
	cut    func(n int) int                       // how many of n bytes a Read gives; nil is all
	gate   func(op, key string)                  // called first by each method; nil does nothing
	refuse func(key string) error                // why Delete does not remove a key; nil refuses none

	mu      sync.Mutex
	objects map[string]fakeObject
	uploads map[*fakeUpload]bool
	version int
	calls   map[string]int
}

type fakeObject struct {
	data    []byte
	version string
	meta    map[string]string
	time    time.Time
	sum     *uint32
}

func newFakeBucket() *fakeBucket {
	return &fakeBucket{
		traits:  driver.Traits{PartSize: 1 << 20, Piece: 300_000, Parallel: 4, Batch: 100, Meta: true, Endpoint: "FAKE_ENDPOINT", CA: "FAKE_CA"},
		objects: map[string]fakeObject{}, uploads: map[*fakeUpload]bool{}, calls: map[string]int{},
	}
}

// do runs one method with the faults around it.
func (b *fakeBucket) do(ctx context.Context, op, key string, f func() error) error {
	if b.gate != nil {
		b.gate(op, key)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[op]++
	var before, after error
	if b.fault != nil {
		before, after = b.fault(op)
	}
	if before != nil {
		return before
	}
	return cmp.Or(f(), after)
}

func (b *fakeBucket) count(op string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[op]
}

func (b *fakeBucket) make(key string, data []byte, o driver.Options, sum *uint32) error {
	if _, there := b.objects[key]; there && o.IfAbsent {
		return fmt.Errorf("%w: fake 412", fs.ErrExist)
	}
	b.version++
	b.objects[key] = fakeObject{bytes.Clone(data), fmt.Sprint("v", b.version), maps.Clone(o.Meta), time.Now(), sum}
	return nil
}

func (b *fakeBucket) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	return b.do(ctx, "whole", key, func() error { return b.make(key, data, o, nil) })
}

type fakeUpload struct {
	b     *fakeBucket
	key   string
	o     driver.Options
	parts map[int][]byte
	at    map[int]int64
}

func (b *fakeBucket) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	u := &fakeUpload{b, key, o, map[int][]byte{}, map[int]int64{}}
	return u, b.do(ctx, "begin", key, func() error { b.uploads[u] = true; return nil })
}

func (u *fakeUpload) Part(ctx context.Context, n int, at int64, data []byte) error {
	return u.b.do(ctx, "part", u.key, func() error {
		if u.b.traits.Stream && n != len(u.parts)+1 {
			return fmt.Errorf("part %d after %d", n, len(u.parts))
		}
		u.parts[n], u.at[n] = bytes.Clone(data), at
		return nil
	})
}

func (u *fakeUpload) Commit(ctx context.Context, n int, whole driver.Sum) error {
	return u.b.do(ctx, "commit", u.key, func() error {
		if !u.b.uploads[u] {
			return errors.New("no such upload")
		}
		var data []byte
		for i := range n {
			if u.at[i+1] != int64(len(data)) {
				return fmt.Errorf("part %d at %d, not %d", i+1, u.at[i+1], len(data))
			}
			data = append(data, u.parts[i+1]...)
		}
		if int64(len(data)) != whole.Size || crc32.Checksum(data, castagnoli) != whole.CRC32C {
			return fmt.Errorf("the sum is wrong")
		}
		if err := u.b.make(u.key, data, u.o, &whole.CRC32C); err != nil {
			return err
		}
		delete(u.b.uploads, u)
		return nil
	})
}

func (u *fakeUpload) Abort(ctx context.Context) error {
	u.b.mu.Lock()
	defer u.b.mu.Unlock()
	delete(u.b.uploads, u)
	return ctx.Err()
}

func (b *fakeBucket) describe(key string, o fakeObject) driver.Object {
	return driver.Object{
		Info:    store.Info{Key: key, Size: int64(len(o.data)), ModTime: o.time, Meta: maps.Clone(o.meta)},
		Version: o.version,
	}
}

func (b *fakeBucket) Read(ctx context.Context, key string, at, n int64, version string) (body io.ReadCloser, object driver.Object, err error) {
	err = b.do(ctx, "read", key, func() error {
		o, ok := b.objects[key]
		switch {
		case !ok:
			return fs.ErrNotExist
		case version != "" && version != o.version:
			return driver.ErrChanged
		case at >= int64(len(o.data)):
			return driver.ErrRange
		}
		data := o.data[at:min(at+n, int64(len(o.data)))]
		if b.cut != nil {
			data = data[:b.cut(len(data))]
		}
		body, object = io.NopCloser(bytes.NewReader(data)), b.describe(key, o)
		return nil
	})
	return body, object, err
}

// Stat tells the checksum, which Read does not, as S3.
func (b *fakeBucket) Stat(ctx context.Context, key string) (object driver.Object, err error) {
	err = b.do(ctx, "stat", key, func() error {
		o, ok := b.objects[key]
		if !ok {
			return fs.ErrNotExist
		}
		object = b.describe(key, o)
		object.CRC32C = o.sum
		if sum := md5.Sum(o.data); o.sum == nil {
			object.MD5 = sum[:]
		}
		return nil
	})
	return object, err
}

func (b *fakeBucket) Page(ctx context.Context, prefix, from string) (page []store.Info, next string, err error) {
	err = b.do(ctx, "page", prefix, func() error {
		page, next = nil, ""
		for _, key := range slices.Sorted(maps.Keys(b.objects)) {
			if strings.HasPrefix(key, prefix) && key > from {
				if len(page) == 300 {
					next = page[299].Key
					break
				}
				page = append(page, b.describe(key, b.objects[key]).Info)
			}
		}
		return nil
	})
	return page, next, err
}

func (b *fakeBucket) Delete(ctx context.Context, keys []string) error {
	return b.do(ctx, "delete", strings.Join(keys, " "), func() error {
		if len(keys) > b.traits.Batch {
			return errors.New("too many")
		}
		var kept driver.Kept
		for _, key := range keys {
			if b.refuse != nil {
				if err := b.refuse(key); err != nil {
					kept.Add(key, err)
					continue
				}
			}
			delete(b.objects, key)
		}
		return kept.Of(keys)
	})
}

func (b *fakeBucket) Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for u := range b.uploads {
			if strings.HasPrefix(u.key, prefix) && !yield(store.Leftover{Name: u.name(), Key: u.key, Started: time.Now()}, nil) {
				return
			}
		}
	}
}

func (u *fakeUpload) name() string { return fmt.Sprintf("%s?upload=%p", u.key, u) }

func (b *fakeBucket) Discard(ctx context.Context, l store.Leftover) error {
	return b.do(ctx, "discard", l.Key, func() error {
		for u := range b.uploads {
			if u.name() == l.Name {
				delete(b.uploads, u)
				return nil
			}
		}
		if !strings.HasPrefix(l.Name, l.Key+"?upload=") {
			return driver.Permanent(errors.New("no upload has this name"), "")
		}
		return fs.ErrNotExist
	})
}

func (b *fakeBucket) URL(key string) string { return "fake://bucket/" + key }
func (b *fakeBucket) Traits() driver.Traits { return b.traits }

// quick is a policy for tests.
func quick() Policy {
	return Policy{Tries: 100, MinDelay: time.Microsecond, MaxDelay: 50 * time.Microsecond}
}

// flaky fails a share of the calls, half of them after the deed.
func flaky(share float64, seed uint64) func(string) (error, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	return func(op string) (before, after error) {
		switch p := random.Float64(); {
		case p < share/2:
			before = errors.New("fake: connection reset before")
		case p < share && op != "begin": // an upload of which we never heard cannot be aborted
			after = errors.New("fake: connection reset after")
		}
		return before, after
	}
}

// serve lets a child process use the same bucket: the suite kills one in
// the middle of a Put.
func (b *fakeBucket) serve() (url string, stop func()) {
	parts := map[string]driver.Upload{}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var call fakeCall
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal([]byte(r.Header.Get("Call")), &call)
		}
		if err != nil {
			return
		}
		b.mu.Lock()
		up := parts[call.ID]
		b.mu.Unlock()
		switch call.Op {
		case "whole":
			err = b.Whole(r.Context(), call.Key, data, call.Options)
		case "begin":
			up, err = b.Begin(r.Context(), call.Key, call.Options)
			b.mu.Lock()
			parts[call.ID] = up
			b.mu.Unlock()
		case "part":
			err = up.Part(r.Context(), call.N, call.At, data)
		case "commit":
			err = up.Commit(r.Context(), call.N, call.Whole)
		case "abort":
			err = up.Abort(r.Context())
		case "stat":
			var object driver.Object
			if object, err = b.Stat(r.Context(), call.Key); err == nil {
				err = json.NewEncoder(w).Encode(object)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := httptest.NewServer(mux)
	return server.URL, server.Close
}

type fakeCall struct {
	Op, Key, ID string
	N           int
	At          int64
	Whole       driver.Sum
	Options     driver.Options
}

// fakeClient is the driver of that child, which only puts.
type fakeClient struct {
	*fakeBucket
	url string
}

func (c *fakeClient) call(ctx context.Context, call fakeCall, data []byte) error {
	_, err := c.ask(ctx, call, data)
	return err
}

func (c *fakeClient) ask(ctx context.Context, call fakeCall, data []byte) (answer []byte, err error) {
	text, err := json.Marshal(call)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", c.url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Call", string(text))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func (c *fakeClient) Stat(ctx context.Context, key string) (object driver.Object, err error) {
	answer, err := c.ask(ctx, fakeCall{Op: "stat", Key: key}, nil)
	if err == nil {
		err = json.Unmarshal(answer, &object)
	}
	return object, err
}

func (c *fakeClient) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	return c.call(ctx, fakeCall{Op: "whole", Key: key, Options: o}, data)
}

func (c *fakeClient) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	id := net.JoinHostPort(key, fmt.Sprint(rand.Uint64()))
	return &fakeClientUpload{c, id}, c.call(ctx, fakeCall{Op: "begin", Key: key, ID: id, Options: o}, nil)
}

type fakeClientUpload struct {
	c  *fakeClient
	id string
}

func (u *fakeClientUpload) Part(ctx context.Context, n int, at int64, data []byte) error {
	return u.c.call(ctx, fakeCall{Op: "part", ID: u.id, N: n, At: at}, data)
}

func (u *fakeClientUpload) Commit(ctx context.Context, n int, whole driver.Sum) error {
	return u.c.call(ctx, fakeCall{Op: "commit", ID: u.id, N: n, Whole: whole}, nil)
}

func (u *fakeClientUpload) Abort(ctx context.Context) error {
	return u.c.call(ctx, fakeCall{Op: "abort", ID: u.id}, nil)
}
