package brotli_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"walg/lib/codec/brotli"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

// patterned makes content with copies of all lengths and distances: random
// bytes of small alphabets, runs, and copies from before.
func patterned(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		switch k := 1 + r.IntN(1<<r.IntN(16)); r.IntN(4) {
		case 0:
			alphabet := 1 << r.IntN(9)
			for range k {
				b = append(b, byte(r.IntN(alphabet)))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.IntN(256))}, k)...)
		default:
			if len(b) > 0 {
				back := 1 + r.IntN(min(len(b), 1<<r.IntN(24)))
				for range k { // byte by byte, as a copy that overlaps itself
					b = append(b, b[len(b)-back])
				}
			}
		}
	}
	return b[:n]
}

func TestPatternsComeBack(t *testing.T) {
	r := decodetest.Rand(t)
	for range decodetest.Soak(60, 6000) {
		plain := patterned(r, r.IntN(1<<r.IntN(20)))
		for _, level := range []int{1, 3} {
			packed := format(level).Packed(t, plain)
			if got, err := io.ReadAll(brotli.NewReader(bytes.NewReader(packed))); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("level %d: %d bytes come back as %d, %v", level, len(plain), len(got), err)
			}
		}
	}
}

// The match finders move what they remember when it is twice the window.
func TestTheStockProgramOpensMoreThanTwoWindows(t *testing.T) {
	r := decodetest.Rand(t)
	for range decodetest.Soak(1, 20) {
		plain := patterned(r, 9<<20+r.IntN(2<<20))
		for _, level := range []int{1, 3} {
			packed := format(level).Packed(t, plain)
			if got := decodetest.Tool(t, packed, "brotli", "-dc"); !bytes.Equal(got, plain) {
				t.Errorf("level %d: brotli -d makes %d bytes of %d", level, len(got), len(plain))
			}
		}
	}
}

func TestSizesOfWritesDoNotMatter(t *testing.T) {
	r := decodetest.Rand(t)
	plain := patterned(r, 3<<20)
	for _, level := range []int{1, 3, 5} {
		want := format(level).Packed(t, plain)
		var b bytes.Buffer
		w := brotli.NewWriter(&b, level)
		for p := plain; len(p) > 0; {
			k := min(len(p), r.IntN(1<<r.IntN(21)))
			if n, err := w.Write(p[:k]); n != k || err != nil {
				t.Fatal(n, err)
			}
			p = p[k:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("level %d: %d bytes, %d in one write", level, b.Len(), len(want))
		}
	}
}

func TestWhatFollowsIsSeenWhenItComesLate(t *testing.T) {
	for _, level := range []int{1, 3, 5} {
		packed := append(format(level).Packed(t, []byte("content")), 0)
		got, err := io.ReadAll(brotli.NewReader(iotest.OneByteReader(bytes.NewReader(packed))))
		if string(got) != "content" || fault.Status(err) != fault.Data || err.Error() != "brotli: something else after the end" {
			t.Errorf("level %d: %q, %v", level, got, err)
		}
	}
}
