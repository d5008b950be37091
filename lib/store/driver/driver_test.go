package driver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
)

var errCause = errors.New("what the storage said")

func TestAnHTTPStatusHasAKind(t *testing.T) {
	for status, test := range map[int]struct {
		is       error
		status   int
		mendable bool
	}{
		301: {nil, fault.Usage, false},
		400: {nil, fault.Usage, false},
		401: {nil, fault.Usage, false},
		403: {nil, fault.Usage, false},
		404: {fs.ErrNotExist, fault.Absent, false},
		408: {nil, fault.Failed, true},
		412: {fs.ErrExist, fault.Exists, false},
		416: {ErrRange, fault.Failed, false},
		429: {nil, fault.Failed, true},
		500: {nil, fault.Failed, true},
		503: {nil, fault.Failed, true},
	} {
		err := Judge(errCause, status, nil, "look at KEY")
		if !errors.Is(err, errCause) || test.is != nil && !errors.Is(err, test.is) ||
			fault.Status(err) != test.status || Mendable(err) != test.mendable {
			t.Errorf("%d: %v, status %d, mendable %v", status, err, fault.Status(err), Mendable(err))
		}
		if denied := status == 401 || status == 403; denied != (fault.Hint(err) != "") {
			t.Errorf("%d: hint %q", status, fault.Hint(err))
		}
	}
}

func TestRetryAfterIsRead(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "0": 0, "-3": -1, "soon": -1, "": -1,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): time.Hour,
		"Mon, 02 Jan 2006 15:04:05 GMT":                         0,
	} {
		err := Judge(errCause, 503, http.Header{"Retry-After": {value}}, "")
		after := time.Duration(-1)
		var later *Later
		if errors.As(err, &later) {
			after = later.After
		}
		if after.Round(time.Minute) != want.Round(time.Minute) || after < 0 && want >= 0 {
			t.Errorf("Retry-After %q: %v, want %v", value, after, want)
		}
	}
}

func TestWhatTheNetworkSaysIsExplained(t *testing.T) {
	traits := Traits{Endpoint: "THE_ENDPOINT", CA: "THE_CA"}
	for _, test := range []struct {
		err  error
		hint string
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, "THE_ENDPOINT"},
		{x509.UnknownAuthorityError{}, "THE_CA"},
		{x509.HostnameError{Certificate: &x509.Certificate{}}, "THE_ENDPOINT"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "clock"},
		{errors.New("http: server gave HTTP response to HTTPS client"), "http://"},
		{errors.New("malformed HTTP response \"\\x15\\x03\\x01\""), "https://"},
	} {
		err := Explain(fmt.Errorf("dial: %w", test.err), traits)
		if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), test.hint) || Mendable(err) {
			t.Errorf("%v: status %d, hint %q, want %q", err, fault.Status(err), fault.Hint(err), test.hint)
		}
	}
	for _, err := range []error{nil, errCause, &net.DNSError{Err: "server misbehaving", IsTemporary: true}} {
		if got := Explain(err, traits); got != err {
			t.Errorf("Explain(%v) = %v", err, got)
		}
	}
	// What the driver has judged stays as it is.
	judged := Permanent(x509.UnknownAuthorityError{}, "mine")
	if got := Explain(judged, traits); fault.Hint(got) != "mine" {
		t.Errorf("hint %q", fault.Hint(got))
	}
}

func settings(m map[string]string) *Settings {
	return &Settings{Get: func(name string) string { return m[name] }}
}

func TestASettingIsFoundUnderEachOfItsNames(t *testing.T) {
	for _, name := range []string{"S3_X", "WALG_S3_X", "WALE_S3_X"} {
		for _, asked := range []string{"S3_X", "WALG_S3_X"} {
			if got := settings(map[string]string{name: "v"}).Text(asked); got != "v" {
				t.Errorf("%s is not found as %s: %q", name, asked, got)
			}
		}
	}
	s := settings(map[string]string{"S3_X": "bare", "WALG_S3_X": "walg", "B": "second"})
	if got := s.Text("S3_X"); got != "bare" {
		t.Errorf("the bare name comes first, not %q", got)
	}
	if got := s.Text("A", "B"); got != "second" {
		t.Errorf("the second name: %q", got)
	}
}

func TestValuesAreRead(t *testing.T) {
	s := settings(map[string]string{"B": "t", "I": "17", "C": "two", "T": "90"})
	if !s.Bool("B", false) || !s.Bool("NONE", true) || s.Int("I", 1, 0) != 17 || s.Int("NONE", 4, 0) != 4 ||
		s.Choice("C", "one", "one", "two") != "two" || s.Choice("NONE", "one", "one") != "one" ||
		s.Span("T", time.Second, time.Hour) != 90*time.Second || s.Span("NONE", time.Second, time.Hour) != time.Hour || s.Err() != nil {
		t.Errorf("something is read wrong; %v", s.Err())
	}
}

func TestBadValuesAreRefusedByName(t *testing.T) {
	for words, read := range map[string]func(*Settings){
		"setting X=maybe: want true or false":                func(s *Settings) { s.Bool("X", false) },
		"setting X=maybe: want a whole number, 5 or more":    func(s *Settings) { s.Int("X", 7, 5) },
		"setting LOW=4: want a whole number, 5 or more":      func(s *Settings) { s.Int("LOW", 7, 5) },
		"setting X=maybe: want one of yes, no":               func(s *Settings) { s.Choice("X", "", "yes", "no") },
		"setting HUGE=4611686018427387904: want a shorter":   func(s *Settings) { s.Span("HUGE", time.Hour, 0) },
		"setting SECRET=...: want no line end or other cont": func(s *Settings) { s.Text("SECRET") },
	} {
		s := settings(map[string]string{"X": "maybe", "LOW": "4", "HUGE": "4611686018427387904", "SECRET": "abc\ndef"})
		read(s)
		if err := s.Err(); fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), words) || strings.Contains(err.Error(), "abc") {
			t.Errorf("%v, want %s", err, words)
		}
		s.Bool("X", false)
		if !strings.HasPrefix(s.Err().Error(), words) {
			t.Errorf("the first error is not kept: %v", s.Err())
		}
	}
}
