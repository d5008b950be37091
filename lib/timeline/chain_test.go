package timeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walg/lib/wal"
)

// show writes ranges as "1:3-5 FOUND".
func show(ranges []Checked) string {
	var list []string
	for _, r := range ranges {
		n := func(s wal.Segment) int { return int(s.Log)*256 + int(s.Seg) }
		if uint64(n(r.Last)-n(r.First)+1) != r.Count {
			list = append(list, "wrong count of")
		}
		list = append(list, fmt.Sprintf("%d:%d-%d %s", r.First.Timeline, n(r.First), n(r.Last), r.Status))
	}
	return strings.Join(list, ", ")
}

// twoTimelines is an archive with a switch in segment 10, where the old
// timeline went on for a while.
func twoTimelines(t *testing.T) *Archive {
	a := New(mib16)
	add(t, a, names(1, 3, 12)...)
	add(t, a, names(2, 10, 15)...)
	add(t, a, "00000002.history")
	return a
}

func TestChainFollowsTheHistory(t *testing.T) {
	a := twoTimelines(t)
	a.AddHistory(History{2, []Switch{{1, 10<<24 + 40}}})
	c := a.Chain(2, 16<<24)
	status, ranges := c.Verify(segment(t, name(1, 4)), Limits{})
	if got := show(ranges); status != OK || c.Guessed || got != "1:4-9 FOUND, 2:10-15 FOUND" {
		t.Errorf("%s %t: %s", status, c.Guessed, got)
	}
	for s, want := range map[string]bool{name(1, 9): true, name(1, 10): false, name(2, 10): true, name(2, 9): false, name(2, 99): true, name(3, 9): false} {
		if got := c.Holds(segment(t, s)); got != want {
			t.Errorf("a backup that starts in %s has a place: %t", s, got)
		}
	}
	starts := []wal.Segment{segment(t, name(1, 12)), segment(t, name(2, 11)), segment(t, name(1, 5)), segment(t, name(1, 7))}
	if got := c.Oldest(starts); got != 2 {
		t.Errorf("the oldest is %d", got)
	}
	if got := c.Oldest(starts[:1]); got != -1 {
		t.Errorf("of an abandoned timeline the oldest is %d", got)
	}
}

func TestChainWithoutHistoryIsGuessedAndSaysSo(t *testing.T) {
	a := twoTimelines(t)
	add(t, a, names(3, 14, 15)...) // continues 2, and not 1
	c := a.Chain(3, 16<<24)
	if _, ranges := c.Verify(segment(t, name(1, 8)), Limits{}); !c.Guessed || show(ranges) != "1:8-9 FOUND, 2:10-13 FOUND, 3:14-15 FOUND" {
		t.Errorf("%t: %s", c.Guessed, show(ranges))
	}
	// None that joins: the one that began before.
	b := New(mib16)
	add(t, b, names(1, 3, 4)...)
	add(t, b, names(2, 7, 8)...)
	c = b.Chain(2, 9<<24)
	if status, ranges := c.Verify(segment(t, name(1, 3)), Limits{}); status != Failure || show(ranges) != "1:3-4 FOUND, 1:5-6 MISSING_LOST, 2:7-8 FOUND" {
		t.Errorf("%s: %s", status, show(ranges))
	}
	// A timeline that has only begun.
	c = b.Chain(3, 9<<24)
	if _, ranges := c.Verify(segment(t, name(2, 8)), Limits{}); !c.Guessed || show(ranges) != "2:8-8 FOUND" {
		t.Errorf("%t: %s", c.Guessed, show(ranges))
	}
	// Nothing is guessed of the first timeline, nor below a history that is known.
	if c := a.Chain(1, 9<<24); c.Guessed {
		t.Error("timeline 1 has a parent")
	}
	a.AddHistory(History{3, []Switch{{2, 14 << 24}}})
	if c := a.Chain(3, 16<<24); c.Guessed {
		t.Error("the parent of a root was guessed")
	}
	if c := New(mib16).Chain(5, 1<<24); !c.Guessed || len(c.parts) != 1 {
		t.Errorf("in an empty archive %+v", c)
	}
}

func TestHistoryOfAnAncestorIsUsed(t *testing.T) {
	a := twoTimelines(t)
	add(t, a, names(3, 14, 15)...)
	a.AddHistory(History{2, []Switch{{1, 10 << 24}}})
	c := a.Chain(3, 16<<24)
	if _, ranges := c.Verify(segment(t, name(1, 8)), Limits{}); !c.Guessed || show(ranges) != "1:8-9 FOUND, 2:10-13 FOUND, 3:14-15 FOUND" {
		t.Errorf("%t: %s", c.Guessed, show(ranges))
	}
}

// Two promotions in one segment, and a position before a switch.
func TestChainsMayHaveEmptyParts(t *testing.T) {
	a := twoTimelines(t)
	a.AddHistory(History{3, []Switch{{1, 10 << 24}, {2, 10<<24 + 100}}})
	c := a.Chain(3, 12<<24)
	if _, ranges := c.Verify(segment(t, name(1, 8)), Limits{}); show(ranges) != "1:8-9 FOUND, 3:10-11 MISSING_LOST" {
		t.Error(show(ranges))
	}
	c = a.Chain(3, 9<<24)
	if _, ranges := c.Verify(segment(t, name(1, 8)), Limits{}); show(ranges) != "1:8-8 FOUND" {
		t.Error(show(ranges))
	}
	if status, ranges := c.Verify(segment(t, name(1, 9)), Limits{}); status != OK || ranges != nil {
		t.Errorf("%s: %s", status, show(ranges))
	}
}

func TestMissingSegmentsAreDelayedUploadingOrLost(t *testing.T) {
	a := New(mib16)
	add(t, a, names(1, 1, 2)...)
	add(t, a, names(1, 4, 6)...)
	add(t, a, name(1, 8), name(1, 10))
	for _, c := range []struct {
		until              wal.LSN
		delayed, uploading uint64
		status, want       string
	}{
		{11, 0, 0, Failure, "1:1-2 FOUND, 1:3-3 MISSING_LOST, 1:4-6 FOUND, 1:7-7 MISSING_LOST, 1:8-8 FOUND, 1:9-9 MISSING_LOST, 1:10-10 FOUND"},
		{11, 0, 4, Failure, "1:1-2 FOUND, 1:3-3 MISSING_LOST, 1:4-6 FOUND, 1:7-7 MISSING_UPLOADING, 1:8-8 FOUND, 1:9-9 MISSING_UPLOADING, 1:10-10 FOUND"},
		{11, 0, 8, Warning, "1:1-2 FOUND, 1:3-3 MISSING_UPLOADING, 1:4-6 FOUND, 1:7-7 MISSING_UPLOADING, 1:8-8 FOUND, 1:9-9 MISSING_UPLOADING, 1:10-10 FOUND"},
		{13, 1, 0, Failure, "1:1-2 FOUND, 1:3-3 MISSING_LOST, 1:4-6 FOUND, 1:7-7 MISSING_LOST, 1:8-8 FOUND, 1:9-9 MISSING_LOST, 1:10-10 FOUND, 1:11-11 MISSING_LOST, 1:12-12 MISSING_DELAYED"},
		{13, 1, 3, Failure, "1:1-2 FOUND, 1:3-3 MISSING_LOST, 1:4-6 FOUND, 1:7-7 MISSING_LOST, 1:8-8 FOUND, 1:9-9 MISSING_UPLOADING, 1:10-10 FOUND, 1:11-11 MISSING_UPLOADING, 1:12-12 MISSING_DELAYED"},
		// 10 ends the first step, and 9 is the first of the second.
		{13, 9, 1, Failure, "1:1-2 FOUND, 1:3-3 MISSING_LOST, 1:4-6 FOUND, 1:7-7 MISSING_LOST, 1:8-8 FOUND, 1:9-9 MISSING_UPLOADING, 1:10-10 FOUND, 1:11-12 MISSING_DELAYED"},
		{3, 0, 0, OK, "1:1-2 FOUND"},
	} {
		status, ranges := a.Chain(1, c.until<<24).Verify(wal.Segment{Seg: 1}, Limits{c.delayed, c.uploading})
		if status != c.status || show(ranges) != c.want {
			t.Errorf("%+v:\n%s %s", c, status, show(ranges))
		}
	}
}

func TestTimelineCheckComparesWithTheHighest(t *testing.T) {
	a := twoTimelines(t)
	for current, want := range map[uint32]string{0: Warning, 1: Failure, 2: OK, 3: Failure} {
		if got := a.CheckTimeline(current); got != want {
			t.Errorf("timeline %d: %s", current, got)
		}
	}
	if got := New(mib16).CheckTimeline(1); got != Warning {
		t.Errorf("of an empty archive %s", got)
	}
}

// walk is what WAL-G does: it goes back from the position, segment by segment.
func walk(m model, parts []part, from int, limits Limits) (list []string) {
	last := parts[len(parts)-1]
	at := int(last.end) - 1
	step := func(missing string) (found bool) {
		i := len(parts) - 1
		for at < int(parts[i].first) {
			i--
		}
		s := tinySegment(parts[i].timeline, at)
		at--
		if _, found = m[s]; found {
			missing = Found
		}
		list = append(list, s.String()+" "+missing)
		return found
	}
	for i := uint64(0); i < limits.Delayed && at >= from; i++ {
		if step(Delayed) {
			break
		}
	}
	for i := uint64(0); i < limits.Uploading && at >= from; i++ {
		step(Uploading)
	}
	for at >= from {
		step(Lost)
	}
	return list
}

func TestChecksAreThoseOfAWalkThroughASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, m := draw(t)
		var switches []Switch
		for id := uint32(1); id < 4; id++ {
			if rapid.Bool().Draw(t, "is a parent") {
				switches = append(switches, Switch{id, wal.LSN(rapid.Uint64Range(0, most<<30).Draw(t, "switch"))})
			}
		}
		if rapid.Bool().Draw(t, "history is known") {
			a.AddHistory(History{4, switches})
		}
		from := rapid.IntRange(0, most).Draw(t, "from")
		limits := Limits{rapid.Uint64Range(0, 6).Draw(t, "delayed"), rapid.Uint64Range(0, 12).Draw(t, "uploading")}
		c := a.Chain(4, wal.LSN(rapid.Uint64Range(0, (most+4)<<30).Draw(t, "until")))
		if c.parts[0].first != 0 {
			t.Fatalf("it begins at %d", c.parts[0].first)
		}
		for i := range c.parts {
			if p := c.parts[i]; p.first > p.end || i > 0 && (p.first != c.parts[i-1].end || p.timeline <= c.parts[i-1].timeline) {
				t.Fatalf("parts %+v", c.parts)
			}
		}
		want := walk(m, c.parts, from, limits)
		start := tinySegment(1, from)
		status, ranges := c.Verify(start, limits)
		var got []string
		worst, missing := OK, uint64(0)
		for i, r := range ranges {
			if i > 0 && ranges[i-1].Status == r.Status && ranges[i-1].First.Timeline == r.First.Timeline {
				t.Errorf("two ranges for one: %+v", ranges)
			}
			for s := range a.Segments(r.Range) {
				got = append([]string{s.String() + " " + r.Status}, got...)
				if r.Status != Found {
					missing++
				}
			}
			if r.Status == Lost {
				worst = Failure
			} else if r.Status != Found && worst == OK {
				worst = Warning
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || status != worst {
			t.Errorf("%s, worst is %s\ngot  %v\nwant %v", status, worst, got, want)
		}
		if n := c.Missing(start); n != missing {
			t.Errorf("%d are missing, want %d", n, missing)
		}
		// How far it reaches is what is found before the first that is not.
		reached, ok := "", false
		for i := len(want) - 1; i >= 0 && strings.HasSuffix(want[i], Found); i-- {
			reached, ok = want[i][:24], true
		}
		last, put, reaches := c.Reach(start)
		if reaches != ok || ok && last.String() != reached {
			t.Errorf("it reaches %v, %t; want %s, %t", last, reaches, reached, ok)
		}
		if ok && !put.IsZero() && put != at(m[last]) {
			t.Errorf("%v was put at %v, not %v", last, at(m[last]), put)
		}
	})
}

func TestReachKnowsTheTimeBeforeAGap(t *testing.T) {
	a := New(mib16)
	for n := 3; n < 12; n++ {
		if n != 8 {
			if err := a.Add(wal.WALFile{Kind: wal.KindSegment, Segment: segment(t, name(1, n))}, time.Unix(int64(n), 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := a.Chain(1, 12<<24)
	if last, put, ok := c.Reach(segment(t, name(1, 4))); !ok || last.String() != name(1, 7) || put != time.Unix(7, 0) {
		t.Errorf("%v at %v, %t", last, put, ok)
	}
	if last, put, ok := c.Reach(segment(t, name(1, 9))); !ok || last.String() != name(1, 11) || put != time.Unix(11, 0) {
		t.Errorf("%v at %v, %t", last, put, ok)
	}
	if _, _, ok := c.Reach(segment(t, name(1, 8))); ok {
		t.Error("it reaches from a segment that is not there")
	}
	// The parent went on, and the child's first segment is lost.
	a.AddHistory(History{2, []Switch{{1, 6 << 24}}})
	if last, put, ok := a.Chain(2, 12<<24).Reach(segment(t, name(1, 4))); !ok || last.String() != name(1, 5) || !put.IsZero() {
		t.Errorf("%v at %v, %t", last, put, ok)
	}
}
