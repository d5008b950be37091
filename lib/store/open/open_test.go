package open

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walg/lib/fault"
	"walg/lib/store"
)

func fileSettings(dir string) Settings {
	return Settings{Prefixes: map[string]string{"WALG_FILE_PREFIX": dir, "WALG_S3_PREFIX": ""}}
}

func TestPrefixOfEachForm(t *testing.T) {
	dir := t.TempDir()
	for _, value := range []string{dir, "file://" + dir, "file://localhost" + dir + "/"} {
		s, err := Prefix(fileSettings(value))
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
	s, key, err := Object(settings, "wal_005/k")
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
		s, name, err := Object(settings, key)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(t.Context(), name); err != nil || info.Size != 1 {
			t.Errorf("%s: %+v, %v", key, info, err)
		}
	}
	s, prefix, err := Under(settings, "file://"+dir+"/a")
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
	one := func(name, value string) Settings { return Settings{Prefixes: map[string]string{name: value}} }
	below := good
	below.Below = "../other"
	for _, test := range []struct {
		s          Settings
		key, words string
	}{
		{Settings{}, "k", "no storage is configured"},
		{Settings{Prefixes: map[string]string{"WALG_S3_PREFIX": "s3://b", "WALG_FILE_PREFIX": dir, "WALG_GS_PREFIX": ""}}, "k",
			"more than one storage is configured: WALG_FILE_PREFIX, WALG_S3_PREFIX"},
		{one("WALG_S3_PREFIX", "s3://b"), "k", "WALG_S3_PREFIX: this storage is not supported by this build yet"},
		{one("WALE_S3_PREFIX", "s3://b"), "k", "not supported by this build yet"},
		{one("WALG_SSH_PREFIX", "ssh://h"), "k", "not supported by this build yet"},
		{one("WALG_FILE_PREFIX", "s3://user:secret@b/x?sig=y"), "k", "WALG_FILE_PREFIX s3://b/x: want a path"},
		{one("WALG_FILE_PREFIX", dir+"/missing"), "k", "no such directory"},
		{below, "k", `".."`},
		{good, "", "the key is empty"},
		{good, "/k", "begins with a slash"},
		{good, "a//k", "empty element"},
		{good, "a/../k", `".."`},
		{good, "a\x1bk", "control character"},
		{good, "s3://user:secret@bucket/k?sig=y", "s3://bucket/k: this storage is not supported"},
		{good, "gs://bucket/k", "not supported by this build yet"},
		{good, "http://host/k", `unknown scheme "http"`},
		{good, "file://" + dir + "/", "empty element"},
		{good, "file://" + dir + "/missing/k", "no such directory"},
		{good, "file://" + dir + "/../k", `".."`},
		{good, "file://host/k", "want file:///path"},
		{good, "file://", "want file:///path"},
	} {
		_, _, err := Object(test.s, test.key)
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Object(%+v, %q) = %v, want status 64 and %q", test.s.Prefixes, test.key, err, test.words)
		}
	}
	if _, err := Prefix(Settings{}); !strings.Contains(fault.Hint(err), "WALG_FILE_PREFIX") {
		t.Errorf("hint %q", fault.Hint(err))
	}
}
