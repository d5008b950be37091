package catalog

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/fault"
)

func TestPartsOfAGoldenBackupAreRead(t *testing.T) {
	found, err := filepath.Glob("../../testdata/golden/multi_tar/store/basebackups_005/*/files_metadata.json")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := ReadParts("base_000000010000000000000003", iotest.HalfReader(f))
	want := []string{
		"backup_label.tar.lz4", "part_001.tar.lz4", "part_002.tar.lz4", "part_003.tar.lz4",
		"part_004.tar.lz4", "part_005.tar.lz4", "part_006.tar.lz4", "part_007.tar.lz4",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPartsAreReadFromAnyListOfFiles(t *testing.T) {
	for text, want := range map[string][]string{
		`{}`:                         nil,
		` null `:                     nil,
		`{"TarFileSets":null}`:       nil,
		`{"Files":{"/":{"a":[{}]}}}`: nil,
		`{"TarFileSets":{"b":["x"],"a":[]},"Other":1}`:              {"a", "b"},
		`{"TarFileSets":{"b":["x"],"a":[]},"TarFileSets":{"a":[]}}`: {"a", "b"},
	} {
		got, err := ReadParts("b", iotest.OneByteReader(strings.NewReader(text)))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestBrokenListOfFilesIsBadData(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[]`, `1`, `{"TarFileSets":[]}`, `{"TarFileSets":{"a":[`, `{} {}`, `{}x`, `{"TarFileSets":{"a":` + strings.Repeat("[", maxDepth+2),
		`{"Files":"` + strings.Repeat("x", 2*maxValue+8192) + `"}`,
	} {
		if got, err := ReadParts("b", strings.NewReader(text)); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), FilesKey("b")) {
			t.Errorf("%.40s: %q, %v", text, got, err)
		}
	}
	gone := errors.New("the network is gone")
	if _, err := ReadParts("b", iotest.ErrReader(gone)); !errors.Is(err, gone) || fault.Status(err) == fault.Data {
		t.Errorf("a reader's error became %v", err)
	}
}

// A list of 300,000 files is read in the memory of one.
func TestPartsAreReadInLittleMemory(t *testing.T) {
	list := io.MultiReader(
		strings.NewReader(`{"TarFileSets":{"part_001.tar":["/"`),
		&repeat{text: `,"/base/16384/16385"`, n: 300_000},
		strings.NewReader(`]}}`))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := ReadParts("b", list)
	runtime.ReadMemStats(&after)
	if err != nil || !slices.Equal(got, []string{"part_001.tar"}) {
		t.Fatal(got, err)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}
