package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walg/lib/fault"
)

// archive reads the catalogue of a golden archive, with the modification
// times that WAL-G saw when it made list.txt.
func archive(t *testing.T, dir string, lists map[string]string) []*Backup {
	t.Helper()
	var times []struct {
		Name string    `json:"backup_name"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(lists["--json"]), &times); err != nil {
		t.Fatal(err)
	}
	var scan Scan
	for _, b := range times {
		scan.Add(SentinelKey(b.Name), 100, b.Time)
		scan.Add(MetadataKey(b.Name), 10, b.Time.Add(time.Hour))
		scan.Add(PartKey(b.Name, PartName(1, ".lz4")), 1000, b.Time.Add(-time.Hour))
	}
	backups := scan.Backups()
	for _, b := range backups {
		var err error
		if b.Sentinel, err = ReadSentinel(b.Name, bytes.NewReader(read(t, filepath.Join(dir, "store", SentinelKey(b.Name))))); err != nil {
			t.Fatal(err)
		}
		if b.Metadata, err = ReadMetadata(b.Name, bytes.NewReader(read(t, filepath.Join(dir, "store", MetadataKey(b.Name))))); err != nil {
			t.Fatal(err)
		}
		if b.Objects != 3 || b.Size != 1110 || !b.Finished {
			t.Errorf("%+v", b)
		}
	}
	return backups
}

// listings takes list.txt apart: what was printed for which flags.
func listings(t *testing.T, dir string) map[string]string {
	t.Helper()
	lists := map[string]string{}
	for _, part := range strings.Split(string(read(t, filepath.Join(dir, "list.txt"))), "$ wal-g backup-list ")[1:] {
		flags, output, _ := strings.Cut(part, "\n")
		_, output, _ = strings.Cut(output, "\n") // its log line
		lists[flags] = strings.TrimSuffix(output, "\n")
	}
	if len(lists) != 7 {
		t.Fatalf("%s: %d listings", dir, len(lists))
	}
	return lists
}

func TestListsAreThoseOfWALG(t *testing.T) {
	for _, name := range goldenFiles(t, "*/list.txt") {
		dir := filepath.Dir(name)
		lists := listings(t, dir)
		backups := archive(t, dir, lists)
		for flags, want := range lists {
			f := Format{strings.Contains(flags, "--json"), strings.Contains(flags, "--detail"), strings.Contains(flags, "--pretty")}
			var out bytes.Buffer
			if err := WriteList(&out, backups, f); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(out.String(), "\n"); got != strings.TrimSuffix(want, "\n") {
				t.Errorf("%s %s:\n got %s\nwant %s", dir, flags, got, want)
			}
		}
	}
}

func at(second int) time.Time { return time.Unix(int64(second), 0).UTC() }

func finished(name string, modified, started int) *Backup {
	b := &Backup{Name: name, Finished: true, ModTime: at(modified)}
	if started > 0 {
		b.Metadata = &Metadata{StartTime: at(started)}
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
	bare.Sentinel = &Sentinel{StartTime: at(8)}
	if b, err := Newest(append(all, bare)); err != nil || b != late {
		t.Errorf("Newest = %v, %v", b, err)
	}
	for _, none := range [][]*Backup{nil, {unfinished}} {
		if _, err := Newest(none); fault.Status(err) != fault.Absent {
			t.Errorf("Newest of none = %v", err)
		}
	}
}

func TestOrderOfLists(t *testing.T) {
	a, b, c := finished("a", 30, 1), finished("b", 20, 2), finished("c", 10, 3)
	order := func(f Format, backups ...*Backup) (got []string) {
		var out bytes.Buffer
		if err := WriteList(&out, backups, f); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n")[1:] {
			got = append(got, strings.Fields(line)[0])
		}
		return got
	}
	if got := order(Format{}, a, b, c); !slices.Equal(got, []string{"c", "b", "a"}) {
		t.Errorf("plain: %q", got)
	}
	if got := order(Format{Detail: true}, c, b, a); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("with detail: %q", got)
	}
	b.Metadata = nil
	if got := order(Format{Detail: true}, a, b, c); !slices.Equal(got, []string{"c", "b", "a"}) {
		t.Errorf("with detail where one has no metadata: %q", got)
	}
}

func TestListsOfOddBackups(t *testing.T) {
	broken := finished("base_X", 0, 0)
	broken.ModTime = time.Time{}
	broken.SentinelErr = errors.New("broken")
	hostile := finished("base_000000010000000000000003", 1, 1)
	hostile.Metadata.Hostname = "\x1b[2J\ttab"
	unfinished := &Backup{Name: "unfinished"}
	var out bytes.Buffer
	if err := WriteList(&out, []*Backup{hostile, unfinished, broken}, Format{Detail: true}); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(out.String()), "\n")[1:]
	for i, want := range []string{
		"base_X - ZZZZZZZZZZZZZZZZZZZZZZZZ default - - - - - - - -",
		`base_000000010000000000000003 1970-01-01T00:00:01Z 000000010000000000000003 default 1970-01-01T00:00:01Z - "\x1b[2J\ttab" 0 0/0 0/0 false`,
	} {
		if got := strings.Join(strings.Fields(rows[i]), " "); got != want {
			t.Errorf(" got %s\nwant %s", got, want)
		}
	}
	for f, want := range map[Format]string{
		{JSON: true}:               "[]\n",
		{JSON: true, Detail: true}: "[]\n",
		{JSON: true, Pretty: true}: "[]\n",
		{}:                         "backup_name modified wal_file_name storage_name\n",
	} {
		out.Reset()
		if err := WriteList(&out, []*Backup{unfinished}, f); err != nil || out.String() != want {
			t.Errorf("%+v of none: %q, %v", f, &out, err)
		}
	}
	out.Reset()
	if err := WriteList(&out, []*Backup{broken}, Format{JSON: true, Detail: true}); err != nil ||
		out.String() != `[{"backup_name":"base_X","time":"0001-01-01T00:00:00Z","wal_file_name":"ZZZZZZZZZZZZZZZZZZZZZZZZ","storage_name":"default"}]`+"\n" {
		t.Errorf("%s, %v", &out, err)
	}
}

func TestScanTellsFinishedFromUnfinished(t *testing.T) {
	var scan Scan
	if scan.Backups() != nil {
		t.Error("an empty scan has backups")
	}
	scan.Add(PartKey("killed", "part_001.tar.lz4"), 7, at(5))
	scan.Add(PartKey("killed", "part_002.tar.lz4"), 7, at(6))
	scan.Add(SentinelKey("bare"), 1, at(1))
	scan.Add(PartKey("done", "part_001.tar.lz4"), 7, at(9))
	scan.Add(SentinelKey("done"), 1, at(2))
	scan.Add(MetadataKey("done"), 1, at(9))
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

// sentinels is a catalogue of names and parents; "" is none.
type sentinels map[string]string

func (s sentinels) get(name string) (*Sentinel, error) {
	parent, ok := s[name]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", name, fs.ErrNotExist)
	}
	return &Sentinel{DeltaFrom: parent}, nil
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
	dir := filepath.Join(golden, "delta_chain", "store")
	got, err := Chain("base_000000010000000000000007_D_000000010000000000000005", func(b string) (*Sentinel, error) {
		return ReadSentinel(b, bytes.NewReader(read(t, filepath.Join(dir, SentinelKey(b)))))
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
	if _, err := Chain("x", func(string) (*Sentinel, error) { return nil, outage }); !errors.Is(err, outage) || fault.Status(err) != fault.Failed {
		t.Errorf("an outage became %v", err)
	}
	n := 0
	_, err := Chain("0", func(string) (*Sentinel, error) { n++; return &Sentinel{DeltaFrom: fmt.Sprint(n)}, nil })
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
