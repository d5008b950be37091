// Package fence keeps what is written to a directory tree inside it. The tree
// is a root and the mounts in it, directories elsewhere to which a symbolic
// link in the tree leads; all are held open. No other symbolic link below them
// is ever followed, and no name leads out of them.
//
// What is refused in an archive's member has status 65, a target that holds
// something 73, wrong mounts 64. The system's errors have status 1, also where
// they are, say, fs.ErrNotExist, which would read as "no such object".
package fence

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"walg/lib/dirfd"
	"walg/lib/fault"
)

// Fence is an open tree. Its paths are slash separated and as Clean returns
// them, relative to the root, "" for the root itself.
type Fence struct {
	name    string // of the root
	root    *dirfd.Dir
	mounts  []mount
	cur     *dirfd.Dir // the directory that was entered last, to open the next one there
	curPath string
}

type mount struct {
	path string
	dir  *dirfd.Dir
}

// Open opens the directory root, making it with mode 0700 where it is absent.
// Write errors of a file system are reported to descriptors that were open when
// they came up, so it and the mounts stay open until Close.
func Open(root string) (*Fence, error) {
	d, err := openTop(root)
	if err != nil {
		return nil, err
	}
	return &Fence{name: root, root: d}, nil
}

// openTop opens a directory that the operator named, making it where it is absent.
func openTop(path string) (*dirfd.Dir, error) {
	err := os.MkdirAll(path, 0o700)
	if err == nil {
		var d *dirfd.Dir
		if d, err = dirfd.OpenDir(path); err == nil {
			return d, nil
		}
	}
	return nil, fault.New(fault.Failed, "extract to %s: %w", path, err)
}

// CheckMounts refuses mounts that do not name places in the tree and different
// absolute directories.
func CheckMounts(mounts map[string]string) error {
	used := map[string]string{}
	for path, dir := range mounts {
		if p, err := Clean(path); err != nil || p != path || p == "" {
			return fault.New(fault.Usage, "mount %q: not a relative path", path)
		}
		if !filepath.IsAbs(dir) {
			return fault.New(fault.Usage, "mount %s: %q is not an absolute path", path, dir)
		}
		if other, ok := used[filepath.Clean(dir)]; ok {
			return fault.New(fault.Usage, "mount %s: %s is taken by %s", path, dir, other)
		}
		used[filepath.Clean(dir)] = path
	}
	return nil
}

// CheckEmpty refuses directories that hold anything. They may be absent.
func CheckEmpty(paths ...string) error {
	for _, path := range paths {
		if err := checkEmpty(path); err != nil {
			return err
		}
	}
	return nil
}

func checkEmpty(path string) error {
	d, err := dirfd.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	found := ""
	if err == nil {
		err = d.List(make([]byte, 4096), func(name []byte, _ bool) {
			if string(name) != dirfd.TempName { // of a restore that ended before it had begun
				found = string(name)
			}
		})
		d.Close()
	}
	if err != nil {
		return fault.New(fault.Failed, "extract to %s: %w", path, err)
	}
	if found != "" {
		err := fault.New(fault.Exists, "extract to %s: the directory is not empty, it holds %q", path, found)
		return fault.WithHint(err, "choose an empty or absent directory, or remove what is in this one")
	}
	return nil
}

func (f *Fence) Close() {
	f.leave()
	for _, m := range f.mounts {
		m.dir.Close()
	}
	f.root.Close()
}

// Sync makes everything in the tree durable.
func (f *Fence) Sync() error {
	if err := f.root.SyncAll(); err != nil {
		return fault.New(fault.Failed, "sync %s: %w", f.name, err)
	}
	for _, m := range f.mounts {
		if err := m.dir.SyncAll(); err != nil {
			return fault.New(fault.Failed, "sync %s: %w", f.Where(m.path), err)
		}
	}
	return nil
}

// leave forgets the current directory.
func (f *Fence) leave() {
	if f.cur != nil {
		f.cur.Close()
		f.cur = nil
	}
}

// Where names a path in a message.
func (f *Fence) Where(path string) string { return filepath.Join(f.name, path) }

// Root is the open root.
func (f *Fence) Root() *dirfd.Dir { return f.root }

// MountAll mounts directories by their places in the tree.
func (f *Fence) MountAll(mounts map[string]string) error {
	for _, path := range slices.Sorted(maps.Keys(mounts)) {
		if err := f.Mount(path, mounts[path]); err != nil {
			return err
		}
	}
	return nil
}

// Mount opens the directory target, making it where it is absent, and links to
// it from path.
func (f *Fence) Mount(path, target string) error {
	at, err := f.Enter(path)
	if err != nil {
		return err
	}
	if err := at.Symlink(target, dirfd.Base(path)); errors.Is(err, fs.ErrExist) {
		if old, e := at.Readlink(dirfd.Base(path)); e != nil || old != target {
			return fault.New(fault.Exists, "link %s to %s: something else is there", f.Where(path), target)
		}
	} else if err != nil {
		return fault.New(fault.Failed, "link %s: %w", f.Where(path), err)
	}
	d, err := openTop(target)
	if err != nil {
		return err
	}
	f.mounts = append(f.mounts, mount{path, d})
	return nil
}

func (f *Fence) IsMount(path string) bool {
	return slices.ContainsFunc(f.mounts, func(m mount) bool { return m.path == path })
}

// locate returns the root or mount in which path lies, and the path from there.
func (f *Fence) locate(path string) (top *dirfd.Dir, rest string) {
	top, rest = f.root, path
	for _, m := range f.mounts {
		if Below(path, m.path) && len(path)-len(m.path) <= len(rest) { // the innermost
			top, rest = m.dir, strings.TrimPrefix(path[len(m.path):], "/")
		}
	}
	return top, rest
}

// Place is the place of path, which lies in the open directory dir.
func (f *Fence) Place(dir *dirfd.Dir, path string) dirfd.Place {
	top, rest := f.locate(path)
	return dirfd.Place{Top: top, Dir: dir, Path: rest, Name: dirfd.Base(path)}
}

// Enter opens the directory in which path lies, making it where it is absent;
// it stays open until the next call.
func (f *Fence) Enter(path string) (*dirfd.Dir, error) {
	dir := dirfd.Parent(path)
	if f.cur != nil && f.curPath == dir {
		return f.cur, nil
	}
	d, err := f.Open(dir, path, true)
	if err != nil {
		return nil, err
	}
	f.leave()
	f.cur, f.curPath = d, dir
	return d, nil
}

// Open opens a directory element by element, from the current one where path
// lies in it, on behalf of a member. It follows no link and makes what is
// absent if it shall.
func (f *Fence) Open(path, member string, create bool) (*dirfd.Dir, error) {
	from, rest := f.locate(path)
	if f.cur != nil && f.curPath != "" && Below(path, f.curPath) && len(path)-len(f.curPath) <= len(rest) {
		from, rest = f.cur, strings.TrimPrefix(path[len(f.curPath):], "/")
	}
	d, err := from.OpenDir(".")
	if err != nil {
		return nil, fault.New(fault.Failed, "open %s: %w", f.Where(path), err)
	}
	for rest != "" {
		name, after, _ := strings.Cut(rest, "/")
		next, err := d.OpenDir(name)
		if create && errors.Is(err, fs.ErrNotExist) {
			if err = d.Mkdir(name); err == nil || errors.Is(err, fs.ErrExist) { // another process may join too
				next, err = d.OpenDir(name)
			}
		}
		d.Close()
		if err != nil && dirfd.Gone(err) && !errors.Is(err, fs.ErrNotExist) {
			return nil, Bad(member, "runs through %q, which is not a directory", name)
		}
		if err != nil {
			return nil, fault.New(fault.Failed, "open %s: %w", f.Where(path), err)
		}
		d, rest = next, after
	}
	return d, nil
}

// Free makes a name free for a new file or link. A directory stays.
func (f *Fence) Free(d *dirfd.Dir, path string) error {
	i, err := d.Lstat(dirfd.Base(path))
	if err == nil && i.IsDir() {
		return Bad(path, "is a directory here")
	}
	if err == nil {
		err = d.Remove(dirfd.Base(path))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, "replace %s: %w", f.Where(path), err)
	}
	return nil
}

// Stays reports whether a symlink at path cannot lead out of its root or mount,
// whatever links lie on its way: it goes up only at its beginning, where the
// directories are real ones, and not too far.
func (f *Fence) Stays(path, target string) bool {
	if filepath.IsAbs(target) || filepath.VolumeName(target) != "" || strings.HasPrefix(target, "/") {
		return false
	}
	_, rest := f.locate(path)
	up, down := 0, false
	for e := range strings.SplitSeq(filepath.ToSlash(target), "/") {
		switch e {
		case "", ".":
		case "..":
			if up++; down {
				return false
			}
		default:
			down = true
		}
	}
	return up <= strings.Count(rest, "/")
}
