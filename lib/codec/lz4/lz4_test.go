package lz4_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/codec/lz4"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const (
	block     = 1 << 20 // of what we write
	most      = 4 << 20 // that its header allows
	skippable = "\x53\x2a\x4d\x18\x05\x00\x00\x00notes"
)

func format(level, threads int) decodetest.Format {
	return decodetest.Format{
		Encode:  func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w, level, threads), nil },
		Decode:  func(r io.Reader) decode.Reader { return lz4.NewReader(r, threads) },
		Checked: true,
		Block:   block,
	}
}

func TestFormat(t *testing.T) {
	decodetest.Run(t, format(1, 1))
	decodetest.Run(t, format(1, 4))
	decodetest.Run(t, format(9, 2))
}

// ways are how a reader can be read: by WriteTo, and by Read in pieces.
var ways = []func(w io.Writer, r io.Reader) (int64, error){
	io.Copy,
	func(w io.Writer, r io.Reader) (int64, error) {
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 4097))
	},
}

// read reads in the ways, one for each number, with as many threads.
func read(packed io.Reader, way int) (plain []byte, r decode.Reader, err error) {
	var b bytes.Buffer
	r = lz4.NewReader(packed, 1+way%3)
	_, err = ways[way%len(ways)](&b, r)
	return b.Bytes(), r, err
}

func stock(t testing.TB, plain []byte, args ...string) string {
	t.Helper()
	return string(decodetest.Tool(t, plain, append([]string{"lz4", "-q", "-c"}, args...)...))
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	for n, levels := range map[int][]int{
		0: {1}, 1: {1}, 100_000: {1, 3, 9, 12}, block - 1: {1}, block: {1}, block + 1: {1}, most + block: {1, 3}, decodetest.Soak(2, 100<<20): {1},
	} {
		plain := decodetest.Content(n)
		for _, level := range levels {
			packed := format(level, 2).Packed(t, plain)
			if got := decodetest.Tool(t, packed, "lz4", "-d", "-c"); !bytes.Equal(got, plain) {
				t.Errorf("level %d: lz4 -d makes %d bytes of %d", level, len(got), n)
			}
		}
	}
}

// WAL-G's reader, and every other one, must find what it finds in WAL-G's own:
// version 1, blocks of 4 MiB at most that do not look back, a checksum of the
// content, no size.
func TestWeWriteOneFrameAsWALGDoes(t *testing.T) {
	for _, n := range []int{0, 1, 2 * block} {
		packed := format(1, 2).Packed(t, decodetest.Content(n))
		if !bytes.HasPrefix(packed, []byte("\x04\x22\x4d\x18\x64\x70\xb9")) {
			t.Errorf("%d bytes: begins with % x", n, packed[:7])
		}
	}
}

func TestHigherLevelsCompressBetter(t *testing.T) {
	plain := decodetest.Content(1 << 20)
	if fast, high := len(format(1, 1).Packed(t, plain)), len(format(9, 1).Packed(t, plain)); high >= fast {
		t.Errorf("level 9 makes %d bytes, level 1 %d", high, fast)
	}
}

// A frame proves its end where it is the only one and has a checksum.
func TestWeOpenTheStockPrograms(t *testing.T) {
	small, large := decodetest.Content(300_000), decodetest.Content(most+300_000)
	huge := decodetest.Content(2*most + 300_000) // more than a block of the old format
	one, unchecked := stock(t, small), stock(t, small, "--no-frame-crc")
	legacy := stock(t, small, "-l")
	for _, c := range []struct {
		name   string
		packed string
		plain  []byte
		proven bool
	}{
		{"-1", stock(t, large, "-1"), large, true},
		{"-9", stock(t, large, "-9"), large, true},
		{"-BD", stock(t, large, "-BD"), large, true},
		{"-BD -9", stock(t, large, "-BD", "-9"), large, true},
		{"-B4", stock(t, large, "-B4"), large, true},
		{"-B4 -BX -BD", stock(t, large, "-B4", "-BX", "-BD"), large, true},
		{"-B5 -BX", stock(t, large, "-B5", "-BX"), large, true},
		{"-B6 -BD", stock(t, large, "-B6", "-BD"), large, true},
		{"-B500 -BD", stock(t, small, "-B500", "-BD"), small, true},
		{"--content-size", stock(t, large, "--content-size"), large, true},
		{"-B7 of random data", stock(t, large, "-B7", "-1"), large, true},
		{"of one value", stock(t, make([]byte, 2*most)), make([]byte, 2*most), true},
		{"empty", stock(t, nil), nil, true},
		{"--no-frame-crc", stock(t, large, "--no-frame-crc"), large, false},
		{"-l", legacy, small, false},
		{"-l of more than a block", stock(t, huge, "-l"), huge, false},
		{"two frames", one + stock(t, large), join(small, large), false},
		{"two frames, the first empty", stock(t, nil) + one, small, false},
		{"-l, frame", legacy + one, join(small, small), false},
		{"frame, -l, -l", one + legacy + legacy, join(small, small, small), false},
		{"-l, skippable", legacy + skippable, small, false},
		{"-B4, -l, -B7", stock(t, large, "-B4") + stock(t, huge, "-l") + stock(t, large), join(large, huge, large), false},
		{"a checked and an unchecked frame", one + unchecked, join(small, small), false},
		{"an unchecked and a checked frame", unchecked + one, join(small, small), false},
		{"skippable, frame", skippable + one, small, true},
		{"frame, skippable", one + skippable, small, true},
		{"skippable, skippable, frame, skippable", skippable + skippable + one + skippable, small, true},
	} {
		for way := range 2 * len(ways) {
			got, r, err := read(strings.NewReader(c.packed), way)
			if err != nil || !bytes.Equal(got, c.plain) {
				t.Errorf("%s, way %d: %d bytes of %d, %v", c.name, way, len(got), len(c.plain), err)
			}
			if r.Proven() != c.proven {
				t.Errorf("%s, way %d: proven %v, want %v", c.name, way, r.Proven(), c.proven)
			}
		}
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// watched counts what it is given, and looks at memory meanwhile.
type watched struct {
	n    int
	held int64 // bytes at most
}

func (w *watched) Write(p []byte) (int, error) {
	w.n += len(p)
	w.held = max(w.held, held())
	return len(p), nil
}

// held is the memory that the heap has from the system, bytes.
func held() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys - m.HeapReleased)
}

func TestTheReaderHoldsNoMoreThanItsOverhead(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the programs have it
	plain := decodetest.Content(6 * 2 * most)
	packed := stock(t, plain, "-B4") + stock(t, plain) + stock(t, plain, "-l") + stock(t, plain, "-BD")
	debug.FreeOSMemory()
	before := held()
	var w watched
	if _, err := io.Copy(&w, lz4.NewReader(strings.NewReader(packed), 4)); err != nil || w.n != 4*len(plain) {
		t.Fatalf("%d bytes of %d, %v", w.n, 4*len(plain), err)
	}
	if grown := w.held - before; grown > decode.Overhead {
		t.Errorf("holds %d MiB", grown>>20)
	}
}

func TestEveryTruncationIsCorrupt(t *testing.T) {
	plain := decodetest.Content(40)
	for name, packed := range map[string]string{
		"-BD -BX":   stock(t, plain, "-B4", "-BD", "-BX"),
		"unchecked": stock(t, plain, "-B4", "--no-frame-crc"),
		"with size": stock(t, plain, "-B4", "--content-size"),
		"skippable": skippable + stock(t, plain, "-B4"),
	} {
		for n := range packed {
			_, r, err := read(strings.NewReader(packed[:n]), n)
			if fault.Status(err) != fault.Data || r.Proven() {
				t.Fatalf("%s cut to %d of %d bytes: status %d (%v), proven %v", name, n, len(packed), fault.Status(err), err, r.Proven())
			}
		}
	}
}

// The old format has no mark for its end: cut between two blocks it looks
// whole, and is therefore never proven.
func TestATruncatedLegacyStreamIsCorruptOrUnproven(t *testing.T) {
	plain := decodetest.Content(50)
	packed := stock(t, plain, "-l")
	for n := range packed {
		_, r, err := read(strings.NewReader(packed[:n]), n)
		if err == nil && n > 4 || err != nil && fault.Status(err) != fault.Data || r.Proven() {
			t.Fatalf("cut to %d of %d bytes: %v, proven %v", n, len(packed), err, r.Proven())
		}
	}
}

func TestABitFlipIsCorruptOrChangesNothing(t *testing.T) {
	plain := decodetest.Content(25)
	packed := []byte(stock(t, plain, "-B4", "-BD", "-BX", "--content-size"))
	for bit := range len(packed) * 8 {
		packed[bit/8] ^= 1 << (bit % 8)
		got, _, err := read(bytes.NewReader(packed), bit)
		packed[bit/8] ^= 1 << (bit % 8)
		if err != nil && fault.Status(err) != fault.Data || err == nil && !bytes.Equal(got, plain) {
			t.Fatalf("bit %d: %d bytes, %v", bit, len(got), err)
		}
	}
}

func TestSomethingElseIsCorrupt(t *testing.T) {
	good := string(format(1, 1).Packed(t, decodetest.Content(1000)))
	const (
		magic = "\x04\x22\x4d\x18"
		head  = magic + "\x64\x70\xb9"          // as ours
		plain = magic + "\x60\x40\x82"          // without a checksum, blocks of 64 KiB
		end   = "\x00\x00\x00\x00"              // of a plain frame
		sized = magic + "\x68\x40" + "\x05\x00" // and so on: as plain, with the size 5
	)
	for _, c := range []struct{ name, packed, message string }{
		{"text", "plain text", "not an lz4 frame"},
		{"zstd", "\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00\x99\xe9\xd8\x51", "not an lz4 frame"},
		{"text after a frame", good + "plain text", "something else after the last frame"},
		{"two bytes after a frame", good + "ab", "2 bytes of something else after the last frame"},
		{"zeros after a frame", good + string(make([]byte, 512)), "something else after the last frame"},
		{"half a frame after a frame", good + good[:len(good)/2], "truncated"},
		{"text after the old format", stock(t, []byte("text"), "-l") + "plain text", "something else after the last frame"},
		{"skippable only", skippable, "truncated"},
		{"half a skippable", good + skippable[:10], "truncated"},
		{"a skippable that is too long", "\x50\x2a\x4d\x18\xff\xff\xff\xffxxx", "truncated"},
		{"another version", magic + "\xa4\x70\x3a" + good[7:], "a frame of an unknown kind"},
		{"a reserved flag", magic + "\x66\x70\x73" + good[7:], "a frame of an unknown kind"},
		{"blocks of no known size", magic + "\x64\x30\x13" + good[7:], "a frame of an unknown kind"},
		{"a reserved bit", magic + "\x64\x71\xdc" + good[7:], "a frame of an unknown kind"},
		{"a dictionary", magic + "\x65\x70\x01\x00\x00\x00\x8a" + good[7:], "made with a dictionary"},
		{"another head", magic + "\x64\x70\xba" + good[7:], "the head of the frame has another checksum"},
		{"a block that is too long", head + "\xff\xff\xff\x7f", "a block of 2147483647 bytes, more than the 4194304"},
		{"a block without content", head + "\x00\x00\x00\x80" + good[7:], "a block without content"},
		{"a block that makes too much", plain + "\x09\x01\x00\x00" + "\x1fa\x01\x00" + strings.Repeat("\xff", 260) + "\x00" + end, "a block: "},
		{"a block that looks back", plain + "\x09\x00\x00\x00" + "\x10a\x02\x00" + "\x50bcdef"[:5] + end, "a block: "},
		{"another content", good[:len(good)-1] + string(good[len(good)-1]^1), "the content has another checksum"},
		{"another size", sized + "\x00\x00\x00\x00\x00\x00\x61" + "\x04\x00\x00\x80" + "text" + end, "the content has 4 bytes, not 5"},
	} {
		for way := range ways {
			_, r, err := read(strings.NewReader(c.packed), way)
			if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), c.message) || r.Proven() {
				t.Errorf("%s, way %d: status %d (%v), proven %v; want %q", c.name, way, fault.Status(err), err, r.Proven(), c.message)
			}
		}
	}
}

// An error of the source says that the data may be good: it must not be taken
// for corruption, nor for the end.
func TestErrorsOfTheSourcePassUnchanged(t *testing.T) {
	broken := errors.New("the disk is on fire")
	plain := decodetest.Content(40)
	for name, packed := range map[string]string{
		"two frames":  stock(t, plain, "-B4") + stock(t, plain, "-B4"),
		"legacy":      stock(t, plain, "-l"),
		"linked":      stock(t, plain, "-B4", "-BD", "-BX"),
		"a skippable": skippable + stock(t, plain, "-B4"),
	} {
		for n := range len(packed) + 1 {
			_, r, err := read(io.MultiReader(strings.NewReader(packed[:n]), iotest.ErrReader(broken)), n)
			if err != broken || r.Proven() {
				t.Fatalf("%s, error after %d of %d bytes: %v, proven %v", name, n, len(packed), err, r.Proven())
			}
		}
	}
}

// The suite's fuzzer, with forms that we do not write among its seeds.
func FuzzReader(f *testing.F) {
	plain := decodetest.Content(1000)
	f.Add([]byte(skippable + stock(f, plain, "-B4", "-BD", "-BX", "--content-size")))
	f.Add([]byte(stock(f, plain, "-l") + stock(f, plain, "--no-frame-crc")))
	format(1, 2).Fuzz(f)
}
