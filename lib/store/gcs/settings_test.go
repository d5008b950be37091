package gcs

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// set makes the settings of a test; the driver asks no network for them.
func set(env ...string) *driver.Settings {
	all := map[string]string{"STORAGE_EMULATOR_HOST": "127.0.0.1:1"}
	for i := 0; i < len(env); i += 2 {
		all[env[i]] = env[i+1]
	}
	return settings(all)
}

func TestBadSettingsAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct{ name, value, words string }{
		{"GCS_MAX_CHUNK_SIZE", "0", "want a whole number"},
		{"GCS_MAX_CHUNK_SIZE", "16MB", "want a whole number"},
		{"GCS_MAX_CHUNK_SIZE", "4294967297", "want 4294967296 or less"},
		{"GCS_MAX_RETRIES", "0", "want a whole number"},
		{"GCS_MAX_RETRIES", "many", "want a whole number"},
		{"GCS_CONTEXT_TIMEOUT", "-1", "want a whole number"},
		{"GCS_CONTEXT_TIMEOUT", "1h", "want a whole number"},
		{"GCS_CONTEXT_TIMEOUT", "9223372036854775807", "want a shorter time"},
		{"GCS_ENCRYPTION_KEY", "c2VjcmV0", "want 32 bytes in base64"},
		{"GCS_ENCRYPTION_KEY", "c2VjcmV0!", "want 32 bytes in base64"},
		{"GCS_ENCRYPTION_KEY", base64.StdEncoding.EncodeToString([]byte("secret secret secret secret secret")), "want 32 bytes in base64"},
		{"GCS_ENCRYPTION_KEY", "secret\n", "control character"},
		{"STORAGE_EMULATOR_HOST", "ftp://host", "want host:port"},
		{"STORAGE_EMULATOR_HOST", "http://", "want host:port"},
		{"STORAGE_EMULATOR_HOST", "http://user:secret@host", "want host:port"},
		{"STORAGE_EMULATOR_HOST", "a b", "want host:port"},
		{"GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(dir, "missing"), "no such file"},
		{"GOOGLE_APPLICATION_CREDENTIALS", file("text", "secret"), "not a file of Google's credentials"},
		{"GOOGLE_APPLICATION_CREDENTIALS", file("untyped", `{"private_key":"secret"}`), "not a file of Google's credentials"},
		{"GOOGLE_APPLICATION_CREDENTIALS", file("odd", `{"type":"odd","private_key":"secret"}`), "odd"},
	} {
		env := []string{c.name, c.value}
		if c.name == "GOOGLE_APPLICATION_CREDENTIALS" {
			env = append(env, "STORAGE_EMULATOR_HOST", "")
		}
		_, err := New(t.Context(), "b", set(env...))
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), c.words) ||
			!strings.Contains(err.Error(), c.name) || strings.Contains(err.Error(), "ecret") {
			t.Errorf("%s=%s: %v, want status 64 and %q", c.name, c.value, err, c.words)
		}
	}
}

func TestSettingsBecomeTraits(t *testing.T) {
	for _, c := range []struct {
		env     []string
		chunk   int64
		tries   int
		timeout time.Duration
	}{
		{nil, 16 << 20, 16, time.Hour},
		{[]string{"GCS_MAX_CHUNK_SIZE", "52428800", "GCS_MAX_RETRIES", "3", "GCS_CONTEXT_TIMEOUT", "20"}, 50 << 20, 3, 20 * time.Second},
		{[]string{"WALG_GCS_MAX_CHUNK_SIZE", "262145", "GCS_CONTEXT_TIMEOUT", "0"}, 512 << 10, 16, 0},
		{[]string{"GCS_MAX_CHUNK_SIZE", "1"}, 256 << 10, 16, time.Hour},
	} {
		d, err := New(t.Context(), "b", set(c.env...))
		if err != nil {
			t.Fatal(err)
		}
		r := d.Traits()
		if r.PartSize != c.chunk || r.Tries != c.tries || d.timeout != c.timeout || !r.Stream || !r.Meta || r.Batch != 1 {
			t.Errorf("%q: %+v, %v", c.env, r, d.timeout)
		}
		if got := d.URL("a b/ü"); got != "gs://b/a b/ü" {
			t.Error(got)
		}
	}
}

// TestTheEmulatorsHost in the forms in which the vendor's library takes it; the
// path does not count. Our own settings go before the environment that the
// library looks into.
func TestTheEmulatorsHost(t *testing.T) {
	f := newFake(t, nil)
	f.object = &resource{Name: "k", Size: 3, Generation: "7"}
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
	host := strings.TrimPrefix(f.url, "http://")
	for _, value := range []string{host, f.url, f.url + "/", f.url + "/storage/v1/"} {
		d, err := New(t.Context(), "b", set("STORAGE_EMULATOR_HOST", value))
		if err != nil {
			t.Fatal(err)
		}
		if o, err := d.Stat(t.Context(), "k"); err != nil || o.Size != 3 {
			t.Errorf("%s: %+v, %v", value, o, err)
		}
	}
	for _, c := range []struct{ host, words string }{
		{"127.0.0.1:1", "connection refused"},
		{"https://" + host, "server gave HTTP response to HTTPS client"},
	} {
		d, err := New(t.Context(), "b", set("STORAGE_EMULATOR_HOST", c.host))
		if err != nil {
			t.Fatal(err)
		}
		_, _, readErr := d.Read(t.Context(), "k", 0, 1, "")
		_, statErr := d.Stat(t.Context(), "k")
		for op, err := range map[string]error{"Read": readErr, "Stat": statErr, "Whole": d.Whole(t.Context(), "k", nil, driver.Options{})} {
			if err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "/b/") || strings.Contains(err.Error(), "?") {
				t.Errorf("%s of %s: %v", op, c.host, err)
			}
		}
	}
}

// TestNewAsksNoNetwork, and does not look for credentials either.
func TestNewAsksNoNetwork(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")
	d, err := New(t.Context(), "b", settings(nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("told to stop")
	cancel(cause)
	if _, err := d.Stat(ctx, "k"); !errors.Is(err, cause) {
		t.Error(err)
	}
	// The library looks into the environment at the first request.
	_, err = d.Stat(t.Context(), "k")
	if fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), "no credentials: ") || !strings.Contains(fault.Hint(err), "GOOGLE_APPLICATION_CREDENTIALS") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

// TestRedirectsAreNotFollowed: what answers with one is no Google.
func TestRedirectsAreNotFollowed(t *testing.T) {
	f := newFake(t, func(int) trouble { return trouble{status: http.StatusTemporaryRedirect} })
	err := f.driver(t, time.Minute).Whole(t.Context(), "k", nil, driver.Options{})
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "STORAGE_EMULATOR_HOST") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New(b.Context(), "b", settings(nil)); err != nil {
			b.Fatal(err)
		}
	}
}
