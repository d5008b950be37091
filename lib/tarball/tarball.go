// Package tarball turns a directory tree into a tar stream, or into several
// parts, and back. It promises that a tree is walked in the byte order of its
// full paths, that memory does not grow with the number or size of files, that
// nothing is ever written outside the target of an extraction, and that an
// archive cut short anywhere is noticed. It knows nothing of what the files
// mean: callers say what to leave out, look at or hold back.
//
// Headers are USTAR, with PAX records only where USTAR cannot hold a value;
// the end is two zero blocks without padding to 10 KiB (POSIX.1-2017, pax).
package tarball

import (
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// Verdict says what becomes of a path.
type Verdict int

const (
	Keep   Verdict = iota
	Skip           // leave out, a directory with its contents
	Hollow         // a directory's header without contents; a symlink becomes an empty directory with its target's mode
	Defer          // as Skip: the caller adds it itself, with File
)

// Mount is a directory that is walked as if it lay at Path.
type Mount struct {
	Path string // relative to the root, slash separated: pg_tblspc/16421
	Dir  string
	Link bool // begin it with a symlink member to Dir; else there is no member for Path itself
}

// Source is a tree to archive. Its functions are called one at a time, except
// Inspect, and must not keep what they are given longer than the call.
type Source struct {
	Root   string
	Prefix string // before each member name. With one, directories have no slash at their end
	// Filter judges everything below the root but mount points; nil keeps all.
	// path is relative and slash separated. Split asks more than once.
	Filter func(path string, fi fs.FileInfo) Verdict
	// Inspect sees each chunk of a regular file in file order before it is
	// written and may change it; off is a multiple of 1 MiB and f reads the file
	// again. An error fails the archive. Called concurrently for different files.
	Inspect func(path string, off int64, p []byte, f io.ReaderAt) error
	Mounts  []Mount
	Live    bool                             // a file that shrinks is padded with zeros and not an error
	Member  func(Member)                     // after each member is wholly written
	Warn    func(format string, args ...any) // what was left out or padded
}

// Member is one archived file, directory or link.
type Member struct {
	Name    string // as in the archive
	Part    int    // from 1
	Size    int64
	ModTime time.Time // nanoseconds
	Dir     bool
	Link    bool // symbolic
}

// Totals counts what was archived or extracted.
type Totals struct {
	Files, Dirs, Links int64
	Bytes              int64 // of file contents
	Walked             int64 // sum of the stat sizes of all that the walk met, directories and what was left out too
	Parts              int
}

func (t *Totals) add(o Totals) {
	t.Files += o.Files
	t.Dirs += o.Dirs
	t.Links += o.Links
	t.Bytes += o.Bytes
	t.Walked += o.Walked
	t.Parts += o.Parts
}

// info is what stat(2) says about one file.
type info struct {
	name     string
	mode     fs.FileMode
	size     int64
	mtime    time.Time
	uid, gid int
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) Mode() fs.FileMode  { return i.mode }
func (i *info) ModTime() time.Time { return i.mtime }
func (i *info) IsDir() bool        { return i.mode.IsDir() }
func (i *info) Sys() any           { return nil }

// hooks calls a Source's functions, one at a time.
type hooks struct {
	Source
	mu sync.Mutex
}

func (h *hooks) warn(format string, args ...any) {
	if h.Warn != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.Warn(format, args...)
	}
}

func (h *hooks) filter(path string, i info) Verdict {
	if h.Filter == nil {
		return Keep
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	i.name = base(path)
	return h.Filter(path, &i)
}

func (h *hooks) members(all []Member) {
	if h.Member != nil && len(all) > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, m := range all {
			h.Member(m)
		}
	}
}

func (h *hooks) inspect(path string, off int64, p []byte, f io.ReaderAt) error {
	if h.Inspect == nil || len(p) == 0 {
		return nil
	}
	return h.Inspect(path, off, p, f)
}

// where names a path in a message.
func (h *hooks) where(path string) string { return join(strings.TrimSuffix(h.Root, "/"), path) }

// Paths inside the package are relative and slash separated, "" for the root.

func join(dir, name string) string {
	switch {
	case name == "":
		return dir
	case dir == "":
		return name
	}
	return dir + "/" + name
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// below reports whether path is dir or lies in it.
func below(path, dir string) bool {
	return dir == "" || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}
