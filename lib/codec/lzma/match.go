package lzma

import (
	"math/bits"

	"walg/lib/codec/lzma/raw"
)

const (
	window = 8 << 20           // how far back a match may lie: WAL-G's dictionary
	room   = 4 << 20           // for data after it, until it moves
	ahead  = raw.MaxMatch + 16 // that a decision looks at
	wide   = 8                 // that load64 reads

	// Matches are looked up in three tables: the last places with the same
	// four bytes (so few of them that they are near, and near ones are cheap),
	// the last place with the same eight anywhere, and the last with the same
	// three, which is of use only where it is very near.
	ways       = 4
	nearLog    = 14
	farLog     = 17
	shortLog   = 14
	shortReach = 2 << 10
	shortest   = 3

	// What a match is worth, in bits or so, found by trying on tables and WAL:
	// so much for each byte, less its distance and what else it costs. To wait
	// one byte for the next match, that one must be worth so much more.
	byteWorth  = 6
	matchCost  = 1
	repeatCost = 2
	patience   = 4
)

// match is a copy of length bytes from distance bytes before; which is the
// number of an old distance, or -1.
type match struct{ length, distance, which, worth int }

// search turns data into symbols: it finds matches in a window that moves
// along. What it makes depends on the data only, not on the pieces they come in.
type search struct {
	effort
	buf   []byte // and wide bytes after the end
	end   int    // of the data
	at    int    // next byte to decide on
	known int    // next byte that the tables do not know
	base  uint32 // position of buf[0] in the data

	// Positions modulo 2^32. Old and empty ones do no harm, as the bytes
	// themselves are compared in the end.
	near  [][ways]uint32
	far   []uint32
	short []uint32

	last  [4]int // distances
	next  match  // at at, if it was looked up already
	ready bool
}

func newSearch(e effort) *search {
	return &search{
		effort: e,
		buf:    make([]byte, window+room+wide),
		near:   make([][ways]uint32, 1<<nearLog),
		far:    make([]uint32, 1<<farLog),
		short:  make([]uint32, 1<<shortLog),
		last:   [4]int{1, 1, 1, 1},
	}
}

// free returns where data can be added. parse must have been there before.
func (s *search) free() []byte {
	if s.end+wide == len(s.buf) {
		cut := s.at - window
		copy(s.buf, s.buf[cut:s.end])
		s.at, s.known, s.end = s.at-cut, s.known-cut, s.end-cut
		s.base += uint32(cut)
	}
	return s.buf[s.end : len(s.buf)-wide]
}

// parse appends symbols to dst up to its capacity, and as far as it sees ahead
// or, with all, to the end of the data.
func (s *search) parse(dst []raw.Symbol, all bool) []raw.Symbol {
	stop := s.end - ahead
	if all {
		stop = s.end
	}
	for s.at < stop && len(dst) < cap(dst) {
		if !s.ready {
			s.next = s.best()
		}
		m := s.next
		s.ready = false
		if m.worth > 0 && s.lazy && m.length < s.enough {
			s.at++
			s.next = s.best()
			s.at--
			s.ready = true
			if s.next.worth > m.worth+patience {
				m.worth = 0
			}
		}
		if m.worth <= 0 {
			dst = append(dst, s.literal())
			s.at++
			continue
		}
		s.ready = false
		if m.which >= 0 {
			copy(s.last[1:m.which+1], s.last[:m.which])
			dst = append(dst, raw.Repeat(m.length, m.which))
		} else {
			copy(s.last[1:], s.last[:3])
			dst = append(dst, raw.Match(m.length, m.distance))
		}
		s.last[0] = m.distance
		s.at += m.length
	}
	return dst
}

// literal is the symbol for one byte.
func (s *search) literal() raw.Symbol {
	var before, other byte
	if s.at > 0 {
		before = s.buf[s.at-1]
	}
	if s.last[0] <= s.at {
		if other = s.buf[s.at-s.last[0]]; other == s.buf[s.at] {
			return raw.Short()
		}
	}
	return raw.Literal(s.buf[s.at], before, other)
}

// best looks the best match up, new or with an old distance, and puts all
// places up to at into the tables.
func (s *search) best() match {
	m := s.lookup()
	m.worth -= matchCost
	end := min(s.at+raw.MaxMatch, s.end)
	here := load32(s.buf, s.at)
	for i, d := range s.last {
		if d > s.at {
			continue
		}
		differs := load32(s.buf, s.at-d) ^ here
		n := bits.TrailingZeros32(differs) >> 3
		if n < raw.MinMatch {
			continue
		}
		if differs == 0 {
			n = extend(s.buf, s.at+4, s.at+4-d, end) + 4
		}
		if n = min(n, end-s.at); n < raw.MinMatch {
			continue
		}
		if w := n*byteWorth - repeatCost; w > m.worth || w == m.worth && m.which < 0 {
			m = match{n, d, i, w}
		}
	}
	return m
}

// lookup looks the best new match up.
func (s *search) lookup() match {
	m := match{which: -1}
	end := min(s.at+raw.MaxMatch, s.end)
	s.learn(s.at)
	if s.at+wide > s.end {
		return m
	}
	buf, here := s.buf, load64(s.buf, s.at)
	position := s.base + uint32(s.at)
	reach := uint32(min(s.at, window))
	short := &s.short[hash3(here)]
	if d := position - *short; d-1 < min(reach, shortReach) && (load32(buf, s.at-int(d))^uint32(here))<<8 == 0 {
		m.take(shortest+extend(buf, s.at+shortest, s.at+shortest-int(d), end), int(d))
	}
	*short = position
	near := &s.near[hash4(here)]
	for _, p := range near[:s.depth] {
		d := position - p
		if d-1 >= reach {
			break
		}
		from := s.at - int(d)
		if load32(buf, from) == uint32(here) && buf[from+m.length] == buf[s.at+m.length] {
			m.take(4+extend(buf, s.at+4, from+4, end), int(d))
			if m.length >= s.enough || s.at+m.length >= end {
				break
			}
		}
	}
	near[3], near[2], near[1], near[0] = near[2], near[1], near[0], position
	far := &s.far[hash8(here)]
	if d := position - *far; d-1 < reach && m.length < s.enough {
		from := s.at - int(d)
		if load64(buf, from) == here && buf[from+m.length] == buf[s.at+m.length] {
			m.take(8+extend(buf, s.at+8, from+8, end), int(d))
		}
	}
	*far = position
	s.known = s.at + 1
	return m
}

// take takes another match where it is better.
func (m *match) take(length, distance int) {
	if w := length*byteWorth - bits.Len32(uint32(distance)); w > m.worth {
		m.length, m.distance, m.worth = length, distance, w
	}
}

// learn puts the places before end into the tables.
func (s *search) learn(end int) {
	for end = min(end, s.end-wide); s.known < end; s.known++ {
		here := load64(s.buf, s.known)
		position := s.base + uint32(s.known)
		near := &s.near[hash4(here)]
		near[3], near[2], near[1], near[0] = near[2], near[1], near[0], position
		s.far[hash8(here)] = position
		s.short[hash3(here)] = position
	}
}

func hash3(u uint64) uint32 { return uint32(u) << 8 * 0x9e3779b1 >> (32 - shortLog) }
func hash4(u uint64) uint32 { return uint32(u) * 0x9e3779b1 >> (32 - nearLog) }
func hash8(u uint64) uint64 { return u * 0x9fb21c651e98df25 >> (64 - farLog) }

// extend counts the bytes from a that equal those from b < a, below end.
func extend(buf []byte, a, b, end int) int {
	start := a
	for a+8 <= end {
		if x := load64(buf, a) ^ load64(buf, b); x != 0 {
			return a - start + bits.TrailingZeros64(x)>>3
		}
		a += 8
		b += 8
	}
	for a < end && buf[a] == buf[b] {
		a++
		b++
	}
	return a - start
}
