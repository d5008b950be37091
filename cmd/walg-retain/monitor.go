package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func (s *state) writeJSON(out io.Writer) error { return json.NewEncoder(out).Encode(s) }

// write writes a line for each thing, for people.
func (s *state) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	ago := func(seconds int64) string { return (time.Duration(seconds) * time.Second).String() }
	if b := s.Backup; b != nil {
		line("last backup", "%s, finished %s, %s ago", b.Name, at(b.Finished), ago(b.Age))
	} else {
		line("last backup", "none")
	}
	if l := s.WAL; l != nil {
		line("last segment", "%s, put %s, %s ago", l.Name, at(l.Put), ago(l.Age))
	} else {
		line("last segment", "none")
	}
	switch r := s.Window; {
	case r == nil:
		line("recovery", "impossible")
	case r.To == nil:
		line("recovery", "from %s (%s) to the end of %s", at(r.From), r.Backup, r.Segment)
	default:
		line("recovery", "from %s (%s) to %s (%s)", at(r.From), r.Backup, at(*r.To), r.Segment)
	}
	missing := strconv.FormatUint(s.Missing, 10)
	if s.Guessed {
		missing += " (the way through the timelines is guessed)"
	}
	line("missing", "%s", missing)
	c := s.Backups
	line("backups", "%d: %d full, %d delta; %d permanent, %d broken", c.Total, c.Full, c.Delta, c.Permanent, c.Broken)
	line("unfinished", "%d, %d bytes", s.Unready.Count, s.Unready.Bytes)
	line("leftovers", "%d, %d bytes", s.Leftover.Count, s.Leftover.Bytes)
	return w.Flush()
}

// metric is one sample with what is said of its name: those of one name follow
// each other.
type metric struct {
	name, help string
	label      string // its name, or empty
	value      string // of the label
	number     int64
}

// writeMetrics writes the text form of Prometheus. Ages are left to Prometheus:
// a timestamp stays true while nobody looks.
func (s *state) writeMetrics(out io.Writer) error {
	list := []metric{{"walg_status_timestamp_seconds", "When the archive was looked at.", "", "", s.Time.Unix()}}
	add := func(name, help string, n int64) { list = append(list, metric{name, help, "", "", n}) }
	if b := s.Backup; b != nil {
		add("walg_last_backup_start_timestamp_seconds", "When the last good backup started.", b.Started.Unix())
		add("walg_last_backup_finish_timestamp_seconds", "When the last good backup finished.", b.Finished.Unix())
		list = append(list, metric{"walg_last_backup_info", "The last good backup.", "name", b.Name, 1})
	}
	if l := s.WAL; l != nil {
		add("walg_last_wal_timestamp_seconds", "When the last WAL segment was put.", l.Put.Unix())
		list = append(list, metric{"walg_last_wal_info", "The last WAL segment.", "name", l.Name, 1})
	}
	if r := s.Window; r != nil {
		add("walg_recovery_window_start_timestamp_seconds", "The earliest time that can be recovered.", r.From.Unix())
		if r.To != nil {
			add("walg_recovery_window_end_timestamp_seconds", "The latest time that can be recovered from the oldest backup.", r.To.Unix())
		}
	}
	add("walg_wal_missing_segments", "WAL segments that are missing after the oldest good backup.", int64(s.Missing))
	const backups = "Finished backups, by kind."
	list = append(list, metric{"walg_backups", backups, "kind", "full", int64(s.Backups.Full)},
		metric{"walg_backups", backups, "kind", "delta", int64(s.Backups.Delta)})
	add("walg_backups_permanent", "Backups that are marked as permanent.", int64(s.Backups.Permanent))
	add("walg_backups_broken", "Backups whose sentinel cannot be read, or whose chain is not whole.", int64(s.Backups.Broken))
	add("walg_backups_unfinished", "Backups without a sentinel.", int64(s.Unready.Count))
	add("walg_backups_unfinished_bytes", "What backups without a sentinel take up.", s.Unready.Bytes)
	add("walg_leftovers", "What killed uploads have left behind, or running ones have written so far.", int64(s.Leftover.Count))
	add("walg_leftovers_bytes", "What leftovers take up.", s.Leftover.Bytes)
	return expose(out, list)
}

// labelEscapes are those of the text form of Prometheus.
var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func expose(out io.Writer, list []metric) error {
	w := bufio.NewWriter(out)
	last := ""
	for _, m := range list {
		if m.name != last {
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n", m.name, m.help, m.name)
			last = m.name
		}
		w.WriteString(m.name)
		if m.label != "" {
			fmt.Fprintf(w, `{%s="%s"}`, m.label, labelEscapes.Replace(m.value))
		}
		fmt.Fprintf(w, " %d\n", m.number)
	}
	return w.Flush()
}
