package azure_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/azure"
)

// exercise does everything once.
func exercise(ctx context.Context, s store.Store) error {
	if err := s.Put(ctx, "k", strings.NewReader(strings.Repeat("x", 200_000)), store.PutOptions{IfAbsent: true}); err != nil {
		return err
	}
	r, _, err := s.Get(ctx, "k", 5)
	if err != nil {
		return err
	}
	r.Close()
	if _, err := s.Stat(ctx, "k"); err != nil {
		return err
	}
	for _, err := range s.List(ctx, "") {
		if err != nil {
			return err
		}
	}
	for _, err := range store.FindLeftovers(ctx, s, "") {
		if err != nil {
			return err
		}
	}
	return s.Delete(ctx, "k")
}

func sasToken(t *testing.T, p place, may sas.ContainerPermissions, until time.Time) string {
	t.Helper()
	u, err := p.stock(t).GetSASURL(may, until, &container.GetSASURLOptions{StartTime: ptr(time.Now().Add(-48 * time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(u, "?")
	return token
}

func ptr[T any](v T) *T { return &v }

func TestCredentialsThatServe(t *testing.T) {
	p := azurite(t).with("WALG_AZURE_BUFFER_SIZE", "65536")
	all := sas.ContainerPermissions{Read: true, Add: true, Create: true, Write: true, Delete: true, List: true}
	token := sasToken(t, p, all, time.Now().Add(time.Hour))
	for what, p := range map[string]place{
		"key":                 p,
		"token":               p.with("AZURE_STORAGE_ACCESS_KEY", "", "AZURE_STORAGE_SAS_TOKEN", token),
		"token with ?":        p.with("AZURE_STORAGE_ACCESS_KEY", "", "WALG_AZURE_STORAGE_SAS_TOKEN", "?"+token),
		"an older protocol":   p.with("AZURE_BLOB_STORE_API_VERSION", "2018-11-09"),
		"the oldest protocol": p.with("AZURE_BLOB_STORE_API_VERSION", "2017-07-29"),
	} {
		if err := exercise(t.Context(), p.store(t)); err != nil {
			t.Errorf("%s: %v, hint %q", what, err, fault.Hint(err))
		}
	}
}

func TestCredentialsThatDoNot(t *testing.T) {
	p := azurite(t)
	none := p.with("AZURE_STORAGE_ACCESS_KEY", "")
	read := sas.ContainerPermissions{Read: true, List: true}
	for hint, p := range map[string]place{
		"AZURE_STORAGE_ACCESS_KEY": p.with("AZURE_STORAGE_ACCESS_KEY", "d3Jvbmcga2V5"),
		"AZURE_STORAGE_ACCOUNT": p.with("AZURE_STORAGE_ACCOUNT", "other", "AZURE_ENDPOINT",
			strings.Replace(p.Env["AZURE_ENDPOINT"], p.Env["AZURE_STORAGE_ACCOUNT"], "other", 1)),
		"AZURE_STORAGE_SAS_TOKEN":            none.with("AZURE_STORAGE_SAS_TOKEN", sasToken(t, p, read, time.Now().Add(-time.Hour))),
		"does it allow to read, write":       none.with("AZURE_STORAGE_SAS_TOKEN", "sv=2021-08-06&sr=c&sig=geheim"),
		"allow to read, write, delete and l": none.with("AZURE_STORAGE_SAS_TOKEN", sasToken(t, p, read, time.Now().Add(time.Hour))),
	} {
		err := p.store(t).Put(t.Context(), "k", strings.NewReader("x"), store.PutOptions{})
		if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), hint) {
			t.Errorf("%v, hint %q; want %q", err, fault.Hint(err), hint)
		} else if text := err.Error(); strings.Contains(text, "sig=") || strings.Contains(text, "geheim") || strings.Contains(text, "\n") {
			t.Errorf("%q tells too much", text)
		}
	}
	if _, err := p.store(t).Stat(t.Context(), "never"); fault.Status(err) != fault.Absent {
		t.Errorf("the failed Put left %v", err)
	}
}

func TestAMissingContainerIsNoMissingObject(t *testing.T) {
	p := azurite(t)
	d, err := azure.New(t.Context(), "no-such-container", settings(p.Env))
	if err != nil {
		t.Fatal(err)
	}
	for op, do := range operations(t, d) {
		if err := do(t.Context()); fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_AZ_PREFIX") {
			t.Errorf("%s: %v, hint %q", op, err, fault.Hint(err))
		}
	}
}

// TestNoCredentials leaves only the environment to the SDK, which would look
// for the machine's identity on the network else.
func TestNoCredentials(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	p := place{map[string]string{"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_ENDPOINT": "https://127.0.0.1:1/acc"}, "walg", ""}
	err := p.store(t).Put(t.Context(), "k", strings.NewReader("x"), store.PutOptions{})
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "no credentials") || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(fault.Hint(err), "AZURE_STORAGE_ACCESS_KEY") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

// authority is a server, not Microsoft's, that gives tokens to one client.
func authority(t *testing.T, cert string) string {
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(mux)
	server.TLS = loadPair(t, cert)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are a part of the test
	server.StartTLS()
	t.Cleanup(server.Close)
	at := "https://" + server.Listener.Addr().String()
	reply := func(w http.ResponseWriter, status int, body map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	mux.HandleFunc("GET /tenant/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		reply(w, 200, map[string]any{
			"token_endpoint": at + "/tenant/token", "authorization_endpoint": at + "/tenant/authorize", "issuer": at + "/tenant/v2.0",
		})
	})
	mux.HandleFunc("POST /tenant/token", func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("client_secret") {
		case "right":
			now := time.Now().Unix()
			claims, _ := json.Marshal(map[string]any{
				"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/tenant/", "iat": now, "nbf": now - 60, "exp": now + 3600,
			})
			part := base64.RawURLEncoding.EncodeToString
			reply(w, 200, map[string]any{
				"token_type": "Bearer", "expires_in": 3600, "access_token": part([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + part(claims) + ".",
			})
		case "busy":
			w.Header().Set("Retry-After", "0")
			reply(w, 503, map[string]any{"error": "temporarily_unavailable", "error_description": "busy"})
		default:
			reply(w, 401, map[string]any{
				"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nTimestamp: 2",
			})
		}
	})
	return at
}

// TestTokens is done by a child, because the certificate authorities that
// SSL_CERT_FILE names are read once.
func TestTokens(t *testing.T) {
	if os.Getenv("WALG_TEST_TOKENS") != "" {
		tokens(t)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	makePair(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestTokens$")
	cmd.Env = append(os.Environ(), "WALG_TEST_TOKENS=1", "SSL_CERT_FILE="+filepath.Join(dir, "cert.pem"), "SSL_CERT_DIR=/nonexistent",
		"AZURE_STORAGE_ACCOUNT=walgtest", "AZURE_ENDPOINT="+azuriteOverTLS(t, dir),
		"AZURE_AUTHORITY_HOST="+authority(t, dir), "AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", "AZURE_CLIENT_SECRET=right",
		"AZURE_TOKEN_CREDENTIALS=EnvironmentCredential")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// Here nobody has read the file.
	p := place{map[string]string{}, "walg", "untrusted/"}
	for _, setting := range cmd.Env {
		if name, value, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "AZURE_") {
			p.Env[name] = value
		}
	}
	_, err := p.store(t).Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "no token: ") || !strings.Contains(fault.Hint(err), "SSL_CERT_FILE") {
		t.Errorf("an unknown certificate authority: %v, hint %q", err, fault.Hint(err))
	}
}

func tokens(t *testing.T) {
	p := place{map[string]string{}, "walg", "tokens/"}
	for _, name := range []string{
		"AZURE_STORAGE_ACCOUNT", "AZURE_ENDPOINT", "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
	} {
		p.Env[name] = os.Getenv(name)
	}
	// The account's key is its name, see azuriteOverTLS.
	maker := p.with("AZURE_STORAGE_ACCESS_KEY", base64.StdEncoding.EncodeToString([]byte(p.Env["AZURE_STORAGE_ACCOUNT"]))).stock(t)
	if _, err := maker.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for what, p := range map[string]place{
		"of the settings":    p,
		"that the SDK finds": p.with("AZURE_CLIENT_SECRET", ""),
	} {
		if err := exercise(t.Context(), p.store(t)); err != nil {
			t.Errorf("identity %s: %v, hint %q", what, err, fault.Hint(err))
		}
	}
	_, err := p.with("AZURE_CLIENT_SECRET", "wrong").store(t).Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "AZURE_CLIENT_SECRET") ||
		!strings.Contains(err.Error(), "no token: invalid_client: AADSTS7000215: Invalid client secret provided (401)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("wrong secret: %v, hint %q", err, fault.Hint(err))
	}
	d := p.with("AZURE_CLIENT_SECRET", "busy").driver(t)
	if _, err := d.Stat(t.Context(), "k"); fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "temporarily_unavailable: busy (503)") {
		t.Errorf("busy: %v", err)
	}
	d = p.with("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1").driver(t)
	if _, err := d.Stat(t.Context(), "k"); fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "\n") {
		t.Errorf("no answer: %v", err)
	}
}
