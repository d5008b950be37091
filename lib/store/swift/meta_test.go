package swift

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// throughHTTP is what headers look like on the other side.
func throughHTTP(h map[string]string) http.Header {
	there := http.Header{}
	for name, value := range h {
		there.Set(strings.ToUpper(name), strings.Trim(value, " "))
	}
	return there
}

var oddMeta = []map[string]string{
	{}, {"a": "b"}, {"empty": ""}, {"a": `"`}, {"a": `""`}, {"a": `"quoted"`}, {"a": `say "x"`},
	{"a-b": "1", "a_b": "2", "a--b": "3", "a__b": "4", "a-_b": "5", "a_-b": "6", "a-u": "7", "a-p2": "8", "a-": "9", "a_": "10", "a-p": "11"},
	{"walg-crc32c": "mine"}, {"walg-put": "mark", "sha256": strings.Repeat("0", 64)},
	{"exact": strings.Repeat("x", maxValue), "more": strings.Repeat("y", maxValue+1), "more-p2": "z"},
	{"long": strings.Repeat("spaces at all ends of pieces. ", 40) + "."},
	{"nul": strings.Repeat(" ", 0), "p": strings.Repeat("~ ", 800) + "x"},
	{strings.Repeat("n", 64): "v", "m" + strings.Repeat("_", 60): "v"},
}

func TestMetadataComesBack(t *testing.T) {
	t.Parallel()
	for _, meta := range oddMeta {
		if err := store.ValidMeta(meta); err != nil {
			t.Fatal(err)
		}
		got, crc := readMeta(throughHTTP(writeMeta(meta, 0xdeadbeef)))
		if !maps.Equal(got, meta) || crc == nil || *crc != 0xdeadbeef {
			t.Errorf("%q came back as %q, %v", meta, got, crc)
		}
	}
	random := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[rand.IntN(len(alphabet))]
		}
		return string(b)
	}
	for range 5000 {
		meta := map[string]string{}
		for range rand.IntN(5) {
			meta["p"+random("-_pu29", rand.IntN(6))] = strings.TrimSpace(random(`"a `, rand.IntN(600)))
		}
		if got, _ := readMeta(throughHTTP(writeMeta(meta, 0))); !maps.Equal(got, meta) {
			t.Fatalf("%q came back as %q", meta, got)
		}
	}
}

func TestMetadataOfOthersIsReadAsItIs(t *testing.T) {
	t.Parallel()
	got, crc := readMeta(http.Header{"X-Object-Meta-Mtime": {"1.5"}, "X-Object-Meta-Orig-Filename": {"a"}, "Content-Type": {"x"}, "X-Object-Meta-Walg-Crc32c": {"none"}})
	if want := map[string]string{"mtime": "1.5", "orig-filename": "a"}; !maps.Equal(got, want) || crc != nil {
		t.Errorf("%q, %v, want %q", got, crc, want)
	}
}

func TestTheServerKeepsMetadata(t *testing.T) {
	t.Parallel()
	d, root := real(t, "swift", nil)
	for _, meta := range oddMeta {
		if err := d.Whole(t.Context(), root+"k", nil, driver.Options{Meta: meta}); err != nil {
			t.Fatal(err)
		}
		o, err := d.Stat(t.Context(), root+"k")
		if err != nil || !maps.Equal(o.Meta, meta) {
			t.Errorf("%q came back as %q, %v", meta, o.Meta, err)
		}
	}
}
