package s3

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// fake is not S3: it records requests and agrees to all of them, but for those
// that a test answers itself. Nothing is kept, and no signature looked at.
type fake struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
	on   map[string]http.HandlerFunc // by what
}

type seen struct {
	what   string // METHOD path, or METHOD path?subresource
	host   string
	query  url.Values
	header http.Header
	body   string
}

const (
	fakeKey    = "THEKEYID"
	fakeSecret = "the-secret"
	fakeRegion = "eu-central-1"
)

func newFake(t *testing.T) *fake {
	f := &fake{on: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// driver has the settings of the fake with changes; the empty value is not set.
func (f *fake) driver(t *testing.T, change map[string]string) *Driver {
	t.Helper()
	s := map[string]string{
		"AWS_ENDPOINT": f.URL, "AWS_ACCESS_KEY_ID": fakeKey, "AWS_SECRET_ACCESS_KEY": fakeSecret,
		"AWS_REGION": fakeRegion, "AWS_S3_FORCE_PATH_STYLE": "true",
	}
	maps.Copy(s, change)
	d, err := newDriver(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// answer gives the answer to a request; "" is to all without one of their own.
func (f *fake) answer(what string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on[what] = h
}

// absent lets nothing be found where a conditional put looks first.
func (f *fake) absent(d *Driver) {
	d.found.Store(true)
	f.answer("HEAD /walg/k", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
}

// requests returns those seen of a kind, or all.
func (f *fake) requests(what string) []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []seen
	for _, s := range f.seen {
		if what == "" || s.what == what {
			all = append(all, s)
		}
	}
	return all
}

// request returns the last one of a kind.
func (f *fake) request(t *testing.T, what string) seen {
	t.Helper()
	all := f.requests(what)
	if len(all) == 0 {
		var others []string
		for _, s := range f.requests("") {
			others = append(others, s.what)
		}
		t.Fatalf("no request %s, but %q", what, others)
	}
	return all[len(all)-1]
}

// subresources are the parameters that make a request another one.
var subresources = []string{"uploads", "uploadId", "delete", "location", "list-type", "marker", "versions"}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what was cut off is not looked at
	what := r.Method + " " + r.URL.Path
	for _, name := range subresources {
		if r.URL.Query().Has(name) {
			what += "?" + name
			break
		}
	}
	f.mu.Lock()
	f.seen = append(f.seen, seen{what, r.Host, r.URL.Query(), r.Header.Clone(), string(body)})
	h := f.on[what]
	if h == nil {
		h = f.on[""]
	}
	f.mu.Unlock()
	if h == nil {
		h = agree
	}
	h(w, r)
}

// agree answers as S3 does where all is well. The object k has 4 bytes.
func agree(w http.ResponseWriter, r *http.Request) {
	const tag = `"0123456789abcdef0123456789abcdef"`
	q := r.URL.Query()
	xml := func(format string, args ...any) {
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"+format, args...)
	}
	switch {
	case r.Method == "POST" && q.Has("uploads"):
		w.Header().Set("x-amz-checksum-algorithm", "CRC32C")
		w.Header().Set("x-amz-checksum-type", "FULL_OBJECT")
		xml("<InitiateMultipartUploadResult><Bucket>walg</Bucket><Key>k</Key><UploadId>17</UploadId></InitiateMultipartUploadResult>")
	case r.Method == "POST" && q.Has("uploadId"):
		xml("<CompleteMultipartUploadResult><Bucket>walg</Bucket><Key>k</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", tag)
	case r.Method == "POST" && q.Has("delete"):
		xml("<DeleteResult></DeleteResult>")
	case r.Method == "DELETE":
		w.WriteHeader(http.StatusNoContent)
	case r.Method == "PUT":
		w.Header().Set("ETag", tag)
	case q.Has("location"):
		xml("<LocationConstraint>%s</LocationConstraint>", fakeRegion)
	case q.Has("uploads"):
		xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
	case q.Has("versions"):
		xml("<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>")
	case r.Method == "GET" && !strings.HasSuffix(r.URL.Path, "/k"):
		xml("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
	case r.Method == "GET":
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Range", "bytes 0-3/4")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "data")
	case r.Method == "HEAD":
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Length", "4")
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// says is an answer as S3 gives it when it refuses. HEAD gets no body, as ever.
func says(status int, code, message string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Request-Id", "17A0")
		w.Header().Set("Content-Type", "application/xml")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		if code != "" {
			fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message>"+
				"<AWSAccessKeyId>%s</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256</StringToSign><SignatureProvided>5ec7e7</SignatureProvided>"+
				"<Resource>/walg/k</Resource><RequestId>17A0</RequestId><HostId>aG9zdA==</HostId></Error>", code, message, fakeKey)
		}
	}
}

// sends is an answer of that status and body.
func sends(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}
