package swift

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fake speaks as much of Swift as one test needs: version 1 of the
// authentication, and what the test has given it to answer. It records
// requests.
type fake struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
	on   map[string]http.HandlerFunc // by method and path below the account
}

type seen struct {
	what   string // method and path, and the query
	header http.Header
	body   string
}

const fakeAccount = "/v1/AUTH_test"

func newFake(t *testing.T) *fake {
	f := &fake{on: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// settings are those of version 1, with changes; the empty value is not set.
func (f *fake) settings(change map[string]string) map[string]string {
	s := map[string]string{"OS_AUTH_URL": f.URL + "/auth/v1.0", "OS_USERNAME": "test:tester", "OS_PASSWORD": "the-secret"}
	maps.Copy(s, change)
	return s
}

func (f *fake) driver(t *testing.T) *Driver {
	t.Helper()
	d, err := newDriver(f.settings(nil))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// answer makes the fake answer a request with a status and a body of HTML, as
// Swift does.
func (f *fake) answer(what string, status int, text string) {
	f.on[what] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.Header().Set("X-Trans-Id", "tx17")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}

// is makes it answer with JSON.
func (f *fake) is(what, text string) {
	f.on[what] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what was cut off is not looked at
	what := r.Method + " " + strings.TrimPrefix(r.URL.Path, fakeAccount)
	s := seen{what, r.Header.Clone(), string(body)}
	if r.URL.RawQuery != "" {
		s.what += "?" + r.URL.RawQuery
	}
	f.mu.Lock()
	f.seen = append(f.seen, s)
	handler := f.on[s.what]
	if handler == nil {
		handler = f.on[what]
	}
	f.mu.Unlock()
	switch {
	case handler != nil:
		handler(w, r)
	case r.URL.Path == "/auth/v1.0":
		w.Header().Set("X-Storage-Url", f.URL+fakeAccount)
		w.Header().Set("X-Auth-Token", "the-token")
	case r.Method == "PUT":
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// did returns what was asked for, without the login.
func (f *fake) did() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, s := range f.seen {
		if s.what != "GET /auth/v1.0" {
			list = append(list, s.what)
		}
	}
	return list
}

// request returns the last request of that kind.
func (f *fake) request(t *testing.T, what string) seen {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Backward(f.seen) {
		if s.what == what || strings.HasPrefix(s.what, what+"?") {
			return s
		}
	}
	t.Fatalf("no request %s among %d", what, len(f.seen))
	return seen{}
}
