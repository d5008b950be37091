//go:build linux

package test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/postgres/pgtest"
	"walg/lib/store/servertest"
)

// A storage is one behind a network, with a real server to speak to.
type storage struct {
	server string   // of server.sh
	prefix string   // the setting that names the prefix
	alias  string   // another scheme that means the same, or empty
	parts  []string // settings that make uploads of large objects have many parts
	paths  bool     // names are paths to the server: it cannot keep a double slash in them
}

var storages = []storage{
	{"minio", "WALG_S3_PREFIX", "", []string{"S3_MAX_PART_SIZE=5242880"}, true},
	{"minio-tls", "WALG_S3_PREFIX", "", []string{"S3_MAX_PART_SIZE=5242880"}, true},
	{"versitygw", "WALG_S3_PREFIX", "", []string{"S3_MAX_PART_SIZE=5242880"}, true},
	{"fake-gcs-server", "WALG_GS_PREFIX", "gcs", []string{"GCS_MAX_CHUNK_SIZE=8388608"}, false},
	{"azurite", "WALG_AZ_PREFIX", "az", []string{"WALG_AZURE_BUFFER_SIZE=4194304"}, false},
	{"swift", "WALG_SWIFT_PREFIX", "", nil, false},
	{"swift-v3", "WALG_SWIFT_PREFIX", "", nil, false},
	{"sshd", "WALG_SSH_PREFIX", "sftp", nil, false},
}

// large is more than one part of an upload to any of them.
const large = 17 << 20

// onEachStorage runs a test for each storage, two at a time.
func onEachStorage(t *testing.T, test func(t *testing.T, st storage)) {
	for _, st := range storages {
		t.Run(st.server, func(t *testing.T) {
			together(t)
			test(t, st)
		})
	}
}

// settings are what clients need to reach the server, without a prefix. Its
// secrets are for whoever runs the programs.
func (st storage) settings(t testing.TB) []string {
	t.Helper()
	env := maps.Clone(servertest.Get(t, st.server).Env)
	delete(env, st.prefix)
	if key := env["SSH_PRIVATE_KEY_PATH"]; key != "" {
		mine := filepath.Join(pgtest.Dir(t), "id")
		if err := os.WriteFile(mine, read(t, key), 0o600); err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, mine)
		env["SSH_PRIVATE_KEY_PATH"] = mine
		// For other tests, or other ways in.
		for _, name := range []string{"SSH_HOST", "SSH_PORT", "SSH_PASSWORD", "SSH_PRIVATE_KEY_ENCRYPTED_PATH", "SSH_PASSPHRASE"} {
			delete(env, name)
		}
	}
	list := slices.Clone(st.parts)
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// place is the URL of an empty place in the storage.
func (st storage) place(t testing.TB) (url string) {
	t.Helper()
	url = servertest.Get(t, st.server).Env[st.prefix] + "/" + strings.ToLower(rand.Text())
	st.prepare(t, url)
	return url
}

// prepare makes the directory that a prefix of SSH names: walg never does.
func (st storage) prepare(t testing.TB, prefix string) {
	t.Helper()
	if rest, ok := strings.CutPrefix(prefix, "ssh://"); ok {
		_, path, _ := strings.Cut(rest, "/")
		makeBelow(t, filepath.Clean("/"+path))
	}
}

// makeBelow makes a directory for the owner of the one that it is in.
func makeBelow(t testing.TB, dir string) {
	t.Helper()
	if exists(dir) {
		return
	}
	makeBelow(t, filepath.Dir(dir))
	fi, err := os.Stat(filepath.Dir(dir))
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		owner := fi.Sys().(*syscall.Stat_t)
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// client is a site without a server, for programs that know of the settings and
// of nothing else in the environment.
func client(t testing.TB, settings ...string) *site {
	t.Helper()
	dir := pgtest.Dir(t)
	return &site{Cluster: &pgtest.Cluster{Major: 15, Dir: dir, SocketDir: dir, Port: 5432, User: "postgres"}, t: t, settings: settings}
}

// noise makes a file of random bytes that the site's programs may read.
func (s *site) noise(name string, size int) (path string, content []byte) {
	s.t.Helper()
	content = make([]byte, size)
	rand.Read(content) // never fails
	path = filepath.Join(s.Dir, name)
	write(s.t, path, content)
	pgtest.Own(s.t, path)
	return path, content
}

// listed are the keys below the prefix, which must come in byte order.
func (s *site) listed(prefix string) []string {
	s.t.Helper()
	keys := strings.Split(strings.TrimSuffix(s.must("walg-get -l "+quote(prefix)), "\n"), "\n")
	if keys[0] == "" {
		return nil
	}
	if !slices.IsSorted(keys) {
		s.t.Errorf("the list is not in byte order: %q", keys)
	}
	return keys
}

// A cluster under load archives to each storage, is backed up there and lost,
// and comes back with the same data.
func TestBackupWALAndRestoreOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		s := &site{t: t, settings: append(st.settings(t), st.prefix+"="+st.place(t), "WALG_TAR_SIZE_THRESHOLD=4194304")}
		s.begin(pgtest.Options{Checksums: true})
		noise, _ := s.noise("noise", large)
		s.MustExec("create table noise (bytes bytea)", "alter table noise alter bytes set storage external",
			"insert into noise select pg_read_binary_file("+sqlText(noise)+")")
		s.PgbenchInit(1)
		load := s.startLoad()
		name := strings.TrimSpace(s.must("walg-backup-push " + s.DataDir))
		load.more()
		load.stop()
		s.MustExec("create table marker as select 'after the backup'::text note", "create index on marker (note)")
		want := sums(s.Cluster)
		segment := s.SQL("postgres", "select pg_walfile_name(pg_switch_wal())")
		s.WaitFor("select last_archived_wal >= "+sqlText(segment)+" from pg_stat_archiver", "t")
		if failed := s.SQL("postgres", "select failed_count from pg_stat_archiver"); failed != "0" {
			t.Errorf("archiving failed %s times", failed)
		}
		s.Stop("immediate") // what comes back comes from the storage

		s.catalogued(name)
		s.archivedOnce(segment)
		c := s.recover(`walg-backup-fetch "$DIR" LATEST`, nil)
		if got := sums(c); got != want {
			t.Errorf("recovered:\n%swant:\n%s", got, want)
		}
		sound(t, c)
		clean(t, s, c)
	})
}

// catalogued fails the test unless name is the one backup, and all of it is in
// the storage.
func (s *site) catalogued(name string) {
	s.t.Helper()
	if out := s.must("walg-backup-list"); strings.Count(out, "\n") != 2 || !strings.Contains(out, name) {
		s.t.Errorf("walg-backup-list does not show %s alone:\n%s", name, out)
	}
	var detail []struct {
		Name string `json:"backup_name"`
	}
	if out := s.must("walg-retain list --json --detail"); json.Unmarshal([]byte(out), &detail) != nil || len(detail) != 1 || detail[0].Name != name {
		s.t.Errorf("walg-retain list --json --detail does not show %s alone:\n%s", name, out)
	}
	if out := s.must("walg-retain chain LATEST"); out != name+"\n" {
		s.t.Errorf("the chain of LATEST is %q, want %s", out, name)
	}
	keys := s.listed("")
	parts := strings.Fields(s.must("walg-retain parts " + name))
	if len(parts) < 5 || !strings.HasSuffix(parts[len(parts)-1], "/pg_control.tar.lz4") {
		s.t.Errorf("parts %q, want five or more, pg_control last", parts)
	}
	for _, key := range append(parts, "basebackups_005/"+name+"_backup_stop_sentinel.json",
		"basebackups_005/"+name+"/metadata.json", "basebackups_005/"+name+"/files_metadata.json") {
		if _, there := slices.BinarySearch(keys, key); !there {
			s.t.Errorf("%s is not listed", key)
		}
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "basebackups_005/"+name) && !strings.HasPrefix(key, "wal_005/") {
			s.t.Errorf("%s is listed, and nobody put it", key)
		}
	}
}

// archivedOnce fails the test unless an archived segment can be archived again
// as it is, and never with other content.
func (s *site) archivedOnce(segment string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, segment)
	s.must("walg-wal-fetch " + segment + " " + path)
	content := read(s.t, path)
	s.must("walg-wal-push " + path)
	other := bytes.Clone(content)
	other[len(other)/2] ^= 1
	if err := os.WriteFile(path, other, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, msg, status := s.run("walg-wal-push " + path); status != 73 || !strings.Contains(msg, "other content") {
		s.t.Errorf("archiving %s with other content: status %d, want 73\n%s", segment, status, msg)
	}
	s.must("walg-wal-fetch " + segment + " " + path)
	if !bytes.Equal(read(s.t, path), content) {
		s.t.Errorf("%s has changed in the archive", segment)
	}
	absent := strings.Repeat("F", 24)
	if _, msg, status := s.run("walg-wal-fetch " + absent + " " + filepath.Join(s.Dir, absent)); status != 74 {
		s.t.Errorf("a segment that was never archived: status %d, want 74\n%s", status, msg)
	}
}

// Whatever kills walg-put while it sends, no reader ever sees a part of the
// object, and one that was there before stays.
func TestKilledPutLeavesNothingToSeeOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		s := client(t, append(st.settings(t), st.prefix+"="+st.place(t))...)
		s.noise("noise", large)
		old, content := s.noise("old", 1000)
		s.must("walg-put there/old <" + old)
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			for _, key := range []string{"new", "there/old"} {
				held := newGate(t)
				// More than all buffers hold: some parts have arrived.
				write(t, s.Dir+"/produce", []byte("cat noise noise noise noise noise noise\n"+held.line()+"\n"))
				put := start(t, s.command("exec walg-put "+key+" -- sh produce"))
				held.reached(t)
				put.signal(sig)
				if _, msg, status := put.wait(); status == 0 {
					t.Errorf("%v: status 0\n%s", sig, msg)
				}
			}
			if keys := s.listed(""); !slices.Equal(keys, []string{"there/old"}) {
				t.Errorf("%v: listed are %q", sig, keys)
			}
			if _, msg, status := s.run("walg-get --name new"); status != 66 {
				t.Errorf("%v: the object: status %d, want 66\n%s", sig, status, msg)
			}
			if out := s.must("walg-get there/old"); out != string(content) {
				t.Errorf("%v: the old object has %d other bytes", sig, len(out))
			}
			t.Logf("%v: leftovers:\n%s", sig, s.must("walg-retain leftovers"))
		}
	})
}

// A prefix may have any form that a person or a script gives it. Slashes around
// it do not matter.
func TestPrefixOfAnyFormOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		place, settings := st.place(t), st.settings(t)
		for _, form := range []struct{ given, clean string }{
			{"/with spaces in it", "/with spaces in it"},
			{"/v1.2/.hidden/d..e", "/v1.2/.hidden/d..e"},
			{"/ünï/日本語/e\u0301", "/ünï/日本語/e\u0301"},
			{"/100%25/a+b&c=d,e;f'(g)!~*$@", "/100%25/a+b&c=d,e;f'(g)!~*$@"},
			{"/trailing/", "/trailing"},
			{"/trailing twice//", "/trailing twice"},
			{"/double//slash", ""}, // no absolute KEY can say so
		} {
			t.Run(form.given, func(t *testing.T) {
				st.prepare(t, place+form.given)
				s := client(t, append(settings, st.prefix+"="+place+form.given)...)
				if st.paths && form.clean == "" {
					// Amazon's own S3 keeps it. These refuse it or lose it, which
					// must not look like an empty archive for long.
					if out, msg, status := s.run("walg-put --check"); status == 0 || !strings.Contains(out, "failed") {
						t.Errorf("--check finds no fault: status %d\n%s%s", status, out, msg)
					}
					return
				}
				file, content := s.noise("file", 1000)
				s.must("walg-put k/é.1 <" + file + " && walg-put k.0 <" + file)
				if keys := s.listed(""); !slices.Equal(keys, []string{"k.0", "k/é.1"}) {
					t.Errorf("listed are %q", keys)
				}
				if keys := s.listed("k/"); !slices.Equal(keys, []string{"k/é.1"}) {
					t.Errorf("listed below k/ are %q", keys)
				}
				if out := s.must("walg-get k/é.1"); out != string(content) {
					t.Errorf("%d other bytes", len(out))
				}
				if form.clean == "" {
					return
				}
				url := place + form.clean + "/k/é.1"
				if out := client(t, settings...).must("walg-get " + quote(url)); out != string(content) {
					t.Errorf("%s: %d other bytes", url, len(out))
				}
			})
		}
	})
}

// Buckets that WAL-E wrote have names which begin with a slash.
func TestPrefixWithALeadingSlashStaysSoOnGCSWhenAsked(t *testing.T) {
	together(t)
	st := storages[slices.IndexFunc(storages, func(st storage) bool { return st.prefix == "WALG_GS_PREFIX" })]
	below := "/wal-e/" + strings.ToLower(rand.Text())
	s := client(t, append(st.settings(t), st.prefix+"=gs://walg/"+below+"/", "GCS_NORMALIZE_PREFIX=false")...)
	file, content := s.noise("file", 1000)
	s.must("walg-put k/y <" + file)
	if out := s.must("walg-get k/y"); out != string(content) {
		t.Errorf("%d other bytes", len(out))
	}
	if keys := s.listed(""); !slices.Equal(keys, []string{"k/y"}) {
		t.Errorf("listed are %q", keys)
	}
	// The bucket itself says under which name it is.
	resp, err := http.Get("http://" + servertest.Get(t, st.server).Env["STORAGE_EMULATOR_HOST"] + "/storage/v1/b/walg/o?prefix=" + below)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []struct{ Name string } }
	if err := json.Unmarshal(text, &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != below+"/k/y" {
		t.Errorf("%v; the bucket has %s", err, text)
	}
	normal := client(t, append(st.settings(t), st.prefix+"=gs://walg/"+below+"/")...)
	if keys := normal.listed(""); keys != nil {
		t.Errorf("without the leading slash too there is %q", keys)
	}
}

func TestMoreThanOnePrefixIsRefusedByAllPrograms(t *testing.T) {
	s := client(t, "WALG_FILE_PREFIX=/tmp")
	for _, st := range storages {
		scheme := map[string]string{"WALG_S3_PREFIX": "s3", "WALG_GS_PREFIX": "gs", "WALG_AZ_PREFIX": "azure",
			"WALG_SWIFT_PREFIX": "swift", "WALG_SSH_PREFIX": "ssh"}[st.prefix]
		s.settings = append(s.settings, st.prefix+"="+scheme+"://place/path")
	}
	want := "more than one storage is configured: WALG_AZ_PREFIX, WALG_FILE_PREFIX, WALG_GS_PREFIX, WALG_S3_PREFIX, WALG_SSH_PREFIX, WALG_SWIFT_PREFIX"
	for _, line := range []string{
		"walg-put k </dev/null", "walg-put --check", "walg-get k", "walg-get -l", "walg-get --try-ext --name k",
		"walg-retain list", "walg-retain chain LATEST", "walg-retain leftovers", "walg-backup-list",
		"walg-backup-fetch " + s.Dir + "/new", "walg-wal-push " + s.Dir + "/000000010000000000000001",
	} {
		write(t, s.Dir+"/000000010000000000000001", []byte("x"))
		if _, msg, status := s.run(line); status != 64 || !strings.Contains(msg, want) {
			t.Errorf("%s: status %d, want 64 and the names of all:\n%s", line, status, msg)
		}
	}
}

func TestCheckTellsWhatWorksAndLeavesNothingOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		s := client(t, append(st.settings(t), st.prefix+"="+st.place(t))...)
		want := ""
		for _, step := range []string{"connect", "write", "conditional write", "overwrite", "read back", "list", "delete", "clean-up"} {
			want += fmt.Sprintf("%-18s ok\n", step)
		}
		if out, msg, status := s.run("walg-put --check"); status != 0 || out != want || msg != "" {
			t.Errorf("status %d\n%s%s", status, out, msg)
		}
		if keys := s.listed(""); keys != nil {
			t.Errorf("left are %q", keys)
		}
		if left := s.must("walg-retain leftovers"); left != "" {
			t.Errorf("left are %s", left)
		}
	})
}

// A KEY that is a URL needs no prefix, and is the same object as one below it.
func TestAbsoluteKeysOnEachStorage(t *testing.T) {
	onEachStorage(t, func(t *testing.T, st storage) {
		place, settings := st.place(t), st.settings(t)
		s := client(t, settings...)
		small, little := s.noise("small", 1000)
		big, much := s.noise("big", large)
		s.must("walg-put " + place + "/dir/small <" + small)
		s.must("walg-put --if-absent " + place + "/dir/big <" + big)
		if out := s.must("walg-get " + place + "/dir/small"); out != string(little) {
			t.Errorf("%d other bytes", len(out))
		}
		if out := s.must("walg-get " + place + "/dir/big"); out != string(much) {
			t.Errorf("%d other bytes of %d", len(out), len(much))
		}
		if out := s.must("walg-get --range 5000000-9999999 " + place + "/dir/big"); out != string(much[5_000_000:10_000_000]) {
			t.Errorf("a range has %d other bytes", len(out))
		}
		for _, file := range []string{small, big} {
			if _, msg, status := s.run("walg-put --if-absent " + place + "/dir/big <" + file); status != 73 {
				t.Errorf("an object that exists: status %d, want 73\n%s", status, msg)
			}
		}
		if _, msg, status := s.run("walg-get " + place + "/dir/absent"); status != 66 || !strings.Contains(msg, place+"/dir/absent") {
			t.Errorf("an object that is not there: status %d, want 66\n%s", status, msg)
		}
		if keys := s.listed(place + "/d"); !slices.Equal(keys, []string{place + "/dir/big", place + "/dir/small"}) {
			t.Errorf("listed are %q", keys)
		}
		if scheme, rest, _ := strings.Cut(place, "://"); st.alias != "" {
			if out := s.must("walg-get " + st.alias + "://" + rest + "/dir/small"); out != string(little) {
				t.Errorf("%s is not %s: %d other bytes", st.alias, scheme, len(out))
			}
		}
		relative := client(t, append(settings, st.prefix+"="+place)...)
		if keys := relative.listed(""); !slices.Equal(keys, []string{"dir/big", "dir/small"}) {
			t.Errorf("listed below the prefix are %q", keys)
		}
		var stat struct {
			URL   string
			Size  int64
			MTime time.Time
		}
		out := relative.must("walg-get --stat dir/big")
		if err := json.Unmarshal([]byte(out), &stat); err != nil || stat.URL != place+"/dir/big" || stat.Size != large || time.Since(stat.MTime).Abs() > time.Hour {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
