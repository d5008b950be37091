package listing

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"walg/lib/catalog"
	"walg/lib/lineage"
)

func archive(t *testing.T, dir string, lists map[string]string) []*lineage.Backup {
	t.Helper()
	var times []struct {
		Name string    `json:"backup_name"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(lists["--json"]), &times); err != nil {
		t.Fatal(err)
	}
	var scan lineage.Scan
	for _, b := range times {
		scan.Add(catalog.SentinelKey(b.Name), 100, b.Time)
		scan.Add(catalog.MetadataKey(b.Name), 10, b.Time.Add(time.Hour))
		scan.Add(catalog.PartKey(b.Name, catalog.PartName(1, ".lz4")), 1000, b.Time.Add(-time.Hour))
	}
	backups := scan.Backups()
	for _, b := range backups {
		var err error
		if b.Sentinel, err = catalog.ReadSentinel(b.Name, bytes.NewReader(read(t, filepath.Join(dir, "store", catalog.SentinelKey(b.Name))))); err != nil {
			t.Fatal(err)
		}
		if b.Metadata, err = catalog.ReadMetadata(b.Name, bytes.NewReader(read(t, filepath.Join(dir, "store", catalog.MetadataKey(b.Name))))); err != nil {
			t.Fatal(err)
		}
		if b.Objects != 3 || b.Size != 1110 || !b.Finished {
			t.Errorf("%+v", b)
		}
	}
	return backups
}

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
	names, err := filepath.Glob("../../../testdata/golden/*/list.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden lists: %v", err)
	}
	for _, name := range names {
		dir := filepath.Dir(name)
		lists := listings(t, dir)
		backups := archive(t, dir, lists)
		for flags, want := range lists {
			f := Format{strings.Contains(flags, "--json"), strings.Contains(flags, "--detail"), strings.Contains(flags, "--pretty")}
			var out bytes.Buffer
			if err := Write(&out, backups, f); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(out.String(), "\n"); got != strings.TrimSuffix(want, "\n") {
				t.Errorf("%s %s:\n got %s\nwant %s", dir, flags, got, want)
			}
		}
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

func at(second int) time.Time { return time.Unix(int64(second), 0).UTC() }

func finished(name string, modified, started int) *lineage.Backup {
	b := &lineage.Backup{Name: name, Finished: true, ModTime: at(modified)}
	if started > 0 {
		b.Metadata = &catalog.Metadata{StartTime: at(started)}
	}
	return b
}

func TestOrderOfLists(t *testing.T) {
	a, b, c := finished("a", 30, 1), finished("b", 20, 2), finished("c", 10, 3)
	order := func(f Format, backups ...*lineage.Backup) (got []string) {
		var out bytes.Buffer
		if err := Write(&out, backups, f); err != nil {
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
	unfinished := &lineage.Backup{Name: "unfinished"}
	var out bytes.Buffer
	if err := Write(&out, []*lineage.Backup{hostile, unfinished, broken}, Format{Detail: true}); err != nil {
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
		if err := Write(&out, []*lineage.Backup{unfinished}, f); err != nil || out.String() != want {
			t.Errorf("%+v of none: %q, %v", f, &out, err)
		}
	}
	out.Reset()
	if err := Write(&out, []*lineage.Backup{broken}, Format{JSON: true, Detail: true}); err != nil ||
		out.String() != `[{"backup_name":"base_X","time":"0001-01-01T00:00:00Z","wal_file_name":"ZZZZZZZZZZZZZZZZZZZZZZZZ","storage_name":"default"}]`+"\n" {
		t.Errorf("%s, %v", &out, err)
	}
}
