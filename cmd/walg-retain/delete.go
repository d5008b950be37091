package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/retain"
	"walg/lib/store"
	"walg/lib/store/open"
)

// maxBatch is how many objects one request may remove, as S3 has it.
const maxBatch = 1000

func setupDelete(f *cli.Flags) cli.Run {
	confirm := f.Bool("confirm", "", "", "remove what the plan says; without it nothing is removed")
	asJSON := f.Bool("json", "", "", "the plan as JSON")
	after := f.String("after", "", "", "", "retain: keep what is as new as this `backup` or time, too")
	userData := f.String("target-user-data", "", "", "", "target: the backup with this user data, as `json`")
	system := f.Int("system", "", "", 0, 0, "only the backups of the cluster with this system `identifier`; 0 is all")
	grace := f.Duration("grace", 24*time.Hour, "an unfinished backup may be in the making while its newest object is younger than this `time`")
	segment := declareSegments(f)
	batch := f.Int("batch", "", "", maxBatch, 1, "remove so many objects at once, a `number` up to 1000")
	f.Bool("use-sentinel-time", "", "", "no effect: the order is always that of the recorded start times")
	storage := open.Declare(f, "")
	return func(ctx context.Context, e *cli.Env) error {
		if e.Command != nil {
			return fault.New(fault.Usage, "no COMMAND is run here")
		}
		policy, err := retain.ParsePolicy(e.Operands, *after, *userData)
		if err != nil {
			return err
		}
		if *batch > maxBatch {
			return fault.New(fault.Usage, "--batch %d: at most %d", *batch, maxBatch)
		}
		policy.Now, policy.Grace, policy.System = time.Now(), *grace, catalog.Number(*system)
		policy.Exts = []string{e.Setting("WALG_COMPRESS_EXT")}
		if err := segment.check(); err != nil {
			return err
		}
		policy.SegmentSize = segment.size()
		st, err := open.Prefix(ctx, storage.Settings(e))
		if err != nil {
			return err
		}
		backups, err := scan(ctx, st)
		if err != nil {
			return err
		}
		if err := everything(ctx, e, st, backups); err != nil {
			return err
		}
		plan, err := retain.Make(backups, policy)
		if err != nil {
			return err
		}
		doc, err := survey(ctx, st, plan)
		if err != nil {
			return err
		}
		doc.Mode, doc.Confirmed = string(policy.Mode), *confirm
		if err := doc.write(e.Stdout, *asJSON); err != nil {
			return err
		}
		switch {
		case doc.Total.Objects == 0:
			e.Say("nothing is to be deleted")
			return nil
		case !*confirm:
			e.Say("this is a dry run, nothing was deleted; --confirm does it")
			return nil
		}
		r := &removal{st: st, plan: plan, e: e, batch: int(*batch)}
		e.Count(func() (int64, int64) { return r.bytes.Load(), doc.Total.Bytes })
		return r.run(ctx)
	}
}

// report is a plan as it is printed.
type report struct {
	Mode      string   `json:"mode"`
	Target    string   `json:"target,omitempty"`
	Confirmed bool     `json:"confirmed"`
	Notes     []string `json:"notes"`
	Backups   []fate   `json:"backups"`
	Delete    []extent `json:"delete"`
	Total     total    `json:"total"`
}

// fate is what becomes of one backup.
type fate struct {
	Name     string `json:"backup_name"`
	Finished bool   `json:"finished"`
	Keep     bool   `json:"keep"`
	Reason   string `json:"reason"`
}

// extent is objects that follow each other in a listing and go for the same
// reason.
type extent struct {
	First   string `json:"first"`
	Last    string `json:"last"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Reason  string `json:"reason"`
}

type total struct {
	Backups int   `json:"backups"`
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// survey looks at all objects with the eyes of the plan.
func survey(ctx context.Context, st store.Store, plan *retain.Plan) (*report, error) {
	doc := &report{Notes: append([]string{}, plan.Notes...), Backups: []fate{}, Delete: []extent{}}
	if plan.Target != nil {
		doc.Target = plan.Target.Name
	}
	for _, v := range plan.Verdicts {
		doc.Backups = append(doc.Backups, fate{v.Backup.Name, v.Backup.Finished, v.Keep, v.Reason})
		if !v.Keep {
			doc.Total.Backups++
		}
	}
	prefixes := []string{catalog.Backups}
	if plan.RemovesWAL() {
		prefixes = append(prefixes, catalog.WAL)
	}
	for _, prefix := range prefixes {
		open := false // the last extent may grow
		for info, err := range st.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			remove, reason := plan.Object(info.Key)
			if !remove {
				open = false
				continue
			}
			if n := len(doc.Delete); !open || doc.Delete[n-1].Reason != reason || group(doc.Delete[n-1].First) != group(info.Key) {
				doc.Delete = append(doc.Delete, extent{First: info.Key, Reason: reason})
			}
			open = true
			x := &doc.Delete[len(doc.Delete)-1]
			x.Last = info.Key
			x.Objects++
			x.Bytes += info.Size
			doc.Total.Objects++
			doc.Total.Bytes += info.Size
		}
	}
	return doc, nil
}

// group is what an extent does not go beyond: one backup, or the WAL of one
// timeline.
func group(key string) string {
	if name, ok := strings.CutPrefix(key, catalog.WAL); ok {
		return catalog.WAL + name[:min(8, len(name))]
	}
	backup, _ := catalog.BackupOf(key)
	return backup
}

func (d *report) write(out io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(d)
	}
	w := bufio.NewWriter(out)
	for _, note := range d.Notes {
		fmt.Fprintln(w, "note:", note)
	}
	for _, b := range d.Backups {
		verb := "delete"
		if b.Keep {
			verb = "keep"
		}
		fmt.Fprintf(w, "%-6s backup %s: %s\n", verb, b.Name, b.Reason)
	}
	for _, x := range d.Delete {
		fmt.Fprintln(w, x)
	}
	fmt.Fprintf(w, "total: %s\n", d.Total)
	return w.Flush()
}

func (x extent) String() string {
	if x.Objects == 1 {
		return fmt.Sprintf("delete %s (%s): %s", x.First, cli.Human(x.Bytes), x.Reason)
	}
	return fmt.Sprintf("delete %s .. %s (%d objects, %s): %s", x.First, x.Last, x.Objects, cli.Human(x.Bytes), x.Reason)
}

func (t total) String() string {
	return fmt.Sprintf("%d backups, %d objects, %s", t.Backups, t.Objects, cli.Human(t.Bytes))
}
