// Package listing writes the list of backups as WAL-G's backup-list does, and
// tables in its boxes.
package listing

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"walg/lib/catalog"
	"walg/lib/lineage"
)

// Format says how Write shows backups. The combinations are those of
// WAL-G's backup-list, byte for byte.
type Format struct {
	JSON   bool
	Detail bool // with what metadata.json says
	Pretty bool // a box; with JSON indented
}

// storageName is what WAL-G calls the storage that is not a failover storage.
const storageName = "default"

// none is printed where a time is not known, or with Detail anything.
const none = "-"

// Write writes the finished ones of the backups, in the order of their
// modification times, or with Detail of their start times where all are
// recorded. Of a backup whose metadata is missing or broken the columns hold a
// dash, and the JSON object has no such keys.
func Write(w io.Writer, backups []*lineage.Backup, f Format) error {
	backups = slices.Clone(backups)
	backups = slices.DeleteFunc(backups, func(b *lineage.Backup) bool { return !b.Finished })
	order := lineage.ByModTime
	if f.Detail && !slices.ContainsFunc(backups, func(b *lineage.Backup) bool { return b.Metadata == nil }) {
		order = lineage.ByTime
	}
	slices.SortFunc(backups, order)
	switch {
	case f.JSON:
		return writeJSON(w, backups, f)
	case f.Pretty:
		return writeBox(w, backups, f)
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, strings.Join(columns(f.Detail, false), "\t"))
	for _, b := range backups {
		fmt.Fprintln(t, strings.Join(row(b, f.Detail, time.RFC3339), "\t"))
	}
	return t.Flush()
}

func writeJSON(w io.Writer, backups []*lineage.Backup, f Format) error {
	type item struct {
		Name    string    `json:"backup_name"`
		Time    time.Time `json:"time"`
		Segment string    `json:"wal_file_name"`
		Storage string    `json:"storage_name"`
		*catalog.Metadata
	}
	items := make([]item, len(backups))
	for i, b := range backups {
		items[i] = item{b.Name, b.ModTime.UTC(), catalog.SegmentOf(b.Name), storageName, nil}
		if f.Detail {
			items[i].Metadata = b.Metadata
		}
	}
	p, err := json.Marshal(items)
	if err != nil {
		return err
	}
	if f.Pretty {
		var indented bytes.Buffer
		if err := json.Indent(&indented, p, "", "    "); err != nil {
			return err
		}
		p = indented.Bytes()
	}
	_, err = w.Write(append(p, '\n'))
	return err
}

func columns(detail, box bool) []string {
	if !box {
		c := []string{"backup_name", "modified", "wal_file_name", "storage_name"}
		if detail {
			c = append(c, "start_time", "finish_time", "hostname", "data_dir", "pg_version", "start_lsn", "finish_lsn", "is_permanent")
		}
		return c
	}
	c := []string{"BACKUP NAME", "MODIFIED", "WAL FILE NAME", "STORAGE NAME"}
	if detail {
		c = append(c, "START TIME", "FINISH TIME", "HOSTNAME", "DATADIR", "PG VERSION", "START LSN", "FINISH LSN", "PERMANENT")
	}
	return c
}

func row(b *lineage.Backup, detail bool, layout string) []string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return none
		}
		return t.UTC().Format(layout)
	}
	r := []string{text(b.Name), at(b.ModTime), catalog.SegmentOf(b.Name), storageName}
	switch m := b.Metadata; {
	case detail && m != nil:
		r = append(r, at(m.StartTime), at(m.FinishTime), text(m.Hostname), text(m.DataDir), strconv.Itoa(m.PgVersion),
			m.StartLSN.LSN(), m.FinishLSN.LSN(), strconv.FormatBool(m.IsPermanent))
	case detail:
		for range 8 {
			r = append(r, none)
		}
	}
	return r
}

// text makes what came from an archive fit for a terminal and for columns.
func text(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	return strconv.Quote(s)
}

func writeBox(out io.Writer, backups []*lineage.Backup, f Format) error {
	number := fmt.Sprintf("%-*s", len(strconv.Itoa(len(backups)-1)), "#") // the heading is not set like a number
	rows := [][]string{append([]string{number}, columns(f.Detail, true)...)}
	for i, b := range backups {
		rows = append(rows, append([]string{strconv.Itoa(i)}, row(b, f.Detail, time.RFC850)...))
	}
	return Box(out, rows, 0)
}

// Box writes rows in a box, the first one as the heading; the columns in right
// are numbers, or are set like numbers.
func Box(out io.Writer, rows [][]string, right ...int) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	w := bufio.NewWriter(out)
	rule := func() {
		for _, n := range width {
			w.WriteString("+" + strings.Repeat("-", n+2))
		}
		w.WriteString("+\n")
	}
	rule()
	for n, row := range rows {
		for i, cell := range row {
			pad := -width[i]
			if slices.Contains(right, i) {
				pad = width[i]
			}
			fmt.Fprintf(w, "| %*s ", pad, cell)
		}
		w.WriteString("|\n")
		if n == 0 {
			rule()
		}
	}
	if len(rows) > 1 {
		rule()
	}
	return w.Flush()
}
