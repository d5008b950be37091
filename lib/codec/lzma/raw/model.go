// Package raw codes the symbols of LZMA, literals and matches, as .lzma and the
// chunks in .xz have them in common. It knows no header, no checksum and no
// search for matches. The format is that of the LZMA specification (Igor
// Pavlov, lzma-specification.txt).
package raw

// The numbers of the format.
const (
	MinMatch = 2
	MaxMatch = 273

	// Need is more than the bytes that any symbol can take.
	Need = 32

	endDistance = 1<<32 - 1 // what the end marker has for a distance, less one

	probabilityBits = 11
	certain         = 1 << probabilityBits
	even            = certain / 2 // what each probability starts from
	adaption        = 5           // a probability moves by 1/32 of what it lacks
	rangeTop        = 1 << 24     // below it a byte moves

	literalSize = 0x300 // probabilities for the literals of one context

	// A probability v becomes v - v>>adaption after a 1, and after a 0
	// v + (certain-v)>>adaption, which is v - (v+towardsZero)>>adaption: so one
	// expression without a branch does for both.
	towardsZero = 1<<32 + 1<<adaption - 1 - certain // modulo 2^32
)

// Properties are how many bits of what came before choose the probabilities of
// a symbol: for a literal of the byte before (LC) and of the position (LP), for
// the rest of the position (PB).
type Properties struct{ LC, LP, PB uint }

// Default has the numbers that nearly all streams have.
var Default = Properties{LC: 3, LP: 0, PB: 2}

// ParseProperties reads the byte in which a header holds them.
func ParseProperties(b byte) (p Properties, ok bool) {
	n := uint(b)
	return Properties{LC: n % 9, LP: n / 9 % 5, PB: n / 45}, n < 9*5*5
}

// model is what the probabilities that a bit is 0 have become. Arrays of 256
// are larger than they need to be: an index of 8 bits cannot miss.
type model struct {
	isMatch  [256]uint16 // state<<4 | position
	isLong   [256]uint16 // the same; the distance of before, and more than one byte
	isRepeat [16]uint16  // state
	isOlder  [3][16]uint16
	slot     [256]uint16 // length<<6 | node
	special  [128]uint16
	align    [16]uint16
	length   lengths
	repeated lengths
	literal  []uint16
}

// lengths are the probabilities for the length of a match.
type lengths struct {
	choice   [2]uint16
	low, mid [256]uint16 // position<<3 | node
	high     [256]uint16
}

func (m *model) reset(p Properties) {
	for i := range m.isOlder {
		forget(m.isOlder[i][:])
	}
	for _, l := range []*lengths{&m.length, &m.repeated} {
		forget(l.choice[:], l.low[:], l.mid[:], l.high[:])
	}
	n := literalSize << (p.LC + p.LP)
	if cap(m.literal) < n {
		m.literal = make([]uint16, n)
	}
	m.literal = m.literal[:n]
	forget(m.isMatch[:], m.isLong[:], m.isRepeat[:], m.slot[:], m.special[:], m.align[:], m.literal)
}

func forget(all ...[]uint16) {
	for _, p := range all {
		for i := range p {
			p[i] = even
		}
	}
}

// state is what the last symbols were: below 7 the last was a literal.
type state uint8

const afterMatch state = 7 // and all above it

func (s state) literal() state {
	switch {
	case s < 4:
		return 0
	case s < 10:
		return s - 3
	}
	return s - 6
}

// other returns the state after another symbol: early where a literal came
// before it, else late.
func (s state) other(early, late state) state {
	if s < afterMatch {
		return early
	}
	return late
}
