package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/retain"
	"walg/lib/retain/policy"
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
		policy, err := policy.Parse(e.Operands, *after, *userData)
		if err != nil {
			return err
		}
		switch {
		case *batch > maxBatch:
			return fault.New(fault.Usage, "--batch %d: at most %d", *batch, maxBatch)
		case *grace < 0:
			return fault.New(fault.Usage, "--grace %v: less than nothing", *grace)
		}
		policy.Grace, policy.System = *grace, catalog.Number(*system)
		if policy.Exts, err = extensions(e); err != nil {
			return err
		}
		if err := segment.check(); err != nil {
			return err
		}
		policy.SegmentSize = segment.size()
		st, err := open.Prefix(ctx, storage.Settings(e))
		if err != nil {
			return err
		}
		d := deletion{st: st, e: e, policy: policy, batch: int(*batch)}
		plan, err := d.plan(ctx, e)
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
		return d.carryOut(ctx, plan, doc.Total.Bytes)
	}
}

// deletion is what the command line says.
type deletion struct {
	st     store.Store
	e      *cli.Env
	policy policy.Policy
	batch  int
}

// plan reads the catalogue and plans. e is told what is odd, unless it is nil.
func (d *deletion) plan(ctx context.Context, e *cli.Env) (*retain.Plan, error) {
	backups, err := scan(ctx, d.st)
	if err != nil {
		return nil, err
	}
	if err := everything(ctx, e, d.st, backups); err != nil {
		return nil, err
	}
	d.policy.Now = time.Now()
	return retain.Make(backups, d.policy)
}

// carryOut removes what the plan says, as far as it would say so now: meanwhile a
// backup may have been finished or marked. It removes nothing where more would go
// than was shown.
func (d *deletion) carryOut(ctx context.Context, shown *retain.Plan, bytes int64) error {
	plan, err := d.plan(ctx, nil)
	if err != nil {
		return err
	}
	newest := map[string]time.Time{}
	for _, v := range shown.Verdicts {
		if !v.Keep {
			newest[v.Backup.Name] = v.Backup.Newest
		}
	}
	for _, v := range plan.Verdicts {
		at, goes := newest[v.Backup.Name]
		if goes && v.Keep {
			d.e.Warn("backup %s stays: %s, since the plan was made", v.Backup.Name, v.Reason)
		}
		if !v.Keep && (!goes || !at.Equal(v.Backup.Newest)) {
			return fault.WithHint(fault.New(fault.Failed, "delete %s: the archive has changed since the plan was made; nothing was deleted", d.policy),
				"call it again for the new plan")
		}
	}
	r := &removal{st: d.st, plan: plan, e: d.e, batch: d.batch}
	d.e.Count(func() (int64, int64) { return r.bytes.Load(), bytes })
	return r.run(ctx)
}

// extensions are those of the user's own compression.
func extensions(e *cli.Env) ([]string, error) {
	switch ext := e.Setting("WALG_COMPRESS_EXT"); {
	case ext == "":
		return nil, nil
	case len(ext) < 2 || ext[0] != '.' || slices.Contains([]string{".json", ".partial", ".backup", ".history", ".tar"}, ext):
		return nil, fault.New(fault.Usage, "setting WALG_COMPRESS_EXT=%s: want an extension such as .zst", ext)
	default:
		return []string{ext}, nil
	}
}

// report is a plan as it is printed.
type report struct {
	Mode      string   `json:"mode"`
	Target    *string  `json:"target"` // null where nothing is reckoned from one
	Confirmed bool     `json:"confirmed"`
	Notes     []string `json:"notes"`
	Backups   []fate   `json:"backups"`
	Delete    []extent `json:"delete"`
	Total     total    `json:"total"`

	foreign    int // objects that stay below what goes
	foreignKey string
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
		doc.Target = &plan.Target.Name
	}
	for _, v := range plan.Verdicts {
		doc.Backups = append(doc.Backups, fate{v.Backup.Name, v.Backup.Finished, v.Keep, v.Reason})
	}
	prefixes := []string{catalog.Backups}
	if plan.RemovesWAL() {
		prefixes = append(prefixes, catalog.WAL)
	}
	for _, prefix := range prefixes {
		if err := doc.look(ctx, st, plan, prefix); err != nil {
			return nil, err
		}
	}
	gone := map[string]bool{} // backups of which anything goes
	for _, x := range doc.Delete {
		if backup, ok := catalog.BackupOf(x.First); ok {
			gone[backup] = true
		}
	}
	doc.Total.Backups = len(gone)
	if doc.foreign > 0 {
		doc.Notes = append(doc.Notes, fmt.Sprintf("%d objects stay, because their names are not WAL-G's, the first is %s (WALG_COMPRESS_EXT is the extension of your own compression)",
			doc.foreign, doc.foreignKey))
	}
	return doc, nil
}

// look goes through the objects below a prefix. What is foreign and lies among
// what goes does not end an extent: there may be as many of these as of the others.
func (d *report) look(ctx context.Context, st store.Store, plan *retain.Plan, prefix string) error {
	open := false // the last extent may grow
	for info, err := range st.List(ctx, prefix) {
		if err != nil {
			return err
		}
		remove, reason := plan.Object(info.Key, info.ModTime)
		if !remove {
			class := plan.Classify(info.Key).Class
			if class == catalog.Foreign && plan.Near(info.Key) {
				if d.foreign++; d.foreign == 1 {
					d.foreignKey = info.Key
				}
			}
			open = open && class == catalog.Foreign
			continue
		}
		if n := len(d.Delete); !open || d.Delete[n-1].Reason != reason || group(d.Delete[n-1].First) != group(info.Key) {
			d.Delete = append(d.Delete, extent{First: info.Key, Reason: reason})
		}
		open = true
		x := &d.Delete[len(d.Delete)-1]
		x.Last = info.Key
		x.Objects++
		x.Bytes += info.Size
		d.Total.Objects++
		d.Total.Bytes += info.Size
	}
	return nil
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
