package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"walg/lib/fault"
)

// sheet returns the names of WAL-G's settings as its documentation lists them.
func sheet(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/settings.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(text))
	if len(names) < 200 {
		t.Fatalf("%d names", len(names))
	}
	return names
}

func TestEachSettingOfWALGHasAClass(t *testing.T) {
	for _, name := range sheet(t) {
		if _, ok := settings[name]; !ok {
			t.Errorf("%s has no class", name)
		}
	}
}

func TestNoSettingHasTwoClasses(t *testing.T) {
	defer func() {
		if said := recover(); said != "setting with two classes: B" {
			t.Errorf("classify says %v", said)
		}
	}()
	classify(map[class]string{used: "A B", idle: "B C"})
}

// Each class, by each of its names: what a program says of it.
func TestASettingIsTreatedAsItsClassSays(t *testing.T) {
	for name, c := range settings {
		warnings, err := checkSettings([]string{name + "=value"})
		switch c {
		case used, foreign, internal:
			if err != nil || len(warnings) != 0 {
				t.Errorf("%s: %v, %q; want silence", name, err, warnings)
			}
		case idle:
			if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], name) {
				t.Errorf("%s: %v, %q; want one warning", name, err, warnings)
			}
		case refused:
			if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), name) || fault.Hint(err) == "" || warnings != nil {
				t.Errorf("%s: %v, hint %q, %q; want status 64", name, err, fault.Hint(err), warnings)
			}
		default:
			t.Errorf("%s: class %d", name, c)
		}
		// What is set to nothing is not set, as in WAL-G.
		if warnings, err := checkSettings([]string{name + "="}); err != nil || warnings != nil {
			t.Errorf("%s set to nothing: %v, %q", name, err, warnings)
		}
	}
}

// A setting that encrypts, or that names another place, is never ignored.
func TestNothingThatProtectsDataIsIgnored(t *testing.T) {
	for name, c := range settings {
		for _, word := range []string{"_KEY", "ENCRYPT", "PGP", "GPG", "KMS", "LIBSODIUM", "PREFIX", "FAILOVER", "CRYPT", "ENVELOPE"} {
			if strings.HasPrefix(name, "WAL") && strings.Contains(name, word) && c == idle && !slices.Contains(serverSide, name) {
				t.Errorf("%s is known and ignored", name)
			}
		}
	}
}

// Encryption by the storage itself; it is for the storage's driver to refuse
// them, and the file store has none.
var serverSide = []string{"WALG_S3_SSE_KMS_ID"}

func TestAnUnknownSettingIsATypoOrAWarning(t *testing.T) {
	for _, c := range []struct {
		name, near string // near: refused, with this name in the hint
	}{
		{"WALG_FILE_PREFX", "WALG_FILE_PREFIX"},
		{"WALG_FILE_PERFIX", "WALG_FILE_PREFIX"},
		{"WALG_FILE_PREFIXES", "WALG_FILE_PREFIX"},
		{"WALG_COMPRESION_METHOD", "WALG_COMPRESSION_METHOD"},
		{"WALG_PGPKEY", "WALG_PGP_KEY"},
		{"WALG_LIBSODIUM_KEYS", "WALG_LIBSODIUM_KEY"},
		{"WALG_S3_PREFIY", "WALG_S3_PREFIX"},
		{"WALG_FILE_PREFIXABC", ""}, // three edits
		{"WALG_SOMETHING_OF_OURS", ""},
		{"WALG_MY_VENDOR_EXTENSION", ""},
	} {
		warnings, err := checkSettings([]string{c.name + "=x"})
		if c.near == "" {
			if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "unknown setting "+c.name) {
				t.Errorf("%s: %v, %q; want one warning", c.name, err, warnings)
			}
			continue
		}
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), c.name) || fault.Hint(err) != "did you mean "+c.near+"?" {
			t.Errorf("%s: %v, hint %q; want status 64 and %s", c.name, err, fault.Hint(err), c.near)
		}
	}
}

func TestOtherProgramsSettingsAreNoneOfOurs(t *testing.T) {
	for _, name := range []string{"HOME", "PATH", "WALGREENS_STORE", "wALG_X", "AWS_SOMETHING_NEW", "PGTZ", "WAL_G"} {
		if warnings, err := checkSettings([]string{name + "=x"}); err != nil || warnings != nil {
			t.Errorf("%s: %v, %q", name, err, warnings)
		}
	}
}

// A service called walg, or walg-something, in the same namespace.
func TestWhatKubernetesInjectsIsIgnored(t *testing.T) {
	for _, name := range []string{
		"WALG_SERVICE_HOST", "WALG_SERVICE_PORT", "WALG_SERVICE_PORT_HTTP", "WALG_SERVICE_PORT_HTTPS_WEB",
		"WALG_PORT", "WALG_PORT_8080_TCP", "WALG_PORT_8080_TCP_PROTO", "WALG_PORT_8080_TCP_PORT", "WALG_PORT_8080_TCP_ADDR",
		"WALG_PORT_53_UDP", "WALG_PORT_53_UDP_ADDR", "WALG_PORT_5000_SCTP",
		"WALG_EXPORTER_SERVICE_HOST", "WALG_EXPORTER_SERVICE_PORT_METRICS", "WALG_EXPORTER_PORT_9351_TCP_ADDR", "WALG_EXPORTER_PORT",
		"WALG_FILE_SERVICE_HOST", "WALG_S3_PORT",
	} {
		if warnings, err := checkSettings([]string{name + "=tcp://10.0.0.1:80"}); err != nil || warnings != nil {
			t.Errorf("%s: %v, %q", name, err, warnings)
		}
	}
	for _, name := range []string{"WALG_SERVICE_HOSTS", "WALG_PORTS", "WALG_PORT_TCP", "WALG_PORT_X_TCP"} {
		if warnings, err := checkSettings([]string{name + "=x"}); err == nil && len(warnings) != 1 {
			t.Errorf("%s is taken for one of Kubernetes'", name)
		}
	}
}

func TestWarningsComeInOneOrder(t *testing.T) {
	warnings, err := checkSettings([]string{"WALG_ZZZZZZZZ=1", "WALG_UPLOAD_QUEUE=3", "WALG_LOG_LEVEL=DEVEL", "WALG_FILE_PREFIX=/x"})
	if err != nil || len(warnings) != 3 || !slices.IsSortedFunc(warnings, func(a, b string) int {
		return strings.Compare(a[strings.Index(a, "WALG_"):], b[strings.Index(b, "WALG_"):])
	}) {
		t.Errorf("%v, %q", err, warnings)
	}
}

func TestDistanceCountsEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ab", 1},
		{"abc", "xabc", 1}, {"abc", "acb", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != got {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTheNearestNameIsTheNearest(t *testing.T) {
	for name := range settings {
		if got := nearest(name); got != name {
			t.Errorf("%s: nearest is %q", name, got)
		}
	}
}

// TestTheSettingsOfTheStoragesAreKnownAndDescribed: what a storage asks for has
// a class here, so that nobody is warned of it, and a place in the manual.
func TestTheSettingsOfTheStoragesAreKnownAndDescribed(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/walg-storage.7.scd")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("../store/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`"((?:WALG_)?(?:AWS|S3|GCS|GOOGLE|AZURE|OS|ST|SSH)_[A-Z0-9_]+)"`)
	found := map[string]bool{}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") || strings.Contains(source, "test/") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range asked.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
	}
	if len(found) < 50 {
		t.Errorf("only %d settings are found in the sources: the pattern is wrong", len(found))
	}
	for name := range found {
		if _, known := settings[name]; !known {
			t.Errorf("%s has no class", name)
		}
		if bare := strings.TrimPrefix(name, "WALG_"); !strings.Contains(string(page), bare) {
			t.Errorf("walg-storage(7) does not mention %s", name)
		}
	}
	for _, name := range strings.Fields(storageSettings) {
		if !found[name] && !found["WALG_"+name] {
			t.Errorf("%s is called used, and no storage asks for it", name)
		}
	}
}
