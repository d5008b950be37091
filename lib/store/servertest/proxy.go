package servertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// A Proxy stands before a server and breaks connections on demand. Its methods
// may be called from any goroutine, until the test ends; what goes wrong in them
// fails the test. Toxiproxy has no connection half open: when one side ends its
// stream, so does the other's.
type Proxy struct {
	t    testing.TB
	url  string // of its resource
	addr string
}

// proxies and toxics number names, which Toxiproxy wants to be different.
var proxies, toxics atomic.Int64

// NewProxy makes a proxy to upstream, a host:port. It goes when the test ends.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, url: Get(t, "toxiproxy").Env["TOXIPROXY_URL"] + "/proxies"}
	name := fmt.Sprintf("proxy%d", proxies.Add(1))
	var made struct{ Listen string }
	p.request(http.MethodPost, "", map[string]any{"name": name, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true}, &made)
	if made.Listen == "" {
		t.FailNow() // request said why
	}
	p.url += "/" + name
	p.addr = made.Listen
	t.Cleanup(func() { p.request(http.MethodDelete, "", nil, nil) })
	return p
}

// Addr is the host:port where clients connect.
func (p *Proxy) Addr() string { return p.addr }

// AddToxic breaks, from now on, all connections, those that are open included.
// The kinds and their attributes are Toxiproxy's:
//
//	latency     latency, jitter (ms)
//	bandwidth   rate (KB/s)
//	slow_close  delay (ms)
//	timeout     timeout (ms): no data pass; closes after that, or never if 0
//	reset_peer  timeout (ms): resets after that
//	slicer      average_size, size_variation (bytes), delay (µs)
//	limit_data  bytes: closes after so many
//
// stream is "upstream", what the client sends, or "downstream", what it reads.
func (p *Proxy) AddToxic(kind, stream string, attributes map[string]any) {
	p.t.Helper()
	p.request(http.MethodPost, "/toxics", map[string]any{
		"name":       fmt.Sprintf("%s%d", kind, toxics.Add(1)),
		"type":       kind,
		"stream":     stream,
		"toxicity":   1,
		"attributes": attributes,
	}, nil)
}

// RemoveToxics undoes each AddToxic.
func (p *Proxy) RemoveToxics() {
	p.t.Helper()
	var added []struct{ Name string }
	p.request(http.MethodGet, "/toxics", nil, &added)
	for _, toxic := range added {
		p.request(http.MethodDelete, "/toxics/"+toxic.Name, nil, nil)
	}
}

// Disable closes all connections and refuses new ones.
func (p *Proxy) Disable() { p.t.Helper(); p.enable(false) }

// Enable accepts connections again, at the same Addr.
func (p *Proxy) Enable() { p.t.Helper(); p.enable(true) }

func (p *Proxy) enable(on bool) {
	p.t.Helper()
	p.request(http.MethodPost, "", map[string]any{"enabled": on}, nil)
}

// client has no proxy of the environment, and keeps no connection: the server may
// close it at the moment when a request is sent, and Go repeats no DELETE.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// request asks Toxiproxy, below the proxy's resource, and decodes the answer
// into result unless that is nil.
func (p *Proxy) request(method, path string, body, result any) {
	p.t.Helper()
	if err := exchange(method, p.url+path, body, result); err != nil {
		p.t.Errorf("toxiproxy: %v", err)
	}
}

func exchange(method, url string, body, result any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, url, &sent)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, url, response.Status, bytes.TrimSpace(answer))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}
