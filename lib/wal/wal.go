// Package wal knows how PostgreSQL names positions in the write-ahead log and the
// files that hold it. It is pure, and reads no WAL.
package wal

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes. As JSON it is a number,
// as WAL-G writes it.
type LSN uint64

// String gives PostgreSQL's form: two hexadecimal halves without leading
// zeros, such as 0/3000028.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's form, in upper or lower case.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	h, herr := parseHex(high)
	l, lerr := parseHex(low)
	if !ok || herr != nil || lerr != nil {
		return 0, fmt.Errorf("parse LSN %q: not of the form X/XXXXXXXX", s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// parseHex reads 1 to 8 hexadecimal digits and nothing else.
func parseHex(s string) (uint32, error) {
	if len(s) > 8 {
		return 0, strconv.ErrRange
	}
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err
}

// Segment names one WAL segment file. Log and Seg are the two halves of its
// number as the name shows them; what LSN they stand for depends on the size
// of the cluster's segments.
type Segment struct {
	Timeline, Log, Seg uint32
}

// String is the file's name: 24 upper-case hexadecimal digits.
func (s Segment) String() string { return fmt.Sprintf("%08X%08X%08X", s.Timeline, s.Log, s.Seg) }

// ValidSegmentSize says whether PostgreSQL can have WAL segments of size
// bytes: a power of two from 1 MiB to 1 GiB.
func ValidSegmentSize(size uint64) bool {
	return size >= 1<<20 && size <= 1<<30 && size&(size-1) == 0
}

// SegmentAt returns the segment that holds the byte at l. size must be valid.
func SegmentAt(timeline uint32, l LSN, size uint64) Segment {
	return Segment{timeline, uint32(l >> 32), uint32(uint64(uint32(l)) / size)}
}

// ParseSegment reads a segment's name. Lower-case digits are refused, as
// PostgreSQL does.
func ParseSegment(name string) (Segment, error) {
	if len(name) != 24 || !isUpperHex(name) {
		return Segment{}, fmt.Errorf("parse WAL segment name %q: not 24 hexadecimal digits", name)
	}
	return Segment{hex8(name), hex8(name[8:]), hex8(name[16:])}, nil
}

// Compare orders segments as their names sort: by timeline, then by position.
func (s Segment) Compare(other Segment) int {
	return cmp.Or(cmp.Compare(s.Timeline, other.Timeline), cmp.Compare(s.Log, other.Log), cmp.Compare(s.Seg, other.Seg))
}

// Start is the LSN of the segment's first byte.
func (s Segment) Start(size uint64) LSN { return LSN(s.Log)<<32 + LSN(uint64(s.Seg)*size) }

// Next is the segment after s on the same timeline.
func (s Segment) Next(size uint64) Segment {
	if uint64(s.Seg)+1 >= 1<<32/size {
		return Segment{s.Timeline, s.Log + 1, 0}
	}
	return Segment{s.Timeline, s.Log, s.Seg + 1}
}

// Kind is what a file in pg_wal or in the archive is.
type Kind int

// The four kinds of file that archive_command is given.
const (
	KindSegment Kind = iota + 1 // <24>
	KindPartial                 // <24>.partial, the last segment of an old timeline
	KindBackup                  // <24>.<8>.backup, the history file of a base backup
	KindHistory                 // <8>.history, of a timeline
)

// WALFile is a parsed name: Segment.Timeline is set for each kind, the rest of
// Segment for all but history, Offset (of the backup's start) for backup.
type WALFile struct {
	Kind    Kind
	Segment Segment
	Offset  uint32
}

// ParseWALFile reads the name of any file that archive_command is given.
func ParseWALFile(name string) (WALFile, error) {
	unknown := fmt.Errorf("parse WAL file name %q: not a segment, .partial, .backup or .history", name)
	head, rest, _ := strings.Cut(name, ".")
	if len(head) == 8 && rest == "history" && isUpperHex(head) {
		return WALFile{Kind: KindHistory, Segment: Segment{Timeline: hex8(head)}}, nil
	}
	s, err := ParseSegment(head)
	if err != nil {
		return WALFile{}, unknown
	}
	offset, isBackup := strings.CutSuffix(rest, ".backup")
	switch {
	case len(name) == 24:
		return WALFile{Kind: KindSegment, Segment: s}, nil
	case rest == "partial":
		return WALFile{Kind: KindPartial, Segment: s}, nil
	case isBackup && len(offset) == 8 && isUpperHex(offset):
		return WALFile{KindBackup, s, hex8(offset)}, nil
	}
	return WALFile{}, unknown
}

// String is the file's name.
func (f WALFile) String() string {
	switch f.Kind {
	case KindPartial:
		return f.Segment.String() + ".partial"
	case KindBackup:
		return fmt.Sprintf("%s.%08X.backup", f.Segment, f.Offset)
	case KindHistory:
		return fmt.Sprintf("%08X.history", f.Segment.Timeline)
	}
	return f.Segment.String()
}

func isUpperHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// hex8 reads the first 8 digits of s, which are known to be hexadecimal.
func hex8(s string) uint32 {
	n, _ := strconv.ParseUint(s[:8], 16, 32) // cannot fail
	return uint32(n)
}
