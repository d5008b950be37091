package retain_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/retain/policy"
	"walg/lib/wal"
)

// The oracle decides from the rules in words, slowly and without regard for how
// the planner does it. Only names and kinds of objects come from package catalog.

// fact is what the rules say of one backup before any policy.
type fact struct {
	*lineage.Backup
	start, finish       time.Time
	startLSN, finishLSN catalog.Number
	system              catalog.Number
	user                json.RawMessage
	permanent, maybe    bool // certainly; its metadata is damaged
	digits              string
	placed              bool
	pos                 wal.Segment
	form                bool   // the name has WAL-G's or WAL-E's form
	parent              string // the digits after _D_
	full, broken, own   bool
	aged                bool      // something tells how old it is
	future              bool      // a clock was wrong
	said                time.Time // the start, also where it is to come
	bases               []string  // what it is, or may be, based on
}

type names map[string]bool

type oracle struct {
	p        policy.Policy
	by       map[string]*fact // all, by name
	fin, unf []*fact          // fin in order, oldest first
	target   *fact
	mixed    bool // that order has no meaning
	status   int
	nothing  bool  // no target, and so nothing is to go
	aimed    names // what is to go as the user means it, whether it can or not
	goes     names
	horizon  *wal.Segment // nil: everything is before it
	spans    [][2]wal.Segment
	noWAL    bool
}

func learn(b *lineage.Backup) *fact {
	f := &fact{Backup: b, digits: catalog.SegmentOf(b.Name)}
	var err error
	f.pos, err = wal.ParseSegment(f.digits)
	f.placed = err == nil
	_, f.parent, f.form = catalog.ParseName(b.Name)
	damaged := b.MetadataErr != nil && !errors.Is(b.MetadataErr, fs.ErrNotExist)
	m := b.Metadata
	if m == nil && b.Sentinel != nil {
		s := b.Sentinel.Metadata()
		m = &s
	}
	if m != nil {
		f.start, f.finish, f.startLSN, f.finishLSN = m.StartTime, m.FinishTime, m.StartLSN, m.FinishLSN
		f.system, f.user, f.permanent = m.SystemIdentifier, m.UserData, m.IsPermanent && !damaged
	}
	if f.start.IsZero() && b.Sentinel != nil {
		f.start = b.Sentinel.StartTime
	}
	// Who writes such a sentinel writes metadata too, and marks that only.
	lost := b.Metadata == nil && b.Sentinel != nil && b.Sentinel.Version >= 2
	f.maybe = damaged || lost
	if lost {
		f.maybe = !f.permanent
	}
	return f
}

func consult(backups []*lineage.Backup, p policy.Policy) *oracle {
	o := &oracle{p: p, by: map[string]*fact{}, goes: names{}}
	for _, b := range backups {
		f := learn(b)
		o.by[b.Name] = f
		if b.Finished {
			o.fin = append(o.fin, f)
		} else {
			o.unf = append(o.unf, f)
		}
	}
	o.base()
	o.order()
	o.decide()
	if o.status != 0 {
		o.goes = nil
		return o
	}
	o.place()
	o.leftovers()
	return o
}

func (o *oracle) base() {
	systems := map[catalog.Number]bool{}
	for _, f := range o.fin {
		if f.system != 0 {
			systems[f.system] = true
		}
	}
	for _, f := range o.fin {
		if len(systems) == 1 {
			for id := range systems {
				f.system = id
			}
		}
		f.own = o.p.System == 0 || f.system == o.p.System
		switch s := f.Sentinel; {
		case s != nil:
			f.full = s.DeltaFrom == ""
			if parent := o.by[s.DeltaFrom]; !f.full && parent != nil && parent.Finished {
				f.bases = []string{s.DeltaFrom}
			}
		case f.form && f.parent == "":
			f.full = true
		default:
			for _, g := range o.fin {
				if g != f && (!f.form || g.digits == f.parent) {
					f.bases = append(f.bases, g.Name)
				}
			}
		}
	}
	for _, f := range o.fin {
		f.broken = !o.sound(f)
	}
	switch {
	case len(systems) > 1 && o.p.System == 0 && slices.Contains([]policy.Mode{policy.Retain, policy.Before, policy.Garbage}, o.p.Mode):
		o.status = fault.Usage
	case o.p.System != 0 && !systems[o.p.System] && !slices.ContainsFunc(o.unf, o.ofSystem):
		o.status = fault.Absent
	}
}

// sound follows the chain; one that is longer than there are backups is a circle.
func (o *oracle) sound(f *fact) bool {
	for range o.fin {
		if f.Sentinel == nil {
			return false
		}
		if f.full {
			return true
		}
		if f = o.by[f.Sentinel.DeltaFrom]; f == nil || !f.Finished {
			return false
		}
	}
	return false
}

// order is by time. A backup without one is put in afterwards, in the order of
// the names, behind all of its cluster that its name sorts after; one whose name or
// sentinel says nothing is the newest.
func (o *oracle) order() {
	byName := func(a, b *fact) bool { return a.digits+a.Name < b.digits+b.Name }
	var row, late, last []*fact
	for _, f := range o.fin {
		if f.said = f.start; f.start.After(o.p.Now.Add(time.Hour)) {
			f.start, f.future = time.Time{}, true
		}
		switch {
		case !f.start.IsZero():
			row = append(row, f)
		case f.placed && f.Sentinel != nil && !f.future:
			late = append(late, f)
		default:
			last = append(last, f)
		}
	}
	// A delta is newer than what it is based on, whatever its clock said.
	since := map[*fact]time.Time{}
	depth := map[*fact]int{}
	for range o.fin {
		for _, f := range o.fin {
			if since[f].IsZero() {
				since[f] = f.start
			}
			if len(f.bases) == 1 && !f.broken {
				base := o.by[f.bases[0]]
				depth[f] = depth[base] + 1
				if !f.start.IsZero() && since[base].After(since[f]) {
					since[f] = since[base]
				}
			}
		}
	}
	sort.Slice(row, func(i, j int) bool {
		a, b := row[i], row[j]
		if !since[a].Equal(since[b]) {
			return since[a].Before(since[b])
		}
		if depth[a] != depth[b] {
			return depth[a] < depth[b]
		}
		return a.Name < b.Name
	})
	sort.Slice(late, func(i, j int) bool { return byName(late[i], late[j]) })
	sort.Slice(last, func(i, j int) bool { return byName(last[i], last[j]) })
	for i, f := range row {
		o.mixed = o.mixed || f.own && !f.placed
		for _, g := range row[:i] {
			// Then names do not tell the place of those without a time.
			o.mixed = o.mixed || f.own && g.own && !byName(g, f)
		}
	}
	o.mixed = o.mixed && slices.ContainsFunc(late, func(f *fact) bool { return f.own })
	defer func() {
		for i, f := range o.fin {
			for _, g := range o.fin[:i] {
				// Nothing is put before it was made.
				o.mixed = o.mixed || f.own && g.own && f.aged && f.start.IsZero() && g.start.After(f.ModTime.Add(time.Hour))
			}
		}
	}()
	for _, f := range late {
		at := len(row)
		for at > 0 && !(row[at-1].placed && row[at-1].system == f.system && byName(row[at-1], f)) {
			at--
		}
		row = slices.Insert(row, at, f)
	}
	for _, f := range row {
		f.aged = true
	}
	o.fin = append(row, last...)
}

func (o *oracle) older(a, b *fact) bool { return slices.Index(o.fin, a) < slices.Index(o.fin, b) }

// newest returns the newest one before the index that is wanted.
func (o *oracle) newest(before int, want func(*fact) bool) *fact {
	for i := before - 1; i >= 0; i-- {
		if want(o.fin[i]) {
			return o.fin[i]
		}
	}
	return nil
}

func soundFull(f *fact) bool { return f.own && f.full && !f.broken }

// latest is the newest of all, as everywhere in walg: foreign ones too.
func (o *oracle) latest() *fact {
	when := func(f *fact) time.Time {
		switch {
		case !f.said.IsZero():
			return f.said
		case f.Sentinel != nil && !f.Sentinel.StartTime.IsZero():
			return f.Sentinel.StartTime
		}
		return f.ModTime
	}
	var last *fact
	for _, f := range o.fin {
		if last == nil || when(f).After(when(last)) || when(f).Equal(when(last)) && f.Name > last.Name {
			last = f
		}
	}
	return last
}

// point is the backup that p means, nil with a status or where a time means none.
func (o *oracle) point(p policy.Point) (*fact, int) {
	if p.Name == "" {
		if p.Time.After(o.p.Now) {
			return nil, fault.Usage
		}
		for _, f := range o.fin {
			finish := f.finish
			if finish.IsZero() {
				finish = f.ModTime
			}
			if f.own && f.aged && !f.broken && !finish.Before(p.Time) {
				return f, 0
			}
		}
		return nil, 0
	}
	f := o.by[p.Name]
	switch {
	case p.Name == catalog.Latest:
		f = o.latest()
	case f == nil || !f.Finished:
		f = nil
		for _, g := range o.fin {
			if strings.HasPrefix(g.Name, p.Name) {
				if f != nil {
					return nil, fault.Usage
				}
				f = g
			}
		}
	}
	switch {
	case f == nil:
		return nil, fault.Absent
	case !f.own:
		return nil, fault.Usage
	}
	return f, 0
}

func (o *oracle) fullBefore(f *fact) *fact { return o.newest(slices.Index(o.fin, f), soundFull) }

func (o *oracle) decide() {
	if o.mixed && o.p.Mode != policy.Everything && o.p.Mode != policy.Target && o.status == 0 {
		o.status = fault.Usage
	}
	if o.status != 0 {
		return
	}
	switch o.p.Mode {
	case policy.Everything:
		for _, f := range o.fin {
			if f.own && (f.permanent || f.maybe) && o.p.Modifier != policy.Force {
				o.status = fault.Usage
			}
		}
		for _, f := range o.unf {
			another := f.Metadata != nil && f.system != 0 && o.p.System != 0 && f.system != o.p.System
			if f.form && o.young(f) && !another && o.p.Modifier != policy.Force {
				o.status = fault.Usage
			}
		}
		o.remove(o.closure(o.which(func(f *fact) bool { return !f.own || o.pinned(f) })))
		return
	case policy.Target:
		o.aim()
		return
	case policy.Retain:
		o.target = o.retained()
		if o.target != nil && o.p.After != nil {
			after, status := o.point(*o.p.After)
			timeless := after == nil
			if status == 0 && after != nil && o.p.Modifier != "" && !after.full {
				after = o.fullBefore(after)
			}
			switch {
			case status != 0:
				o.status = status
			case timeless:
			case after == nil || o.older(after, o.target):
				o.target = after
			}
		}
	case policy.Before:
		f, status := o.point(o.p.From)
		if status == 0 && f != nil && o.p.Modifier == policy.FindFull && !f.full {
			f = o.fullBefore(f)
		}
		o.target, o.status = f, status
	case policy.Garbage:
		for _, f := range slices.Backward(o.fin) {
			if f.own && f.aged && !f.permanent && !f.maybe {
				o.target = f
			}
		}
	}
	switch {
	case o.status != 0:
	case o.target == nil:
		o.nothing = true
	case !o.target.full || !o.target.aged:
		o.status = fault.Usage
	case o.target.broken:
		o.status = fault.Data
	default:
		must := o.must()
		for _, f := range o.fin {
			if !o.older(f, o.target) {
				must[f.Name] = true
			}
		}
		o.remove(o.closure(must))
	}
}

func (o *oracle) retained() *fact {
	place := 0
	for _, f := range slices.Backward(o.fin) {
		if !f.own || !f.aged || f.broken || o.p.Modifier == policy.Full && !f.full {
			continue
		}
		place++
		if place >= o.p.Count && (o.p.Modifier != policy.FindFull || f.full) {
			return f
		}
	}
	return nil
}

func (o *oracle) pinned(f *fact) bool { return o.p.Pinned[f.Name] != "" }

func (o *oracle) which(want func(*fact) bool) names {
	is := names{}
	for _, f := range o.fin {
		if want(f) {
			is[f.Name] = true
		}
	}
	return is
}

// lastFulls are the newest full backups of the clusters.
func (o *oracle) lastFulls() names {
	is := names{}
	for _, of := range o.fin {
		same := func(f *fact) bool { return f.full && f.system == of.system }
		f := o.newest(len(o.fin), func(f *fact) bool { return same(f) && !f.broken && f.aged })
		if f == nil {
			f = o.newest(len(o.fin), same)
		}
		if f != nil {
			is[f.Name] = true
		}
	}
	return is
}

// guarded are full backups that may be the newest, as their WAL, their start or
// their end has it.
func (o *oracle) guarded() names {
	is := names{}
	for _, by := range []struct {
		counts func(f *fact) bool
		later  func(f, g *fact) bool
	}{
		{func(f *fact) bool { return f.placed }, func(f, g *fact) bool { return f.digits+f.Name > g.digits+g.Name }},
		{func(f *fact) bool { return !f.start.IsZero() }, func(f, g *fact) bool {
			return f.start.After(g.start) || f.start.Equal(g.start) && o.older(g, f)
		}},
		{func(f *fact) bool { return true }, func(f, g *fact) bool {
			return f.ended().After(g.ended()) || f.ended().Equal(g.ended()) && o.older(g, f)
		}},
	} {
		for _, f := range o.fin {
			best := f.full && !f.broken && by.counts(f)
			for _, g := range o.fin {
				if g != f && g.full && !g.broken && g.system == f.system && by.counts(g) {
					best = best && by.later(f, g)
				}
			}
			if best {
				is[f.Name] = true
			}
		}
	}
	return is
}

func (f *fact) ended() time.Time {
	if f.finish.IsZero() {
		return f.ModTime
	}
	return f.finish
}

// must are the backups that stay whatever the policy counts.
func (o *oracle) must() names {
	is := o.lastFulls()
	if o.p.Mode != policy.Target {
		maps.Copy(is, o.guarded())
	}
	maps.Copy(is, o.which(func(f *fact) bool { return !f.own || f.permanent || f.maybe || o.pinned(f) || o.growing(f) }))
	return is
}

// ofSystem tells that an unfinished backup says that it is of the policy's cluster.
func (o *oracle) ofSystem(f *fact) bool { return f.Metadata != nil && f.system == o.p.System }

// growing tells that a backup which may be in the making is based on f.
func (o *oracle) growing(f *fact) bool {
	return slices.ContainsFunc(o.unf, func(g *fact) bool { return g.parent == f.digits && (o.young(g) || o.pinned(g)) })
}

// closure adds all that these are, or may be, based on.
func (o *oracle) closure(is names) names {
	is = maps.Clone(is)
	for size := -1; size != len(is); {
		size = len(is)
		for _, f := range o.fin {
			for _, base := range f.bases {
				if is[f.Name] {
					is[base] = true
				}
			}
		}
	}
	return is
}

func (o *oracle) remove(but names) {
	for _, f := range o.fin {
		if !but[f.Name] {
			o.goes[f.Name] = true
		}
	}
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func (o *oracle) aim() {
	var f *fact
	switch {
	case o.p.UserData != nil:
		for _, all := range [][]*fact{o.fin, o.unf} {
			var found []*fact
			for _, g := range all {
				if sameJSON(g.user, o.p.UserData) {
					found = append(found, g)
				}
			}
			if len(found) > 1 {
				o.status = fault.Usage
				return
			}
			if f == nil && len(found) == 1 {
				f = found[0]
				break
			}
		}
	case o.p.From.Name == catalog.Latest:
		f = o.latest()
	default:
		f = o.by[o.p.From.Name]
	}
	if f == nil {
		o.status = fault.Absent
		return
	}
	if !f.Finished && o.young(f) && o.p.Pinned == nil {
		o.status = fault.Usage
		return
	}
	o.target = f
	o.aimed = names{f.Name: true}
	if o.p.Modifier == policy.FindFull {
		if f = o.first(f); f == nil {
			o.status = fault.Usage
			return
		}
		o.aimed[f.Name] = true
	}
	if !f.Finished {
		return
	}
	goes := names{f.Name: true}
	for size := 0; size != len(goes); {
		size = len(goes)
		for _, g := range o.fin {
			lost := len(g.bases) > 0
			for _, base := range g.bases {
				lost = lost && goes[base]
			}
			if lost {
				goes[g.Name] = true
			}
		}
	}
	maps.Copy(o.aimed, goes)
	must := o.must()
	maps.Copy(must, o.which(func(f *fact) bool { return !goes[f.Name] }))
	for name := range o.closure(must) {
		switch {
		case !goes[name]:
		case len(o.p.Pinned) == 0:
			o.status = fault.Usage
		default: // the user has seen the plan without pins; what can go, goes
			delete(goes, name)
		}
	}
	o.goes = goes
}

// first goes down the chain of f. That of a backup without a sentinel, whose
// deletion may have been interrupted, is in the names, if they leave no choice.
func (o *oracle) first(f *fact) *fact {
	for range o.by {
		bases := f.bases
		if !f.Finished && f.parent != "" {
			if o.young(f) {
				return nil
			}
			for _, g := range o.by {
				if g.digits == f.parent && g != f {
					bases = append(bases, g.Name)
				}
			}
			if len(bases) > 1 {
				return nil
			}
		}
		if len(bases) > 0 {
			f = o.by[bases[0]]
		}
	}
	return f
}

func (o *oracle) young(f *fact) bool {
	age := o.p.Now.Sub(f.ModTime)
	return age < o.p.Grace && (f.Metadata == nil || age < time.Hour)
}

func (o *oracle) stays(f *fact) bool { return f.Finished && !o.goes[f.Name] }

// place finds what of WAL is needed.
func (o *oracle) place() {
	leftover := o.p.Mode == policy.Garbage && o.p.Modifier == policy.Leftover
	o.noWAL = o.p.Mode == policy.Target || leftover || o.nothing
	last := o.lastFulls()
	if o.p.Mode != policy.Target {
		maps.Copy(last, o.guarded())
	}
	start := o.which(func(f *fact) bool {
		onlyPermanent := f.permanent && !last[f.Name] && !o.pinned(f) && f.own && o.target != nil && o.older(f, o.target)
		switch {
		case !o.stays(f) || onlyPermanent:
			return false
		case o.p.Mode == policy.Everything || o.target == nil:
			return true
		}
		return f.permanent || f.maybe || last[f.Name] || o.growing(f) || o.pinned(f) || !f.own || !o.older(f, o.target)
	})
	open := o.closure(start)
	zero := wal.Segment{}
	lower := func(s wal.Segment) {
		if o.horizon == nil || s.Compare(*o.horizon) < 0 {
			o.horizon = &s
		}
	}
	size := o.p.SegmentSize
	for _, f := range o.fin {
		switch {
		case !o.stays(f):
		case !f.placed:
			lower(zero)
		case open[f.Name] || f.finishLSN == 0:
			lower(f.pos)
		default:
			from := f.pos
			to := wal.SegmentAt(f.pos.Timeline, wal.LSN(f.finishLSN-1), size)
			if to.Compare(f.pos) < 0 {
				to = f.pos
			}
			o.spans = append(o.spans, [2]wal.Segment{from, to})
		}
	}
	for _, f := range o.unf {
		all := o.p.Mode == policy.Everything && o.p.System == 0
		if f.placed && (o.pinned(f) || o.young(f) && !all) {
			lower(f.pos)
		}
	}
}

// leftovers decides about backups without a sentinel.
func (o *oracle) leftovers() {
	forever := func(f *fact) bool {
		another := f.Metadata != nil && f.system != 0 && o.p.System != 0 && f.system != o.p.System
		return !f.form || f.permanent || f.maybe || o.young(f) || o.pinned(f) || another
	}
	switch {
	case o.p.Mode == policy.Everything && o.p.System == 0:
		for _, f := range o.unf {
			if f.form && !o.pinned(f) {
				o.goes[f.Name] = true
			}
		}
	case o.p.Mode == policy.Target:
		positions := names{}
		for name := range o.aimed {
			positions[o.by[name].digits] = true
		}
		for _, f := range o.fin {
			if !o.aimed[f.Name] {
				delete(positions, f.digits)
			}
		}
		for range o.unf {
			for _, f := range o.unf {
				if positions[f.parent] {
					o.aimed[f.Name], positions[f.digits] = true, true
				}
			}
		}
		for _, f := range o.unf {
			if o.aimed[f.Name] && !forever(f) {
				o.goes[f.Name] = true
			}
		}
	case o.nothing || o.p.Mode == policy.Garbage && o.p.Modifier == policy.Archives:
	default:
		for _, f := range o.unf {
			older := !f.start.IsZero() && o.target != nil && f.start.Before(o.target.start)
			all := o.p.Mode == policy.Everything && o.ofSystem(f)
			if !forever(f) && (all || older || o.horizon != nil && f.pos.Compare(*o.horizon) < 0) {
				o.goes[f.Name] = true
			}
		}
	}
}

// object is the fate of any object.
func (o *oracle) object(key string) bool {
	c := catalog.Classify(key, o.p.Exts...)
	switch c.Class {
	case catalog.Foreign, catalog.ClassHistory:
		return false
	case catalog.ClassWAL:
		if o.noWAL || o.horizon != nil && c.Last.Compare(*o.horizon) >= 0 {
			return false
		}
		for _, s := range o.spans {
			first, end := c.First, c.Last
			if first.Timeline > s[0].Timeline { // a standby may go over to another
				first.Timeline, end.Timeline = s[0].Timeline, s[0].Timeline
			}
			if end.Compare(s[0]) >= 0 && first.Compare(s[1]) <= 0 {
				return false
			}
		}
		return true
	}
	return o.goes[c.Backup]
}
