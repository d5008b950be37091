package timeline

import (
	"slices"
	"time"

	"walg/lib/wal"
)

// Chain is the way through the timelines to a position: of each timeline the
// part that is the past of the next one.
type Chain struct {
	// Guessed is true where the history of a timeline is not known, and its
	// parent was taken to be the highest lower timeline that holds the segment
	// before its first one, or else that begins before it.
	Guessed bool

	archive *Archive
	parts   []part // the oldest first; each begins where the one before ends
}

// part is the segments from first on, without end.
type part struct {
	timeline   uint32
	first, end uint64
}

// Chain returns the way to the position until on a timeline. The segment that
// holds until is not in it, because its server still writes to it; nor is one
// that holds a switch, on the parent's side: the child has a copy of it.
func (a *Archive) Chain(timeline uint32, until wal.LSN) *Chain {
	c := &Chain{archive: a}
	end := uint64(until) / a.size
	history, known := a.histories[timeline]
	parents := history.Parents
	for {
		parent, begin := uint32(0), uint64(0)
		switch n := len(parents); {
		case n > 0:
			parent, begin = parents[n-1].Timeline, uint64(parents[n-1].At)/a.size
			parents = parents[:n-1]
		case !known && timeline > 1:
			c.Guessed = true
			parent, begin = a.guess(timeline, end)
		}
		begin = min(begin, end)
		c.parts = append(c.parts, part{timeline, begin, end})
		if parent == 0 {
			slices.Reverse(c.parts)
			return c
		}
		timeline, end = parent, begin
		if !known { // a history file tells of all that came before
			history, known = a.histories[timeline]
			parents = history.Parents
		}
	}
}

// guess returns the parent that a timeline seems to have, and its own first
// segment; 0, 0 where it seems to have none.
func (a *Archive) guess(timeline uint32, end uint64) (parent uint32, begin uint64) {
	begin = end
	if l := a.lines[timeline]; l != nil {
		begin = min(begin, l.first())
	}
	joined := false
	for id, l := range a.lines {
		if id >= timeline || begin == 0 || l.first() >= begin {
			continue
		}
		if joins := l.holds(begin - 1); joins && !joined || joins == joined && id > parent {
			parent, joined = id, joins
		}
	}
	if parent == 0 {
		begin = 0
	}
	return parent, begin
}

// Holds reports whether a backup that starts in s has a place in the chain. One
// on a timeline that was abandoned before has not.
func (c *Chain) Holds(s wal.Segment) bool {
	n := c.archive.number(s)
	for i, p := range c.parts {
		if p.timeline == s.Timeline {
			return n >= p.first && (n < p.end || i == len(c.parts)-1)
		}
	}
	return false
}

// Oldest returns the index of the start that has a place in the chain and comes
// first in it, or -1.
func (c *Chain) Oldest(starts []wal.Segment) int {
	oldest := -1
	for i, s := range starts {
		if c.Holds(s) && (oldest < 0 || before(s, starts[oldest])) {
			oldest = i
		}
	}
	return oldest
}

// piece is some segments from first to last that are all there, or all
// missing.
type piece struct {
	timeline    uint32
	first, last uint64
	found       bool
	put         time.Time // of the last, where it is known
}

// pieces returns what is there of the chain from a segment on, and what is
// not, in order.
func (c *Chain) pieces(from uint64) []piece {
	var list []piece
	for _, p := range c.parts {
		at := max(p.first, from)
		if l := c.archive.lines[p.timeline]; l != nil {
			for _, r := range l.runs[l.at(at):] {
				if at >= p.end || r.first >= p.end {
					break
				}
				if r.first > at {
					list = append(list, piece{timeline: p.timeline, first: at, last: r.first - 1})
					at = r.first
				}
				found := piece{p.timeline, at, min(r.last, p.end-1), true, r.put}
				if found.last != r.last {
					found.put = time.Time{}
				}
				list = append(list, found)
				at = found.last + 1
			}
		}
		if at < p.end {
			list = append(list, piece{timeline: p.timeline, first: at, last: p.end - 1})
		}
	}
	return list
}

// Missing is how many segments of the chain are missing, from a segment on.
func (c *Chain) Missing(from wal.Segment) (n uint64) {
	for _, p := range c.pieces(c.archive.number(from)) {
		if !p.found {
			n += p.last - p.first + 1
		}
	}
	return n
}

// Reach follows the chain from a segment to the last one before a gap or the
// end. put is when that was put, and zero where that is not known: where the
// gap begins with a timeline whose parent went on. ok is false where the first
// segment itself is not there.
func (c *Chain) Reach(from wal.Segment) (last wal.Segment, put time.Time, ok bool) {
	for _, p := range c.pieces(c.archive.number(from)) {
		if !p.found {
			break
		}
		last, put, ok = c.archive.segment(p.timeline, p.last), p.put, true
	}
	return last, put, ok
}
