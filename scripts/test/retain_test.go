//go:build linux

package test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// wal24 is the name of a segment of the synthetic store.
func wal24(timeline, n int) string { return fmt.Sprintf("%08X%08X%08X", timeline, n/256, n%256) }

// fill makes in dir the store for which testdata/retention has WAL-G's
// decisions, as make-store.py there makes it: seven backups in three chains, one
// of them unfinished, their WAL, a history and junk. Permanent are those in
// permanent.
func fill(t testing.TB, dir string, permanent ...string) {
	t.Helper()
	const size = 16 << 20
	epoch := time.Unix(1_700_000_000, 0).UTC()
	put := func(key, content string, at time.Time) {
		path := filepath.Join(dir, key)
		write(t, path, []byte(content))
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	names, fulls, count := map[int]string{}, map[int]string{}, 0
	for i, c := range [][2]int{{2, 0}, {4, 2}, {6, 4}, {8, 0}, {10, 8}, {12, 0}, {14, 12}} {
		n, base := c[0], c[1]
		name := "base_" + wal24(1, n)
		count++
		if base == 0 {
			fulls[n], count = name, 0
		} else {
			name += "_D_" + wal24(1, base)
			fulls[n] = fulls[base]
		}
		names[n] = name
		at := epoch.Add(time.Duration(i) * time.Hour)
		start, finish := at.Add(-time.Minute).Format(time.RFC3339), at.Format(time.RFC3339)
		isPermanent := slices.Contains(permanent, name)
		sentinel := map[string]any{
			"LSN": n*size + 0x28, "PgVersion": 150018, "FinishLSN": n*size + 0x100, "SystemIdentifier": 7711024955979211278,
			"UncompressedSize": 1, "CompressedSize": 1, "ChkpNum": nil, "Version": 2, "StartTime": start, "FinishTime": finish,
			"Hostname": "h", "DataDir": "/d", "IsPermanent": isPermanent,
		}
		if base != 0 {
			sentinel["DeltaLSN"], sentinel["DeltaFrom"], sentinel["DeltaFullName"], sentinel["DeltaCount"] = base*size+0x28, names[base], fulls[n], count
		}
		metadata := map[string]any{
			"start_time": start, "finish_time": finish, "hostname": "h", "data_dir": "/d", "pg_version": 150018,
			"start_lsn": n*size + 0x28, "finish_lsn": n*size + 0x100, "is_permanent": isPermanent,
			"system_identifier": 7711024955979211278, "uncompressed_size": 1, "compressed_size": 1,
		}
		below := "basebackups_005/" + name
		put(below+"/metadata.json", encoded(t, metadata), at)
		put(below+"/files_metadata.json", "{}", at)
		put(below+"/tar_partitions/part_001.tar.lz4", "x", at)
		put(below+"_backup_stop_sentinel.json", encoded(t, sentinel), at)
		put("wal_005/"+wal24(1, n)+".00000028.backup.lz4", "x", at)
	}
	for n := 1; n < 16; n++ {
		put("wal_005/"+wal24(1, n)+".lz4", "x", epoch.Add(time.Duration(n/2-1)*time.Hour+30*time.Minute))
	}
	put("basebackups_005/base_"+wal24(1, 3)+"/tar_partitions/part_001.tar.lz4", "x", epoch)
	put("wal_005/00000002.history.lz4", "x", epoch)
	put("wal_005/"+wal24(1, 0)+"_delta.lz4", "x", epoch)
	put("wal_005/"+wal24(2, 16)+".lz4", "x", epoch)
	put("basebackups_005/junk.txt", "x", epoch)
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// keysBelow are the files below dir, as keys in byte order.
func keysBelow(t testing.TB, dir string) (keys []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			keys = append(keys, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

const sentinelEnd = "_backup_stop_sentinel.json"

// backupNames are the finished backups of a file store, by name.
func backupNames(t testing.TB, dir string) (names []string) {
	t.Helper()
	for _, key := range keysBelow(t, dir) {
		if name, ok := strings.CutSuffix(key, sentinelEnd); ok {
			names = append(names, strings.TrimPrefix(name, "basebackups_005/"))
		}
	}
	return names
}

var ofTimeline1 = regexp.MustCompile(`0{7}1(0{14})([0-9A-F]{2})`)

// kept is what lies in a store in the words of decisions.txt.
func kept(keys []string) map[string][]string {
	have := map[string][]string{"kept backups": nil, "kept other base": nil, "kept wal": nil}
	add := func(what, name string) {
		if name = ofTimeline1.ReplaceAllString(name, "$2"); !slices.Contains(have[what], name) {
			have[what] = append(have[what], name)
		}
	}
	for _, key := range keys {
		if file, ok := strings.CutPrefix(key, "wal_005/"); ok {
			add("kept wal", strings.TrimSuffix(file, ".lz4"))
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(key, "basebackups_005/"), "/")
		if backup, ok := strings.CutSuffix(name, sentinelEnd); ok {
			add("kept backups", backup)
		} else {
			add("kept other base", name)
		}
	}
	return have
}

// A decision is what the real WAL-G did with the synthetic store.
type decision struct {
	title, words string
	permanent    []string
	status       int
	kept         map[string][]string
}

func decisions(t testing.TB) (all []decision) {
	t.Helper()
	for _, section := range strings.Split(string(read(t, "../../testdata/retention/decisions.txt")), "### ")[1:] {
		title, rest, _ := strings.Cut(section, "\n")
		marks, words, _ := strings.Cut(title, "] wal-g delete")
		d := decision{title: title, words: strings.TrimSpace(words), kept: map[string][]string{}}
		if names, ok := strings.CutPrefix(marks, "[perm="); ok {
			d.permanent = strings.Split(names, ",")
		}
		for _, line := range strings.Split(rest, "\n") {
			if text, ok := strings.CutPrefix(line, "exit="); ok {
				var err error
				if d.status, err = strconv.Atoi(text); err != nil {
					t.Fatalf("%s: %v", title, err)
				}
			}
			if what, names, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(what, "kept ") {
				d.kept[what] = strings.Fields(names)
			}
		}
		if len(d.kept) != 3 {
			t.Fatalf("%s: %v", title, d.kept)
		}
		all = append(all, d)
	}
	return all
}

// deliberate are the decisions that are others here, each with what then
// happens, and the words of the manual page that give the reason.
var deliberate = map[string]struct {
	status      int
	kept        map[string][]string // nil: all
	differently string
}{
	"[none] wal-g delete everything":                                     {0, onlyForeign, "*everything* leaves timeline histories"},
	"[perm=base_000000010000000000000002] wal-g delete everything FORCE": {0, onlyForeign, "*everything* leaves timeline histories"},
	"[perm=base_000000010000000000000002,base_000000010000000000000004_D_000000010000000000000002] wal-g delete target base_000000010000000000000004_D_000000010000000000000002": {
		64, nil, "*target* of a permanent backup"},
	"[perm=base_000000010000000000000002,base_000000010000000000000004_D_000000010000000000000002] wal-g delete foo": {
		64, nil, "An unknown word after *delete* is"},
}

var onlyForeign = map[string][]string{"kept other base": {"junk.txt"}, "kept wal": {"00000002.history"}}

func TestDecisionsAreThoseOfWALG(t *testing.T) {
	page := string(read(t, "../../cmd/walg-retain/walg-retain.1.scd"))
	_, notes, _ := strings.Cut(page, "# NOTES")
	seen := 0
	for _, d := range decisions(t) {
		dir := store(t)
		fill(t, dir, d.permanent...)
		all := kept(keysBelow(t, dir))
		other, differs := deliberate[d.title]
		want := d.kept
		if differs {
			seen++
			if want = other.kept; want == nil {
				want = all
			}
			if !strings.Contains(notes, other.differently) {
				t.Errorf("%s: the manual page does not say why it differs: %q", d.title, other.differently)
			}
		}
		// First as it is given, which must change nothing; --confirm may stand
		// anywhere.
		env := "WALG_FILE_PREFIX=" + dir
		before := snapshot(t, dir)
		dry, _, dryStatus := sh(t, "wal-g delete "+d.words, env)
		if snapshot(t, dir) != before {
			t.Fatalf("%s: a dry run changed the store", d.title)
		}
		out, msg, status := sh(t, "wal-g delete --confirm "+d.words, env)
		if dryStatus != status || dry != out {
			t.Errorf("%s: the dry run says\n%s, status %d; with --confirm it is\n%s, status %d", d.title, dry, dryStatus, out, status)
		}
		switch {
		case differs && status != other.status,
			!differs && (status == 0) != (d.status == 0),
			status != 0 && status != 64:
			t.Errorf("%s: status %d, WAL-G's was %d\n%s", d.title, status, d.status, msg)
		}
		got := kept(keysBelow(t, dir))
		for what := range all {
			slices.Sort(want[what])
			slices.Sort(got[what])
			if !slices.Equal(got[what], want[what]) {
				t.Errorf("%s: %s\n%q, want\n%q", d.title, what, got[what], want[what])
			}
		}
		if again, _, _ := sh(t, "walg-delete --json "+d.words, env); status == 0 && strings.Contains(again, `"total":`) &&
			!strings.Contains(again, `"total":{"backups":0,"objects":0,"bytes":0}`) {
			t.Errorf("%s: a second run would remove more:\n%s", d.title, again)
		}
	}
	if seen != len(deliberate) {
		t.Errorf("%d of %d deliberate differences were met", seen, len(deliberate))
	}
}

// The same run on each storage leaves the same objects as on a disk, says so
// before, and nothing of it depends on when the objects were put.
func TestRetentionOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		dir := store(t)
		fill(t, dir)
		s := client(t, append(st.settings(t), st.prefix+"="+st.place(t))...)
		s.upload(dir)
		keys := s.listed("")
		mark := "walg-backup-mark base_" + wal24(1, 2)
		steps := []string{mark, "walg-delete --grace 0 retain FULL 1 --confirm", mark + " -i", "walg-delete before --grace 0 --confirm base_" + wal24(1, 12)}
		for _, line := range steps {
			if strings.HasPrefix(line, "walg-delete") {
				plan := s.must(strings.Replace(line, "--confirm", "", 1))
				if now := s.listed(""); !slices.Equal(now, keys) {
					t.Fatalf("%s: a dry run removed something; left are %q", line, now)
				}
				if out := s.must(line); out != plan {
					t.Errorf("%s: the plan was\n%s, and then\n%s", line, plan, out)
				}
			} else {
				s.must(line)
			}
			if _, msg, status := sh(t, line, "WALG_FILE_PREFIX="+dir); status != 0 {
				t.Fatalf("%s: on a disk: status %d\n%s", line, status, msg)
			}
			keys = s.listed("")
			if want := keysBelow(t, dir); !slices.Equal(keys, want) {
				t.Errorf("%s: left are\n%q, want\n%q", line, keys, want)
			}
		}
		if len(keys) != 17 {
			t.Errorf("%d objects stay, want 17: %q", len(keys), keys)
		}
		if out := s.must("walg-backup-list"); strings.Count(out, "\n") != 3 {
			t.Errorf("the list of two backups:\n%s", out)
		}
		s.must("walg-retain leftovers --confirm --grace 0")
		s.must("wal-g delete everything --confirm")
		if keys := s.listed(""); !slices.Equal(keys, []string{"basebackups_005/junk.txt", "wal_005/00000002.history.lz4"}) {
			t.Errorf("after everything: %q", keys)
		}
	})
}

// upload puts all files below dir into the site's store, several at once.
func (s *site) upload(dir string) {
	s.t.Helper()
	s.must(`cd ` + quote(dir) + ` && find . -type f | sed 's,^\./,,' | xargs -P 8 -I {} sh -c 'walg-put "$1" <"$1"' sh {}`)
}
