package retain

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

// node is a finished backup among the others.
type node struct {
	*Backup
	full    bool
	parents []*node // what a restore needs next: one, or all that it may be where that cannot be read
	broken  string  // why it cannot be restored, or empty

	pos       wal.Segment // where its WAL starts
	placed    bool        // pos is known
	permanent string      // why it must not be removed, or empty
	start     time.Time   // zero where nothing is recorded
	finish    time.Time
	system    catalog.Number
}

// certain is the reason of what is marked permanent.
const certain = "permanent"

// graph is all finished backups, oldest first.
type graph struct {
	nodes  []*node
	byName map[string]*node
	timed  bool // they are in the order of their recorded times, not of their names
}

func newGraph(backups []*Backup) *graph {
	g := &graph{byName: map[string]*node{}, timed: true}
	for _, b := range backups {
		if b.Finished {
			n := newNode(b)
			g.nodes, g.byName[b.Name] = append(g.nodes, n), n
			g.timed = g.timed && !n.start.IsZero()
		}
	}
	if systems := g.systems(); len(systems) == 1 {
		for _, n := range g.nodes {
			n.system = systems[0] // of those that do not tell too
		}
	}
	slices.SortFunc(g.nodes, g.compare)
	for _, n := range g.nodes {
		g.base(n)
	}
	for _, n := range g.nodes {
		g.judge(n, map[*node]bool{})
	}
	return g
}

func newNode(b *Backup) *node {
	n := &node{Backup: b, finish: b.ModTime}
	pos, err := wal.ParseSegment(catalog.SegmentOf(b.Name))
	n.pos, n.placed = pos, err == nil
	if m := b.recorded(); m != nil {
		n.start, n.system = m.StartTime, m.SystemIdentifier
		if !m.FinishTime.IsZero() {
			n.finish = m.FinishTime
		}
	}
	switch {
	case b.Metadata != nil && b.Metadata.IsPermanent,
		b.Metadata == nil && b.Sentinel != nil && b.Sentinel.IsPermanent:
		n.permanent = certain
	case b.MetadataErr != nil && !errors.Is(b.MetadataErr, fs.ErrNotExist):
		n.permanent = "its metadata is damaged, so it may be permanent"
	}
	return n
}

// recorded is what the backup says of itself, or nil.
func (b *Backup) recorded() *catalog.Metadata {
	switch {
	case b.Metadata != nil:
		return b.Metadata
	case b.Sentinel != nil:
		m := b.Sentinel.Metadata()
		return &m
	}
	return nil
}

// compare orders by age.
func (g *graph) compare(a, b *node) int {
	if g.timed {
		return cmp.Or(a.start.Compare(b.start), cmp.Compare(a.Name, b.Name))
	}
	return byPosition(a, b)
}

// byPosition is WAL-G's order: timelines, then segments.
func byPosition(a, b *node) int {
	return cmp.Or(cmp.Compare(catalog.SegmentOf(a.Name), catalog.SegmentOf(b.Name)), cmp.Compare(a.Name, b.Name))
}

// base finds what n is based on.
func (g *graph) base(n *node) {
	if n.Sentinel != nil {
		n.full = !n.Sentinel.Delta()
		if n.full {
			return
		}
		if parent := g.byName[n.Sentinel.DeltaFrom]; parent != nil {
			n.parents = []*node{parent}
		} else {
			n.broken = fmt.Sprintf("it is based on %s, which is not there", n.Sentinel.DeltaFrom)
		}
		return
	}
	n.broken = "its sentinel cannot be read"
	_, parent, ok := catalog.ParseName(n.Name)
	n.full = ok && parent == ""
	for _, other := range g.nodes {
		// A name that says nothing may stand for a delta of any of them.
		if other != n && (!ok || parent != "" && catalog.SegmentOf(other.Name) == parent) {
			n.parents = append(n.parents, other)
		}
	}
}

// judge finds out whether n can be restored. above are the backups that led
// here.
func (g *graph) judge(n *node, above map[*node]bool) {
	if n.broken != "" || n.full {
		return
	}
	above[n] = true
	for _, parent := range n.parents {
		if above[parent] {
			n.broken = "backups are based on each other in a circle"
			return
		}
		if g.judge(parent, above); parent.broken != "" {
			n.broken = fmt.Sprintf("it is based on %s, which cannot be restored", parent.Name)
			return
		}
	}
}

// closure returns what a restore of the seeds needs, seeds included, and for
// each the seed or delta that needs it, nil for a seed.
func closure(seeds []*node) map[*node]*node {
	needed := map[*node]*node{}
	for _, n := range seeds {
		needed[n] = nil
	}
	for rest := slices.Clone(seeds); len(rest) > 0; {
		n := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		for _, parent := range n.parents {
			if _, ok := needed[parent]; !ok {
				needed[parent] = n
				rest = append(rest, parent)
			}
		}
	}
	return needed
}

// dependents returns root and all that cannot be restored without it.
func (g *graph) dependents(root *node) map[*node]bool {
	gone := map[*node]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, n := range g.nodes {
			// Of several that it may be based on one is enough to keep it.
			stays := slices.ContainsFunc(n.parents, func(p *node) bool { return !gone[p] })
			if !gone[n] && len(n.parents) > 0 && !stays {
				gone[n], grown = true, true
			}
		}
	}
	return gone
}

// root is the first backup of n's chain, as far as that is there.
func root(n *node) *node {
	for seen := map[*node]bool{}; len(n.parents) > 0 && !seen[n]; n = n.parents[0] {
		seen[n] = true
	}
	return n
}

// newestFulls are the backups that no policy but everything removes: of each
// cluster the newest full one that can be restored; where there is none, the
// newest full one.
func (g *graph) newestFulls() []*node {
	newest := map[catalog.Number]*node{}
	for _, n := range g.nodes { // the oldest first
		if old := newest[n.system]; n.full && (old == nil || n.broken == "" || old.broken != "") {
			newest[n.system] = n
		}
	}
	var all []*node
	for _, n := range g.nodes {
		if newest[n.system] == n {
			all = append(all, n)
		}
	}
	return all
}

// systems are the identifiers of the clusters, each once.
func (g *graph) systems() []catalog.Number {
	var all []catalog.Number
	for _, n := range g.nodes {
		if n.system != 0 {
			all = append(all, n.system)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// find returns the finished backup that the user means by its name, as LATEST, or
// with prefixes by what its name alone begins with; nil is none. The names are
// all that begin so.
func (g *graph) find(name string, prefixes bool) (*node, []string) {
	if name == catalog.Latest {
		if len(g.nodes) == 0 {
			return nil, nil
		}
		var all []*Backup
		for _, n := range g.nodes {
			all = append(all, n.Backup)
		}
		newest, err := Newest(all)
		if err != nil {
			return nil, nil
		}
		return g.byName[newest.Name], nil
	}
	exact := g.byName[name]
	if !prefixes {
		return exact, nil
	}
	var names []string
	for _, n := range g.nodes {
		if strings.HasPrefix(n.Name, name) {
			names = append(names, n.Name)
		}
	}
	if exact == nil && len(names) == 1 {
		exact = g.byName[names[0]]
	}
	return exact, names
}
