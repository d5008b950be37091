package ask

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walg/lib/fault"
)

// quick are limits for a question that is over soon, with tries that follow
// each other fast.
var quick = Limits{Total: 300 * time.Millisecond, Pause: time.Millisecond}

// patient are for questions that are answered in the end.
var patient = Limits{Pause: time.Millisecond}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	o.EndpointSetting, o.CASetting = "THE_ENDPOINT", "THE_CA"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks url, where only 200 is good.
func get(t *testing.T, c *Client, url string) (string, error) {
	t.Helper()
	ctx, cancel := c.Within(t.Context())
	defer cancel()
	var body string
	err := c.Ask(ctx, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	}, func(a Answer) error {
		if a.Status != http.StatusOK {
			return Judge(Refusal(a.Status, "", string(a.Body)), a.Status, "the hint")
		}
		body = string(a.Body)
		return nil
	})
	return body, err
}

// serve answers the nth request, counted from 1, by h.
func serve(t *testing.T, h func(n int64, w http.ResponseWriter, r *http.Request)) (string, *atomic.Int64) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(n.Add(1), w, r) }))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL, &n
}

func TestWhatMayBeBetterIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]http.HandlerFunc{
		"408": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(408) },
		"429": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cut later": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "half")
		},
	} {
		url, n := serve(t, func(n int64, w http.ResponseWriter, r *http.Request) {
			if n <= 3 {
				bad(w, r)
				return
			}
			io.WriteString(w, "fine")
		})
		if body, err := get(t, newClient(t, Options{Limits: patient}), url); body != "fine" || err != nil || n.Load() != 4 {
			t.Errorf("%s: %q after %d requests, %v", name, body, n.Load(), err)
		}
	}
}

func TestTheTimeIsOverInTheEnd(t *testing.T) {
	t.Parallel()
	url, n := serve(t, func(_ int64, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		io.WriteString(w, "not now")
	})
	_, err := get(t, newClient(t, Options{Limits: quick}), url)
	if want := "not now (503); gave up after 300ms, tries: "; fault.Status(err) != fault.Failed || !strings.HasPrefix(fmt.Sprint(err), want) || n.Load() < 2 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestATryHasItsOwnTime(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]http.HandlerFunc{
		"silence": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("half"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		url, n := serve(t, func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				slow(w, r)
				return
			}
			io.WriteString(w, "fine")
		})
		limits := patient
		limits.Try = 20 * time.Millisecond
		if body, err := get(t, newClient(t, Options{Limits: limits}), url); body != "fine" || err != nil || n.Load() < 2 {
			t.Errorf("%s: %q after %d requests, %v", name, body, n.Load(), err)
		}
	}
}

func TestSilenceIsStatus1(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, func(_ int64, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	limits := quick
	limits.Try = 30 * time.Millisecond
	_, err := get(t, newClient(t, Options{Limits: limits}), url)
	if fault.Status(err) != fault.Failed || !strings.HasPrefix(fmt.Sprint(err), "no answer within 30ms; gave up after 300ms") {
		t.Errorf("%v", err)
	}
	_, err = get(t, newClient(t, Options{Limits: quick}), url)
	if fault.Status(err) != fault.Failed || !strings.HasPrefix(fmt.Sprint(err), "no answer within 300ms; gave up after 300ms, tries: 1") {
		t.Errorf("one try: %v", err)
	}
}

func TestTheLastTryDoesNotHideTheReason(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, func(n int64, w http.ResponseWriter, r *http.Request) {
		if n > 1 {
			<-r.Context().Done()
		}
		w.WriteHeader(503)
	})
	_, err := get(t, newClient(t, Options{Limits: quick}), url)
	if !strings.HasPrefix(fmt.Sprint(err), "Service Unavailable (503); gave up") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsFinalIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 400, 401, 403, 404} {
		url, n := serve(t, func(_ int64, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		_, err := get(t, newClient(t, Options{Limits: patient}), url)
		if fault.Status(err) != fault.Usage || fault.Hint(err) != "the hint" || !strings.Contains(fmt.Sprint(err), fmt.Sprint(status)) || n.Load() != 1 {
			t.Errorf("%d: %d requests, %v", status, n.Load(), err)
		}
	}
}

func TestAnAnswerHasALargestSize(t *testing.T) {
	t.Parallel()
	size := largest
	url, n := serve(t, func(_ int64, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", size)) })
	if body, err := get(t, newClient(t, Options{Limits: patient}), url); len(body) != largest || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	size++
	if _, err := get(t, newClient(t, Options{Limits: patient}), url); fault.Status(err) != fault.Failed || n.Load() != 2 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestTheCallerMayEndIt(t *testing.T) {
	t.Parallel()
	why := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	url, _ := serve(t, func(_ int64, w http.ResponseWriter, r *http.Request) {
		cancel(why)
		<-r.Context().Done()
	})
	c := newClient(t, Options{Limits: patient})
	within, end := c.Within(ctx)
	defer end()
	err := c.Ask(within, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	}, func(Answer) error { return nil })
	if err != why {
		t.Errorf("%v", err)
	}
}

func TestAClosedPortIsStatus1(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = get(t, newClient(t, Options{Limits: quick}), "http://"+l.Addr().String()+"/secret?token=secret")
	if fault.Status(err) != fault.Failed || !strings.Contains(fmt.Sprint(err), "refused") || strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("%v", err)
	}
}

func TestTLSFailsClearly(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fine") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, err := get(t, newClient(t, Options{Limits: quick}), s.URL)
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "THE_CA") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if body, err := get(t, newClient(t, Options{Limits: patient, CA: ca}), s.URL); body != "fine" || err != nil {
		t.Errorf("with its authority: %q, %v", body, err)
	}
	plain, _ := serve(t, func(_ int64, w http.ResponseWriter, _ *http.Request) {})
	_, err = get(t, newClient(t, Options{Limits: quick}), strings.Replace(plain, "http:", "https:", 1))
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "THE_ENDPOINT") {
		t.Errorf("no TLS: %v, hint %q", err, fault.Hint(err))
	}
}

func TestABadAuthorityIsStatus64(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".none"} {
		if _, err := New(Options{CA: file, CASetting: "THE_CA"}); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "THE_CA") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestWhatTheNetworkSaysIsExplained(t *testing.T) {
	c := newClient(t, Options{})
	for _, test := range []struct {
		err  error
		hint string
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, "THE_ENDPOINT"},
		{x509.UnknownAuthorityError{}, "THE_CA"},
		{x509.HostnameError{Certificate: &x509.Certificate{}}, "THE_ENDPOINT"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "clock"},
		{tls.AlertError(40), "TLS"},
		{http.ErrSchemeMismatch, "THE_ENDPOINT"},
	} {
		err := c.explain(t.Context(), fmt.Errorf("dial: %w", test.err))
		if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), test.hint) {
			t.Errorf("%v: hint %q", err, fault.Hint(err))
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, &net.DNSError{Err: "server misbehaving", IsTemporary: true}} {
		if got := c.explain(t.Context(), err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestARefusalIsShort(t *testing.T) {
	for want, said := range map[string][2]string{
		"Code: message (403)":                          {"Code", " message.\nthe token: secret"},
		"Code (403)":                                   {"Code", ""},
		"message (403)":                                {"", "message"},
		"Forbidden (403)":                              {"", ""},
		strings.Repeat("ä", 200) + "... (403)":         {"", strings.Repeat("ä", 201)},
		"Code: " + strings.Repeat("x", 200) + " (403)": {"Code", strings.Repeat("x", 200)},
	} {
		if got := Refusal(403, said[0], said[1]).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestKeysGoOnlyWhereNobodyListens(t *testing.T) {
	for address, want := range map[string]string{
		"https://kms.example":       "https://kms.example",
		"https://kms.example:8443/": "https://kms.example:8443",
		"http://127.0.0.1:1":        "http://127.0.0.1:1",
		"http://[::1]:1":            "http://[::1]:1",
		"http://localhost:1/":       "http://localhost:1",
		"http://kms.example":        "",
		"http://10.0.0.1":           "",
		"http://127.0.0.1.example":  "",
		"kms.example":               "",
		"ftp://kms.example":         "",
		"https://":                  "",
		"https://user@kms.example":  "",
		"https://kms.example/?a=b":  "",
		"https://kms.example/#a":    "",
		"https://kms\n.example":     "",
	} {
		got, err := Endpoint("THE_ENDPOINT", address)
		if got != want || (err == nil) != (want != "") || err != nil && (fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "THE_ENDPOINT")) {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
}
