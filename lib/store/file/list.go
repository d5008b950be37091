package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
)

// readNames is how many directory entries are read at a time.
const readNames = 1024

// List returns the files below the root in byte order of their keys. It holds
// the names of one directory per level.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for e, err := range s.entries(ctx, prefix) {
			switch {
			case err != nil:
				yield(store.Info{}, err)
				return
			case store.ValidKey(e.name) != nil:
				// Temporary, or not ours.
			case !yield(store.Info{Key: e.name, Size: e.fi.Size(), ModTime: e.fi.ModTime()}, nil):
				return
			}
		}
	}
}

// Leftovers returns the temporary files of killed and of running Puts, in
// byte order of their names.
func (s *Store) Leftovers(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		for e, err := range s.entries(ctx, prefix) {
			if err != nil {
				yield(store.Leftover{}, err)
				return
			}
			key, started, ok := leftoverOf(e.name)
			if !ok {
				continue
			}
			l := store.Leftover{Name: e.name, Key: key, Size: e.fi.Size(), Started: started, ModTime: e.fi.ModTime()}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// leftoverOf returns the key of the object that a temporary file was to become,
// and when that began. ok is false for all other names.
func leftoverOf(name string) (key string, started time.Time, ok bool) {
	slash := strings.LastIndex(name, "/") + 1
	base, started, ok := store.ParseTemp(name[slash:])
	key = name[:slash] + base
	return key, started, ok && store.ValidKey(key) == nil
}

// Discard removes the temporary file of a killed Put, and the directories below
// the root that became empty.
func (s *Store) Discard(ctx context.Context, l store.Leftover) error {
	key, _, ok := leftoverOf(l.Name)
	if !ok || key != l.Key {
		return fault.New(fault.Usage, "discard %q: not the name of a temporary file of %q", l.Name, l.Key)
	}
	if err := context.Cause(ctx); err != nil {
		return s.fail("discard", l.Name, err)
	}
	local, err := filepath.Localize(l.Name)
	if err != nil {
		return fault.New(fault.Usage, "discard %q: not a file name on this system", l.Name)
	}
	path := filepath.Join(s.root, local)
	removed, err := remove(path)
	if err != nil {
		if err = s.absent(err); !errors.Is(err, fs.ErrNotExist) {
			return s.fail("discard", l.Name, err)
		}
	}
	if !removed {
		return nil
	}
	if err := syncDir(s.prune(filepath.Dir(path))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fail("discard", l.Name, err)
	}
	return nil
}

// An entry is a regular file, by its slash-separated path below the root.
type entry struct {
	name string
	fi   fs.FileInfo
}

func (s *Store) entries(ctx context.Context, prefix string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		if err := store.ValidPrefix(prefix); err != nil {
			yield(entry{}, err)
			return
		}
		w := walk{ctx: ctx, s: s, prefix: prefix, yield: yield}
		w.dir(prefix[:strings.LastIndex(prefix, "/")+1])
	}
}

type walk struct {
	ctx    context.Context
	s      *Store
	prefix string
	yield  func(entry, error) bool
}

// dir walks the directory at (empty, or ending with a slash), and returns false
// when the walk is over.
func (w *walk) dir(at string) bool {
	path := filepath.Join(w.s.root, filepath.FromSlash(at))
	in, err := w.names(path, at)
	if err != nil {
		// A directory that is not there holds nothing; Delete may just have
		// removed it. But the root is always there.
		if err = w.s.absent(err); errors.Is(err, fs.ErrNotExist) {
			return true
		}
		return w.fail(at, err)
	}
	for _, where := range in.where {
		name := string(in.at(where))
		if err := context.Cause(w.ctx); err != nil {
			return w.fail(at, err)
		}
		full := at + name
		if strings.HasSuffix(name, "/") {
			if !w.dir(full) {
				return false
			}
			continue
		}
		fi, err := os.Stat(filepath.Join(path, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // deleted meanwhile, or a link that leads nowhere
		case err != nil:
			return w.fail(full, err)
		case !fi.Mode().IsRegular():
			continue
		}
		if !w.yield(entry{full, fi}, nil) {
			return false
		}
	}
	return true
}

func (w *walk) fail(at string, err error) bool {
	w.yield(entry{}, explain("list", w.s.URL(at), err))
	return false
}

// names returns what lies in a directory and has the prefix, or may have it
// below, sorted as the keys are: a directory with its slash.
func (w *walk) names(path, at string) (*names, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := &names{}
	for {
		entries, err := f.ReadDir(readNames)
		for _, e := range entries {
			name := e.Name()
			if full := at + name; !strings.HasPrefix(full, w.prefix) && !strings.HasPrefix(w.prefix, full+"/") {
				continue
			}
			isLink, isDir := e.Type()&fs.ModeSymlink != 0, e.IsDir()
			if isLink {
				var loop error
				if isDir, loop = linkedDir(path, name); loop != nil {
					return nil, loop
				}
			}
			var err error
			switch {
			case isDir:
				err = in.add(name + "/")
			case isLink || e.Type().IsRegular():
				err = in.add(name)
			}
			if err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	in.sort()
	return in, nil
}

// linkedDir reports whether the symbolic link name in dir leads to a directory. One that
// leads back to where it lies would be walked for ever, and is an error.
func linkedDir(dir, name string) (bool, error) {
	target, err := os.Stat(filepath.Join(dir, name))
	if err != nil || !target.IsDir() {
		return false, nil // to nowhere, or to a file: Stat says so again, later
	}
	for up := dir; ; up = filepath.Dir(up) {
		if fi, err := os.Stat(up); err == nil && os.SameFile(fi, target) {
			return false, errors.New("symbolic link " + name + " leads back to " + up)
		}
		if up == filepath.Dir(up) {
			return true, nil
		}
	}
}
