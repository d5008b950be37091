package gcs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/wire"
)

// elsewhere sends what is meant for Google to another host.
type elsewhere struct {
	next http.RoundTripper
	host string
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "storage.googleapis.com" && r.URL.Scheme == "https" {
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host, r.Host = "http", e.host, e.host
	}
	return e.next.RoundTrip(r)
}

// cloud is a fake of Google: an authority that gives tokens, and before the
// server a gate that wants one.
type cloud struct {
	token func(w http.ResponseWriter, r *http.Request) // nil gives one

	authority *httptest.Server
	gate      *httptest.Server
	asked     atomic.Int32 // for tokens
	mu        sync.Mutex
	passed    []request
}

const goodToken = "good-token"

func newCloud(t *testing.T) (*cloud, place) {
	p := server(t)
	g := &cloud{}
	g.authority = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		if g.token != nil {
			g.token(w, r)
			return
		}
		giveToken(w)
	}))
	t.Cleanup(g.authority.Close)
	upstream := p.Env["STORAGE_EMULATOR_HOST"]
	g.gate = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+goodToken {
			refuse(w, http.StatusUnauthorized, "authError", "Invalid Credentials")
			return
		}
		g.mu.Lock()
		g.passed = append(g.passed, request{method: r.Method, path: r.URL.Path, header: r.Header.Clone()})
		g.mu.Unlock()
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host, out.Host = "", "http", upstream, upstream
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			return // the client has gone
		}
		defer resp.Body.Close()
		for name := range resp.Header {
			w.Header().Set(name, strings.ReplaceAll(resp.Header.Get(name), "http://"+upstream, "https://storage.googleapis.com"))
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	t.Cleanup(g.gate.Close)
	return g, p
}

func giveToken(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, goodToken)
}

// driver is that of a process on a machine which knows no emulator.
func (g *cloud) driver(t *testing.T, p place, stall time.Duration, env ...string) *Driver {
	t.Helper()
	all := map[string]string{"GCS_MAX_CHUNK_SIZE": "1"}
	for i := 0; i < len(env); i += 2 {
		all[env[i]] = env[i+1]
	}
	s := settings(all)
	s.Stall = stall
	d, err := open(t.Context(), p.Bucket, s, func(o wire.Options) (*http.Client, error) {
		c, err := wire.Client(o)
		if err == nil {
			c.Transport = &elsewhere{c.Transport, strings.TrimPrefix(g.gate.URL, "http://")}
		}
		return c, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// useAll makes one request of each kind.
func useAll(t *testing.T, d *Driver) {
	t.Helper()
	s := remote.New(d, "r/", remote.Policy{MinDelay: time.Millisecond})
	data := sample(t, 2*chunk+1)
	put(t, s, "small", []byte("x"), store.PutOptions{})
	put(t, s, "large", data, store.PutOptions{})
	if !bytes.Equal(get(t, s, "large"), data) {
		t.Error("other bytes came back")
	}
	if _, err := s.Stat(t.Context(), "small"); err != nil {
		t.Error(err)
	}
	n := 0
	for _, err := range s.List(t.Context(), "") {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if err := s.Delete(t.Context(), "small", "large"); err != nil || n != 2 {
		t.Errorf("%d objects, %v", n, err)
	}
}

var newKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

// keyFile writes credentials, and returns the file's name.
func keyFile(t *testing.T, fields map[string]string) string {
	t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (g *cloud) serviceAccount(t *testing.T) string {
	return keyFile(t, map[string]string{
		"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": newKey(),
		"client_email": "walg@p.iam.gserviceaccount.com", "token_uri": g.authority.URL + "/token",
	})
}

func TestAServiceAccountsKey(t *testing.T) {
	g, p := newCloud(t)
	var claims struct{ Iss, Scope string }
	g.token = func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.PostFormValue("assertion"), ".")
		text, err := base64.RawURLEncoding.DecodeString(parts[1%len(parts)])
		if err != nil || json.Unmarshal(text, &claims) != nil {
			t.Errorf("assertion %q", parts)
		}
		giveToken(w)
	}
	useAll(t, g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", g.serviceAccount(t)))
	if claims.Iss != "walg@p.iam.gserviceaccount.com" || !strings.Contains(claims.Scope, "devstorage.full_control") {
		t.Errorf("claims %+v", claims)
	}
	if g.asked.Load() != 1 {
		t.Errorf("%d tokens were asked for, want one for all requests", g.asked.Load())
	}
	if len(g.passed) < 10 {
		t.Errorf("%d requests", len(g.passed))
	}
	for _, r := range g.passed {
		if !strings.HasPrefix(r.header.Get("User-Agent"), "walg") || r.header.Get("Traceparent") != "" {
			t.Errorf("%s %s: %v", r.method, r.path, r.header)
		}
	}
}

// TestAUsersCredentials have the project that is billed.
func TestAUsersCredentials(t *testing.T) {
	g, p := newCloud(t)
	// The token's address cannot be in the file of a user.
	file := keyFile(t, map[string]string{
		"type": "external_account_authorized_user", "audience": "a", "refresh_token": "r", "client_id": "c", "client_secret": "s",
		"token_url": g.authority.URL + "/token", "token_info_url": g.authority.URL + "/info", "quota_project_id": "billed",
	})
	useAll(t, g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", file))
	for _, r := range g.passed {
		if r.header.Get("X-Goog-User-Project") != "billed" {
			t.Errorf("%s %s: no project", r.method, r.path)
		}
	}
}

// TestTheMachinesOwnAccount is asked of a fake of Google's metadata server,
// where there is no file.
func TestTheMachinesOwnAccount(t *testing.T) {
	g, p := newCloud(t)
	g.token = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google":
			t.Errorf("%s without Metadata-Flavor", r.URL)
		case strings.HasSuffix(r.URL.Path, "/instance/service-accounts/default/token"):
			giveToken(w)
		default:
			http.NotFound(w, r)
		}
	}
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(g.authority.URL, "http://"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	useAll(t, g.driver(t, p, time.Minute))

	g.token = func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
	_, err := g.driver(t, p, time.Minute).Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || err.Error() != "no token: this machine has no service account" {
		t.Errorf("%v, status %d", err, fault.Status(err))
	}
}

func TestARefusedToken(t *testing.T) {
	g, p := newCloud(t)
	for _, c := range []struct {
		status int
		body   string
		want   string
		exit   int
		hint   string
	}{
		{400, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`, "no token: invalid_grant: Invalid JWT Signature (400)", 64, "GOOGLE_APPLICATION_CREDENTIALS"},
		{400, `{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}`, "no token: invalid_grant: Invalid JWT: Token must", 64, "clock"},
		{401, `{"error":"invalid_client"}`, "no token: invalid_client (401)", 64, "GOOGLE_APPLICATION_CREDENTIALS"},
		{503, `out of order`, "no token: Service Unavailable (503)", 1, ""},
		{429, `{"error":"slow"}`, "no token: slow (429)", 1, ""},
	} {
		g.token = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}
		d := g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", g.serviceAccount(t))
		_, _, readErr := d.Read(t.Context(), "k", 0, 1, "")
		_, statErr := d.Stat(t.Context(), "k")
		for op, err := range map[string]error{"Read": readErr, "Stat": statErr, "Whole": d.Whole(t.Context(), "k", []byte("x"), driver.Options{})} {
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || fault.Status(err) != c.exit || !strings.Contains(fault.Hint(err), c.hint) {
				t.Errorf("%s %d: %v, status %d, hint %q; want %q", op, c.status, err, fault.Status(err), fault.Hint(err), c.want)
			}
		}
	}
	// Before a chunk too, where the library tries again by itself.
	g.asked.Store(0)
	g.token = func(w http.ResponseWriter, _ *http.Request) {
		if g.asked.Load() < 3 {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		giveToken(w)
	}
	if _, err := send(t, g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", g.serviceAccount(t))); err != nil || g.asked.Load() != 3 {
		t.Errorf("%v, %d tokens were asked for", err, g.asked.Load())
	}
	// A token that the storage does not like.
	g.token = func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"access_token":"bad","expires_in":3600}`)
	}
	_, err := g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", g.serviceAccount(t)).Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), "authError: Invalid Credentials (401") {
		t.Error(err)
	}
}

// TestATokenThatDoesNotComeIsNotWaitedFor: the vendor's library knows no context
// there.
func TestATokenThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	g, p := newCloud(t)
	done := make(chan struct{})
	defer close(done)
	g.token = func(http.ResponseWriter, *http.Request) { <-done }
	file := g.serviceAccount(t)
	cause := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	begun := time.Now()
	if _, err := g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", file).Stat(ctx, "k"); !errors.Is(err, cause) {
		t.Error(err)
	}
	_, err := g.driver(t, p, 100*time.Millisecond, "GOOGLE_APPLICATION_CREDENTIALS", file).Stat(t.Context(), "k")
	if err == nil || !strings.HasPrefix(err.Error(), "no token: ") || fault.Status(err) != fault.Failed {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Error(took)
	}
}

// TestAnAuthorityThatIsNotThere is an outage, and no URL is shown.
func TestAnAuthorityThatIsNotThere(t *testing.T) {
	g, p := newCloud(t)
	file := g.serviceAccount(t)
	g.authority.Close()
	_, err := g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", file).Stat(t.Context(), "k")
	host, _ := url.Parse(g.authority.URL)
	if want := "no token: dial tcp " + host.Host + ": connect: connection refused"; err == nil || fault.Status(err) != fault.Failed || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of us
	secure.StartTLS()
	defer secure.Close()
	g.authority = secure
	_, err = g.driver(t, p, time.Minute, "GOOGLE_APPLICATION_CREDENTIALS", g.serviceAccount(t)).Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), "no token: tls: failed to verify") || !strings.Contains(fault.Hint(err), "SSL_CERT_FILE") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}
