//go:build linux

package test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/postgres/pgtest"
)

// crowd bounds how many of the tests that run clusters side by side do so.
var crowd = make(chan struct{}, 2)

// together lets a test run beside one other of its kind.
func together(t *testing.T) {
	t.Parallel()
	crowd <- struct{}{}
	t.Cleanup(func() { <-crowd })
}

// site is a cluster with the store that it archives to, and the settings that
// its administrator has made. Everything runs as the server's user.
type site struct {
	*pgtest.Cluster
	t        testing.TB
	store    string
	settings []string // NAME=VALUE, of walg
}

// newSite starts a cluster that archives with walg-wal-push.
func newSite(t testing.TB, o pgtest.Options, settings ...string) *site {
	t.Helper()
	dir := serverStore(t)
	s := &site{t: t, store: dir, settings: append([]string{"WALG_FILE_PREFIX=" + dir}, settings...)}
	s.begin(o)
	return s
}

// begin starts the site's cluster.
func (s *site) begin(o pgtest.Options) {
	s.t.Helper()
	config := map[string]string{
		"archive_mode":    "on",
		"archive_command": s.line(`walg-wal-push %p`),
	}
	for name, value := range o.Config {
		config[name] = value
	}
	o.Config = config
	s.Cluster = pgtest.New(s.t, o)
}

// serverStore makes an empty store that the server's user may take away and
// bring back.
func serverStore(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(pgtest.Dir(t), "store")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, dir)
	return dir
}

// line is a shell line with the site's settings, for archive_command and
// restore_command.
func (s *site) line(command string) string {
	var b strings.Builder
	for _, setting := range append(coverage(), s.settings...) {
		name, value, _ := strings.Cut(setting, "=")
		fmt.Fprintf(&b, "export %s=%s; ", name, quote(value))
	}
	return b.String() + command
}

// coverage is the setting that programs of other users need for their counters.
func coverage() []string {
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		return []string{"GOCOVERDIR=" + dir}
	}
	return nil
}

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// command is a shell line that the site's administrator types; it is not yet
// started.
func (s *site) command(line string, env ...string) *exec.Cmd {
	cmd := s.Command("/bin/dash", "-c", line)
	cmd.Env = slices.Concat(cmd.Env, []string{"TZ=UTC"}, coverage(), s.Env(), s.settings, env)
	cmd.SysProcAttr.Setpgid = true
	return cmd
}

// run runs a line to its end.
func (s *site) run(line string, env ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	return finish(s.t, s.command(line, env...))
}

// must is run for a line that has to succeed.
func (s *site) must(line string, env ...string) (stdout string) {
	s.t.Helper()
	stdout, stderr, status := s.run(line, env...)
	if status != 0 {
		s.t.Fatalf("%s: status %d\n%s", line, status, stderr)
	}
	return stdout
}

// finish runs a command to its end, within the limit.
func finish(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(limit, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%v: still running after %v\n%s", cmd, limit, &msg)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v\n%s", cmd, err, &msg)
	}
	return out.String(), msg.String(), exitStatus(cmd.ProcessState)
}

// eventually waits until it is true, and fails the test when it takes too long.
func eventually(t testing.TB, what string, it func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !it(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// object is the path of an object.
func (s *site) object(key string) string { return filepath.Join(s.store, filepath.FromSlash(key)) }

// archived ends the current WAL segment and waits until it is archived, with
// all before it.
func (s *site) archived() {
	s.t.Helper()
	segment := s.SQL("postgres", "select pg_walfile_name(pg_switch_wal())")
	eventually(s.t, segment+" is archived", func() bool { return exists(s.object("wal_005/" + segment + ".lz4")) })
}

// backups are the names of the finished backups.
func (s *site) backups() []string {
	s.t.Helper()
	var names []string
	found, _ := filepath.Glob(s.object("basebackups_005/*_backup_stop_sentinel.json")) // the pattern is well formed
	for _, path := range found {
		names = append(names, strings.TrimSuffix(filepath.Base(path), "_backup_stop_sentinel.json"))
	}
	return names
}

// place is a path that does not exist yet, where the server's user can make a
// data directory.
func (s *site) place() string { return filepath.Join(pgtest.Dir(s.t), "data") }

// recovery makes a data directory that was restored a cluster in archive
// recovery, not yet started. settings are recovery targets and the like; it
// archives nothing itself.
func (s *site) recovery(dir string, settings map[string]string) *pgtest.Cluster {
	s.t.Helper()
	c := pgtest.New(s.t, pgtest.Options{
		Major: s.Major, DataDir: dir, Stopped: true, User: s.User,
		Config: map[string]string{"archive_mode": "off", "archive_command": "", "hot_standby": "on"},
	})
	all := map[string]string{"restore_command": s.line("walg-wal-fetch %f %p")}
	for name, value := range settings {
		all[name] = value
	}
	if s.Major >= 12 {
		c.Configure(all)
		c.Append("recovery.signal", "")
		return c
	}
	for name, value := range all {
		c.Append("recovery.conf", fmt.Sprintf("%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''")))
	}
	return c
}

// recover restores the newest backup, replays the archive, and returns the
// cluster when it takes writes.
func (s *site) recover(fetch string, settings map[string]string) *pgtest.Cluster {
	s.t.Helper()
	dir := s.place()
	s.must(fetch, "DIR="+dir)
	c := s.recovery(dir, settings)
	c.Start()
	c.WaitFor("select pg_is_in_recovery()", "f")
	return c
}

// load is pgbench at work.
type load struct {
	s    *site
	name string
	cmd  *exec.Cmd
	done chan error
	out  bytes.Buffer
}

// startLoad starts pgbench, whose tables exist, and waits until it has written.
func (s *site) startLoad() *load {
	s.t.Helper()
	l := s.pgbench("load", "-c", "2", "-R", "300")
	l.more()
	return l
}

// startChurn makes and drops tables and databases.
func (s *site) startChurn() *load {
	s.t.Helper()
	script := filepath.Join(s.Dir, "churn.sql")
	write(s.t, script, []byte(`drop table if exists churn;
create table churn as select generate_series(1, 20000) a;
create index on churn (a);
truncate churn;
insert into churn select generate_series(1, 5000);
vacuum full churn;
drop database if exists churn;
create database churn;
drop database churn;
`))
	pgtest.Own(s.t, script)
	return s.pgbench("churn", "-f", script)
}

func (s *site) pgbench(name string, args ...string) *load {
	s.t.Helper()
	l := &load{s: s, name: name, cmd: s.Pgbench(append(args, "-n", "-T", "3600")...), done: make(chan error, 1)}
	l.cmd.Env = append(l.cmd.Env, "PGAPPNAME="+name)
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { l.done <- l.cmd.Wait() }()
	s.t.Cleanup(func() { l.cmd.Process.Kill() }) // it may have ended
	return l
}

// written is how many transactions the load has committed.
func (l *load) written() string {
	l.s.t.Helper()
	return l.s.SQL("postgres", "select count(*) from pgbench_history")
}

// more waits until the load has written more.
func (l *load) more() {
	l.s.t.Helper()
	before := l.written()
	eventually(l.s.t, "pgbench writes", func() bool {
		select {
		case err := <-l.done:
			l.s.t.Fatalf("pgbench ended: %v\n%s", err, &l.out)
		default:
		}
		return l.written() != before
	})
}

// stop ends the load; nothing is written afterwards.
func (l *load) stop() {
	l.s.t.Helper()
	l.cmd.Process.Kill()
	if err := <-l.done; l.cmd.ProcessState.Exited() {
		l.s.t.Errorf("pgbench ended by itself: %v\n%s", err, &l.out)
	}
	l.s.WaitFor("select count(*) from pg_stat_activity where application_name = "+sqlText(l.name), "0")
}

// sums are a row count and a checksum for each user table of the database
// postgres, in the order of their names.
func sums(c *pgtest.Cluster) string {
	tables := c.SQL("postgres", `select oid::regclass from pg_class
		where relkind = 'r' and relnamespace = 'public'::regnamespace order by relname`)
	var b strings.Builder
	for _, table := range strings.Fields(tables) {
		b.WriteString(table + " " + c.SQL("postgres", "select count(*), md5(string_agg(t::text, '|' order by t::text)) from "+table+" t") + "\n")
	}
	return b.String()
}

// sound fails the test unless amcheck finds nothing wrong with any index of
// the database postgres.
func sound(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	c.MustExec("create extension if not exists amcheck")
	check := "bt_index_check(c.oid, true)" // each row of the table is in the index too
	if c.Major < 11 {
		check = "bt_index_check(c.oid)"
	}
	n := c.SQL("postgres", `select count(*) from (select `+check+`, c.oid from pg_class c join pg_index i on indexrelid = c.oid
		where relam = (select oid from pg_am where amname = 'btree') and relkind = 'i' and relpersistence <> 't' and indisvalid offset 0) checked`)
	if n == "0" {
		t.Error("amcheck had no index to check")
	}
}

// clean stops a cluster and fails the test unless the checksum of each page is
// right.
func clean(t testing.TB, s *site, c *pgtest.Cluster) {
	t.Helper()
	c.Stop("fast")
	dir := "D=" + c.DataDir
	if c.Major == 15 {
		s.must(quote(pgtest.Tool(t, "pg_checksums"))+` --check -D "$D"`, dir)
	}
	s.must(`walg-tar create "$D" | walg-tar verify`, dir)
}

// tree describes what a restore left in dir, in the form of the golden archives'
// expected.tree: type, mode, and of files size and MD5, path; sorted.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name := "." + strings.TrimPrefix(path, dir)
		switch {
		case fi.IsDir():
			lines = append(lines, fmt.Sprintf("d %o %s", fi.Mode().Perm(), name))
		case fi.Mode().IsRegular():
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			h := md5.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("f %o %d %x %s", fi.Mode().Perm(), fi.Size(), h.Sum(nil), name))
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("l 777 %s -> %s", name, to))
		default:
			lines = append(lines, fmt.Sprintf("? %v %s", fi.Mode(), name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// sameLines fails the test where two sorted lists differ, and shows how.
func sameLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	const most = 20
	var diff []string
	for len(got) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || len(got) > 0 && got[0] < want[0]:
			diff, got = append(diff, "+ "+got[0]), got[1:]
		case len(got) == 0 || want[0] < got[0]:
			diff, want = append(diff, "- "+want[0]), want[1:]
		default:
			got, want = got[1:], want[1:]
		}
	}
	if len(diff) > 0 {
		t.Errorf("%s differs in %d lines (+ got, - want):\n%s", what, len(diff), strings.Join(diff[:min(most, len(diff))], "\n"))
	}
}

// stage makes a folder with all programs in which one is replaced by a script.
// The script finds the real one as $real. A line that begins with the folder
// in PATH uses it: the scripts look beside themselves first.
func stage(t testing.TB, program, script string) (bin string) {
	t.Helper()
	bin = folder(t)
	real := filepath.Join(base, "bin")
	names, err := os.ReadDir(real)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name.Name() == program {
			continue
		}
		if err := os.Symlink(filepath.Join(real, name.Name()), filepath.Join(bin, name.Name())); err != nil {
			t.Fatal(err)
		}
	}
	text := "#!/bin/sh\nreal=" + quote(filepath.Join(real, program)) + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(bin, program), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

// first is the setting that puts a folder of stage first in PATH.
func first(bin string) string { return "PATH=" + bin + ":" + os.Getenv("PATH") }

// gate stops a script of stage at a place: its line is $gate.
type gate struct{ dir string }

func newGate(t testing.TB) *gate {
	t.Helper()
	g := &gate{pgtest.Dir(t)}
	if err := syscall.Mkfifo(filepath.Join(g.dir, "open"), 0o666); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, g.dir)
	return g
}

// line is what a script does at the gate: it says that it is there, and waits.
func (g *gate) line() string {
	return fmt.Sprintf(": >%s/reached; read -r _ <%s/open || :", quote(g.dir), quote(g.dir))
}

// reached waits until somebody stands at the gate.
func (g *gate) reached(t testing.TB) {
	t.Helper()
	eventually(t, "the gate is reached", func() bool { return exists(filepath.Join(g.dir, "reached")) })
}

// open lets whoever waits go on; with nobody there it fails. Who has said that
// it is there may not have come to waiting yet.
func (g *gate) open(t testing.TB) {
	t.Helper()
	var f *os.File
	eventually(t, "somebody waits at the gate", func() (there bool) {
		var err error
		f, err = os.OpenFile(filepath.Join(g.dir, "open"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	defer f.Close()
	if _, err := f.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
}

// process is a command that runs while the test goes on.
type process struct {
	t        testing.TB
	cmd      *exec.Cmd
	out, msg bytes.Buffer
	ended    chan error
	over     bool
}

// start starts a command that leads a process group, which is gone with the
// test.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &p.out, &p.msg
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if !p.over {
			p.signal(syscall.SIGKILL)
			<-p.ended
		}
	})
	return p
}

// signal sends a signal to the whole process group.
func (p *process) signal(sig syscall.Signal) { syscall.Kill(-p.cmd.Process.Pid, sig) }

// wait waits for the end of the command.
func (p *process) wait() (stdout, stderr string, status int) {
	p.t.Helper()
	select {
	case <-p.ended:
		p.over = true
	case <-time.After(limit):
		p.t.Fatalf("%v: still running after %v", p.cmd, limit)
	}
	return p.out.String(), p.msg.String(), exitStatus(p.cmd.ProcessState)
}

// Mkdir makes a folder of the server's user beside the data directory, also
// where no server is.
func (s *site) Mkdir(name string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		s.t.Fatal(err)
	}
	pgtest.Own(s.t, path)
	return path
}
