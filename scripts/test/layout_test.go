//go:build linux

package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"walg/lib/postgres/pgtest"
)

// archive is a backup as it lies in a store, with every part opened by the
// stock programs.
type archive struct {
	dir, name                      string // the store, the backup
	sentinel, metadata, files      []byte // JSON; files is nil where there is none
	parts                          []string
	raw                            map[string][]byte   // part to tar
	members                        map[string][]member // part to members
	keys                           []string            // of all objects
	decoded, decodedMeta, fileList map[string]any
}

type member struct {
	tar.Header
	block []byte // the header as it is
	data  []byte
}

// openArchive reads the one backup of a store.
func openArchive(t testing.TB, dir, name string) *archive {
	t.Helper()
	a := &archive{dir: dir, name: name, raw: map[string][]byte{}, members: map[string][]member{}}
	base := filepath.Join(dir, "basebackups_005", name)
	a.sentinel, a.metadata = read(t, base+"_backup_stop_sentinel.json"), read(t, base+"/metadata.json")
	if exists(base + "/files_metadata.json") {
		a.files = read(t, base+"/files_metadata.json")
		a.fileList = decode(t, a.files)
	}
	a.decoded, a.decodedMeta = decode(t, a.sentinel), decode(t, a.metadata)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			a.keys = append(a.keys, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(base + "/tar_partitions")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := base + "/tar_partitions/" + e.Name()
		a.parts = append(a.parts, e.Name())
		a.raw[e.Name()] = read(t, path)
		if filepath.Ext(path) == ".lz4" {
			out, err := exec.Command("lz4", "-dc", path).Output()
			if err != nil {
				t.Fatalf("lz4 -dc %s: %v", path, err)
			}
			a.raw[e.Name()] = out
		}
		a.members[e.Name()] = membersOf(t, e.Name(), a.raw[e.Name()])
	}
	return a
}

// counter tells where a reader is.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func membersOf(t testing.TB, name string, raw []byte) (list []member) {
	t.Helper()
	at := &counter{r: bytes.NewReader(raw)}
	r := tar.NewReader(at)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("tar %s: %v", name, err)
		}
		m := member{Header: *h, block: raw[at.n-512 : at.n]}
		if m.data, err = io.ReadAll(r); err != nil {
			t.Fatalf("tar %s: %s: %v", name, h.Name, err)
		}
		list = append(list, m)
	}
}

// decode keeps numbers as they are written.
func decode(t testing.TB, text []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v\n%.200s", err, text)
	}
	return v
}

var (
	segmentName = regexp.MustCompile(`[0-9A-F]{24}`)
	partName    = regexp.MustCompile(`part_\d{3}`)
	offsetName  = regexp.MustCompile(`\.[0-9A-F]{8}\.backup`)
	oidName     = regexp.MustCompile(`\b[1-9]\d{4}\b`) // of what users made
	microTime   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$`)
	nanoTime    = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$`)
)

// kinds are names without what differs from backup to backup.
func kinds(names []string) []string {
	var out []string
	for _, name := range names {
		name = partName.ReplaceAllString(name, "part_NNN")
		name = segmentName.ReplaceAllString(offsetName.ReplaceAllString(name, ".OFFSET.backup"), "SEGMENT")
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shape is JSON with its keys in their order and a type in the place of each
// value. Of an object whose keys are data it is the shapes of the values.
func shape(t testing.TB, text []byte, path string) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return shapeOf(t, dec, path)
}

// data matches the paths of objects whose keys are names of files and the like.
var data = regexp.MustCompile(`^/(Files|TarFileSets|DatabasesByNames|DatabasesByNames/\*/tables_new)$`)

func shapeOf(t testing.TB, dec *json.Decoder, path string) string {
	t.Helper()
	token, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch v := token.(type) {
	case json.Delim:
		var list []string
		for dec.More() {
			if v == '[' {
				list = append(list, shapeOf(t, dec, path+"/*"))
				continue
			}
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			name := oidName.ReplaceAllString(key.(string), "OID")
			if data.MatchString(path) {
				name = "*"
			}
			list = append(list, name+":"+shapeOf(t, dec, path+"/"+name))
		}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		if v == '[' || data.MatchString(path) {
			slices.Sort(list)
			list = slices.Compact(list)
		}
		return string(v) + strings.Join(list, ",") + string(v+2)
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE-") {
			return "fraction"
		}
		return "whole"
	case string:
		switch {
		case strings.HasSuffix(path, "/MTime") && nanoTime.MatchString(v):
			return "nanoseconds"
		case microTime.MatchString(v):
			return "microseconds"
		}
		return "text"
	}
	return fmt.Sprintf("%T", token)
}

// sum adds the sizes of a part's members.
func (a *archive) sum(part string) (n int64) {
	for _, m := range a.members[part] {
		n += m.Size
	}
	return n
}

func number(t testing.TB, v any) int64 {
	t.Helper()
	n, ok := v.(json.Number)
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if !ok || err != nil {
		t.Fatalf("%v is no whole number: %v", v, err)
	}
	return i
}

// layout checks what must hold in each archive, WAL-G's own included.
func (a *archive) layout(t testing.TB, ext string) {
	t.Helper()
	const control, label = "pg_control.tar", "backup_label.tar"
	names := map[string]bool{}
	var total, stored int64
	for _, part := range a.parts {
		raw := a.raw[part]
		if len(raw)%512 != 0 || len(raw) < 1024 || !bytes.Equal(raw[len(raw)-1024:], make([]byte, 1024)) {
			t.Errorf("%s does not end in two zero blocks: %d bytes", part, len(raw))
		}
		total += a.sum(part)
		fi, err := os.Stat(filepath.Join(a.dir, "basebackups_005", a.name, "tar_partitions", part))
		if err != nil {
			t.Fatal(err)
		}
		stored += fi.Size()
		var want int64 = 1024
		for _, m := range a.members[part] {
			want += 512 + (m.Size+511)/512*512
			if m.Format != tar.FormatUSTAR || m.Typeflag != tar.TypeReg && m.Typeflag != tar.TypeDir || !bytes.Equal(m.block[257:265], []byte("ustar\x0000")) {
				t.Errorf("%s: %s: type %c in %v, %q", part, m.Name, m.Typeflag, m.Format, m.block[257:265])
			}
			if m.ModTime.Nanosecond() != 0 || m.Mode&^0o777 != 0 {
				t.Errorf("%s: %s: time %v, mode %o", part, m.Name, m.ModTime, m.Mode)
			}
			if names[m.Name] {
				t.Errorf("%s is there twice", m.Name)
			}
			names[m.Name] = true
			switch part {
			case control + ext, label + ext:
			default:
				if !strings.HasPrefix(m.Name, "/") || m.Name != "/" && strings.HasSuffix(m.Name, "/") || m.Uname == "" || m.Gname == "" {
					t.Errorf("%s: %q of %s:%s", part, m.Name, m.Uname, m.Gname)
				}
			}
		}
		if int64(len(raw)) != want {
			t.Errorf("%s: %d bytes, its members take %d", part, len(raw), want)
		}
	}
	if c := a.members[control+ext]; len(c) != 1 || c[0].Name != "/global/pg_control" || c[0].Size != 8192 || c[0].Mode != 0o600 {
		t.Errorf("%s: %v", control, c)
	}
	l := a.members[label+ext]
	if len(l) != 2 || l[0].Name != "backup_label" || l[1].Name != "tablespace_map" {
		t.Fatalf("%s: %v", label, l)
	}
	for _, m := range l {
		// WAL-G makes them root's. Ours belong to whom the cluster belongs to,
		// so that a stock tar restores what the server can read.
		if m.Mode != 0o600 || m.ModTime.Unix() != 0 {
			t.Errorf("%s: mode %o, time %v", m.Name, m.Mode, m.ModTime)
		}
	}
	segment := strings.TrimPrefix(a.name, "base_")
	if !bytes.HasPrefix(l[0].data, []byte("START WAL LOCATION: ")) || !bytes.Contains(l[0].data, []byte(" (file "+segment+")\n")) {
		t.Errorf("backup_label of %s:\n%s", a.name, l[0].data)
	}
	if got := number(t, a.decoded["UncompressedSize"]); got != total {
		t.Errorf("UncompressedSize %d, the members have %d", got, total)
	}
	if got := number(t, a.decoded["CompressedSize"]); got > stored || got < stored-100 {
		t.Errorf("CompressedSize %d, the objects have %d", got, stored)
	}
	for _, text := range [][]byte{a.sentinel, a.metadata, a.files} {
		if bytes.ContainsAny(text, "\n") {
			t.Error("JSON is not in one line without an end")
		}
	}
	// What the list of files says is what is in the parts.
	if a.files == nil {
		return
	}
	sets := a.fileList["TarFileSets"].(map[string]any)
	listed := a.fileList["Files"].(map[string]any)
	for _, part := range a.parts {
		var want, got []string
		for _, m := range a.members[part] {
			want = append(want, m.Name)
		}
		if set, ok := sets[part].([]any); ok {
			for _, name := range set {
				got = append(got, name.(string))
			}
		}
		switch part {
		case control + ext:
			want = nil
		case label + ext:
			slices.Reverse(want)
		default:
			for _, name := range want {
				if listed[name] == nil {
					t.Errorf("%s is not in Files", name)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("TarFileSets of %s: %d names %.100q, want %d %.100q", part, len(got), got, len(want), want)
		}
	}
	if want := len(names) - 3; len(listed) != want || len(sets) != len(a.parts)-1 {
		t.Errorf("%d Files, want %d; %d TarFileSets of %d parts", len(listed), want, len(sets), len(a.parts))
	}
}

// The test's own idea of the layout, held against what WAL-G wrote.
func TestGoldenArchivesHaveTheLayoutThatWeCheck(t *testing.T) {
	for archive, backup := range map[string]string{
		"lz4_full": "base_000000010000000000000003", "multi_tar": "base_000000010000000000000003", "tablespace": "base_000000010000000000000004",
	} {
		dir := filepath.Join(t.TempDir(), archive)
		goldenStore(t, archive, dir)
		openArchive(t, dir, backup).layout(t, ".lz4")
	}
}

// Our archive of a cluster like the golden ones is like them: the same names
// of objects, keys and members, the same types, the same headers.
func TestArchiveHasTheLayoutOfWALG(t *testing.T) {
	together(t)
	stored := filepath.Join(t.TempDir(), "golden")
	goldenStore(t, "tablespace", stored)
	golden := openArchive(t, stored, "base_000000010000000000000004")
	const threshold = 4 << 20
	s := newSite(t, pgtest.Options{Checksums: true}, "WALG_TAR_SIZE_THRESHOLD="+strconv.Itoa(threshold))
	space := s.Mkdir("space")
	s.MustExec("create tablespace other location "+sqlText(space), "create table in_ts (id int primary key, t text) tablespace other",
		"insert into in_ts select g, repeat('x', 500) from generate_series(1, 100) g")
	start := time.Now()
	name := strings.TrimSpace(s.must("walg-backup-push " + s.DataDir))
	end := time.Now()
	s.archived()
	a := openArchive(t, s.store, name)
	a.layout(t, ".lz4")

	sameLines(t, "the names of objects", kinds(a.keys), kinds(golden.keys))
	for _, c := range []struct {
		what      string
		got, want []byte
	}{
		{"sentinel", a.sentinel, golden.sentinel}, {"metadata.json", a.metadata, golden.metadata}, {"files_metadata.json", a.files, golden.files},
	} {
		if got, want := shape(t, c.got, ""), shape(t, c.want, ""); got != want {
			t.Errorf("%s is\n%s\nWAL-G's is\n%s", c.what, got, want)
		}
	}

	// The values.
	version := s.SQL("postgres", "show server_version_num")
	system := s.SQL("postgres", "select system_identifier from pg_control_system()")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	label := string(a.members["backup_label.tar.lz4"][0].data)
	lsn := regexp.MustCompile(`^START WAL LOCATION: (\S+) `).FindStringSubmatch(label)[1]
	oid := s.SQL("postgres", "select oid from pg_tablespace where spcname = 'other'")
	for key, want := range map[string]string{
		"LSN":              s.SQL("postgres", "select '"+lsn+"'::pg_lsn - '0/0'"),
		"PgVersion":        version,
		"SystemIdentifier": system,
		"Hostname":         host,
		"DataDir":          s.DataDir,
		"IsPermanent":      "false",
		"Version":          "2",
		"DateFmt":          "%Y-%m-%dT%H:%M:%S.%fZ",
		"ChkpNum":          "<nil>",
		"Spec":             fmt.Sprintf("map[%s:map[link:pg_tblspc/%[1]s loc:%s] base_prefix:%s tablespaces:[%[1]s]]", oid, space, s.DataDir),
	} {
		if got := fmt.Sprint(a.decoded[key]); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	if finish := number(t, a.decoded["FinishLSN"]); finish <= number(t, a.decoded["LSN"]) {
		t.Errorf("FinishLSN %d is not after LSN %v", finish, a.decoded["LSN"])
	}
	if size := number(t, a.decoded["DataCatalogSize"]); size < number(t, a.decoded["UncompressedSize"]) {
		t.Errorf("DataCatalogSize %d is less than what was archived", size)
	}
	began, err1 := time.Parse(time.RFC3339Nano, a.decoded["StartTime"].(string))
	finished, err2 := time.Parse(time.RFC3339Nano, a.decoded["FinishTime"].(string))
	if err := errors.Join(err1, err2); err != nil || began.Before(start) || finished.Before(began) || finished.After(end.Add(time.Microsecond)) {
		t.Errorf("from %v to %v, was from %v to %v: %v", began, finished, start, end, err)
	}
	for key, same := range map[string]string{
		"start_time": "StartTime", "finish_time": "FinishTime", "date_fmt": "DateFmt", "hostname": "Hostname", "data_dir": "DataDir", "pg_version": "PgVersion",
		"start_lsn": "LSN", "finish_lsn": "FinishLSN", "is_permanent": "IsPermanent", "system_identifier": "SystemIdentifier",
		"uncompressed_size": "UncompressedSize", "compressed_size": "CompressedSize",
	} {
		if got, want := fmt.Sprint(a.decodedMeta[key]), fmt.Sprint(a.decoded[same]); got != want {
			t.Errorf("metadata %s: %s, sentinel %s: %s", key, got, same, want)
		}
	}

	// The members, and in which part they are.
	var got, last []string
	for _, part := range a.parts {
		if !strings.HasPrefix(part, "part_") {
			continue
		}
		got = append(got, skeleton(a.members[part])...)
		for _, m := range a.members[part] {
			last = append(last, m.Name)
		}
		if !slices.IsSorted(last) {
			t.Errorf("%s is not in the order of its names", part)
		}
		members := a.members[part]
		if n := a.sum(part); part != lastPart(a.parts) && (n <= threshold || n-members[len(members)-1].Size > threshold) {
			t.Errorf("%s ends with %d bytes, %d of them in its last member; the threshold is %d", part, n, members[len(members)-1].Size, threshold)
		}
	}
	want := skeleton(golden.members["part_001.tar.lz4"])
	slices.Sort(got)
	slices.Sort(want)
	sameLines(t, "the list of directories, and of files at the top and in the tablespace", got, want)

	// The headers, byte for byte but for owner, size, time and sum.
	for _, name := range []string{"/", "/PG_VERSION", "/base/1", "/pg_wal"} {
		if got, want := header(t, a, name), header(t, golden, name); !bytes.Equal(got, want) {
			t.Errorf("header of %s:\n%q\nWAL-G's:\n%q", name, got, want)
		}
	}
	if got, want := header(t, a, "backup_label"), header(t, golden, "backup_label"); !bytes.Equal(got, want) {
		t.Errorf("header of backup_label:\n%q\nWAL-G's:\n%q", got, want)
	}

	// What is known of a file is what it is.
	fi, err := os.Stat(s.DataDir + "/PG_VERSION")
	if err != nil {
		t.Fatal(err)
	}
	entry := a.fileList["Files"].(map[string]any)["/PG_VERSION"]
	if want := "map[IsIncremented:false IsSkipped:false MTime:" + fi.ModTime().UTC().Format(time.RFC3339Nano) + " UpdatesCount:0]"; fmt.Sprint(entry) != want {
		t.Errorf("PG_VERSION in Files: %v, want %s", entry, want)
	}
	databases := a.fileList["DatabasesByNames"].(map[string]any)
	if got := slices.Sorted(maps.Keys(databases)); !slices.Equal(got, []string{"postgres", "template1"}) {
		t.Errorf("databases %q", got)
	}
	tables := databases["postgres"].(map[string]any)["tables_new"].(map[string]any)
	row := s.SQL("postgres", "select oid, relfilenode from pg_class where relname = 'in_ts'")
	if got := fmt.Sprint(tables["public.in_ts"]); got != "map[oid:"+strings.Replace(row, "|", " relfilenode:", 1)+"]" {
		t.Errorf("in_ts is %s, want %s", got, row)
	}
	if n := len(tables); strconv.Itoa(n) != s.SQL("postgres", "select count(*) from pg_class where pg_relation_filenode(oid) is not null") {
		t.Errorf("%d relations", n)
	}
}

// skeleton are the names and modes of directories, and of the files at the top
// and in tablespaces. The directory of temporary files we leave out, as
// PostgreSQL's own backups do; free space maps come and go.
func skeleton(members []member) (lines []string) {
	for _, m := range members {
		if (m.Typeflag == tar.TypeDir || strings.HasPrefix(m.Name, "/pg_tblspc/") || strings.Count(m.Name, "/") == 1) &&
			m.Name != "/base/pgsql_tmp" && !strings.HasSuffix(m.Name, "_fsm") {
			lines = append(lines, fmt.Sprintf("%s %o", oidName.ReplaceAllString(m.Name, "OID"), m.Mode))
		}
	}
	return lines
}

func lastPart(parts []string) (last string) {
	for _, part := range parts {
		if strings.HasPrefix(part, "part_") {
			last = part
		}
	}
	return last
}

// header is a member's header without owner, size, time and sum.
func header(t testing.TB, a *archive, name string) []byte {
	t.Helper()
	for _, part := range a.parts {
		for _, m := range a.members[part] {
			if m.Name != name {
				continue
			}
			block := bytes.Clone(m.block)
			for _, field := range [][2]int{{108, 155}, {265, 329}} { // uid to checksum, names
				for i := field[0]; i < field[1]; i++ {
					if block[i] != 0 && block[i] != ' ' {
						block[i] = '.'
					}
				}
			}
			clear(block[265:329])
			return block
		}
	}
	t.Fatalf("no member %s in %s", name, a.name)
	return nil
}

// What an option changes, it changes as in WAL-G.
func TestOptionsOfABackupShowInItsObjects(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{})
	name := strings.TrimSpace(s.must(`walg-backup-push --permanent --without-files-metadata --add-user-data '{"a": [1, "x"]}' ` + s.DataDir))
	a := openArchive(t, s.store, name)
	a.layout(t, ".lz4")
	if a.files != nil {
		t.Error("files_metadata.json is there")
	}
	order := regexp.MustCompile(`"DataCatalogSize":\d+,"UserData":\{"a":\s?\[1,\s?"x"\]\},"FilesMetadataDisabled":true,"ChkpNum":null,"Version":2,.*"IsPermanent":true\}$`)
	if !order.Match(a.sentinel) {
		t.Errorf("sentinel %s", a.sentinel)
	}
	if order := regexp.MustCompile(`"is_permanent":true,.*"compressed_size":\d+,"user_data":\{"a":\s?\[1,\s?"x"\]\}\}$`); !order.Match(a.metadata) {
		t.Errorf("metadata %s", a.metadata)
	}

	plain := &site{Cluster: s.Cluster, t: t, store: serverStore(t)}
	plain.settings = []string{"WALG_FILE_PREFIX=" + plain.store, "WALG_COMPRESSION_METHOD=none", "WALG_DISABLE_PARTIAL_RESTORE=true", "WALG_SENTINEL_USER_DATA=7"}
	name = strings.TrimSpace(plain.must("walg-backup-push " + s.DataDir))
	plain.must("cd " + s.DataDir + " && walg-wal-push pg_wal/" + s.SQL("postgres", "select pg_walfile_name(pg_current_wal_lsn())"))
	b := openArchive(t, plain.store, name)
	b.layout(t, "")
	want := []string{
		"basebackups_005/base_SEGMENT/files_metadata.json", "basebackups_005/base_SEGMENT/metadata.json",
		"basebackups_005/base_SEGMENT/tar_partitions/backup_label.tar", "basebackups_005/base_SEGMENT/tar_partitions/part_NNN.tar",
		"basebackups_005/base_SEGMENT/tar_partitions/pg_control.tar", "basebackups_005/base_SEGMENT_backup_stop_sentinel.json", "wal_005/SEGMENT",
	}
	sameLines(t, "the names of objects", kinds(b.keys), want)
	if _, has := b.fileList["DatabasesByNames"]; has {
		t.Error("DatabasesByNames is there")
	}
	if !bytes.Contains(b.sentinel, []byte(`,"UserData":7,"ChkpNum":null,`)) {
		t.Errorf("sentinel %s", b.sentinel)
	}
	// Without tablespaces there is no Spec, and an empty map.
	if _, has := b.decoded["Spec"]; has || b.members["backup_label.tar"][1].Size != 0 {
		t.Errorf("Spec %v, tablespace_map of %d bytes", b.decoded["Spec"], b.members["backup_label.tar"][1].Size)
	}
}
