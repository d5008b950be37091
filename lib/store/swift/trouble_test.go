package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

func page(title, text string) string {
	return "<html><h1>" + title + "</h1><p>" + text + "</p></html>"
}

func TestWhatTheServerSays(t *testing.T) {
	t.Parallel()
	const again = -1 // trying again may help
	for name, c := range map[string]struct {
		status int
		body   string
		want   int    // exit status
		text   string // of the error
		hint   string
	}{
		"denied":      {403, page("Forbidden", "Access was denied to this resource."), 64, "403 Forbidden: Access was denied to this resource. (transaction tx17)", "WALG_SWIFT_PREFIX"},
		"bad request": {400, page("Bad Request", "Metadata value longer than 256: X-Object-Meta-A"), 64, "400 Bad Request: Metadata value longer", ""},
		"part away":   {400, "Errors:\n/walg_segments/x, 503 Service Unavailable\n", again, "503 Service Unavailable", ""},
		"quota":       {413, page("Request Entity Too Large", "Upload exceeds quota."), 64, "Upload exceeds quota.", "quota"},
		"container":   {404, page("Not Found", "The resource could not be found."), 64, "no container walg", "WALG_SWIFT_PREFIX"},
		"exists":      {412, "", 73, "412 Precondition Failed", ""},
		"checksum":    {422, page("Unprocessable Entity", "Unable to process the contained instructions"), again, "422 Unprocessable Entity", ""},
		"newer":       {202, "", again, "newer object", ""},
		"conflict":    {409, page("Conflict", "There was a conflict."), again, "409 Conflict", ""},
		"slow":        {408, page("Request Timeout", "The server has waited too long."), again, "408 Request Timeout", ""},
		"too many":    {429, "Slow down", again, "429 Too Many Requests: Slow down", ""},
		"rate limit":  {498, "Slow down", again, "498: Slow down", ""},
		"broken":      {499, "", again, "499", ""},
		"inside":      {500, "<html><h1>x", again, "500 Internal Server Error", ""},
		"busy":        {503, page("Service Unavailable", "The server is currently unavailable."), again, "503 Service Unavailable: The server is currently unavailable.", ""},
		"disk":        {507, "", again, "507 Insufficient Storage", ""},
		"elsewhere":   {301, "", 64, "301 Moved Permanently", "OS_AUTH_URL"},
		"not allowed": {405, "", 64, "405 Method Not Allowed", ""},
	} {
		f := newFake(t)
		f.answer("PUT /walg/k", c.status, c.body)
		err := f.driver(t).Whole(t.Context(), "k", []byte("x"), driver.Options{IfAbsent: true})
		want := c.want
		if want == again {
			want = fault.Failed
		}
		if fault.Status(err) != want || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) != (want == fault.Exists) {
			t.Errorf("%s: %v is of status %d, want %d", name, err, fault.Status(err), want)
			continue
		}
		if !strings.Contains(err.Error(), c.text) || strings.ContainsAny(err.Error(), "\n<>") || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: text %q, want %q", name, err, c.text)
		}
		if c.hint == "" && fault.Hint(err) != "" || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%s: hint %q, want %q", name, fault.Hint(err), c.hint)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.on["HEAD /walg/k"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, err := f.driver(t).Stat(t.Context(), "k")
	var later *driver.Later
	if !errors.As(err, &later) || later.After != 7*time.Second {
		t.Errorf("%v", err)
	}
}

func TestWhatTheLoginSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   int
		text   string
		hint   string
	}{
		"wrong password": {401, page("Unauthorized", "This server could not verify that you are authorized."), 64, "log in: 401 Unauthorized: This server could not verify", "OS_PASSWORD"},
		"keystone":       {401, `{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`, 64, "log in: 401 Unauthorized: The request you have made requires authentication.", "OS_USER_DOMAIN_NAME"},
		"forbidden":      {403, "", 64, "log in: 403 Forbidden", "OS_USERNAME"},
		"no such path":   {404, page("Not Found", "The resource could not be found."), 64, "log in: 404 Not Found", "OS_AUTH_URL"},
		"elsewhere":      {302, "", 64, "302 Found", "OS_AUTH_URL"},
		"busy":           {503, "", 1, "log in: 503 Service Unavailable", ""},
		"no storage":     {200, "", 64, "names no object storage", "OS_REGION_NAME"},
	} {
		f := newFake(t)
		f.answer("GET /auth/v1.0", c.status, c.body)
		_, err := f.driver(t).Stat(t.Context(), "k")
		if fault.Status(err) != c.want || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), c.text) ||
			strings.Contains(err.Error(), "the-secret") || strings.ContainsAny(err.Error(), "\n<>") || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%s: %v, status %d, hint %q", name, err, fault.Status(err), fault.Hint(err))
		}
	}
}

// A token must not follow a redirect to another host.
func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	f, other := newFake(t), newFake(t)
	f.on["GET /walg"] = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/v1/AUTH_test/walg?signature=secret", http.StatusTemporaryRedirect)
	}
	_, _, err := f.driver(t).Page(t.Context(), "", "")
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), other.URL) || strings.Contains(err.Error(), "signature") {
		t.Errorf("%v", err)
	}
	if len(other.seen) != 0 {
		t.Errorf("the other server was asked: %v", other.seen)
	}
}

func TestWhatIsAskedOfSwift(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	ctx := t.Context()
	object := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"900150983cd24fb0d6963f7d28e17f72"`)
		w.Header().Set("X-Timestamp", "1700000000.12345")
		w.Header().Set("X-Object-Meta-Walg-Crc32c", "364b3fb7")
		w.Header().Set("Content-Length", "3")
	}
	f.on["HEAD /walg/k"], f.on["GET /walg/k"] = object, object

	if err := d.Whole(ctx, "k", []byte("abc"), driver.Options{Meta: map[string]string{"a_b": "c"}}); err != nil {
		t.Fatal(err)
	}
	put := f.request(t, "PUT /walg/k").header
	for name, want := range map[string]string{
		"Etag": "900150983cd24fb0d6963f7d28e17f72", "If-None-Match": "*", "Content-Length": "3", "Content-Type": "application/octet-stream",
		"X-Object-Meta-A-Ub": "c", "X-Object-Meta-Walg-Crc32c": "364b3fb7", "User-Agent": "walg", "Expect": "100-continue",
	} {
		if put.Get(name) != want {
			t.Errorf("PUT has %s: %q, want %q", name, put.Get(name), want)
		}
	}
	o, err := d.Stat(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if o.Size != 3 || o.CRC32C == nil || *o.CRC32C != 0x364b3fb7 || fmt.Sprintf("%x", o.MD5) != o.Version ||
		!o.ModTime.Equal(time.Unix(1700000000, 123450000)) || len(o.Meta) != 0 {
		t.Errorf("Stat says %+v", o)
	}
	if head := f.request(t, "HEAD /walg/k").header; head.Get("X-Newest") != "true" {
		t.Errorf("HEAD has %v", head)
	}
	f.on["GET /walg/k"] = func(w http.ResponseWriter, r *http.Request) {
		object(w, r)
		w.Header().Set("Content-Range", "bytes 1-2/3")
		w.Header().Set("Content-Length", "2")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "bc")
	}
	body, o, err := d.Read(ctx, "k", 1, 100, o.Version)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	get := f.request(t, "GET /walg/k").header
	if get.Get("Range") != "bytes=1-100" || get.Get("If-Match") != `"900150983cd24fb0d6963f7d28e17f72"` || o.Size != 3 {
		t.Errorf("GET has %v, and gives %+v", get, o)
	}
}

func TestReadFailures(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	d.known.Store(true)
	for _, c := range []struct {
		status int
		header map[string]string
		want   error
	}{
		{404, nil, fs.ErrNotExist},
		{412, nil, driver.ErrChanged},
		{416, nil, driver.ErrRange},
		{200, nil, nil}, // not the range
		{206, map[string]string{"Content-Range": "bytes 5-9/*"}, nil},
	} {
		f.on["GET /walg/k"] = func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range c.header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(c.status)
		}
		_, _, err := d.Read(t.Context(), "k", 5, 5, "v")
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%d: %v, want %v", c.status, err, c.want)
		}
	}
}

func TestAContainerIsLookedForOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	_, err := d.Stat(t.Context(), "k")
	if errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_SWIFT_PREFIX") {
		t.Errorf("no container: %v, hint %q", err, fault.Hint(err))
	}
	if _, _, err := d.Page(t.Context(), "", ""); fault.Status(err) != fault.Usage || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list: %v", err)
	}
	// A user who may not look at it.
	f.answer("GET /walg", 403, "")
	if _, err := d.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("hidden container: %v", err)
	}
	// Trouble is not absence.
	f.answer("GET /walg", 503, "")
	if _, err := d.Stat(t.Context(), "k"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("busy server: %v", err)
	}
	f.is("GET /walg", `[]`)
	before := len(f.seen)
	for range 3 {
		if _, err := d.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if n := len(f.seen) - before; n != 4 {
		t.Errorf("%d requests for three objects, want 4", n)
	}
}

func TestAShortPageIsNotTheEnd(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	entry := `{"name": %q, "bytes": 5, "last_modified": "2026-11-24T17:00:00.250000"}`
	query := "GET /walg?format=json&limit=1000&marker=%s&prefix=p%%2F"
	f.is(fmt.Sprintf(query, ""), "["+fmt.Sprintf(entry, "p/a b")+"]")
	f.is(fmt.Sprintf(query, "p%2Fa+b"), "["+fmt.Sprintf(entry, "p/ü")+"]")
	f.is(fmt.Sprintf(query, "p%2F%C3%BC"), "[]")
	d := f.driver(t)
	var names []string
	for from := ""; ; {
		page, next, err := d.Page(t.Context(), "p/", from)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range page {
			names = append(names, info.Key)
			if info.Size != 5 || !info.ModTime.Equal(time.Date(2026, 11, 24, 17, 0, 0, 250e6, time.UTC)) {
				t.Errorf("%+v", info)
			}
		}
		if from = next; next == "" {
			break
		}
	}
	if !slices.Equal(names, []string{"p/a b", "p/ü"}) {
		t.Errorf("%q", names)
	}
}

// What an interrupted commit may have made keeps its parts.
func TestAbortAfterADoubtfulCommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		commit http.HandlerFunc
		remove bool
	}{
		"no commit":       {nil, true},
		"refused":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, true},
		"exists":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPreconditionFailed) }, true},
		"thrown away":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, true},
		"server in doubt": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, false},
		"no answer":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
	} {
		f := newFake(t)
		f.is("GET /walg_segments", `[]`)
		d := f.driver(t)
		u, err := d.Begin(t.Context(), "k", driver.Options{IfAbsent: true})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 2; n++ {
			if err := u.Part(t.Context(), n, 0, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if c.commit != nil {
			f.on["PUT /walg/k"] = c.commit
			if err := u.Commit(t.Context(), 2, driver.Sum{Size: 2}); err == nil {
				t.Errorf("%s: the commit succeeded", name)
			}
		}
		if err := u.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		removed := slices.ContainsFunc(f.did(), func(what string) bool { return strings.HasPrefix(what, "DELETE /walg_segments/") })
		if removed != c.remove {
			t.Errorf("%s: parts removed: %v, want %v", name, removed, c.remove)
		}
	}
}

func TestBulkDeletionWhereItIsKnown(t *testing.T) {
	t.Parallel()
	for info, want := range map[string][]string{
		`{"bulk_delete": {"max_deletes_per_request": 10000}}`: {"POST ?bulk-delete=true"},
		`{"bulk_delete": {"max_deletes_per_request": 10}}`:    {"DELETE /walg/a b", "DELETE /walg/ü%"},
		`{}`:   {"DELETE /walg/a b", "DELETE /walg/ü%"},
		`what`: {"DELETE /walg/a b", "DELETE /walg/ü%"},
	} {
		f := newFake(t)
		f.is("GET /info", info)
		f.is("POST ", `{"Response Status": "200 OK", "Number Deleted": 1, "Number Not Found": 1, "Errors": []}`)
		f.answer("DELETE /walg/a b", 204, "")
		d := f.driver(t)
		if err := d.remove(t.Context(), []string{"/walg/a b", "/walg/ü%"}); err != nil {
			t.Errorf("%s: %v", info, err)
		}
		did := f.did()[1:]
		slices.Sort(did)
		if !slices.Equal(did, want) {
			t.Errorf("%s: %q, want %q", info, did, want)
		}
		if len(want) == 1 && f.request(t, "POST ").body != "/walg/a%20b\n/walg/%C3%BC%25\n" {
			t.Errorf("asked to remove %q", f.request(t, "POST ").body)
		}
	}
}

func TestBulkDeletionTellsInItsBody(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	for said, want := range map[string]int{
		`{"Response Status": "200 OK", "Errors": []}`:                                                   fault.OK,
		`{"Response Status": "400 Bad Request", "Errors": [["/walg/a", "403 Forbidden"]]}`:              fault.Usage,
		`{"Response Status": "502 Bad Gateway", "Errors": [["/walg/a", "503 Service Unavailable"]]}`:    fault.Failed,
		`{"Response Status": "400 Bad Request", "Errors": [["/walg/a", "409 Conflict"]]}`:               fault.Failed,
		`{"Response Status": "400 Bad Request", "Errors": [["/walg/a", "Not an SLO manifest"]]}`:        fault.Failed,
		`{"Response Status": "413 Request Entity Too Large", "Response Body": "Maximum", "Errors": []}`: fault.Usage,
	} {
		f.is("POST ", said)
		if err := d.bulkDelete(t.Context(), []string{"/walg/a"}); fault.Status(err) != want {
			t.Errorf("%s: %v, want status %d", said, err, want)
		}
	}
}

// TestDeleteNamesWhatIsLeft: of one object the parts may not go, of the others
// the bulk deletion tells.
func TestDeleteNamesWhatIsLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bulk  string
		want  []string // of what the error is about; none where that is all
		words string
	}{
		"all others gone": {`{"Response Status": "200 OK", "Number Deleted": 2, "Number Not Found": 1, "Errors": []}`, []string{"large"}, ""},
		"one refused": {`{"Response Status": "400 Bad Request", "Number Deleted": 2, "Errors": [["walg/b%20c", "403 Forbidden"]]}`,
			[]string{"b c", "large"}, ""},
		"given up": {`{"Response Status": "400 Bad Request", "Number Deleted": 1, "Errors": [["/walg/b%20c", "403 Forbidden"]]}`, nil, "403 Forbidden"},
		"strange":  {`{"Response Status": "400 Bad Request", "Number Deleted": 2, "Errors": [["/walg/x", "503 Busy"]]}`, nil, `"/walg/x"`},
	} {
		f := newFake(t)
		f.is("GET /info", `{"bulk_delete": {}}`)
		for _, key := range []string{"a", "b c", "d"} {
			f.answer("HEAD /walg/"+key, 200, "")
		}
		f.on["HEAD /walg/large"] = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Static-Large-Object", "True") }
		f.is("DELETE /walg/large", `{"Response Status": "400 Bad Request", "Number Deleted": 1, "Errors": [["walg_segments/p", "403 Forbidden"]]}`)
		f.is("POST ", c.bulk)
		d := f.driver(t)
		d.known.Store(true)
		err := d.Delete(t.Context(), []string{"d", "b c", "absent", "large", "a"})
		var left driver.Undeleted
		var keys []string
		errors.As(err, &left)
		for _, u := range left {
			keys = append(keys, u.Key)
		}
		if err == nil || !slices.Equal(keys, c.want) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, about %q, want %q", name, err, keys, c.want)
		}
		// Rights are the container's.
		f.answer("HEAD /walg/a", 403, "")
		if err := d.Delete(t.Context(), []string{"large", "a"}); fault.Status(err) != fault.Usage || errors.As(err, new(driver.Undeleted)) {
			t.Errorf("%s: may not look: %v", name, err)
		}
	}
}

func TestTheContainerOfParts(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	f.on["GET /walg"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Storage-Policy", "silver")
		fmt.Fprint(w, "[]")
	}
	f.answer("PUT /walg_segments", 403, page("Forbidden", "Access was denied."))
	_, err := d.Begin(t.Context(), "k", driver.Options{})
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "walg_segments") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
	delete(f.on, "PUT /walg_segments")
	if _, err := d.Begin(t.Context(), "k", driver.Options{}); err != nil {
		t.Fatal(err)
	}
	if policy := f.request(t, "PUT /walg_segments").header.Get("X-Storage-Policy"); policy != "silver" {
		t.Errorf("made under policy %q", policy)
	}
	if _, err := d.Begin(t.Context(), strings.Repeat("k", maxLarge+1), driver.Options{}); fault.Status(err) != fault.Usage {
		t.Errorf("a name that is too long: %v", err)
	}
}

func TestCancelledRequestsEnd(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	hang := make(chan struct{})
	defer close(hang)
	wait := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	for _, what := range []string{"GET /auth/v1.0", "HEAD /walg/k"} {
		f.mu.Lock()
		clear(f.on)
		f.on[what] = wait
		f.mu.Unlock()
		d := f.driver(t)
		cause := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		results := make(chan error, 2) // the second waits for the login of the first
		for range 2 {
			go func() { _, err := d.Stat(ctx, "k"); results <- err }()
		}
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		for range 2 {
			select {
			case err := <-results:
				if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", what, err)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: still waits", what)
			}
		}
	}
}

func TestAStalledRequestEnds(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	hang := make(chan struct{})
	defer close(hang)
	f.on["PUT /walg/k"] = func(http.ResponseWriter, *http.Request) { <-hang }
	settings := f.settings(nil)
	d, err := New(t.Context(), "walg", &driver.Settings{Get: func(name string) string { return settings[name] }, Stall: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Whole(t.Context(), "k", []byte("x"), driver.Options{}); !errors.Is(err, wire.ErrStalled) {
		t.Errorf("%v, want %v", err, wire.ErrStalled)
	}
}
