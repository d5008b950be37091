package retain_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/retain"
	"walg/lib/retain/policy"
	"walg/lib/wal"
)

// differ compares a plan with the oracle.
func differ(h history, p policy.Policy, o *oracle, plan *retain.Plan, err error) string {
	if fault.Status(err) != o.status {
		return fmt.Sprintf("status %d (%v), want %d", fault.Status(err), err, o.status)
	}
	if err != nil {
		return ""
	}
	if len(plan.Verdicts) != len(h.backups) {
		return fmt.Sprintf("%d verdicts for %d backups", len(plan.Verdicts), len(h.backups))
	}
	for _, v := range plan.Verdicts {
		if v.Keep == o.goes[v.Backup.Name] {
			return fmt.Sprintf("backup %s: keep %t (%s)", v.Backup.Name, v.Keep, v.Reason)
		}
		if v.Reason == "" {
			return fmt.Sprintf("backup %s: no reason", v.Backup.Name)
		}
	}
	for i, f := range o.fin {
		if plan.Verdicts[i].Backup != f.Backup {
			return fmt.Sprintf("verdict %d is of %s, want %s", i, plan.Verdicts[i].Backup.Name, f.Name)
		}
	}
	for _, key := range h.keys {
		if remove, reason := plan.Object(key, time.Time{}); remove != o.object(key) {
			return fmt.Sprintf("object %s: remove %t (%s)", key, remove, reason)
		}
	}
	round := map[string]int{}
	circle := slices.ContainsFunc(o.fin, func(f *fact) bool { return o.goes[f.Name] && o.closure(asSet(f.bases))[f.Name] })
	for i, all := range plan.Rounds() {
		for _, name := range all {
			if f := o.by[name]; round[name] != 0 || f == nil || !f.Finished || !o.goes[name] {
				return fmt.Sprintf("rounds %q: %s", plan.Rounds(), name)
			}
			round[name] = i + 1
		}
	}
	for _, f := range o.fin {
		if o.goes[f.Name] && round[f.Name] == 0 {
			return fmt.Sprintf("rounds %q: not %s", plan.Rounds(), f.Name)
		}
		for _, base := range f.bases {
			if o.goes[base] && o.goes[f.Name] && round[f.Name] >= round[base] &&
				!(circle && f.broken && o.by[base].broken) { // what leads into a circle goes with it
				return fmt.Sprintf("rounds %q: %s is based on %s", plan.Rounds(), f.Name, base)
			}
		}
	}
	return ""
}

func asSet(list []string) names {
	is := names{}
	for _, name := range list {
		is[name] = true
	}
	return is
}

// without is the history after these objects went.
func without(h history, gone names) history {
	left := history{now: h.now, size: h.size}
	for _, key := range h.keys {
		if !gone[key] {
			left.keys = append(left.keys, key)
		}
	}
	for _, b := range h.backups {
		there := slices.ContainsFunc(left.keys, func(key string) bool { name, ok := catalog.BackupOf(key); return ok && name == b.Name })
		if !there {
			continue
		}
		c := *b
		if gone[catalog.SentinelKey(b.Name)] {
			c.Finished, c.Sentinel, c.SentinelErr = false, nil, nil
		}
		if gone[catalog.MetadataKey(b.Name)] {
			c.Metadata, c.MetadataErr = nil, nil
		}
		left.backups = append(left.backups, &c)
	}
	return left
}

func removed(h history, plan *retain.Plan) names {
	gone := names{}
	for _, key := range h.keys {
		if remove, _ := plan.Object(key, time.Time{}); remove {
			gone[key] = true
		}
	}
	return gone
}

// count is where the seeds begin, and how many there are.
func count() (seed uint64, n int) {
	seed, n = uint64(time.Now().UnixNano()), 20_000
	if os.Getenv("WALG_SOAK") != "" {
		n = 100_000
	}
	if s, err := strconv.ParseUint(os.Getenv("WALG_SEED"), 10, 64); err == nil {
		seed = s
	}
	return seed % math.MaxInt64, n
}

// shrink leaves out backups and objects as long as something is wrong.
func shrink(h history, bad string, wrong func(history) string) (history, string) {
	for i := 0; i < len(h.backups); i++ {
		less := h
		less.backups = slices.Delete(slices.Clone(h.backups), i, i+1)
		less.keys = slices.DeleteFunc(slices.Clone(h.keys), func(key string) bool {
			name, ok := catalog.BackupOf(key)
			return ok && name == h.backups[i].Name
		})
		if b := wrong(less); b != "" {
			h, bad, i = less, b, -1
		}
	}
	return h, bad
}

// harm says what a plan must never do, in words that do not need the oracle's
// decisions, only its facts.
func harm(p policy.Policy, o *oracle, plan *retain.Plan) string {
	keep := names{}
	for _, v := range plan.Verdicts {
		keep[v.Backup.Name] = v.Keep
	}
	removes := func(s wal.Segment) bool {
		remove, _ := plan.Object(catalog.WALKey(s.String(), ".lz4"), time.Time{})
		return remove
	}
	for i, f := range o.fin {
		if p.Mode != policy.Everything && !keep[f.Name] {
			if f.permanent || f.maybe {
				return "permanent " + f.Name + " goes"
			}
			if f.full && !slices.ContainsFunc(o.fin, func(g *fact) bool {
				bad, better := f.broken || !f.aged, !g.broken && g.aged
				return keep[g.Name] && g.full && g.system == f.system && (bad != better && slices.Index(o.fin, g) > i || bad && better)
			}) {
				return "the newest full " + f.Name + " goes"
			}
		}
		if !keep[f.Name] {
			continue
		}
		for _, base := range f.bases {
			if !keep[base] {
				return f.Name + " stays, but not its " + base
			}
		}
		if f.broken || !f.placed {
			continue
		}
		for s, n := f.pos, 0; n < 12; s, n = s.Next(p.SegmentSize), n+1 {
			inside := f.finishLSN != 0 && uint64(s.Start(p.SegmentSize)) < uint64(f.finishLSN)
			onward := f.finishLSN == 0 || plan.Target != nil && plan.Target.Finished && !o.older(f, o.by[plan.Target.Name])
			if (n == 0 || inside || onward) && removes(s) {
				return f.Name + " stays, but not " + s.String()
			}
		}
	}
	for _, f := range o.unf {
		all := p.Mode == policy.Everything && p.System == 0 // what stays is only no name of WAL-G's
		if !all && keep[f.Name] && o.young(f) && f.placed && removes(f.pos) {
			return f.Name + " is in the making, but not " + f.pos.String() + " stays"
		}
	}
	return ""
}

// known says whether something goes that is nobody's, or not a backup's.
func known(h history, gone names) string {
	for _, key := range h.keys {
		history := strings.HasPrefix(key, catalog.WAL) && strings.Contains(key, ".history")
		if gone[key] && (history || strings.HasSuffix(key, ".txt") || strings.HasSuffix(key, ".junk") || strings.Contains(key, "/sub/")) {
			return key + " goes"
		}
	}
	return ""
}

// interrupt returns what is gone when the deletion stops somewhere: sentinels
// round after round, then data, of each backup the metadata last.
func interrupt(r *rand.Rand, h history, plan *retain.Plan) names {
	gone := names{}
	rounds := plan.Rounds()
	stop := r.IntN(len(rounds) + 1)
	for i, round := range rounds {
		for _, name := range round {
			if i < stop || i == stop && r.IntN(2) == 0 {
				gone[catalog.SentinelKey(name)] = true
			}
		}
	}
	for _, v := range plan.Verdicts {
		name := v.Backup.Name
		if v.Keep || v.Backup.Finished && !gone[catalog.SentinelKey(name)] || !v.Backup.Finished && stop < len(rounds) {
			continue
		}
		all := true
		for _, key := range h.keys {
			if of, ok := catalog.BackupOf(key); !ok || of != name || key == catalog.MetadataKey(name) {
				continue
			}
			if remove, _ := plan.Object(key, time.Time{}); remove && !gone[key] {
				gone[key] = r.IntN(2) == 0
				all = all && gone[key]
			}
		}
		if all && r.IntN(2) == 0 {
			gone[catalog.MetadataKey(name)] = true
		}
	}
	for _, key := range h.keys {
		if remove, _ := plan.Object(key, time.Time{}); remove && strings.HasPrefix(key, catalog.WAL) && stop == len(rounds) {
			gone[key] = r.IntN(3) == 0
		}
	}
	return gone
}

// again makes the plan for what is left, and returns what is left after that.
func again(h history, gone names, p policy.Policy) (left names, status int) {
	h = without(h, gone)
	plan, err := retain.Make(h.backups, p)
	left = asSet(h.keys)
	if err == nil {
		for key := range removed(h, plan) {
			delete(left, key)
		}
	}
	return left, fault.Status(err)
}

// settle checks that a second plan removes nothing, and that an interrupted one
// comes to the same end.
func settle(r *rand.Rand, h history, p policy.Policy, o *oracle, plan *retain.Plan) string {
	gone := removed(h, plan)
	if bad := known(h, gone); bad != "" {
		return bad
	}
	rest := without(h, gone)
	guess := p.Mode == policy.Target && p.Modifier == policy.FindFull &&
		(h.twoInOnePlace() || slices.ContainsFunc(o.fin, func(f *fact) bool {
			misnamed := f.Sentinel != nil && f.Sentinel.Delta() && catalog.SegmentOf(f.Sentinel.DeltaFrom) != f.parent
			return f.broken || misnamed // WAL-G names none so
		}))
	switch {
	case p.Mode == policy.Target && (p.From.Name == catalog.Latest || p.UserData != nil), // that is another one now
		guess, // the rest of a backup has only the name to tell what it was based on
		p.Mode == policy.Everything && p.System != 0,                                  // status 66 is before the leftovers
		(p.Mode == policy.Everything || p.Mode == policy.Target) && len(p.Pinned) > 0: // only what the user has seen is planned
		return ""
	}
	want := asSet(rest.keys)
	left, status := again(h, gone, p)
	if status == fault.Usage && (p.Mode == policy.Target || p.Mode == policy.Everything) {
		return "" // foreign objects are left of it, and it may be in the making
	}
	if status != 0 && (status != fault.Absent || p.Mode != policy.Target && p.System == 0) {
		return fmt.Sprintf("second: status %d", status)
	}
	// The rest of a target goes on where its name leads.
	rests := func(name string, is bool) bool { return p.Mode == policy.Target && is && !o.by[name].Finished }
	for key := range want {
		if !left[key] && !rests(catalog.BackupOf(key)) {
			return "second: removes " + key
		}
	}
	if slices.ContainsFunc(o.fin, func(f *fact) bool { return f.future }) {
		return "" // later it will not be
	}
	cut := interrupt(r, h, plan)
	o2 := consult(without(h, cut).backups, p)
	p.Now = p.Now.Add(10000 * time.Hour) // what lost its sentinel is not young any more
	if want, status = again(h, gone, p); status != 0 && p.Mode != policy.Target {
		return "" // nothing is left of this cluster that tells its system identifier
	}
	left, status = again(h, cut, p)
	for key := range want {
		if !left[key] && !rests(catalog.BackupOf(key)) {
			return fmt.Sprintf("interrupted: loses %s\n%v", key, cut)
		}
	}
	for key := range left {
		if p.Mode == policy.Target && o.target.broken {
			continue // in a circle
		}
		if want[key] || status == fault.Absent || p.Mode == policy.Target && p.Modifier == policy.FindFull {
			continue
		}
		name, of := catalog.BackupOf(key)
		if f := o2.by[name]; of && !f.Finished &&
			(p.Mode == policy.Target || !f.form || f.start.IsZero() || o.target != nil && !f.start.Before(o.target.start)) {
			continue // nothing tells that the rest of this one is old
		}
		return fmt.Sprintf("interrupted: leaves %s\n%v", key, cut)
	}
	return ""
}

// judge plans for one history, and says what is wrong: the first word is the
// kind of it.
func judge(h history, p policy.Policy, luck uint64) string {
	plan, err := retain.Make(h.backups, p)
	o := consult(h.backups, p)
	bad := differ(h, p, o, plan, err)
	if bad != "" {
		bad = "oracle: " + bad
	}
	if err != nil {
		return bad
	}
	if bad == "" {
		if bad = harm(p, o, plan); bad != "" {
			bad = "harm: " + bad
		}
	}
	if bad == "" {
		bad = settle(rand.New(rand.NewPCG(luck, 0)), h, p, o, plan)
	}
	if bad != "" {
		for _, v := range plan.Verdicts {
			bad += fmt.Sprintf("\n%s: keep %t (%s)", v.Backup.Name, v.Keep, v.Reason)
		}
	}
	return bad
}

// TestModelOfThePlanner compares the planner with an oracle, on histories and
// policies made at random, and holds every plan to what no plan may do. A seed
// makes one history: WALG_SEED begins with the one that was printed.
func TestModelOfThePlanner(t *testing.T) {
	seed, n := count()
	wrong := 0
	for i := range uint64(n) {
		r := rand.New(rand.NewPCG(seed+i, 0))
		h := grow(r)
		p := wish(r, h)
		luck := r.Uint64()
		bad := judge(h, p, luck)
		if bad == "" {
			continue
		}
		kind, _, _ := strings.Cut(bad, ":")
		h, bad = shrink(h, bad, func(h history) string {
			if bad := judge(h, p, luck); strings.HasPrefix(bad, kind) {
				return bad
			}
			return ""
		})
		t.Errorf("WALG_SEED=%d: %s\n%s", seed+i, bad, show(h, p))
		if wrong++; wrong == 5 {
			t.FailNow()
		}
	}
}
