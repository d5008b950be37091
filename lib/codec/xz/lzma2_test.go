package xz

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ulikunitz/xz/lzma"

	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

// packed is plain in chunks, by the library.
func packed(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := lzma.NewWriter2(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpacked decodes chunks, and no more than a few MiB of them.
func unpacked(packed []byte, window int) (plain []byte, err error) {
	c := chunks{src: decode.NewInput(bytes.NewReader(packed), "xz", inputSize)}
	c.begin(window)
	for len(plain) < 8<<20 {
		out, err := c.next()
		if err != nil {
			return plain, err
		}
		plain = append(plain, out...)
	}
	return plain, errors.New("enough")
}

func TestChunksOfAllKindsAreRead(t *testing.T) {
	text := strings.Repeat("a text that repeats;", 100)
	coded := packed(t, []byte(text))
	noEnd := coded[:len(coded)-1]
	with := func(control byte) []byte { // in place of the one that begins all anew
		p := bytes.Clone(noEnd)
		p[0] = p[0]&0x1f | control
		return p
	}
	const end = "\x00"
	// What is stored before has the low bytes that the library took for the
	// context of its first literal.
	const base = "\x01\x02\x03\x04"
	stored := "\x01\x00\x03" + base
	more := "\x02\x00\x03more"
	for name, c := range map[string]struct {
		packed, plain string // plain is empty where it is refused
	}{
		"stored":                          {stored + end, base},
		"stored twice":                    {stored + more + end, base + "more"},
		"stored, anew, stored":            {stored + stored + end, base + base},
		"stored, then nothing":            {stored, ""},
		"stored, cut":                     {stored[:5], ""},
		"stored without a beginning":      {more + end, ""},
		"coded":                           {string(noEnd) + end, text},
		"coded, stored, anew, coded":      {string(noEnd) + stored + string(noEnd) + end, text + base + text},
		"stored, coded with properties":   {stored + string(with(0xc0)) + end, base + text},
		"coded without a window":          {string(with(0xc0)) + end, ""},
		"coded without properties":        {string(noEnd) + stored + string(with(0xa0)) + end, ""},
		"coded that begins nothing":       {string(with(0x80)) + end, ""},
		"a control byte without meaning":  {"\x03" + end, ""},
		"a control byte just below coded": {stored + "\x7f" + end, ""},
		"properties for 3+2 bits":         {string(noEnd[:5]) + "\x15" + string(noEnd[6:]) + end, ""},
		"properties too high":             {string(noEnd[:5]) + "\xff" + string(noEnd[6:]) + end, ""},
		"fewer bytes than symbols begin":  {"\xe0\x00\x00\x00\x03\x5d\x00\x00\x00\x00" + end, ""},
	} {
		got, err := unpacked([]byte(c.packed), 4096)
		if c.plain != "" && (err != io.EOF || string(got) != c.plain) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if c.plain == "" && fault.Status(err) != fault.Data {
			t.Errorf("%s: %q, status %d (%v)", name, got, fault.Status(err), err)
		}
	}
}

func TestChunkSizesAreHeld(t *testing.T) {
	good := packed(t, bytes.Repeat([]byte("some text;"), 50))
	for at, change := range map[int]int{2: 1, 4: 1} { // the low bytes of both sizes
		for _, by := range []int{change, -change} {
			bad := bytes.Clone(good)
			bad[at] += byte(by)
			if got, err := unpacked(bad, 4096); fault.Status(err) != fault.Data {
				t.Errorf("byte %d changed by %d: %d bytes, status %d (%v)", at, by, len(got), fault.Status(err), err)
			}
		}
	}
}

// The checksums of blocks keep a fuzzer of streams away from the chunks.
func FuzzChunks(f *testing.F) {
	for _, n := range []int{0, 1, 1000, 70_000} {
		f.Add(packed(f, decodetest.Content(n)), 4096)
	}
	f.Fuzz(func(t *testing.T, packed []byte, window int) {
		_, err := unpacked(packed, max(window, 0)%(1<<20))
		if err != io.EOF && err.Error() != "enough" && fault.Status(err) != fault.Data {
			t.Fatalf("status %d: %v", fault.Status(err), err)
		}
	})
}

// Nor does it pass those of the headers.
func FuzzFields(f *testing.F) {
	f.Add([]byte("\x00\x21\x01\x16\x00\x00\x00"))
	f.Add([]byte("\xc0\x80\x01\x80\x80\x01\x21\x01\x28\x00"))
	f.Add([]byte("\x01\x04\x00\x21\x01\x16\x00"))
	f.Fuzz(func(t *testing.T, fields []byte) {
		if len(fields) == 0 {
			return
		}
		x := NewReader(bytes.NewReader(nil), 0).(*reader)
		b, err := x.parse(fields)
		if err == nil && (b.dictionary < 4096 || b.dictionary >= 1<<32 || b.compressed < unknown || b.uncompressed < unknown) {
			t.Fatalf("%+v", b)
		}
		if err != nil && fault.Status(err) != fault.Data {
			t.Fatal(err)
		}
	})
}
