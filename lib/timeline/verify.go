package timeline

import "walg/lib/wal"

// What a check finds, in WAL-G's words.
const (
	OK      = "OK"
	Warning = "WARNING" // some are missing that may yet come; or it cannot be said
	Failure = "FAILURE"

	Found     = "FOUND"
	Delayed   = "MISSING_DELAYED"   // the server may not have tried to archive it
	Uploading = "MISSING_UPLOADING" // it may be on its way
	Lost      = "MISSING_LOST"
)

// Checked is a range of segments with the same status.
type Checked struct {
	Range
	Status string // Found to Lost
}

// Limits say how many segments may be missing without being lost.
type Limits struct {
	Delayed   uint64 // just before the position, as long as none is there
	Uploading uint64 // among so many segments before those
}

// Verify checks the chain from a segment on: its status, and all its segments
// in order, by timeline and status.
func (c *Chain) Verify(from wal.Segment, limits Limits) (status string, ranges []Checked) {
	pieces := c.pieces(c.archive.number(from))
	if len(pieces) == 0 {
		return OK, nil
	}
	delayed, uploading, uploaded := limits.borders(pieces)
	status = OK
	for _, p := range pieces {
		add := func(what string, first, end uint64) {
			if first = max(first, p.first); first >= min(end, p.last+1) {
				return
			}
			end = min(end, p.last+1)
			ranges = append(ranges, Checked{c.archive.span(p.timeline, first, end-1), what})
			switch {
			case what == Lost:
				status = Failure
			case what != Found && status == OK:
				status = Warning
			}
		}
		if p.found {
			add(Found, p.first, p.last+1)
			continue
		}
		add(Lost, 0, uploading)
		add(Uploading, uploading, uploaded)
		add(Delayed, delayed, p.last+1)
	}
	return status, ranges
}

// borders returns the first segment that may be delayed, and those between
// which missing ones may be on their way. WAL-G goes back from the position:
// what it passes before it finds a segment is delayed, but no more than the
// limit; then as many as may be on their way, there or not. The segment that
// ends the first step counts for neither.
func (l Limits) borders(pieces []piece) (delayed, uploading, uploaded uint64) {
	end := pieces[len(pieces)-1].last + 1
	missing := uint64(0)
	for i := len(pieces) - 1; i >= 0 && !pieces[i].found; i-- { // each of a timeline of its own
		missing += pieces[i].last - pieces[i].first + 1
	}
	delayed = end - min(missing, l.Delayed)
	uploaded = delayed
	if missing < l.Delayed && pieces[0].first < delayed {
		uploaded--
	}
	return delayed, uploaded - min(uploaded, l.Uploading), uploaded
}

// CheckTimeline compares the timeline of a server, 0 where it is not known,
// with the highest in its archive: a lower one means that another server has
// gone on archiving there.
func (a *Archive) CheckTimeline(current uint32) string {
	switch {
	case current == 0 || a.highest == 0:
		return Warning
	case current != a.highest:
		return Failure
	}
	return OK
}
