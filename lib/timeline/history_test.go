package timeline

import (
	"fmt"
	"strings"
	"testing"

	"walg/lib/fault"
)

func TestHistoryIsReadAsPostgreSQLReadsIt(t *testing.T) {
	for _, c := range []struct {
		timeline uint32
		text     string
		want     []Switch
	}{
		{2, "1\t0/30000A0\tno recovery target specified\n", []Switch{{1, 0x30000a0}}},
		{4, "1\t0/3000000\tx\n\n3\t1/A\tbefore 2026-11-22 16:44:29+00\n", []Switch{{1, 0x3000000}, {3, 0x10000000a}}},
		{9, "# a comment\n  \n  # another\n 8 0/1", []Switch{{8, 1}}},
		{2, "1\tFFFFFFFF/ffffffff\r\n", []Switch{{1, 1<<64 - 1}}},
		{2, "", nil},
		{1, "\n", nil},
		{4294967295, "4294967294\t0/0\t", []Switch{{4294967294, 0}}},
	} {
		h, err := ParseHistory(c.timeline, c.text)
		if err != nil || h.Timeline != c.timeline || fmt.Sprint(h.Parents) != fmt.Sprint(c.want) {
			t.Errorf("%q: %+v, %v; want %v", c.text, h, err, c.want)
		}
	}
}

func TestBrokenHistoryNamesFileAndLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"x\t0/1\n", "line 1: it does not begin with a timeline's number"},
		{"-1\t0/1\n", "line 1"},
		{"4294967296\t0/1\n", "line 1"},
		{"0\t0/1\n", "line 1"},
		{"1\n", "line 1: no LSN of the switch"},
		{"1\t0-1\n", `line 1: parse LSN "0-1"`},
		{"1\t0/123456789\n", "line 1: parse LSN"},
		{"1\t0/1\n\n1\t0/2\n", "line 3: the numbers of the timelines do not increase"},
		{"2\t0/1\n1\t0/2\n", "line 2"},
		{"10\t0/1\n", "line 1: a parent with a number that is not below the child's"},
		{"11\t0/1\n", "line 1"},
		{"\x00\x1f\x8b\x04", "line 1"}, // still compressed
	} {
		_, err := ParseHistory(10, c.text)
		if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "read 0000000A.history: "+c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// FuzzParseHistory: what is accepted is in order, and is read the same when
// PostgreSQL's form of it is written.
func FuzzParseHistory(f *testing.F) {
	for _, text := range []string{"1\t0/30000A0\tno recovery target specified\n", "# x\n\n1 0/1\n3\t1/A", "1\t0/1\r\n2\t", "0x1\t0/1"} {
		f.Add(uint32(5), text)
	}
	f.Fuzz(func(t *testing.T, timeline uint32, text string) {
		h, err := ParseHistory(timeline, text)
		if err != nil {
			if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), fmt.Sprintf("%08X.history: line ", timeline)) {
				t.Fatal(err)
			}
			return
		}
		var b strings.Builder
		last := uint32(0)
		for _, s := range h.Parents {
			if s.Timeline <= last || s.Timeline >= timeline {
				t.Fatalf("%+v", h)
			}
			last = s.Timeline
			fmt.Fprintf(&b, "%d\t%s\treason\n", s.Timeline, s.At)
		}
		again, err := ParseHistory(timeline, b.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(h) {
			t.Fatalf("%+v, again %+v, %v", h, again, err)
		}
	})
}
