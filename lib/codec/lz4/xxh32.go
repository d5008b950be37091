package lz4

import (
	"encoding/binary"
	"math/bits"
)

// The constants of XXH32 (xxhash_spec.md, section XXH32).
const (
	xxhPrime1 = 0x9e3779b1
	xxhPrime2 = 0x85ebca77
	xxhPrime3 = 0xc2b2ae3d
	xxhPrime4 = 0x27d4eb2f
	xxhPrime5 = 0x165667b1
)

// xxh32 is the checksum of the LZ4 frame format, with seed 0.
type xxh32 struct {
	lanes  [4]uint32
	buf    [16]byte
	length uint64
}

func newXXH32() *xxh32 {
	prime1 := uint32(xxhPrime1)
	return &xxh32{lanes: [4]uint32{prime1 + xxhPrime2, xxhPrime2, 0, -prime1}}
}

func (x *xxh32) write(p []byte) {
	held := int(x.length % 16)
	x.length += uint64(len(p))
	if held > 0 {
		n := copy(x.buf[held:], p)
		if held+n < 16 {
			return
		}
		x.stripes(x.buf[:])
		p = p[n:]
	}
	whole := len(p) &^ 15
	x.stripes(p[:whole])
	copy(x.buf[:], p[whole:])
}

// stripes takes a multiple of 16 bytes.
func (x *xxh32) stripes(p []byte) {
	a, b, c, d := x.lanes[0], x.lanes[1], x.lanes[2], x.lanes[3]
	for len(p) >= 16 {
		s := p[:16:16]
		a = bits.RotateLeft32(a+binary.LittleEndian.Uint32(s[0:])*xxhPrime2, 13) * xxhPrime1
		b = bits.RotateLeft32(b+binary.LittleEndian.Uint32(s[4:])*xxhPrime2, 13) * xxhPrime1
		c = bits.RotateLeft32(c+binary.LittleEndian.Uint32(s[8:])*xxhPrime2, 13) * xxhPrime1
		d = bits.RotateLeft32(d+binary.LittleEndian.Uint32(s[12:])*xxhPrime2, 13) * xxhPrime1
		p = p[16:]
	}
	x.lanes = [4]uint32{a, b, c, d}
}

func (x *xxh32) sum() uint32 {
	var h uint32
	if x.length >= 16 {
		l := x.lanes
		h = bits.RotateLeft32(l[0], 1) + bits.RotateLeft32(l[1], 7) + bits.RotateLeft32(l[2], 12) + bits.RotateLeft32(l[3], 18)
	} else {
		h = xxhPrime5
	}
	h += uint32(x.length)
	p := x.buf[:x.length%16]
	for ; len(p) >= 4; p = p[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(p)*xxhPrime3, 17) * xxhPrime4
	}
	for _, b := range p {
		h = bits.RotateLeft32(h+uint32(b)*xxhPrime5, 11) * xxhPrime1
	}
	h = (h ^ h>>15) * xxhPrime2
	h = (h ^ h>>13) * xxhPrime3
	return h ^ h>>16
}
