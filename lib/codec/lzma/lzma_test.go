package lzma_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	ulikunitz "github.com/ulikunitz/xz/lzma"

	"walg/lib/codec/lzma"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const (
	memory = 256 << 20
	window = 8 << 20 // of what we write
)

func format(level int) decodetest.Format {
	return decodetest.Format{
		Encode: func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w, level) },
		Decode: func(r io.Reader) decode.Reader { return lzma.NewReader(r, memory) },
		Block:  256 << 10,
	}
}

func TestFormat(t *testing.T) {
	decodetest.Run(t, format(0))
	decodetest.Run(t, format(lzma.Default))
}

func FuzzReader(f *testing.F) { format(lzma.Default).Fuzz(f) }

func unpack(packed []byte) ([]byte, error) {
	return io.ReadAll(lzma.NewReader(bytes.NewReader(packed), memory))
}

// byLibrary decodes with what WAL-G decodes with.
func byLibrary(t testing.TB, packed []byte) []byte {
	t.Helper()
	r, err := ulikunitz.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// patterned makes data with matches of all lengths and distances: random bytes
// of alphabets of all sizes, runs, and copies from before.
func patterned(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		switch k := 1 + r.IntN(1<<r.IntN(14)); r.IntN(5) {
		case 0:
			alphabet := 1 << r.IntN(9)
			for range k {
				b = append(b, byte(r.IntN(alphabet)))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.IntN(256))}, k)...)
		default:
			if len(b) > 0 {
				back := 1 + r.IntN(min(len(b), 1<<r.IntN(25)))
				for range k { // byte by byte, as a match that runs into itself
					b = append(b, b[len(b)-back])
				}
			}
		}
	}
	return b[:n]
}

// sizes are around all steps of reader and writer.
func sizes() []int {
	all := []int{0, 1, 2, 3, 7, 8, 9, 272, 273, 274, 289, 290, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 256<<10 + 1, 1 << 20, 3<<20 + 17}
	// Around where the writer's window moves, and around the window.
	for _, n := range []int{window + 4<<20, window + 8<<20, window} {
		all = append(all, n+1, n, n-1)
	}
	return append(all[:decodetest.Soak(len(all)-8, len(all))], decodetest.Soak(5, 100<<20))
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	r := decodetest.Rand(t)
	for i, n := range sizes() {
		plain := patterned(r, n)
		for level := range 10 {
			if n > decodetest.Soak(10, 4<<20) && level != i%10 {
				continue
			}
			packed := format(level).Packed(t, plain)
			if !bytes.Equal(decodetest.Tool(t, packed, "xz", "--format=lzma", "-dc"), plain) {
				t.Errorf("%d bytes, level %d: xz reads something else", n, level)
			}
			if got, err := unpack(packed); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, level %d: comes back changed, or %v", n, level, err)
			}
		}
	}
}

func TestWhatWALGReadsWithOpensOurs(t *testing.T) {
	r := decodetest.Rand(t)
	for _, n := range []int{0, 1, 1000, 100_000, decodetest.Soak(1<<20, 20<<20)} {
		plain := patterned(r, n)
		if !bytes.Equal(byLibrary(t, format(lzma.Default).Packed(t, plain)), plain) {
			t.Errorf("%d bytes: the library reads something else", n)
		}
	}
}

func TestOursOpensTheStockProgram(t *testing.T) {
	r := decodetest.Rand(t)
	options := []string{"-0", "-1", "-6", "-9", "-9e",
		"--lzma1=lc=0,lp=0,pb=0,dict=4KiB", "--lzma1=lc=4,lp=0,pb=4,dict=12KiB", "--lzma1=lc=1,lp=3,pb=1,dict=96KiB", "--lzma1=lc=0,lp=4,pb=3,mode=fast"}
	for i, n := range sizes() {
		plain := patterned(r, n)
		for j, option := range options {
			if n > decodetest.Soak(3, 4<<20) && j != i%len(options) {
				continue
			}
			packed := decodetest.Tool(t, plain, "xz", "--format=lzma", option, "-c")
			if got, err := unpack(packed); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, xz %s: comes back changed, or %v", n, option, err)
			}
		}
	}
}

func TestOursOpensWhatWALGWritesWith(t *testing.T) {
	r := decodetest.Rand(t)
	for _, n := range []int{1, 1000, 300_000} {
		plain := patterned(r, n)
		for _, c := range []ulikunitz.WriterConfig{
			{},
			{SizeInHeader: true, Size: int64(n)},
			{SizeInHeader: true, Size: int64(n), EOSMarker: true},
			{Properties: &ulikunitz.Properties{LC: 8, LP: 4, PB: 4}, DictCap: 5000},
		} {
			var b bytes.Buffer
			w, err := c.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(plain); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := unpack(b.Bytes()); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %+v: comes back changed, or %v", n, c, err)
			}
		}
	}
}

func TestHeadersAreThoseOfWALG(t *testing.T) {
	for level := range 10 {
		if head := format(level).Packed(t, nil)[:13]; string(head) != "\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff" {
			t.Errorf("level %d: %x", level, head)
		}
	}
}

func TestLevelsOutsideAreRefused(t *testing.T) {
	for _, level := range []int{-2, -1, 10} {
		if _, err := lzma.NewWriter(io.Discard, level); fault.Status(err) != fault.Usage {
			t.Errorf("%d: %v", level, err)
		}
	}
}

// sized writes a size into the header.
func sized(packed []byte, n uint64) []byte {
	packed = bytes.Clone(packed)
	binary.LittleEndian.PutUint64(packed[5:], n)
	return packed
}

func TestASizeInTheHeaderIsHeld(t *testing.T) {
	plain := decodetest.Content(300_000)
	marked := format(lzma.Default).Packed(t, plain)
	// The library writes no marker where the size is known.
	var b bytes.Buffer
	w, err := ulikunitz.WriterConfig{SizeInHeader: true, Size: int64(len(plain))}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	size := uint64(len(plain))
	for name, c := range map[string]struct {
		packed []byte
		ok     bool
	}{
		"right, marked":       {sized(marked, size), true},
		"less, marked":        {sized(marked, size-1), false},
		"more, marked":        {sized(marked, size+1), false},
		"nothing, marked":     {sized(marked, 0), false},
		"negative, marked":    {sized(marked, 1<<63), false},
		"right, no marker":    {sized(b.Bytes(), size), true},
		"less, no marker":     {sized(b.Bytes(), size-1), false},
		"more, no marker":     {sized(b.Bytes(), size+1), false},
		"unknown, no marker":  {sized(b.Bytes(), 1<<64-1), false},
		"right, and more":     {append(sized(b.Bytes(), size), 0), false},
		"right, marked, more": {append(sized(marked, size), 0), false},
	} {
		got, err := unpack(c.packed)
		switch {
		case c.ok && (err != nil || !bytes.Equal(got, plain)):
			t.Errorf("%s: comes back changed, or %v", name, err)
		case !c.ok && fault.Status(err) != fault.Data:
			t.Errorf("%s: status %d (%v)", name, fault.Status(err), err)
		}
	}
	for _, whole := range [][]byte{sized(format(lzma.Default).Packed(t, plain[:2000]), 2000), b.Bytes()[:200]} {
		for cut := range whole {
			if _, err := unpack(whole[:cut]); fault.Status(err) != fault.Data {
				t.Fatalf("cut to %d of %d: %v", cut, len(whole), err)
			}
		}
	}
}

func TestWhatIsNoLZMAIsRefused(t *testing.T) {
	good := format(lzma.Default).Packed(t, []byte("text"))
	for name, packed := range map[string][]byte{
		"nothing":             nil,
		"text":                []byte("this is a text that is long enough"),
		"an xz stream":        decodetest.Tool(t, []byte("text"), "xz", "-c"),
		"a gzip stream":       decodetest.Tool(t, []byte("text"), "gzip", "-c"),
		"properties too high": append([]byte{225}, good[1:]...),
		"a first byte not 0":  append(append(bytes.Clone(good[:13]), 1), good[14:]...),
		"zeros":               make([]byte, 1000),
		"two streams":         append(bytes.Clone(good), good...),
	} {
		got, err := unpack(packed)
		if fault.Status(err) != fault.Data || strings.Contains(fault.Hint(err), "--memory") {
			t.Errorf("%s: status %d (%v), hint %q, %d bytes", name, fault.Status(err), err, fault.Hint(err), len(got))
		}
	}
}

func TestWindowsThatDoNotFitAreRefusedWithAHint(t *testing.T) {
	plain := []byte("some text")
	packed := format(lzma.Default).Packed(t, plain)
	for _, c := range []struct {
		window uint32
		size   uint64
		memory int64
		hint   string
	}{
		{window, 1<<64 - 1, window + decode.Overhead, ""},
		{window, 1<<64 - 1, window + decode.Overhead - 1, "--memory 72M"},
		{1<<32 - 1, 1<<64 - 1, memory, "--memory 4160M"},
		{1<<32 - 1, 1<<64 - 1, 5 << 30, ""},
		{1<<32 - 1, uint64(len(plain)), memory, ""}, // no match can reach so far
		{0, 1<<64 - 1, memory, ""},
	} {
		packed := sized(packed, c.size)
		binary.LittleEndian.PutUint32(packed[1:], c.window)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := io.ReadAll(lzma.NewReader(bytes.NewReader(packed), c.memory))
		runtime.ReadMemStats(&after)
		if c.hint == "" {
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("window %d, memory %d: %q, %v", c.window, c.memory, got, err)
			}
		} else if fault.Status(err) != fault.Data || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("window %d, memory %d: %v, hint %q", c.window, c.memory, err, fault.Hint(err))
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("window %d, memory %d: took %d bytes for a short text", c.window, c.memory, took)
		}
	}
}

// The same data makes the same bytes, in whatever pieces it comes.
func TestOutputDoesNotDependOnPieces(t *testing.T) {
	r := decodetest.Rand(t)
	plain := patterned(r, decodetest.Soak(2<<20, 30<<20))
	want := format(lzma.Default).Packed(t, plain)
	for _, most := range []int{100, 70_000, 5 << 20} {
		var b bytes.Buffer
		w, err := lzma.NewWriter(&b, lzma.Default)
		if err != nil {
			t.Fatal(err)
		}
		for rest := plain; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(most))
			if k, err := w.Write(rest[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("pieces of up to %d bytes make something else", most)
		}
		if _, err := w.Write([]byte("more")); err == nil {
			t.Error("a write after close is taken")
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOddDataComesBack(t *testing.T) {
	r := decodetest.Rand(t)
	for range decodetest.Soak(60, 5000) {
		n := r.IntN(1 << r.IntN(19))
		checkRound(t, patterned(r, n), r.IntN(10))
	}
	for n := range 40 {
		checkRound(t, make([]byte, n), n%10)
		checkRound(t, patterned(r, n), n%10)
	}
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	checkRound(t, noise, lzma.Default)
	if packed := format(lzma.Default).Packed(t, noise); len(packed) > len(noise)+len(noise)/50 {
		t.Errorf("noise of %d bytes becomes %d", len(noise), len(packed))
	}
}

func checkRound(t *testing.T, plain []byte, level int) {
	t.Helper()
	packed := format(level).Packed(t, plain)
	got, err := unpack(packed)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("level %d: %d bytes come back changed, or %v", level, len(plain), err)
	}
	if len(plain) < 100_000 && !bytes.Equal(byLibrary(t, packed), plain) {
		t.Fatalf("level %d: the library reads %d bytes as something else", level, len(plain))
	}
}

func FuzzOddDataComesBack(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for i, n := range []int{0, 1, 7, 8, 300, 70_000} {
		f.Add(patterned(r, n), i)
	}
	f.Fuzz(func(t *testing.T, plain []byte, level int) {
		checkRound(t, plain, max(level, 0)%10)
	})
}

// Higher levels may not lose against lower ones by more than a little, and the
// default must be about what xz -0 makes of the same data.
func TestSizesAreThoseOfTheStockProgram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := 0; b.Len() < 2<<20; i++ {
		fmt.Fprintf(&b, "%d\t%d\tuser %d\t%x\t2026-11-%02d\n", i, r.IntN(1000), r.IntN(100), r.Uint32(), r.IntN(30))
	}
	stock := len(decodetest.Tool(t, b.Bytes(), "xz", "--format=lzma", "-0", "-c"))
	for level := lzma.Default; level < 10; level++ {
		if n := len(format(level).Packed(t, b.Bytes())); n > stock+stock/20 {
			t.Errorf("level %d makes %d bytes of %d, xz -0 %d", level, n, b.Len(), stock)
		}
	}
}
