// Package ask puts questions to the services that keep keys. Each try and all
// tries together have a deadline, an answer has a largest size, and what may
// be better the next time is tried again.
//
// Errors follow one rule: a *fault.Error is final, everything else is tried
// again until the time is over, and then is status 1.
package ask

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"walg/lib/fault"
)

// Limits are the times that a question may take. 0 is the default.
type Limits struct {
	Total time.Duration // with all tries; a minute
	Try   time.Duration // for each try; ten seconds
	Pause time.Duration // before the second try, and doubled for the next ones; a fifth of a second
}

const (
	defaultTotal = time.Minute
	defaultTry   = 10 * time.Second
	defaultPause = 200 * time.Millisecond
	longestPause = 5 * time.Second
	largest      = 64 << 10 // bytes of an answer
	idle         = 10 * time.Second
)

// Options of a client.
type Options struct {
	Limits
	CA string // file of certificates, PEM, trusted beside the system's; "" is none
	// Direct goes past the proxies of the environment, as is right for an
	// address that only this machine knows.
	Direct bool
	// Settings to name in hints: where the service is, and CA.
	EndpointSetting, CASetting string
}

// Client asks.
type Client struct {
	http    *http.Client
	options Options
}

// New returns a client. It does not follow redirects: a service that answers
// with one is not where the settings say. A CA that cannot be read is status
// 64.
func New(o Options) (*Client, error) {
	for _, limit := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&o.Total, defaultTotal}, {&o.Try, defaultTry}, {&o.Pause, defaultPause}} {
		if *limit.value <= 0 {
			*limit.value = limit.usual
		}
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
		IdleConnTimeout:   idle,
		DisableKeepAlives: o.Direct,
	}
	if !o.Direct {
		transport.Proxy = http.ProxyFromEnvironment
	}
	if o.CA != "" {
		roots, err := authorities(o.CA)
		if err != nil {
			return nil, fault.New(fault.Usage, "setting %s: %w", o.CASetting, err)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &Client{&http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, o}, nil
}

func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return roots, nil
}

// errOver is the cause where a question took too long.
var errOver = errors.New("the time for an answer is over")

// Within returns a context for one question, which may be several requests. It
// ends with Limits.Total.
func (c *Client) Within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.options.Total, errOver)
}

// Repeat does something until it succeeds or fails for good, or ctx, which is
// one of Within, ends.
func (c *Client) Repeat(ctx context.Context, do func() error) error {
	pause := c.options.Pause
	var before error
	for tries := 1; ; tries++ {
		err := do()
		var final *fault.Error
		switch {
		case err == nil || errors.As(err, &final):
			return err
		case ctx.Err() != nil && before != nil:
			err = before // which says more than that the last try was cut off
		case ctx.Err() == nil:
			timer := time.NewTimer(pause/2 + rand.N(pause/2+1)) // so that many do not ask at once
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
		switch cause := context.Cause(ctx); {
		case cause == errOver:
			return fmt.Errorf("%w; gave up after %v, tries: %d", err, c.options.Total, tries)
		case cause != nil:
			return cause
		}
		before, pause = err, min(2*pause, longestPause)
	}
}

// Answer is what a service says.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Try sends one request, made with the context that ends with the try, and has
// the answer judged. What the network says that no second try can mend is
// status 64.
func (c *Client) Try(ctx context.Context, request func(context.Context) (*http.Request, error), judge func(Answer) error) error {
	try, cancel := context.WithTimeoutCause(ctx, c.options.Try, errOver)
	defer cancel()
	req, err := request(try)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(try, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, largest+1))
	switch {
	case err != nil:
		return c.explain(try, err)
	case len(body) > largest:
		return fault.New(fault.Failed, "an answer of more than %d bytes", largest)
	}
	return judge(Answer{resp.StatusCode, resp.Header, body})
}

// Ask tries until there is an answer.
func (c *Client) Ask(ctx context.Context, request func(context.Context) (*http.Request, error), judge func(Answer) error) error {
	return c.Repeat(ctx, func() error { return c.Try(ctx, request, judge) })
}
