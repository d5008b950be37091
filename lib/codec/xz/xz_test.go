package xz_test

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"

	"walg/lib/codec/xz"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const memory = 256 << 20

// strict refuses what is not proven: the format allows zeros after a stream,
// and the suite wants all that follows refused.
type strict struct{ decode.Reader }

func (s strict) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF && !s.Proven() {
		err = fault.New(fault.Data, "not proven")
	}
	return n, err
}

// format has the library for a writer, as we do not write.
var format = decodetest.Format{
	Encode: func(w io.Writer) (io.WriteCloser, error) {
		return ulikunitz.WriterConfig{BlockSize: 200_000}.NewWriter(w)
	},
	Decode:  func(r io.Reader) decode.Reader { return strict{xz.NewReader(r, memory)} },
	Checked: true,
	Block:   200_000,
}

func TestFormat(t *testing.T) { decodetest.Run(t, format) }

func FuzzReader(f *testing.F) {
	loose := format
	loose.Decode = func(r io.Reader) decode.Reader { return xz.NewReader(r, memory) }
	f.Add(stock(f, decodetest.Content(3000), "-T2", "--block-size=1000", "-Csha256"))
	f.Add(stock(f, decodetest.Content(100), "--x86", "--lzma2"))
	f.Add(append(stock(f, []byte("one"), "-Ccrc32"), append(make([]byte, 8), stock(f, []byte("two"))...)...))
	loose.Fuzz(f)
}

// stock compresses with the stock program.
func stock(t testing.TB, plain []byte, options ...string) []byte {
	t.Helper()
	return decodetest.Tool(t, plain, append([]string{"xz", "-c"}, options...)...)
}

func unpack(packed []byte) (plain []byte, proven bool, err error) {
	r := xz.NewReader(bytes.NewReader(packed), memory)
	plain, err = io.ReadAll(r)
	return plain, r.Proven(), err
}

func TestOursOpensTheStockProgram(t *testing.T) {
	options := [][]string{
		{"-0"}, {"-1"}, {"-6"}, {"-9"}, {"-9e"},
		{"-Ccrc32"}, {"-Csha256"},
		{"-T2", "--block-size=100KiB"},
		{"-0", "--block-size=4KiB"},
		{"--lzma2=lc=0,lp=4,pb=4,dict=4KiB"}, {"--lzma2=lc=4,lp=0,pb=0,dict=12KiB"}, {"--lzma2=lc=1,lp=2,pb=3,dict=96KiB"},
	}
	r := decodetest.Rand(t)
	noise := make([]byte, decodetest.Soak(2<<20, 100<<20))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	copy(noise[1<<20:], noise[:300_000]) // so that something can be coded, between chunks that cannot
	i := 0
	for _, n := range []int{0, 1, 3, 4, 4096, 100 << 10, 100<<10 + 1, decodetest.Soak(2<<20, 100<<20)} {
		for name, all := range map[string][]byte{"content": decodetest.Content(n), "noise": noise[:n]} {
			for range decodetest.Soak(2, max(2, min(len(options), 12<<20/(n+1)))) {
				option := options[i%len(options)]
				i++
				got, proven, err := unpack(stock(t, all, option...))
				if err != nil || !proven || !bytes.Equal(got, all) {
					t.Errorf("%d bytes of %s, xz %v: equal %v, proven %v, %v", n, name, option, bytes.Equal(got, all), proven, err)
				}
			}
		}
	}
}

func TestStreamsAndPaddingAreReadAndNotProven(t *testing.T) {
	one, two := stock(t, []byte("one")), stock(t, []byte("two"), "-Csha256")
	empty := stock(t, nil)
	zeros := func(n int) []byte { return make([]byte, n) }
	for _, c := range []struct {
		name   string
		parts  [][]byte
		plain  string
		proven bool
	}{
		{"one stream", [][]byte{one}, "one", true},
		{"an empty stream", [][]byte{empty}, "", true},
		{"two streams", [][]byte{one, two}, "onetwo", false},
		{"two with padding", [][]byte{one, zeros(4), two}, "onetwo", false},
		{"padding at the end", [][]byte{one, zeros(512)}, "one", false},
		{"an empty one at the end", [][]byte{one, empty}, "one", false},
		{"a hundred streams", [][]byte{bytes.Repeat(one, 100)}, strings.Repeat("one", 100), false},
	} {
		packed := bytes.Join(c.parts, nil)
		got, proven, err := unpack(packed)
		if err != nil || string(got) != c.plain || proven != c.proven {
			t.Errorf("%s: %q, proven %v, %v", c.name, got, proven, err)
		}
		if string(decodetest.Tool(t, packed, "xz", "-dc")) != c.plain {
			t.Errorf("%s: xz reads something else", c.name)
		}
	}
	for name, packed := range map[string][]byte{
		"padding of 3 bytes":       append(bytes.Clone(one), zeros(3)...),
		"padding of 5 and another": append(append(bytes.Clone(one), zeros(5)...), two...),
		"padding before":           append(zeros(4), one...),
		"text after":               append(bytes.Clone(one), "text after the end"...),
		"text after padding":       append(append(bytes.Clone(one), zeros(4)...), "text after the end"...),
		"half a stream after":      append(bytes.Clone(one), two[:len(two)/2]...),
	} {
		if got, proven, err := unpack(packed); fault.Status(err) != fault.Data || proven {
			t.Errorf("%s: %q, proven %v, status %d (%v)", name, got, proven, fault.Status(err), err)
		}
	}
}

func TestAStreamWithoutAChecksumIsNotProven(t *testing.T) {
	plain := decodetest.Content(5000)
	got, proven, err := unpack(stock(t, plain, "-Cnone"))
	if err != nil || proven || !bytes.Equal(got, plain) {
		t.Errorf("equal %v, proven %v, %v", bytes.Equal(got, plain), proven, err)
	}
}

func TestFiltersThatWeDoNotReadAreRefusedWithAWayOut(t *testing.T) {
	plain := decodetest.Content(5000)
	for _, options := range [][]string{
		{"--x86", "--lzma2"}, {"--arm", "--lzma2"}, {"--delta=dist=4", "--lzma2"}, {"--delta", "--x86", "--lzma2"},
	} {
		_, proven, err := unpack(stock(t, plain, options...))
		if fault.Status(err) != fault.Data || proven || !strings.Contains(fault.Hint(err), "--through -- xz -dc") {
			t.Errorf("%v: status %d (%v), hint %q", options, fault.Status(err), err, fault.Hint(err))
		}
	}
}

func TestWhatIsNoXZIsRefused(t *testing.T) {
	for name, packed := range map[string][]byte{
		"nothing":       nil,
		"text":          []byte("this is a text that is long enough"),
		"a .lzma":       decodetest.Tool(t, []byte("text"), "xz", "--format=lzma", "-c"),
		"a gzip stream": decodetest.Tool(t, []byte("text"), "gzip", "-c"),
		"zeros":         make([]byte, 1000),
	} {
		if got, _, err := unpack(packed); fault.Status(err) != fault.Data {
			t.Errorf("%s: status %d (%v), %d bytes", name, fault.Status(err), err, len(got))
		}
	}
}

func TestEveryTruncationOfManyBlocksIsRefused(t *testing.T) {
	packed := stock(t, decodetest.Content(3000), "-T2", "--block-size=1000", "-Csha256")
	for cut := range packed {
		if _, _, err := unpack(packed[:cut]); fault.Status(err) != fault.Data {
			t.Fatalf("cut to %d of %d: status %d (%v)", cut, len(packed), fault.Status(err), err)
		}
	}
	for cut := range packed { // a byte lost in the middle
		short := append(bytes.Clone(packed[:cut]), packed[cut+1:]...)
		if _, _, err := unpack(short); fault.Status(err) != fault.Data {
			t.Fatalf("without byte %d of %d: status %d (%v)", cut, len(packed), fault.Status(err), err)
		}
	}
}

// Each block has its checksum; only the index knows how many there were.
func TestBlocksThatAreLostOrSwappedAreRefused(t *testing.T) {
	const streamHead, streamEnd = 12, 12
	all := decodetest.Content(3000)
	whole := stock(t, all, "--block-size=1000")
	rest := whole[streamHead:]
	var blocks [][]byte
	for i := range 3 { // a block is as long as it is in a stream of its own
		one := stock(t, all[1000*i:1000*i+1000], "--block-size=1000")
		index := (int(one[len(one)-8]) + 1) * 4
		size := len(one) - streamHead - index - streamEnd
		blocks = append(blocks, rest[:size])
		rest = rest[size:]
	}
	join := func(order ...int) []byte {
		p := bytes.Clone(whole[:streamHead])
		for _, i := range order {
			p = append(p, blocks[i]...)
		}
		return append(p, rest...)
	}
	if got, proven, err := unpack(join(0, 1, 2)); err != nil || !proven || !bytes.Equal(got, all) {
		t.Fatalf("as it was: proven %v, %v", proven, err)
	}
	for _, order := range [][]int{{0, 1}, {1, 2}, {}, {0, 2, 1}, {0, 1, 2, 2}, {0, 1, 1}} {
		if _, _, err := unpack(join(order...)); fault.Status(err) != fault.Data {
			t.Errorf("%v: status %d (%v)", order, fault.Status(err), err)
		}
	}
}

func TestWindowsThatDoNotFitAreRefusedWithAHint(t *testing.T) {
	plain := []byte("some text")
	packed := stock(t, plain, "-9")
	for _, c := range []struct {
		memory int64
		hint   string
	}{
		{memory, ""}, {64<<20 + decode.Overhead, ""}, {64<<20 + decode.Overhead - 1, "--memory 128M"}, {0, "--memory 128M"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := io.ReadAll(xz.NewReader(bytes.NewReader(packed), c.memory))
		runtime.ReadMemStats(&after)
		if c.hint == "" {
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("memory %d: %q, %v", c.memory, got, err)
			}
		} else if fault.Status(err) != fault.Data || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("memory %d: %v, hint %q", c.memory, err, fault.Hint(err))
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("memory %d: took %d bytes for a short text", c.memory, took)
		}
	}
}

// One window serves all blocks, and no list of them is kept.
func TestMemoryDoesNotGrowWithTheNumberOfBlocks(t *testing.T) {
	took := func(blocks int) uint64 {
		packed := stock(t, make([]byte, blocks*64), "-0", "--block-size=64")
		var before, after runtime.MemStats
		r := xz.NewReader(bytes.NewReader(packed), memory)
		if _, err := io.CopyN(io.Discard, r, 64*100); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		if _, err := io.CopyN(io.Discard, r, int64(blocks-100)*64); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if _, err := io.Copy(io.Discard, r); err != nil || !r.Proven() {
			t.Fatalf("%d blocks: proven %v, %v", blocks, r.Proven(), err)
		}
		return max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
	}
	if grown := took(decodetest.Soak(5000, 100_000)); grown > 16<<10 {
		t.Errorf("%d bytes more", grown)
	}
}
