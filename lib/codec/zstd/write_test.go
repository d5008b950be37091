package zstd

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"walg/lib/decode/decodetest"
)

func encoder(t *testing.T, level int) *zstd.Encoder {
	t.Helper()
	e, err := newEncoder(level)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// joined compresses parts one by one and makes a frame of them.
func joined(t *testing.T, e *zstd.Encoder, parts [][]byte) (frame, plain []byte) {
	t.Helper()
	frame = bytes.Clone(header)
	for _, src := range parts {
		p := part{src: src}
		if p.compress(e); p.err != nil {
			t.Fatal(p.err)
		}
		frame = append(frame, p.blocks...)
		plain = append(plain, src...)
	}
	sum := newXXH64()
	sum.write(plain)
	return appendEnd(frame, sum), plain
}

// patterned makes data with matches of all lengths and distances: random bytes
// of a small alphabet, runs, and copies from before, often at the distances
// that a frame begins with, 1, 4 and 8.
func patterned(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		k := 1 + r.IntN(1<<r.IntN(12))
		back := 0
		switch r.IntN(4) {
		case 0:
			back = []int{1, 4, 8, 3, 2}[r.IntN(5)]
		case 1:
			back = 1 + r.IntN(len(b)+1)
		}
		for range k {
			if back == 0 || back > len(b) {
				b = append(b, byte(r.IntN(1<<r.IntN(9))))
			} else { // byte by byte, as a match that overlaps itself
				b = append(b, b[len(b)-back])
			}
		}
	}
	return b[:n]
}

func checkJoined(t *testing.T, e *zstd.Encoder, parts [][]byte) {
	t.Helper()
	frame, plain := joined(t, e, parts)
	d, err := zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got bytes.Buffer
	if _, err := d.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), plain) {
		sizes := make([]int, len(parts))
		for i, p := range parts {
			sizes[i] = len(p)
		}
		t.Fatalf("parts of %d bytes: equal %v, %v", sizes, bytes.Equal(got.Bytes(), plain), err)
	}
}

// What the writer relies on in the library. A version of it that used what
// a frame begins with, offsets or tables, would fail here.
func TestPartsDoNotDependOnWhatWasBefore(t *testing.T) {
	r := decodetest.Rand(t)
	for _, level := range []int{Fastest, Default, Better, Best} {
		e := encoder(t, level)
		for range decodetest.Soak(50, 10_000) {
			parts := make([][]byte, 2+r.IntN(4))
			for i := range parts {
				parts[i] = patterned(r, 1+r.IntN(1<<r.IntN(19)))
			}
			checkJoined(t, e, parts)
		}
	}
}

func TestTheStockProgramOpensWhatBeginsWithRepeats(t *testing.T) {
	r := decodetest.Rand(t)
	for _, level := range []int{Fastest, Default, Better, Best} {
		parts := [][]byte{patterned(r, 1<<18)}
		for _, period := range []int{1, 4, 8, 3, 2, 9} {
			for _, n := range []int{15, 17, 20, 300, 1 << 17, 1<<17 + 100} {
				for _, literals := range []int{0, 1, 2} {
					p := patterned(r, literals)
					p = append(p, bytes.Repeat(patterned(r, period), n/period+1)...)
					parts = append(parts, p, patterned(r, 5000))
				}
			}
		}
		frame, plain := joined(t, encoder(t, level), parts)
		if got := decodetest.Tool(t, frame, "zstd", "-q", "-d", "-c"); !bytes.Equal(got, plain) {
			t.Errorf("level %d: zstd -d makes %d bytes of %d", level, len(got), len(plain))
		}
	}
}

func FuzzPartsJoin(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 20, 1000, 300_000} {
		f.Add(patterned(r, n), n/2, 3)
	}
	f.Fuzz(func(t *testing.T, src []byte, cut, level int) {
		cut = min(max(cut, 0), len(src))
		var parts [][]byte
		for _, p := range [][]byte{src[:cut], src[cut:]} {
			if len(p) > 0 {
				parts = append(parts, p)
			}
		}
		checkJoined(t, encoder(t, level), parts)
	})
}

func TestXXH64KnowsItsVectors(t *testing.T) {
	// As xxhsum -H64 prints them.
	for text, want := range map[string]uint64{
		"":                           0xef46db3751d8e999,
		"a":                          0xd24ec4f1a98c6e5b,
		"abc":                        0x44bc2cf5ad770999,
		"abcdefghijklmnopqrstuvwxyz": 0xcfe1f278fa89835c,
		"Nobody inspects the spammish repetition": 0xfbcea83c8a378bf1,
	} {
		x := newXXH64()
		x.write([]byte(text))
		if got := x.sum(); got != want {
			t.Errorf("%q: %016x, want %016x", text, got, want)
		}
		x = newXXH64()
		for i := range len(text) {
			x.write([]byte{text[i]})
		}
		if got := x.sum(); got != want {
			t.Errorf("%q byte by byte: %016x, want %016x", text, got, want)
		}
	}
}
