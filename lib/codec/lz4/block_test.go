package lz4

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pierrec "github.com/pierrec/lz4/v4"

	"walg/lib/decode/decodetest"
)

// patterned makes data with matches of all lengths and distances: random bytes
// of a small alphabet, runs, and copies from before.
func patterned(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		switch k := 1 + r.IntN(1<<r.IntN(12)); r.IntN(4) {
		case 0:
			for range k {
				b = append(b, byte(r.IntN(1<<r.IntN(9))))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(r.IntN(256))}, k)...)
		default:
			if len(b) > 0 {
				back := 1 + r.IntN(min(len(b), 1<<r.IntN(20)))
				for range k { // byte by byte, as a match that overlaps itself
					b = append(b, b[len(b)-back])
				}
			}
		}
	}
	return b[:n]
}

// checkBlock compresses src into a room of the given size and decompresses it
// with the library.
func checkBlock(t *testing.T, src []byte, room int) {
	t.Helper()
	dst := make([]byte, room)
	var table hashTable
	n := compress(dst, src, &table)
	if n == 0 {
		if bound := len(src) + len(src)/255 + 64; room >= bound {
			t.Fatalf("%d bytes do not fit into %d", len(src), room)
		}
		return
	}
	out := make([]byte, len(src))
	got, err := pierrec.UncompressBlock(dst[:n], out)
	if err != nil || !bytes.Equal(out[:got], src) {
		t.Fatalf("%d bytes in a room of %d come back as %d bytes, %v", len(src), room, got, err)
	}
}

func TestBlocksComeBackAsTheyWere(t *testing.T) {
	r := decodetest.Rand(t)
	for range decodetest.Soak(3000, 300_000) {
		src := patterned(r, r.IntN(1<<r.IntN(18)))
		checkBlock(t, src, len(src))
		checkBlock(t, src, len(src)+len(src)/255+64)
		checkBlock(t, src, r.IntN(len(src)+64)) // never beyond its room
	}
	for n := range 300 {
		checkBlock(t, make([]byte, n), n+64)
		checkBlock(t, patterned(r, n), n+64)
	}
}

func FuzzBlocksComeBackAsTheyWere(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 12, 13, 14, 100, 70_000} {
		f.Add(patterned(r, n), n)
	}
	f.Fuzz(func(t *testing.T, src []byte, room int) {
		checkBlock(t, src, len(src)+len(src)/255+64)
		checkBlock(t, src, min(max(room, 0), 1<<20))
	})
}

func TestXXH32KnowsItsVectors(t *testing.T) {
	// From the reference's own test program: the checksum of nothing, and of
	// short texts as xxhsum -H0 prints them.
	for text, want := range map[string]uint32{
		"":                           0x02cc5d05,
		"a":                          0x550d7456,
		"abc":                        0x32d153ff,
		"abcdefghijklmnopqrstuvwxyz": 0x63a14d5f,
	} {
		x := newXXH32()
		x.write([]byte(text))
		if got := x.sum(); got != want {
			t.Errorf("%q: %08x, want %08x", text, got, want)
		}
		x = newXXH32()
		for i := range len(text) {
			x.write([]byte{text[i]})
		}
		if got := x.sum(); got != want {
			t.Errorf("%q byte by byte: %08x, want %08x", text, got, want)
		}
	}
}
