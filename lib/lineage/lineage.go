// Package lineage knows which backups an archive has, in which order they were
// made, and what each is based on. It is pure: it is told the keys of the objects
// and what has been read of them, and does no I/O.
package lineage

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
)

// Backup is what is known of one backup.
type Backup struct {
	Name      string
	Finished  bool      // it has a sentinel, and so exists
	Described bool      // it has a metadata.json
	Newest    time.Time // when the last of its objects was put
	ModTime   time.Time // of the sentinel; of the newest object where there is none
	Objects   int       // as far as they were given to Scan
	Size      int64     // of these objects, in bytes

	// What was read, and why it could not be. Both nil: not there, or not
	// asked for.
	Sentinel    *catalog.Sentinel
	Metadata    *catalog.Metadata
	SentinelErr error
	MetadataErr error
}

// Time is when the backup started, as recorded; where nothing is recorded, when
// its sentinel was put.
func (b *Backup) Time() time.Time {
	if start := b.Start(); !start.IsZero() {
		return start
	}
	return b.ModTime
}

// Start is when the backup started, as recorded; zero where nothing is.
func (b *Backup) Start() time.Time {
	switch {
	case b.Metadata != nil && !b.Metadata.StartTime.IsZero():
		return b.Metadata.StartTime
	case b.Sentinel != nil:
		return b.Sentinel.StartTime
	}
	return time.Time{}
}

// End is when the backup was finished, as recorded, or else when its sentinel was
// put.
func (b *Backup) End() time.Time {
	switch {
	case b.Metadata != nil && !b.Metadata.FinishTime.IsZero():
		return b.Metadata.FinishTime
	case b.Sentinel != nil && !b.Sentinel.FinishTime.IsZero():
		return b.Sentinel.FinishTime
	}
	return b.ModTime
}

// Recorded is what the backup says of itself, or nil.
func (b *Backup) Recorded() *catalog.Metadata {
	switch {
	case b.Metadata != nil:
		return b.Metadata
	case b.Sentinel != nil:
		m := b.Sentinel.Metadata()
		return &m
	}
	return nil
}

// Permanent tells whether the backup is marked so: by its metadata, or where that
// is missing by its sentinel.
func (b *Backup) Permanent() bool {
	if b.Metadata != nil {
		return b.Metadata.IsPermanent
	}
	return b.Sentinel != nil && b.Sentinel.IsPermanent && (b.MetadataErr == nil || errors.Is(b.MetadataErr, fs.ErrNotExist))
}

// Scan finds backups in a listing.
type Scan struct{ found map[string]*Backup }

// Add takes one object of the listing. Objects that belong to no backup do not
// matter.
func (s *Scan) Add(key string, size int64, modTime time.Time) {
	name, ok := catalog.BackupOf(key)
	if !ok || !catalog.ValidName(name) {
		return
	}
	if s.found == nil {
		s.found = map[string]*Backup{}
	}
	b := s.found[name]
	if b == nil {
		b = &Backup{Name: name}
		s.found[name] = b
	}
	b.Objects++
	if modTime.After(b.Newest) {
		b.Newest = modTime
	}
	b.Described = b.Described || key == catalog.MetadataKey(name)
	b.Size += size
	switch _, sentinel := catalog.SentinelOf(key); {
	case sentinel:
		b.Finished, b.ModTime = true, modTime
	case !b.Finished && modTime.After(b.ModTime):
		b.ModTime = modTime
	}
}

// Backups returns what was found, finished backups and others, in the order of
// modification times.
func (s *Scan) Backups() []*Backup {
	return slices.SortedFunc(maps.Values(s.found), ByModTime)
}

// ByModTime orders backups by the age of their sentinels, as WAL-G does.
func ByModTime(a, b *Backup) int {
	return cmp.Or(a.ModTime.Compare(b.ModTime), cmp.Compare(a.Name, b.Name))
}

// ByTime orders backups by when they started.
func ByTime(a, b *Backup) int {
	return cmp.Or(a.Time().Compare(b.Time()), cmp.Compare(a.Name, b.Name))
}

// Newest returns what LATEST means among these backups, whose Metadata is
// read: the finished one with the newest recorded start time. That differs
// from WAL-G, which takes the newest sentinel, so that copying an archive does
// not change it. No finished backup is an error of status 66.
func Newest(backups []*Backup) (*Backup, error) {
	var newest *Backup
	for _, b := range backups {
		if b.Finished && (newest == nil || ByTime(b, newest) > 0) {
			newest = b
		}
	}
	if newest == nil {
		return nil, fault.New(fault.Absent, "no backup is there")
	}
	return newest, nil
}

// maxChain is how many backups a chain may have. WAL-G counts the deltas that
// users allow, seldom more than ten.
const maxChain = 10_000

// Chain returns the names of the backups that a restore of name needs, the full
// one first and name last. sentinel returns the sentinel of a backup, or an
// error that wraps fs.ErrNotExist. A parent that is missing is an error of status
// 66 that names both; a chain that comes back to where it was, one of status
// 65.
func Chain(name string, sentinel func(backup string) (*catalog.Sentinel, error)) ([]string, error) {
	chain := []string{name}
	seen := map[string]bool{name: true}
	for at := name; ; {
		s, err := sentinel(at)
		switch {
		case err != nil && at == name && fault.Status(err) == fault.Absent:
			return nil, fault.New(fault.Absent, "no backup %s: %w", name, err)
		case err != nil && fault.Status(err) == fault.Absent:
			return nil, fault.New(fault.Absent, "backup %s is based on %s, which is not there: %w", chain[len(chain)-2], at, err)
		case err != nil:
			return nil, err
		case !s.Delta():
			slices.Reverse(chain)
			return chain, nil
		case seen[s.DeltaFrom]:
			return nil, fault.New(fault.Data, "backup %s is based on %s, which is based on it", at, s.DeltaFrom)
		case len(chain) == maxChain:
			return nil, fault.New(fault.Data, "backup %s is based on more than %d others", name, maxChain)
		}
		at = s.DeltaFrom
		seen[at] = true
		chain = append(chain, at)
	}
}
