// Package timeline knows which WAL segments an archive holds, timeline by
// timeline, and which of them are missing. It is pure: it is told the names of
// the files, in any order, and does no I/O.
//
// It keeps runs of segments that follow each other, so that its memory grows
// with the number of gaps and not with the number of segments. Names that come
// in the order of a listing are added in constant time.
package timeline

import (
	"iter"
	"maps"
	"slices"
	"sort"
	"time"

	"walg/lib/fault"
	"walg/lib/wal"
)

// Archive is what is known of an archive of WAL.
type Archive struct {
	size      uint64 // of a segment, in bytes
	lines     map[uint32]*line
	histories map[uint32]History
	highest   uint32
}

// line is what the archive holds of one timeline: runs in order, with at least
// one segment missing between two of them. It is never empty.
type line struct{ runs []run }

// run is some segments that follow each other, by their numbers.
type run struct {
	first, last uint64
	put         time.Time // when the last one was put
}

// New returns an empty archive of segments of size bytes, which must be a
// valid size.
func New(size uint64) *Archive {
	return &Archive{size: size, lines: map[uint32]*line{}, histories: map[uint32]History{}}
}

// Add takes one file of the archive, with the time when it was put. Files of a
// timeline that only had started, .partial ones, and the history files of
// backups are no segments and do not matter. A segment that cannot exist is an
// error of status 64: the segments have another size.
func (a *Archive) Add(file wal.WALFile, put time.Time) error {
	s := file.Segment
	switch {
	case s.Timeline == 0: // no server has written it
		return nil
	case file.Kind == wal.KindHistory:
		a.highest = max(a.highest, s.Timeline)
		return nil
	case file.Kind != wal.KindSegment:
		return nil
	case uint64(s.Seg) >= a.perLog():
		return fault.New(fault.Usage, "segment %s: there is no such segment of %d MiB", s, a.size>>20)
	}
	a.highest = max(a.highest, s.Timeline)
	l := a.lines[s.Timeline]
	if l == nil {
		l = &line{}
		a.lines[s.Timeline] = l
	}
	l.add(a.number(s), put)
	return nil
}

// AddHistory takes a history file's content.
func (a *Archive) AddHistory(h History) { a.histories[h.Timeline] = h }

func (l *line) add(n uint64, put time.Time) {
	// The first run that ends where n could join it, or later.
	i := len(l.runs)
	if i > 0 && l.runs[i-1].last+1 >= n {
		i = sort.Search(i, func(i int) bool { return l.runs[i].last+1 >= n })
	}
	if i == len(l.runs) || n+1 < l.runs[i].first {
		l.runs = slices.Insert(l.runs, i, run{n, n, put})
		return
	}
	r := &l.runs[i]
	switch {
	case n+1 == r.first:
		r.first = n
	case n == r.last && put.After(r.put): // again, under another extension
		r.put = put
	case n == r.last+1:
		r.last, r.put = n, put
		if i+1 < len(l.runs) && l.runs[i+1].first == n+1 {
			r.last, r.put = l.runs[i+1].last, l.runs[i+1].put
			l.runs = slices.Delete(l.runs, i+1, i+2)
		}
	}
}

// at returns the first run that ends at n or later.
func (l *line) at(n uint64) int {
	return sort.Search(len(l.runs), func(i int) bool { return l.runs[i].last >= n })
}

func (l *line) holds(n uint64) bool {
	i := l.at(n)
	return i < len(l.runs) && l.runs[i].first <= n
}

func (l *line) first() uint64 { return l.runs[0].first }
func (l *line) end() run      { return l.runs[len(l.runs)-1] }

// perLog is how many segments there are in 4 GiB, the part of a name that
// counts to there.
func (a *Archive) perLog() uint64 { return 1 << 32 / a.size }

// number counts segments from the beginning of the log.
func (a *Archive) number(s wal.Segment) uint64 { return uint64(s.Log)*a.perLog() + uint64(s.Seg) }

func (a *Archive) segment(timeline uint32, n uint64) wal.Segment {
	return wal.Segment{Timeline: timeline, Log: uint32(n / a.perLog()), Seg: uint32(n % a.perLog())}
}

// Highest is the highest timeline of which there is a segment or a history
// file, 0 where there is neither.
func (a *Archive) Highest() uint32 { return a.highest }

// Newest is the newest segment of the highest timeline that has segments, and
// when it was put. ok is false where no segment is there.
func (a *Archive) Newest() (s wal.Segment, put time.Time, ok bool) {
	if len(a.lines) == 0 {
		return wal.Segment{}, time.Time{}, false
	}
	id := slices.Max(slices.Collect(maps.Keys(a.lines)))
	last := a.lines[id].end()
	return a.segment(id, last.last), last.put, true
}

// End is the position after the newest segment of a timeline.
func (a *Archive) End(timeline uint32) (end wal.LSN, ok bool) {
	l := a.lines[timeline]
	if l == nil {
		return 0, false
	}
	return wal.LSN((l.end().last + 1) * a.size), true
}

// Range is Count segments of one timeline that follow each other.
type Range struct {
	First, Last wal.Segment
	Count       uint64
}

func (a *Archive) span(timeline uint32, first, last uint64) Range {
	return Range{a.segment(timeline, first), a.segment(timeline, last), last - first + 1}
}

// Segments returns the segments of a range, in order.
func (a *Archive) Segments(r Range) iter.Seq[wal.Segment] {
	return func(yield func(wal.Segment) bool) {
		for s, i := r.First, uint64(0); i < r.Count && yield(s); i++ {
			s = s.Next(a.size)
		}
	}
}

// Timeline is what the archive holds of one timeline.
type Timeline struct {
	ID     uint32
	Parent uint32  // 0: none, or not known
	Switch wal.LSN // where it branched off
	Known  bool    // Parent and Switch are
	First  wal.Segment
	Last   wal.Segment
	Count  uint64  // of the segments that are there
	Gaps   []Range // what is missing between First and Last
}

// Whole is how many segments there are from First to Last, missing ones
// included.
func (t Timeline) Whole() uint64 {
	n := t.Count
	for _, gap := range t.Gaps {
		n += gap.Count
	}
	return n
}

// Status is what WAL-G's wal-show says of the timeline.
func (t Timeline) Status() string {
	if len(t.Gaps) > 0 {
		return "LOST_SEGMENTS"
	}
	return "OK"
}

// Timelines returns the timelines that have segments, in the order of their
// numbers.
func (a *Archive) Timelines() []Timeline {
	var list []Timeline
	for _, id := range slices.Sorted(maps.Keys(a.lines)) {
		l := a.lines[id]
		t := Timeline{ID: id, Known: id == 1, First: a.segment(id, l.first()), Last: a.segment(id, l.end().last)}
		if h, ok := a.histories[id]; ok {
			t.Known = true
			if n := len(h.Parents); n > 0 {
				t.Parent, t.Switch = h.Parents[n-1].Timeline, h.Parents[n-1].At
			}
		}
		for i, r := range l.runs {
			t.Count += r.last - r.first + 1
			if i > 0 {
				t.Gaps = append(t.Gaps, a.span(id, l.runs[i-1].last+1, r.first-1))
			}
		}
		list = append(list, t)
	}
	return list
}

// Covers reports whether the segments of timeline t between First and Last
// have those from first to last among them, there or missing.
func (t Timeline) Covers(first, last wal.Segment) bool {
	return first.Timeline == t.ID && last.Timeline == t.ID && !before(first, t.First) && !before(t.Last, last)
}

// before compares positions of segments, whatever their timelines.
func before(a, b wal.Segment) bool {
	return a.Log < b.Log || a.Log == b.Log && a.Seg < b.Seg
}
