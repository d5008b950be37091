package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/lineage/listing"
	"walg/lib/retain"
	"walg/lib/store"
	"walg/lib/timeline"
	"walg/lib/wal"
)

const (
	maxHistory = 1 << 20 // bytes of a history file; a promotion adds some 50
	maxMissing = 100_000 // names of missing segments that are listed for one timeline
)

// walOptions are what all commands about WAL need to know.
type walOptions struct {
	segments
	histories *string
}

func declareWAL(f *cli.Flags) walOptions {
	return walOptions{
		histories: f.String("histories", "", "", "", "the decoded history files of the timelines are in `dir`"),
		segments:  declareSegments(f),
	}
}

// segments is the option for the size of WAL segments.
type segments struct{ mib *int64 }

func declareSegments(f *cli.Flags) segments {
	return segments{f.Int("segment-size", "", "WALG_PG_WAL_SIZE", retain.DefaultSegmentSize>>20, 1, "the size of WAL segments in `MiB`")}
}

func (s segments) check() error {
	if *s.mib > 1<<10 || !wal.ValidSegmentSize(s.size()) {
		return fault.New(fault.Usage, "--segment-size %d: want a power of two from 1 to 1024", *s.mib)
	}
	return nil
}

// size is that of a segment in bytes.
func (s segments) size() uint64 { return uint64(*s.mib) << 20 }

// read lists the WAL of a store, and reads the history files that there are.
func (o walOptions) read(ctx context.Context, e *cli.Env, st store.Store) (*timeline.Archive, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	archive := timeline.New(o.size())
	if *o.histories != "" {
		if err := readHistories(archive, *o.histories); err != nil {
			return nil, err
		}
	}
	exts, err := extensions(e)
	if err != nil {
		return nil, err
	}
	for info, err := range st.List(ctx, catalog.WAL) {
		if err != nil {
			return nil, err
		}
		name := catalog.TrimExt(strings.TrimPrefix(info.Key, catalog.WAL), exts...)
		file, err := wal.ParseWALFile(name)
		if err != nil {
			continue // a delta map, metadata, or not WAL-G's
		}
		if err := archive.Add(file, info.ModTime); err != nil {
			return nil, fault.WithHint(err, "say with --segment-size, or the setting WALG_PG_WAL_SIZE, what initdb was told")
		}
	}
	return archive, nil
}

// readHistories reads NNNNNNNN.history files in a directory, all there are.
func readHistories(archive *timeline.Archive, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Usage, "--histories: %w", err)
	}
	for _, entry := range entries {
		file, err := wal.ParseWALFile(entry.Name())
		if err != nil || file.Kind != wal.KindHistory {
			continue
		}
		text, err := readSmall(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		h, err := timeline.ParseHistory(file.Segment.Timeline, text)
		if err != nil {
			return err
		}
		archive.AddHistory(h)
	}
	return nil
}

func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHistory+1))
	if err == nil && len(text) > maxHistory {
		err = fault.New(fault.Data, "read %s: more than %d bytes", name, maxHistory)
	}
	return string(text), err
}

// startOf returns the segment that a backup starts in, where its name tells.
func startOf(b *lineage.Backup) (wal.Segment, bool) {
	name, _, ok := catalog.ParseName(b.Name)
	if !ok {
		return wal.Segment{}, false
	}
	s, err := wal.ParseSegment(name)
	return s, err == nil
}

// shownTimeline is a timeline in JSON, with WAL-G's keys.
type shownTimeline struct {
	ID      uint32          `json:"id"`
	Parent  uint32          `json:"parent_id"`
	Switch  wal.LSN         `json:"switch_point_lsn"`
	First   string          `json:"start_segment"`
	Last    string          `json:"end_segment"`
	Count   uint64          `json:"segments_count"`
	Missing []string        `json:"missing_segments"`
	Backups json.RawMessage `json:"backups,omitempty"`
	Whole   uint64          `json:"segment_range_size"`
	Status  string          `json:"status"`
}

func setupWALShow(f *cli.Flags) cli.Run {
	asJSON := f.Bool("json", "", "", "as JSON, in one line, with the names of the missing segments")
	detailed := f.Bool("detailed-json", "", "", "the same as --json; WAL-G's name")
	without := f.Bool("without-backups", "", "", "do not look for backups")
	o := declareWAL(f)
	return with(f, 0, 0, func(ctx context.Context, e *cli.Env, st store.Store, _ string) error {
		archive, err := o.read(ctx, e, st)
		if err != nil {
			return err
		}
		timelines := archive.Timelines()
		if len(timelines) == 0 {
			e.Warn("no WAL is in %s", store.URL(st, catalog.WAL))
		}
		for _, t := range timelines {
			if !t.Known {
				e.Warn("timeline %d: its history file is not at hand (--histories); where it came from is not known", t.ID)
			}
		}
		var backups []*lineage.Backup
		if !*without {
			if backups, err = scan(ctx, st); err == nil {
				err = readAll(ctx, e, st, backups, metadata)
			}
			if err != nil {
				return err
			}
		}
		if *asJSON || *detailed {
			return o.showJSON(e, archive, timelines, backups)
		}
		return o.showTable(e.Stdout, timelines, backups, !*without)
	})
}

// needWAL returns the finished backups that need all WAL from their start on,
// and where they start. Permanent ones need their own only, unless there are no
// others.
func needWAL(backups []*lineage.Backup) (needing []*lineage.Backup, starts []wal.Segment) {
	for _, permanent := range []bool{false, true} {
		for _, b := range backups {
			if start, ok := startOf(b); ok && b.Finished && b.Permanent() == permanent {
				needing, starts = append(needing, b), append(starts, start)
			}
		}
		if needing != nil {
			break
		}
	}
	return needing, starts
}

// during returns the finished backups of a timeline that start and end between
// its first and its last segment.
func (o walOptions) during(t timeline.Timeline, backups []*lineage.Backup) (list []*lineage.Backup) {
	for _, b := range backups {
		first, ok := startOf(b)
		last := first
		if m := b.Metadata; m != nil && m.StartLSN != 0 && m.FinishLSN != 0 {
			first = wal.SegmentAt(first.Timeline, wal.LSN(m.StartLSN), o.size())
			last = wal.SegmentAt(first.Timeline, wal.LSN(m.FinishLSN), o.size())
		}
		if ok && b.Finished && t.Covers(first, last) {
			list = append(list, b)
		}
	}
	return list
}

func (o walOptions) showJSON(e *cli.Env, archive *timeline.Archive, timelines []timeline.Timeline, backups []*lineage.Backup) error {
	list := []shownTimeline{}
	for _, t := range timelines {
		shown := shownTimeline{t.ID, t.Parent, t.Switch, t.First.String(), t.Last.String(), t.Count, []string{}, nil, t.Whole(), t.Status()}
		for _, gap := range t.Gaps {
			for s := range archive.Segments(gap) {
				if len(shown.Missing) == maxMissing {
					e.Warn("timeline %d: %d segments are missing; the first %d are listed", t.ID, t.Whole()-t.Count, maxMissing)
					break
				}
				shown.Missing = append(shown.Missing, s.String())
			}
			if len(shown.Missing) == maxMissing {
				break
			}
		}
		if during := o.during(t, backups); len(during) > 0 {
			var text bytes.Buffer
			if err := listing.Write(&text, during, listing.Format{JSON: true, Detail: true}); err != nil {
				return err
			}
			shown.Backups = text.Bytes()
		}
		list = append(list, shown)
	}
	return json.NewEncoder(e.Stdout).Encode(list)
}

func (o walOptions) showTable(out io.Writer, timelines []timeline.Timeline, backups []*lineage.Backup, with bool) error {
	rows := [][]string{{"TLI", "PARENT TLI", "SWITCHPOINT LSN", "START SEGMENT", "END SEGMENT", "SEGMENT RANGE", "SEGMENTS COUNT", "STATUS"}}
	if with {
		rows[0] = append(rows[0], "BACKUPS COUNT")
	}
	for _, t := range timelines {
		parent, at := strconv.FormatUint(uint64(t.Parent), 10), t.Switch.String()
		if !t.Known {
			parent, at = "?", "?"
		}
		row := []string{strconv.FormatUint(uint64(t.ID), 10), parent, at, t.First.String(), t.Last.String(),
			strconv.FormatUint(t.Whole(), 10), strconv.FormatUint(t.Count, 10), t.Status()}
		if with {
			row = append(row, strconv.Itoa(len(o.during(t, backups))))
		}
		rows = append(rows, row)
	}
	return listing.Box(out, rows, 0, 1, 5, 6, 8)
}

// errNoWAL is for what needs a segment.
var errNoWAL = errors.New("no WAL segment is there")
