package raw

import "math/bits"

// Symbol is one literal or match to encode. It has all that encoding needs of
// the data, so that the data may be gone by then:
//
//	bits 0-7    kind
//	bits 8-31   literal: the byte, the byte before it, the byte that would go
//	            on with the last match; else: the length
//	bits 32-63  the distance of a match, less one
type Symbol uint64

const (
	kindLiteral = iota
	kindMatch
	kindShort
	kindRepeat // and three more, for older distances
)

// Literal is the byte b. before is the byte before it, or 0; other is the byte
// that lies the last match's distance before it, if there was a match.
func Literal(b, before, other byte) Symbol {
	return kindLiteral | Symbol(b)<<8 | Symbol(before)<<16 | Symbol(other)<<24
}

// Match is a copy of length bytes, MinMatch to MaxMatch, from distance bytes
// before.
func Match(length, distance int) Symbol {
	return kindMatch | Symbol(length)<<8 | Symbol(distance-1)<<32
}

// Repeat is a match with one of the four distances that matches had last; the
// newest is 0. It becomes the newest.
func Repeat(length, which int) Symbol {
	return Symbol(kindRepeat+which) | Symbol(length)<<8
}

// Short is a copy of one byte from the newest distance.
func Short() Symbol { return kindShort | 1<<8 }

// Encoder encodes symbols with the Default properties.
type Encoder struct {
	model
	state    state
	position uint32
	coder
}

// coder is the range encoder. low can have a carry in bit 32: it goes through
// all bytes 0xff into the one that is held back.
type coder struct {
	low  uint64
	span uint32
	held byte
	full int64 // bytes 0xff after held
	dst  []byte
}

// NewEncoder returns an encoder at the beginning of a stream.
func NewEncoder() *Encoder {
	e := &Encoder{coder: coder{span: 1<<32 - 1}}
	e.model.reset(Default)
	return e
}

// Finish appends the end marker and the rest of the coded data.
func (e *Encoder) Finish(dst []byte) []byte {
	dst = e.Append(dst, []Symbol{kindMatch | MinMatch<<8 | endDistance<<32})
	e.dst = dst
	for range StartSize {
		e.low = e.shift(e.low)
	}
	return e.dst
}

// Append appends symbols, encoded, to dst. The last bytes can come later.
func (e *Encoder) Append(dst []byte, symbols []Symbol) []byte {
	e.dst = dst
	for _, s := range symbols {
		n := uint32(s >> 8 & 0xffff)
		position := uint8(e.position & (1<<Default.PB - 1))
		index := uint8(e.state)<<4 | position
		kind := uint8(s)
		if kind == kindLiteral {
			e.bit(&e.isMatch[index], 0)
			context := int(uint8(s>>16) >> (8 - Default.LC))
			p := (*[literalSize]uint16)(e.literal[literalSize*context:])
			if e.state < afterMatch {
				e.tree((*[256]uint16)(p[:]), 0, 8, uint32(uint8(s>>8)))
			} else {
				e.against(p, uint32(uint8(s>>24)), uint32(uint8(s>>8)))
			}
			e.state = e.state.literal()
			e.position++
			continue
		}
		e.position += n
		e.bit(&e.isMatch[index], 1)
		if kind == kindMatch {
			e.bit(&e.isRepeat[e.state&15], 0)
			e.size(&e.length, position, n-MinMatch)
			e.far(n-MinMatch, uint32(s>>32))
			e.state = e.state.other(7, 10)
			continue
		}
		e.bit(&e.isRepeat[e.state&15], 1)
		if kind == kindShort {
			e.bit(&e.isOlder[0][e.state&15], 0)
			e.bit(&e.isLong[index], 0)
			e.state = e.state.other(9, 11)
			continue
		}
		if which := int(kind - kindRepeat); which == 0 {
			e.bit(&e.isOlder[0][e.state&15], 0)
			e.bit(&e.isLong[index], 1)
		} else {
			for older := range min(which+1, 3) {
				one := uint32(0)
				if older < which {
					one = 1
				}
				e.bit(&e.isOlder[older][e.state&15], one)
			}
		}
		e.size(&e.repeated, position, n-MinMatch)
		e.state = e.state.other(8, 11)
	}
	return e.dst
}

// shift moves the top byte out of low.
func (r *coder) shift(low uint64) uint64 {
	if low >= 0xff<<24 && low < 1<<32 {
		r.full++ // a carry can still come through it
	} else {
		carry := byte(low >> 32)
		r.dst = append(r.dst, r.held+carry)
		for ; r.full > 0; r.full-- {
			r.dst = append(r.dst, 0xff+carry)
		}
		r.held = byte(low >> 24)
	}
	return low & (1<<24 - 1) << 8
}

// bit encodes one bit.
func (r *coder) bit(p *uint16, one uint32) {
	v := uint32(*p)
	bound := r.span >> probabilityBits * v
	if one != 0 {
		r.low += uint64(bound)
		r.span -= bound
		*p = uint16(v - v>>adaption)
	} else {
		r.span = bound
		*p = uint16(v + (certain-v)>>adaption)
	}
	if r.span < rangeTop {
		r.span <<= 8
		r.low = r.shift(r.low)
	}
}

// tree encodes a number of so many bits, the highest first. As in literal of
// the decoder, no branch depends on them: zero is all ones where the bit is 0.
func (r *coder) tree(p *[256]uint16, at uint8, size int, n uint32) {
	low, span := r.low, r.span
	node := uint32(1)
	for size--; size >= 0; size-- {
		q := &p[at+uint8(node)]
		v := uint32(*q)
		bound := span >> probabilityBits * v
		one := n >> size & 1
		zero := one - 1
		low += uint64(bound &^ zero)
		span -= bound
		span += (bound - span) & zero
		*q = uint16(int32(v) - (int32(v)+int32(zero&towardsZero))>>adaption)
		node = node<<1 | one
		if span < rangeTop {
			span <<= 8
			low = r.shift(low)
		}
	}
	r.low, r.span = low, span
}

// against encodes a byte against that which would go on with the last match.
func (r *coder) against(p *[literalSize]uint16, other, n uint32) {
	low, span := r.low, r.span
	node, same := uint32(1), uint32(1<<8)
	for node < 1<<8 {
		other <<= 1
		n <<= 1
		expected := other & same
		q := &p[same+expected+node]
		v := uint32(*q)
		bound := span >> probabilityBits * v
		one := n >> 8 & 1
		zero := one - 1
		low += uint64(bound &^ zero)
		span -= bound
		span += (bound - span) & zero
		*q = uint16(int32(v) - (int32(v)+int32(zero&towardsZero))>>adaption)
		node = node<<1 | one
		same &= expected ^ zero
		if span < rangeTop {
			span <<= 8
			low = r.shift(low)
		}
	}
	r.low, r.span = low, span
}

// reversed encodes a number of so many bits, the lowest first.
func (r *coder) reversed(p []uint16, size int, n uint32) {
	node := uint32(1)
	for range size {
		r.bit(&p[node], n&1)
		node = node<<1 | n&1
		n >>= 1
	}
}

// even encodes bits that are as likely 0 as 1.
func (r *coder) even(size int, n uint32) {
	for size--; size >= 0; size-- {
		r.span >>= 1
		if n>>size&1 != 0 {
			r.low += uint64(r.span)
		}
		if r.span < rangeTop {
			r.span <<= 8
			r.low = r.shift(r.low)
		}
	}
}

// size encodes a length, less MinMatch.
func (e *Encoder) size(l *lengths, position uint8, n uint32) {
	if n < 8 {
		e.bit(&l.choice[0], 0)
		e.tree(&l.low, position<<3, 3, n)
		return
	}
	e.bit(&l.choice[0], 1)
	if n < 16 {
		e.bit(&l.choice[1], 0)
		e.tree(&l.mid, position<<3, 3, n-8)
		return
	}
	e.bit(&l.choice[1], 1)
	e.tree(&l.high, 0, 8, n-16)
}

// far encodes the distance, less one, of a match of such a length, less
// MinMatch: the place of its highest bit and the next bit, then the others.
func (e *Encoder) far(length, n uint32) {
	slot, size := n, 0
	if n >= 4 {
		size = bits.Len32(n) - 2
		slot = uint32(size+1)<<1 | n>>size&1
	}
	e.tree(&e.slot, uint8(min(length, 3)<<6), 6, slot)
	base := (2 | slot&1) << size
	switch {
	case slot < 4:
	case slot < 14:
		e.reversed(e.special[base-slot:], size, n-base)
	default:
		e.even(size-4, (n-base)>>4)
		e.reversed(e.align[:], 4, n&15)
	}
}
