package retain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/lineage"
	"walg/lib/retain/policy"
	"walg/lib/wal"
)

// history is one archive: its backups and the keys of all its objects.
type history struct {
	backups []*lineage.Backup
	keys    []string
	now     time.Time
	size    uint64 // of a segment
}

// maker grows a history.
type maker struct {
	*rand.Rand
	history
	clock    time.Time
	timeline uint32
	last     uint32
	segment  uint64
	system   catalog.Number
	nameless bool // the system identifier was not recorded then
}

func (m *maker) chance(percent int) bool { return m.IntN(100) < percent }

func pick[T any](m *maker, of ...T) T { return of[m.IntN(len(of))] }

func (m *maker) seg(timeline uint32, n uint64) wal.Segment {
	per := (uint64(1) << 32) / m.size
	return wal.Segment{Timeline: timeline, Log: uint32(n / per), Seg: uint32(n % per)}
}

func (m *maker) has(name string) bool {
	return slices.ContainsFunc(m.backups, func(b *lineage.Backup) bool { return b.Name == name })
}

func grow(r *rand.Rand) history {
	m := &maker{Rand: r, timeline: 1, last: 1, system: 7001, clock: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)}
	m.size = pick[uint64](m, 16<<20, 64<<20, 1<<30)
	m.segment = 8 + m.Uint64N(8)
	if m.chance(30) {
		m.segment = 8*(1<<32)/m.size - m.Uint64N(4) // around the end of a log
	}
	m.nameless = m.chance(20)
	steady := m.chance(60)
	times := m.chance(70)
	for range m.IntN(13) {
		m.step(steady)
		m.backup(times)
	}
	if m.chance(10) {
		m.circle()
	}
	m.now = m.clock.Add(time.Duration(m.IntN(100)) * time.Hour)
	for range m.IntN(4) * m.IntN(2) {
		m.unfinished()
	}
	if m.chance(5) {
		for _, b := range m.backups { // a copied archive
			b.ModTime = m.now.Add(-time.Hour)
		}
	}
	m.Shuffle(len(m.backups), func(i, j int) { m.backups[i], m.backups[j] = m.backups[j], m.backups[i] })
	m.objects()
	return m.history
}

// step is what happens between two backups.
func (m *maker) step(steady bool) {
	m.clock = m.clock.Add(time.Duration(1+m.IntN(40)) * time.Hour)
	m.segment += m.Uint64N(5)
	if steady {
		return
	}
	switch m.IntN(12) {
	case 0:
		m.clock = m.clock.Add(-time.Duration(m.IntN(200)) * time.Hour)
	case 1:
		m.clock = m.clock.Add(-time.Hour).Truncate(40 * time.Hour)
	case 2: // a restore to an earlier point
		m.timeline++
		m.segment -= min(m.Uint64N(6), m.segment-2)
	case 3:
		m.timeline++
	case 4: // pg_upgrade
		m.system, m.timeline, m.nameless = m.system+1, 1, false
		m.segment++
	case 5:
		m.nameless = m.chance(30)
	}
	m.last = max(m.last, m.timeline)
}

func (m *maker) backup(times bool) {
	pos := m.seg(m.timeline, m.segment)
	name := catalog.FullName(pos.String())
	s := &catalog.Sentinel{PgVersion: 150000, Version: 2}
	if len(m.backups) > 0 && m.chance(55) {
		parent := m.backups[max(0, len(m.backups)-1-m.IntN(3)*m.IntN(2)*m.IntN(3))].Name
		if m.chance(6) {
			parent = catalog.FullName(m.seg(m.timeline, m.segment+40).String())
		}
		s.DeltaFrom, s.DeltaFullName, s.DeltaCount, s.DeltaLSN = parent, parent, 1, 1
		name = catalog.DeltaName(pos.String(), parent)
	}
	switch m.IntN(25) {
	case 0:
		name += "_00000028"
	case 1:
		name = "pre_" + pos.String()
	case 2:
		name = fmt.Sprintf("base_%s_x", pos)
	case 3:
		if m.chance(40) {
			name = fmt.Sprintf("custom%d", len(m.backups))
		}
	}
	if m.has(name) {
		return
	}
	b := &lineage.Backup{Name: name, Finished: true}
	m.backups = append(m.backups, b)
	m.record(s, pos)
	b.ModTime = m.clock.Add(time.Duration(90+m.IntN(200)) * time.Minute)
	meta := s.Metadata()
	b.Metadata = &meta
	if m.chance(5) {
		b.Metadata.IsPermanent = !s.IsPermanent // marked later
	}
	if !times && m.chance(50) || m.chance(1) {
		s.StartTime, s.FinishTime, s.Version = time.Time{}, time.Time{}, 0
		if m.chance(50) {
			b.Metadata.StartTime, b.Metadata.FinishTime = time.Time{}, time.Time{}
		}
	}
	if m.chance(4) { // metadata of other makers
		switch m.IntN(4) {
		case 0:
			b.Metadata.StartTime = time.Time{}
		case 1:
			b.Metadata.FinishLSN = 0
		case 2:
			b.Metadata.StartLSN = 0
		case 3:
			b.Metadata.SystemIdentifier = 0
		}
	}
	b.Sentinel = s
	switch m.IntN(16) {
	case 0:
		b.Metadata = nil
	case 1:
		b.Metadata, b.MetadataErr = nil, fmt.Errorf("get metadata: %w", fs.ErrNotExist)
	case 2:
		if m.chance(50) {
			b.Metadata, b.MetadataErr = nil, errors.New("broken JSON")
		}
	case 3:
		if m.chance(60) {
			b.Sentinel, b.SentinelErr = nil, errors.New("broken JSON")
		}
	}
}

// record fills in what is known of a backup that starts in the segment pos.
func (m *maker) record(s *catalog.Sentinel, pos wal.Segment) {
	s.StartTime = m.clock
	s.FinishTime = m.clock.Add(time.Duration(m.IntN(90)) * time.Minute)
	s.SystemIdentifier = m.system
	if m.nameless {
		s.SystemIdentifier = 0
	}
	start := uint64(pos.Start(m.size))
	s.LSN = catalog.Number(start + pick(m, 0, 40, m.size/2, m.size))
	s.FinishLSN = s.LSN + catalog.Number(m.size*m.Uint64N(4)+pick[uint64](m, 0, 1, 300, m.size/2))
	s.IsPermanent = m.chance(12)
	if m.chance(15) {
		s.UserData = json.RawMessage(pick(m, `{"a":1,"b":[2]}`, `{"b":[2], "a":1}`, `"x"`, `{"a":1}`))
	}
	if m.chance(8) {
		s.FinishLSN = 0
	}
	if m.chance(8) {
		s.LSN = 0
	}
}

// circle lets deltas be based on each other, or on themselves.
func (m *maker) circle() {
	var deltas []*lineage.Backup
	for _, b := range m.backups {
		if b.Sentinel != nil && b.Sentinel.Delta() {
			deltas = append(deltas, b)
		}
	}
	if len(deltas) > 0 {
		pick(m, deltas...).Sentinel.DeltaFrom = pick(m, deltas...).Name
	}
}

func (m *maker) unfinished() {
	pos := m.seg(1+m.Uint32N(m.last), max(2, m.segment-min(m.segment, 8)+m.Uint64N(12)))
	name := catalog.FullName(pos.String())
	switch m.IntN(8) {
	case 0:
		name = pick(m, "junk", "left_"+pos.String(), "base_old")
	case 1, 2, 3:
		if len(m.backups) > 0 {
			name = catalog.DeltaName(pos.String(), pick(m, m.backups...).Name)
		}
	case 4:
		name += "_00000028"
	}
	if m.has(name) {
		return
	}
	b := &lineage.Backup{Name: name, ModTime: m.now.Add(-time.Duration(m.IntN(400)) * time.Hour)}
	if m.chance(40) {
		b.ModTime = m.now.Add(-time.Duration(m.IntN(30)) * time.Hour)
	}
	if m.chance(40) {
		var s catalog.Sentinel
		was := m.clock
		m.clock = b.ModTime.Add(-time.Hour)
		m.record(&s, pos)
		m.clock = was
		meta := s.Metadata()
		b.Metadata = &meta
	}
	m.backups = append(m.backups, b)
}

func (m *maker) objects() {
	set := names{}
	add := func(key string) { set[key] = true }
	for _, b := range m.backups {
		if b.Finished {
			add(catalog.SentinelKey(b.Name))
		}
		if b.Metadata != nil || b.MetadataErr != nil && !errors.Is(b.MetadataErr, fs.ErrNotExist) {
			add(catalog.MetadataKey(b.Name))
		}
		add(catalog.PartKey(b.Name, "part_001.tar.lz4"))
		if m.chance(30) {
			add(catalog.FilesKey(b.Name))
			add(catalog.PartKey(b.Name, catalog.ControlPart(pick(m, "", ".zst", ".mine"))))
		}
		if m.chance(10) {
			add(catalog.Backups + b.Name + pick(m, "/notes.txt", "/tar_partitions/sub/x.tar", "/tar_partitions/part_001.bin"))
		}
	}
	for range 10 + m.IntN(15) {
		timeline := 1 + m.Uint32N(m.last+1)
		pos := m.seg(timeline, m.segment+3-min(m.segment, m.Uint64N(25)))
		if len(m.backups) > 0 && m.chance(75) {
			if s, err := wal.ParseSegment(catalog.SegmentOf(pick(m, m.backups...).Name)); err == nil {
				n := uint64(s.Log)*(1<<32/m.size) + uint64(s.Seg)
				pos = m.seg(s.Timeline, n+m.Uint64N(8)-min(n, 3))
			}
		}
		name := pos.String()
		add(catalog.WAL + pick(m, name+".lz4", name+".zst", name, name+".mine", name+".partial.lz4", name+".00000028.backup",
			name+"_delta.lz4", name+".json", name[:23]+".json", name+".junk", strings.ToLower(name)+".gz", name[:8]+".history.lz4"))
	}
	add(pick(m, "basebackups_005/LATEST/metadata.json", "walg.lock", "wal_005/readme", "basebackups_005/x.json"))
	m.keys = slices.Sorted(maps.Keys(set))
}

func (h history) finished(name string) bool {
	return name == catalog.Latest || slices.ContainsFunc(h.backups, func(b *lineage.Backup) bool { return b.Finished && b.Name == name })
}

func (h history) twoInOnePlace() bool {
	seen := names{}
	for _, b := range h.backups {
		digits := catalog.SegmentOf(b.Name)
		if seen[digits] {
			return true
		}
		seen[digits] = true
	}
	return false
}

// wish makes a policy, mostly one that means something for the history.
func wish(r *rand.Rand, h history) policy.Policy {
	m := &maker{Rand: r, history: h}
	p := policy.Policy{Now: h.now, Grace: pick(m, 0, 24*time.Hour, 24*time.Hour, 200*time.Hour), SegmentSize: h.size, Count: 1 + m.IntN(4)}
	name := func() string {
		if len(h.backups) == 0 || m.chance(4) {
			return "base_none"
		}
		return pick(m, h.backups...).Name
	}
	point := func() policy.Point {
		switch m.IntN(8) {
		case 0:
			return policy.Point{Name: catalog.Latest}
		case 1:
			n := name()
			return policy.Point{Name: n[:1+m.IntN(len(n))]}
		case 2, 3:
			if len(h.backups) == 0 || m.chance(5) {
				return policy.Point{Time: h.now.Add(time.Duration(m.IntN(2)))}
			}
			b := pick(m, h.backups...)
			t := b.ModTime
			if b.Metadata != nil && m.chance(70) {
				t = b.Metadata.FinishTime
			}
			return policy.Point{Time: t.Add(time.Duration(m.IntN(3)-1) * time.Nanosecond), UTC: m.chance(30)}
		}
		return policy.Point{Name: name()}
	}
	switch m.IntN(12) {
	case 0, 1, 2, 3, 4:
		p.Mode, p.Modifier = policy.Retain, pick(m, "", policy.Full, policy.FindFull)
		if m.chance(35) {
			at := point()
			p.After = &at
		}
	case 5, 6, 7:
		p.Mode, p.Modifier, p.From = policy.Before, pick(m, "", policy.FindFull), point()
	case 8, 9:
		p.Mode, p.Modifier = policy.Target, pick(m, "", policy.FindFull)
		p.From.Name = name()
		switch m.IntN(8) {
		case 0:
			p.From.Name = catalog.Latest
		case 1:
			p.From.Name, p.UserData = "", json.RawMessage(pick(m, `{"a":1,"b":[2]}`, `"x"`, `{"a":1}`))
		}
	case 10:
		p.Mode, p.Modifier = policy.Everything, pick(m, "", policy.Force)
	case 11:
		p.Mode, p.Modifier = policy.Garbage, pick(m, "", policy.Archives, policy.Leftover)
	}
	// Where two may be the base of one, the first of the chain is a guess.
	if p.Mode == policy.Target && p.Modifier == policy.FindFull && (!h.finished(p.From.Name) && h.twoInOnePlace() ||
		slices.ContainsFunc(consult(h.backups, p).fin, func(f *fact) bool { return len(f.bases) > 1 })) {
		p.Modifier = ""
	}
	systems := map[catalog.Number]bool{}
	for _, b := range h.backups {
		if b.Finished && b.Sentinel != nil && b.Sentinel.SystemIdentifier != 0 {
			systems[b.Sentinel.SystemIdentifier] = true
		}
	}
	if ids := slices.Sorted(maps.Keys(systems)); len(ids) > 1 && m.chance(90) || len(ids) == 1 && m.chance(15) {
		p.System = pick(m, ids...)
	} else if m.chance(2) {
		p.System = 999
	}
	if m.chance(10) {
		p.Pinned = map[string]string{name(): "locked"}
	}
	if m.chance(60) {
		p.Exts = []string{".mine"}
	}
	return p
}

// show prints a history and a policy, for whoever has to judge.
func show(h history, p policy.Policy) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s %d from=%v after=%v user=%s system=%d now=%s grace=%s size=%d pinned=%v\n", p.Mode, p.Modifier, p.Count, p.From, p.After,
		p.UserData, p.System, p.Now.Format(time.RFC3339), p.Grace, p.SegmentSize, p.Pinned)
	for _, b := range h.backups {
		f := learn(b)
		fmt.Fprintf(&s, "%s finished=%t mod=%s start=%s finish=%s lsn=%s-%s system=%d permanent=%t/%t user=%s", b.Name, b.Finished,
			b.ModTime.Format(time.RFC3339), f.start.Format(time.RFC3339), f.finish.Format(time.RFC3339), f.startLSN.LSN(), f.finishLSN.LSN(), f.system, f.permanent, f.maybe, f.user)
		if b.Sentinel != nil {
			fmt.Fprintf(&s, " from=%q", b.Sentinel.DeltaFrom)
		}
		fmt.Fprintf(&s, " errs=%v,%v\n", b.SentinelErr, b.MetadataErr)
	}
	return s.String()
}
