//go:build linux

package test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/postgres/pgtest"
)

// desk is a site without a server: a store, and a folder that stands for a
// data directory.
func desk(t testing.TB, settings ...string) *site {
	t.Helper()
	s := &site{t: t, Cluster: &pgtest.Cluster{Major: 15, Dir: pgtest.Dir(t)}}
	s.SocketDir, s.DataDir = s.Dir, s.Mkdir("data")
	s.store = s.Mkdir("store")
	s.settings = append([]string{"WALG_FILE_PREFIX=" + s.store, "WALG_PG_WAL_SIZE=1"}, settings...)
	s.Mkdir("data/pg_wal")
	return s
}

const (
	segmentSize = 1 << 20
	segment     = "000000010000000000000007"
)

// wal makes a file of pg_wal, different for each seed, which compresses to
// about half.
func (s *site) wal(name string, seed uint64, size int) string {
	s.t.Helper()
	path := filepath.Join(s.DataDir, "pg_wal", name)
	write(s.t, path, walBytes(seed, size))
	pgtest.Own(s.t, path)
	return path
}

func walBytes(seed uint64, size int) []byte {
	content := make([]byte, size)
	x := seed*2654435761 + 1
	for i := 0; i < size; i += 2 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		content[i] = byte(x)
	}
	return content
}

// stored is what the stock lz4 makes of an object.
func (s *site) stored(key string) []byte {
	s.t.Helper()
	out, err := exec.Command("lz4", "-dc", s.object(key)).Output()
	if err != nil {
		s.t.Fatalf("lz4 -dc %s: %v", key, err)
	}
	return out
}

func hexSum(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// archivable are names that PostgreSQL archives, with sizes.
var archivable = map[string]int{
	segment:                      segmentSize,
	segment + ".partial":         segmentSize,
	segment + ".00000028.backup": 330,
	"00000002.history":           41,
}

func TestArchivingTheSameAgainSucceedsAndAnythingElseFails(t *testing.T) {
	for name, size := range archivable {
		t.Run(name, func(t *testing.T) {
			s := desk(t)
			path := s.wal(name, 1, size)
			ours := read(t, path)
			s.must("walg-wal-push " + path)
			if got := s.stored("wal_005/" + name + ".lz4"); !bytes.Equal(got, ours) {
				t.Errorf("stored %d bytes, not the %d of the file", len(got), len(ours))
			}
			before := snapshot(t, s.store)
			s.must("walg-wal-push " + path)
			s.wal(name, 2, size)
			_, msg, status := s.run("walg-wal-push " + path)
			if status != 73 || !strings.Contains(msg, hexSum(ours)) || !strings.Contains(msg, hexSum(read(t, path))) {
				t.Errorf("other content: status %d, want 73 and both digests\n%s", status, msg)
			}
			// A store without its mark of durability is asked for it again.
			if after := snapshot(t, s.store); after != before {
				t.Errorf("the store changed from\n%sto\n%s", before, after)
			}
		})
	}
}

func TestOverwritingIsForSegmentsAndOnlyWhereItIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		setting, name string
		status        int
	}{
		{"WALG_PREVENT_WAL_OVERWRITE=false", segment, 0},
		{"WALG_PREVENT_WAL_OVERWRITE=0", segment, 0},
		{"WALG_PREVENT_WAL_OVERWRITE=FALSE", segment + ".partial", 0},
		{"WALG_PREVENT_WAL_OVERWRITE=true", segment, 73},
		{"WALG_PREVENT_WAL_OVERWRITE=", segment, 73},
		{"WALG_PREVENT_WAL_OVERWRITE=false", "00000002.history", 73},
	} {
		t.Run(c.setting+" "+c.name, func(t *testing.T) {
			s := desk(t)
			path := s.wal(c.name, 1, segmentSize)
			s.must("walg-wal-push "+path, c.setting)
			was := s.stored("wal_005/" + c.name + ".lz4")
			now := read(t, s.wal(c.name, 2, segmentSize))
			_, msg, status := s.run("walg-wal-push "+path, c.setting)
			if status != c.status {
				t.Errorf("status %d, want %d\n%s", status, c.status, msg)
			}
			want := was
			if c.status == 0 {
				want = now
			}
			if !bytes.Equal(s.stored("wal_005/"+c.name+".lz4"), want) {
				t.Error("the wrong content is stored")
			}
		})
	}
}

// Whatever becomes of a stage, PostgreSQL gets a status that it counts as a
// failure, and the object is as it was: absent, or whole.
func TestArchiveStatusIsAlwaysOneThatPostgreSQLCounts(t *testing.T) {
	ends := map[string]string{
		"killed": "kill -9 $$", "terminated": "kill -15 $$", "status 200": "exit 200", "status 126": "exit 126",
		"status 0 without reading": "exit 0", "status 1 after half": `head -c 1000 >/dev/null; exit 1`,
		"killed after half": `head -c 1000; kill -9 $$`,
	}
	for _, program := range []string{"walg-compress", "walg-crypt", "walg-put", "walg-get", "sha256sum"} {
		for end, script := range ends {
			for _, again := range []bool{false, true} { // the object exists
				if !again && (program == "walg-get" || program == "sha256sum") {
					continue // are not run
				}
				t.Run(fmt.Sprintf("%s %s %t", program, end, again), func(t *testing.T) {
					s := desk(t)
					path := s.wal(segment, 1, segmentSize)
					if again {
						s.must("walg-wal-push " + path)
					}
					before := snapshot(t, s.store)
					_, msg, status := s.run("walg-wal-push "+path, first(stage(t, program, script)))
					// A put that says 0 is believed; nothing else can be.
					if lies := program == "walg-put" && script == "exit 0"; !lies && (status < 1 || status > 125) {
						t.Errorf("status %d\n%s", status, msg)
					}
					if after := snapshot(t, s.store); after != before {
						t.Errorf("the store changed from\n%sto\n%s\n%s", before, after, msg)
					}
					s.must("walg-wal-push " + path)
				})
			}
		}
	}
}

func TestArchivingWithoutAProgramFailsWithinTheStatusesThatCount(t *testing.T) {
	for _, program := range []string{"walg-compress", "walg-crypt", "walg-put"} {
		s := desk(t)
		bin := stage(t, program, "")
		if err := os.Remove(filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
		path := s.wal(segment, 1, segmentSize)
		_, msg, status := s.run(bin+"/walg-wal-push "+path, "PATH="+bin+":/usr/bin:/bin")
		if status < 1 || status > 125 {
			t.Errorf("without %s: status %d\n%s", program, status, msg)
		}
		if exists(s.object("wal_005/" + segment + ".lz4")) {
			t.Errorf("without %s: the object is there", program)
		}
	}
}

// Names go to shells and stores. What cannot be one of PostgreSQL's is refused,
// and a folder may have any name.
func TestHostileNamesAreRefusedAndHostileFoldersWork(t *testing.T) {
	s := desk(t)
	for _, name := range []string{
		"a b", "$(touch gone)", "`touch gone`", ";touch gone", "a\nb", "-x", "--help", "..", ".", "", "*", "a'b", `a"b`, `a\b`,
		".000000010000000000000007", "000000010000000000000007~", "über", "a/../b c", "000000010000000000000007/",
	} {
		if name != "" && !strings.ContainsAny(name, "/") && name != "." && name != ".." {
			s.wal(name, 1, 100)
		}
		for _, line := range []string{`walg-wal-push "$FILE"`, `walg-wal-push "pg_wal/$FILE"`, `walg-wal-push "$PWD/pg_wal/$FILE"`} {
			_, msg, status := s.run(`cd "`+s.DataDir+`" && `+line, "FILE="+name)
			if (status != 64 && status != 66) || msg == "" {
				t.Errorf("%s with %q: status %d\n%s", line, name, status, msg)
			}
		}
		if exists(filepath.Join(s.DataDir, "gone")) {
			t.Fatalf("%q was run", name)
		}
	}
	if exists(s.object("wal_005")) {
		t.Errorf("the store holds\n%s", snapshot(t, s.store))
	}
	for _, line := range []string{"walg-wal-push", "walg-wal-push a b", "walg-wal-push pg_wal/" + segment + " x", "walg-wal-push /nowhere/" + segment} {
		if _, msg, status := s.run(line); status != 64 && status != 66 || msg == "" {
			t.Errorf("%s: status %d\n%s", line, status, msg)
		}
	}

	for _, folder := range []string{"a b", "$(touch gone)", "-x", "it's", `a"b`, "a\\b", "*", "a\nb", "ünïcode", ";true"} {
		dir := s.Mkdir(folder)
		write(t, dir+"/"+segment, walBytes(7, segmentSize))
		pgtest.Own(t, dir)
		push, fetch := `walg-wal-push "$FOLDER/`+segment+`"`, `walg-wal-fetch `+segment+` "$FOLDER/fetched"`
		for _, cd := range []string{dir, "./" + folder} {
			s.must(`cd "`+s.Dir+`" && `+push+` && `+fetch, "FOLDER="+cd)
			if !bytes.Equal(read(t, dir+"/fetched"), walBytes(7, segmentSize)) {
				t.Errorf("from %q came other content", cd)
			}
		}
	}
	if exists(filepath.Join(s.Dir, "gone")) {
		t.Error("the name of a folder was run")
	}
}

func TestFetchRestoresWhatWasArchivedUnderAnyMethod(t *testing.T) {
	for name, size := range archivable {
		for _, method := range []string{"lz4", "none"} {
			s := desk(t)
			path := s.wal(name, 3, size)
			s.must("walg-wal-push "+path, "WALG_COMPRESSION_METHOD="+method)
			dest := filepath.Join(s.DataDir, "pg_wal", "RECOVERYXLOG")
			for _, line := range []string{"walg-wal-fetch " + name + " pg_wal/RECOVERYXLOG", "walg-wal-fetch " + name + " " + dest} {
				s.must("cd " + s.DataDir + " && " + line)
				if !bytes.Equal(read(t, dest), read(t, path)) {
					t.Errorf("%s, method %s: other content", line, method)
				}
				if fi, err := os.Stat(dest); err != nil || fi.Mode().Perm() != 0o600 {
					t.Errorf("%s: mode %v, %v", line, fi.Mode(), err)
				}
				// PostgreSQL removes what is there before it asks; if it is
				// there all the same, it is replaced.
				write(t, dest, []byte("old"))
			}
		}
	}
}

// What restore_command answers decides whether PostgreSQL opens a database in
// which something is missing. Each trouble, in a recovery and on a standby.
func TestRestoreStatusTellsTheEndOfTheArchiveFromAnOutage(t *testing.T) {
	object := "wal_005/" + segment + ".lz4"
	put := func(s *site, content []byte) { // as an object that lz4 accepts
		path := s.wal("new", 0, 0)
		write(s.t, path, content)
		if err := os.Remove(s.object(object)); err != nil {
			s.t.Fatal(err)
		}
		s.must("walg-put " + object + " -- walg-compress " + path)
		os.Remove(path)
	}
	troubles := map[string]func(s *site){
		"the store is not mounted":     func(s *site) { must(s.t, os.Rename(s.store, s.store+".gone")) },
		"the store cannot be entered":  func(s *site) { must(s.t, os.Chmod(s.store, 0)) },
		"the folder cannot be entered": func(s *site) { must(s.t, os.Chmod(s.object("wal_005"), 0)) },
		"the object cannot be read":    func(s *site) { must(s.t, os.Chmod(s.object(object), 0)) },
		"the object is a folder": func(s *site) {
			must(s.t, os.Remove(s.object(object)))
			must(s.t, os.Mkdir(s.object(object)+"x", 0o700))
			must(s.t, os.Symlink("/dev/null", s.object(object)))
		},
		"the object is cut":            func(s *site) { must(s.t, os.Truncate(s.object(object), 5000)) },
		"the object is empty":          func(s *site) { must(s.t, os.Truncate(s.object(object), 0)) },
		"the object is something else": func(s *site) { write(s.t, s.object(object), []byte("<html>502 Bad Gateway</html>")) },
		"a bit has changed": func(s *site) {
			content := read(s.t, s.object(object))
			content[len(content)/2] ^= 1
			write(s.t, s.object(object), content)
		},
		"the segment is shorter": func(s *site) { put(s, walBytes(1, segmentSize-1)) },
		"the segment is longer":  func(s *site) { put(s, walBytes(1, segmentSize+1)) },
		"the segment is half":    func(s *site) { put(s, walBytes(1, segmentSize/2)) },
	}
	modes := []struct {
		name, file, content string
		status              int
	}{
		{"recovery", "recovery.signal", "", 126},
		{"standby", "standby.signal", "", 1},
		{"both, which is a standby", "standby.signal", "", 1},
		{"old recovery", "recovery.conf", "restore_command = 'x'\n", 126},
		{"old recovery, said", "recovery.conf", "standby_mode = off\n", 126},
		{"old recovery, commented out", "recovery.conf", "#standby_mode = on\nrestore_command = 'standby_mode = on'\n", 126},
		{"old standby", "recovery.conf", "restore_command = 'x'\nstandby_mode = 'on'\n", 1},
		{"old standby, other words", "recovery.conf", "  Standby_Mode TRUE # of course\n", 1},
	}
	for what, trouble := range troubles {
		t.Run(what, func(t *testing.T) {
			s := desk(t)
			path := s.wal(segment, 1, segmentSize)
			s.must("walg-wal-push " + path)
			must(t, os.Remove(path))
			trouble(s)
			for _, mode := range modes {
				if mode.name != "recovery" && mode.name != "standby" && what != "the store is not mounted" {
					continue
				}
				if strings.HasPrefix(mode.name, "both") {
					write(t, s.DataDir+"/recovery.signal", nil)
				}
				write(t, filepath.Join(s.DataDir, mode.file), []byte(mode.content))
				pgtest.Own(t, s.DataDir)
				for _, line := range []string{"cd " + s.DataDir + " && walg-wal-fetch " + segment + " pg_wal/RECOVERYXLOG", "walg-wal-fetch " + segment + " " + s.DataDir + "/pg_wal/RECOVERYXLOG"} {
					_, msg, status := s.run(line)
					if status != mode.status || msg == "" {
						t.Errorf("%s: %s: status %d, want %d\n%s", mode.name, line, status, mode.status, msg)
					}
				}
				must(t, os.Remove(filepath.Join(s.DataDir, mode.file)))
				os.Remove(s.DataDir + "/recovery.signal") // of one mode only
			}
			if left, err := os.ReadDir(filepath.Join(s.DataDir, "pg_wal")); err != nil || len(left) > 0 {
				t.Errorf("left in pg_wal: %v, %v", left, err)
			}
			for _, dir := range []string{s.store, s.object("wal_005")} {
				os.Chmod(dir, 0o700) // or it cannot be removed; of one of them only, and absent in some
			}
		})
	}
	// Absent is absent for everybody, and what cannot be asked for is no absence.
	s := desk(t)
	for _, c := range []struct {
		line   string
		status int
	}{
		{"walg-wal-fetch " + segment + " pg_wal/X", 74},
		{"walg-wal-fetch 00000002.history pg_wal/X", 74},
		{"walg-wal-fetch ../" + segment + " pg_wal/X", 126},
		{"walg-wal-fetch '' pg_wal/X", 126},
		{"walg-wal-fetch -x pg_wal/X", 126},
		{"walg-wal-fetch " + segment, 126},
		{"walg-wal-fetch", 126},
		{"WALG_COMPRESSION_METHOD=nonsense walg-wal-fetch " + segment + " pg_wal/X", 126},
		{"WALG_FILE_PREFIX= walg-wal-fetch " + segment + " pg_wal/X", 126},
		{"WALG_PG_WAL_SIZE=nonsense walg-wal-fetch " + segment + " pg_wal/X", 126},
		{"WALG_PIPES=nonsense walg-wal-fetch " + segment + " pg_wal/X", 126},
		{"WALG_PIPES=nested walg-wal-fetch " + segment + " pg_wal/X", 74},
	} {
		_, msg, status := s.run("cd " + s.DataDir + " && " + c.line)
		if status != c.status || msg == "" {
			t.Errorf("%s: status %d, want %d\n%s", c.line, status, c.status, msg)
		}
		if lines := strings.Count(msg, "\n"); c.status == 74 && lines > 1 {
			t.Errorf("%s: %d lines in the server's log for what is normal:\n%s", c.line, lines, msg)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever dies on the way, a recovery stops and no half segment is there.
func TestRestoreStopsWhenAStageDies(t *testing.T) {
	for _, program := range []string{"walg-get", "walg-crypt", "walg-compress"} {
		for _, script := range []string{"kill -9 $$", "kill -15 $$", "exit 0", "exit 1", "exit 200", "head -c 1000; kill -9 $$"} {
			t.Run(program+" "+script, func(t *testing.T) {
				s := desk(t)
				path := s.wal(segment, 1, segmentSize)
				s.must("walg-wal-push " + path)
				must(t, os.Remove(path))
				_, msg, status := s.run("cd "+s.DataDir+" && walg-wal-fetch "+segment+" pg_wal/X", first(stage(t, program, script)))
				if lies := program == "walg-compress" && script == "exit 0"; !lies && status != 126 {
					t.Errorf("status %d\n%s", status, msg)
				}
				if left, err := os.ReadDir(filepath.Join(s.DataDir, "pg_wal")); err != nil || len(left) > 0 {
					t.Errorf("left in pg_wal: %v, %v", left, err)
				}
			})
		}
	}
}

// outage makes a restore_command with which the store goes away, once, just
// before a segment is asked for.
func (s *site) outage(segment string) string {
	was, store := quote(s.store+".was"), quote(s.store)
	return s.line("if [ %f = " + segment + " ] && ! [ -e " + was + " ]; then : >" + was + "; mv " + store + " " + quote(s.store+".gone") + "; fi; exec walg-wal-fetch %f %p")
}

// segments writes n rows, each in a WAL segment of its own, and returns the
// names of the segments.
func (s *site) segments(n int) (names []string) {
	s.MustExec("create table steps (n int primary key)")
	for i := range n {
		s.MustExec("insert into steps values (" + strconv.Itoa(i) + ")")
		names = append(names, s.SQL("postgres", "select pg_walfile_name(pg_current_wal_lsn())"))
		s.archived()
	}
	return names
}

// The disk of the archive goes away in the middle of a recovery: the server
// stops, and does not take the outage for the end of the archive. When the
// disk is back, the recovery goes on to the end.
func TestOutageInRecoveryStopsTheServerAndPromotesNothing(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{})
	s.must("walg-backup-push " + s.DataDir)
	names := s.segments(4)
	dir := s.place()
	s.must(`walg-backup-fetch "$DIR"`, "DIR="+dir)
	c := s.recovery(dir, map[string]string{"restore_command": s.outage(names[2]), "hot_standby": "off"})
	err := c.TryStart()
	if err == nil || !strings.Contains(err.Error(), "FATAL:  could not restore file \""+names[2]+"\" from archive") {
		t.Fatalf("the server did not stop for the outage: %v", err)
	}
	if log := string(read(t, c.Log)); strings.Contains(log, "selected new timeline") || strings.Contains(log, "archive recovery complete") {
		t.Errorf("it promoted:\n%s", log)
	}
	if !exists(s.store + ".gone") {
		t.Error("there was no outage")
	}
	must(t, os.Rename(s.store+".gone", s.store))
	c.Configure(map[string]string{"restore_command": s.line("walg-wal-fetch %f %p")})
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	if got := c.SQL("postgres", "select string_agg(n::text, ',' order by n) from steps"); got != "0,1,2,3" {
		t.Errorf("after the repair: steps %s", got)
	}
}

// On a standby the same outage is waited out.
func TestOutageOfAStandbyIsWaitedOut(t *testing.T) {
	for _, major := range []int{pgtest.Majors[0], 15} { // recovery.conf, standby.signal
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			together(t)
			s := newSite(t, pgtest.Options{Major: major})
			s.must("walg-backup-push " + s.DataDir)
			names := s.segments(4)
			dir := s.place()
			s.must(`walg-backup-fetch "$DIR"`, "DIR="+dir)
			c := s.recovery(dir, map[string]string{"restore_command": s.outage(names[2]), "recovery_target_timeline": "latest"})
			if major >= 12 {
				c.Append("standby.signal", "")
			} else {
				c.Append("recovery.conf", "standby_mode = on\n")
			}
			c.Configure(map[string]string{"wal_retrieve_retry_interval": "100ms"})
			c.Start()
			const asked = "no such directory" // says each try in the log
			eventually(t, "the standby has met the outage three times", func() bool {
				return exists(s.store+".gone") && strings.Count(string(read(t, c.Log)), asked) >= 3
			})
			if got := c.SQL("postgres", "select pg_is_in_recovery(), count(*) from steps"); got != "t|2" {
				t.Errorf("in the outage: %s", got)
			}
			must(t, os.Rename(s.store+".gone", s.store))
			c.WaitFor("select count(*) from steps", "4")
			if !c.Running() || c.SQL("postgres", "select pg_is_in_recovery()") != "t" {
				t.Error("it is no standby any more")
			}
		})
	}
}

// PostgreSQL itself: a store that is away is a failure that it counts, and
// when the store is back all is archived, in order.
func TestServerCountsFailuresAndArchivesAllWhenTheStoreIsBack(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{})
	must(t, os.Rename(s.store, s.store+".gone"))
	var names []string
	for range 3 {
		s.MustExec("create table if not exists t (a int)", "insert into t values (1)")
		names = append(names, s.SQL("postgres", "select pg_walfile_name(pg_switch_wal())"))
	}
	s.WaitFor("select failed_count > 0 and archived_count = 0 from pg_stat_archiver", "t")
	if exists(s.store) {
		t.Error("the store was made")
	}
	must(t, os.Rename(s.store+".gone", s.store))
	s.WaitFor("select last_archived_wal from pg_stat_archiver", names[2])
	for _, name := range names {
		if got := s.stored("wal_005/" + name + ".lz4"); len(got) != 16<<20 {
			t.Errorf("%s has %d bytes", name, len(got))
		}
	}
}

// Two archivers that push the same file at once, as after a failover, both
// succeed.
func TestManyPushesOfOneFileAllSucceed(t *testing.T) {
	s := desk(t)
	path := s.wal(segment, 1, segmentSize)
	var pushes []*process
	for range 6 {
		pushes = append(pushes, start(t, s.command("exec walg-wal-push "+path)))
	}
	for _, push := range pushes {
		if _, msg, status := push.wait(); status != 0 {
			t.Errorf("status %d\n%s", status, msg)
		}
	}
	if !bytes.Equal(s.stored("wal_005/"+segment+".lz4"), read(t, path)) {
		t.Error("the object is not the file")
	}
}

// keyrings makes two: with the public key of ops only, and with the private
// one too.
func keyrings(t testing.TB, s *site) (public, private string) {
	t.Helper()
	public, private = s.Mkdir("public"), s.Mkdir("private")
	gpg := "gpg --batch --quiet --no-permission-warning --homedir "
	s.must(gpg + private + ` --pinentry-mode loopback --passphrase '' --quick-gen-key ops future-default default never &&
		` + gpg + private + " --export ops | " + gpg + public + " --import")
	t.Cleanup(func() {
		for _, home := range []string{public, private} { // each may have left an agent, which ends itself otherwise when its folder is gone
			finish(t, s.command("gpgconf --homedir "+home+" --kill all"))
		}
	})
	return public, private
}

// A host that can only encrypt cannot look into what it archived. It compares
// the digest that it recorded.
func TestHostWithOnlyThePublicKeyArchives(t *testing.T) {
	s := desk(t)
	public, private := keyrings(t, s)
	encrypt := "WALG_CRYPT_COMMAND=gpg --batch --no-permission-warning --homedir " + public + " --trust-model always -e -r ops"
	decrypt := "WALG_DECRYPT_COMMAND=gpg --batch --quiet --no-permission-warning --homedir " + private + " -d"
	for name, size := range archivable {
		path := s.wal(name, 1, size)
		s.must("walg-wal-push "+path, encrypt)
		object := s.object("wal_005/" + name + ".lz4")
		ours := read(t, object)
		s.must("walg-wal-push "+path, encrypt)
		if !bytes.Equal(read(t, object), ours) {
			t.Errorf("%s: the second push changed the object", name)
		}
		want := read(t, path)
		s.wal(name, 2, size)
		_, msg, status := s.run("walg-wal-push "+path, encrypt)
		if status < 1 || status > 125 || !strings.Contains(msg, hexSum(want)) || !strings.Contains(msg, hexSum(read(t, path))) {
			t.Errorf("%s, other content: status %d, want a failure with both digests\n%s", name, status, msg)
		}
		if !bytes.Equal(read(t, object), ours) {
			t.Errorf("%s: the refused push changed the object", name)
		}
		dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
		s.must("walg-wal-fetch "+name+" "+dest, decrypt)
		if !bytes.Equal(read(t, dest), want) {
			t.Errorf("%s: fetched other content", name)
		}
		must(t, os.Remove(dest))
		for _, env := range []string{"WALG_DECRYPT_COMMAND=", "WALG_DECRYPT_COMMAND=gpg --batch --quiet --no-permission-warning --homedir " + public + " -d"} {
			if _, msg, status := s.run("walg-wal-fetch "+name+" "+dest, env); status != 126 || exists(dest) {
				t.Errorf("%s without the private key (%s): status %d\n%s", name, env, status, msg)
			}
		}
	}
}

// A host with both keys compares content, so that also what another program
// has archived there, without a digest, is known again.
func TestHostWithThePrivateKeyKnowsWhatOthersArchived(t *testing.T) {
	s := desk(t)
	public, private := keyrings(t, s)
	encrypt := "WALG_CRYPT_COMMAND=gpg --batch --no-permission-warning --homedir " + public + " --trust-model always -e -r ops"
	decrypt := "WALG_DECRYPT_COMMAND=gpg --batch --quiet --no-permission-warning --homedir " + private + " -d"
	path := s.wal(segment, 1, segmentSize)
	s.must("walg-compress "+path+` | walg-crypt --through -- sh -c "$WALG_CRYPT_COMMAND" | walg-put wal_005/`+segment+".lz4", encrypt)
	if _, msg, status := s.run("walg-wal-push "+path, encrypt); status < 1 || status > 125 {
		t.Errorf("with nothing to compare: status %d\n%s", status, msg)
	}
	s.must("walg-wal-push "+path, encrypt, decrypt)
	s.wal(segment, 2, segmentSize)
	if _, msg, status := s.run("walg-wal-push "+path, encrypt, decrypt); status != 73 {
		t.Errorf("other content: status %d\n%s", status, msg)
	}
}

// PostgreSQL may die after the object is stored and before it knows.
func TestArchivingGoesOnAfterTheArchiverWasKilled(t *testing.T) {
	s := desk(t)
	path := s.wal(segment, 1, segmentSize)
	object := s.object("wal_005/" + segment + ".lz4")
	t.Run("between the put and its exit", func(t *testing.T) {
		held := newGate(t)
		bin := stage(t, "walg-put", `"$real" "$@"; status=$?; `+held.line()+`; exit $status`)
		push := start(t, s.command("exec walg-wal-push "+path, first(bin)))
		held.reached(t)
		push.signal(syscall.SIGKILL)
		if _, _, status := push.wait(); status != 128+9 {
			t.Errorf("status %d", status)
		}
		if !exists(object) {
			t.Error("the object is not there")
		}
		s.must("walg-wal-push " + path)
	})
	t.Run("at any moment", func(t *testing.T) {
		r := random(t)
		died := 0
		for range rounds(40, 1000) {
			os.Remove(object) // absent at first
			push := start(t, s.command("exec walg-wal-push "+path))
			time.Sleep(time.Duration(r.IntN(40_000)) * time.Microsecond) // the moment is what is drawn
			push.signal(syscall.SIGKILL)
			if _, _, status := push.wait(); status != 0 {
				died++
			}
			if exists(object) && !bytes.Equal(s.stored("wal_005/"+segment+".lz4"), read(t, path)) {
				t.Fatal("the object is torn")
			}
			s.must("walg-wal-push " + path)
			if !bytes.Equal(s.stored("wal_005/"+segment+".lz4"), read(t, path)) {
				t.Fatal("the object is not the file")
			}
		}
		if died == 0 {
			t.Error("no push was killed")
		}
	})
}

// Where pipes carry no stamp each stage runs the one before it.
func TestNestedFormArchivesAndRestores(t *testing.T) {
	s := desk(t, "WALG_PIPES=nested")
	path := s.wal(segment, 1, segmentSize)
	s.must("walg-wal-push " + path)
	s.must("walg-wal-push " + path)
	dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
	s.must("walg-wal-fetch " + segment + " " + dest)
	if !bytes.Equal(read(t, dest), read(t, path)) {
		t.Error("fetched other content")
	}
	if got := s.stored("wal_005/" + segment + ".lz4"); !bytes.Equal(got, read(t, path)) {
		t.Error("stored other content")
	}
	s.wal(segment, 2, segmentSize)
	if _, msg, status := s.run("walg-wal-push " + path); status != 73 {
		t.Errorf("other content: status %d\n%s", status, msg)
	}
	must(t, os.Truncate(s.object("wal_005/"+segment+".lz4"), 5000))
	must(t, os.Remove(dest))
	if _, msg, status := s.run("walg-wal-fetch " + segment + " " + dest); status != 126 || exists(dest) {
		t.Errorf("a cut object: status %d\n%s", status, msg)
	}
	for _, command := range []string{"WALG_CRYPT_COMMAND=cat", "WALG_COMPRESS_COMMAND=cat"} {
		if _, msg, status := s.run("walg-wal-push "+path, command); status != 64 {
			t.Errorf("%s: status %d\n%s", command, status, msg)
		}
	}
	for _, program := range []string{"walg-compress", "walg-crypt"} {
		next := s.wal("000000010000000000000008", 1, segmentSize)
		_, msg, status := s.run("walg-wal-push "+next, first(stage(t, program, "head -c 1000; kill -9 $$")))
		if status < 1 || status > 125 || exists(s.object("wal_005/000000010000000000000008.lz4")) {
			t.Errorf("%s killed: status %d\n%s", program, status, msg)
		}
	}
}

// Another program in the place of a stage sees what the filters see, and its
// failure is one of the push.
func TestOwnProgramsAsStages(t *testing.T) {
	s := desk(t, "WALG_COMPRESS_COMMAND=gzip -1", "WALG_COMPRESS_EXT=.gz", "WALG_DECOMPRESS_COMMAND=gzip -d")
	path := s.wal(segment, 1, segmentSize)
	s.must("walg-wal-push " + path)
	s.must("walg-wal-push " + path)
	out, err := exec.Command("gzip", "-dc", s.object("wal_005/"+segment+".gz")).Output()
	if err != nil || !bytes.Equal(out, read(t, path)) {
		t.Errorf("gzip -dc: %v, %d bytes", err, len(out))
	}
	dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
	s.must("walg-wal-fetch " + segment + " " + dest)
	if !bytes.Equal(read(t, dest), read(t, path)) {
		t.Error("fetched other content")
	}
	next := s.wal("000000010000000000000008", 1, segmentSize)
	for _, command := range []string{"exit 1", "head -c 1000; kill -9 $$", "gzip -1; exit 3", "no-such-program"} {
		if _, msg, status := s.run("walg-wal-push "+next, "WALG_COMPRESS_COMMAND="+command); status < 1 || status > 125 {
			t.Errorf("%s: status %d\n%s", command, status, msg)
		}
		if exists(s.object("wal_005/000000010000000000000008.gz")) {
			t.Fatalf("%s: the object is there", command)
		}
	}
}

// wal-g with its configuration file does what its users know.
func TestWALGRunsTheScriptsWithItsConfiguration(t *testing.T) {
	s := desk(t)
	path := s.wal(segment, 1, segmentSize)
	other := s.Mkdir("other")
	line := func(command string, env ...string) (string, string, int) {
		return s.run("unset WALG_FILE_PREFIX WALG_PG_WAL_SIZE; "+command, env...)
	}
	configs := map[string]string{
		"json":      "{\n\t\"WALG_FILE_PREFIX\": \"" + other + "\",\n  \"walg_pg_wal_size\": 1\n}\n",
		"one line":  `{"WALG_FILE_PREFIX": "` + other + `"}`,
		"file URL":  `{ "WALG_FILE_PREFIX" : "file:\/\/localhost` + other + `" }`,
		"yaml":      "---\n# a comment\nWALG_FILE_PREFIX: " + other + "\nWALG_PG_WAL_SIZE: 1\n",
		"quoted":    "WALG_FILE_PREFIX: '" + other + "'\r\n",
		"lower":     "walg_file_prefix: \"" + other + "\"\n",
		"known":     "{\n\"WALG_FILE_PREFIX\": \"" + other + "\",\n\"WALG_UPLOAD_CONCURRENCY\": 4,\n\"PGHOST\": \"/tmp\"\n}",
		"no effect": "WALG_FILE_PREFIX: " + other + "\nWALG_COMPRESSION_METHOD: lz4\nWALG_PREVENT_WAL_OVERWRITE: true\n",
	}
	for what, text := range configs {
		file := filepath.Join(s.Dir, "config")
		write(t, file, []byte(text))
		pgtest.Own(t, file)
		for _, command := range []string{
			"wal-g --config " + file + " wal-push " + path,
			"wal-g --config=" + file + " wal-push " + path,
			"wal-g wal-push --config " + file + " " + path,
			"wal-g wal-push " + path + " --config=" + file,
			"WALG_CONFIG_PATH=" + file + " wal-g wal-push " + path,
			"cp " + file + " ~/.walg.json; wal-g wal-push " + path + "; status=$?; rm ~/.walg.json; exit $status",
			"cp " + file + " ~/.walg.yaml; wal-g wal-push " + path + "; status=$?; rm ~/.walg.yaml; exit $status",
		} {
			if _, msg, status := line(command); status != 0 || !exists(other+"/wal_005/"+segment+".lz4") {
				t.Errorf("%s: %s: status %d\n%s", what, command, status, msg)
			}
			must(t, os.RemoveAll(other+"/wal_005"))
		}
		if t.Failed() {
			t.Fatalf("configuration:\n%s", text)
		}
	}

	// The environment comes first, and values arrive as they are.
	file := filepath.Join(s.Dir, "config")
	keys := map[string]string{
		"WALG_LIBSODIUM_KEY": "VGhpcyBpcyBhIGtleSBvZiAzMiBieXRlcyBmb3IgdXM=", "WALG_PGP_KEY_PASSPHRASE": `a "b" 'c' $d \e\`, "WALG_CRYPT_COMMAND": "a | b == c",
	}
	var text strings.Builder
	for name, value := range keys {
		fmt.Fprintf(&text, "%q: %s,\n", name, strconv.Quote(value))
	}
	write(t, file, []byte("{\n"+text.String()+"\"WALG_FILE_PREFIX\": \""+other+"\"\n}\n"))
	pgtest.Own(t, file)
	bin := stage(t, "walg-wal-push", `env`)
	out, msg, status := line("wal-g --config "+file+" wal-push x", first(bin), "WALG_CRYPT_COMMAND=mine")
	if status != 0 {
		t.Errorf("status %d\n%s", status, msg)
	}
	keys["WALG_CRYPT_COMMAND"] = "mine"
	for name, value := range keys {
		if !slices.Contains(strings.Split(out, "\n"), name+"="+value) {
			t.Errorf("%s is not %s in\n%s", name, value, out)
		}
	}

	for what, text := range map[string]string{
		"nested":        "{\n\"WALG_FILE_PREFIX\": {\n\"path\": \"" + other + "\"\n}\n}",
		"a list":        "{\"WALG_FILE_PREFIX\": [\"" + other + "\"]}",
		"two on a line": `{"WALG_FILE_PREFIX": "` + other + `", "WALG_PG_WAL_SIZE": "1"}`,
		"unfinished":    "{\"WALG_FILE_PREFIX",
		"yaml nested":   "WALG_FILE_PREFIX:\n  path: " + other + "\n",
		"a comment":     "WALG_FILE_PREFIX: " + other + " # the disk\n",
		"an escape":     `"WALG_FILE_PREFIX": "` + other + `\u0041"`,
		"code":          "WALG_FILE_PREFIX$(touch gone): x\n",
	} {
		write(t, file, []byte(text))
		pgtest.Own(t, file)
		_, msg, status := line("cd " + s.Dir + " && wal-g --config " + file + " wal-push " + path)
		if status != 64 || !strings.Contains(msg, file) || exists(s.Dir+"/gone") || exists(other+"/wal_005") {
			t.Errorf("%s: status %d\n%s", what, status, msg)
		}
	}
	for command, want := range map[string]int{
		"wal-g":                            0,
		"wal-g --help":                     0,
		"wal-g --version":                  0,
		"wal-g delete":                     64,
		"wal-g copy":                       64,
		"wal-g nonsense":                   64,
		"wal-g --config":                   64,
		"wal-g --config /no/where a":       64,
		"wal-g wal-push":                   64,
		"wal-g wal-fetch " + segment + " ": 126,
	} {
		out, msg, status := s.run(command)
		if status != want || out+msg == "" {
			t.Errorf("%s: status %d, want %d\n%s", command, status, want, msg)
		}
	}
}

// A server that was archived by WAL-G's commands goes on with the same lines.
func TestWALGIsADropIn(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{Config: map[string]string{"archive_command": "wal-g wal-push %p"}})
	write(t, filepath.Join(s.Dir, ".walg.json"), []byte("{\n\"WALG_FILE_PREFIX\": \""+s.store+"\",\n\"PGHOST\": \""+s.SocketDir+"\"\n}\n"))
	pgtest.Own(t, filepath.Join(s.Dir, ".walg.json"))
	const unset = "unset WALG_FILE_PREFIX PGHOST; "
	name := strings.TrimSpace(s.must(unset + "wal-g backup-push " + s.DataDir))
	s.MustExec("create table t as select 7 a")
	s.archived()
	if out := s.must(unset + "wal-g backup-list"); !strings.Contains(out, "\n"+name+" ") {
		t.Errorf("the list lacks %s:\n%s", name, out)
	}
	out := s.must(unset + "wal-g backup-list --json --detail")
	if !strings.HasPrefix(out, `[{"backup_name":"`+name+`",`) || !strings.Contains(out, `"data_dir":"`+s.DataDir+`"`) {
		t.Errorf("as JSON: %s", out)
	}
	dir := s.place()
	s.must(unset + "wal-g backup-fetch " + dir + " LATEST")
	c := s.recovery(dir, map[string]string{"restore_command": "HOME=" + s.Dir + " wal-g wal-fetch %f %p"})
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	if got := c.SQL("postgres", "select a from t"); got != "7" {
		t.Errorf("recovered %s", got)
	}
}

// A backup that root takes and restores is one that the server's user can
// start.
func TestRootBacksUpAndRestoresForTheServer(t *testing.T) {
	asRoot(t)
	together(t)
	s := newSite(t, pgtest.Options{Checksums: true})
	space := s.Mkdir("space")
	s.MustExec("create tablespace other location "+sqlText(space), "create table t tablespace other as select 7 a")
	env := slices.Concat(s.Env(), s.settings)
	if _, msg, status := sh(t, "walg-backup-push "+s.DataDir, env...); status != 0 {
		t.Fatalf("status %d\n%s", status, msg)
	}
	s.archived()
	dir, elsewhere := s.place(), filepath.Join(pgtest.Dir(t), "elsewhere")
	if _, msg, status := sh(t, "walg-backup-fetch -T "+space+"="+elsewhere+" "+dir, env...); status != 0 {
		t.Fatalf("status %d\n%s", status, msg)
	}
	owner := func(path string) string {
		var st syscall.Stat_t
		must(t, syscall.Lstat(path, &st))
		return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	for _, path := range []string{"", "/backup_label", "/tablespace_map", "/global/pg_control", "/global/1260", "/pg_wal", "/PG_VERSION"} {
		if got, want := owner(dir+path), owner(s.DataDir); got != want {
			t.Errorf("%s belongs to %s, want %s", dir+path, got, want)
		}
	}
	if got, want := owner(elsewhere), owner(space); got != want {
		t.Errorf("%s belongs to %s, want %s", elsewhere, got, want)
	}
	pgtest.Own(t, filepath.Join(s.store, "wal_005"))
	c := s.recovery(dir, nil)
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	if got := c.SQL("postgres", "select a from t"); got != "7" {
		t.Errorf("recovered %s", got)
	}
}
