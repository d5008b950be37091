package retain

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/retain/policy"
	"walg/lib/wal"
)

// DefaultSegmentSize is that of WAL, in bytes.
const DefaultSegmentSize = 16 << 20

// planWAL settles which WAL goes: what sorts before all that must stay from
// somewhere on. Backups that stay only because they are permanent keep the WAL
// from their start to their end.
func (m *maker) planWAL() error {
	a, p := &m.plan.archive, m.policy
	a.keep = p.Mode == policy.Target || p.Modifier == policy.Leftover || p.Mode != policy.Everything && m.target == nil
	if m.target != nil {
		a.since = m.target.Finish
	}
	lower := func(name string, pos wal.Segment) {
		if a.before == nil || pos.Compare(*a.before) < 0 {
			a.before, a.of = &pos, name
		}
	}
	open := lineage.Closure(m.openEnded())
	for _, n := range m.Nodes {
		if _, stays := m.kept[n]; !stays {
			continue
		}
		if !n.Placed {
			m.note("the name of %s does not tell where its WAL starts: all WAL stays", n.Name)
			lower(n.Name, wal.Segment{})
			continue
		}
		_, isOpen := open[n]
		if s := m.span(n); isOpen || s == nil {
			lower(n.Name, n.Segment)
			if n.Keep != "" && n.Keep != lineage.Marked && m.target != nil && lineage.Compare(n, m.target) < 0 {
				m.note("%s keeps all WAL from its start on: %s; mark -i %s makes it an ordinary backup", n.Name, n.Keep, n.Name)
			}
		} else {
			a.except = append(a.except, *s)
		}
	}
	for _, b := range m.unfinished {
		pos, err := wal.ParseSegment(catalog.SegmentOf(b.Name))
		if pinned := m.policy.Pinned[b.Name] != ""; err == nil && (pinned || m.young(b) && !m.all()) {
			lower(b.Name, pos)
		}
	}
	if len(a.except) > 0 && !a.keep {
		if err := m.fitting(); err != nil {
			return err
		}
	}
	a.any = p.Mode == policy.Everything && len(m.kept) == 0 && a.before == nil
	return nil
}

// all tells that no backup is spared, not even one that is being made.
func (m *maker) all() bool { return m.policy.Mode == policy.Everything && m.policy.System == 0 }

// openEnded are the backups that need all WAL from their start on: all that
// stay, but for older ones that are permanent, and no more than that.
func (m *maker) openEnded() []*lineage.Node {
	var all []*lineage.Node
	for _, n := range m.Nodes {
		permanent := n.Keep == lineage.Marked && m.policy.Pinned[n.Name] == "" && !m.foreign(n)
		older := m.target != nil && lineage.Compare(n, m.target) < 0
		if m.why[n] != "" && !(permanent && older && !slices.Contains(m.guarded, n)) {
			all = append(all, n)
		}
	}
	return all
}

// span is the WAL that makes n consistent, or nil where nothing tells its end.
func (m *maker) span(n *lineage.Node) *span {
	r := n.Recorded()
	if r == nil || r.FinishLSN == 0 {
		return nil
	}
	last := wal.SegmentAt(n.Segment.Timeline, wal.LSN(r.FinishLSN-1), m.policy.SegmentSize)
	if last.Compare(n.Segment) < 0 {
		last = n.Segment
	}
	return &span{n.Segment, last}
}

// fitting refuses a size of segments that the names of backups contradict: spans
// would be those of other segments.
func (m *maker) fitting() error {
	size := m.policy.SegmentSize
	for _, n := range m.Nodes {
		r := n.Recorded()
		if _, stays := m.kept[n]; r == nil || r.StartLSN == 0 || !n.Placed || !stays || m.foreign(n) {
			continue
		}
		// The start may be the first byte of a segment. PostgreSQL named it after
		// the one before until version 16.
		start, before := wal.SegmentAt(n.Segment.Timeline, wal.LSN(r.StartLSN), size), wal.SegmentAt(n.Segment.Timeline, wal.LSN(r.StartLSN-1), size)
		if n.Segment != start && n.Segment != before {
			return fault.WithHint(fault.New(fault.Usage, "%s starts at %s, which is not in a segment of %d MiB with that name", n.Name, r.StartLSN.LSN(), size>>20),
				"set WALG_PG_WAL_SIZE to the size of the cluster's segments in MiB")
		}
	}
	return nil
}

// described is the time that a push may take between a backup's metadata and its
// sentinel.
const described = time.Hour

// grace is how old an unfinished backup must be. One that has its metadata is
// either nearly there, or half removed.
func (m *maker) grace(b *lineage.Backup) time.Duration {
	if b.Metadata != nil {
		return min(m.policy.Grace, described)
	}
	return m.policy.Grace
}

// young tells that an unfinished backup may be in the making.
func (m *maker) young(b *lineage.Backup) bool { return m.policy.Now.Sub(b.ModTime) < m.grace(b) }

// inTheMaking are the finished backups that unfinished ones are based on which
// may yet be finished, as far as their names tell.
func (m *maker) inTheMaking() map[*lineage.Node]*lineage.Backup {
	at := map[string][]*lineage.Node{}
	for _, n := range m.Nodes {
		at[catalog.SegmentOf(n.Name)] = append(at[catalog.SegmentOf(n.Name)], n)
	}
	needed := map[*lineage.Node]*lineage.Backup{}
	for _, b := range m.unfinished {
		_, parent, _ := catalog.ParseName(b.Name)
		for _, n := range at[parent] {
			if m.young(b) || m.policy.Pinned[b.Name] != "" {
				needed[n] = b
			}
		}
	}
	return needed
}

// judgeUnfinished settles what becomes of objects that belong to no finished
// backup.
func (m *maker) judgeUnfinished(gone map[*lineage.Node]bool) {
	left := m.leftOf(gone)
	for _, b := range m.unfinished {
		v := Verdict{Backup: b, Keep: true}
		_, _, ours := catalog.ParseName(b.Name)
		permanent := b.Permanent() || b.MetadataErr != nil && !errors.Is(b.MetadataErr, fs.ErrNotExist)
		older, reason := m.older(b)
		switch {
		case m.policy.Pinned[b.Name] != "":
			v.Reason = m.policy.Pinned[b.Name]
		case !ours:
			v.Reason = "not a name of WAL-G's"
		case m.all():
			v.Keep, v.Reason = false, "everything"
		case m.ofAnother(b):
			v.Reason = otherCluster(b.Metadata.SystemIdentifier)
		case permanent:
			v.Reason = "unfinished, and permanent, or perhaps so"
		case m.young(b):
			v.Reason = fmt.Sprintf("unfinished, and may be in the making: it is not older than %v", m.grace(b))
		case m.policy.Mode == policy.Everything && b.Metadata != nil && b.Metadata.SystemIdentifier == m.policy.System:
			v.Keep, v.Reason = false, "everything"
		case m.policy.Mode == policy.Target && left[b.Name]:
			v.Keep, v.Reason = false, "the rest of the target, or of what is based on it"
		case m.policy.Mode == policy.Target, m.policy.Modifier == policy.Archives, m.policy.Mode != policy.Everything && m.target == nil, !older:
			v.Reason = "unfinished"
		default:
			v.Keep, v.Reason = false, "unfinished, and "+reason
		}
		m.add(v)
	}
}

// ofAnother tells that an unfinished backup is of another cluster.
func (m *maker) ofAnother(b *lineage.Backup) bool {
	return m.policy.System != 0 && b.Metadata != nil && b.Metadata.SystemIdentifier != 0 && b.Metadata.SystemIdentifier != m.policy.System
}

// older tells that an unfinished backup belongs before what stays: by its
// recorded start, or else by its name.
func (m *maker) older(b *lineage.Backup) (bool, string) {
	if start := b.Start(); !start.IsZero() && m.target != nil && start.Before(m.target.Start) {
		return true, "older than " + m.target.Name
	}
	a := m.plan.archive
	pos, err := wal.ParseSegment(catalog.SegmentOf(b.Name))
	return err == nil && a.before != nil && pos.Compare(*a.before) < 0, "older than " + a.of
}

// leftOf are the unfinished backups that went with gone, or were to, as far as
// their names tell.
func (m *maker) leftOf(gone map[*lineage.Node]bool) map[string]bool {
	if m.policy.Mode != policy.Target {
		return nil
	}
	left := map[string]bool{m.policy.From.Name: true}
	segments := map[string]bool{catalog.SegmentOf(m.policy.From.Name): true}
	for n := range gone {
		segments[catalog.SegmentOf(n.Name)] = true
	}
	for _, n := range m.Nodes {
		if !gone[n] {
			delete(segments, catalog.SegmentOf(n.Name)) // it may be based on this one
		}
	}
	for grown := true; grown; {
		grown = false
		for _, b := range m.unfinished {
			_, parent, _ := catalog.ParseName(b.Name)
			if parent != "" && segments[parent] && !left[b.Name] {
				left[b.Name], segments[catalog.SegmentOf(b.Name)], grown = true, true, true
			}
		}
	}
	return left
}
