package postgres

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Class is what a backup does with a path of the data directory.
type Class int

// Keep archives it, Skip leaves it out, Hollow archives a directory without
// its contents (a symbolic link as an empty directory), Defer leaves it to the
// caller: pg_control, which is archived last and from an untorn read.
const (
	Keep Class = iota
	Skip
	Hollow
	Defer
)

// Directories whose contents belong to a running server or are fetched from
// the archive. The directories themselves must exist for a server to start.
var hollow = []string{
	"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
}

// Files at the top that say something about this server at this moment and
// would be wrong in a restored one. The two files of recovery would make a
// backup of a standby come up as a standby again; WAL-G leaves them out too.
var skipped = []string{
	"postmaster.pid", "postmaster.opts", "backup_label", "tablespace_map", "backup_manifest",
	"postgresql.auto.conf.tmp", "current_logfiles.tmp", "recovery.conf", "standby.signal",
	".walg-restore",
}

// Rules say what a base backup of one data directory leaves out, by path and
// never by base name alone: a user's table space or file may have any name.
// They may be used by several goroutines at once.
type Rules struct {
	root       string
	versionDir string

	mu       sync.Mutex
	dir      string   // the directory whose init forks are known
	unlogged []uint32 // relfilenodes that have one, ascending
	overflow bool     // there are more
}

// maxUnlogged bounds the memory for one directory's unlogged relations to 4 MB.
const maxUnlogged = 1 << 20

// NewRules returns the rules for a data directory of the given major version
// and catalog version, which name its own folder in each tablespace: other
// versions' folders there belong to other clusters.
func NewRules(root string, major int, catalogVersion uint32) *Rules {
	return &Rules{root: root, versionDir: fmt.Sprintf("PG_%d_%d", major, catalogVersion)}
}

// Classify says what to do with a path, relative to the data directory and
// with slashes; fi is its Lstat.
func (r *Rules) Classify(path string, fi fs.FileInfo) Class {
	dir, name, below := cutLast(path)
	if !below {
		switch {
		case slices.Contains(hollow, name) && (fi.IsDir() || fi.Mode()&fs.ModeSymlink != 0):
			return Hollow
		case slices.Contains(skipped, name) && !fi.IsDir():
			return Skip
		}
		return Keep
	}
	if path == "global/pg_control" {
		return Defer
	}
	version, rest, inTablespace := cutTablespace(path)
	switch {
	case inTablespace && version != "" && version != r.versionDir:
		return Skip
	case strings.HasPrefix(name, "pgsql_tmp") && (dir == "base" || inTablespace && rest == name):
		return Skip
	case !relationDir(dir):
		return Keep
	case strings.HasPrefix(name, "pg_internal.init"):
		return Skip
	}
	rel, ok := parseRelationName(name)
	if !ok || fi.IsDir() {
		return Keep
	}
	if rel.Temp || rel.Fork != InitFork && r.isUnlogged(dir, rel.Node) {
		return Skip
	}
	return Keep
}

// isUnlogged says whether a relation has an init fork. A walk goes through one
// directory after the other, so knowing the last one is enough.
func (r *Rules) isUnlogged(dir string, node uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != dir {
		r.dir = dir
		r.unlogged, r.overflow = initForks(filepath.Join(r.root, filepath.FromSlash(dir)), maxUnlogged)
	}
	if _, found := slices.BinarySearch(r.unlogged, node); found || !r.overflow {
		return found
	}
	_, err := os.Lstat(filepath.Join(r.root, filepath.FromSlash(dir), fmt.Sprintf("%d_init", node)))
	return err == nil
}

// initForks lists the relations of a directory that have an init fork, limit
// of them at most. A directory that cannot be read has none: the walk that
// asks reads it too, and judges the error.
func initForks(dir string, limit int) (nodes []uint32, overflow bool) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			rel, ok := parseRelationName(name)
			switch {
			case !ok || rel.Fork != InitFork || rel.Temp || rel.Segment > 0:
			case len(nodes) == limit:
				overflow = true
			default:
				nodes = append(nodes, rel.Node)
			}
		}
		if err != nil {
			slices.Sort(nodes)
			return nodes, overflow
		}
	}
}
