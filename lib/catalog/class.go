package catalog

import (
	"slices"
	"strings"

	"walg/lib/wal"
)

// Class is what an object is, as far as its key tells.
type Class int

// What is Foreign belongs to somebody else, or to a version that we do not
// know: nothing removes it.
const (
	Foreign       Class = iota
	ClassSentinel       // of Backup
	ClassMetadata       // metadata.json of Backup
	ClassFiles          // files_metadata.json of Backup
	ClassPart           // one tar part of Backup
	ClassWAL            // a segment, or what belongs to one: .partial, .backup, a delta map, its metadata
	ClassHistory        // of a timeline
)

// Object is a key taken apart.
type Object struct {
	Class  Class
	Backup string // of a sentinel, metadata, a list of files or a part
	// First and Last are the segments that an object of WAL belongs to, the same
	// but for the metadata of sixteen segments in one object.
	First, Last wal.Segment
}

// extensions are those of compressed objects that WAL-G writes or has written.
var extensions = []string{".lz4", ".lzma", ".br", ".zst", ".gz", ".lzo", ".xz"}

// Classify says what the object with this key is. more are extensions of
// compressed objects beside WAL-G's, as users' own programs make them.
func Classify(key string, more ...string) Object {
	if name, ok := strings.CutPrefix(key, WAL); ok {
		return classifyWAL(name, more)
	}
	backup, ok := BackupOf(key)
	if !ok || !ValidName(backup) {
		return Object{}
	}
	o := Object{Backup: backup}
	part, isPart := strings.CutPrefix(key, PartsPrefix(backup))
	switch {
	case key == SentinelKey(backup):
		o.Class = ClassSentinel
	case key == MetadataKey(backup):
		o.Class = ClassMetadata
	case key == FilesKey(backup):
		o.Class = ClassFiles
	case isPart && !strings.Contains(part, "/") && strings.HasSuffix(TrimExt(part, more...), ".tar"):
		o.Class = ClassPart
	default:
		return Object{}
	}
	return o
}

func classifyWAL(name string, more []string) Object {
	plain := TrimExt(name, more...)
	file, err := wal.ParseWALFile(plain)
	switch delta, isDelta := strings.CutSuffix(plain, "_delta"); {
	case err == nil && file.Kind == wal.KindHistory:
		return Object{Class: ClassHistory}
	case err == nil:
		return Object{Class: ClassWAL, First: file.Segment, Last: file.Segment}
	case isDelta:
		return ofSegments(delta, delta)
	}
	if described, ok := strings.CutSuffix(name, ".json"); ok {
		if o := ofSegments(described, described); o.Class != Foreign {
			return o
		}
		return ofSegments(described+"0", described+"F") // of sixteen
	}
	return Object{}
}

func ofSegments(first, last string) Object {
	f, ferr := wal.ParseSegment(first)
	l, lerr := wal.ParseSegment(last)
	if ferr != nil || lerr != nil {
		return Object{}
	}
	return Object{Class: ClassWAL, First: f, Last: l}
}

// TrimExt cuts off the extension of a compressed object, where the name has
// one. more is as for Classify.
func TrimExt(name string, more ...string) string {
	for _, ext := range slices.Concat(more, extensions) {
		if plain, ok := strings.CutSuffix(name, ext); ok && ext != "" {
			return plain
		}
	}
	return name
}
