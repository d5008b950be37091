// Package s3list is an S3 server for tests of long listings: a bucket with a
// million objects that nobody has to make.
//
// Most of its objects are synthetic: a function gives their keys, in order, and
// they are never held all at once. Beside them are small ones, held in memory,
// that tests and clients put. It knows ListObjectsV2 without a delimiter, GetObject,
// HeadObject, PutObject, DeleteObject, DeleteObjects and ListMultipartUploads
// (there never are any), all path-style and without versions. To everything
// else it says NotImplemented. It looks at no signature and at no checksum:
// what the driver of S3 makes of a real server is tested against real ones.
package s3list

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/bits"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bucket is the name of the only one.
const Bucket = "walg"

// Synthetic describes objects that are there without having been put.
type Synthetic struct {
	Count   int
	Key     func(i int) string // strictly ascending in byte order; called by several goroutines
	Size    int64              // of each: the key and a newline, again and again
	ModTime time.Time
}

// Fake is the server. It ends with the test.
type Fake struct {
	server    *httptest.Server
	synthetic Synthetic
	modified  string // of the synthetic ones, as listings have it

	mu      sync.RWMutex
	deleted []uint64 // one bit for each synthetic object
	small   map[string]object
	keys    []string // of small, sorted
	counts  map[string]int
}

// object is a small one.
type object struct {
	data     []byte
	etag     string
	modified time.Time
	meta     http.Header // X-Amz-Meta-
}

// New starts a server.
func New(t testing.TB, s Synthetic) *Fake {
	f := &Fake{
		synthetic: s, modified: stamp(s.ModTime),
		deleted: make([]uint64, (s.Count+63)/64), small: map[string]object{}, counts: map[string]int{},
	}
	f.server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.server.Close)
	return f
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// Env returns the settings with which clients reach the server, and find
// nothing else.
func (f *Fake) Env() map[string]string {
	return map[string]string{
		"WALG_S3_PREFIX": "s3://" + Bucket, "AWS_ENDPOINT": f.server.URL, "AWS_S3_FORCE_PATH_STYLE": "true",
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake",
	}
}

// Count returns how many requests of a kind came: ListObjectsV2, GetObject,
// HeadObject, PutObject, DeleteObject, DeleteObjects, ListMultipartUploads or
// NotImplemented.
func (f *Fake) Count(kind string) int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.counts[kind]
}

// Put makes a small object, also in the place of a synthetic one.
func (f *Fake) Put(key string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(key, bytes.Clone(data), nil)
}

func (f *Fake) put(key string, data []byte, meta http.Header) object {
	f.remove(key)
	sum := md5.Sum(data)
	o := object{data, `"` + hex.EncodeToString(sum[:]) + `"`, time.Now(), meta}
	f.small[key] = o
	f.keys = slices.Insert(f.keys, sort.SearchStrings(f.keys, key), key)
	return o
}

// remove removes an object, if there is one.
func (f *Fake) remove(key string) {
	if _, ok := f.small[key]; ok {
		delete(f.small, key)
		i := sort.SearchStrings(f.keys, key)
		f.keys = slices.Delete(f.keys, i, i+1)
	}
	if i, ok := f.find(key); ok {
		f.deleted[i/64] |= 1 << (i % 64)
	}
}

// find returns the number of the synthetic object of that key.
func (f *Fake) find(key string) (int, bool) {
	i := f.seek(key)
	return i, i < f.synthetic.Count && f.synthetic.Key(i) == key && !f.gone(i)
}

// seek returns the number of the first synthetic key that is not less than key.
func (f *Fake) seek(key string) int {
	return sort.Search(f.synthetic.Count, func(i int) bool { return f.synthetic.Key(i) >= key })
}

func (f *Fake) gone(i int) bool { return f.deleted[i/64]&(1<<(i%64)) != 0 }

// Has reports whether there is an object of that key.
func (f *Fake) Has(key string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, small := f.small[key]
	_, synthetic := f.find(key)
	return small || synthetic
}

// Len returns how many objects there are.
func (f *Fake) Len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := f.synthetic.Count + len(f.small)
	for _, word := range f.deleted {
		n -= bits.OnesCount64(word)
	}
	return n
}

// entry is an object in a listing; number is that of a synthetic one, else -1.
type entry struct {
	key    string
	number int
}

// from returns all objects whose keys are not less than key, in order.
func (f *Fake) from(key string) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		small := f.keys[sort.SearchStrings(f.keys, key):]
		last := ""
		for i := f.seek(key); i < f.synthetic.Count; i++ {
			if f.gone(i) {
				continue
			}
			next := f.synthetic.Key(i)
			if last != "" && next <= last {
				panic(fmt.Sprintf("s3list: synthetic key %d is %q after %q", i, next, last))
			}
			last = next
			for ; len(small) > 0 && small[0] < next; small = small[1:] {
				if !yield(entry{small[0], -1}) {
					return
				}
			}
			if !yield(entry{next, i}) {
				return
			}
		}
		for _, key := range small {
			if !yield(entry{key, -1}) {
				return
			}
		}
	}
}

// etag of a synthetic object. It looks like one of an upload in parts, which is
// no MD5.
func appendTag(p []byte, number int) []byte { return fmt.Appendf(p, "%032x-1", number) }

// repeated is the content of a synthetic object.
type repeated struct {
	line []byte
	size int64
}

func (r repeated) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < r.size {
		some := copy(p[n:min(int64(len(p)), int64(n)+r.size-at)], r.line[at%int64(len(r.line)):])
		n, at = n+some, at+int64(some)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// open returns what is to be served of an object; ok is false where there is
// none.
func (f *Fake) open(key string, header http.Header) (content io.ReadSeeker, modified time.Time, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if o, ok := f.small[key]; ok {
		maps.Copy(header, o.meta)
		header.Set("ETag", o.etag)
		return bytes.NewReader(o.data), o.modified, true
	}
	i, ok := f.find(key)
	if !ok {
		return nil, time.Time{}, false
	}
	header.Set("ETag", `"`+string(appendTag(nil, i))+`"`)
	s := f.synthetic
	return io.NewSectionReader(repeated{[]byte(key + "\n"), s.Size}, 0, s.Size), s.ModTime, true
}

func (f *Fake) count(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[kind]++
}

// kind names a request as S3 does.
func kind(r *http.Request, key string) string {
	q := r.URL.Query()
	for _, other := range []string{"versions", "versionId", "uploadId", "location", "acl", "tagging", "policy", "versioning", "delimiter", "partNumber"} {
		if q.Has(other) {
			return ""
		}
	}
	switch {
	case key == "" && r.Method == http.MethodGet && q.Get("list-type") == "2":
		return "ListObjectsV2"
	case key == "" && r.Method == http.MethodGet && q.Has("uploads"):
		return "ListMultipartUploads"
	case key == "" && r.Method == http.MethodPost && q.Has("delete"):
		return "DeleteObjects"
	case key == "" || q.Has("uploads"):
		return ""
	case r.Method == http.MethodGet:
		return "GetObject"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	// A body in signed chunks is another format.
	case r.Method == http.MethodPut && !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") && r.Header.Get("X-Amz-Copy-Source") == "":
		return "PutObject"
	}
	return ""
}

func (f *Fake) serve(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	what := kind(r, key)
	if what == "" {
		what = "NotImplemented"
	}
	f.count(what)
	if bucket != Bucket {
		refuse(w, r, http.StatusNotFound, "NoSuchBucket")
		return
	}
	switch what {
	case "ListObjectsV2":
		f.list(w, r)
	case "ListMultipartUploads":
		xml(w, []byte("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"))
	case "GetObject", "HeadObject":
		content, modified, ok := f.open(key, w.Header())
		if !ok {
			refuse(w, r, http.StatusNotFound, "NoSuchKey")
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream") // or it would be guessed
		http.ServeContent(w, r, "", modified, content)
	case "PutObject":
		f.take(w, r, key)
	case "DeleteObject":
		f.mu.Lock()
		f.remove(key)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case "DeleteObjects":
		f.deleteMany(w, r)
	default:
		refuse(w, r, http.StatusNotImplemented, what)
	}
}

// take makes an object of the body.
func (f *Fake) take(w http.ResponseWriter, r *http.Request, key string) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut; nobody waits for an answer
	}
	meta := http.Header{}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Amz-Meta-") {
			meta[name] = values
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, small := f.small[key]
	if _, synthetic := f.find(key); r.Header.Get("If-None-Match") != "" && (small || synthetic) {
		refuse(w, r, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("ETag", f.put(key, data, meta).etag)
}
