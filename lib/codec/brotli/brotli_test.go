package brotli_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"walg/lib/codec/brotli"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

func format(level int) decodetest.Format {
	return decodetest.Format{
		Encode: func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w, level), nil },
		Decode: func(r io.Reader) decode.Reader { return brotli.NewReader(r) },
		Block:  64 << 10,
	}
}

func TestFormat(t *testing.T) {
	for _, level := range []int{0, 3, 9} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) { decodetest.Run(t, format(level)) })
	}
}

func FuzzReader(f *testing.F) { format(3).Fuzz(f) }

// Whatever is written comes back, at every level.
func FuzzRoundTrip(f *testing.F) {
	for _, n := range []int{0, 1, 100, 70_000} {
		f.Add(decodetest.Content(n), 3)
	}
	f.Add(bytes.Repeat([]byte("ab"), 50_000), 5)
	f.Fuzz(func(t *testing.T, plain []byte, level int) {
		level = int(uint(level) % 12)
		got, err := io.ReadAll(brotli.NewReader(bytes.NewReader(format(level).Packed(t, plain))))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("level %d: %d bytes come back as %d, %v", level, len(plain), len(got), err)
		}
	})
}

// odd are contents that a search for matches may stumble over.
func odd(n int) map[string][]byte {
	r := decodetest.Content(n)
	noise := make([]byte, n)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	return map[string][]byte{
		"half random": r,
		"random":      noise,
		"zeros":       make([]byte, n),
		"a run":       bytes.Repeat([]byte("a"), n),
		"a period":    bytes.Repeat([]byte("0123456789abcdef!"), n/17+1)[:n],
		"far copies":  bytes.Repeat(decodetest.Content(n/3+1), 3)[:n],
	}
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	for level := range 12 {
		for _, n := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000} {
			for name, plain := range odd(n) {
				packed := format(level).Packed(t, plain)
				if got := decodetest.Tool(t, packed, "brotli", "-dc"); !bytes.Equal(got, plain) {
					t.Errorf("level %d, %s: brotli -d makes %d bytes of %d", level, name, len(got), n)
				}
			}
		}
	}
	plain := decodetest.Content(decodetest.Soak(9<<20, 100<<20)) // more than any window of ours
	if got := decodetest.Tool(t, format(3).Packed(t, plain), "brotli", "-dc"); !bytes.Equal(got, plain) {
		t.Errorf("brotli -d makes %d bytes of %d", len(got), len(plain))
	}
}

func TestWeOpenTheStockPrograms(t *testing.T) {
	for _, n := range []int{0, 1, 100_000, decodetest.Soak(3<<20, 100<<20)} {
		plain := decodetest.Content(n)
		for _, args := range [][]string{{"-q", "0"}, {"-q", "1"}, {"-q", "3"}, {"-q", "5", "-w", "24"}, {"-q", "9", "-w", "10"}, {"-q", "11"}} {
			if n > 1<<20 && args[1] == "11" {
				continue // slow
			}
			packed := decodetest.Tool(t, plain, append([]string{"brotli", "-c"}, args...)...)
			r := brotli.NewReader(bytes.NewReader(packed))
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) || r.Proven() {
				t.Errorf("%q: %d bytes of %d, %v", args, len(got), n, err)
			}
		}
	}
}

// WAL-G writes a window of 22 bits, and its reader refuses large ones.
func TestTheWindowIsThatOfWALG(t *testing.T) {
	for level := range 12 {
		first := format(level).Packed(t, decodetest.Content(100_000))[0]
		if first&0xf != 0b1011 {
			t.Errorf("level %d: the first byte is %08b", level, first)
		}
	}
}

func TestALargeWindowIsNamed(t *testing.T) {
	packed := decodetest.Tool(t, decodetest.Content(100_000), "brotli", "-c", "--large_window=26")
	_, err := io.ReadAll(brotli.NewReader(bytes.NewReader(packed)))
	if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "large window") || !strings.Contains(fault.Hint(err), "--through -- brotli") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func TestHigherLevelsCompressBetter(t *testing.T) {
	plain := []byte(strings.Repeat(string(decodetest.Content(200_000)), 2))
	last := len(plain)
	for _, level := range []int{0, 1, 3, 5, 9} {
		n := len(format(level).Packed(t, plain))
		if n > last+last/100 {
			t.Errorf("level %d makes %d bytes, the one before %d", level, n, last)
		}
		last = n
	}
}
