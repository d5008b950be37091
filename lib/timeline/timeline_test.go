package timeline

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walg/lib/fault"
	"walg/lib/wal"
)

const mib16 = 16 << 20

func add(t testing.TB, a *Archive, names ...string) {
	t.Helper()
	for _, name := range names {
		f, err := wal.ParseWALFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Add(f, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
}

// name is the n-th segment of 16 MiB.
func name(timeline, n int) string { return fmt.Sprintf("%08X%08X%08X", timeline, n/256, n%256) }

func names(timeline, first, last int) (list []string) {
	for n := first; n <= last; n++ {
		list = append(list, name(timeline, n))
	}
	return list
}

func segment(t testing.TB, name string) wal.Segment {
	t.Helper()
	s, err := wal.ParseSegment(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTimelinesTellWhatIsThereAndWhatIsMissing(t *testing.T) {
	a := New(mib16)
	add(t, a, names(1, 254, 257)...)
	add(t, a, name(1, 259), name(1, 255)) // a gap, and one again
	add(t, a, names(3, 260, 261)...)
	add(t, a, name(1, 300)+".partial", name(1, 254)+".00000028.backup", "00000004.history", "000000000000000000000001")
	a.AddHistory(History{3, []Switch{{1, 0x103000000}, {2, 0x104000028}}})
	got := fmt.Sprint(a.Timelines())
	want := fmt.Sprint([]Timeline{
		{1, 0, 0, true, segment(t, name(1, 254)), segment(t, name(1, 259)), 5, []Range{{segment(t, name(1, 258)), segment(t, name(1, 258)), 1}}},
		{3, 2, 0x104000028, true, segment(t, name(3, 260)), segment(t, name(3, 261)), 2, nil},
	})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s := a.Timelines()[0]; s.Status() != "LOST_SEGMENTS" || s.Whole() != 6 || a.Timelines()[1].Status() != "OK" {
		t.Errorf("status %s of %d", s.Status(), s.Whole())
	}
	if a.Highest() != 4 {
		t.Errorf("highest timeline %d", a.Highest())
	}
	if s, _, ok := a.Newest(); !ok || s.String() != name(3, 261) {
		t.Errorf("newest %s", s)
	}
	if end, ok := a.End(1); !ok || end != 260<<24 {
		t.Errorf("timeline 1 ends at %s", end)
	}
	if _, ok := a.End(4); ok {
		t.Error("timeline 4 has an end")
	}
	var missing []string
	for s := range a.Segments(Range{segment(t, name(1, 255)), segment(t, name(1, 257)), 3}) {
		missing = append(missing, s.String())
	}
	if !slices.Equal(missing, names(1, 255, 257)) {
		t.Errorf("segments of a range: %q", missing)
	}
}

func TestSegmentOfAnotherSizeIsRefused(t *testing.T) {
	a := New(mib16)
	err := a.Add(wal.WALFile{Kind: wal.KindSegment, Segment: wal.Segment{Timeline: 1, Seg: 256}}, time.Time{})
	if fault.Status(err) != fault.Usage {
		t.Errorf("segment 256 of 4 GiB in 16 MiB: %v", err)
	}
	if _, _, ok := a.Newest(); ok {
		t.Error("it was added")
	}
}

func TestCoversNeedsTheTimelineAndBothEnds(t *testing.T) {
	a := New(mib16)
	add(t, a, name(2, 5), name(2, 9))
	line := a.Timelines()[0]
	for _, c := range []struct {
		timeline, first, last int
		want                  bool
	}{{2, 5, 9, true}, {2, 6, 7, true}, {2, 4, 5, false}, {2, 9, 10, false}, {1, 6, 7, false}} {
		if got := line.Covers(segment(t, name(c.timeline, c.first)), segment(t, name(c.timeline, c.last))); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// A million segments, in the order of a listing, with a gap at each thousandth.
func TestMemoryGrowsWithTheGapsOnly(t *testing.T) {
	a := New(mib16)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range 1_000_000 {
		if n%1000 == 0 {
			continue
		}
		s := wal.Segment{Timeline: 1, Log: uint32(n / 256), Seg: uint32(n % 256)}
		if err := a.Add(wal.WALFile{Kind: wal.KindSegment, Segment: s}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("1,000,000 segments with 999 gaps take %d bytes", grown)
	}
	if got := len(a.Timelines()[0].Gaps); got != 999 {
		t.Errorf("%d gaps", got)
	}
}

// model is an archive as a set.
type model map[wal.Segment]int // to the time when it was put

const (
	tiny   = 1 << 30 // 4 segments a log, so that names cross it often
	perLog = 4
	most   = 24 // segments that a timeline may have
)

func tinySegment(timeline uint32, n int) wal.Segment {
	return wal.Segment{Timeline: timeline, Log: uint32(n / perLog), Seg: uint32(n % perLog)}
}

func at(n int) time.Time { return time.Unix(int64(n), 0) }

// draw makes an archive of some segments of timelines 1 to 4, added in any
// order, and its model.
func draw(t *rapid.T) (*Archive, model) {
	a, m := New(tiny), model{}
	for i := range rapid.IntRange(0, 60).Draw(t, "segments") {
		s := tinySegment(rapid.Uint32Range(1, 4).Draw(t, "timeline"), rapid.IntRange(0, most-1).Draw(t, "n"))
		if err := a.Add(wal.WALFile{Kind: wal.KindSegment, Segment: s}, at(i)); err != nil {
			t.Fatal(err)
		}
		m[s] = i
	}
	return a, m
}

func TestTimelinesAreThoseOfASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, m := draw(t)
		var want []Timeline
		for id := uint32(1); id <= 4; id++ {
			line := Timeline{ID: id, Known: id == 1}
			var gap *Range
			for n := range most {
				s := tinySegment(id, n)
				_, found := m[s]
				switch {
				case found && line.Count == 0:
					line.First, line.Last, line.Count = s, s, 1
				case found:
					line.Last = s
					line.Count++
					if gap != nil {
						line.Gaps = append(line.Gaps, *gap)
					}
				case line.Count > 0 && gap == nil:
					gap = &Range{First: s}
				}
				if found {
					gap = nil
				}
				if gap != nil {
					gap.Last = s
					gap.Count++
				}
			}
			if line.Count > 0 {
				want = append(want, line)
			}
		}
		if got := a.Timelines(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		newest, put, ok := a.Newest()
		if ok != (len(m) > 0) || ok && (newest != want[len(want)-1].Last || put != at(m[newest])) {
			t.Errorf("newest %v of %v, %t", newest, put, ok)
		}
	})
}
