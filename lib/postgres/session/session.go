// Package session is a conversation with a PostgreSQL server, 10 to 18, about
// one base backup: what the server is, whether a directory is the one it runs
// in, start, stop, the label, tablespaces, and the wait until its WAL is
// archived. It asks and never changes anything but the backup's own state.
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"walg/lib/fault"
	"walg/lib/wal"
)

// Options says how to reach the server. What ConnString does not say comes
// from the environment and the files that libpq reads (PGHOST, .pgpass,
// pg_service.conf and so on); the database is postgres and the application
// name walg where nothing names them.
type Options struct {
	ConnString string                           // as for libpq, or a URL; may be empty
	Timeout    time.Duration                    // for connecting, and for each short query; 30 s when zero
	Notice     func(format string, args ...any) // hears the server's warnings and what is skipped; may be nil
}

const defaultTimeout = 30 * time.Second

// Server is what a session learned when it connected.
type Server struct {
	Version        int // server_version_num: 150018 for 15.18
	SystemID       uint64
	CatalogVersion uint32
	WALSegmentSize uint64
	InRecovery     bool   // a standby
	DataDir        string // as the server sees it; empty without the right to know
	ArchiveMode    string // off, on or always
	Port           int    // as the server sees it
	Started        int64  // Unix time
}

// Major is the major version: 15 for 15.18.
func (s Server) Major() int { return s.Version / 10000 }

// Session is one connection to a server, in which a backup is started and
// stopped: PostgreSQL ends the backup with the session. Its methods may be
// used by several goroutines at once; they take turns.
type Session struct {
	o      Options
	config *pgconn.Config
	server Server

	mu     sync.Mutex // guards conn
	conn   *pgconn.PgConn
	backup *Started
}

// Open connects and asks the server what it is. A server that cannot be
// reached or refuses for now is status 1; one that knows no such user or
// database, or is too old, is status 64.
func Open(ctx context.Context, o Options) (*Session, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Notice == nil {
		o.Notice = func(string, ...any) {}
	}
	config, err := pgconn.ParseConfig(o.ConnString)
	if err != nil {
		return nil, fault.New(fault.Usage, "connect to PostgreSQL: %w", err)
	}
	if config.Database == "" {
		config.Database = "postgres"
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walg"
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { o.Notice("server: %s", n.Message) }
	// A cancelled context cancels the query on the server too.
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: 5 * time.Second}
	}
	s := &Session{o: o, config: config}
	if s.conn, err = connect(ctx, config, o.Timeout); err != nil {
		return nil, err
	}
	if err := s.learn(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the session, and with it a backup that was not stopped.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.conn.Close(ctx)
}

// Server is what the session learned when it connected.
func (s *Session) Server() Server { return s.server }

func connect(ctx context.Context, config *pgconn.Config, timeout time.Duration) (*pgconn.PgConn, error) {
	short, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(short, config)
	if err != nil {
		return nil, connectError(config, err)
	}
	// An hour without a word is normal in a backup, no schema of the database's
	// owner comes before the system's functions, and names end up in JSON.
	settings := "set statement_timeout = 0; set lock_timeout = 0; set search_path = pg_catalog; set client_encoding = 'UTF8'"
	if major, _ := strconv.Atoi(leadingDigits(conn.ParameterStatus("server_version"))); major >= 14 {
		settings += "; set idle_session_timeout = 0"
	}
	if err := cancelled(short, conn.Exec(short, settings).Close()); err != nil {
		conn.Close(short)
		return nil, queryError("prepare the session", err)
	}
	return conn, nil
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

func connectError(config *pgconn.Config, err error) error {
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	what := fmt.Sprintf("connect to PostgreSQL at %s as %s", address, config.User)
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return serverError(what, refused)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return fault.WithHint(fault.New(fault.Usage, "%s: %w", what, certificate), "check PGSSLMODE and PGSSLROOTCERT")
	}
	cause := err
	var lookup *net.DNSError
	var op *net.OpError
	var failed *pgconn.ConnectError
	switch {
	case errors.As(err, &lookup):
		cause = lookup
	case errors.As(err, &op):
		cause = op.Err
	case errors.As(err, &failed):
		cause = failed.Unwrap()
	}
	hint := "does the server run, and does it listen there? PGHOST and PGPORT name another place"
	if network == "unix" {
		hint = "does the server run with this socket? PGHOST (a host or the socket's directory) and PGPORT name another place"
	}
	return fault.WithHint(fault.New(fault.Failed, "%s: %w", what, oneLine{cause}), "%s", hint)
}

// oneLine is an error whose causes, one for each address that was tried, are
// told in one line.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }
func (e oneLine) Unwrap() error { return e.error }

// queryError is a failure of an operation on an open session.
func queryError(what string, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return serverError(what, refused)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// serverError gives what the server said a status (src/backend/utils/errcodes.txt).
func serverError(what string, e *pgconn.PgError) error {
	status, hint := fault.Failed, e.Hint
	switch {
	case e.Code == "42501": // insufficient_privilege
		status = fault.Usage
		if hint == "" {
			hint = "connect as a superuser, or as an owner of the right: grant execute on function pg_backup_start, pg_backup_stop (15 and later) or pg_start_backup, pg_stop_backup"
		}
	case strings.HasPrefix(e.Code, "28"): // invalid authorization
		status = fault.Usage
		if hint == "" {
			hint = "check PGUSER, PGPASSWORD or .pgpass, and the server's pg_hba.conf"
		}
	case strings.HasPrefix(e.Code, "3D"), strings.HasPrefix(e.Code, "42"), strings.HasPrefix(e.Code, "22"), strings.HasPrefix(e.Code, "0A"):
		status = fault.Usage // no such database, no such function, bad value, not supported
	}
	err := fault.New(status, "%s: %s (%s)", what, e.Message, e.Code)
	if hint == "" {
		return err
	}
	return fault.WithHint(err, "%s", hint)
}

// query runs one statement and returns its single row. Absent values are "".
func (s *Session) query(ctx context.Context, sql string, args ...string) ([]string, error) {
	params := make([][]byte, len(args))
	for i, arg := range args {
		params[i] = []byte(arg)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	result := s.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, cancelled(ctx, result.Err)
	}
	if len(result.Rows) != 1 {
		return nil, fmt.Errorf("%d rows instead of one", len(result.Rows))
	}
	row := make([]string, len(result.Rows[0]))
	for i, v := range result.Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// cancelled names the context as the cause where the server only says that the
// user asked for it.
func cancelled(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// short is query with the session's deadline, for questions that the server
// answers from memory.
func (s *Session) short(ctx context.Context, sql string, args ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return s.query(ctx, sql, args...)
}

func (s *Session) learn(ctx context.Context) error {
	const what = "ask the server what it is"
	row, err := s.short(ctx, "show server_version_num")
	if err != nil {
		return queryError(what, err)
	}
	if s.server.Version, err = strconv.Atoi(row[0]); err != nil || s.server.Version < 100000 {
		return fault.New(fault.Usage, "%s: version %s is not supported, 10 is the oldest", what, row[0])
	}
	row, err = s.short(ctx, `select system_identifier, catalog_version_no, pg_is_in_recovery(),
		(select bytes_per_wal_segment from pg_control_init()),
		(select setting from pg_settings where name = 'data_directory'),
		current_setting('archive_mode'), current_setting('port'),
		floor(extract(epoch from pg_postmaster_start_time()))::bigint
		from pg_control_system()`)
	if err != nil {
		return queryError(what, err)
	}
	n := numbers{}
	s.server.SystemID = uint64(n.int(row[0])) // SQL has no unsigned type
	s.server.CatalogVersion = uint32(n.int(row[1]))
	s.server.InRecovery = row[2] == "t"
	s.server.WALSegmentSize = uint64(n.int(row[3]))
	s.server.DataDir, s.server.ArchiveMode = row[4], row[5]
	s.server.Port, s.server.Started = int(n.int(row[6])), n.int(row[7])
	if n.err != nil || !wal.ValidSegmentSize(s.server.WALSegmentSize) {
		return fmt.Errorf("%s: cannot read the answer %q", what, row)
	}
	return nil
}

// numbers parses several numbers and keeps the first error.
type numbers struct{ err error }

func (n *numbers) int(s string) int64 {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil && n.err == nil {
		n.err = err
	}
	return v
}

// CurrentLSN is the newest LSN that a page can have now: where WAL is inserted,
// or on a standby where it was replayed. It also shows that the session lives.
func (s *Session) CurrentLSN(ctx context.Context) (wal.LSN, error) {
	row, err := s.short(ctx, `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
		else pg_current_wal_insert_lsn() end`)
	if err != nil {
		return 0, queryError("ask for the current LSN", err)
	}
	return wal.ParseLSN(row[0])
}
