package retain

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"walg/lib/catalog"
	"walg/lib/fault"
)

// counted are the backups that the policy reckons with, newest first: those of
// its cluster that can be restored. A broken one must not stand for a good one.
func (m *maker) counted() []*node {
	var all []*node
	for _, n := range slices.Backward(m.nodes) {
		if !m.foreign(n) && n.broken == "" {
			all = append(all, n)
		}
	}
	return all
}

// own are all finished backups of the policy's cluster, oldest first.
func (m *maker) own() []*node {
	return slices.DeleteFunc(slices.Clone(m.nodes), m.foreign)
}

// from returns n and all that are newer.
func (m *maker) from(n *node) []*node { return m.nodes[slices.Index(m.nodes, n):] }

// findTarget returns the backup from which on the policy keeps all, or nil where
// there is nothing to remove.
func (m *maker) findTarget() (n *node, err error) {
	switch m.policy.Mode {
	case Retain:
		n, err = m.retained()
	case Before:
		n, err = m.point(m.policy.From)
		if n != nil && err == nil && m.policy.Modifier == FindFull {
			n = m.fullBefore(n)
		}
		if n == nil && err == nil {
			m.note("no backup is as new as %s, or none that all can start from: nothing is removed", m.policy.From)
		}
	case Garbage:
		for _, candidate := range m.own() {
			if candidate.permanent == "" {
				n = candidate
				break
			}
		}
		if n == nil {
			m.note("there is no backup, or they are all permanent: nothing is removed")
		}
	}
	if n == nil || err != nil {
		return nil, err
	}
	for _, other := range m.own() {
		if other.broken != "" {
			m.note("%s is not counted: %s", other.Name, other.broken)
		}
	}
	return n, m.canBeTarget(n)
}

func (m *maker) canBeTarget(n *node) error {
	switch {
	case !n.full:
		on := ""
		for at, seen := n, map[*node]bool{}; len(at.parents) > 0 && !seen[at]; at = at.parents[0] {
			seen[at] = true
			on += ", on " + at.parents[0].Name
		}
		err := fault.New(fault.Usage, "%s is a delta backup, based%s, which would have to stay", n.Name, strings.TrimPrefix(on, ","))
		if on == "" {
			err = fault.New(fault.Usage, "%s is a delta backup, and %s", n.Name, n.broken)
		}
		if m.policy.Mode == Garbage {
			return fault.WithHint(err, "remove older backups with retain or before")
		}
		return fault.WithHint(err, "FIND_FULL keeps what it is based on")
	case n.broken != "":
		return fault.WithHint(fault.New(fault.Data, "%s cannot be restored: %s", n.Name, n.broken),
			"nothing older is removed for its sake; name another, or remove it with delete target %s", n.Name)
	}
	return nil
}

// retained is the oldest of the newest Count backups, or the older one that
// After asks for.
func (m *maker) retained() (*node, error) {
	counted := m.counted()
	place := 0
	var oldest *node
	for _, n := range counted {
		if m.policy.Modifier == Full && !n.full {
			continue
		}
		if place++; place >= m.policy.Count && (n.full || m.policy.Modifier != FindFull) {
			oldest = n
			break
		}
	}
	if oldest == nil {
		m.note("there are no more than %d backups that count: nothing is removed", m.policy.Count)
		return nil, nil
	}
	if m.policy.After == nil {
		return oldest, nil
	}
	after, err := m.point(*m.policy.After)
	if err != nil || after == nil {
		return oldest, err
	}
	if m.policy.Modifier != "" && !after.full {
		full := m.fullBefore(after)
		if full == nil {
			m.note("no full backup is as old as %s: nothing is removed", after.Name)
			return nil, nil
		}
		m.note("%s is a delta backup: from %s on all is kept for it, where WAL-G would look for a newer full one", after.Name, full.Name)
		after = full
	}
	if slices.Index(m.nodes, after) < slices.Index(m.nodes, oldest) {
		return after, nil
	}
	return oldest, nil
}

// fullBefore is n, or the newest full backup before it that can be restored.
func (m *maker) fullBefore(n *node) *node {
	own := m.own()
	for _, full := range slices.Backward(own[:slices.Index(own, n)+1]) {
		if full.full && (full.broken == "" || full == n) {
			return full
		}
	}
	return nil
}

// point returns the backup of that name, or the oldest one that was finished
// then or later; nil where all are older.
func (m *maker) point(p Point) (*node, error) {
	if p.Name != "" {
		n, several := m.find(p.Name, true)
		switch {
		case n != nil && m.foreign(n):
			return nil, fault.New(fault.Usage, "%s is of another cluster, with the system identifier %d", n.Name, n.system)
		case n != nil:
			if p.Name != catalog.Latest && len(several) > 1 {
				m.note("%s is the backup of that name; WAL-G would take the newest of %s", n.Name, strings.Join(several, ", "))
			}
			return n, nil
		case several != nil:
			return nil, fault.New(fault.Usage, "%s begins the names of several backups: %s", p.Name, strings.Join(several, ", "))
		}
		return nil, fault.New(fault.Absent, "no backup %s", p.Name)
	}
	if p.UTC {
		m.note("the time without a zone is taken as %s", p)
	}
	if p.Time.After(m.policy.Now) {
		return nil, fault.New(fault.Usage, "%s is in the future", p)
	}
	for _, n := range m.own() {
		if n.broken == "" && !n.finish.Before(p.Time) {
			return n, nil
		}
	}
	return nil, nil
}

// except returns all finished backups but those.
func (m *maker) except(gone map[*node]bool) []*node {
	return slices.DeleteFunc(slices.Clone(m.nodes), func(n *node) bool { return gone[n] })
}

// targeted returns what goes with the backup that the user names. Where only its
// parts are left, of a removal that was cut short, that is no finished backup.
func (m *maker) targeted() (map[*node]bool, error) {
	name := m.policy.From.Name
	if m.policy.UserData != nil {
		var err error
		if name, err = m.withUserData(); err != nil {
			return nil, err
		}
	}
	n, _ := m.find(name, false)
	if n == nil && !slices.ContainsFunc(m.unfinished, func(b *Backup) bool { return b.Name == name }) {
		return nil, fault.New(fault.Absent, "no backup %s", name)
	}
	if m.policy.Modifier == FindFull {
		if n == nil {
			name, n = m.rootByName(name)
		}
		if n != nil {
			n = root(n)
		}
	}
	if n == nil {
		m.policy.From.Name = name // all that is left is judged by its name
		return map[*node]bool{}, nil
	}
	m.policy.From.Name = n.Name
	return m.dependents(n), nil
}

// rootByName follows the names of what is left of backups to a full one.
func (m *maker) rootByName(name string) (string, *node) {
	for seen := map[string]bool{}; !seen[name]; {
		seen[name] = true
		_, parent, _ := catalog.ParseName(name)
		if parent == "" {
			break
		}
		for _, n := range m.nodes {
			if catalog.SegmentOf(n.Name) == parent {
				return n.Name, n
			}
		}
		for _, b := range m.unfinished {
			if catalog.SegmentOf(b.Name) == parent {
				name = b.Name
			}
		}
	}
	return name, nil
}

func (m *maker) withUserData() (string, error) {
	var want any
	if err := decode(m.policy.UserData, &want); err != nil {
		return "", fault.New(fault.Usage, "user data %s: %w", m.policy.UserData, err)
	}
	matching := func(b *Backup) bool {
		r := b.recorded()
		var got any
		return r != nil && r.UserData != nil && decode(r.UserData, &got) == nil && reflect.DeepEqual(got, want)
	}
	var names []string
	for _, n := range m.nodes {
		if matching(n.Backup) {
			names = append(names, n.Name)
		}
	}
	for _, b := range m.unfinished {
		if len(names) == 0 && matching(b) {
			names = append(names, b.Name)
		}
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fault.New(fault.Absent, "no backup has the user data %s", m.policy.UserData)
	}
	return "", fault.New(fault.Usage, "several backups have the user data %s: %s", m.policy.UserData, strings.Join(names, ", "))
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

// mayRemove refuses a target of which something has to stay. What is pinned has
// proved to stay after all that was asked: the rest goes on.
func (m *maker) mayRemove(gone map[*node]bool) error {
	if m.policy.Pinned != nil {
		return nil
	}
	var first, needed *node
	for _, n := range m.nodes {
		user, stays := m.kept[n]
		switch {
		case !gone[n] || !stays:
		case user == nil && first == nil:
			first = n
		case user != nil && needed == nil:
			needed = n
		}
	}
	if first == nil && needed == nil {
		return nil
	}
	if first == nil {
		return fault.New(fault.Usage, "%s stays: it is needed by %s", needed.Name, m.kept[needed].Name)
	}
	err := fault.New(fault.Usage, "%s stays: %s", first.Name, m.why[first])
	switch {
	case m.foreign(first):
		return fault.WithHint(err, "leave --system away, or give its own")
	case first.permanent != "":
		return fault.WithHint(err, "WAL-G would remove it; here walg-retain mark -i %s comes first", first.Name)
	}
	return fault.WithHint(err, "take another full backup first; everything removes all")
}
