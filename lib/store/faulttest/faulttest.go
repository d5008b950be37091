// Package faulttest is for tests only: a small fault-speaking HTTP reverse
// proxy. It stands before a storage and passes everything on, as it came, but
// for the requests that a test has chosen: those it answers itself, breaks or
// leaves hanging. It counts what it did, so that a test can prove that its fault
// fired.
package faulttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tick is how long a trickle waits before each byte.
const tick = time.Second

// A Fault breaks some of the requests.
type Fault struct {
	Match func(*http.Request) bool // nil is all; the body is not to be touched
	Skip  int                      // so many that match are passed on first
	Times int                      // so many are broken then; 0 is all
	Do    Action
}

// An Action is what is done to one request.
type Action func(*Exchange)

// A Record is one request that came.
type Record struct {
	Method, Target string // as they were sent
	At             time.Time
	Broken         bool
	Status         int // of the answer; 0 where there was none
}

// A Proxy stands before one server.
type Proxy struct {
	t        testing.TB
	upstream *url.URL
	server   *httptest.Server
	client   *http.Transport
	done     chan struct{} // closed at the end of the test

	mu      sync.Mutex
	ownHost bool
	faults  []*state
	records []Record
	refused int // TLS handshakes
}

type state struct {
	Fault
	matched, fired int
}

// New starts a proxy to upstream, which is http://host:port. It ends with the
// test.
func New(t testing.TB, upstream string) *Proxy { return start(t, upstream, false) }

// NewTLS starts one that speaks TLS, with a certificate that no client trusts.
func NewTLS(t testing.TB, upstream string) *Proxy { return start(t, upstream, true) }

func start(t testing.TB, upstream string, secure bool) *Proxy {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t: t, upstream: to, done: make(chan struct{})}
	// What DisableCompression leaves out would break signatures and sizes.
	p.client = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.Config.ErrorLog = log.New(complaints{p}, "", 0)
	if secure {
		p.server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}} // HTTP/2 has no connection to break
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	t.Cleanup(func() {
		close(p.done)
		p.server.CloseClientConnections()
		p.server.Close()
		p.client.CloseIdleConnections()
	})
	return p
}

// complaints counts the handshakes that failed, which only the log tells.
type complaints struct{ p *Proxy }

func (c complaints) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("TLS handshake error")) {
		c.p.mu.Lock()
		defer c.p.mu.Unlock()
		c.p.refused++
	}
	return len(line), nil
}

// URL is where clients find the proxy; Addr is its host:port.
func (p *Proxy) URL() string  { return p.server.URL }
func (p *Proxy) Addr() string { return p.server.Listener.Addr().String() }

// UseServersHost makes the proxy say the server's own Host and not the client's:
// for servers that know themselves by one name only, and check no signature.
func (p *Proxy) UseServersHost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ownHost = true
}

// Break adds a fault, and returns what tells how often it has fired. Of several
// that match a request the first is done.
func (p *Proxy) Break(f Fault) (fired func() int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	added := &state{Fault: f}
	p.faults = append(p.faults, added)
	return func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return added.fired
	}
}

// Refused is how many TLS handshakes failed: here they can only be refused by
// the client.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Records returns all requests that came so far, in that order.
func (p *Proxy) Records() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Record(nil), p.records...)
}

// serve passes a request on, or breaks it.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	x := &Exchange{p: p, w: w, r: r, number: len(p.records)}
	p.records = append(p.records, Record{Method: r.Method, Target: r.RequestURI, At: time.Now()})
	for _, f := range p.faults {
		if f.Match != nil && !f.Match(r) {
			continue
		}
		f.matched++
		if f.matched > f.Skip && (f.Times == 0 || f.fired < f.Times) {
			f.fired++
			p.records[x.number].Broken = true
			x.fault = f
			break
		}
	}
	p.mu.Unlock()
	if x.fault != nil {
		x.fault.Do(x)
		return
	}
	x.pass()
}

// An Exchange is one request and its answer.
type Exchange struct {
	p      *Proxy
	w      http.ResponseWriter
	r      *http.Request
	number int
	fault  *state // nil is none
}

// pass asks the server and hands its answer on.
func (x *Exchange) pass() {
	resp, err := x.forward(x.r.Context())
	if err != nil {
		x.reset() // the client has gone, or the server; no answer of ours would be true
		return
	}
	defer resp.Body.Close()
	maps.Copy(x.w.Header(), resp.Header)
	x.status(resp.StatusCode)
	x.w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(x.w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // what the server cut stays cut
	}
}

func (x *Exchange) status(code int) {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.records[x.number].Status = code
}

// hops are the headers that are about one connection, and not passed on.
var hops = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

// forward asks the server. Path, query and Host stay what they were, byte by
// byte: they are signed. Only where the server names its own address in a header
// it gets the proxy's, or the client would leave us.
func (x *Exchange) forward(ctx context.Context) (*http.Response, error) {
	to := &url.URL{Scheme: x.p.upstream.Scheme, Host: x.p.upstream.Host, Opaque: x.r.RequestURI}
	out := &http.Request{
		Method: x.r.Method, URL: to, Host: x.r.Host, Header: x.r.Header.Clone(),
		Body: x.r.Body, ContentLength: x.r.ContentLength, ProtoMajor: 1, ProtoMinor: 1,
	}
	if x.p.ownHost {
		out.Host = x.p.upstream.Host
	}
	if x.r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	for _, name := range hops {
		out.Header.Del(name)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // or the transport would add its own
	}
	resp, err := x.p.client.RoundTrip(out.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Location", "X-Storage-Url"} {
		if value := resp.Header.Get(name); value != "" {
			resp.Header.Set(name, strings.ReplaceAll(value, x.p.upstream.Host, x.r.Host))
		}
	}
	return resp, nil
}

// answered asks the server and returns its whole answer. It asks to the end even
// where the client has gone meanwhile. Where there is no answer the fault has
// not fired.
func (x *Exchange) answered() (resp *http.Response, body []byte) {
	resp, err := x.forward(context.WithoutCancel(x.r.Context()))
	if err == nil {
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		x.unfire()
		x.reset()
		return nil, nil
	}
	if x.r.Method != http.MethodHead && resp.StatusCode != http.StatusNoContent {
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return resp, body
}

func (x *Exchange) unfire() {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.fault.fired--
	x.p.records[x.number].Broken = false
}

// sever passes the request on and takes the connection away before the answer,
// which it returns as it would be sent. conn is nil where there is none.
func (x *Exchange) sever() (conn net.Conn, head, body []byte) {
	resp, body := x.answered()
	if resp == nil {
		return nil, nil, nil
	}
	return x.take(), header(resp.StatusCode, resp.Header), body
}

func header(code int, h http.Header) []byte {
	var text bytes.Buffer
	text.WriteString("HTTP/1.1 " + strconv.Itoa(code) + " " + http.StatusText(code) + "\r\n")
	h.Write(&text) // a Buffer takes all
	text.WriteString("\r\n")
	return text.Bytes()
}

// swallow reads the request to its end: closing on unread data would reset.
func (x *Exchange) swallow() {
	io.Copy(io.Discard, x.r.Body) // the client may have gone already
}

// take takes the connection away from the server. It is nil where the client
// has gone. It is closed at the end of the test, unless before.
func (x *Exchange) take() net.Conn {
	conn, _, err := x.w.(http.Hijacker).Hijack()
	if err != nil {
		return nil
	}
	conn.SetDeadline(time.Time{})
	x.p.t.Cleanup(func() { conn.Close() })
	return conn
}

// reset ends the connection with RST.
func (x *Exchange) reset() { hang(x.take(), true) }

// hang ends a connection, with RST or with FIN.
func hang(conn net.Conn, reset bool) {
	if conn == nil {
		return
	}
	if t, ok := conn.(*net.TCPConn); ok && reset {
		t.SetLinger(0)
	}
	conn.Close()
}

// half is where an answer is cut: in the middle of the body, or of the head
// where there is no body.
func half(head, body []byte) []byte {
	if len(body) == 0 {
		return head[:len(head)/2]
	}
	return append(head, body[:len(body)/2]...)
}

// Answer takes the request, does not pass it on, and answers so. The headers
// are pairs of name and value.
func Answer(status int, body string, headers ...string) Action {
	return func(x *Exchange) {
		x.swallow()
		x.say(status, body, headers)
	}
}

// AnswerAfter passes the request on, and answers so whatever the server said.
func AnswerAfter(status int, body string, headers ...string) Action {
	return func(x *Exchange) {
		if resp, _ := x.answered(); resp != nil {
			x.say(status, body, headers)
		}
	}
}

func (x *Exchange) say(status int, body string, headers []string) {
	for i := 0; i+1 < len(headers); i += 2 {
		x.w.Header().Set(headers[i], headers[i+1])
	}
	x.status(status)
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		io.WriteString(x.w, body)
	}
}

// Altered passes the request on with other headers: a server's own refusal is
// better than one of ours.
func Altered(alter func(http.Header)) Action {
	return func(x *Exchange) {
		alter(x.r.Header)
		x.pass()
	}
}

// ResetRequest resets the connection in the middle of the request's body. The
// server sees nothing of it.
func ResetRequest() Action {
	return func(x *Exchange) {
		io.CopyN(io.Discard, x.r.Body, max(x.r.ContentLength, 0)/2)
		x.reset()
	}
}

// ResetReply passes the request on and resets the connection in the middle of
// the answer.
func ResetReply() Action { return cut(true) }

// CutReply passes the request on and closes the connection in the middle of
// the answer, in good order.
func CutReply() Action { return cut(false) }

func cut(reset bool) Action {
	return func(x *Exchange) {
		if conn, head, body := x.sever(); conn != nil {
			conn.Write(half(head, body))
			hang(conn, reset)
		}
	}
}

// ShortReply passes the request on and answers with the first half of the body,
// as if that were all.
func ShortReply() Action {
	return func(x *Exchange) {
		resp, body := x.answered()
		if resp == nil {
			return
		}
		body = body[:len(body)/2]
		maps.Copy(x.w.Header(), resp.Header)
		if x.r.Method != http.MethodHead {
			x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		x.status(resp.StatusCode)
		x.w.WriteHeader(resp.StatusCode)
		x.w.Write(body)
	}
}

// LoseReply passes the request on, waits for the server's answer, and resets
// the connection without a word of it.
func LoseReply() Action {
	return func(x *Exchange) {
		if conn, _, _ := x.sever(); conn != nil {
			hang(conn, true)
		}
	}
}

// Stall takes no more of the request than came with its head, and says nothing,
// until the test ends. The server sees nothing of it.
func Stall() Action { return func(x *Exchange) { x.take() } }

// StallReply passes the request on and stops in the middle of the answer.
func StallReply() Action {
	return func(x *Exchange) {
		if conn, head, body := x.sever(); conn != nil {
			conn.Write(half(head, body))
		}
	}
}

// TrickleRequest takes one byte of the request a second. The server sees
// nothing of it.
func TrickleRequest() Action {
	return func(x *Exchange) {
		conn := x.take()
		for one := make([]byte, 1); conn != nil && x.wait(); {
			if _, err := conn.Read(one); err != nil {
				return
			}
		}
	}
}

// TrickleReply passes the request on and answers with one byte a second, after
// the head where there is a body.
func TrickleReply() Action {
	return func(x *Exchange) {
		conn, head, body := x.sever()
		if conn == nil {
			return
		}
		if len(body) == 0 {
			head, body = nil, head
		}
		conn.Write(head)
		for ; len(body) > 0 && x.wait(); body = body[1:] {
			if _, err := conn.Write(body[:1]); err != nil {
				return
			}
		}
	}
}

// wait waits for a tick, and reports whether the test goes on.
func (x *Exchange) wait() bool {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.p.done:
		return false
	}
}
