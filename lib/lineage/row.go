package lineage

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/wal"
)

// Node is a finished backup among the others.
type Node struct {
	*Backup
	Full    bool
	Parents []*Node // what a restore needs next: one, or all that it may be where that cannot be read
	Broken  string  // why it cannot be restored, or empty

	Segment wal.Segment    // where its WAL starts
	Placed  bool           // Segment is known
	Keep    string         // why it must not be removed: Marked or another, or empty
	Start   time.Time      // zero where nothing is recorded
	Aged    bool           // something tells how old it is: its time, or its name
	Finish  time.Time      // where nothing is recorded, when the sentinel was put
	System  catalog.Number // 0 where nothing is recorded
	since   time.Time      // Start, or that of what it is based on where that is later
	depth   int            // how many it is based on
	place   int            // in the row
	future  bool           // its recorded start is
	judged  bool
	aged    bool
}

// Why a backup must not be removed.
const (
	Marked  = "permanent"
	damaged = "its metadata is damaged, so it may be permanent"
	missing = "its metadata is missing, so it may be permanent"
)

// ahead is how far the clock that recorded a start may be ahead of ours.
const ahead = time.Hour

// Row is all finished backups in order of age: by their recorded start times, and
// without one by the name.
type Row struct {
	Nodes  []*Node // oldest first
	byName map[string]*Node
}

// NewRow puts the finished ones of the backups in a row. A start later than now is
// none: it tells that a clock was wrong, and not when.
func NewRow(backups []*Backup, now time.Time) *Row {
	r := &Row{byName: map[string]*Node{}}
	for _, b := range backups {
		if b.Finished {
			n := newNode(b)
			if n.Start.After(now.Add(ahead)) {
				n.Start, n.future = time.Time{}, true
			}
			r.Nodes, r.byName[b.Name] = append(r.Nodes, n), n
		}
	}
	if systems := r.Systems(); len(systems) == 1 {
		for _, n := range r.Nodes {
			n.System = systems[0] // of those that do not tell too
		}
	}
	for _, n := range r.Nodes {
		r.base(n)
	}
	for _, n := range r.Nodes {
		judge(n, map[*Node]bool{})
	}
	r.order()
	return r
}

func newNode(b *Backup) *Node {
	n := &Node{Backup: b, Start: b.Start(), Finish: b.End()}
	segment, err := wal.ParseSegment(catalog.SegmentOf(b.Name))
	n.Segment, n.Placed = segment, err == nil
	if m := b.Recorded(); m != nil {
		n.System = m.SystemIdentifier
	}
	switch {
	case b.Permanent():
		n.Keep = Marked
	case b.MetadataErr != nil && !errors.Is(b.MetadataErr, fs.ErrNotExist):
		n.Keep = damaged
	case b.Metadata == nil && b.Sentinel != nil && b.Sentinel.Version >= 2:
		n.Keep = missing // who writes such sentinels writes metadata, and marks that only
	}
	return n
}

// age settles since and depth. A delta is newer than what it is based on, whatever
// the clock of its host said.
func age(n *Node) {
	if n.aged {
		return
	}
	n.aged, n.since = true, n.Start
	if n.Broken != "" || len(n.Parents) != 1 {
		return
	}
	parent := n.Parents[0]
	age(parent)
	n.depth = parent.depth + 1
	if !n.Start.IsZero() && parent.since.After(n.since) {
		n.since = parent.since
	}
}

// order sorts those with a time by it, and then puts the others between those of
// their cluster by their names; Contradicts tells where that has no meaning. Where
// the name tells nothing, or the sentinel nothing, a backup without a time
// counts as the newest: what is not known must not look old.
func (r *Row) order() {
	var row, named, last []*Node
	for _, n := range r.Nodes {
		age(n)
		n.Aged = true
		switch {
		case !n.Start.IsZero():
			row = append(row, n)
		case n.Placed && n.Sentinel != nil && !n.future:
			named = append(named, n)
		default:
			n.Aged = false
			last = append(last, n)
		}
	}
	slices.SortFunc(row, func(a, b *Node) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.depth, b.depth), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(named, ByName)
	slices.SortFunc(last, ByName)
	for _, n := range named {
		at := 0
		for i, other := range row {
			if other.Placed && other.System == n.System && ByName(other, n) < 0 {
				at = i + 1
			}
		}
		row = slices.Insert(row, at, n)
	}
	r.Nodes = append(row, last...)
	for i, n := range r.Nodes {
		n.place = i
	}
}

// Contradicts returns a backup without a recorded start time where the names of
// the others do not sort as their times, or say nothing, so that its name does
// not tell its place among them either; or where its name puts it behind one that
// started after its sentinel was put. nil is none.
func (r *Row) Contradicts(among func(*Node) bool) *Node {
	var before, untimed *Node
	var latest time.Time
	sorted := true
	for _, n := range r.Nodes {
		switch {
		case !among(n):
		case !n.Start.IsZero():
			sorted = sorted && n.Placed && (before == nil || ByName(before, n) < 0)
			before = n
			if n.Start.After(latest) {
				latest = n.Start
			}
		case n.Aged:
			if latest.After(n.ModTime.Add(ahead)) {
				return n // to copy it can only have made it newer
			}
			if untimed == nil {
				untimed = n
			}
		}
	}
	if sorted {
		return nil
	}
	return untimed
}

// Compare orders by age: it is negative where a is older.
func Compare(a, b *Node) int { return a.place - b.place }

// ByName is WAL-G's order: timelines, then segments.
func ByName(a, b *Node) int {
	return cmp.Or(cmp.Compare(catalog.SegmentOf(a.Name), catalog.SegmentOf(b.Name)), cmp.Compare(a.Name, b.Name))
}

// base finds what n is based on.
func (r *Row) base(n *Node) {
	if n.Sentinel != nil {
		n.Full = !n.Sentinel.Delta()
		if n.Full {
			return
		}
		if parent := r.byName[n.Sentinel.DeltaFrom]; parent != nil {
			n.Parents = []*Node{parent}
		} else {
			n.Broken = fmt.Sprintf("it is based on %s, which is not there", n.Sentinel.DeltaFrom)
		}
		return
	}
	n.Broken = "its sentinel cannot be read"
	_, parent, ok := catalog.ParseName(n.Name)
	n.Full = ok && parent == ""
	for _, other := range r.Nodes {
		// A name that says nothing may stand for a delta of any of them.
		if other != n && (!ok || parent != "" && catalog.SegmentOf(other.Name) == parent) {
			n.Parents = append(n.Parents, other)
		}
	}
}

// judge finds out whether n can be restored. above are the backups that led
// here.
func judge(n *Node, above map[*Node]bool) {
	if n.judged || n.Broken != "" || n.Full {
		return
	}
	above[n] = true
	for _, parent := range n.Parents {
		if !above[parent] {
			judge(parent, above)
		} else if parent.Broken == "" {
			n.Broken = "backups are based on each other in a circle"
			break
		}
		if parent.Broken != "" {
			n.Broken = fmt.Sprintf("it is based on %s, which cannot be restored", parent.Name)
			break
		}
	}
	delete(above, n)
	n.judged = true
}

// Closure returns what a restore of the seeds needs, seeds included, and for
// each the one that needs it, nil for a seed.
func Closure(seeds []*Node) map[*Node]*Node {
	needed := map[*Node]*Node{}
	for _, n := range seeds {
		needed[n] = nil
	}
	for rest := slices.Clone(seeds); len(rest) > 0; {
		n := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		for _, parent := range n.Parents {
			if _, ok := needed[parent]; !ok {
				needed[parent] = n
				rest = append(rest, parent)
			}
		}
	}
	return needed
}

// Dependents returns root and all that cannot be restored without it.
func (r *Row) Dependents(root *Node) map[*Node]bool {
	gone := map[*Node]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, n := range r.Nodes {
			// Of several that it may be based on one is enough to keep it.
			stays := slices.ContainsFunc(n.Parents, func(p *Node) bool { return !gone[p] })
			if !gone[n] && len(n.Parents) > 0 && !stays {
				gone[n], grown = true, true
			}
		}
	}
	return gone
}

// Needing are the finished backups that cannot, or perhaps cannot, be restored
// without the one of that name, oldest first.
func Needing(backups []*Backup, name string) (needing []*Backup) {
	var any time.Time // the order is of no matter here
	r := NewRow(backups, any)
	for _, n := range r.Nodes {
		if n.Name != name {
			if _, needs := Closure([]*Node{n})[r.byName[name]]; needs {
				needing = append(needing, n.Backup)
			}
		}
	}
	return needing
}

// NewestFulls are the full backups that no cluster can do without: of each the
// newest one that can be restored and of which something tells the age, or where
// there is none the newest one.
func (r *Row) NewestFulls() []*Node {
	return r.newest(func(*Node) bool { return true }, func(old, n *Node) bool {
		good := n.Broken == "" && n.Aged
		return good || old.Broken != "" || !old.Aged
	})
}

// Guarded are the full backups that may be the newest: the last in the row, that
// with the newest WAL, the last one with a recorded start, and the last one that
// was finished. They are one, unless a clock was wrong or times are missing.
func (r *Row) Guarded() []*Node {
	good := func(n *Node) bool { return n.Broken == "" }
	all := r.NewestFulls()
	all = append(all, r.newest(func(n *Node) bool { return good(n) && n.Placed }, func(old, n *Node) bool { return ByName(n, old) > 0 })...)
	all = append(all, r.newest(func(n *Node) bool { return good(n) && !n.Start.IsZero() }, func(old, n *Node) bool { return !n.Start.Before(old.Start) })...)
	all = append(all, r.newest(good, func(old, n *Node) bool { return !n.Finish.Before(old.Finish) })...)
	slices.SortFunc(all, Compare)
	return slices.Compact(all)
}

// newest returns of each cluster the last full backup of those that count, where
// later tells that n takes the place of old.
func (r *Row) newest(counts func(*Node) bool, later func(old, n *Node) bool) (all []*Node) {
	of := map[catalog.Number]*Node{}
	for _, n := range r.Nodes {
		if n.Full && counts(n) && (of[n.System] == nil || later(of[n.System], n)) {
			of[n.System] = n
		}
	}
	for _, n := range of {
		all = append(all, n)
	}
	slices.SortFunc(all, Compare)
	return all
}

// Systems are the identifiers of the clusters, each once.
func (r *Row) Systems() []catalog.Number {
	var all []catalog.Number
	for _, n := range r.Nodes {
		if n.System != 0 {
			all = append(all, n.System)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Find returns the finished backup that the user means by its name, as LATEST, or
// with prefixes by what its name alone begins with; nil is none. The names are
// all that begin so.
func (r *Row) Find(name string, prefixes bool) (*Node, []string) {
	if name == catalog.Latest {
		var all []*Backup
		for _, n := range r.Nodes {
			all = append(all, n.Backup)
		}
		if newest, err := Newest(all); err == nil { // the only error is that there is none
			return r.byName[newest.Name], nil
		}
		return nil, nil
	}
	exact := r.byName[name]
	if !prefixes {
		return exact, nil
	}
	var names []string
	for _, n := range r.Nodes {
		if strings.HasPrefix(n.Name, name) {
			names = append(names, n.Name)
		}
	}
	if exact == nil && len(names) == 1 {
		exact = r.byName[names[0]]
	}
	return exact, names
}
