package retain

import (
	"fmt"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/wal"
)

// DefaultSegmentSize is that of WAL, in bytes.
const DefaultSegmentSize = 16 << 20

// planWAL settles which WAL goes: what sorts before all that must stay from
// somewhere on. Backups that stay only because they are permanent keep the WAL
// from their start to their end.
func (m *maker) planWAL() error {
	a, p := &m.plan.archive, m.policy
	a.keep = p.Mode == Target || p.Modifier == Leftover || p.Mode != Everything && m.target == nil
	a.any = p.Mode == Everything && len(m.kept) == 0
	lower := func(name string, pos wal.Segment) {
		if a.before == nil || pos.Compare(*a.before) < 0 {
			a.before, a.of = &pos, name
		}
	}
	open := closure(m.openEnded())
	for _, n := range m.nodes {
		if _, stays := m.kept[n]; !stays {
			continue
		}
		if !n.placed {
			m.note("the name of %s does not tell where its WAL starts: all WAL stays", n.Name)
			lower(n.Name, wal.Segment{})
			continue
		}
		_, isOpen := open[n]
		s, err := m.span(n)
		switch {
		case isOpen, err == nil && s == nil:
			lower(n.Name, n.pos)
		case err != nil && !a.keep:
			return err
		case err == nil:
			a.except = append(a.except, *s)
		}
	}
	for _, b := range m.unfinished {
		if pos, err := wal.ParseSegment(catalog.SegmentOf(b.Name)); err == nil && m.young(b) {
			lower(b.Name, pos)
		}
	}
	return nil
}

// openEnded are the backups that need all WAL from their start on: all that
// stay, but for older ones that are permanent, and no more than that.
func (m *maker) openEnded() []*node {
	var all []*node
	for _, n := range m.nodes {
		permanent := n.permanent == certain && m.policy.Pinned[n.Name] == "" && !m.foreign(n)
		older := m.target != nil && m.compare(n, m.target) < 0
		if m.why[n] != "" && !(permanent && older) {
			all = append(all, n)
		}
	}
	return all
}

// span is the WAL that makes n consistent, or nil where nothing tells its end.
func (m *maker) span(n *node) (*span, error) {
	r := n.recorded()
	if r == nil || r.FinishLSN == 0 {
		return nil, nil
	}
	size := m.policy.SegmentSize
	// The start may be the first byte of a segment. PostgreSQL named it after
	// the one before until version 16.
	start, before := wal.SegmentAt(n.pos.Timeline, wal.LSN(r.StartLSN), size), wal.SegmentAt(n.pos.Timeline, wal.LSN(r.StartLSN-1), size)
	if r.StartLSN != 0 && n.pos != start && n.pos != before {
		return nil, fault.WithHint(fault.New(fault.Usage, "%s starts at %s, which is not in a segment of %d MiB with that name", n.Name, r.StartLSN.LSN(), size>>20),
			"set WALG_PG_WAL_SIZE to the size of the cluster's segments in MiB")
	}
	last := wal.SegmentAt(n.pos.Timeline, wal.LSN(r.FinishLSN-1), size)
	if last.Compare(n.pos) < 0 {
		last = n.pos
	}
	first := n.pos
	if r.StartLSN != 0 && before.Compare(first) < 0 {
		first = before
	}
	return &span{first, last}, nil
}

// young tells that an unfinished backup may be in the making.
func (m *maker) young(b *Backup) bool { return m.policy.Now.Sub(b.ModTime) < m.policy.Grace }

// judgeUnfinished settles what becomes of objects that belong to no finished
// backup.
func (m *maker) judgeUnfinished(gone map[*node]bool) {
	left := m.leftOf(gone)
	for _, b := range m.unfinished {
		v := Verdict{Backup: b, Keep: true}
		_, _, ours := catalog.ParseName(b.Name)
		permanent := b.Metadata != nil && b.Metadata.IsPermanent
		older, reason := m.older(b)
		switch {
		case m.policy.Pinned[b.Name] != "":
			v.Reason = m.policy.Pinned[b.Name]
		case !ours:
			v.Reason = "not a name of WAL-G's"
		case m.policy.Mode == Everything && m.policy.System == 0:
			v.Keep, v.Reason = false, "everything"
		case permanent:
			v.Reason = "unfinished, and marked permanent"
		case m.young(b):
			v.Reason = fmt.Sprintf("unfinished, and may be in the making: it is not older than %v", m.policy.Grace)
		case m.policy.Mode == Target && left[b.Name]:
			v.Keep, v.Reason = false, "the rest of the target, or of what is based on it"
		case m.policy.Mode == Target, m.policy.Modifier == Archives, m.policy.Mode != Everything && m.target == nil, !older:
			v.Reason = "unfinished"
		default:
			v.Keep, v.Reason = false, "unfinished, and "+reason
		}
		m.add(v)
	}
}

// older tells that an unfinished backup belongs before what stays: by its
// recorded start, or else by its name.
func (m *maker) older(b *Backup) (bool, string) {
	if r := b.recorded(); r != nil && !r.StartTime.IsZero() && m.timed && m.target != nil && r.StartTime.Before(m.target.start) {
		return true, "older than " + m.target.Name
	}
	a := m.plan.archive
	pos, err := wal.ParseSegment(catalog.SegmentOf(b.Name))
	return err == nil && a.before != nil && pos.Compare(*a.before) < 0, "older than " + a.of
}

// leftOf are the unfinished backups that went with gone, or were to, as far as
// their names tell.
func (m *maker) leftOf(gone map[*node]bool) map[string]bool {
	if m.policy.Mode != Target {
		return nil
	}
	left := map[string]bool{m.policy.From.Name: true}
	segments := map[string]bool{catalog.SegmentOf(m.policy.From.Name): true}
	for n := range gone {
		segments[catalog.SegmentOf(n.Name)] = true
	}
	for _, n := range m.nodes {
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
