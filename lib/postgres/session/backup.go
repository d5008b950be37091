package session

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/postgres"
	"walg/lib/wal"
)

// CheckDir makes sure that dir is the data directory that the session's server
// runs in: pg_control has its system identifier, and postmaster.pid its port,
// start and path, which tell it from a copy or a standby on the same machine.
func (s *Session) CheckDir(ctx context.Context, dir string) (postgres.Control, error) {
	c, err := postgres.ReadControl(ctx, dir)
	if err != nil {
		return postgres.Control{}, err
	}
	if c.SystemID != s.server.SystemID {
		return postgres.Control{}, fault.WithHint(
			fault.New(fault.Usage, "check directory %s: its system identifier is %d, the server's is %d", dir, c.SystemID, s.server.SystemID),
			"the server's data directory is %s; PGHOST and PGPORT choose the server", orUnknown(s.server.DataDir))
	}
	path := filepath.Join(dir, "postmaster.pid")
	data, err := os.ReadFile(path)
	if err != nil {
		return postgres.Control{}, fault.WithHint(fault.New(fault.Usage, "check directory %s: no server runs in it: %w", dir, err),
			"the server's data directory is %s", orUnknown(s.server.DataDir))
	}
	if !s.ranHere(string(data)) {
		return postgres.Control{}, fault.WithHint(
			fault.New(fault.Usage, "check directory %s: another server of the same cluster runs in it, not the one connected to", dir),
			"the server's data directory is %s; PGHOST and PGPORT choose the server", orUnknown(s.server.DataDir))
	}
	return c, nil
}

// startupTime bounds how long after writing postmaster.pid a server takes the
// time that it calls its start: its shared memory is made in between.
const startupTime = 10 * 60

// ranHere says whether the session's server wrote a postmaster.pid. Its lines
// are process, directory, start, port, ... (src/include/utils/pidfile.h), the
// directory as the server sees it, which may be in a container.
func (s *Session) ranHere(pidfile string) bool {
	lines := strings.Split(pidfile, "\n")
	if len(lines) < 5 {
		return false
	}
	n := numbers{}
	started, port := n.int(lines[2]), n.int(lines[3])
	late := s.server.Started - started
	return n.err == nil && int(port) == s.server.Port && late >= -2 && late <= startupTime &&
		(s.server.DataDir == "" || s.server.DataDir == lines[1])
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown to this user"
	}
	return s
}

// Started is a base backup that was started.
type Started struct {
	LSN      wal.LSN     // where recovery from this backup begins
	Segment  wal.Segment // the WAL file of LSN, which names the backup
	Standby  bool        // taken on a standby
	Time     time.Time   // just before the start, by this machine's clock
	timeline uint32      // that the server was on
}

// Start starts a base backup. It waits for a checkpoint: fast has the server
// do one at once, otherwise it may take many minutes.
func (s *Session) Start(ctx context.Context, label string, fast bool) (Started, error) {
	what := fmt.Sprintf("start backup %q", label)
	b := Started{Standby: s.server.InRecovery, Time: time.Now()}
	sql := "select pg_backup_start($1, $2)"
	if s.server.Major() < 15 {
		sql = "select pg_start_backup($1, $2, false)"
	}
	row, err := s.query(ctx, sql, label, strconv.FormatBool(fast))
	if err != nil {
		return Started{}, queryError(what, err)
	}
	if b.LSN, err = wal.ParseLSN(row[0]); err != nil {
		return Started{}, fmt.Errorf("%s: %w", what, err)
	}
	recovery, timeline, err := s.position(ctx)
	if err != nil {
		return Started{}, queryError(what, err)
	}
	if recovery != b.Standby {
		return Started{}, promoted(what)
	}
	b.timeline = timeline
	if b.Standby {
		// The server names no files during recovery. A backup starts at a
		// restart point, on whose timeline the name is.
		row, err = s.short(ctx, "select timeline_id from pg_control_checkpoint()")
		if err != nil {
			return Started{}, queryError(what, err)
		}
		n := numbers{}
		b.Segment = wal.SegmentAt(uint32(n.int(row[0])), b.LSN-1, s.server.WALSegmentSize)
		err = n.err
	} else if row, err = s.short(ctx, "select pg_walfile_name($1::pg_lsn)", b.LSN.String()); err == nil {
		b.Segment, err = wal.ParseSegment(row[0])
	}
	if err != nil {
		return Started{}, queryError(what, err)
	}
	s.backup = &b
	return b, nil
}

// position says whether the server is in recovery, and the newest timeline
// that it knows to be on.
func (s *Session) position(ctx context.Context) (recovery bool, timeline uint32, err error) {
	row, err := s.short(ctx, `select pg_is_in_recovery(), greatest(timeline_id, min_recovery_end_timeline)
		from pg_control_checkpoint(), pg_control_recovery()`)
	if err != nil {
		return false, 0, err
	}
	n := numbers{}
	return row[0] == "t", uint32(n.int(row[1])), n.err
}

func promoted(what string) error {
	return fault.WithHint(fault.New(fault.Failed, "%s: the standby was promoted, or changed its timeline, during the backup", what),
		"this backup is of no use; take another")
}

// Stopped is a base backup that was stopped. Label and TablespaceMap belong
// into the backup byte for byte, as backup_label and tablespace_map, and never
// into the live data directory.
type Stopped struct {
	LSN           wal.LSN     // recovery must reach it
	Segment       wal.Segment // the last WAL file that the backup needs
	Label         []byte
	TablespaceMap []byte // empty without tablespaces
}

// Stop ends the backup that Start started. It does not wait for WAL to be
// archived; WaitArchived does, and before it the backup is not restorable.
func (s *Session) Stop(ctx context.Context) (Stopped, error) {
	const what = "stop backup"
	if s.backup == nil {
		return Stopped{}, fmt.Errorf("%s: none was started", what)
	}
	started := *s.backup
	if err := s.samePlace(ctx, started); err != nil {
		return Stopped{}, err
	}
	function := "pg_backup_stop(false)"
	if s.server.Major() < 15 {
		function = "pg_stop_backup(false, false)"
	}
	// Text would be recoded for the client; bytes arrive as the server has them.
	row, err := s.query(ctx, `select lsn, encode(convert_to(labelfile, getdatabaseencoding()), 'hex'),
		encode(convert_to(spcmapfile, getdatabaseencoding()), 'hex') from `+function)
	if err != nil {
		return Stopped{}, queryError(what, err)
	}
	s.backup = nil
	var b Stopped
	var errs [3]error
	b.LSN, errs[0] = wal.ParseLSN(row[0])
	b.Label, errs[1] = hex.DecodeString(row[1])
	b.TablespaceMap, errs[2] = hex.DecodeString(row[2])
	for _, err := range errs {
		if err != nil {
			return Stopped{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	// The label has the last word on where recovery begins.
	lsn, segment, err := parseLabel(b.Label)
	if err != nil {
		return Stopped{}, fmt.Errorf("%s: %w", what, err)
	}
	if lsn != started.LSN || segment.Timeline != started.Segment.Timeline {
		return Stopped{}, fmt.Errorf("%s: it was to start at %s in %s, and the label says %s in %s", what, started.LSN, started.Segment, lsn, segment)
	}
	if err := s.samePlace(ctx, started); err != nil {
		return Stopped{}, err
	}
	timeline := started.Segment.Timeline
	if started.Standby { // may have begun at a restart point of an older one
		timeline = started.timeline
	}
	b.Segment = wal.SegmentAt(timeline, b.LSN-1, s.server.WALSegmentSize)
	return b, nil
}

func (s *Session) samePlace(ctx context.Context, started Started) error {
	recovery, timeline, err := s.position(ctx)
	if err != nil {
		return queryError("stop backup", err)
	}
	if recovery != started.Standby || started.Standby && timeline != started.timeline {
		return promoted("stop backup")
	}
	return nil
}

// parseLabel reads the first line of a backup label:
// START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
func parseLabel(label []byte) (wal.LSN, wal.Segment, error) {
	line, _, _ := strings.Cut(string(label), "\n")
	text, ok := strings.CutPrefix(line, "START WAL LOCATION: ")
	lsn, file, ok2 := strings.Cut(text, " (file ")
	file, ok3 := strings.CutSuffix(file, ")")
	if ok && ok2 && ok3 {
		l, err := wal.ParseLSN(lsn)
		segment, serr := wal.ParseSegment(file)
		if err == nil && serr == nil {
			return l, segment, nil
		}
	}
	return 0, wal.Segment{}, fmt.Errorf("parse backup label: unexpected first line %.100q", line)
}

// Archiving is polled; a word is said when it takes long.
const (
	archivePoll = 100 * time.Millisecond
	archiveWord = time.Minute
)

// WaitArchived waits until all WAL that a backup needs is archived, as the
// server says in dir/pg_wal/archive_status, and as long as ctx allows: an
// archive_command that fails would make it wait for ever. Where the server
// archives nothing (archive_mode off, or on a standby not always) it says so
// through Options.Notice and returns at once.
func (s *Session) WaitArchived(ctx context.Context, dir string, started Started, stopped Stopped) error {
	mode := s.server.ArchiveMode
	if mode == "off" || mode != "always" && started.Standby {
		who := "the server archives no WAL (archive_mode is " + mode + ")"
		if started.Standby {
			who = "this standby archives no WAL (archive_mode is " + mode + "), its primary may"
		}
		s.o.Notice("%s: to restore this backup keep all WAL from %s to %s", who, started.Segment, stopped.Segment)
		return nil
	}
	pgWAL := filepath.Join(dir, "pg_wal")
	if _, err := os.Stat(filepath.Join(pgWAL, "archive_status")); err != nil {
		return fmt.Errorf("wait for archiving: %w", err)
	}
	history := wal.WALFile{
		Kind:    wal.KindBackup,
		Segment: started.Segment,
		Offset:  uint32(uint64(started.LSN) % s.server.WALSegmentSize),
	}
	begin := time.Now()
	word := begin.Add(archiveWord)
	for _, name := range []string{stopped.Segment.String(), history.String()} {
		for archiveBusy(pgWAL, name) {
			select {
			case <-ctx.Done():
				return fault.WithHint(fault.New(fault.Failed, "wait for archiving of %s: %w", name, context.Cause(ctx)),
					"the server retries for ever; its log says why archive_command fails")
			case <-time.After(archivePoll):
			}
			if time.Now().After(word) {
				s.o.Notice("still waiting for WAL %s to be archived (%v)", name, time.Since(begin).Round(time.Second))
				word = word.Add(archiveWord)
			}
		}
	}
	return nil
}

// archiveBusy says whether a file is still to be archived. The server marks it
// .ready, renames that to .done, and in the end removes both and the file;
// .done is looked at again because the rename may come between.
func archiveBusy(pgWAL, name string) bool {
	exists := func(elem ...string) bool {
		_, err := os.Lstat(filepath.Join(append([]string{pgWAL}, elem...)...))
		return err == nil
	}
	done := func() bool { return exists("archive_status", name+".done") }
	return !done() && (exists("archive_status", name+".ready") || exists(name)) && !done()
}
