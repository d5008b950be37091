package open

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

func fileSettings(dir string) Settings {
	return Settings{Prefixes: map[string]string{"WALG_FILE_PREFIX": dir, "WALG_S3_PREFIX": ""}, Remote: lookup(nil)}
}

// lookup finds settings in a map.
func lookup(m map[string]string) driver.Settings {
	return driver.Settings{Get: func(name string) string { return m[name] }}
}

// enough has the settings that each storage cannot do without. Nothing is asked
// of any of them before the first request.
var enough = map[string]string{
	"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "r",
	"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCESS_KEY": "c2VjcmV0",
	"OS_AUTH_URL": "http://127.0.0.1:1/v1.0", "OS_USERNAME": "u", "OS_PASSWORD": "p",
	"SSH_USERNAME": "u", "SSH_PASSWORD": "p",
}

func TestEachPrefixOpensItsStorage(t *testing.T) {
	for _, test := range []struct{ name, value, url string }{
		{"WALG_S3_PREFIX", "s3://bucket/a/b/", "s3://bucket/a/b/k"},
		{"WALG_S3_PREFIX", "s3://bucket", "s3://bucket/k"},
		{"WALE_S3_PREFIX", "s3://bucket//a b//c./ü//", "s3://bucket/a b//c./ü/k"},
		{"WALG_GS_PREFIX", "gs://bucket//a/", "gs://bucket/a/k"},
		{"WALG_AZ_PREFIX", "azure://container/a", "azure://container/a/k"},
		{"WALG_SWIFT_PREFIX", "swift://container/a", "swift://container/a/k"},
		{"WALG_SSH_PREFIX", "ssh://host:2222/a/b", "ssh://host:2222/a/b/k"},
		{"WALG_SSH_PREFIX", "ssh://user@host/a/b", "ssh://host/a/b/k"},
	} {
		s, err := Prefix(t.Context(), Settings{Prefixes: map[string]string{test.name: test.value}, Remote: lookup(enough)})
		if err != nil {
			t.Errorf("%s=%s: %v", test.name, test.value, err)
			continue
		}
		if got := store.URL(s, "k"); got != test.url {
			t.Errorf("%s=%s: k is %s, want %s", test.name, test.value, got, test.url)
		}
		// The object's own URL finds it too, without any prefix.
		s, key, err := Object(t.Context(), Settings{Remote: lookup(enough)}, test.url)
		if strings.Contains(test.url, "//c") {
			continue // no valid key
		}
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
		} else if got := store.URL(s, key); got != test.url {
			t.Errorf("%s is %s by its URL", test.url, got)
		}
	}
}

func TestPrefixOfWALEKeepsItsSlash(t *testing.T) {
	settings := Settings{
		Prefixes: map[string]string{"WALG_GS_PREFIX": "gs://bucket//wal-e/x/"},
		Remote:   lookup(map[string]string{"GCS_NORMALIZE_PREFIX": "false"}),
	}
	s, err := Prefix(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	if got := store.URL(s, "k"); got != "gs://bucket//wal-e/x/k" {
		t.Errorf("URL %q", got)
	}
}

func TestPrefixOfEachForm(t *testing.T) {
	dir := t.TempDir()
	for _, value := range []string{dir, "file://" + dir, "file://localhost" + dir + "/"} {
		s, err := Prefix(t.Context(), fileSettings(value))
		if err != nil {
			t.Fatal(err)
		}
		if got := store.URL(s, "a/b"); got != "file://"+dir+"/a/b" {
			t.Errorf("%s: URL %q", value, got)
		}
	}
}

func TestStoragePrefixComesBetween(t *testing.T) {
	settings := fileSettings(t.TempDir())
	settings.Below = "/cluster/one/"
	settings.Rate = 1 << 30
	s, key, err := Object(t.Context(), settings, "wal_005/k")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := store.URL(s, key), "/cluster/one/wal_005/k"; !strings.HasSuffix(got, want) {
		t.Errorf("URL %q, want ...%q", got, want)
	}
	if err := s.Put(t.Context(), key, strings.NewReader("x"), store.PutOptions{}); err != nil {
		t.Error(err)
	}
}

func TestAbsoluteKeyNeedsNoSettings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a b%20"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := fileSettings("/no/such/prefix")
	settings.Below = "unused"
	for _, key := range []string{"file://" + dir + "/a b%20", "file://localhost" + dir + "/a b%20"} {
		s, name, err := Object(t.Context(), settings, key)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(t.Context(), name); err != nil || info.Size != 1 {
			t.Errorf("%s: %+v, %v", key, info, err)
		}
	}
	s, prefix, err := Under(t.Context(), settings, "file://"+dir+"/a")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for info, err := range s.List(t.Context(), prefix) {
		if n++; err != nil || info.Key != "a b%20" {
			t.Errorf("List: %+v, %v", info, err)
		}
	}
	if n != 1 {
		t.Errorf("%d objects are listed", n)
	}
}

func TestBadSettingsAndKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	good := fileSettings(dir)
	one := func(name, value string) Settings {
		return Settings{Prefixes: map[string]string{name: value}, Remote: lookup(enough)}
	}
	below := good
	below.Below = "../other"
	for _, test := range []struct {
		s          Settings
		key, words string
	}{
		{Settings{}, "k", "no storage is configured"},
		{Settings{Prefixes: map[string]string{"WALG_S3_PREFIX": "s3://b", "WALG_FILE_PREFIX": dir, "WALG_GS_PREFIX": ""}}, "k",
			"more than one storage is configured: WALG_FILE_PREFIX, WALG_S3_PREFIX"},
		{one("WALG_S3_PREFIX", "gs://b"), "k", "WALG_S3_PREFIX gs://b: want s3://bucket/path"},
		{one("WALG_S3_PREFIX", "/b"), "k", "WALG_S3_PREFIX /b: want s3://bucket/path"},
		{one("WALG_S3_PREFIX", "s3://"), "k", "want s3://bucket/path"},
		{one("WALE_S3_PREFIX", "s3://user:secret@b/x"), "k", "want s3://bucket/path"},
		{one("WALG_SSH_PREFIX", "ssh:///x"), "k", "want ssh://host/path"},
		{one("WALG_FILE_PREFIX", "s3://user:secret@b/x?sig=y"), "k", "WALG_FILE_PREFIX s3://b/x: want a path"},
		{one("WALG_FILE_PREFIX", dir+"/missing"), "k", "no such directory"},
		{below, "k", `".."`},
		{good, "", "the key is empty"},
		{good, "/k", "begins with a slash"},
		{good, "a//k", "empty element"},
		{good, "a/../k", `".."`},
		{good, "a\x1bk", "control character"},
		{good, "s3://user:secret@bucket/k?sig=y", "s3://bucket/k: want s3://bucket/path"},
		{good, "gs://bucket//k", "begins with a slash"},
		{good, "azure://container/", "the key is empty"},
		{good, "http://host/k", `unknown scheme "http"`},
		{good, "file://" + dir + "/", "empty element"},
		{good, "file://" + dir + "/missing/k", "no such directory"},
		{good, "file://" + dir + "/../k", `".."`},
		{good, "file://host/k", "want file:///path"},
		{good, "file://", "want file:///path"},
	} {
		_, _, err := Object(t.Context(), test.s, test.key)
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Object(%+v, %q) = %v, want status 64 and %q", test.s.Prefixes, test.key, err, test.words)
		}
	}
	if _, err := Prefix(t.Context(), Settings{}); !strings.Contains(fault.Hint(err), "WALG_FILE_PREFIX") {
		t.Errorf("hint %q", fault.Hint(err))
	}
}
