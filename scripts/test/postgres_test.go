//go:build linux

package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/postgres/pgtest"
)

// Each version: a backup that is taken while pgbench writes and tables and
// databases come and go, and all the WAL that is archived until the writing
// ends, give the same data again, with no bad page and no bad index.
func TestBackupUnderLoadRecoversToTheLastArchivedTransaction(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		together(t)
		s := newSite(t, pgtest.Options{Major: major, Checksums: true})
		s.PgbenchInit(rounds(1, 40))
		load, churn := s.startLoad(), s.startChurn()
		before := load.written()
		name := strings.TrimSpace(s.must("walg-backup-push " + s.DataDir))
		if after := load.written(); after == before {
			t.Errorf("nothing was written during the backup: %s transactions before, %s after", before, after)
		}
		if got := s.backups(); !slices.Equal(got, []string{name}) {
			t.Errorf("backups are %q, and %q was printed", got, name)
		}
		load.more()
		load.stop()
		churn.stop()
		s.MustExec("create table marker as select 'after the backup'::text note", "create index on marker (note)")
		want := sums(s.Cluster)
		s.archived()
		s.Stop("immediate") // what comes back comes from the store

		c := s.recover(`walg-backup-fetch "$DIR" LATEST`, nil)
		if got := sums(c); got != want {
			t.Errorf("recovered:\n%swant:\n%s", got, want)
		}
		sound(t, c)
		clean(t, s, c)
	})
}

// newSpaceSite starts a cluster with a tablespace in which the table moments is.
func newSpaceSite(t testing.TB) (s *site, space string) {
	t.Helper()
	s = newSite(t, pgtest.Options{Checksums: true})
	space = s.Mkdir("space")
	s.MustExec("create tablespace other location '"+space+"'",
		"create table moments (note text primary key using index tablespace other, at timestamptz default clock_timestamp()) tablespace other",
		"insert into moments values ('in the backup')")
	return s, space
}

const notes = "select string_agg(note, ', ' order by at) from moments"

// linksTo fails the test unless the one tablespace of a restored cluster is a
// link to dir, in the tree and in the server's own map.
func linksTo(t testing.TB, data, dir string) {
	t.Helper()
	links, err := filepath.Glob(filepath.Join(data, "pg_tblspc", "*"))
	if err != nil || len(links) != 1 {
		t.Fatalf("links of tablespaces: %q, %v; want one", links, err)
	}
	if to, err := os.Readlink(links[0]); err != nil || to != dir {
		t.Errorf("%s leads to %s, %v; want %s", links[0], to, err, dir)
	}
	if got, want := string(read(t, filepath.Join(data, "tablespace_map"))), filepath.Base(links[0])+" "+dir+"\n"; got != want {
		t.Errorf("tablespace_map: %q, want %q", got, want)
	}
}

func TestRecoveryToATimeWithTheTablespaceElsewhere(t *testing.T) {
	together(t)
	s, space := newSpaceSite(t)
	s.must("walg-backup-push " + s.DataDir)
	s.MustExec("insert into moments values ('before')")
	target := s.SQL("postgres", "select clock_timestamp()")
	s.MustExec("insert into moments values ('after')", "drop table moments")
	s.archived()

	// Where it was is where the old cluster still has it.
	dir, elsewhere := s.place(), filepath.Join(pgtest.Dir(t), "moved here")
	before := tree(t, space)
	if _, msg, status := s.run(`walg-backup-fetch "$DIR"`, "DIR="+dir); status != 73 || !strings.Contains(msg, space) || exists(dir) {
		t.Errorf("into a tablespace in use: status %d\n%s", status, msg)
	}
	sameLines(t, "the tablespace in use", tree(t, space), before)

	s.must(`walg-backup-fetch "$DIR" --tablespace-mapping "$OLD=$NEW"`, "DIR="+dir, "OLD="+space, "NEW="+elsewhere)
	linksTo(t, dir, elsewhere)
	oid := s.SQL("postgres", "select oid from pg_tablespace where spcname = 'other'")
	asSpec, third := s.place(), filepath.Join(pgtest.Dir(t), "third")
	write(t, s.Dir+"/spec", []byte(`{"`+oid+`":{"loc":"`+third+`","link":"pg_tblspc/`+oid+`"},"base_prefix":"`+asSpec+`","tablespaces":["`+oid+`"]}`))
	pgtest.Own(t, s.Dir+"/spec")
	s.must(`walg-backup-fetch --restore-spec "$SPEC" "$DIR" LATEST`, "DIR="+asSpec, "SPEC="+s.Dir+"/spec")
	linksTo(t, asSpec, third)
	sameLines(t, "the tablespace as the spec says", tree(t, third), tree(t, elsewhere))
	c := s.recovery(dir, map[string]string{"recovery_target_time": target, "recovery_target_action": "promote"})
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	if got := c.SQL("postgres", notes); got != "in the backup, before" {
		t.Errorf("rows at %s: %s", target, got)
	}
	c.MustExec("insert into moments values ('a new life')")
	if location := c.SQL("postgres", "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'other'"); location != elsewhere {
		t.Errorf("the tablespace is in %s, want %s", location, elsewhere)
	}
	if got := s.SQL("postgres", "select count(*) from pg_tablespace where pg_tablespace_location(oid) = "+sqlText(space)); got != "1" {
		t.Error("the tablespace of the old cluster has moved")
	}
	sound(t, c)
	clean(t, s, c)
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// The stream form is one tar that restores by itself. A tablespace in it is a
// link that leads out of the tree, which needs the user's word.
func TestStreamFormRecoversWithTheTablespaceElsewhere(t *testing.T) {
	together(t)
	s, space := newSpaceSite(t)
	s.must("walg-tar create --postgres " + s.DataDir + " | walg-compress | walg-put my/base.tar.lz4")
	s.MustExec("insert into moments values ('after')")
	want := sums(s.Cluster)
	s.archived()
	if got := s.backups(); len(got) > 0 {
		t.Errorf("a stream made backups: %q", got)
	}

	fetch := `walg-get my/base.tar.lz4 | walg-compress -d | walg-tar extract "$DIR"`
	dir := s.place()
	if _, msg, status := s.run(fetch, "DIR="+dir); status != 64 || !strings.Contains(msg, "--tablespace-mapping "+space+"=NEW") {
		t.Errorf("without a mapping: status %d\n%s", status, msg)
	}
	if exists(filepath.Join(dir, "global", "pg_control")) {
		t.Error("what was refused can start")
	}
	dir, elsewhere := s.place(), filepath.Join(pgtest.Dir(t), "elsewhere")
	s.must(fetch+` -T "$OLD=$NEW"`, "DIR="+dir, "OLD="+space, "NEW="+elsewhere)
	linksTo(t, dir, elsewhere)
	c := s.recovery(dir, nil)
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	if got := sums(c); got != want {
		t.Errorf("recovered:\n%swant:\n%s", got, want)
	}
	sound(t, c)
	clean(t, s, c)
}

// A backup of a standby needs WAL that its primary archives. One during which
// the standby is promoted is of no use.
func TestStandbyBackupRecoversUnlessItWasPromoted(t *testing.T) {
	for _, major := range []int{pgtest.Majors[0], 15, pgtest.Majors[len(pgtest.Majors)-1]} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			together(t)
			s := newSite(t, pgtest.Options{Major: major, Checksums: true})
			standby := &site{Cluster: s.Standby(nil), t: t, store: s.store, settings: s.settings}
			s.MustExec("create table t as select generate_series(1, 1000) a", "create index on t (a)")
			standby.WaitFor("select count(*) from t", "1000")
			standby.must("walg-backup-push " + standby.DataDir)
			s.MustExec("insert into t values (0)")
			want := sums(s.Cluster)
			s.archived()
			c := s.recover(`walg-backup-fetch "$DIR"`, nil)
			if got := sums(c); got != want {
				t.Errorf("recovered:\n%swant:\n%s", got, want)
			}
			sound(t, c)
			clean(t, s, c)

			s.MustExec("checkpoint") // the next backup of the standby has another name
			s.WaitFor("select pg_current_wal_lsn() = replay_lsn from pg_stat_replication", "t")
			standby.MustExec("checkpoint")
			before := s.backups()
			held := newGate(t)
			bin := stage(t, "walg-put", `case $* in *part_001*) `+held.line()+` ;; esac; exec "$real" "$@"`)
			push := start(t, standby.command("walg-backup-push "+standby.DataDir, first(bin)))
			held.reached(t)
			standby.Promote()
			held.open(t)
			if _, msg, status := push.wait(); status != 1 || !strings.Contains(msg, "promoted") {
				t.Errorf("status %d\n%s", status, msg)
			}
			if got := s.backups(); !slices.Equal(got, before) {
				t.Errorf("backups %q, before the refusal %q", got, before)
			}
		})
	}
}

// A recovered cluster archives to the same store, on a timeline of its own, and
// is backed up and recovered again.
func TestLifeGoesOnAfterRecovery(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{Checksums: true})
	s.must("walg-backup-push " + s.DataDir)
	s.MustExec("create table t as select 1 a")
	s.archived()
	s.MustExec("insert into t values (99)") // is archived after the recovery has ended before it
	second := s.recover(`walg-backup-fetch "$DIR"`, map[string]string{"archive_mode": "on", "archive_command": s.line("walg-wal-push %p")})
	s.archived()
	s.Stop("fast")
	next := &site{Cluster: second, t: t, store: s.store, settings: s.settings}
	next.MustExec("insert into t values (2)")
	name := strings.TrimSpace(next.must("walg-backup-push " + next.DataDir))
	if !strings.HasPrefix(name, "base_00000002") {
		t.Errorf("a backup of the second timeline is %s", name)
	}
	next.MustExec("insert into t values (3)")
	next.archived()
	if !exists(s.object("wal_005/00000002.history.lz4")) {
		t.Error("the history of the second timeline is not archived")
	}
	if got := second.SQL("postgres", "select failed_count from pg_stat_archiver"); got != "0" {
		t.Errorf("archiving failed %s times", got)
	}
	// LATEST is of the second timeline, and so is what comes after it.
	c := next.recover(`walg-backup-fetch "$DIR" LATEST`, map[string]string{"recovery_target_timeline": "latest"})
	if got := c.SQL("postgres", "select string_agg(a::text, ',' order by a) from t"); got != "1,2,3" {
		t.Errorf("recovered %s", got)
	}
	clean(t, next, c)
}

// inBackup is how many sessions of walg a server has. Its backup mode ends with
// them.
const inBackup = "select count(*) from pg_stat_activity where application_name = 'walg'"

func TestInterruptedBackupLeavesNoBackupAndNoBackupMode(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{Checksums: true})
	held := newGate(t)
	bin := stage(t, "walg-put", `case $* in *part_001*) `+held.line()+` ;; esac; exec "$real" "$@"`)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			os.Remove(filepath.Join(held.dir, "reached")) // absent at first
			push := start(t, s.command("exec walg-backup-push "+s.DataDir, first(bin)))
			held.reached(t)
			s.WaitFor(inBackup, "1")
			push.signal(sig)
			held.open(t) // walg-put of a killed walg-tar goes on, and must not commit
			if _, _, status := push.wait(); status == 0 {
				t.Error("status 0")
			}
			s.WaitFor(inBackup, "0")
			if got := s.backups(); len(got) > 0 {
				t.Errorf("backups %q", got)
			}
		})
	}
	name := strings.TrimSpace(s.must("walg-backup-push " + s.DataDir))
	if got := s.backups(); !slices.Equal(got, []string{name}) {
		t.Errorf("backups %q after one that was let finish", got)
	}
}

func TestBackupRefusesWhatItCannotReachOrDoesNotBelongTogether(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{})
	other := pgtest.New(t, pgtest.Options{})
	standby := s.Standby(nil)
	for _, c := range []struct {
		name, line string
		env        []string
		status     int
		want       []string // in the message
	}{
		{"server not reachable", "walg-backup-push " + s.DataDir, []string{"PGHOST=" + s.Mkdir("nobody")}, 1, []string{"connect to PostgreSQL at", "PGHOST"}},
		{"no such user", "walg-backup-push " + s.DataDir, []string{"PGUSER=nobody"}, 64, []string{"nobody", "PGUSER"}},
		{"directory of another cluster", "walg-backup-push " + other.DataDir, nil, 64, []string{"system identifier", s.DataDir}},
		{"directory of a standby", "walg-backup-push " + standby.DataDir, nil, 64, []string{"another server of the same cluster", s.DataDir}},
		{"no data directory", "walg-backup-push " + s.Dir, nil, 64, []string{"pg_control"}},
		{"no operand", "walg-backup-push", nil, 64, []string{"usage: walg-backup-push"}},
		{"unknown option", "walg-backup-push --nonsense " + s.DataDir, nil, 64, []string{"--nonsense"}},
		{"store that is not there", "walg-backup-push " + s.DataDir, []string{"WALG_FILE_PREFIX=" + s.Dir + "/absent"}, 64, []string{"no such directory"}},
		{"a key that is none", "walg-backup-push " + s.DataDir, []string{"WALG_PGP_KEY=x"}, 64, []string{"WALG_PGP_KEY"}},
		{"user data that is no JSON", "walg-backup-push --add-user-data { " + s.DataDir, nil, 64, []string{"JSON"}},
		{"restore of nothing", "walg-backup-fetch " + s.Dir + "/new", nil, 66, []string{"no backup"}},
		{"restore of a name that is not there", "walg-backup-fetch " + s.Dir + "/new base_000000010000000000000099", nil, 66, []string{"base_000000010000000000000099"}},
		{"restore without operands", "walg-backup-fetch", nil, 64, []string{"usage: walg-backup-fetch"}},
		{"restore with too many", "walg-backup-fetch " + s.Dir + "/new LATEST more", nil, 64, []string{"more"}},
		{"restore with no parts at once", "WALG_DOWNLOAD_CONCURRENCY=0 walg-backup-fetch " + s.Dir + "/new", nil, 64, []string{"WALG_DOWNLOAD_CONCURRENCY"}},
		{"restore with half a mapping", "walg-backup-fetch " + s.Dir + "/new -T", nil, 64, []string{"-T"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, msg, status := s.run(c.line, c.env...)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(msg, want) {
					t.Errorf("the message lacks %q", want)
				}
			}
			if exists(s.object("basebackups_005")) {
				t.Errorf("the store holds\n%s", snapshot(t, s.object("basebackups_005")))
			}
			if exists(s.Dir + "/new") {
				t.Error("the target was made")
			}
			if t.Failed() {
				t.Logf("message:\n%s", msg)
			}
		})
	}
	s.WaitFor(inBackup, "0")

	// Without its WAL a backup is none.
	s.Configure(map[string]string{"archive_command": "false"})
	s.MustExec("select pg_reload_conf()")
	s.WaitFor("show archive_command", "false")
	if _, msg, status := s.run("walg-backup-push --archive-timeout 1s " + s.DataDir); status != 1 || !strings.Contains(msg, "archiv") {
		t.Errorf("with an archive_command that fails: status %d\n%s", status, msg)
	}
	if got := s.backups(); len(got) > 0 {
		t.Errorf("backups %q", got)
	}
}

// Bits that a disk has changed are found while the backup is taken. Recorded,
// they are in files_metadata.json, as WAL-G has them.
func TestBackupRefusesOrRecordsCorruptPages(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{Checksums: true, Config: map[string]string{"autovacuum": "off"}})
	s.MustExec("create table t as select generate_series(1, 10000) a", "checkpoint")
	path := s.SQL("postgres", "select pg_relation_filepath('t')")
	s.Stop("fast")
	const page = 8192
	for _, block := range []int64{3, 7} {
		f, err := os.OpenFile(filepath.Join(s.DataDir, path), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		flipped := []byte{0}
		f.ReadAt(flipped, block*page+5000)
		flipped[0] ^= 0x10
		_, err = f.WriteAt(flipped, block*page+5000)
		if cerr := f.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	s.Start()

	_, msg, status := s.run("walg-backup-push " + s.DataDir)
	if status != 65 || !strings.Contains(msg, path) || !strings.Contains(msg, "block 3") {
		t.Errorf("status %d, want 65 and a message that names %s and block 3:\n%s", status, path, msg)
	}
	if got := s.backups(); len(got) > 0 {
		t.Errorf("backups %q", got)
	}
	for _, how := range []struct{ option, env string }{
		{"--checksums record", ""}, {"--verify", ""}, {"", "WALG_VERIFY_PAGE_CHECKSUMS=true"},
	} {
		out, msg, status := s.run("walg-backup-push "+how.option+" "+s.DataDir, how.env)
		if status != 0 || strings.Count(msg, path) != 2 {
			t.Fatalf("%v: status %d, want 0 and two warnings about %s:\n%s", how, status, path, msg)
		}
		var list struct {
			Files map[string]struct {
				CorruptBlocks *struct {
					CorruptBlocksCount int
					SomeCorruptBlocks  []int
				}
			}
		}
		text := read(t, s.object("basebackups_005/"+strings.TrimSpace(out)+"/files_metadata.json"))
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		for name, file := range list.Files {
			switch bad := file.CorruptBlocks; {
			case name != "/"+path && bad != nil:
				t.Errorf("%v: %s has corrupt blocks %v", how, name, bad)
			case name == "/"+path && (bad == nil || bad.CorruptBlocksCount != 2 || !slices.Equal(bad.SomeCorruptBlocks, []int{3, 7})):
				t.Errorf("%v: %s has corrupt blocks %v, want 3 and 7", how, name, bad)
			}
		}
	}
	if out, msg, status := s.run("walg-tar create --checksums off --postgres " + s.DataDir + " | walg-tar verify"); status != 65 ||
		!strings.Contains(out, path+" block 3: expected ") || !strings.Contains(out, path+" block 7: expected ") {
		t.Errorf("verify of a backup that was not checked: status %d\n%s%s", status, out, msg)
	}
}

// A standby may take two backups under one name, because no segment ends
// between them. The second must not write over the parts of the first.
func TestSecondBackupOfOneNameIsRefused(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{})
	standby := &site{Cluster: s.Standby(nil), t: t, store: s.store, settings: s.settings}
	name := strings.TrimSpace(standby.must("walg-backup-push " + standby.DataDir))
	before := snapshot(t, s.object("basebackups_005"))
	_, msg, status := standby.run("walg-backup-push " + standby.DataDir)
	if status != 73 || !strings.Contains(msg, name) {
		t.Errorf("status %d, want 73 and %s in the message:\n%s", status, name, msg)
	}
	if after := snapshot(t, s.object("basebackups_005")); after != before {
		t.Errorf("the store changed from\n%sto\n%s", before, after)
	}
}

func TestFetchRefusesATargetThatIsNotEmpty(t *testing.T) {
	s := goldenSite(t, "lz4_full")
	target := s.Dir + "/target"
	write(t, target+"/a file", []byte("somebody's"))
	pgtest.Own(t, target)
	before := snapshot(t, target)
	_, msg, status := s.run("walg-backup-fetch " + target)
	if status != 73 || !strings.Contains(msg, target) {
		t.Errorf("status %d, want 73 and the target's name:\n%s", status, msg)
	}
	if after := snapshot(t, target); after != before {
		t.Errorf("the target changed from\n%sto\n%s", before, after)
	}
}

// A fetch that was killed leaves a directory in which no server starts. Called
// again it goes on, and in the end all is as after one fetch.
func TestKilledFetchCannotStartAndGoesOn(t *testing.T) {
	s := goldenSite(t, "multi_tar")
	s.must("walg-backup-fetch " + s.Dir + "/whole")
	want := tree(t, s.Dir+"/whole")
	held := newGate(t)
	for _, key := range []string{"part_001", "part_004", "backup_label", "pg_control"} {
		t.Run(key, func(t *testing.T) {
			os.Remove(filepath.Join(held.dir, "reached")) // absent at first
			target := s.Dir + "/" + key
			// Half of the object has come when it stops.
			bin := stage(t, "walg-get", `case $* in
				*`+key+`*) "$real" --range 0-199 "$@"; `+held.line()+` ;;
				*) exec "$real" "$@" ;;
				esac`)
			fetch := start(t, s.command("exec walg-backup-fetch "+target, "WALG_DOWNLOAD_CONCURRENCY=1", first(bin)))
			held.reached(t)
			fetch.signal(syscall.SIGKILL)
			fetch.wait()
			if exists(target + "/global/pg_control") {
				t.Error("pg_control is there")
			}
			// Without what is missing the server does not know its cluster.
			half := pgtest.New(t, pgtest.Options{DataDir: target, Stopped: true})
			if err := half.TryStart(); err == nil || !strings.Contains(err.Error(), "pg_control") && !strings.Contains(err.Error(), "PG_VERSION") {
				t.Errorf("half a cluster: %v", err)
			}
			if _, msg, status := s.run("walg-backup-fetch " + target + " base_000000010000000000000009"); status == 0 {
				t.Errorf("another backup goes on there:\n%s", msg)
			}
			s.must("walg-backup-fetch " + target)
			os.Remove(filepath.Join(target, "postmaster.pid")) // of the server that did not start
			sameLines(t, "the tree", tree(t, target), want)
			if exists(target + "/.walg-restore") {
				t.Error("the mark of the restore is still there")
			}
		})
	}
}

// The same at any moment.
func TestFetchKilledAgainAndAgainEndsAsOneThatWasNot(t *testing.T) {
	s := goldenSite(t, "multi_tar")
	s.must("walg-backup-fetch " + s.Dir + "/whole")
	want := tree(t, s.Dir+"/whole")
	r := random(t)
	died := 0
	for range rounds(4, 200) {
		target := s.place()
		for range 4 {
			fetch := start(t, s.command("exec walg-backup-fetch "+target))
			time.Sleep(time.Duration(r.IntN(200_000)) * time.Microsecond) // the moment is what is drawn
			fetch.signal(syscall.SIGKILL)
			_, msg, status := fetch.wait()
			switch {
			case status == 128+9:
				died++
			case status == 73 && exists(target+"/global/pg_control") && !exists(target+"/.walg-restore"): // the one before had finished
			case status != 0:
				t.Fatalf("status %d\n%s", status, msg)
			}
		}
		if _, msg, status := s.run("walg-backup-fetch " + target); status != 0 && !(status == 73 && !exists(target+"/.walg-restore")) {
			t.Fatalf("status %d\n%s", status, msg)
		}
		sameLines(t, "the tree", tree(t, target), want)
	}
	if died == 0 {
		t.Error("no fetch was killed")
	}
}

// Whatever is missing or damaged in the store is said, with the right status,
// and what is there already cannot start.
func TestFetchNoticesWhatIsMissingOrDamaged(t *testing.T) {
	const backup = "basebackups_005/base_000000010000000000000003"
	part := backup + "/tar_partitions/part_003.tar.lz4"
	half := func(path string) error {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, fi.Size()/2)
	}
	for _, c := range []struct {
		name, key string
		damage    func(path string) error
		status    int
	}{
		{"a part is missing", part, os.Remove, 66},
		{"a part is cut", part, half, 65},
		{"a part is empty", part, func(path string) error { return os.Truncate(path, 0) }, 65},
		{"a part is not readable", part, func(path string) error { return os.Chmod(path, 0) }, 1},
		{"pg_control is missing", backup + "/tar_partitions/pg_control.tar.lz4", os.Remove, 66},
		{"pg_control is cut", backup + "/tar_partitions/pg_control.tar.lz4", half, 65},
		{"the label is missing", backup + "/tar_partitions/backup_label.tar.lz4", os.Remove, 66},
		{"the sentinel is cut", backup + "_backup_stop_sentinel.json", half, 65},
		{"the sentinel is missing", backup + "_backup_stop_sentinel.json", os.Remove, 66},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := goldenSite(t, "multi_tar")
			if err := c.damage(s.object(c.key)); err != nil {
				t.Fatal(err)
			}
			target := s.Dir + "/target"
			_, msg, status := s.run("walg-backup-fetch " + target)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if c.name != "the sentinel is missing" && !strings.Contains(msg, "base_000000010000000000000003") {
				t.Error("the message does not say in which backup")
			}
			if exists(target + "/global/pg_control") {
				t.Error("what was restored can start")
			}
			if t.Failed() {
				t.Logf("message:\n%s", msg)
			}
		})
	}
	// Without the list of files nobody can know the parts but from the store.
	s := goldenSite(t, "multi_tar")
	for _, key := range []string{backup + "/files_metadata.json", backup + "/metadata.json"} {
		if err := os.Remove(s.object(key)); err != nil {
			t.Fatal(err)
		}
	}
	s.must("walg-backup-fetch " + s.Dir + "/target")
	if !exists(s.Dir + "/target/global/pg_control") {
		t.Error("not restored")
	}
}

// What a cluster may have that others have not: rights for a group, WAL
// segments of 1 MiB in a place of their own, unlogged tables, odd names.
func TestModesAndUnusualFilesSurvive(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{Checksums: true, InitArgs: []string{"--allow-group-access", "--wal-segsize=1", "--waldir=" + filepath.Join(pgtest.Dir(t), "wal")}}, "WALG_PG_WAL_SIZE=1",
		"WALG_TAR_SIZE_THRESHOLD=4194304", "WALG_UPLOAD_DISK_CONCURRENCY=3")
	s.MustExec("create unlogged table u as select 1 a", "create table t as select generate_series(1, 1000) a")
	odd := "/a name with spaces, \"quotes\" and ünïcode"
	write(t, s.DataDir+odd, []byte("x"))
	pgtest.Own(t, s.DataDir+odd)
	s.must("walg-backup-push " + s.DataDir)
	s.archived()
	c := s.recover(`walg-backup-fetch "$DIR"`, nil)
	if got := c.SQL("postgres", "select count(*), sum(a), (select count(*) from u) from t"); got != "1000|500500|0" {
		t.Errorf("recovered %s", got)
	}
	fi, err := os.Stat(c.DataDir)
	if err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("mode of the data directory: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Lstat(c.DataDir + "/pg_wal"); err != nil || !fi.IsDir() {
		t.Errorf("pg_wal is %v, %v; want a directory of its own", fi.Mode(), err)
	}
	if text := read(t, c.DataDir+odd); string(text) != "x" {
		t.Errorf("a file of the user's: %q", text)
	}
	clean(t, s, c)
}
