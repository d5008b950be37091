package raw

import "errors"

var (
	errDistance = errors.New("a match from before the beginning")
	errStart    = errors.New("no LZMA symbols begin like this")
)

// Decoder decodes symbols into a window. Its user calls Open, SetProperties and
// Start, in this order, before Decode.
type Decoder struct {
	window
	model
	properties Properties

	span, code uint32 // of the range decoder: code is below span
	state      state
	distance   [4]uint32 // of the last matches, the newest first, each less one
	left       int       // of the last match, where it did not fit
	ended      bool
}

// StartSize is how many bytes Start takes.
const StartSize = 5

// SetProperties forgets all probabilities and takes new properties.
func (d *Decoder) SetProperties(p Properties) {
	d.properties = p
	d.ResetState()
}

// ResetState forgets all probabilities, and what the last symbols were.
func (d *Decoder) ResetState() {
	d.model.reset(d.properties)
	d.state = 0
	d.distance = [4]uint32{}
}

// Start begins with the first bytes of the coded data.
func (d *Decoder) Start(head [StartSize]byte) error {
	d.left, d.ended = 0, false
	d.span = 1<<32 - 1
	d.code = uint32(head[1])<<24 | uint32(head[2])<<16 | uint32(head[3])<<8 | uint32(head[4])
	if head[0] != 0 || d.code == d.span {
		return errStart
	}
	return nil
}

// Ended reports whether the end marker came.
func (d *Decoder) Ended() bool { return d.ended }

// Whole reports whether the coded data may end here: nothing is left of the
// last match, nor in the range decoder.
func (d *Decoder) Whole() bool { return d.left == 0 && d.code == 0 }

// Decode decodes at most room bytes, fewer at the window's end, at an end
// marker, and where less than Need bytes are left in src. It returns what it
// decoded, which stays until the next call, and how many bytes of src it took.
// At the end of all data src must be filled up with Need bytes of any kind; a
// count that goes into them shows a truncation.
func (d *Decoder) Decode(src []byte, room int) (out []byte, taken int, err error) {
	start, end := d.advance(room)
	at := start
	if d.left > 0 {
		at = d.repeat(at, end)
		d.before = d.buf[at-1]
	}
	if at < end && !d.ended {
		at, taken, err = d.symbols(src, at, end)
	}
	return d.done(at), taken, err
}

// symbols decodes into the window from at to end.
//
// The range decoder lives in variables and goes through the functions below by
// value, so that it stays in registers: half of the speed is there.
func (d *Decoder) symbols(src []byte, at, end int) (int, int, error) {
	var (
		buf        = d.buf[:end]
		begin      = d.at - d.valid // of what matches may reach
		span, code = d.span, d.code
		i          = 0
		last       = len(src) - Need
		state      = d.state
		before     = d.before
		lc         = d.properties.LC & 15
		literalAt  = 1<<d.properties.LP - 1
		otherAt    = 1<<d.properties.PB - 1
		err        error
		one        bool
	)
	for at < len(buf) && i <= last {
		position := d.base + at
		position8 := uint8(position & otherAt)
		index := uint8(state)<<4 | position8
		one, span, code, i = bit(&d.isMatch[index], span, code, src, i)
		if !one {
			context := (position&literalAt)<<lc + int(before>>(8-lc))
			p := (*[literalSize]uint16)(d.literal[literalSize*context:])
			if state < afterMatch {
				before, span, code, i = literal(p, span, code, src, i)
			} else {
				before, span, code, i = literalAgainst(p, d.buf[d.index(at, d.distance[0])], span, code, src, i)
			}
			state = state.literal()
			buf[at] = before
			at++
			continue
		}
		var n uint32
		one, span, code, i = bit(&d.isRepeat[state&15], span, code, src, i)
		if !one {
			n, span, code, i = d.length.decode(position8, span, code, src, i)
			d.distance[3], d.distance[2], d.distance[1] = d.distance[2], d.distance[1], d.distance[0]
			d.distance[0], span, code, i = d.far(n, span, code, src, i)
			state = state.other(7, 10)
			if d.distance[0] == endDistance {
				d.ended = true
				break
			}
		} else {
			one, span, code, i = bit(&d.isOlder[0][state&15], span, code, src, i)
			if !one {
				one, span, code, i = bit(&d.isLong[index], span, code, src, i)
				if !one {
					state = state.other(9, 11)
					if int64(d.distance[0]) >= int64(at-begin) || int64(d.distance[0]) >= int64(d.size) {
						err = errDistance
						break
					}
					before = d.buf[d.index(at, d.distance[0])]
					buf[at] = before
					at++
					continue
				}
			} else {
				one, span, code, i = bit(&d.isOlder[1][state&15], span, code, src, i)
				which := 1
				if one {
					one, span, code, i = bit(&d.isOlder[2][state&15], span, code, src, i)
					which = 2
					if one {
						which = 3
					}
				}
				newest := d.distance[which]
				copy(d.distance[1:which+1], d.distance[:which])
				d.distance[0] = newest
			}
			n, span, code, i = d.repeated.decode(position8, span, code, src, i)
			state = state.other(8, 11)
		}
		if int64(d.distance[0]) >= int64(at-begin) || int64(d.distance[0]) >= int64(d.size) {
			err = errDistance
			break
		}
		d.left = MinMatch + int(n)
		at = d.repeat(at, end)
		before = buf[at-1]
	}
	d.span, d.code, d.state = span, code, state
	return at, i, err
}

// bit decodes one bit.
func bit(p *uint16, span, code uint32, src []byte, i int) (bool, uint32, uint32, int) {
	v := uint32(*p)
	bound := span >> probabilityBits * v
	one := code >= bound
	if one {
		span -= bound
		code -= bound
		*p = uint16(v - v>>adaption)
	} else {
		span = bound
		*p = uint16(v + (certain-v)>>adaption)
	}
	if span < rangeTop {
		span <<= 8
		code = code<<8 | uint32(src[i])
		i++
	}
	return one, span, code, i
}

// tree decodes a number of so many bits, the highest first. Bits of lengths and
// distances are not so hard to guess that they would need what literal does.
func tree(p *[256]uint16, at uint8, size int, span, code uint32, src []byte, i int) (n, span2, code2 uint32, i2 int) {
	node := uint32(1)
	for range size {
		q := &p[at+uint8(node)]
		v := uint32(*q)
		bound := span >> probabilityBits * v
		if code < bound {
			span = bound
			*q = uint16(v + (certain-v)>>adaption)
			node <<= 1
		} else {
			span -= bound
			code -= bound
			*q = uint16(v - v>>adaption)
			node = node<<1 | 1
		}
		if span < rangeTop {
			span <<= 8
			code = code<<8 | uint32(src[i])
			i++
		}
	}
	return node - 1<<size, span, code, i
}

// reversed decodes a number of so many bits, the lowest first.
func reversed(p []uint16, size uint32, span, code uint32, src []byte, i int) (n, span2, code2 uint32, i2 int) {
	var one bool
	node := uint32(1)
	for b := range size {
		one, span, code, i = bit(&p[node], span, code, src, i)
		node <<= 1
		if one {
			node |= 1
			n |= 1 << b
		}
	}
	return n, span, code, i
}

// literal decodes a byte. Processors guess its bits badly, therefore it has no
// branches on them: zero is all ones where the bit is 0.
func literal(p *[literalSize]uint16, span, code uint32, src []byte, i int) (byte, uint32, uint32, int) {
	node := uint32(1)
	for node < 1<<8 {
		q := &p[node]
		v := uint32(*q)
		bound := span >> probabilityBits * v
		zero := uint32((int64(code) - int64(bound)) >> 63)
		span -= bound
		span += (bound - span) & zero
		code -= bound &^ zero
		*q = uint16(int32(v) - (int32(v)+int32(zero&towardsZero))>>adaption)
		node = node<<1 + 1 + zero
		if span < rangeTop {
			span <<= 8
			code = code<<8 | uint32(src[i])
			i++
		}
	}
	return byte(node), span, code, i
}

// literalAgainst decodes a byte of which is known that it does not go on with
// the last match, as other would: until they differ the bits of other choose
// the probabilities too.
func literalAgainst(p *[literalSize]uint16, other byte, span, code uint32, src []byte, i int) (byte, uint32, uint32, int) {
	node, bits := uint32(1), uint32(other)
	same := uint32(1 << 8)
	for node < 1<<8 {
		bits <<= 1
		expected := bits & same
		q := &p[same+expected+node]
		v := uint32(*q)
		bound := span >> probabilityBits * v
		zero := uint32((int64(code) - int64(bound)) >> 63)
		span -= bound
		span += (bound - span) & zero
		code -= bound &^ zero
		*q = uint16(int32(v) - (int32(v)+int32(zero&towardsZero))>>adaption)
		node = node<<1 + 1 + zero
		same &= expected ^ zero
		if span < rangeTop {
			span <<= 8
			code = code<<8 | uint32(src[i])
			i++
		}
	}
	return byte(node), span, code, i
}

// decode decodes a length, less MinMatch.
func (l *lengths) decode(position uint8, span, code uint32, src []byte, i int) (n, span2, code2 uint32, i2 int) {
	one, span, code, i := bit(&l.choice[0], span, code, src, i)
	if !one {
		return tree(&l.low, position<<3, 3, span, code, src, i)
	}
	one, span, code, i = bit(&l.choice[1], span, code, src, i)
	if !one {
		n, span, code, i = tree(&l.mid, position<<3, 3, span, code, src, i)
		return n + 8, span, code, i
	}
	n, span, code, i = tree(&l.high, 0, 8, span, code, src, i)
	return n + 16, span, code, i
}

// far decodes the distance, less one, of a match of such a length, less
// MinMatch.
func (m *model) far(length, span, code uint32, src []byte, i int) (n, span2, code2 uint32, i2 int) {
	slot, span, code, i := tree(&m.slot, uint8(min(length, 3)<<6), 6, span, code, src, i)
	if slot < 4 {
		return slot, span, code, i
	}
	size := slot>>1 - 1
	base := (2 | slot&1) << size
	if slot < 14 {
		n, span, code, i = reversed(m.special[base-slot:], size, span, code, src, i)
		return base + n, span, code, i
	}
	middle := uint32(0) // bits that are as likely 0 as 1
	for range size - 4 {
		span >>= 1
		zero := uint32((int64(code) - int64(span)) >> 63)
		code -= span &^ zero
		middle = middle<<1 + 1 + zero
		if span < rangeTop {
			span <<= 8
			code = code<<8 | uint32(src[i])
			i++
		}
	}
	n, span, code, i = reversed(m.align[:], 4, span, code, src, i)
	return base + middle<<4 + n, span, code, i
}
