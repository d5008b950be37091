// Package retain decides what of an archive a policy keeps: catalogue and policy in,
// plan out. It is pure. What stays is a closure (whoever is kept keeps what it is
// based on, and the WAL that it needs), and what is no backup, part or WAL by its
// name is never removed.
//
// The modes and their words are those of wal-g delete (reference: docs of the
// format, section 12); walg-retain(1) lists where the decisions differ, and why.
package retain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/retain/policy"
	"walg/lib/wal"
)

// Verdict is what becomes of one backup, and why.
type Verdict struct {
	Backup *lineage.Backup
	Keep   bool
	Reason string
}

// Plan is what a policy means for one catalogue. It knows the fate of each
// backup, and of any other object as soon as it is shown its key, so that a
// plan for a million segments is no larger than one for ten.
type Plan struct {
	// Verdicts has all backups, finished ones first, each in order of age.
	Verdicts []Verdict
	// Target is the oldest backup that the policy itself keeps, nil where that
	// means nothing.
	Target *lineage.Backup
	// Notes say what the user may not expect: where WAL-G would decide
	// otherwise, and what has been left out of the reckoning.
	Notes []string

	policy   policy.Policy
	verdicts map[string]Verdict
	rounds   [][]string
	tail     []string
	archive  archive
}

// Make plans. It changes nothing, and gives the same plan for the same
// catalogue; for what is left after the plan it gives one that removes nothing.
// Whatever the policy is, but for everything: of each cluster the newest full
// backup stays, permanent ones stay, what they are based on stays, and so does
// the WAL that each of them needs.
//
// A policy that cannot be carried out as it is worded is an error of status 64,
// a backup that is not there one of status 66, a damaged one that the policy
// rests on one of status 65.
func Make(backups []*lineage.Backup, p policy.Policy) (*Plan, error) {
	m := &maker{Row: lineage.NewRow(backups, p.Now), plan: &Plan{policy: p, verdicts: map[string]Verdict{}}, policy: p}
	for _, b := range backups {
		if !b.Finished {
			m.unfinished = append(m.unfinished, b)
		}
	}
	slices.SortFunc(m.unfinished, lineage.ByModTime)
	if err := m.decide(); err != nil {
		return nil, fault.WithHint(fault.New(fault.Status(err), "delete %s: %w", p, err), "%s", fault.Hint(err))
	}
	return m.plan, nil
}

// Object says whether the object with this key is to be removed, and why. put is
// when it was put.
func (p *Plan) Object(key string, put time.Time) (remove bool, reason string) {
	switch o := p.Classify(key); o.Class {
	case catalog.Foreign, catalog.ClassHistory:
		return false, ""
	case catalog.ClassWAL:
		return p.archive.removes(o, put)
	default:
		v, known := p.verdicts[o.Backup]
		return known && !v.Keep, v.Reason
	}
}

// Classify says what the object with this key is.
func (p *Plan) Classify(key string) catalog.Object { return catalog.Classify(key, p.policy.Exts...) }

// Near tells that a foreign object lies where the plan removes others: in a
// backup that goes, or in the WAL.
func (p *Plan) Near(key string) bool {
	if strings.HasPrefix(key, catalog.WAL) {
		return p.RemovesWAL()
	}
	backup, _ := catalog.BackupOf(key)
	v, known := p.verdicts[backup]
	return known && !v.Keep
}

// Rounds are the backups that lose their sentinels, those of one round at once
// and the rounds one after the other: a delta before what it is based on.
func (p *Plan) Rounds() [][]string { return p.rounds }

// Tail are the backups that lose their objects after all others, one after the
// other: the target comes last, and what leads to it before that, so that a
// target of which something is left can be named again.
func (p *Plan) Tail() []string { return p.tail }

// RemovesWAL tells that the plan may remove WAL.
func (p *Plan) RemovesWAL() bool {
	return !p.archive.keep && (p.archive.any || p.archive.before != nil)
}

// With is the plan for the same catalogue where these backups stay as well,
// because they cannot be removed.
func (p *Plan) With(pinned map[string]string) (*Plan, error) {
	stricter := p.policy
	stricter.Pinned = pinned
	var backups []*lineage.Backup
	for _, v := range p.Verdicts {
		backups = append(backups, v.Backup)
	}
	return Make(backups, stricter)
}

// maker is one plan in the making.
type maker struct {
	*lineage.Row
	policy     policy.Policy
	plan       *Plan
	unfinished []*lineage.Backup
	target     *lineage.Node
	guarded    []*lineage.Node                 // who may be the newest
	kept       map[*lineage.Node]*lineage.Node // who stays, and for whom
	why        map[*lineage.Node]string
}

func (m *maker) note(format string, args ...any) {
	m.plan.Notes = append(m.plan.Notes, fmt.Sprintf(format, args...))
}

func (m *maker) decide() error {
	if err := m.sameSystem(); err != nil {
		return err
	}
	var seeds []*lineage.Node
	var gone map[*lineage.Node]bool // of Target
	var err error
	switch m.policy.Mode {
	case policy.Everything:
		err = m.mayRemoveAll()
	case policy.Target:
		if gone, err = m.targeted(); err == nil {
			seeds = m.except(gone)
		}
	default:
		if err := m.ordered(); err != nil {
			return err
		}
		if m.target, err = m.findTarget(); err == nil && m.target != nil {
			seeds = m.from(m.target)
			m.plan.Target = m.target.Backup
			m.orderNote()
		} else {
			seeds = m.Nodes
		}
	}
	if err != nil {
		return err
	}
	m.keep(seeds)
	if err := m.mayRemove(gone); err != nil {
		return err
	}
	if err := m.planWAL(); err != nil {
		return err
	}
	m.judgeFinished()
	m.judgeUnfinished(gone)
	m.order()
	return nil
}

// keep settles who stays: the seeds, what must stay in any case, and all that
// these need.
func (m *maker) keep(seeds []*lineage.Node) {
	m.why = map[*lineage.Node]string{}
	add := func(n *lineage.Node, why string) {
		if m.why[n] == "" {
			m.why[n] = why
		}
	}
	for _, n := range m.Nodes {
		switch {
		case m.policy.Pinned[n.Name] != "":
			add(n, m.policy.Pinned[n.Name])
		case m.foreign(n):
			add(n, otherCluster(n.System))
		case n.Keep != "" && m.policy.Mode != policy.Everything:
			add(n, n.Keep)
		}
	}
	for _, n := range seeds {
		add(n, m.seedReason(n))
	}
	if m.policy.Mode != policy.Everything {
		for _, n := range m.NewestFulls() {
			add(n, "the newest full backup")
		}
		if m.policy.Mode != policy.Target { // which is meant as it says
			m.guarded = m.Guarded()
		}
		for _, n := range m.guarded {
			add(n, "a full backup that may be the newest: its time, or that of another, is odd")
		}
		for n, b := range m.inTheMaking() {
			add(n, b.Name+", which may be in the making, is based on it")
		}
	}
	var all []*lineage.Node
	for _, n := range m.Nodes {
		if m.why[n] != "" {
			all = append(all, n)
		}
	}
	m.kept = lineage.Closure(all)
}

func otherCluster(system catalog.Number) string {
	if system == 0 {
		return "perhaps of another cluster: it has no system identifier"
	}
	return fmt.Sprintf("of another cluster, with the system identifier %d", system)
}

func (m *maker) seedReason(n *lineage.Node) string {
	switch {
	case m.policy.Mode == policy.Target:
		return "neither the target nor based on it"
	case m.target == nil:
		return "nothing is removed"
	case n == m.target:
		return "the oldest to keep"
	case !n.Aged:
		return "nothing tells how old it is"
	}
	return "newer than " + m.target.Name
}

// foreign tells that n is of another cluster than the policy is limited to.
func (m *maker) foreign(n *lineage.Node) bool {
	return m.policy.System != 0 && n.System != m.policy.System
}

func (m *maker) judgeFinished() {
	for _, n := range m.Nodes {
		v := Verdict{Backup: n.Backup}
		user, keep := m.kept[n]
		switch {
		case keep && user != nil:
			v.Keep, v.Reason = true, "needed by "+user.Name
		case keep:
			v.Keep, v.Reason = true, m.why[n]
		case m.policy.Mode == policy.Everything:
			v.Reason = "everything"
		case m.policy.Mode == policy.Target:
			v.Reason = "the target, or based on it"
		default:
			v.Reason = "older than " + m.target.Name
		}
		m.add(v)
	}
}

func (m *maker) add(v Verdict) {
	m.plan.Verdicts = append(m.plan.Verdicts, v)
	m.plan.verdicts[v.Backup.Name] = v
}

// sameSystem refuses to reckon with the backups of several clusters together.
func (m *maker) sameSystem() error {
	systems := m.Systems()
	if want := m.policy.System; want != 0 {
		of := func(b *lineage.Backup) bool { return b.Metadata != nil && b.Metadata.SystemIdentifier == want }
		if !slices.Contains(systems, want) && !slices.ContainsFunc(m.unfinished, of) {
			return fault.New(fault.Absent, "no backup has the system identifier %d", want)
		}
		return nil
	}
	if len(systems) < 2 || m.policy.Mode == policy.Everything || m.policy.Mode == policy.Target {
		return nil
	}
	var names []string
	for _, s := range systems {
		names = append(names, fmt.Sprint(s))
	}
	return fault.WithHint(fault.New(fault.Usage, "there are backups of more than one cluster, with the system identifiers %s", strings.Join(names, ", ")),
		"say which is meant with --system ID (the backups of others stay, and the WAL from their start on), or give each cluster a prefix of its own")
}

func (m *maker) mayRemoveAll() error {
	m.note("timeline histories and objects of unknown names stay; WAL-G removes them too")
	if m.policy.Modifier == policy.Force {
		return nil
	}
	for _, b := range m.unfinished {
		if _, _, ours := catalog.ParseName(b.Name); ours && m.young(b) && !m.ofAnother(b) {
			return fault.WithHint(fault.New(fault.Usage, "%s may be in the making", b.Name),
				"wait for its end; --grace says for how long that may be so, and everything FORCE does not care")
		}
	}
	for _, n := range m.Nodes {
		if n.Keep != "" && !m.foreign(n) {
			return fault.WithHint(fault.New(fault.Usage, "%s stays: %s", n.Name, n.Keep),
				"everything FORCE removes permanent backups too")
		}
	}
	return nil
}

// ordered refuses to reckon with backups of which nothing tells the order.
func (m *maker) ordered() error {
	n := m.Contradicts(func(n *lineage.Node) bool { return !m.foreign(n) })
	if n == nil {
		return nil
	}
	return fault.WithHint(fault.New(fault.Usage, "%s has no recorded start time, and the names of the others do not sort as their times: nothing tells how old it is", n.Name),
		"remove it, or others by their names, with delete target")
}

// orderNote says where WAL-G would see another backup as the older one.
func (m *maker) orderNote() {
	for i, n := range m.Nodes {
		if n.Start.IsZero() && n.Aged {
			m.note("%s has no recorded start time: its name gives its place", n.Name)
		} else if !n.Aged {
			m.note("%s stays: nothing tells how old it is; delete target %s removes it", n.Name, n.Name)
		}
		if i > 0 && n.Aged && lineage.ByName(m.Nodes[i-1], n) > 0 {
			m.note("%s started before %s, although its name sorts after that; WAL-G goes by the names, unless --use-sentinel-time is given", m.Nodes[i-1].Name, n.Name)
		}
	}
}

// order puts the sentinels that go into rounds.
func (m *maker) order() {
	var left []*lineage.Node
	users := map[*lineage.Node]int{} // how many of left are based on it
	for _, n := range m.Nodes {
		if _, stays := m.kept[n]; !stays {
			left = append(left, n)
			for _, parent := range n.Parents {
				users[parent]++
			}
		}
	}
	for len(left) > 0 {
		last := func(n *lineage.Node) bool { return users[n] == 0 }
		if !slices.ContainsFunc(left, last) {
			// Some are based on each other. None of them can be restored, nor what
			// is based on them.
			last = func(n *lineage.Node) bool { return n.Broken != "" }
		}
		var round []string
		var gone []*lineage.Node
		left = slices.DeleteFunc(left, func(n *lineage.Node) bool {
			goes := last(n)
			if goes {
				round, gone = append(round, n.Name), append(gone, n)
			}
			return goes
		})
		for _, n := range gone {
			for _, parent := range n.Parents {
				users[parent]--
			}
		}
		m.plan.rounds = append(m.plan.rounds, round)
	}
}

// A span is WAL that one backup needs. On a standby a backup may have begun on one
// timeline and ended on the next.
type span struct{ first, last wal.Segment }

func (s span) touches(first, last wal.Segment) bool {
	if first.Timeline < s.first.Timeline {
		return false
	}
	first.Timeline, last.Timeline = s.first.Timeline, s.first.Timeline
	return last.Compare(s.first) >= 0 && first.Compare(s.last) <= 0
}

// archive says which WAL goes.
type archive struct {
	keep   bool         // none goes
	any    bool         // all goes
	before *wal.Segment // what sorts before this goes, nil is none
	of     string       // the backup that starts there
	since  time.Time    // when the target was finished, zero where there is none
	except []span
}

func (a *archive) removes(o catalog.Object, put time.Time) (bool, string) {
	switch {
	case a.keep:
		return false, ""
	case a.any:
		return true, "everything"
	case a.before == nil || o.Last.Compare(*a.before) >= 0:
		return false, ""
	case o.Last.Timeline < a.before.Timeline && !a.since.IsZero() && put.After(a.since):
		return false, "" // of a cluster that began anew, on a lower timeline
	case slices.ContainsFunc(a.except, func(s span) bool { return s.touches(o.First, o.Last) }):
		return false, ""
	}
	return true, "older than " + a.of
}
