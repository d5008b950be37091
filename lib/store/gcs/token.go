package gcs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/compute/metadata"
	"cloud.google.com/go/storage"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"
	transport "google.golang.org/api/transport/http"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// scopes are the library's own.
var scopes = []string{storage.ScopeFullControl, "https://www.googleapis.com/auth/cloud-platform"}

// signer gives each request a token. Credentials are looked for at the first
// one, because that may ask the network.
type signer struct {
	base  http.RoundTripper
	limit time.Duration // for a token to come
	find  func() (*google.Credentials, error)

	mu     sync.Mutex
	tokens oauth2.TokenSource
	next   http.RoundTripper
}

// sign returns the transport of a client with credentials: those of file, or
// what Google's libraries call the default where it is empty. Tokens are asked
// for by the client as it is.
func sign(hc *http.Client, limit time.Duration, file string) (http.RoundTripper, error) {
	bare := *hc
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &bare)
	s := &signer{base: hc.Transport, limit: limit}
	if file == "" {
		s.find = func() (*google.Credentials, error) { return google.FindDefaultCredentials(ctx, scopes...) }
		return s, nil
	}
	creds, err := readCredentials(ctx, file)
	if err != nil {
		return nil, fault.New(fault.Usage, "setting GOOGLE_APPLICATION_CREDENTIALS: %w", err)
	}
	s.find = func() (*google.Credentials, error) { return creds, nil }
	return s, nil
}

func readCredentials(ctx context.Context, file string) (*google.Credentials, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var is struct{ Type google.CredentialsType }
	if json.Unmarshal(text, &is) != nil || is.Type == "" {
		// The decoder's error could have a piece of the secret in it.
		return nil, fmt.Errorf("%s is not a file of Google's credentials, which is JSON with a type", file)
	}
	return google.CredentialsFromJSONWithType(ctx, text, is.Type, scopes...)
}

func (s *signer) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := s.ready(req.Context()); err != nil {
		if req.Body != nil {
			req.Body.Close() // as the contract of RoundTripper wants
		}
		return nil, err
	}
	return s.next.RoundTrip(req)
}

// ready returns when there is a token. What gets one knows no context and is
// left behind where it takes too long; a later request finds what it got.
func (s *signer) ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- s.token() }()
	timer := time.NewTimer(s.limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return &noToken{fmt.Errorf("none came in %v", s.limit)}
	}
}

func (s *signer) token() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		creds, err := s.find()
		if err != nil {
			return driver.Permanent(fmt.Errorf("no credentials: %s", line(err.Error())),
				"set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account")
		}
		s.tokens = oauth2.ReuseTokenSource(nil, creds.TokenSource)
		s.next, err = transport.NewTransport(context.Background(), s.base, // the file may name who is billed
			option.WithCredentials(&google.Credentials{JSON: creds.JSON, TokenSource: s.tokens}),
			option.WithUserAgent("walg"), option.WithTelemetryDisabled())
		if err != nil {
			return driver.Permanent(fmt.Errorf("credentials: %s", line(err.Error())), tokenHint)
		}
	}
	if _, err := s.tokens.Token(); err != nil {
		return unsigned(err)
	}
	return nil
}

// noToken is that there is no token now. There may be one soon.
type noToken struct{ err error }

func (e *noToken) Error() string { return "no token: " + e.err.Error() }
func (e *noToken) Unwrap() error { return e.err }

const tokenHint = "is GOOGLE_APPLICATION_CREDENTIALS right?"

// unsigned judges why a token was not given.
func unsigned(err error) error {
	var answer *oauth2.RetrieveError
	var undefined metadata.NotDefinedError
	var request *url.Error
	switch {
	case errors.As(err, &answer) && answer.Response != nil:
		return tokenRefused(answer)
	case errors.As(err, &undefined):
		return driver.Permanent(errors.New("no token: this machine has no service account"),
			"give it one, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account")
	case errors.As(err, &request):
		return &noToken{request.Err}
	}
	text := line(err.Error())
	if _, after, ok := strings.Cut(text, ` "http`); ok {
		// The library has made text of a request's error, with the URL in it.
		_, text, _ = strings.Cut(after, `": `)
	}
	if strings.Contains(text, "x509: ") {
		return driver.Permanent(&noToken{errors.New(text)}, "SSL_CERT_FILE names a file with a certificate authority of your own")
	}
	return &noToken{errors.New(text)}
}

func tokenRefused(answer *oauth2.RetrieveError) error {
	var said struct {
		Error       string
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(answer.Body, &said) // what is no JSON says nothing to us
	status := answer.Response.StatusCode
	what := cmp.Or(line(said.Error), http.StatusText(status))
	if description := line(said.Description); description != "" {
		what += ": " + strings.TrimSuffix(description, ".")
	}
	err := &noToken{fmt.Errorf("%s (%d)", what, status)}
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return err
	case strings.Contains(said.Description, "iat and exp"):
		return driver.Permanent(err, "is the clock of this machine right?")
	}
	return driver.Permanent(err, tokenHint)
}
