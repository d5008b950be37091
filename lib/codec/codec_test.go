package codec

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const memory = 256 << 20

func packed(t testing.TB, m Method, o Options, plain []byte) []byte {
	t.Helper()
	return decodetest.Format{
		Encode: func(w io.Writer) (io.WriteCloser, error) { return m.NewWriter(w, o) },
	}.Packed(t, plain)
}

func TestEachMethodReadsWhatItWrites(t *testing.T) {
	for _, m := range methods {
		if m.writer == nil {
			continue
		}
		for _, n := range []int{0, 1, 1 << 20} {
			for _, level := range []int{Default, m.least, m.most} {
				o := Options{Level: level, Threads: 2, Memory: memory}
				plain := decodetest.Content(n)
				got, err := io.ReadAll(m.NewReader(bytes.NewReader(packed(t, m, o, plain)), o))
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s, level %d: %d bytes come back as %d, %v", m.Name, level, n, len(got), err)
				}
			}
		}
	}
}

func TestALevelThatAMethodLacksIsRefused(t *testing.T) {
	for _, m := range methods {
		if m.writer == nil || m.Name == "none" {
			continue
		}
		for _, level := range []int{m.least - 1, m.most + 1} {
			if level == Default {
				continue
			}
			if _, err := m.NewWriter(io.Discard, Options{Level: level}); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), m.Name) {
				t.Errorf("%s, level %d: %v", m.Name, level, err)
			}
		}
	}
}

func TestHigherLevelsCompressBetter(t *testing.T) {
	plain := decodetest.Content(1 << 20)
	for _, m := range methods {
		if m.writer == nil || m.Name == "none" {
			continue
		}
		fast := len(packed(t, m, Options{Level: m.least, Threads: 2}, plain))
		high := len(packed(t, m, Options{Level: min(m.most, 9), Threads: 2}, plain))
		if high > fast {
			t.Errorf("%s: %d bytes at level %d, %d at %d", m.Name, fast, m.least, high, min(m.most, 9))
		}
	}
}

func TestZstdLevelsHaveWALGsNames(t *testing.T) {
	for value, want := range map[string]int{"": Default, "fastest": 1, "default": 3, "Better": 7, "best": 11} {
		if got, err := ZstdLevel(value); got != want || err != nil {
			t.Errorf("%q: %d, %v", value, got, err)
		}
	}
	if _, err := ZstdLevel("3"); fault.Status(err) != fault.Usage {
		t.Errorf("3: %v", err)
	}
}

func TestNoneIsNeverProven(t *testing.T) {
	m, _ := ByName("none")
	r := m.NewReader(strings.NewReader("data"), Options{})
	if got, err := io.ReadAll(r); string(got) != "data" || err != nil || r.Proven() {
		t.Errorf("%q, %v, proven %v", got, err, r.Proven())
	}
}

func TestMethodsAreFoundByNameAndExtension(t *testing.T) {
	for _, c := range []struct {
		name, ext        string
		reading, writing int
	}{
		{"lz4", ".lz4", 0, 0}, {"none", "", 0, 0}, {"lzma", ".lzma", 0, 0}, {"brotli", ".br", 0, 0}, {"zstd", ".zst", 0, 0},
		{"gzip", ".gz", 0, 64}, {"xz", ".xz", 0, 64},
		{"", "", 64, 64}, {"LZ4", "", 64, 64}, {"lzo", "", 64, 64},
	} {
		m, err := ByName(c.name)
		if fault.Status(err) != c.reading || m.Ext != c.ext {
			t.Errorf("read %q: extension %q, %v; want %q, status %d", c.name, m.Ext, err, c.ext, c.reading)
		}
		if _, err := Writing(c.name); fault.Status(err) != c.writing {
			t.Errorf("write %q: %v, want status %d", c.name, err, c.writing)
		}
	}
	if _, err := Writing("gzip"); !strings.Contains(err.Error(), "one of lz4, lzma, brotli, zstd, none") {
		t.Errorf("gzip: %v", err)
	}
	for name, want := range map[string]string{
		"wal_005/0001.lz4": "lz4", "x.br": "brotli", "x.zst": "zstd", "x.lzma": "lzma", "x.gz": "gzip", "x.xz": "xz",
		"lz4": "", "x.lz4.tmp": "", "x.lzo": "", "x": "", "": "",
	} {
		if m, ok := ByExt(name); m.Name != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", name, m.Name, want)
		}
	}
}

func TestDetectNamesWhatItRefuses(t *testing.T) {
	for _, c := range []struct {
		head    string
		method  string
		message string // with status 65
	}{
		{"\x04\x22\x4d\x18\x64\x40\xa7", "lz4", ""},
		{"\x02\x21\x4c\x18", "lz4", ""},
		{"\x50\x2a\x4d\x18\x00\x00\x00\x00", "lz4", ""},
		{"\x5f\x2a\x4d\x18", "lz4", ""},
		{"\x28\xb5\x2f\xfd\x04\x00", "zstd", ""},
		{"\x5d\x00\x00\x80\x00", "lzma", ""},
		{"\xfd7zXZ\x00", "xz", ""},
		{"\x1f\x8b\x08", "gzip", ""},
		{"\x60\x2a\x4d\x18", "", "no compression method known by its first bytes"},
		{"\x89LZO\x00\r\n\x1a\n", "", "this is lzo data"},
		{"-----BEGIN PGP MESSAGE", "", "this is OpenPGP (armored) data, not compressed data"},
		{"\x85\x01\x0c\x03", "", "this is OpenPGP data"},
		{"yckms", "", "this is Yandex KMS data"},
		{"", "", "empty input"},
		{";", "", "no compression method known"},
		{"plain text", "", "no compression method known"},
		{"\x04\x22\x4d", "", "no compression method known"},
	} {
		m, err := Detect([]byte(c.head))
		switch {
		case m.Name != c.method:
			t.Errorf("%q: %q, want %q", c.head, m.Name, c.method)
		case c.method != "" && err != nil:
			t.Errorf("%q: %v", c.head, err)
		case c.method == "" && (fault.Status(err) != fault.Data || !strings.Contains(err.Error(), c.message)):
			t.Errorf("%q: %v, want status 65 and %q", c.head, err, c.message)
		case c.method == "" && c.head != "" && fault.Hint(err) == "":
			t.Errorf("%q: no hint with %q", c.head, err)
		}
	}
}

func TestExtensionsEndWithNone(t *testing.T) {
	all := Extensions()
	if all[0] != ".lz4" || all[len(all)-1] != "" {
		t.Errorf("%q", all)
	}
	for _, m := range methods {
		if m.writer != nil && !strings.Contains(strings.Join(all, " ")+" ", m.Ext+" ") {
			t.Errorf("%s: extension %s is not among %q", m.Name, m.Ext, all)
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x00"))
	f.Add([]byte("\x89LZO\x00\r\n\x1a\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		whole, err := Detect(head)
		if err != nil && fault.Status(err) != fault.Data {
			t.Fatalf("%q: %v", head, err)
		}
		if part, _ := Detect(head[:min(len(head), HeadSize)]); part.Name != whole.Name {
			t.Errorf("more than %d bytes were needed for %q", HeadSize, whole.Name)
		}
	})
}
