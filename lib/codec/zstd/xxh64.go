package zstd

import (
	"encoding/binary"
	"math/bits"
)

// The constants of XXH64 (xxhash_spec.md, section XXH64).
const (
	xxhPrime1 = 0x9e3779b185ebca87
	xxhPrime2 = 0xc2b2ae3d27d4eb4f
	xxhPrime3 = 0x165667b19e3779f9
	xxhPrime4 = 0x85ebca77c2b2ae63
	xxhPrime5 = 0x27d4eb2f165667c5
)

// xxh64 is the checksum of the zstd frame format, with seed 0.
type xxh64 struct {
	lanes  [4]uint64
	buf    [32]byte
	length uint64
}

func newXXH64() *xxh64 {
	prime1 := uint64(xxhPrime1)
	return &xxh64{lanes: [4]uint64{prime1 + xxhPrime2, xxhPrime2, 0, -prime1}}
}

func (x *xxh64) write(p []byte) {
	held := int(x.length % 32)
	x.length += uint64(len(p))
	if held > 0 {
		n := copy(x.buf[held:], p)
		if held+n < 32 {
			return
		}
		x.stripes(x.buf[:])
		p = p[n:]
	}
	whole := len(p) &^ 31
	x.stripes(p[:whole])
	copy(x.buf[:], p[whole:])
}

func round(lane, word uint64) uint64 {
	return bits.RotateLeft64(lane+word*xxhPrime2, 31) * xxhPrime1
}

// stripes takes a multiple of 32 bytes.
func (x *xxh64) stripes(p []byte) {
	a, b, c, d := x.lanes[0], x.lanes[1], x.lanes[2], x.lanes[3]
	for len(p) >= 32 {
		s := p[:32:32]
		a = round(a, binary.LittleEndian.Uint64(s[0:]))
		b = round(b, binary.LittleEndian.Uint64(s[8:]))
		c = round(c, binary.LittleEndian.Uint64(s[16:]))
		d = round(d, binary.LittleEndian.Uint64(s[24:]))
		p = p[32:]
	}
	x.lanes = [4]uint64{a, b, c, d}
}

func (x *xxh64) sum() uint64 {
	h := uint64(xxhPrime5)
	if x.length >= 32 {
		l := x.lanes
		h = bits.RotateLeft64(l[0], 1) + bits.RotateLeft64(l[1], 7) + bits.RotateLeft64(l[2], 12) + bits.RotateLeft64(l[3], 18)
		for _, lane := range l {
			h = (h^round(0, lane))*xxhPrime1 + xxhPrime4
		}
	}
	h += x.length
	p := x.buf[:x.length%32]
	for ; len(p) >= 8; p = p[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(p)), 27)*xxhPrime1 + xxhPrime4
	}
	if len(p) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(p))*xxhPrime1, 23)*xxhPrime2 + xxhPrime3
		p = p[4:]
	}
	for _, b := range p {
		h = bits.RotateLeft64(h^uint64(b)*xxhPrime5, 11) * xxhPrime1
	}
	h = (h ^ h>>33) * xxhPrime2
	h = (h ^ h>>29) * xxhPrime3
	return h ^ h>>32
}
