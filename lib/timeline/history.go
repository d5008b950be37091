package timeline

import (
	"strconv"
	"strings"

	"walg/lib/fault"
	"walg/lib/wal"
)

// History is the content of a timeline's history file.
type History struct {
	Timeline uint32
	Parents  []Switch // the oldest first; the last one is the parent
}

// Switch is where a timeline ended for those that branched off it.
type Switch struct {
	Timeline uint32
	At       wal.LSN // of the first byte that belongs to the child
}

// ParseHistory reads the text of the history file of a timeline, by the rules
// of PostgreSQL (readTimeLineHistory in src/backend/access/transam/timeline.c):
// a line for each parent, the number, the LSN and a reason; comments and blank
// lines between them. What PostgreSQL refuses is an error of status 65 that
// names the file and the line.
func ParseHistory(timeline uint32, text string) (History, error) {
	h := History{Timeline: timeline}
	last := uint32(0)
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		bad := func(why string) (History, error) {
			name := wal.WALFile{Kind: wal.KindHistory, Segment: wal.Segment{Timeline: timeline}}
			return History{}, fault.New(fault.Data, "read %s: line %d: %s", name, number, why)
		}
		id, err := strconv.ParseUint(fields[0], 10, 32)
		switch {
		case err != nil || id == 0:
			return bad("it does not begin with a timeline's number")
		case len(fields) < 2:
			return bad("no LSN of the switch")
		case uint32(id) <= last:
			return bad("the numbers of the timelines do not increase")
		case uint32(id) >= timeline:
			return bad("a parent with a number that is not below the child's")
		}
		at, err := wal.ParseLSN(fields[1])
		if err != nil {
			return bad(err.Error())
		}
		last = uint32(id)
		h.Parents = append(h.Parents, Switch{last, at})
	}
	return h, nil
}
