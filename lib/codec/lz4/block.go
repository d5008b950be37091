package lz4

import "math/bits"

// The numbers of the LZ4 block format (lz4_Block_format.md).
const (
	minMatch     = 4
	lastMatch    = 12 // the last match starts at least so far from the end
	lastLiterals = 5  // the last bytes are always literals
	maxOffset    = 1<<16 - 1
	longRun      = 15 // a length in the token that goes on after it

	// The table of places where four bytes were last seen fits the first
	// cache of every processor; a larger one finds a little more and takes
	// twice the time.
	tableLog = 12

	// After so many places without a match (as a power of two) the search
	// begins to skip, so that data without any costs little.
	skipLog = 6
)

type hashTable [1 << tableLog]uint32

// hash hashes the five low bytes of eight.
func hash(u uint64) uint32 {
	const prime5 = 889523592379 // the multiplier of the reference, good for five bytes
	return uint32(u << 24 * prime5 >> (64 - tableLog))
}

// compress compresses src into dst as one independent block and returns its
// size, or 0 where it would not fit. It is greedy: at each place the last one
// with the same hash is tried, and a match is taken as long as it goes.
//
// load32 and load64 do not check bounds. What keeps them inside src: a search
// never passes len(src)-12, candidates lie before it, and the extension of a
// match stops 8 bytes before the last literals.
func compress(dst, src []byte, table *hashTable) int {
	if len(src) <= lastMatch {
		return putTail(dst, 0, src)
	}
	clear(table[:])
	last := len(src) - lastMatch
	matchEnd := len(src) - lastLiterals
	d, anchor := 0, 0 // written; start of the literals not yet written
	ip := 1
	for ip <= last {
		// Search, in growing steps.
		var match int
		next, tries := ip, 1<<skipLog
		for h := hash(load64(src, ip)); ; {
			ip = next
			next += tries >> skipLog
			tries++
			if next > last {
				return putTail(dst, d, src[anchor:])
			}
			match = int(table[h])
			table[h] = uint32(ip)
			h = hash(load64(src, next))
			if ip-match <= maxOffset && load32(src, match) == load32(src, ip) {
				break
			}
		}
		for ip > anchor && match > 0 && src[ip-1] == src[match-1] {
			ip--
			match--
		}
		// The literals, with room for the longest that may follow at once:
		// a wide copy, an offset, and the tail.
		literals := ip - anchor
		if d+literals+literals/255+32 > len(dst) {
			return 0
		}
		token := d
		d++
		if literals < longRun {
			dst[token] = byte(literals << 4)
			if anchor+16 <= len(src) {
				copy(dst[d:d+16], src[anchor:anchor+16]) // one wide move; what is too much is written over
			} else {
				copy(dst[d:], src[anchor:ip])
			}
		} else {
			dst[token] = longRun << 4
			d = putLength(dst, d, literals-longRun)
			copy(dst[d:], src[anchor:ip])
		}
		d += literals
		for {
			offset := ip - match
			dst[d], dst[d+1] = byte(offset), byte(offset>>8)
			d += 2
			n := extend(src, ip+minMatch, match+minMatch, matchEnd)
			ip += minMatch + n
			if d+n/255+32 > len(dst) {
				return 0
			}
			if n < longRun {
				dst[token] |= byte(n)
			} else {
				dst[token] |= longRun
				d = putLength(dst, d, n-longRun)
			}
			anchor = ip
			if ip > last {
				return putTail(dst, d, src[anchor:])
			}
			table[hash(load64(src, ip-2))] = uint32(ip - 2)
			// Often another match begins right here.
			h := hash(load64(src, ip))
			match = int(table[h])
			table[h] = uint32(ip)
			if ip-match > maxOffset || load32(src, match) != load32(src, ip) {
				break
			}
			token = d
			dst[token] = 0
			d++
		}
		ip++
	}
	return putTail(dst, d, src[anchor:])
}

// extend counts the bytes from a that equal those from b < a, below end.
func extend(src []byte, a, b, end int) int {
	start := a
	for a+8 <= end {
		if x := load64(src, a) ^ load64(src, b); x != 0 {
			return a - start + bits.TrailingZeros64(x)>>3
		}
		a += 8
		b += 8
	}
	for a < end && src[a] == src[b] {
		a++
		b++
	}
	return a - start
}

// putLength writes the part of a length that the token does not hold.
func putLength(dst []byte, d, n int) int {
	for ; n >= 255; n -= 255 {
		dst[d] = 255
		d++
	}
	dst[d] = byte(n)
	return d + 1
}

// putTail writes the last literals and returns the size of the block.
func putTail(dst []byte, d int, literals []byte) int {
	n := len(literals)
	if d+1+n+n/255+1 > len(dst) {
		return 0
	}
	token := d
	d++
	if n < longRun {
		dst[token] = byte(n << 4)
	} else {
		dst[token] = longRun << 4
		d = putLength(dst, d, n-longRun)
	}
	return d + copy(dst[d:], literals)
}
