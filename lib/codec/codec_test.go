package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/fault"
)

const block = 4 << 20 // of what we write

// content is n bytes, half of them compressible. The same n gives the same.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	p := make([]byte, 0, n+512)
	for len(p) < n {
		var chunk [512]byte
		if r.IntN(2) == 0 {
			for i := range chunk {
				chunk[i] = byte(r.Uint32())
			}
		} else {
			copy(chunk[:], strings.Repeat(fmt.Sprintf("row %d of the table;", r.IntN(100)), 32))
		}
		p = append(p, chunk[:]...)
	}
	return p[:n]
}

func encode(t testing.TB, method string, o Options, plain []byte) []byte {
	t.Helper()
	m, err := ByName(method)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := m.NewWriter(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ways are how a reader can be read: by WriteTo, and by Read with buffers
// around the step sizes.
var ways = map[string]func(Reader) ([]byte, error){
	"WriteTo": func(r Reader) ([]byte, error) {
		var b bytes.Buffer
		_, err := io.Copy(&b, r)
		return b.Bytes(), err
	},
	"Read": func(r Reader) ([]byte, error) {
		return io.ReadAll(struct{ io.Reader }{r})
	},
	"small Reads": func(r Reader) ([]byte, error) {
		var b bytes.Buffer
		_, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{r}, make([]byte, 4097))
		return b.Bytes(), err
	},
}

// turn is one of the ways; for tests of so many cases that each gets one.
func turn(n int) string { return []string{"WriteTo", "Read", "small Reads"}[n%3] }

func decode(t testing.TB, way string, r io.Reader, o Options) (plain []byte, proven bool, err error) {
	t.Helper()
	m, _ := ByName("lz4")
	reader := m.NewReader(r, o)
	plain, err = ways[way](reader)
	if err != nil {
		if _, again := reader.Read(make([]byte, 1)); again == nil || again == io.EOF {
			t.Errorf("%s: after %v a read returns %v", way, err, again)
		}
	}
	return plain, reader.Proven(), err
}

func TestWhatWasCompressedComesBack(t *testing.T) {
	for _, n := range []int{0, 1, 65535, block - 1, block, block + 1, 9 << 20} {
		plain := content(n)
		for _, o := range []Options{{}, {Level: 1, Threads: 4}, {Level: 9, Threads: 2}} {
			if o.Level == 9 && n < block+1 {
				continue // slow, and the blocks are cut in the same way
			}
			packed := encode(t, "lz4", o, plain)
			for way := range ways {
				got, proven, err := decode(t, way, bytes.NewReader(packed), o)
				if err != nil || !bytes.Equal(got, plain) || !proven {
					t.Errorf("%d bytes, %+v, %s: equal %v, proven %v, %v", n, o, way, bytes.Equal(got, plain), proven, err)
				}
			}
		}
		if got := encode(t, "none", Options{}, plain); !bytes.Equal(got, plain) {
			t.Errorf("none changes %d bytes", n)
		}
	}
}

func TestTheReaderTakesAnyPieces(t *testing.T) {
	plain := content(100_000)
	packed := encode(t, "lz4", Options{}, plain)
	for name, piece := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with error": iotest.DataErrReader,
	} {
		for way := range ways {
			got, proven, err := decode(t, way, piece(bytes.NewReader(packed)), Options{})
			if err != nil || !bytes.Equal(got, plain) || !proven {
				t.Errorf("%s, %s: equal %v, proven %v, %v", name, way, bytes.Equal(got, plain), proven, err)
			}
		}
	}
}

func TestNoneIsNeverProven(t *testing.T) {
	m, _ := ByName("none")
	r := m.NewReader(strings.NewReader("data"), Options{})
	if got, err := io.ReadAll(r); string(got) != "data" || err != nil || r.Proven() {
		t.Errorf("%q, %v, proven %v", got, err, r.Proven())
	}
}

// tool runs a stock program on input.
func tool(t *testing.T, input []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, &msg)
	}
	return out.Bytes()
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	for n, levels := range map[int][]int{
		0: {1}, 1: {1}, 100_000: {1, 3, 9, 12}, block - 1: {1}, block: {1}, block + 1: {1}, 9 << 20: {1},
	} {
		plain := content(n)
		for _, level := range levels {
			packed := encode(t, "lz4", Options{Level: level, Threads: 2}, plain)
			if got := tool(t, packed, "lz4", "-d", "-c"); !bytes.Equal(got, plain) {
				t.Errorf("level %d: lz4 -d makes %d bytes of %d", level, len(got), n)
			}
		}
	}
}

func TestHigherLevelsCompressBetter(t *testing.T) {
	plain := content(1 << 20)
	if fast, high := len(encode(t, "lz4", Options{Level: 1}, plain)), len(encode(t, "lz4", Options{Level: 9}, plain)); high >= fast {
		t.Errorf("level 9 makes %d bytes, level 1 %d", high, fast)
	}
}

// A frame proves its end where it is the only one and has a checksum.
func TestWeOpenTheStockPrograms(t *testing.T) {
	small, large := content(300_000), content(block+300_000)
	skippable := append([]byte("\x53\x2a\x4d\x18\x05\x00\x00\x00"), "notes"...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	lz4 := func(p []byte, args ...string) []byte { return tool(t, p, append([]string{"lz4", "-c"}, args...)...) }
	for _, c := range []struct {
		name   string
		packed []byte
		plain  []byte
		proven bool
	}{
		{"-1", lz4(large, "-1"), large, true},
		{"-9", lz4(large, "-9"), large, true},
		{"-BD", lz4(large, "-BD"), large, true},
		{"-B4", lz4(large, "-B4"), large, true},
		{"-B4 -BX -BD", lz4(large, "-B4", "-BX", "-BD"), large, true},
		{"--content-size", lz4(large, "--content-size"), large, true},
		{"-B7 of random data", lz4(large, "-B7", "-1"), large, true},
		{"empty", lz4(nil), nil, true},
		{"--no-frame-crc", lz4(large, "--no-frame-crc"), large, false},
		{"-l", lz4(small, "-l"), small, false},
		{"-l of more than a block", lz4(large, "-l"), large, false},
		{"two frames", join(lz4(small), lz4(large)), join(small, large), false},
		{"two frames, the first empty", join(lz4(nil), lz4(small)), small, false},
		{"a checked and an unchecked frame", join(lz4(small), lz4(small, "--no-frame-crc")), join(small, small), false},
		{"an unchecked and a checked frame", join(lz4(small, "--no-frame-crc"), lz4(small)), join(small, small), false},
		{"skippable, frame", join(skippable, lz4(small)), small, true},
		{"frame, skippable", join(lz4(small), skippable), small, true},
		{"skippable, skippable, frame, skippable", join(skippable, skippable, lz4(small), skippable), small, true},
	} {
		for way := range ways {
			for _, threads := range []int{1, 4} {
				got, proven, err := decode(t, way, bytes.NewReader(c.packed), Options{Threads: threads})
				if err != nil || !bytes.Equal(got, c.plain) {
					t.Errorf("%s, %s, %d threads: %d bytes of %d, %v", c.name, way, threads, len(got), len(c.plain), err)
				}
				if proven != c.proven {
					t.Errorf("%s, %s, %d threads: proven %v, want %v", c.name, way, threads, proven, c.proven)
				}
			}
		}
	}
}

func TestEveryTruncationIsCorrupt(t *testing.T) {
	plain := content(40)
	skippable := append([]byte("\x50\x2a\x4d\x18\x05\x00\x00\x00"), "notes"...)
	for name, packed := range map[string][]byte{
		"ours":      encode(t, "lz4", Options{}, plain),
		"empty":     encode(t, "lz4", Options{}, nil),
		"-BD -BX":   tool(t, plain, "lz4", "-c", "-B4", "-BD", "-BX"),
		"unchecked": tool(t, plain, "lz4", "-c", "-B4", "--no-frame-crc"),
		"with size": tool(t, plain, "lz4", "-c", "-B4", "--content-size"),
		"skippable": append(skippable, tool(t, plain, "lz4", "-c", "-B4")...),
	} {
		for n := range packed {
			_, proven, err := decode(t, turn(n), bytes.NewReader(packed[:n]), Options{})
			if fault.Status(err) != fault.Data || proven {
				t.Fatalf("%s cut to %d of %d bytes, %s: status %d (%v), proven %v", name, n, len(packed), turn(n), fault.Status(err), err, proven)
			}
		}
	}
}

// The old format has no mark for its end: cut between two blocks it looks
// whole, and is therefore never proven.
func TestATruncatedLegacyStreamIsCorruptOrUnproven(t *testing.T) {
	plain := content(50)
	packed := tool(t, plain, "lz4", "-c", "-l")
	for n := range packed {
		_, proven, err := decode(t, turn(n), bytes.NewReader(packed[:n]), Options{})
		if err == nil && n > 4 || err != nil && fault.Status(err) != fault.Data || proven {
			t.Fatalf("cut to %d of %d bytes, %s: %v, proven %v", n, len(packed), turn(n), err, proven)
		}
	}
}

func TestABitFlipIsCorruptOrChangesNothing(t *testing.T) {
	plain := content(25)
	for name, packed := range map[string][]byte{
		"ours":    encode(t, "lz4", Options{}, plain),
		"-BD -BX": tool(t, plain, "lz4", "-c", "-B4", "-BD", "-BX"),
	} {
		for bit := range len(packed) * 8 {
			bent := bytes.Clone(packed)
			bent[bit/8] ^= 1 << (bit % 8)
			got, _, err := decode(t, turn(bit), bytes.NewReader(bent), Options{})
			if err != nil && fault.Status(err) != fault.Data || err == nil && !bytes.Equal(got, plain) {
				t.Fatalf("%s, bit %d, %s: %d bytes, %v", name, bit, turn(bit), len(got), err)
			}
		}
	}
}

func TestSomethingElseIsCorrupt(t *testing.T) {
	good := encode(t, "lz4", Options{}, content(1000))
	for name, packed := range map[string][]byte{
		"text":                        []byte("plain text"),
		"text after a frame":          append(bytes.Clone(good), "plain text"...),
		"two bytes after a frame":     append(bytes.Clone(good), "ab"...),
		"zeros after a frame":         append(bytes.Clone(good), make([]byte, 512)...),
		"skippable only":              []byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"),
		"a skippable that is too big": []byte("\x50\x2a\x4d\x18\xff\xff\xff\xffxxx"),
		"a block that is too big":     append(bytes.Clone(good[:7]), "\xff\xff\xff\x7f"...),
	} {
		for way := range ways {
			if _, _, err := decode(t, way, bytes.NewReader(packed), Options{}); fault.Status(err) != fault.Data {
				t.Errorf("%s, %s: status %d (%v)", name, way, fault.Status(err), err)
			}
		}
	}
}

// An error of the source says that the data may be good: it must not be taken
// for corruption, nor for the end.
func TestErrorsOfTheSourcePassUnchanged(t *testing.T) {
	broken := errors.New("the disk is on fire")
	plain := content(40)
	for name, packed := range map[string][]byte{
		"one frame":   encode(t, "lz4", Options{}, plain),
		"two frames":  bytes.Repeat(tool(t, plain, "lz4", "-c", "-B4"), 2),
		"legacy":      tool(t, plain, "lz4", "-c", "-l"),
		"linked":      tool(t, plain, "lz4", "-c", "-B4", "-BD", "-BX"),
		"a skippable": append([]byte("\x50\x2a\x4d\x18\x05\x00\x00\x00notes"), tool(t, plain, "lz4", "-c", "-B4")...),
	} {
		for n := range len(packed) + 1 {
			src := io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(broken))
			_, proven, err := decode(t, turn(n), src, Options{Threads: 1 + n%2})
			if err != broken || proven {
				t.Fatalf("%s, error after %d of %d bytes, %s: %v, proven %v", name, n, len(packed), turn(n), err, proven)
			}
		}
	}
}

// tight is a writer with room for n bytes.
type tight struct {
	room int
	err  error
}

func (w *tight) Write(p []byte) (int, error) {
	if len(p) > w.room {
		n := w.room
		w.room = 0
		return n, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

func TestErrorsOfTheTargetPassUnchanged(t *testing.T) {
	full := errors.New("no room")
	plain := content(9 << 20)
	packed := encode(t, "lz4", Options{}, plain)
	m, _ := ByName("lz4")
	for _, threads := range []int{1, 4} {
		for _, room := range []int{0, 1, 5, 100, block, block + 1} {
			w, err := m.NewWriter(&tight{room, full}, Options{Threads: threads})
			if err == nil {
				_, err = io.Copy(w, bytes.NewReader(plain))
				if cerr := w.Close(); err == nil {
					err = cerr
				}
			}
			if !errors.Is(err, full) || fault.Status(err) != fault.Failed {
				t.Errorf("compress, room for %d, %d threads: %v", room, threads, err)
			}
			r := m.NewReader(bytes.NewReader(packed), Options{Threads: threads})
			if _, err := io.Copy(&tight{room, full}, r); !errors.Is(err, full) || fault.Status(err) != fault.Failed {
				t.Errorf("decompress, room for %d, %d threads: %v", room, threads, err)
			}
			if r.Proven() {
				t.Errorf("decompress, room for %d, %d threads: proven", room, threads)
			}
		}
	}
}

func TestMethodsAreFoundByNameAndExtension(t *testing.T) {
	for _, c := range []struct {
		name, ext string
		status    int
	}{
		{"lz4", ".lz4", 0}, {"none", "", 0},
		{"lzma", ".lzma", 64}, {"brotli", ".br", 64}, {"zstd", ".zst", 64},
		{"gzip", "", 64}, {"", "", 64}, {"LZ4", "", 64},
	} {
		m, err := ByName(c.name)
		if fault.Status(err) != c.status || m.Ext != c.ext {
			t.Errorf("%q: extension %q, %v; want %q, status %d", c.name, m.Ext, err, c.ext, c.status)
		}
	}
	if _, err := ByName("zstd"); !strings.Contains(err.Error(), "not supported by this version") || fault.Hint(err) == "" {
		t.Errorf("zstd: %v, hint %q", err, fault.Hint(err))
	}
	if _, err := ByName("gzip"); !strings.Contains(err.Error(), "lz4, none") {
		t.Errorf("gzip: %v", err)
	}
	for name, want := range map[string]string{
		"wal_005/0001.lz4": "lz4", "x.br": "brotli", "x.zst": "zstd", "x.lzma": "lzma", "lz4": "", "x.lz4.tmp": "", "x": "", "": "",
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
		status  int
		message string
	}{
		{"\x04\x22\x4d\x18\x64\x40\xa7", "lz4", 0, ""},
		{"\x02\x21\x4c\x18", "lz4", 0, ""},
		{"\x50\x2a\x4d\x18\x00\x00\x00\x00", "lz4", 0, ""},
		{"\x5f\x2a\x4d\x18", "lz4", 0, ""},
		{"\x60\x2a\x4d\x18", "", 65, "no compression method known by its first bytes"},
		{"\x28\xb5\x2f\xfd\x04\x00", "", 65, "this is zstd data: compression method zstd is not supported"},
		{"\x5d\x00\x00\x80\x00", "", 65, "this is lzma data"},
		{"\xfd7zXZ\x00", "", 65, "this is xz data"},
		{"\x1f\x8b\x08", "", 65, "this is gzip data"},
		{"\x89LZO\x00\r\n\x1a\n", "", 65, "this is lzo data"},
		{"-----BEGIN PGP MESSAGE", "", 65, "this is OpenPGP (armored) data, not compressed data"},
		{"\x85\x01\x0c\x03", "", 65, "this is OpenPGP data"},
		{"yckms", "", 65, "this is Yandex KMS data"},
		{"", "", 65, "empty input"},
		{";", "", 65, "no compression method known"},
		{"plain text", "", 65, "no compression method known"},
		{"\x04\x22\x4d", "", 65, "no compression method known"},
	} {
		m, err := Detect([]byte(c.head))
		if fault.Status(err) != c.status {
			t.Errorf("%q: %v, want status %d", c.head, err, c.status)
			continue
		}
		if err == nil {
			if m.Name != c.method {
				t.Errorf("%q: %s, want %s", c.head, m.Name, c.method)
			}
			continue
		}
		if !strings.Contains(err.Error(), c.message) {
			t.Errorf("%q: %q does not say %q", c.head, err, c.message)
		}
		if c.head != "" && fault.Hint(err) == "" {
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
		if !strings.Contains(strings.Join(all, " ")+" ", m.Ext+" ") {
			t.Errorf("%s: extension %s is not among %q", m.Name, m.Ext, all)
		}
	}
}

// Whatever comes in, the reader ends, says 65 or nothing at all, and proves
// only what decodes to the same in every way.
func FuzzReader(f *testing.F) {
	m, _ := ByName("lz4")
	for _, n := range []int{0, 1, 1000, 70_000} {
		f.Add(encode(f, "lz4", Options{}, content(n)))
	}
	f.Add([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"))
	f.Add([]byte("\x02\x21\x4c\x18\x05\x00\x00\x00\x10a\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		var first []byte
		for i, threads := range []int{1, 2} {
			r := m.NewReader(bytes.NewReader(packed), Options{Threads: threads})
			got, err := io.ReadAll(io.LimitReader(struct{ io.Reader }{r}, 64<<20))
			if err != nil && fault.Status(err) != fault.Data {
				t.Fatalf("%d threads: status %d: %v", threads, fault.Status(err), err)
			}
			if r.Proven() && err != nil {
				t.Fatalf("%d threads: proven with %v", threads, err)
			}
			if i == 0 {
				first = got
			} else if r.Proven() && !bytes.Equal(got, first) {
				t.Fatal("the content depends on the number of threads")
			}
		}
	})
}
