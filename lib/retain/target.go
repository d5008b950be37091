package retain

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/retain/policy"
)

// counted are the backups that the policy reckons with, newest first: those of
// its cluster that can be restored, and of which something tells the age. A broken
// one must not stand for a good one.
func (m *maker) counted() []*lineage.Node {
	var all []*lineage.Node
	for _, n := range slices.Backward(m.Nodes) {
		if !m.foreign(n) && n.Broken == "" && n.Aged {
			all = append(all, n)
		}
	}
	return all
}

// own are all finished backups of the policy's cluster, oldest first.
func (m *maker) own() []*lineage.Node {
	return slices.DeleteFunc(slices.Clone(m.Nodes), m.foreign)
}

// from returns n and all that are newer.
func (m *maker) from(n *lineage.Node) []*lineage.Node { return m.Nodes[slices.Index(m.Nodes, n):] }

// findTarget returns the backup from which on the policy keeps all, or nil where
// there is nothing to remove.
func (m *maker) findTarget() (n *lineage.Node, err error) {
	switch m.policy.Mode {
	case policy.Retain:
		n, err = m.retained()
	case policy.Before:
		n, err = m.point(m.policy.From)
		switch {
		case err != nil:
		case n == nil:
			m.note("no backup is as new as %s: nothing is removed", m.policy.From)
		case m.policy.Modifier == policy.FindFull:
			if n = m.fullBefore(n); n == nil {
				m.note("no full backup is as old as %s: nothing is removed", m.policy.From)
			}
		}
	case policy.Garbage:
		for _, candidate := range m.own() {
			if candidate.Keep == "" && candidate.Aged {
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
		if other.Broken != "" {
			m.note("%s is not counted: %s", other.Name, other.Broken)
		}
	}
	return n, m.canBeTarget(n)
}

func (m *maker) canBeTarget(n *lineage.Node) error {
	switch {
	case !n.Full:
		on := ""
		for at, seen := n, map[*lineage.Node]bool{}; len(at.Parents) > 0 && !seen[at]; at = at.Parents[0] {
			seen[at] = true
			on += ", on " + at.Parents[0].Name
		}
		err := fault.New(fault.Usage, "%s is a delta backup, based%s, which would have to stay", n.Name, strings.TrimPrefix(on, ","))
		if on == "" {
			err = fault.New(fault.Usage, "%s is a delta backup, and %s", n.Name, n.Broken)
		}
		if m.policy.Mode == policy.Garbage {
			return fault.WithHint(err, "WAL-G refuses it too; before NAME removes what is older than a full backup")
		}
		return fault.WithHint(err, "FIND_FULL keeps what it is based on")
	case !n.Aged:
		return fault.New(fault.Usage, "nothing tells how old %s is", n.Name)
	case n.Broken != "":
		return fault.WithHint(fault.New(fault.Data, "%s cannot be restored: %s", n.Name, n.Broken),
			"nothing older is removed for its sake; name another, or remove it with delete target %s", n.Name)
	}
	return nil
}

// retained is the oldest of the newest Count backups, or the older one that
// After asks for.
func (m *maker) retained() (*lineage.Node, error) {
	counted := m.counted()
	place := 0
	var oldest *lineage.Node
	for _, n := range counted {
		if m.policy.Modifier == policy.Full && !n.Full {
			continue
		}
		if place++; place >= m.policy.Count && (n.Full || m.policy.Modifier != policy.FindFull) {
			oldest = n
			break
		}
	}
	if oldest == nil {
		m.note("fewer than %d backups count, or none to start from: nothing is removed", m.policy.Count)
		return nil, nil
	}
	if m.policy.After == nil {
		return oldest, nil
	}
	after, err := m.point(*m.policy.After)
	if err != nil || after == nil {
		return oldest, err
	}
	if m.policy.Modifier != "" && !after.Full {
		full := m.fullBefore(after)
		if full == nil {
			m.note("no full backup is as old as %s: nothing is removed", after.Name)
			return nil, nil
		}
		m.note("%s is a delta backup: from %s on all is kept for it, where WAL-G would look for a newer full one", after.Name, full.Name)
		after = full
	}
	if slices.Index(m.Nodes, after) < slices.Index(m.Nodes, oldest) {
		return after, nil
	}
	return oldest, nil
}

// fullBefore is n, or the newest full backup before it that can be restored.
func (m *maker) fullBefore(n *lineage.Node) *lineage.Node {
	own := m.own()
	for _, full := range slices.Backward(own[:slices.Index(own, n)+1]) {
		if full.Full && (full.Broken == "" || full == n) {
			return full
		}
	}
	return nil
}

// point returns the backup of that name, or the oldest one that was finished
// then or later; nil where all are older.
func (m *maker) point(p policy.Point) (*lineage.Node, error) {
	if p.Name != "" {
		n, several := m.Find(p.Name, true)
		switch {
		case n != nil && m.foreign(n):
			return nil, fault.New(fault.Usage, "%s is of another cluster, with the system identifier %d", n.Name, n.System)
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
		if n.Broken == "" && n.Aged && !n.Finish.Before(p.Time) {
			return n, nil
		}
	}
	return nil, nil
}

// except returns all finished backups but those.
func (m *maker) except(gone map[*lineage.Node]bool) []*lineage.Node {
	return slices.DeleteFunc(slices.Clone(m.Nodes), func(n *lineage.Node) bool { return gone[n] })
}

// targeted returns what goes with the backup that the user names. Where only its
// parts are left, of a removal that was cut short, that is no finished backup.
func (m *maker) targeted() (map[*lineage.Node]bool, error) {
	name := m.policy.From.Name
	if m.policy.UserData != nil {
		var err error
		if name, err = m.withUserData(); err != nil {
			return nil, err
		}
	}
	n, _ := m.Find(name, false)
	for _, b := range m.unfinished {
		if n == nil && b.Name == name && m.young(b) && m.policy.Pinned == nil {
			return nil, fault.WithHint(fault.New(fault.Usage, "%s has no sentinel, and may be in the making", name), "--grace says for how long that may be so")
		}
	}
	if name == catalog.Latest && n != nil {
		m.note("LATEST is %s; called again it is another", n.Name)
	}
	if n == nil && !slices.ContainsFunc(m.unfinished, func(b *lineage.Backup) bool { return b.Name == name }) {
		return nil, fault.New(fault.Absent, "no backup %s", name)
	}
	m.plan.tail = []string{name}
	if n != nil {
		m.plan.tail[0] = n.Name
	}
	if m.policy.Modifier == policy.FindFull {
		if n == nil {
			var err error
			if name, n, err = m.rootByName(name); err != nil {
				return nil, err
			}
		}
		for seen := map[*lineage.Node]bool{}; n != nil && len(n.Parents) > 0 && !seen[n]; {
			seen[n] = true
			n = n.Parents[0]
			m.plan.tail = append(m.plan.tail, n.Name)
		}
		slices.Reverse(m.plan.tail)
	}
	if n == nil {
		m.policy.From.Name = name // all that is left is judged by its name
		return map[*lineage.Node]bool{}, nil
	}
	m.policy.From.Name = n.Name
	return m.Dependents(n), nil
}

// rootByName is Root for what is left of a delta backup: its name tells the
// segment of what it is based on. That must be the name of one backup only, and
// not of one that may be in the making.
func (m *maker) rootByName(name string) (string, *lineage.Node, error) {
	for seen := map[string]bool{}; !seen[name]; {
		seen[name] = true
		_, parent, _ := catalog.ParseName(name)
		if parent == "" {
			break
		}
		var names []string
		for _, n := range m.Nodes {
			if catalog.SegmentOf(n.Name) == parent {
				names = append(names, n.Name)
			}
		}
		for _, b := range m.unfinished {
			switch {
			case b.Name == name && m.young(b):
				return "", nil, fault.New(fault.Usage, "%s has no sentinel, and may be in the making", name)
			case b.Name != name && catalog.SegmentOf(b.Name) == parent:
				names = append(names, b.Name)
			}
		}
		if len(names) > 1 {
			return "", nil, fault.WithHint(fault.New(fault.Usage, "%s has no sentinel, and its name does not tell on which it is based: %s", name, strings.Join(names, ", ")),
				"name the full backup itself")
		}
		if len(names) == 1 {
			m.plan.tail = append(m.plan.tail, names[0])
			if n, _ := m.Find(names[0], false); n != nil {
				return n.Name, n, nil
			}
			name = names[0]
		}
	}
	return name, nil, nil
}

func (m *maker) withUserData() (string, error) {
	var want any
	if err := decode(m.policy.UserData, &want); err != nil {
		return "", fault.New(fault.Usage, "user data %s: %w", m.policy.UserData, err)
	}
	matching := func(b *lineage.Backup) bool {
		r := b.Recorded()
		var got any
		return r != nil && r.UserData != nil && decode(r.UserData, &got) == nil && reflect.DeepEqual(got, want)
	}
	var names []string
	for _, n := range m.Nodes {
		if matching(n.Backup) {
			names = append(names, n.Name)
		}
	}
	if names == nil { // of a removal that was cut short
		for _, b := range m.unfinished {
			if matching(b) {
				names = append(names, b.Name)
			}
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
func (m *maker) mayRemove(gone map[*lineage.Node]bool) error {
	if m.policy.Pinned != nil {
		return nil
	}
	var first, needed *lineage.Node
	for _, n := range m.Nodes {
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
	case first.Keep != "":
		return fault.WithHint(err, "WAL-G would remove it; here walg-retain mark -i %s comes first", first.Name)
	}
	return fault.WithHint(err, "take another full backup first; everything removes all")
}
