package gzip_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	library "github.com/klauspost/compress/gzip"

	"walg/lib/codec/gzip"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

var format = decodetest.Format{
	Encode:  func(w io.Writer) (io.WriteCloser, error) { return library.NewWriter(w), nil },
	Decode:  gzip.NewReader,
	Checked: true,
	Block:   1 << 16,
}

func TestFormat(t *testing.T) { decodetest.Run(t, format) }

func FuzzReader(f *testing.F) {
	f.Add(withHeader(f, library.Header{Name: "n", Comment: "c", Extra: []byte("e")}, []byte("plain")))
	f.Add(append(format.Packed(f, []byte("one")), format.Packed(f, []byte("two"))...))
	format.Fuzz(f)
}

// read decodes packed and says whether it was proven.
func read(packed io.Reader) ([]byte, bool, error) {
	r := gzip.NewReader(packed)
	plain, err := io.ReadAll(r)
	return plain, r.Proven(), err
}

func TestOursOpensWhatTheStockProgramMade(t *testing.T) {
	sizes := []int{0, 1, 1000, 32 << 10, 300_000}
	for level := 1; level <= 9; level++ {
		for _, n := range sizes {
			plain := decodetest.Content(n)
			packed := decodetest.Tool(t, plain, "gzip", fmt.Sprintf("-%d", level), "-c")
			if got, proven, err := read(bytes.NewReader(packed)); err != nil || !bytes.Equal(got, plain) || !proven {
				t.Errorf("-%d, %d bytes: equal %v, proven %v, %v", level, n, bytes.Equal(got, plain), proven, err)
			}
		}
	}
	plain := decodetest.Content(decodetest.Soak(3<<20, 100<<20))
	packed := decodetest.Tool(t, plain, "gzip", "-c")
	if got, _, err := read(bytes.NewReader(packed)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes: equal %v, %v", len(plain), bytes.Equal(got, plain), err)
	}
}

func TestSeveralMembersAreOneStreamAndNotProven(t *testing.T) {
	one, two := decodetest.Content(70_000), decodetest.Content(300)
	first := decodetest.Tool(t, one, "gzip", "-c")
	packed := append(append(bytes.Clone(first), decodetest.Tool(t, nil, "gzip", "-c")...), decodetest.Tool(t, two, "gzip", "-c")...)
	want := append(bytes.Clone(one), two...)
	for name, piece := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "data with error": iotest.DataErrReader,
	} {
		got, proven, err := read(piece(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, want) || proven {
			t.Errorf("%s: equal %v, proven %v, %v", name, bytes.Equal(got, want), proven, err)
		}
		var b bytes.Buffer
		r := gzip.NewReader(piece(bytes.NewReader(packed)))
		if _, err := io.Copy(&b, r); err != nil || !bytes.Equal(b.Bytes(), want) || r.Proven() {
			t.Errorf("%s, written: equal %v, proven %v, %v", name, bytes.Equal(b.Bytes(), want), r.Proven(), err)
		}
	}
	// Every cut within the second and third member is seen, and what follows them.
	whole := len(first) + 20
	for cut := len(first) + 1; cut < len(packed); cut++ {
		if _, _, err := read(bytes.NewReader(packed[:cut])); cut != whole && fault.Status(err) != fault.Data {
			t.Errorf("cut to %d of %d: status %d (%v)", cut, len(packed), fault.Status(err), err)
		}
	}
	for _, more := range []string{"\x00", "\x1f", "\x1f\x8b", "\x1f\x8b\x09", "text", strings.Repeat("\x00", 10240)} {
		if _, _, err := read(strings.NewReader(string(packed) + more)); fault.Status(err) != fault.Data {
			t.Errorf("%q after the end: status %d (%v)", more[:1], fault.Status(err), err)
		}
	}
}

// withHeader packs plain under a header.
func withHeader(t testing.TB, h library.Header, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := library.NewWriter(&b)
	w.Header = h
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHeaderFieldsAreAccepted(t *testing.T) {
	plain := []byte("content")
	for name, h := range map[string]library.Header{
		"name":    {Name: strings.Repeat("n", 255), ModTime: time.Unix(1, 0)},
		"comment": {Comment: strings.Repeat("c", 511)},
		"extra":   {Extra: bytes.Repeat([]byte{7}, 1<<16-1)},
		"all":     {Name: "segment", Comment: "a comment", Extra: []byte{1, 2, 0, 0}, OS: 3},
	} {
		packed := withHeader(t, h, plain)
		if got, proven, err := read(bytes.NewReader(packed)); err != nil || !bytes.Equal(got, plain) || !proven {
			t.Errorf("%s: %q, proven %v, %v", name, got, proven, err)
		}
		for cut := range min(len(packed), 900) {
			if _, _, err := read(bytes.NewReader(packed[:cut])); fault.Status(err) != fault.Data {
				t.Errorf("%s, cut to %d: status %d (%v)", name, cut, fault.Status(err), err)
			}
		}
	}
}

// endless is a reader of ones that counts.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	e.n += len(p)
	return len(p), nil
}

func TestAHeaderWithoutEndIsRefusedSoon(t *testing.T) {
	more := new(endless)
	_, _, err := read(io.MultiReader(strings.NewReader("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"), more))
	if fault.Status(err) != fault.Data || more.n > 1<<20 {
		t.Errorf("status %d after %d bytes (%v)", fault.Status(err), more.n, err)
	}
}

func TestWhatIsNoGzipIsNamed(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"", "gzip: truncated"},
		{"\x1f", "gzip: truncated"},
		{"plain text", "gzip: not gzip data"},
		{"\x1f\x8b\x07 an unknown method", "gzip: not gzip data"},
		{"\x1f\x8b\x08\xe0 reserved flags", "gzip: invalid header"},
	} {
		if _, _, err := read(strings.NewReader(c.data)); err == nil || err.Error() != c.want || fault.Status(err) != fault.Data {
			t.Errorf("%q: status %d, %v; want %s", c.data, fault.Status(err), err, c.want)
		}
	}
	packed := format.Packed(t, []byte("content"))
	packed[len(packed)-1] ^= 1
	if _, _, err := read(bytes.NewReader(packed)); err == nil || !strings.Contains(err.Error(), "checksum and the length") {
		t.Errorf("a wrong length: %v", err)
	}
}
