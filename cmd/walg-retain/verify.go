package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage/listing"
	"walg/lib/store"
	"walg/lib/timeline"
	"walg/lib/wal"
)

// The checks of wal-verify.
const (
	integrityCheck = "integrity"
	timelineCheck  = "timeline"
)

// verdicts is what wal-verify found, in JSON with WAL-G's keys.
type verdicts struct {
	Integrity *integrity `json:"integrity,omitempty"`
	Timeline  *newest    `json:"timeline,omitempty"`
}

type integrity struct {
	Status  string         `json:"status"`
	Details []checkedRange `json:"details"`
}

type checkedRange struct {
	Timeline uint32 `json:"timeline_id"`
	First    string `json:"start_segment"`
	Last     string `json:"end_segment"`
	Count    uint64 `json:"segments_count"`
	Status   string `json:"status"`
}

type newest struct {
	Status  string `json:"status"`
	Details struct {
		Current uint32 `json:"current_timeline_id"` // 0 where nobody said it
		Highest uint32 `json:"highest_storage_timeline_id"`
	} `json:"details"`
}

// verifyOptions are those of wal-verify.
type verifyOptions struct {
	walOptions
	until              *string
	timeline           *int64 // 0 where it is not given
	delayed, uploading *int64
	json               *bool
}

func setupWALVerify(f *cli.Flags) cli.Run {
	o := verifyOptions{
		until:      f.String("until", "", "", "", "check up to the position `lsn` of the server"),
		timeline:   f.Int("timeline", "", "", 0, 1, "the server is on this timeline"),
		json:       f.Bool("json", "", "", "as JSON, in one line"),
		delayed:    f.Int("max-delayed", "", "WALG_INTEGRITY_MAX_DELAYED_WALS", 0, 0, "so many segments before the position may not be archived yet"),
		uploading:  f.Int("max-uploading", "", "WALG_UPLOAD_CONCURRENCY", 16, 0, "among so many segments before those, missing ones may be on their way"),
		walOptions: declareWAL(f),
	}
	return with(f, 0, 2, o.verify)
}

func (o verifyOptions) verify(ctx context.Context, e *cli.Env, st store.Store, _ string) error {
	if len(e.Operands) == 0 {
		return fault.New(fault.Usage, "no CHECK is given; there are %s and %s", integrityCheck, timelineCheck)
	}
	for _, check := range e.Operands {
		if check != integrityCheck && check != timelineCheck {
			return fault.New(fault.Usage, "unknown check %q; there are %s and %s", check, integrityCheck, timelineCheck)
		}
	}
	until, err := wal.LSN(0), error(nil)
	if *o.until != "" {
		until, err = wal.ParseLSN(*o.until)
	}
	if err != nil || *o.timeline >= 1<<32 {
		return fault.New(fault.Usage, "--until %s --timeline %d: want an LSN, such as 0/3000028, and a number", *o.until, *o.timeline)
	}
	archive, err := o.read(ctx, e, st)
	if err != nil {
		return err
	}
	var v verdicts
	if slices.Contains(e.Operands, integrityCheck) {
		if v.Integrity, err = o.integrity(ctx, e, st, archive, until); err != nil {
			return err
		}
	}
	if slices.Contains(e.Operands, timelineCheck) {
		v.Timeline = &newest{Status: archive.CheckTimeline(uint32(*o.timeline))}
		v.Timeline.Details.Current, v.Timeline.Details.Highest = uint32(*o.timeline), archive.Highest()
		if *o.timeline == 0 {
			e.Warn("the timeline of the server is not given (--timeline), so that it cannot be compared")
		}
	}
	if *o.json {
		err = json.NewEncoder(e.Stdout).Encode(v)
	} else {
		err = v.write(e.Stdout)
	}
	if err != nil {
		return err
	}
	return v.failure()
}

// integrity checks the segments from the oldest backup to the position.
func (o verifyOptions) integrity(ctx context.Context, e *cli.Env, st store.Store, archive *timeline.Archive, until wal.LSN) (*integrity, error) {
	current, end, err := o.position(e, archive, until)
	if err != nil {
		return nil, err
	}
	chain := archive.Chain(current, end)
	if chain.Guessed {
		e.Warn("timeline %d: a history file is not at hand (--histories); the way here is guessed from what segments there are", current)
	}
	backups, err := scan(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := readAll(ctx, e, st, backups, described); err != nil {
		return nil, err
	}
	_, starts := needWAL(backups)
	from := wal.Segment{Seg: 1} // the first that a server writes
	if oldest := chain.Oldest(starts); oldest >= 0 {
		from = starts[oldest]
	} else {
		e.Warn("no backup is on the way to %s on timeline %d; all segments before are checked", end, current)
	}
	status, ranges := chain.Verify(from, timeline.Limits{Delayed: uint64(*o.delayed), Uploading: uint64(*o.uploading)})
	found := &integrity{status, []checkedRange{}}
	for _, r := range ranges {
		found.Details = append(found.Details, checkedRange{r.First.Timeline, r.First.String(), r.Last.String(), r.Count, r.Status})
	}
	return found, nil
}

// position returns where the server is, or else where its archive ends.
func (o verifyOptions) position(e *cli.Env, archive *timeline.Archive, until wal.LSN) (uint32, wal.LSN, error) {
	current := uint32(*o.timeline)
	if current == 0 {
		last, _, ok := archive.Newest()
		switch {
		case ok:
			current = last.Timeline
		case *o.until == "":
			return 0, 0, fault.WithHint(fault.New(fault.Absent, "%w", errNoWAL), "give the position of the server with --until and --timeline")
		default:
			current = max(1, archive.Highest())
		}
	}
	if *o.until != "" {
		return current, until, nil
	}
	end, ok := archive.End(current)
	if !ok {
		return 0, 0, fault.WithHint(fault.New(fault.Absent, "timeline %d: %w", current, errNoWAL), "give the position of the server with --until")
	}
	e.Warn("the position of the server is not given (--until); %s on timeline %d is where the archive ends", end, current)
	return current, end, nil
}

// write writes the verdicts as WAL-G does.
func (v verdicts) write(out io.Writer) error {
	w := bufio.NewWriter(out)
	head := func(check, status string) {
		fmt.Fprintf(w, "[wal-verify] %s check status: %s\n[wal-verify] %s check details:\n", check, status, check)
	}
	if i := v.Integrity; i != nil {
		head(integrityCheck, i.Status)
		rows := [][]string{{"TLI", "START", "END", "SEGMENTS COUNT", "STATUS"}}
		for _, r := range i.Details {
			rows = append(rows, []string{strconv.FormatUint(uint64(r.Timeline), 10), r.First, r.Last, strconv.FormatUint(r.Count, 10), r.Status})
		}
		if err := listing.Box(w, rows, 0, 3, 4); err != nil {
			return err
		}
	}
	if t := v.Timeline; t != nil {
		head(timelineCheck, t.Status)
		fmt.Fprintf(w, "Highest timeline found in storage: %d\nCurrent cluster timeline: ", t.Details.Highest)
		if t.Details.Current == 0 {
			fmt.Fprintln(w, "not known")
		} else {
			fmt.Fprintln(w, t.Details.Current)
		}
	}
	return w.Flush()
}

// failure is the error for the status of a verdict that somebody must act on.
func (v verdicts) failure() error {
	if i := v.Integrity; i != nil && i.Status == timeline.Failure {
		lost := uint64(0)
		for _, r := range i.Details {
			if r.Status == timeline.Lost {
				lost += r.Count
			}
		}
		return fault.New(fault.Data, "verify WAL: %d segments are lost", lost)
	}
	if t := v.Timeline; t != nil && t.Status == timeline.Failure {
		return fault.New(fault.Data, "verify WAL: the server is on timeline %d, and the highest in the archive is %d", t.Details.Current, t.Details.Highest)
	}
	return nil
}
