// Package pgtest starts throwaway PostgreSQL clusters for tests. A cluster
// listens on a Unix socket only, in a directory of its own, and is gone when
// its test ends, also when the test process is killed.
//
// PostgreSQL refuses to run as root. A test that runs as root gives the
// server to the user postgres (or nobody), and everything below Dir belongs
// to that user; any other test runs the server as itself.
//
// A server that is not installed fails the test, with the command that
// installs it: a skipped test has not passed.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Majors are the PostgreSQL versions that walg is tested with.
var Majors = []int{10, 13, 14, 15, 16, 17, 18}

// Options says what cluster New starts.
type Options struct {
	Major     int               // 15 when zero
	Config    map[string]string // appended to postgresql.conf
	Checksums bool              // initdb with data checksums
	InitArgs  []string          // further initdb arguments, e.g. --wal-segsize=1
	DataDir   string            // an existing data directory (a restored one): no initdb
	User      string            // superuser of an existing data directory; postgres when empty
	Stopped   bool              // do not start it
}

// Cluster is one PostgreSQL server and its data directory.
type Cluster struct {
	Major     int
	BinDir    string
	Dir       string // the server's own place; holds the data, the socket and the log
	DataDir   string
	SocketDir string
	Port      int
	User      string // the superuser
	Log       string // the server's log file

	t    testing.TB
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// startTimeout bounds a start with recovery on a busy machine.
const startTimeout = 2 * time.Minute

// ForEach runs test as a subtest for each of Majors. A developer who has only
// some of them says so: WALG_TEST_PG="15 18".
func ForEach(t *testing.T, test func(t *testing.T, major int)) {
	only := strings.Fields(os.Getenv("WALG_TEST_PG"))
	for _, major := range Majors {
		if len(only) > 0 && !slices.Contains(only, strconv.Itoa(major)) {
			continue
		}
		t.Run(strconv.Itoa(major), func(t *testing.T) { test(t, major) })
	}
}

// New starts a cluster that ends with the test. It fails the test when the
// server cannot be found or started.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Major == 0 {
		o.Major = 15
	}
	c := &Cluster{Major: o.Major, BinDir: BinDir(t, o.Major), Dir: Dir(t), Port: 5432, User: o.User, t: t}
	if c.User == "" {
		c.User = "postgres"
	}
	c.SocketDir = c.Dir
	c.Log = filepath.Join(c.Dir, "log")
	c.DataDir = o.DataDir
	if c.DataDir == "" {
		c.DataDir = filepath.Join(c.Dir, "data")
		c.initdb(o)
	}
	c.Configure(o.Config)
	t.Cleanup(func() {
		c.Stop("immediate")
		if t.Failed() {
			if log, err := os.ReadFile(c.Log); err == nil {
				t.Logf("server log of %s:\n%s", c.DataDir, tail(log, 4000))
			}
		}
	})
	if !o.Stopped {
		c.Start()
	}
	return c
}

func (c *Cluster) initdb(o Options) {
	c.t.Helper()
	args := []string{"-D", c.DataDir, "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-N"}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case o.Major >= 18:
		args = append(args, "--no-data-checksums")
	}
	cmd := c.Command(filepath.Join(c.BinDir, "initdb"), append(args, o.InitArgs...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("initdb %d: %v\n%s", o.Major, err, out)
	}
	// fsync costs seconds on shared disks, and no test cuts the power.
	c.Configure(map[string]string{"fsync": "off", "max_wal_senders": "4", "wal_level": "replica", "shared_buffers": "16MB"})
}

// Configure appends settings to postgresql.conf; a running server takes them
// at its next start or reload. Values are quoted here.
func (c *Cluster) Configure(settings map[string]string) {
	c.t.Helper()
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	c.Append("postgresql.conf", b.String())
}

// Append adds text to a file of the data directory, which it makes if needed.
func (c *Cluster) Append(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.DataDir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		c.t.Fatalf("append to %s: %v", path, err)
	}
	Own(c.t, path)
}

// Start starts the server and waits until it takes connections; on a standby
// that is when it is consistent (hot_standby).
func (c *Cluster) Start() {
	c.t.Helper()
	if err := c.TryStart(); err != nil {
		c.t.Fatalf("start PostgreSQL %d in %s: %v", c.Major, c.DataDir, err)
	}
}

// TryStart is Start for a test that expects the server to refuse; the error
// carries the end of the server's log.
func (c *Cluster) TryStart() error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := c.tryStart(deadline)
		// After Kill the orphans of the old server live a moment longer.
		if err == nil || !strings.Contains(err.Error(), "pre-existing shared memory block") || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (c *Cluster) tryStart(deadline time.Time) error {
	log, err := os.OpenFile(c.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	before, err := log.Stat()
	if err != nil {
		return err
	}
	cmd := c.Command(filepath.Join(c.BinDir, "postgres"), "-D", c.DataDir,
		"-c", "listen_addresses=", "-c", "port="+strconv.Itoa(c.Port),
		"-c", "unix_socket_directories="+c.SocketDir, "-c", "logging_collector=off")
	cmd.Stdout, cmd.Stderr = log, log
	done := make(chan struct{})
	if err := start(cmd, func() { close(done) }); err != nil {
		return err
	}
	c.mu.Lock()
	c.cmd, c.done = cmd, done
	c.mu.Unlock()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := c.connect(ctx, "postgres")
		if err == nil {
			conn.Close(ctx)
			cancel()
			return nil
		}
		cancel()
		select {
		case <-done:
			return fmt.Errorf("server ended: %v\n%s", cmd.ProcessState, c.logFrom(before.Size()))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.Stop("immediate")
			return fmt.Errorf("no connection after %v: %v\n%s", startTimeout, err, c.logFrom(before.Size()))
		}
	}
}

func (c *Cluster) logFrom(offset int64) string {
	data, err := os.ReadFile(c.Log)
	if err != nil {
		return err.Error()
	}
	return tail(data[min(offset, int64(len(data))):], 4000)
}

// Stop stops the server and waits for its end; mode is smart, fast or
// immediate. Stopping a stopped server does nothing.
func (c *Cluster) Stop(mode string) {
	c.t.Helper()
	c.end(map[string]os.Signal{"smart": sigSmart, "fast": sigFast, "immediate": sigImmediate}[mode])
}

// Kill ends the server as a crash does: SIGKILL to its first process. Start
// may follow.
func (c *Cluster) Kill() {
	c.t.Helper()
	c.end(os.Kill)
}

func (c *Cluster) end(sig os.Signal) {
	c.t.Helper()
	c.mu.Lock()
	cmd, done := c.cmd, c.done
	c.cmd = nil
	c.mu.Unlock()
	if cmd == nil {
		return
	}
	if sig == nil {
		c.t.Fatalf("stop %s: no such mode", c.DataDir)
	}
	cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case <-done:
	case <-time.After(startTimeout):
		cmd.Process.Kill()
		<-done
		c.t.Errorf("stop %s: killed after %v", c.DataDir, startTimeout)
	}
}

// Running says whether the server's process lives.
func (c *Cluster) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// Env is what a libpq client needs to reach the server, as NAME=VALUE.
func (c *Cluster) Env() []string {
	return []string{"PGHOST=" + c.SocketDir, "PGPORT=" + strconv.Itoa(c.Port), "PGUSER=" + c.User, "PGDATABASE=postgres"}
}

// ConnString is Env as a connection string.
func (c *Cluster) ConnString() string {
	return fmt.Sprintf("host=%s port=%d user=%s", c.SocketDir, c.Port, c.User)
}

func (c *Cluster) connect(ctx context.Context, db string) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, fmt.Sprintf("%s dbname='%s' application_name=pgtest", c.ConnString(), db))
}

// SQL runs statements as psql -At does: the rows of all results, a line each,
// columns joined by |. All statements are one transaction. It fails the test
// on an error.
func (c *Cluster) SQL(db, query string) string {
	c.t.Helper()
	out, err := c.TrySQL(db, query)
	if err != nil {
		c.t.Fatalf("SQL on %s: %v\n%s", c.DataDir, err, query)
	}
	return out
}

// MustExec is SQL on the database postgres, without results. Each query has
// its own transaction, as VACUUM and others want it.
func (c *Cluster) MustExec(queries ...string) {
	c.t.Helper()
	for _, query := range queries {
		c.SQL("postgres", query)
	}
}

// TrySQL is SQL with the error returned.
func (c *Cluster) TrySQL(db, query string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conn, err := c.connect(ctx, db)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, query).ReadAll()
	if err != nil {
		return "", err
	}
	var lines []string
	for _, result := range results {
		for _, row := range result.Rows {
			lines = append(lines, strings.Join(texts(row), "|"))
		}
	}
	return strings.Join(lines, "\n"), nil
}

func texts(row [][]byte) []string {
	s := make([]string, len(row))
	for i, v := range row {
		s[i] = string(v)
	}
	return s
}

// Connect opens a connection that is closed with the test.
func (c *Cluster) Connect(db string) *pgx.Conn {
	c.t.Helper()
	conn, err := pgx.Connect(context.Background(), fmt.Sprintf("%s dbname='%s'", c.ConnString(), db))
	if err != nil {
		c.t.Fatalf("connect to %s: %v", c.DataDir, err)
	}
	c.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// WaitFor runs query until it gives want, at most two minutes.
func (c *Cluster) WaitFor(query, want string) {
	c.t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		got, err := c.TrySQL("postgres", query)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("wait for %q from %s: still %q, %v", want, query, got, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// PgbenchInit makes pgbench's tables at a scale (about 15 MiB each).
func (c *Cluster) PgbenchInit(scale int) {
	c.t.Helper()
	if out, err := c.Pgbench("-i", "-q", "-s", strconv.Itoa(scale)).CombinedOutput(); err != nil {
		c.t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
}

// Pgbench is a pgbench command for this cluster, not yet started. The
// program is that of Debian's PostgreSQL, which works with all versions.
func (c *Cluster) Pgbench(args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := c.Command(Tool(c.t, "pgbench"), args...)
	cmd.Env = append(cmd.Env, c.Env()...)
	return cmd
}

// Copy is a new cluster with a copy of c's data directory; c must be stopped
// or the copy be taken between start and stop of a backup. The copy is not
// started. Tablespaces are not copied.
func (c *Cluster) Copy() *Cluster {
	c.t.Helper()
	dir := filepath.Join(Dir(c.t), "data")
	if err := os.CopyFS(dir, os.DirFS(c.DataDir)); err != nil {
		c.t.Fatalf("copy %s: %v", c.DataDir, err)
	}
	os.Remove(filepath.Join(dir, "postmaster.pid")) // absent where c is stopped
	restrict(c.t, dir)
	Own(c.t, dir)
	return New(c.t, Options{Major: c.Major, DataDir: dir, Stopped: true})
}

// Standby is a running standby of c, made by copying c's data directory while
// c is stopped, and streaming from it. Both run when it returns.
func (c *Cluster) Standby(config map[string]string) *Cluster {
	c.t.Helper()
	running := c.Running()
	c.Stop("fast")
	s := c.Copy()
	s.Configure(config)
	conninfo := strings.ReplaceAll(c.ConnString(), "'", "''")
	if c.Major >= 12 {
		s.Configure(map[string]string{"primary_conninfo": c.ConnString(), "recovery_target_timeline": "latest"})
		s.Append("standby.signal", "")
	} else {
		s.Configure(map[string]string{"hot_standby": "on"})
		s.Append("recovery.conf", "standby_mode = on\nprimary_conninfo = '"+conninfo+"'\nrecovery_target_timeline = 'latest'\n")
	}
	if running {
		c.Start()
	}
	s.Start()
	return s
}

// Promote ends recovery and waits until the server takes writes.
func (c *Cluster) Promote() {
	c.t.Helper()
	cmd := c.Command(filepath.Join(c.BinDir, "pg_ctl"), "promote", "-D", c.DataDir)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("promote %s: %v\n%s", c.DataDir, err, out)
	}
	c.WaitFor("select pg_is_in_recovery()", "f")
}

// Command is a command that runs as the server's user, in the server's
// directory, with a minimal environment.
func (c *Cluster) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + c.Dir}
	become(cmd)
	return cmd
}

// Mkdir makes a directory beside the data directory that the server may
// write: an archive, a tablespace.
func (c *Cluster) Mkdir(name string) string {
	c.t.Helper()
	path := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		c.t.Fatal(err)
	}
	Own(c.t, path)
	return path
}

func tail(b []byte, n int) string { return string(b[max(0, len(b)-n):]) }
