package tarball

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
)

// entry is one thing to archive.
type entry struct {
	parent *node // holds a reference while the entry waits; nil for the root
	path   string
	info   info
	link   string // target of a symlink
}

// node is an open directory, closed when nobody needs it any more.
type node struct {
	*dir
	refs atomic.Int32
}

func newNode(d *dir) *node {
	n := &node{dir: d}
	n.refs.Store(1)
	return n
}

func (n *node) retain() *node {
	if n != nil {
		n.refs.Add(1)
	}
	return n
}

func (n *node) release() {
	if n != nil && n.refs.Add(-1) == 0 {
		n.close()
	}
}

// walk calls visit with the entries whose path is at least from and, unless to
// is "", less than to, in the byte order of full paths: a directory a comes at
// "a" and its contents at "a/", so that a-b and a.c come between them. An entry
// is valid during visit only, which must retain its parent to keep it.
type walk struct {
	*hooks
	from, to string
	visit    func(*entry) error
	quiet    bool  // another walk gives the warnings
	walked   int64 // see Totals
	mounts   map[string]Mount
	inside   map[string][]string // directory to the names of the mounts in it
	met      map[string]bool
	buf      []byte
}

var errRange = errors.New("end of range")

func (w *walk) run() error {
	w.buf = make([]byte, 32<<10)
	w.mounts, w.inside, w.met = map[string]Mount{}, map[string][]string{}, map[string]bool{}
	for _, m := range w.Mounts {
		w.mounts[m.Path] = m
		w.inside[parent(m.Path)] = append(w.inside[parent(m.Path)], base(m.Path))
	}
	d, err := openDir(w.Root)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.Root, err)
	}
	root := newNode(d)
	defer root.release()
	i, err := root.stat(".")
	if err != nil {
		return fmt.Errorf("stat %s: %w", w.Root, err)
	}
	if w.from == "" {
		w.walked += i.size
		if err := w.visit(&entry{info: i}); err != nil {
			return err
		}
	}
	if err := w.contents(root, ""); err != nil && err != errRange {
		return err
	}
	if w.from == "" && w.to == "" {
		for p, m := range w.mounts {
			if !w.met[p] {
				return fmt.Errorf("archive %s: its place %s is not in the tree", m.Dir, w.where(p))
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
	err := n.list(w.buf, func(name []byte, isDir bool) {
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
		return fmt.Errorf("read directory %s: %w", w.where(path), err)
	}
	e := &entry{parent: n}
	for k := range l.all {
		s := l.all[k]
		if s.contents {
			s.n--
		}
		e.link = ""
		if e.path = path + "/" + string(l.at(s)); path == "" {
			e.path = e.path[1:]
		}
		switch {
		case !s.contents:
			err = w.entry(l, s, e)
		case s.dir:
			err = w.descend(n, e.path)
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
	var d *dir
	var err error
	if m, ok := w.mounts[path]; ok {
		d, err = openDir(m.Dir)
	} else if d, err = n.openDir(base(path)); err != nil && gone(err) {
		w.vanished(path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", w.where(path), err)
	}
	sub := newNode(d)
	defer sub.release()
	return w.contents(sub, path)
}

func (w *walk) vanished(path string) {
	if !w.quiet {
		w.warn("%s vanished: left out", w.where(path))
	}
}

// entry judges and visits what lies at e.path.
func (w *walk) entry(l *names, s span, e *entry) error {
	wanted := e.path >= w.from
	switch {
	case w.to != "" && e.path >= w.to:
		return errRange
	case !wanted && (!s.dir || w.past(e.path)):
		return nil
	}
	name := base(e.path)
	i, err := e.parent.lstat(name)
	m, isMount := w.mounts[e.path]
	switch {
	case err != nil && gone(err) && isMount: // the caller knows that it belongs here
	case err != nil && gone(err):
		l.drop(name)
		w.vanished(e.path)
		return nil
	case err != nil:
		return fmt.Errorf("stat %s: %w", w.where(e.path), err)
	}
	if wanted {
		w.walked += i.size
	}
	verdict := Keep
	if isMount {
		w.met[e.path] = true
		if !m.Link {
			return nil
		}
		i.mode, e.link = fs.ModeSymlink|0o777, m.Dir
	} else if verdict = w.filter(e.path, i); verdict != Keep || s.dir && !i.IsDir() {
		l.drop(name)
	}
	if !wanted || verdict == Skip || verdict == Defer {
		return nil
	}
	if i.mode&fs.ModeSymlink != 0 && !isMount {
		if verdict == Hollow {
			i, err = e.parent.stat(name)
		} else {
			e.link, err = e.parent.readlink(name)
		}
		switch {
		case err != nil && gone(err):
			w.vanished(e.path)
			return nil
		case err != nil:
			return fmt.Errorf("read link %s: %w", w.where(e.path), err)
		case verdict == Hollow && !i.IsDir():
			return fmt.Errorf("archive %s: a link to something that is not a directory", w.where(e.path))
		}
	}
	if !i.mode.IsRegular() && !i.IsDir() && i.mode&fs.ModeSymlink == 0 {
		if !w.quiet {
			w.warn("%s is a %s: left out", w.where(e.path), kind(i.mode))
		}
		return nil
	}
	e.info = i
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
