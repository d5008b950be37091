package catalog

import (
	"testing"
)

func TestKeysOfWALGsLayout(t *testing.T) {
	const name = "base_000000010000000000000003"
	for got, want := range map[string]string{
		SentinelKey(name):                           "basebackups_005/base_000000010000000000000003_backup_stop_sentinel.json",
		MetadataKey(name):                           "basebackups_005/base_000000010000000000000003/metadata.json",
		FilesKey(name):                              "basebackups_005/base_000000010000000000000003/files_metadata.json",
		PartKey(name, PartName(1, ".lz4")):          "basebackups_005/base_000000010000000000000003/tar_partitions/part_001.tar.lz4",
		PartKey(name, PartName(1000, "")):           "basebackups_005/base_000000010000000000000003/tar_partitions/part_1000.tar",
		PartKey(name, ControlPart(".br")):           "basebackups_005/base_000000010000000000000003/tar_partitions/pg_control.tar.br",
		PartKey(name, LabelPart(".zst")):            "basebackups_005/base_000000010000000000000003/tar_partitions/backup_label.tar.zst",
		WALKey("000000010000000000000003", ".lz4"):  "wal_005/000000010000000000000003.lz4",
		WALKey("00000002.history", ""):              "wal_005/00000002.history",
		FullName("000000010000000000000003"):        name,
		DeltaName("000000010000000000000005", name): "base_000000010000000000000005_D_000000010000000000000003",
		DeltaName("000000010000000000000007", "base_000000010000000000000005_D_000000010000000000000003"): "base_000000010000000000000007_D_000000010000000000000005",
		SegmentOf(name):                      "000000010000000000000003",
		SegmentOf("base_X"):                  "ZZZZZZZZZZZZZZZZZZZZZZZZ",
		SegmentOf("stream_20261122T162725Z"): "ZZZZZZZZZZZZZZZZZZZZZZZZ",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNamesAreTakenApart(t *testing.T) {
	const a, b = "000000010000000000000003", "00000002000000000000000A"
	for name, want := range map[string][2]string{"base_" + a: {a, ""}, "base_" + b + "_D_" + a: {b, a}} {
		if segment, parent, ok := ParseName(name); !ok || segment != want[0] || parent != want[1] {
			t.Errorf("ParseName(%q) = %q, %q, %v", name, segment, parent, ok)
		}
	}
	for _, name := range []string{"", "base_", "base_X", "base_" + a[1:], "base_" + a + "0", "base_" + a + "_D_", "base_00000001000000000000000a", "x" + "base_" + a, "base_" + a + "\n"} {
		if _, _, ok := ParseName(name); ok {
			t.Errorf("ParseName(%q) takes it", name)
		}
	}
}

func TestObjectsFindTheirBackup(t *testing.T) {
	for key, want := range map[string]string{
		SentinelKey("base_X"):                           "base_X",
		MetadataKey("base_X"):                           "base_X",
		PartKey("base_X", "p.tar"):                      "base_X",
		SentinelKey(""):                                 "",
		"basebackups_005/junk":                          "",
		"basebackups_005//metadata.json":                "",
		"basebackups_005":                               "",
		"wal_005/000000010000000000000003.lz4":          "",
		"other/basebackups_005/base/metadata.json":      "",
		"basebackups_005/a/b_backup_stop_sentinel.json": "a", // no sentinel of its own
	} {
		if got, ok := BackupOf(key); got != want && ok || ok != (want != "") {
			t.Errorf("BackupOf(%q) = %q, %v, want %q", key, got, ok, want)
		}
	}
}
