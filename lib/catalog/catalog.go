// Package catalog knows WAL-G's layout: where the objects of a backup and the
// files of WAL are, and what is in the JSON files. It is pure: it computes on
// names and bytes that others read and write, and does no I/O of its own.
//
// The layout and the JSON are those that WAL-G writes (reference: docs of the
// format, sections 1 to 4, 6 and 11). What is read may come from anywhere: JSON
// that is broken, or that says what cannot be, is an error of status 65 that
// names the object.
package catalog

import (
	"fmt"
	"regexp"
	"strings"
)

// Where the objects of PostgreSQL are, below the prefix of the storage.
const (
	Backups = "basebackups_005/"
	WAL     = "wal_005/"

	sentinelSuffix = "_backup_stop_sentinel.json"
	metadataFile   = "/metadata.json"
	filesFile      = "/files_metadata.json"
	partsDir       = "/tar_partitions/"
)

// SentinelKey is the key of the object that makes a backup exist.
func SentinelKey(backup string) string { return Backups + backup + sentinelSuffix }

// MetadataKey is the key of a backup's small metadata.
func MetadataKey(backup string) string { return Backups + backup + metadataFile }

// FilesKey is the key of a backup's list of files.
func FilesKey(backup string) string { return Backups + backup + filesFile }

// PartsPrefix is what the keys of a backup's parts begin with.
func PartsPrefix(backup string) string { return Backups + backup + partsDir }

// PartKey is the key of one part, such as part_001.tar.lz4.
func PartKey(backup, part string) string { return PartsPrefix(backup) + part }

// WALKey is the key of a file of pg_wal: a segment, or one with the ending
// .partial, .backup or .history. ext is that of the compression, with its dot, or empty.
func WALKey(file, ext string) string { return WAL + file + ext }

// PartName is the name of the n-th part, counted from 1. ext is that of
// the compression, with its dot, or empty.
func PartName(n int, ext string) string { return fmt.Sprintf("part_%03d.tar%s", n, ext) }

// ControlPart is the name of the part that holds pg_control alone and is
// restored last.
func ControlPart(ext string) string { return "pg_control.tar" + ext }

// LabelPart is the name of the part that holds backup_label and tablespace_map.
func LabelPart(ext string) string { return "backup_label.tar" + ext }

// FullName is the name of a full backup that starts in the WAL segment.
func FullName(segment string) string { return "base_" + segment }

// DeltaName is the name of a delta backup that starts in the WAL segment and
// is based on parent.
func DeltaName(segment, parent string) string {
	return FullName(segment) + "_D_" + firstSegment.FindString(parent)
}

var (
	backupName   = regexp.MustCompile(`^base_([0-9A-F]{24})(?:_D_([0-9A-F]{24}))?(?:_[0-9A-F]{8})?$`)
	firstSegment = regexp.MustCompile(`[0-9A-F]{24}`)
)

// ParseName takes the name of a backup apart: the WAL segment it starts in, and
// the one that its parent started in, empty for a full backup. WAL-E's names end
// with the offset in the segment. ok is false for every other name, which WAL-G
// lists and restores all the same.
func ParseName(backup string) (segment, parent string, ok bool) {
	m := backupName.FindStringSubmatch(backup)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// SegmentOf is the WAL segment in the name of a backup, or 24 times Z, as WAL-G
// prints it where there is none.
func SegmentOf(backup string) string {
	if name := firstSegment.FindString(backup); name != "" {
		return name
	}
	return strings.Repeat("Z", 24)
}

// SentinelOf returns the backup whose sentinel has this key.
func SentinelOf(key string) (backup string, ok bool) {
	name, under := strings.CutPrefix(key, Backups)
	name, suffix := strings.CutSuffix(name, sentinelSuffix)
	return name, under && suffix && name != "" && !strings.Contains(name, "/")
}

// BackupOf returns the backup that the object with this key belongs to, its
// sentinel or another.
func BackupOf(key string) (backup string, ok bool) {
	if backup, ok := SentinelOf(key); ok {
		return backup, true
	}
	rest, under := strings.CutPrefix(key, Backups)
	backup, _, inside := strings.Cut(rest, "/")
	return backup, under && inside && backup != ""
}

// ValidName reports whether a backup's name can be part of a key: one element
// without control characters that is not LATEST.
func ValidName(backup string) bool {
	bad := func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f }
	return backup != "" && backup != "." && backup != ".." && backup != Latest && !strings.ContainsFunc(backup, bad)
}

// Latest is what users say for the newest backup.
const Latest = "LATEST"
