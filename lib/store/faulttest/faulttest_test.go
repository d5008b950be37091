package faulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo is a server that remembers what came, and answers with a page of text.
type echo struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

var page = strings.Repeat("0123456789abcdef", 4096)

func newEcho(t *testing.T) *echo {
	e := &echo{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e.mu.Lock()
		e.seen = append(e.seen, fmt.Sprintf("%s %s %s %v %q %d", r.Method, r.Host, r.RequestURI, r.Header, body, r.ContentLength))
		e.mu.Unlock()
		w.Header().Set("Location", "http://"+strings.TrimPrefix(e.URL, "http://")+"/next")
		io.WriteString(w, page)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *echo) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.seen...)
}

// ask sends a request and returns what came of it, with the error of the
// request or of its body.
func ask(t *testing.T, method, url, body string) (status int, answer string, location string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header.Get("Location"), err
}

func TestRequestsArePassedOnByteByByte(t *testing.T) {
	e := newEcho(t)
	p := New(t, e.URL)
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const target = "/a%2Fb%20c/%7e~+%C3%BC//x?b=%2f&a=&a"
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: signed.example:1\r\nX-Odd: y\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", target)
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(answer, []byte("200 OK")) {
		t.Fatalf("%.100q, %v", answer, err)
	}
	want := fmt.Sprintf("PUT signed.example:1 %s map[Content-Length:[4] X-Odd:[y]] %q 4", target, "body")
	if got := e.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("the server saw %q, want %q", got, want)
	}
	if r := p.Records(); len(r) != 1 || r[0].Method != "PUT" || r[0].Target != target || r[0].Status != 200 || r[0].Broken {
		t.Errorf("records: %+v", r)
	}
}

func TestTheServersHostIsUsedWhereItIsAskedFor(t *testing.T) {
	e := newEcho(t)
	p := New(t, e.URL)
	p.UseServersHost()
	_, _, location, err := ask(t, "GET", p.URL(), "")
	host := strings.TrimPrefix(e.URL, "http://")
	if got := e.requests(); err != nil || len(got) != 1 || !strings.HasPrefix(got[0], "GET "+host+" /") {
		t.Errorf("the server saw %q, %v", got, err)
	}
	if location != p.URL()+"/next" {
		t.Errorf("Location %s", location)
	}
}

func TestTheServersAddressBecomesTheProxys(t *testing.T) {
	p := New(t, newEcho(t).URL)
	if _, answer, location, err := ask(t, "GET", p.URL(), ""); err != nil || answer != page || location != p.URL()+"/next" {
		t.Errorf("%d bytes, Location %s, %v", len(answer), location, err)
	}
}

func TestEachFaultDoesWhatItSays(t *testing.T) {
	timeout := func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
	reset := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) }
	cut := func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
	none := func(err error) bool { return err == nil }
	for _, test := range []struct {
		name   string
		do     Action
		status int
		answer string // what comes at least, or exactly without an error
		err    func(error) bool
		passed bool // on to the server
	}{
		{"Answer", Answer(503, "busy", "Retry-After", "1"), 503, "busy", none, false},
		{"AnswerAfter", AnswerAfter(200, "<Error/>"), 200, "<Error/>", none, true},
		{"ResetRequest", ResetRequest(), 0, "", reset, false},
		{"ResetReply", ResetReply(), 200, "", func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }, true},
		{"CutReply", CutReply(), 200, page[:len(page)/2], cut, true},
		{"ShortReply", ShortReply(), 200, page[:len(page)/2], none, true},
		{"LoseReply", LoseReply(), 0, "", reset, true},
		{"Stall", Stall(), 0, "", timeout, false},
		{"StallReply", StallReply(), 200, page[:len(page)/2], timeout, true},
		{"TrickleRequest", TrickleRequest(), 0, "", timeout, false},
		{"TrickleReply", TrickleReply(), 200, "", timeout, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEcho(t)
			p := New(t, e.URL)
			fired := p.Break(Fault{Times: 1, Do: test.do})
			status, answer, _, err := ask(t, "PUT", p.URL()+"/x", page)
			if status != test.status || !strings.HasPrefix(answer, test.answer) || !test.err(err) || err == nil && answer != test.answer {
				t.Errorf("status %d, %d bytes, %v", status, len(answer), err)
			}
			if got := len(e.requests()); (got == 1) != test.passed {
				t.Errorf("the server saw %d requests", got)
			}
			if fired() != 1 || !p.Records()[0].Broken {
				t.Errorf("fired %d times, %+v", fired(), p.Records())
			}
			if _, answer, _, err := ask(t, "PUT", p.URL()+"/x", page); answer != page || err != nil {
				t.Errorf("after the fault: %d bytes, %v", len(answer), err)
			}
		})
	}
}

func TestHeadersAreAltered(t *testing.T) {
	e := newEcho(t)
	p := New(t, e.URL)
	p.Break(Fault{Do: Altered(func(h http.Header) { h.Set("X-Odd", "z") })})
	_, answer, _, err := ask(t, "GET", p.URL(), "")
	if got := e.requests(); err != nil || answer != page || len(got) != 1 || !strings.Contains(got[0], "X-Odd:[z]") {
		t.Errorf("the server saw %q; %d bytes, %v", got, len(answer), err)
	}
}

func TestOnlyTheChosenRequestsAreBroken(t *testing.T) {
	p := New(t, newEcho(t).URL)
	puts := p.Break(Fault{Match: func(r *http.Request) bool { return r.Method == "PUT" }, Skip: 1, Times: 2, Do: Answer(500, "")})
	deletes := p.Break(Fault{Match: func(r *http.Request) bool { return r.Method == "DELETE" }, Do: Answer(403, "")})
	var got []int
	for _, method := range []string{"PUT", "GET", "PUT", "PUT", "PUT", "DELETE", "DELETE", "DELETE"} {
		status, _, _, err := ask(t, method, p.URL(), "")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, status)
	}
	if want := []int{200, 200, 500, 500, 200, 403, 403, 403}; fmt.Sprint(got) != fmt.Sprint(want) || puts() != 2 || deletes() != 3 {
		t.Errorf("statuses %d, want %d; fired %d and %d times", got, want, puts(), deletes())
	}
}

func TestAFaultThatNeededAnAnswerAndGotNoneHasNotFired(t *testing.T) {
	e := newEcho(t)
	p := New(t, e.URL)
	e.Close()
	fired := p.Break(Fault{Do: LoseReply()})
	if _, _, _, err := ask(t, "PUT", p.URL(), ""); err == nil || fired() != 0 {
		t.Errorf("%v; fired %d times", err, fired())
	}
}

func TestNobodyTrustsTheTLSProxy(t *testing.T) {
	p := NewTLS(t, newEcho(t).URL)
	if _, _, _, err := ask(t, "GET", p.URL(), ""); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("error %v", err)
	}
	// The server hears of it after the client has gone.
	for end := time.Now().Add(5 * time.Second); p.Refused() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no handshake was refused")
		}
	}
	if len(p.Records()) != 0 {
		t.Errorf("requests: %+v", p.Records())
	}
}
