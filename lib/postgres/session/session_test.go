package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/postgres"
	"walg/lib/postgres/pgtest"
	"walg/lib/postgres/session"
	"walg/lib/wal"
)

func open(t *testing.T, c *pgtest.Cluster) *session.Session {
	t.Helper()
	s, err := session.Open(t.Context(), session.Options{ConnString: c.ConnString()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// wantFault checks an error's status and that its text and hint name what
// went wrong.
func wantFault(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := fault.Status(err); got != status {
		t.Errorf("status %d, want %d: %v", got, status, err)
	}
	text := err.Error() + "\n" + fault.Hint(err)
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q lacks %q", text, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has several lines", err)
	}
}

// recorder collects notices.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

func TestBackupOfEveryVersion(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		c := pgtest.New(t, pgtest.Options{Major: major, Checksums: major%2 == 0})
		archive := c.Mkdir("archive")
		c.Stop("fast")
		c.Configure(map[string]string{"archive_mode": "on", "archive_command": "cp %p " + archive + "/%f"})
		c.Start()
		c.MustExec("create tablespace elsewhere location '" + c.Mkdir("elsewhere") + "'")
		c.MustExec("create table t tablespace elsewhere as select generate_series(1, 1000) a")

		var notes recorder
		s, err := session.Open(t.Context(), session.Options{ConnString: c.ConnString(), Notice: notes.note})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		server := s.Server()
		if server.Major() != major || server.InRecovery || server.DataDir != c.DataDir || server.ArchiveMode != "on" {
			t.Errorf("server %+v", server)
		}
		control, err := s.CheckDir(t.Context(), c.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		checkControl(t, c, control)
		if n, err := postgres.ReadMajor(c.DataDir); n != major || err != nil {
			t.Errorf("PG_VERSION: %d, %v", n, err)
		}

		started, err := s.Start(t.Context(), "a label", true)
		if err != nil {
			t.Fatal(err)
		}
		if want := c.SQL("postgres", "select pg_walfile_name('"+started.LSN.String()+"')"); started.Segment.String() != want || started.Standby {
			t.Errorf("started %+v, server says %s", started, want)
		}
		spaces, err := s.Tablespaces(t.Context())
		if err != nil || len(spaces) != 1 || spaces[0].Location != filepath.Join(c.Dir, "elsewhere") || spaces[0].InPlace {
			t.Errorf("tablespaces %+v, %v", spaces, err)
		}
		if newest, err := s.CurrentLSN(t.Context()); err != nil || newest < started.LSN {
			t.Errorf("current LSN %s, %v", newest, err)
		}

		stopped, err := s.Stop(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(stopped.Label), fmt.Sprintf("START WAL LOCATION: %s (file %s)\n", started.LSN, started.Segment)) ||
			!strings.Contains(string(stopped.Label), "LABEL: a label\n") {
			t.Errorf("label %q", stopped.Label)
		}
		if want := fmt.Sprintf("%d %s\n", spaces[0].OID, spaces[0].Location); string(stopped.TablespaceMap) != want {
			t.Errorf("tablespace map %q, want %q", stopped.TablespaceMap, want)
		}
		if stopped.LSN <= started.LSN {
			t.Errorf("stopped at %s, started at %s", stopped.LSN, started.LSN)
		}
		if err := s.WaitArchived(t.Context(), c.DataDir, started, stopped); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{started.Segment.String(), stopped.Segment.String()} {
			if fi, err := os.Stat(filepath.Join(archive, name)); err != nil || uint64(fi.Size()) != server.WALSegmentSize {
				t.Errorf("archived %s: %v", name, err)
			}
		}
		for _, name := range []string{"backup_label", "tablespace_map"} {
			if _, err := os.Stat(filepath.Join(c.DataDir, name)); err == nil {
				t.Errorf("%s was written into the live directory", name)
			}
		}
		if notes.text() != "" {
			t.Errorf("notices of a good backup: %s", notes.text())
		}
		if _, err := s.Stop(t.Context()); err == nil {
			t.Error("a second stop succeeds")
		}
		// One session can take several backups.
		if _, err := s.Start(t.Context(), "second", true); err != nil {
			t.Error(err)
		} else if _, err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// checkControl compares what was read from the file with what the server says.
func checkControl(t *testing.T, c *pgtest.Cluster, got postgres.Control) {
	t.Helper()
	text := c.SQL("postgres", `select system_identifier, pg_control_version, catalog_version_no from pg_control_system();
		select database_block_size, blocks_per_segment, bytes_per_wal_segment, data_page_checksum_version from pg_control_init();
		select redo_lsn, timeline_id from pg_control_checkpoint()`)
	checksums := 0
	if got.Checksums {
		checksums = 1
	}
	want := fmt.Sprintf("%d|%d|%d\n%d|%d|%d|%d\n%s|%d", got.SystemID, got.Version, got.CatalogVersion,
		got.BlockSize, got.SegmentBlocks, got.WALSegmentSize, checksums, got.Redo, got.Timeline)
	if text != want {
		t.Errorf("pg_control says\n%s\nthe server says\n%s", want, text)
	}
	if got.State != postgres.StateProduction || len(got.Raw) != 8192 {
		t.Errorf("state %d, %d bytes", got.State, len(got.Raw))
	}
}

func TestOtherSegmentSizeNamesTheBackup(t *testing.T) {
	for _, size := range []int{1, 64} {
		c := pgtest.New(t, pgtest.Options{InitArgs: []string{"--wal-segsize=" + strconv.Itoa(size)}})
		for range 3 {
			c.MustExec("create table if not exists t (a int); insert into t values (1); select pg_switch_wal()")
		}
		s := open(t, c)
		started, err := s.Start(t.Context(), "x", true)
		if err != nil {
			t.Fatal(err)
		}
		if got := wal.SegmentAt(1, started.LSN, uint64(size)<<20); s.Server().WALSegmentSize != uint64(size)<<20 || got != started.Segment {
			t.Errorf("segments of %d MiB: %+v, computed %s", size, started, got)
		}
	}
}

func TestBackupOnStandby(t *testing.T) {
	for _, major := range []int{10, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Major: major})
			standby := c.Standby(nil)
			c.MustExec("create table t as select 1 a; checkpoint")
			standby.WaitFor("select count(*) from t", "1")

			var notes recorder
			s, err := session.Open(t.Context(), session.Options{ConnString: standby.ConnString(), Notice: notes.note})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.CheckDir(t.Context(), standby.DataDir); err != nil {
				t.Error(err)
			}
			started, err := s.Start(t.Context(), "on a standby", true)
			if err != nil {
				t.Fatal(err)
			}
			if newest, err := s.CurrentLSN(t.Context()); err != nil || newest < started.LSN {
				t.Errorf("current LSN %s, %v", newest, err)
			}
			stopped, err := s.Stop(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !started.Standby || !strings.Contains(string(stopped.Label), "BACKUP FROM: standby") ||
				!strings.Contains(string(stopped.Label), "(file "+started.Segment.String()+")") {
				t.Errorf("%+v, label %q", started, stopped.Label)
			}
			if err := s.WaitArchived(t.Context(), standby.DataDir, started, stopped); err != nil {
				t.Error(err)
			}
			if want := started.Segment.String(); !strings.Contains(notes.text(), want) {
				t.Errorf("notices %q do not say that %s is needed", notes.text(), want)
			}

			// The primary's directory holds the same cluster and port.
			_, err = s.CheckDir(t.Context(), c.DataDir)
			wantFault(t, err, fault.Usage, "another server", c.DataDir, standby.DataDir)
		})
	}
}

func TestPromotionSpoilsTheBackup(t *testing.T) {
	for _, major := range []int{10, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Major: major})
			standby := c.Standby(nil)
			s := open(t, standby)
			if _, err := s.Start(t.Context(), "x", true); err != nil {
				t.Fatal(err)
			}
			standby.Promote()
			_, err := s.Stop(t.Context())
			wantFault(t, err, fault.Failed, "promoted", "take another")
		})
	}
}

func TestWrongClusterIsRefused(t *testing.T) {
	a, b := pgtest.New(t, pgtest.Options{}), pgtest.New(t, pgtest.Options{})
	s := open(t, a)
	_, err := s.CheckDir(t.Context(), b.DataDir)
	wantFault(t, err, fault.Usage, b.DataDir, a.DataDir,
		a.SQL("postgres", "select system_identifier from pg_control_system()"),
		b.SQL("postgres", "select system_identifier from pg_control_system()"))

	_, err = s.CheckDir(t.Context(), t.TempDir())
	wantFault(t, err, fault.Usage, "pg_control", "data directory?")

	a.Stop("fast")
	copied := a.Copy()
	a.Start()
	s = open(t, a)
	_, err = s.CheckDir(t.Context(), copied.DataDir)
	wantFault(t, err, fault.Usage, "no server runs in it", a.DataDir)

	copied.Port = 5433
	copied.Start()
	_, err = s.CheckDir(t.Context(), copied.DataDir)
	wantFault(t, err, fault.Usage, "another server", a.DataDir)
}

func TestServerThatCannotBeReachedIsStatus1(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ conn, word string }{
		"no socket":      {"host=" + dir + " user=u", dir},
		"nothing there":  {"host=127.0.0.1 port=1 user=u", "127.0.0.1:1"},
		"no such host":   {"host=host.invalid user=u", "host.invalid"},
		"several places": {"host=" + dir + ",127.0.0.1 port=1 user=u", dir},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := session.Open(t.Context(), session.Options{ConnString: test.conn})
			wantFault(t, err, fault.Failed, test.word, "connect to PostgreSQL", "PGHOST")
		})
	}
}

func TestServerThatRefusesIsStatus64(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	c.MustExec("create role hidden login password 'secret'")
	hba := filepath.Join(c.DataDir, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("local all hidden scram-sha-256\nlocal all postgres trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.MustExec("select pg_reload_conf()")
	c.WaitFor("select count(*) from pg_hba_file_rules", "2")
	base := "host=" + c.SocketDir + " port=" + strconv.Itoa(c.Port)
	for name, test := range map[string]struct{ conn, word string }{
		"wrong password":   {base + " user=hidden password=guess", "hidden"},
		"no password":      {base + " user=hidden", "hidden"},
		"no entry":         {base + " user=stranger", "stranger"},
		"no such database": {base + " user=postgres dbname=nothing", "nothing"},
		"bad port":         {"host=x port=none user=u", "port"},
		"bad option":       {"host=x sslmode=perhaps user=u", "sslmode"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := session.Open(t.Context(), session.Options{ConnString: test.conn})
			wantFault(t, err, fault.Usage, test.word)
			if strings.Contains(err.Error(), "guess") {
				t.Errorf("%q shows the password", err)
			}
		})
	}
	s, err := session.Open(t.Context(), session.Options{ConnString: base + " user=hidden password=secret"})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestEnvironmentNamesTheServer(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	c.MustExec("create database named")
	for _, v := range c.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("PGDATABASE", "")
	application := func() string {
		s, err := session.Open(t.Context(), session.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return c.SQL("postgres", "select application_name, datname from pg_stat_activity where backend_type = 'client backend' and application_name <> 'pgtest'")
	}
	if got := application(); got != "walg|postgres" {
		t.Errorf("got %q", got)
	}
	t.Setenv("PGAPPNAME", "nightly")
	t.Setenv("PGDATABASE", "named")
	c.WaitFor("select count(*) from pg_stat_activity where application_name = 'walg'", "0")
	if got := application(); got != "nightly|named" {
		t.Errorf("got %q", got)
	}
}

func TestBackupNeedsTheRightAndNoMore(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		c := pgtest.New(t, pgtest.Options{Major: major})
		c.MustExec("create role backup login")
		conn := strings.Replace(c.ConnString(), "user=postgres", "user=backup", 1)
		s, err := session.Open(t.Context(), session.Options{ConnString: conn})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Start(t.Context(), "x", true)
		wantFault(t, err, fault.Usage, "start backup", "permission denied", "grant execute")

		if major < 15 {
			c.MustExec("grant execute on function pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean) to backup")
		} else {
			c.MustExec("grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to backup")
		}
		if _, err := s.Start(t.Context(), "x", true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CheckDir(t.Context(), c.DataDir); err != nil {
			t.Error(err)
		}
		if _, err := s.Tablespaces(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestFailingArchiveCommandEndsTheWaitWithTheContext(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Config: map[string]string{"archive_mode": "on", "archive_command": "false"}})
	s := open(t, c)
	started, err := s.Start(t.Context(), "x", true)
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := s.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = s.WaitArchived(ctx, c.DataDir, started, stopped)
	wantFault(t, err, fault.Failed, stopped.Segment.String(), "archive_command")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// Once the command works, the same wait ends well.
	c.MustExec("alter system set archive_command = 'true'")
	c.MustExec("select pg_reload_conf()")
	if err := s.WaitArchived(t.Context(), c.DataDir, started, stopped); err != nil {
		t.Error(err)
	}
	if err := s.WaitArchived(t.Context(), t.TempDir(), started, stopped); err == nil {
		t.Error("a directory without archive_status counts as archived")
	}
}

func TestArchivingThatIsOffIsSaid(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	var notes recorder
	s, err := session.Open(t.Context(), session.Options{ConnString: c.ConnString(), Notice: notes.note})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	started, err := s.Start(t.Context(), "x", true)
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := s.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitArchived(t.Context(), c.DataDir, started, stopped); err != nil {
		t.Fatal(err)
	}
	if got := notes.text(); !strings.Contains(got, "archive_mode is off") || !strings.Contains(got, stopped.Segment.String()) {
		t.Errorf("notices %q", got)
	}
}

func TestCancelledStartLeavesNoBackupRunning(t *testing.T) {
	// Without fast the checkpoint is spread over minutes.
	c := pgtest.New(t, pgtest.Options{Config: map[string]string{"checkpoint_completion_target": "0.9", "checkpoint_timeout": "1h"}})
	c.PgbenchInit(1)
	s := open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Start(ctx, "x", false); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	s.Close()
	c.WaitFor("select count(*) from pg_stat_activity where application_name = 'walg'", "0")
	if _, err := open(t, c).Start(t.Context(), "y", true); err != nil {
		t.Error(err)
	}
}

func TestLostSessionFailsTheStop(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	s := open(t, c)
	if _, err := s.Start(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	c.MustExec("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'walg'")
	_, err := s.Stop(t.Context())
	wantFault(t, err, fault.Failed, "stop backup")
}

func TestLabelIsBytesOfTheServer(t *testing.T) {
	// In a LATIN1 database the client's UTF-8 would be another file name.
	c := pgtest.New(t, pgtest.Options{})
	c.MustExec("create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
	dir := c.Mkdir("sp\xe9cial")
	conn := c.Connect("latin")
	if _, err := conn.Exec(t.Context(), "set client_encoding = 'LATIN1'"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "create tablespace odd location '"+dir+"'"); err != nil {
		t.Fatal(err)
	}
	s, err := session.Open(t.Context(), session.Options{ConnString: c.ConnString() + " dbname=latin"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := conn.Exec(t.Context(), "create table \"caf\xe9\" (a int)"); err != nil {
		t.Fatal(err)
	}
	if _, ok := names(t, s)["latin"]["public.café"]; !ok {
		t.Error("a name is not UTF-8")
	}
	if _, err := s.Start(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	spaces, err := s.Tablespaces(t.Context())
	if err != nil || len(spaces) != 1 || spaces[0].Location != dir {
		t.Errorf("tablespaces %+v, %v", spaces, err)
	}
	stopped, err := s.Stop(t.Context())
	if err != nil || !strings.HasSuffix(string(stopped.TablespaceMap), " "+dir+"\n") {
		t.Errorf("map %q, %v", stopped.TablespaceMap, err)
	}
}

func TestInPlaceTablespace(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Config: map[string]string{"allow_in_place_tablespaces": "on"}})
	c.MustExec("create tablespace here location ''")
	spaces, err := open(t, c).Tablespaces(t.Context())
	if err != nil || len(spaces) != 1 || !spaces[0].InPlace {
		t.Errorf("tablespaces %+v, %v", spaces, err)
	}
}

func TestNamesAreWALGs(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	c.PgbenchInit(1)
	c.MustExec("create database closed allow_connections = false")
	c.MustExec("create database guarded")
	c.MustExec("revoke connect on database guarded from public; create role guest login")
	got := names(t, open(t, c))

	// The golden backup was made by WAL-G from a cluster of the same version
	// with pgbench's tables.
	data, err := os.ReadFile("../../../testdata/golden/lz4_full/store/basebackups_005/base_000000010000000000000003/files_metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		DatabasesByNames map[string]struct {
			OID    uint32 `json:"oid"`
			Tables map[string]struct {
				OID      uint32 `json:"oid"`
				Filenode uint32 `json:"relfilenode"`
			} `json:"tables_new"`
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	want := golden.DatabasesByNames["template1"]
	if len(got["template1"]) != len(want.Tables) || len(want.Tables) == 0 {
		t.Errorf("template1 has %d names, WAL-G found %d", len(got["template1"]), len(want.Tables))
	}
	for name := range want.Tables {
		n, ok := got["template1"][name]
		if !ok {
			t.Errorf("template1 lacks %s", name)
		}
		if n.Database != "template1" || n.DatabaseOID != want.OID || n.OID == 0 || n.Filenode == 0 {
			t.Errorf("name %+v", n)
		}
	}
	for name := range golden.DatabasesByNames["postgres"].Tables {
		if _, ok := got["postgres"][name]; !ok && strings.HasPrefix(name, "public.pgbench") {
			t.Errorf("postgres lacks %s", name)
		}
	}
	for _, db := range []string{"template0", "closed"} {
		if got[db] != nil {
			t.Errorf("%s is listed", db)
		}
	}
	if got["guarded"] == nil {
		t.Error("a superuser does not see the database guarded")
	}

	var notes recorder
	guest := strings.Replace(c.ConnString(), "user=postgres", "user=guest", 1)
	s, err := session.Open(t.Context(), session.Options{ConnString: guest, Notice: notes.note})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := names(t, s); got["guarded"] != nil || got["postgres"] == nil || !strings.Contains(notes.text(), "guarded") {
		t.Errorf("a guest sees guarded: %v; notices %q", got["guarded"] != nil, notes.text())
	}
	// Stopping early closes the second connection.
	for range s.Names(t.Context()) {
		break
	}
	c.WaitFor("select count(*) from pg_stat_activity where usename = 'guest'", "1")
}

func names(t *testing.T, s *session.Session) map[string]map[string]session.Name {
	t.Helper()
	got := map[string]map[string]session.Name{}
	var order []string
	for n, err := range s.Names(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got[n.Database] == nil {
			got[n.Database] = map[string]session.Name{}
			order = append(order, n.Database)
		}
		if order[len(order)-1] != n.Database {
			t.Fatalf("%s comes in two pieces: %v", n.Database, slices.Compact(order))
		}
		got[n.Database][n.Relation] = n
	}
	return got
}
