// Package wire makes HTTP clients for storages: with a certificate authority of
// the user's, with enough idle connections for parallel requests, and with a
// watch over each request, so that none waits for ever.
package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"walg/lib/fault"
)

// Options of a client.
type Options struct {
	// Stall is how long a request may go without moving Progress bytes, or its
	// answer be waited for; 0 is a minute. Time in which nobody asks for the
	// next bytes of an answer does not count.
	Stall time.Duration
	// CA is a file of certificates, PEM, trusted beside the system's; "" is none.
	CA string
	// Parallel is how many connections to keep.
	Parallel int
	// No100Continue sends bodies at once, without asking the server first.
	No100Continue bool
}

// Progress is the number of bytes that a request must move within Stall. A
// connection that trickles is as good as dead.
const Progress = 4096

// ErrStalled is the cause where a request was given up.
var ErrStalled = errors.New("stalled")

const (
	dialTimeout    = 10 * time.Second
	continueWait   = time.Second
	defaultStall   = time.Minute
	idleConnection = time.Minute
)

// Client returns an HTTP client. It does not follow redirects: a storage that
// answers with one is not where the settings say. A CA that cannot be read is
// an error of status 64.
func Client(o Options) (*http.Client, error) {
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	roots, err := authorities(o.CA)
	if err != nil {
		return nil, err
	}
	wait := continueWait
	if o.No100Continue {
		wait = 0
	}
	dialer := &net.Dialer{Timeout: min(dialTimeout, o.Stall)}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   min(dialTimeout, o.Stall),
		ExpectContinueTimeout: wait,
		MaxIdleConns:          0,
		MaxIdleConnsPerHost:   max(o.Parallel, 1) + 2,
		IdleConnTimeout:       idleConnection,
		// Objects are bytes: what is compressed stays so.
		DisableCompression: true,
		WriteBufferSize:    128 << 10,
		ReadBufferSize:     128 << 10,
	}
	return &http.Client{
		Transport:     &watch{transport, o.Stall},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Usage, "certificate authority: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Usage, "certificate authority %s: no certificate in it", file)
	}
	return roots, nil
}

// watch ends a request that has stalled.
type watch struct {
	next  http.RoundTripper
	stall time.Duration
}

// CloseIdleConnections lets http.Client close the connections below.
func (w *watch) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	d := &deadline{limit: w.stall, left: w.stall, expired: func() {
		cancel(fmt.Errorf("%w: less than %d bytes moved in %v", ErrStalled, Progress, w.stall))
	}}
	d.start()
	out := req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		out.Body = &sent{req.Body, d}
		if req.GetBody != nil {
			out.GetBody = func() (io.ReadCloser, error) {
				body, err := req.GetBody()
				if err != nil {
					return nil, err
				}
				return &sent{body, d}, nil
			}
		}
	}
	resp, err := w.next.RoundTrip(out)
	d.stop()
	if err != nil {
		err = cause(ctx, err)
		cancel(nil)
		return nil, err
	}
	d.reset()
	resp.Body = &received{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, d: d}
	return resp, nil
}

// cause says that a request was given up by us, which looks like cancelled by
// the caller otherwise.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); errors.Is(c, ErrStalled) {
		return c
	}
	return err
}

// deadline counts the time in which something is waited for.
type deadline struct {
	limit   time.Duration
	expired func()

	mu    sync.Mutex
	timer *time.Timer
	since time.Time     // when the timer was started
	left  time.Duration // of limit, when it was
	moved int
}

func (d *deadline) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = time.Now()
	if d.timer == nil {
		d.timer = time.AfterFunc(d.left, d.expired)
	} else {
		d.timer.Reset(d.left)
	}
}

func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer.Stop()
	d.left = max(d.left-time.Since(d.since), 0)
}

func (d *deadline) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.moved = d.limit, 0
}

// progress counts bytes, and begins anew when they are enough. The timer runs.
func (d *deadline) progress(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved += n; d.moved < Progress {
		return
	}
	d.moved, d.left, d.since = 0, d.limit, time.Now()
	if d.timer.Stop() {
		d.timer.Reset(d.left)
	}
}

// sent is the body of a request; the transport reads it as it sends.
type sent struct {
	io.ReadCloser
	d *deadline
}

func (s *sent) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.d.progress(n)
	}
	return n, err
}

// received is the body of an answer. Only the time inside Read counts: a slow
// reader is no fault of the network.
type received struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	d      *deadline
	done   atomic.Bool
}

func (r *received) Read(p []byte) (int, error) {
	r.d.start()
	n, err := r.ReadCloser.Read(p)
	r.d.stop()
	if n > 0 {
		r.d.enough(n)
	}
	if err != nil && err != io.EOF {
		err = cause(r.ctx, err)
	}
	return n, err
}

// enough is progress while the timer stands still.
func (d *deadline) enough(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved += n; d.moved >= Progress {
		d.moved, d.left = 0, d.limit
	}
}

func (r *received) Close() error {
	err := r.ReadCloser.Close()
	if r.done.CompareAndSwap(false, true) {
		r.cancel(nil)
	}
	return err
}
