//go:build linux

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"walg/lib/postgres/pgtest"
)

// A server was promoted in the middle of a segment, and the old timeline went
// on for a while. What is in the archive, and what is missing of the way to
// where the server is, is seen through the compressed history file.
func TestArchivedTimelinesAreShownAndVerified(t *testing.T) {
	together(t)
	s := newSite(t, pgtest.Options{InitArgs: []string{"--wal-segsize=1"}}, "WALG_PG_WAL_SIZE=1")
	name := strings.TrimSpace(s.must("walg-backup-push " + s.DataDir))
	s.MustExec("create table t as select 1 a")
	target := s.SQL("postgres", "select clock_timestamp()")
	s.MustExec("insert into t values (2)") // after the target, so that the parent goes on
	s.archived()
	s.archived()
	second := s.recover(`walg-backup-fetch "$DIR"`, map[string]string{
		"archive_mode": "on", "archive_command": s.line("walg-wal-push %p"),
		"recovery_target_time": target, "recovery_target_action": "promote",
	})
	s.Stop("fast")
	temporary := second.Mkdir("tmp")
	next := &site{Cluster: second, t: t, store: s.store, settings: append(s.settings, "TMPDIR="+temporary)}
	next.MustExec("insert into t values (3)")
	next.archived()
	next.MustExec("insert into t values (4)")
	next.archived()
	eventually(t, "the history is archived", func() bool { return exists(s.object("wal_005/00000002.history.lz4")) })

	var shown []struct {
		ID      int
		Parent  int      `json:"parent_id"`
		Switch  int64    `json:"switch_point_lsn"`
		First   string   `json:"start_segment"`
		Last    string   `json:"end_segment"`
		Missing []string `json:"missing_segments"`
		Backups []struct {
			Name string `json:"backup_name"`
		}
		Status string
	}
	show := func() {
		t.Helper()
		shown = nil
		if err := json.Unmarshal([]byte(next.must("walg-wal-show --detailed-json")), &shown); err != nil || len(shown) != 2 {
			t.Fatalf("%v: %+v", err, shown)
		}
	}
	show()
	first, child := shown[0], shown[1]
	history := next.must("walg-get wal_005/00000002.history.lz4 | walg-compress -d")
	at := strings.Fields(history)[1]
	if want := next.SQL("postgres", "select ('"+at+"'::pg_lsn - '0/0')::bigint || ' ' || timeline_id from pg_control_checkpoint()"); want != fmt.Sprintf("%d 2", child.Switch) {
		t.Errorf("switch at %d, want %s", child.Switch, want)
	}
	if first.ID != 1 || first.Parent != 0 || first.Status != "OK" || len(first.Backups) != 1 || first.Backups[0].Name != name {
		t.Errorf("timeline 1: %+v", first)
	}
	if child.ID != 2 || child.Parent != 1 || child.Status != "OK" || len(child.Backups) != 0 || child.First[8:] > first.Last[8:] {
		t.Errorf("timeline 2: %+v; timeline 1 ends with %s", child, first.Last)
	}
	for _, line := range []string{"wal-g wal-show", "WALG_PIPES=nested walg-wal-show"} {
		if table := next.must(line); !strings.Contains(table, "|   2 |          1 | "+at+" ") || strings.Contains(table, "?") {
			t.Errorf("%s, with %s:\n%s", line, at, table)
		}
	}

	// The server says where it is. What it writes to is not asked for.
	out, msg, status := next.run("wal-g wal-verify integrity timeline")
	if status != 0 || msg != "" || strings.Count(out, " FOUND ") != 2 || strings.Count(out, "status: OK\n") != 2 || !strings.HasSuffix(out, "Current cluster timeline: 2\n") ||
		!strings.Contains(out, "|   1 | "+strings.TrimPrefix(name, "base_")+" | ") || !strings.Contains(out, "|   2 | "+child.First+" | "+child.Last+" |") {
		t.Errorf("status %d\n%s%s", status, out, msg)
	}
	if strings.Contains(out, first.Last) {
		t.Errorf("a segment of the parent that nobody needs is checked:\n%s", out)
	}
	// An old server that goes on archiving is noticed.
	s.Start()
	if out, msg, status := s.run("walg-wal-verify timeline"); status != 65 || !strings.Contains(out, "check status: FAILURE") || !strings.Contains(out, "Current cluster timeline: 1\n") {
		t.Errorf("on the old server status %d\n%s%s", status, out, msg)
	}
	s.Stop("fast")
	// So is a standby asked.
	standby := &site{Cluster: second.Standby(map[string]string{"archive_mode": "off"}), t: t, store: s.store, settings: s.settings}
	standby.WaitFor("select count(*) from pg_stat_wal_receiver where received_tli = 2", "1")
	if out := standby.must("walg-wal-verify timeline integrity"); !strings.Contains(out, "Current cluster timeline: 2\n") || !strings.Contains(out, "integrity check status: OK\n") {
		t.Errorf("on a standby:\n%s", out)
	}

	told := next.must("walg-retain status")
	if !strings.Contains(told, "last backup   "+name+", ") || !strings.Contains(told, "last segment  00000002") || !strings.Contains(told, "missing       0 (") {
		t.Errorf("status:\n%s", told)
	}
	// A segment that the way needs is lost.
	lost := child.First
	if err := os.Remove(s.object("wal_005/" + lost + ".lz4")); err != nil {
		t.Fatal(err)
	}
	out, msg, status = next.run("walg-wal-verify --max-uploading 0 integrity timeline")
	if status != 65 || !strings.Contains(out, "|   2 | "+lost+" | "+lost+" |              1 | MISSING_LOST |") || !strings.Contains(msg, "1 segments are lost") {
		t.Errorf("without %s status %d\n%s%s", lost, status, out, msg)
	}
	gap := strings.TrimPrefix(name, "base_")
	if err := os.Remove(s.object("wal_005/" + gap + ".lz4")); err != nil {
		t.Fatal(err)
	}
	var state struct {
		Backup  struct{ Name string } `json:"last_backup"`
		Window  *struct{}             `json:"recovery_window"`
		Missing int                   `json:"missing_segments"`
	}
	if err := json.Unmarshal([]byte(next.must("walg-retain status --json")), &state); err != nil || state.Backup.Name != name || state.Window != nil || state.Missing < 1 {
		t.Errorf("status without %s: %+v, %v", gap, state, err)
	}

	// Whoever cannot ask the server is told what to say.
	if _, msg, status := next.run("walg-wal-verify integrity", "PGHOST="+s.Mkdir("nobody")); status != 1 || !strings.Contains(msg, "--until LSN --timeline NUMBER") {
		t.Errorf("without a server: status %d\n%s", status, msg)
	}
	if out, _, status := next.run("walg-wal-verify --until "+at+" timeline", "PGHOST=/nobody"); status != 0 || !strings.Contains(out, "timeline check status: WARNING\n") {
		t.Errorf("with --until status %d\n%s", status, out)
	}
	for _, line := range []string{"walg-wal-show --prefix /x", "walg-wal-verify --histories=/x --until 0/1 timeline"} {
		if _, msg, status := next.run(line); status != 64 || !strings.Contains(msg, "is an option of walg-retain") {
			t.Errorf("%s: status %d\n%s", line, status, msg)
		}
	}
	// A history file that cannot be read is not passed over.
	write(t, s.object("wal_005/00000002.history.lz4"), []byte("no lz4"))
	if _, msg, status := next.run("walg-wal-show"); status != 65 {
		t.Errorf("with a broken history: status %d\n%s", status, msg)
	}
	if names, err := os.ReadDir(temporary); err != nil || len(names) > 0 {
		t.Errorf("left in TMPDIR: %v, %v", names, err)
	}
}
