// Package tree walks a directory tree that may change meanwhile, in the byte
// order of full paths: a directory a comes at "a" and its contents at "a/", so
// that a-b and a.c come between them. What vanishes before it is looked at is
// left out with a warning. Memory grows with the depth of the tree and its
// largest directory only, by the bytes of names.
//
// Paths are relative to the root and slash separated, "" for the root itself.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"walg/lib/dirfd"
)

// Verdict says what becomes of a path.
type Verdict int

const (
	Keep   Verdict = iota
	Skip           // leave out, a directory with its contents
	Hollow         // a directory without contents; a symlink becomes an empty directory with its target's mode
	Defer          // as Skip: the caller adds it itself
)

// Mount is a directory that is walked as if it lay at Path.
type Mount struct {
	Path string // relative to the root, slash separated: pg_tblspc/16421
	Dir  string
	Link bool // begin it with a symlink to Dir; else there is no entry for Path itself
}

// Tree is what to walk.
type Tree struct {
	Root   string
	Mounts []Mount
	// Filter judges everything below the root but mount points; nil keeps all.
	Filter func(path string, fi fs.FileInfo) Verdict
	Warn   func(format string, args ...any) // what was left out; may be nil
}

// Where names a path in a message.
func (t *Tree) Where(path string) string {
	if path == "" {
		return strings.TrimSuffix(t.Root, "/")
	}
	return strings.TrimSuffix(t.Root, "/") + "/" + path
}

func (t *Tree) warn(format string, args ...any) {
	if t.Warn != nil {
		t.Warn(format, args...)
	}
}

// Entry is a regular file, a directory or a symbolic link. It is valid during
// the visit only; a copy is until Release if Retain is called during the visit.
type Entry struct {
	Path string
	Info dirfd.Info
	Link string // target of a symlink
	dir  *node  // where it lies; nil for the root
}

func (e *Entry) Retain()  { e.dir.retain() }
func (e *Entry) Release() { e.dir.release() }

// Beside reports whether both lie in the same directory, which is open for both.
func (e *Entry) Beside(o *Entry) bool { return e.dir == o.dir }

// Open opens a regular file, which may be another kind of file meanwhile.
func (e *Entry) Open() (dirfd.File, dirfd.Info, error) { return e.dir.Open(dirfd.Base(e.Path)) }

// node is an open directory, closed when nobody needs it any more.
type node struct {
	*dirfd.Dir
	refs atomic.Int32
}

func newNode(d *dirfd.Dir) *node {
	n := &node{Dir: d}
	n.refs.Store(1)
	return n
}

func (n *node) retain() {
	if n != nil {
		n.refs.Add(1)
	}
}

func (n *node) release() {
	if n != nil && n.refs.Add(-1) == 0 {
		n.Close()
	}
}

// fileInfo is an fs.FileInfo.
type fileInfo struct {
	name string
	dirfd.Info
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.Info.Size }
func (i *fileInfo) Mode() fs.FileMode  { return i.Info.Mode }
func (i *fileInfo) ModTime() time.Time { return i.Info.ModTime }
func (i *fileInfo) Sys() any           { return nil }

// walk is one pass over a tree, or over a range of its paths.
type walk struct {
	*Tree
	from, to string
	visit    func(*Entry) error
	walked   int64 // sum of the sizes met
	mounts   map[string]Mount
	inside   map[string][]string // directory to the names of the mounts in it
	met      map[string]bool
	buf      []byte
}

var errRange = errors.New("end of range")

// Walk calls visit with the entries whose path is at least from and, unless to
// is "", less than to, until it returns an error. Walked is the sum of the stat
// sizes of all that it met there, directories and what was left out too.
func (t *Tree) Walk(from, to string, visit func(*Entry) error) (walked int64, err error) {
	w := &walk{
		Tree: t, from: from, to: to, visit: visit, buf: make([]byte, 32<<10),
		mounts: map[string]Mount{}, inside: map[string][]string{}, met: map[string]bool{},
	}
	err = w.run()
	return w.walked, err
}

func (w *walk) run() error {
	for _, m := range w.Mounts {
		w.mounts[m.Path] = m
		w.inside[dirfd.Parent(m.Path)] = append(w.inside[dirfd.Parent(m.Path)], dirfd.Base(m.Path))
	}
	d, err := dirfd.OpenDir(w.Root)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.Root, err)
	}
	root := newNode(d)
	defer root.release()
	i, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("stat %s: %w", w.Root, err)
	}
	if w.from == "" {
		w.walked += i.Size
		if err := w.visit(&Entry{Info: i}); err != nil {
			return err
		}
	}
	if err := w.contents(root, ""); err != nil && err != errRange {
		return err
	}
	if w.from == "" && w.to == "" {
		for p, m := range w.mounts {
			if !w.met[p] {
				return fmt.Errorf("archive %s: its place %s is not in the tree", m.Dir, w.Where(p))
			}
		}
	}
	return nil
}

// names are those of one directory, in 8 bytes each and their text, because a
// directory may have very many.
type names struct {
	text []byte
	all  []span
}

// span is a name; for the place where a directory's contents come, with "/".
type span struct {
	off      uint32
	n        uint16
	dir      bool // a directory or mount
	contents bool
}

func (l *names) at(s span) []byte { return l.text[s.off : s.off+uint32(s.n)] }

func (l *names) add(name []byte, isDir bool) {
	s := span{off: uint32(len(l.text)), n: uint16(len(name)), dir: isDir}
	l.text = append(l.text, name...)
	l.all = append(l.all, s)
	if isDir {
		l.text = append(l.text, '/')
		s.n, s.contents = s.n+1, true
		l.all = append(l.all, s)
	}
}

// drop forgets the contents of directory name.
func (l *names) drop(name string) {
	key := append([]byte(name), '/')
	i, ok := slices.BinarySearchFunc(l.all, key, func(s span, k []byte) int { return bytes.Compare(l.at(s), k) })
	if ok {
		l.all[i].dir = false
	}
}

func (w *walk) list(n *node, path string) (*names, error) {
	l := &names{}
	mounts := w.inside[path]
	err := n.List(w.buf, func(name []byte, isDir bool) {
		if !slices.Contains(mounts, string(name)) {
			l.add(name, isDir)
		}
	})
	for _, m := range mounts {
		l.add([]byte(m), true)
	}
	slices.SortFunc(l.all, func(a, b span) int { return bytes.Compare(l.at(a), l.at(b)) })
	return l, err
}

func (w *walk) contents(n *node, path string) error {
	l, err := w.list(n, path)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", w.Where(path), err)
	}
	e := &Entry{dir: n}
	for k := range l.all {
		s := l.all[k]
		if s.contents {
			s.n--
		}
		e.Link = ""
		if e.Path = path + "/" + string(l.at(s)); path == "" {
			e.Path = e.Path[1:]
		}
		switch {
		case !s.contents:
			err = w.entry(l, s, e)
		case s.dir:
			err = w.descend(n, e.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// past reports whether all of a directory's contents lie before the range.
func (w *walk) past(path string) bool { return path+"0" <= w.from } // '0' is '/' + 1

func (w *walk) descend(n *node, path string) error {
	if w.past(path) {
		return nil
	}
	if w.to != "" && path+"/" >= w.to {
		return errRange
	}
	var d *dirfd.Dir
	var err error
	if m, ok := w.mounts[path]; ok {
		d, err = dirfd.OpenDir(m.Dir)
	} else if d, err = n.OpenDir(dirfd.Base(path)); err != nil && dirfd.Gone(err) {
		w.vanished(path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", w.Where(path), err)
	}
	sub := newNode(d)
	defer sub.release()
	return w.contents(sub, path)
}

func (w *walk) judge(path string, i dirfd.Info) Verdict {
	if w.Filter == nil {
		return Keep
	}
	return w.Filter(path, &fileInfo{dirfd.Base(path), i})
}

func (w *walk) vanished(path string) {
	w.warn("%s vanished: left out", w.Where(path))
}

// entry judges and visits what lies at e.Path.
func (w *walk) entry(l *names, s span, e *Entry) error {
	wanted := e.Path >= w.from
	switch {
	case w.to != "" && e.Path >= w.to:
		return errRange
	case !wanted && (!s.dir || w.past(e.Path)):
		return nil
	}
	name := dirfd.Base(e.Path)
	i, err := e.dir.Lstat(name)
	m, isMount := w.mounts[e.Path]
	switch {
	case err != nil && dirfd.Gone(err) && isMount: // the caller knows that it belongs here
	case err != nil && dirfd.Gone(err):
		l.drop(name)
		w.vanished(e.Path)
		return nil
	case err != nil:
		return fmt.Errorf("stat %s: %w", w.Where(e.Path), err)
	}
	if wanted {
		w.walked += i.Size
	}
	verdict := Keep
	if isMount {
		w.met[e.Path] = true
		if !m.Link {
			return nil
		}
		i.Mode, e.Link = fs.ModeSymlink|0o777, m.Dir
	} else if verdict = w.judge(e.Path, i); verdict != Keep || s.dir && !i.IsDir() {
		l.drop(name)
	}
	if !wanted || verdict == Skip || verdict == Defer {
		return nil
	}
	if i.IsSymlink() && !isMount {
		if verdict == Hollow {
			i, err = e.dir.Stat(name)
		} else {
			e.Link, err = e.dir.Readlink(name)
		}
		switch {
		case err != nil && dirfd.Gone(err):
			w.vanished(e.Path)
			return nil
		case err != nil:
			return fmt.Errorf("read link %s: %w", w.Where(e.Path), err)
		case verdict == Hollow && !i.IsDir():
			return fmt.Errorf("archive %s: a link to something that is not a directory", w.Where(e.Path))
		}
	}
	if !i.IsRegular() && !i.IsDir() && !i.IsSymlink() {
		w.warn("%s is a %s: left out", w.Where(e.Path), kind(i.Mode))
		return nil
	}
	e.Info = i
	return w.visit(e)
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	}
	return "device"
}
