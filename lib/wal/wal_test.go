package wal

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLSNRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		got, err := ParseLSN(l.String())
		if err != nil || got != l {
			t.Fatalf("%s became %s, %v", l, got, err)
		}
	})
	for text, want := range map[string]LSN{"0/3000028": 50331688, "0/0": 0, "ffffffff/FFFFFFFF": 1<<64 - 1, "A/B": 10<<32 | 11} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("%s became %d, %v", text, got, err)
		}
	}
}

func TestLSNIsANumberInJSON(t *testing.T) {
	b, err := json.Marshal(map[string]LSN{"LSN": 50331688})
	if err != nil || string(b) != `{"LSN":50331688}` {
		t.Errorf("%s, %v", b, err)
	}
	var l LSN
	if err := json.Unmarshal([]byte("18446744073709551615"), &l); err != nil || l != 1<<64-1 {
		t.Errorf("%s, %v", l, err)
	}
}

func TestBadLSNsAreRefused(t *testing.T) {
	for _, s := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0x1/0", "-1/0", "+1/0", "1_0/0", "100000000/0", "0/G", " 0/0", "0/0\n"} {
		if l, err := ParseLSN(s); err == nil {
			t.Errorf("%q is taken for %s", s, l)
		}
	}
}

func drawSize(t *rapid.T) uint64 {
	return 1 << rapid.IntRange(20, 30).Draw(t, "log2 of segment size")
}

func TestSegmentNameRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, l := drawSize(t), LSN(rapid.Uint64().Draw(t, "lsn"))
		s := SegmentAt(rapid.Uint32().Draw(t, "timeline"), l, size)
		got, err := ParseSegment(s.String())
		if err != nil || got != s {
			t.Fatalf("%s became %s, %v", s, got, err)
		}
		if start := s.Start(size); start > l || uint64(l-start) >= size {
			t.Fatalf("%s holds %s and starts at %s", s, l, start)
		}
	})
}

func TestNextSegmentBeginsWhereThisEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		l := LSN(rapid.Uint64Max(1<<63).Draw(t, "lsn"))
		s := SegmentAt(7, l, size)
		next := s.Next(size)
		if want := s.Start(size) + LSN(size); next.Start(size) != want || next.Timeline != 7 {
			t.Fatalf("after %s comes %s, which starts at %s, not %s", s, next, next.Start(size), want)
		}
		if next != SegmentAt(7, s.Start(size)+LSN(size), size) {
			t.Fatalf("%s is not the segment of its own start", next)
		}
		if next.String() <= s.String() {
			t.Fatalf("%s does not sort after %s", next, s)
		}
	})
	for _, c := range []struct {
		name, next string
		size       uint64
	}{
		{"000000010000000000000003", "000000010000000000000004", 16 << 20},
		{"0000000100000000000000FF", "000000010000000100000000", 16 << 20},
		{"000000010000000000000FFF", "000000010000000100000000", 1 << 20},
		{"000000010000000000000003", "000000010000000100000000", 1 << 30},
	} {
		s, err := ParseSegment(c.name)
		if err != nil || s.Next(c.size).String() != c.next {
			t.Errorf("after %s comes %s with %d, %v", c.name, s.Next(c.size), c.size, err)
		}
	}
}

func TestSegmentSizes(t *testing.T) {
	for _, size := range []uint64{1 << 20, 16 << 20, 1 << 30} {
		if !ValidSegmentSize(size) {
			t.Errorf("%d is refused", size)
		}
	}
	for _, size := range []uint64{0, 1, 1 << 19, 3 << 20, 1 << 31, 16<<20 + 1} {
		if ValidSegmentSize(size) {
			t.Errorf("%d is taken", size)
		}
	}
}

func TestWALFileNames(t *testing.T) {
	const seg = "0000000A0000000B000000FE"
	s := Segment{10, 11, 254}
	for name, want := range map[string]WALFile{
		seg:                      {Kind: KindSegment, Segment: s},
		seg + ".partial":         {Kind: KindPartial, Segment: s},
		seg + ".00000028.backup": {Kind: KindBackup, Segment: s, Offset: 40},
		"0000000A.history":       {Kind: KindHistory, Segment: Segment{Timeline: 10}},
	} {
		got, err := ParseWALFile(name)
		if err != nil || got != want || got.String() != name {
			t.Errorf("%s became %+v (%s), %v", name, got, got, err)
		}
	}
	for _, name := range []string{
		"", ".", "history", ".history", seg[1:], seg + "0", strings.ToLower(seg), seg + ".", seg + ".lz4", seg + ".partial.lz4",
		seg + ".backup", seg + ".0000002.backup", seg + ".0000002g.backup", seg + ".history", "0000000A.partial", "0000000A",
		"0000000a.history", " " + seg[1:], "-000000A0000000B000000FE", seg + "\n", "../" + seg,
	} {
		if got, err := ParseWALFile(name); err == nil {
			t.Errorf("%q is taken for %+v", name, got)
		}
	}
}

func FuzzWALFileNamesRoundTrip(f *testing.F) {
	for _, s := range []string{"000000010000000000000003", "00000002.history", "000000010000000000000003.00000028.backup", "000000010000000000000003.partial", "0/3000028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if w, err := ParseWALFile(s); err == nil && w.String() != s {
			t.Errorf("%q became %q", s, w)
		}
		if l, err := ParseLSN(s); err == nil {
			if again, err := ParseLSN(l.String()); err != nil || again != l {
				t.Errorf("%q became %s, then %s", s, l, again)
			}
		}
	})
}
