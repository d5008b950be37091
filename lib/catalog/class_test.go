package catalog

import (
	"testing"

	"walg/lib/wal"
)

func TestObjectsHaveTheClassOfTheirName(t *testing.T) {
	const seg, backup = "0000000A0000000B000000FE", "base_0000000A0000000B000000FE"
	s := wal.Segment{Timeline: 10, Log: 11, Seg: 254}
	ofWAL := Object{Class: ClassWAL, First: s, Last: s}
	for key, want := range map[string]Object{
		"wal_005/" + seg:                           ofWAL,
		"wal_005/" + seg + ".lz4":                  ofWAL,
		"wal_005/" + seg + ".own":                  ofWAL,
		"wal_005/" + seg + ".partial.zst":          ofWAL,
		"wal_005/" + seg + ".00000028.backup.br":   ofWAL,
		"wal_005/" + seg + "_delta.lzma":           ofWAL,
		"wal_005/" + seg + ".json":                 ofWAL,
		"wal_005/" + seg[:23] + ".json":            {Class: ClassWAL, First: wal.Segment{Timeline: 10, Log: 11, Seg: 240}, Last: wal.Segment{Timeline: 10, Log: 11, Seg: 255}},
		"wal_005/0000000A.history.lz4":             {Class: ClassHistory},
		"wal_005/0000000A.history":                 {Class: ClassHistory},
		SentinelKey(backup):                        {Class: ClassSentinel, Backup: backup},
		SentinelKey("my backup"):                   {Class: ClassSentinel, Backup: "my backup"},
		MetadataKey(backup):                        {Class: ClassMetadata, Backup: backup},
		FilesKey(backup):                           {Class: ClassFiles, Backup: backup},
		PartKey(backup, "part_001.tar.lz4"):        {Class: ClassPart, Backup: backup},
		PartKey(backup, "part_001.tar.own"):        {Class: ClassPart, Backup: backup},
		PartKey(backup, "part_001.tar"):            {Class: ClassPart, Backup: backup},
		PartKey(backup, "pg_control.tar.zst"):      {Class: ClassPart, Backup: backup},
		PartKey(backup, "part_001.tar.lz4.old"):    {},
		PartKey(backup, "below/part_001.tar.lz4"):  {},
		PartKey(backup, "notes.txt"):               {},
		Backups + backup + "/notes.txt":            {},
		Backups + backup:                           {},
		Backups + "junk.txt":                       {},
		SentinelKey("LATEST"):                      {},
		"wal_005/" + seg + ".lz4.old":              {},
		"wal_005/" + seg + ".other":                {},
		"wal_005/" + seg + ".partial.json":         {},
		"wal_005/" + seg + ".json.lz4":             {},
		"wal_005/" + seg[:22] + ".json":            {},
		"wal_005/" + seg[1:] + ".lz4":              {},
		"wal_005/" + seg + "_delta_":               {},
		"wal_005/below/" + seg + ".lz4":            {},
		"wal_005/":                                 {},
		"catchup_005/" + backup + "/metadata.json": {},
		seg: {},
		"":  {},
	} {
		if got := Classify(key, ".own", ""); got != want {
			t.Errorf("%s is %+v, want %+v", key, got, want)
		}
	}
}
