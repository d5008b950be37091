package main

import (
	"cmp"
	"context"
	"io/fs"
	"slices"
	"time"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/store"
	"walg/lib/timeline"
	"walg/lib/wal"
)

// state is what a monitor wants to know of an archive; its JSON is stable. What
// is not there, or not known, is null.
type state struct {
	Time     time.Time   `json:"time"` // of this look
	Backup   *lastBackup `json:"last_backup"`
	WAL      *lastWAL    `json:"last_wal"`
	Window   *window     `json:"recovery_window"`
	Guessed  bool        `json:"timelines_guessed"`
	Missing  uint64      `json:"missing_segments"` // of the way from the oldest good backup to the last segment
	Backups  counted     `json:"backups"`
	Unready  amount      `json:"unfinished_backups"`
	Leftover amount      `json:"leftovers"`
}

type lastBackup struct {
	Name     string    `json:"name"`
	Started  time.Time `json:"start_time"`
	Finished time.Time `json:"finish_time"`
	Age      int64     `json:"age_seconds"` // since it finished
}

type lastWAL struct {
	Name string    `json:"name"`
	Put  time.Time `json:"time"`
	Age  int64     `json:"age_seconds"`
}

// window is the time that can be recovered to: from the end of a backup on, as
// far as the WAL after it has no gap.
type window struct {
	Backup  string     `json:"backup"`
	From    time.Time  `json:"from"`
	Segment string     `json:"last_segment"`
	To      *time.Time `json:"to"` // when that was put
	Seconds *int64     `json:"seconds"`
}

type counted struct {
	Total     int `json:"total"` // finished ones
	Full      int `json:"full"`
	Delta     int `json:"delta"`
	Permanent int `json:"permanent"`
	Broken    int `json:"broken"` // no sentinel that can be read, or no whole chain
}

type amount struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

func setupStatus(f *cli.Flags) cli.Run {
	asJSON := f.Bool("json", "", "", "as JSON, in one line")
	metrics := f.Bool("prometheus", "", "", "as metrics for the textfile collector of Prometheus' node exporter")
	backupAge := f.Duration("max-backup-age", 0, "status 1 where the last good backup finished longer ago")
	walAge := f.Duration("max-wal-age", 0, "status 1 where the last WAL segment was put longer ago")
	o := declareWAL(f)
	return with(f, 0, 0, func(ctx context.Context, e *cli.Env, st store.Store, _ string) error {
		if *asJSON && *metrics {
			return fault.New(fault.Usage, "--json and --prometheus exclude each other")
		}
		if *backupAge < 0 || *walAge < 0 {
			return fault.New(fault.Usage, "an age below zero")
		}
		s, err := look(ctx, e, st, o)
		switch {
		case err != nil:
			return err
		case *asJSON:
			err = s.writeJSON(e.Stdout)
		case *metrics:
			err = s.writeMetrics(e.Stdout)
		default:
			err = s.write(e.Stdout)
		}
		if err != nil {
			return err
		}
		return s.check(*backupAge, *walAge)
	})
}

// look finds out all that status tells.
func look(ctx context.Context, e *cli.Env, st store.Store, o walOptions) (*state, error) {
	archive, err := o.read(ctx, e, st)
	if err != nil {
		return nil, err
	}
	backups, err := scan(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := readAll(ctx, e, st, backups, quality); err != nil {
		return nil, err
	}
	s := &state{Time: time.Now().UTC()}
	for l, err := range store.FindLeftovers(ctx, st, "") {
		if err != nil {
			return nil, err
		}
		s.Leftover.add(l.Size)
	}
	good := s.count(backups)
	if newest, err := lineage.Newest(good); err == nil { // the only error is that there is none
		finished := newest.End().UTC()
		s.Backup = &lastBackup{newest.Name, newest.Time().UTC(), finished, s.age(finished)}
	}
	s.follow(archive, good, o.size())
	return s, nil
}

// quality reads what says whether a backup is good, and of what kind. That
// an old one has no metadata does not matter.
func quality(ctx context.Context, st store.Store, b *lineage.Backup) error {
	b.Sentinel, b.SentinelErr = sentinel(ctx, st, b.Name)
	if !showable(b.SentinelErr) {
		return b.SentinelErr
	}
	return cmp.Or(b.SentinelErr, described(ctx, st, b))
}

func (a *amount) add(bytes int64) {
	a.Count++
	a.Bytes += bytes
}

// age is how many seconds ago t was. What the storage's clock says is to come
// is now.
func (s *state) age(t time.Time) int64 { return max(0, int64(s.Time.Sub(t)/time.Second)) }

// count counts the backups, and returns those that can be restored as far as
// the catalogue tells.
func (s *state) count(backups []*lineage.Backup) (good []*lineage.Backup) {
	named := map[string]*lineage.Backup{}
	for _, b := range backups {
		named[b.Name] = b
	}
	look := func(name string) (*catalog.Sentinel, error) {
		b := named[name]
		switch {
		case b == nil || !b.Finished:
			return nil, fs.ErrNotExist
		case b.Sentinel == nil:
			return nil, b.SentinelErr
		}
		return b.Sentinel, nil
	}
	for _, b := range backups {
		if !b.Finished {
			s.Unready.Count++
			s.Unready.Bytes += b.Size
			continue
		}
		s.Backups.Total++
		switch {
		case b.Sentinel == nil: // of what kind it is nobody knows
		case b.Sentinel.Delta():
			s.Backups.Delta++
		default:
			s.Backups.Full++
		}
		if b.Permanent() {
			s.Backups.Permanent++
		}
		if _, err := lineage.Chain(b.Name, look); err != nil {
			s.Backups.Broken++
			continue
		}
		good = append(good, b)
	}
	return good
}

// follow looks how far the WAL leads from the oldest good backup.
func (s *state) follow(archive *timeline.Archive, good []*lineage.Backup, size uint64) {
	last, put, ok := archive.Newest()
	if !ok {
		return
	}
	s.WAL = &lastWAL{last.String(), put.UTC(), s.age(put)}
	end, _ := archive.End(last.Timeline) // it has a segment
	chain := archive.Chain(last.Timeline, end)
	s.Guessed = chain.Guessed
	needing, starts := needWAL(good)
	if oldest := chain.Oldest(starts); oldest >= 0 {
		s.Missing = chain.Missing(starts[oldest])
		last, _, _ := chain.Reach(starts[oldest])
		for _, b := range good {
			// A permanent backup counts where its WAL happens to go on.
			start, ok := startOf(b)
			if reached, _, there := chain.Reach(start); ok && b.Permanent() && there && reached == last && !slices.Contains(needing, b) {
				needing, starts = append(needing, b), append(starts, start)
			}
		}
	}
	for {
		oldest := chain.Oldest(starts)
		if oldest < 0 {
			return
		}
		if s.Window = s.window(chain, needing[oldest], starts[oldest], size); s.Window != nil {
			return
		}
		needing, starts = slices.Delete(needing, oldest, oldest+1), slices.Delete(starts, oldest, oldest+1)
	}
}

// window is what a backup and the WAL after it can be recovered to, nil where
// the WAL that was written during the backup is not all there.
func (s *state) window(chain *timeline.Chain, b *lineage.Backup, start wal.Segment, size uint64) *window {
	last, put, ok := chain.Reach(start)
	finishLSN := wal.LSN(0)
	if b.Sentinel != nil {
		finishLSN = wal.LSN(b.Sentinel.FinishLSN)
	}
	if !ok || last.Start(size)+wal.LSN(size) < finishLSN {
		return nil
	}
	w := &window{Backup: b.Name, From: b.End().UTC(), Segment: last.String()}
	if !put.IsZero() {
		put = put.UTC()
		seconds := max(0, int64(put.Sub(w.From)/time.Second))
		w.To, w.Seconds = &put, &seconds
	}
	return w
}

// check compares ages with the limits that are given.
func (s *state) check(backup, wal time.Duration) error {
	switch {
	case (backup > 0 || wal > 0) && s.Backup == nil:
		return fault.New(fault.Absent, "no good backup is there")
	case wal > 0 && s.WAL == nil:
		return fault.New(fault.Absent, "%w", errNoWAL)
	case backup > 0 && s.Time.Sub(s.Backup.Finished) > backup:
		return fault.New(fault.Failed, "backup %s is the last good one, and older than %s", s.Backup.Name, backup)
	case wal > 0 && s.Time.Sub(s.WAL.Put) > wal:
		return fault.New(fault.Failed, "segment %s is the last one, and older than %s", s.WAL.Name, wal)
	}
	return nil
}
