package lineage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walg/lib/catalog"
	"walg/lib/fault"
)

// archive reads the catalogue of a golden archive, with the modification
// times that WAL-G saw when it made list.txt.
// listings takes list.txt apart: what was printed for which flags.
func at(second int) time.Time { return time.Unix(int64(second), 0).UTC() }

func finished(name string, modified, started int) *Backup {
	b := &Backup{Name: name, Finished: true, ModTime: at(modified)}
	if started > 0 {
		b.Metadata = &catalog.Metadata{StartTime: at(started)}
	}
	return b
}

func TestLatestIsTheNewestRecordedStart(t *testing.T) {
	old, copied, late := finished("old", 10, 1), finished("copied", 50, 2), finished("late", 20, 9)
	unfinished := &Backup{Name: "unfinished", ModTime: at(99)}
	all := []*Backup{old, unfinished, copied, late}
	if b, err := Newest(all); err != nil || b != late {
		t.Errorf("Newest = %v, %v", b, err)
	}
	// Without metadata the sentinel's own record counts, then its time.
	bare := finished("bare", 30, 0)
	if b, err := Newest(append(all, bare)); err != nil || b != bare {
		t.Errorf("Newest = %v, %v", b, err)
	}
	bare.Sentinel = &catalog.Sentinel{StartTime: at(8)}
	if b, err := Newest(append(all, bare)); err != nil || b != late {
		t.Errorf("Newest = %v, %v", b, err)
	}
	for _, none := range [][]*Backup{nil, {unfinished}} {
		if _, err := Newest(none); fault.Status(err) != fault.Absent {
			t.Errorf("Newest of none = %v", err)
		}
	}
}

func TestScanTellsFinishedFromUnfinished(t *testing.T) {
	var scan Scan
	if scan.Backups() != nil {
		t.Error("an empty scan has backups")
	}
	scan.Add(catalog.PartKey("killed", "part_001.tar.lz4"), 7, at(5))
	scan.Add(catalog.PartKey("killed", "part_002.tar.lz4"), 7, at(6))
	scan.Add(catalog.SentinelKey("bare"), 1, at(1))
	scan.Add(catalog.PartKey("done", "part_001.tar.lz4"), 7, at(9))
	scan.Add(catalog.SentinelKey("done"), 1, at(2))
	scan.Add(catalog.MetadataKey("done"), 1, at(9))
	scan.Add("wal_005/000000010000000000000003.lz4", 1, at(1))
	scan.Add("basebackups_005/LATEST/metadata.json", 1, at(1))
	scan.Add("basebackups_005/\x1b/metadata.json", 1, at(1))
	var got []string
	for _, b := range scan.Backups() {
		got = append(got, fmt.Sprint(b.Name, b.Finished, b.Objects, b.Size, b.ModTime.Unix()))
	}
	if want := []string{"baretrue 1 1 1", "donetrue 3 9 2", "killedfalse 2 14 6"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// sentinels is a catalogue of names and parents; "" is none.
type sentinels map[string]string

func (s sentinels) get(name string) (*catalog.Sentinel, error) {
	parent, ok := s[name]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", name, fs.ErrNotExist)
	}
	return &catalog.Sentinel{DeltaFrom: parent}, nil
}

func TestChainBeginsWithTheFullBackup(t *testing.T) {
	s := sentinels{"full": "", "d1": "full", "d2": "d1", "other": "full"}
	for name, want := range map[string]string{"full": "full", "d2": "full d1 d2", "other": "full other"} {
		if got, err := Chain(name, s.get); err != nil || strings.Join(got, " ") != want {
			t.Errorf("Chain(%q) = %q, %v", name, got, err)
		}
	}
}

func TestChainOfTheGoldenArchive(t *testing.T) {
	dir := filepath.Join("../../testdata/golden/delta_chain", "store")
	got, err := Chain("base_000000010000000000000007_D_000000010000000000000005", func(b string) (*catalog.Sentinel, error) {
		return catalog.ReadSentinel(b, bytes.NewReader(read(t, filepath.Join(dir, catalog.SentinelKey(b)))))
	})
	want := []string{"base_000000010000000000000003", "base_000000010000000000000005_D_000000010000000000000003", "base_000000010000000000000007_D_000000010000000000000005"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBrokenChainsAreRefused(t *testing.T) {
	s := sentinels{"orphan": "gone", "child": "orphan", "self": "self", "x": "y", "y": "z", "z": "x", "into": "x"}
	for name, want := range map[string]struct {
		status int
		words  string
	}{
		"nothing": {fault.Absent, "no backup nothing"},
		"orphan":  {fault.Absent, "backup orphan is based on gone, which is not there"},
		"child":   {fault.Absent, "backup orphan is based on gone, which is not there"},
		"self":    {fault.Data, "based on self"},
		"x":       {fault.Data, "backup z is based on x"},
		"into":    {fault.Data, "backup z is based on x"},
	} {
		_, err := Chain(name, s.get)
		if fault.Status(err) != want.status || !strings.Contains(err.Error(), want.words) {
			t.Errorf("Chain(%q) = %v (%d), want %d %q", name, err, fault.Status(err), want.status, want.words)
		}
	}
	outage := errors.New("connection reset")
	if _, err := Chain("x", func(string) (*catalog.Sentinel, error) { return nil, outage }); !errors.Is(err, outage) || fault.Status(err) != fault.Failed {
		t.Errorf("an outage became %v", err)
	}
	n := 0
	_, err := Chain("0", func(string) (*catalog.Sentinel, error) { n++; return &catalog.Sentinel{DeltaFrom: fmt.Sprint(n)}, nil })
	if fault.Status(err) != fault.Data || n != maxChain {
		t.Errorf("an endless chain: %v after %d", err, n)
	}
}

func TestChainsEndForAllCatalogues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e", "f"}
		s := sentinels{}
		for _, n := range names {
			if rapid.Bool().Draw(t, "there "+n) {
				s[n] = rapid.SampledFrom(append(names, "", "")).Draw(t, "parent of "+n)
			}
		}
		for _, n := range names {
			chain, err := Chain(n, s.get)
			if err != nil {
				continue
			}
			if s[chain[0]] != "" || chain[len(chain)-1] != n {
				t.Fatalf("Chain(%q) = %q of %v", n, chain, s)
			}
			for i := 1; i < len(chain); i++ {
				if s[chain[i]] != chain[i-1] {
					t.Fatalf("Chain(%q) = %q of %v", n, chain, s)
				}
			}
		}
	})
}
