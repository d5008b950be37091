// Package unpack turns a tar stream, or the parts of a backup, into a directory
// tree. It promises that nothing is ever written outside the target, that memory
// does not grow with the number or size of files, and that an archive cut short
// never looks like a whole one. It knows nothing of what the files mean: callers
// say what to rewrite or to hold back.
package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"walg/lib/dirfd"
	"walg/lib/fault"
	"walg/lib/fence"
	"walg/lib/tarball"
)

// The bounds of what an archive may ask for.
const (
	maxHeld    = 1 << 20 // bytes in a file for Last or Edit
	maxLast    = 16      // files held back
	maxPending = 1 << 16 // directories of one parent whose mode and time are still to be set
)

const (
	chunkSize = 1 << 20 // bytes written at once
	// writeback is how much of a file is written before the disk begins with
	// it, so that the sync at the end has little left to wait for.
	writeback = 8 << 20
)

// Target is where an archive goes. Root and Mounts are directories that are
// made, with mode 0700, where they are absent.
type Target struct {
	Root   string
	Mounts map[string]string // place in the tree to absolute directory; the link is made before any member
	Join   bool              // the target may hold files; they are replaced. Else it and the mounts must be empty

	// Last chooses files that are held back in memory (16, 1 MiB each) and
	// written, each under a temporary name and then renamed, after everything
	// else is there, and with Sync durable. On any error they are not written.
	Last func(path string) bool
	// Edit rewrites the files, up to 1 MiB, that EditWants chooses.
	EditWants func(path string) bool
	Edit      func(path string, content []byte) ([]byte, error)
	// MountLink says for a symlink member to which directory it shall lead, to
	// make it a mount; "" leaves it an ordinary symlink. Places in Mounts are not asked for.
	MountLink func(path, target string) (dir string, err error)

	Owner       bool // give files the archive's user and group id, and setuid, setgid and sticky bits
	Sync        bool // make everything durable at the end
	UnsafeLinks bool // keep symlinks that lead out of the tree

	beforeLast func(paths []string) error // everything else is durable now
}

// Extract writes an archive below t.Root and never elsewhere: no symbolic link
// below the root is followed. What it refuses in an archive has status 65, a
// target that is not empty 73. A leading "/" or "./" of a name is dropped.
// After an error what was written stays, without the files of Last.
func Extract(ctx context.Context, r io.Reader, t Target) (tarball.Totals, error) {
	if err := t.check(); err != nil {
		return tarball.Totals{}, err
	}
	f, err := fence.Open(t.Root)
	if err != nil {
		return tarball.Totals{}, err
	}
	defer f.Close()
	if err := f.MountAll(t.Mounts); err != nil {
		return tarball.Totals{}, err
	}
	x := newExtractor(t, f)
	if err := tarball.Read(ctx, r, x.member); err != nil {
		return x.tot, err
	}
	return x.tot, x.end()
}

// check refuses a target before anything is made.
func (t *Target) check() error {
	if err := fence.CheckMounts(t.Mounts); err != nil || t.Join {
		return err
	}
	return fence.CheckEmpty(append([]string{t.Root}, slices.Sorted(maps.Values(t.Mounts))...)...)
}

type extractor struct {
	Target
	fence    *fence.Fence
	pending  []siblings
	rootMeta *dirfd.Meta // waits for the end
	held     []heldFile
	buf      []byte
	tot      tarball.Totals
}

func newExtractor(t Target, f *fence.Fence) *extractor {
	return &extractor{Target: t, fence: f, buf: make([]byte, chunkSize)}
}

// enter opens the directory in which path lies, for a member.
func (x *extractor) enter(path string) (*dirfd.Dir, error) {
	if err := x.settle(dirfd.Parent(path)); err != nil {
		return nil, err
	}
	return x.fence.Enter(path)
}

// siblings are the directories below one parent whose modes and times wait for
// their contents.
type siblings struct {
	parent string
	dirs   []pendingDir
}

type pendingDir struct {
	path string
	meta dirfd.Meta
}

type heldFile struct {
	path    string
	meta    dirfd.Meta
	content []byte
}

func (x *extractor) member(h *tar.Header, content io.Reader) error {
	path, err := fence.Clean(h.Name)
	if err != nil {
		return err
	}
	m := dirfd.Meta{Mode: h.FileInfo().Mode() &^ fs.ModeType, ModTime: h.ModTime, UID: h.Uid, GID: h.Gid, Owner: x.Owner}
	if !x.Owner {
		m.Mode = m.Mode.Perm() // a setuid file of another owner is another thing
	}
	if h.Typeflag != tar.TypeDir && (path == "" || x.fence.IsMount(path)) {
		if path != "" && h.Typeflag == tar.TypeSymlink {
			return nil // the mount's own link is there
		}
		return fence.Bad(h.Name, "is the place of a directory")
	}
	if strings.EqualFold(path, markerName) { // it would tell the next restore where to write
		return fence.Bad(h.Name, "is the mark of an unfinished restore")
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(h, path, m, content)
	case tar.TypeDir:
		return x.directory(h, path, m)
	case tar.TypeSymlink:
		return x.symlink(h, path, m)
	case tar.TypeLink:
		return x.hardLink(h, path)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return fence.Bad(h.Name, "is a device or FIFO")
	}
	return fence.Bad(h.Name, "is of the unknown type %q", h.Typeflag)
}

func (x *extractor) file(h *tar.Header, path string, m dirfd.Meta, content io.Reader) error {
	last, edit := x.Last != nil && x.Last(path), x.EditWants != nil && x.EditWants(path)
	x.tot.Files++
	if !last && !edit {
		return x.write(path, m, content, h.Size)
	}
	if h.Size > maxHeld {
		return fence.Bad(h.Name, "%d bytes, too large to hold in memory", h.Size)
	}
	p, err := io.ReadAll(content)
	if err != nil {
		return fence.Bad(h.Name, "%w", err)
	}
	if edit {
		if p, err = x.Edit(path, p); err != nil {
			return err
		}
	}
	if !last {
		return x.write(path, m, bytes.NewReader(p), int64(len(p)))
	}
	x.held = slices.DeleteFunc(x.held, func(o heldFile) bool { return o.path == path }) // a later member replaces an earlier
	if len(x.held) == maxLast {
		return fence.Bad(h.Name, "more than %d files to hold back", maxLast)
	}
	x.held = append(x.held, heldFile{path, m, p})
	return nil
}

func (x *extractor) write(path string, m dirfd.Meta, content io.Reader, size int64) error {
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	name := dirfd.Base(path)
	f, err := d.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err := x.fence.Free(d, path); err != nil {
			return err
		}
		f, err = d.Create(name)
	}
	if err != nil {
		return fault.New(fault.Failed, "create %s: %w", x.fence.Where(path), err)
	}
	for off := int64(0); off < size; {
		p := x.buf[:min(int64(len(x.buf)), size-off)]
		if _, err := io.ReadFull(content, p); err != nil {
			f.Close() // unfinished anyway
			return fence.Bad(path, "%w", err)
		}
		if _, err := f.Write(p); err != nil {
			f.Close()
			return fault.New(fault.Failed, "write %s: %w", x.fence.Where(path), err)
		}
		off += int64(len(p))
		if off%writeback == 0 {
			f.StartWriteback(off-writeback, writeback)
		}
	}
	if err := d.Finish(f, name, m, x.Sync && !dirfd.SyncsAll); err != nil {
		return fault.New(fault.Failed, "write %s: %w", x.fence.Where(path), err)
	}
	x.tot.Bytes += size
	return nil
}

func (x *extractor) directory(h *tar.Header, path string, m dirfd.Meta) error {
	x.tot.Dirs++
	if path == "" {
		x.rootMeta = &m
		return nil
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	if !x.fence.IsMount(path) {
		err = d.Mkdir(dirfd.Base(path))
		if errors.Is(err, fs.ErrExist) {
			err = x.reuse(d, path)
		} else if err != nil {
			err = fault.New(fault.Failed, "make %s: %w", x.fence.Where(path), err)
		}
	}
	if err == nil && x.Owner && x.fence.IsMount(dirfd.Parent(path)) {
		err = x.adopt(d, path, m)
	}
	if err != nil {
		return err
	}
	return x.suspend(path, m)
}

// adopt gives a mount that root made the owner of a directory in it. An archive
// has not always a member for the mount itself.
func (x *extractor) adopt(d *dirfd.Dir, path string, m dirfd.Meta) error {
	i, err := d.Lstat(".")
	if err == nil && i.UID == 0 && m.UID != 0 {
		err = d.Apply(dirfd.Meta{Mode: i.Mode, ModTime: i.ModTime, UID: m.UID, GID: m.GID, Owner: true})
	}
	if err != nil {
		return fault.New(fault.Failed, "set owner of %s: %w", x.fence.Where(dirfd.Parent(path)), err)
	}
	return nil
}

// reuse lets us write into a directory that is there already, whatever its
// Mode: an interrupted restore may have finished it.
func (x *extractor) reuse(d *dirfd.Dir, path string) error {
	i, err := d.Lstat(dirfd.Base(path))
	if err != nil {
		return fault.New(fault.Failed, "stat %s: %w", x.fence.Where(path), err)
	}
	if !i.IsDir() {
		return fence.Bad(path, "is something else than a directory here")
	}
	if i.Mode&0o700 == 0o700 {
		return nil
	}
	sub, err := d.OpenDir(dirfd.Base(path))
	if err == nil {
		err = sub.Apply(dirfd.Meta{Mode: i.Mode | 0o700, ModTime: i.ModTime})
		sub.Close()
	}
	if err != nil {
		return fault.New(fault.Failed, "make writable %s: %w", x.fence.Where(path), err)
	}
	return nil
}

// suspend keeps a directory's mode and time until its contents are there. What
// is pending forms a chain: the parent of each siblings lies in the one before.
func (x *extractor) suspend(path string, m dirfd.Meta) error {
	if n := len(x.pending); n == 0 || x.pending[n-1].parent != dirfd.Parent(path) {
		x.pending = append(x.pending, siblings{parent: dirfd.Parent(path)})
	}
	s := &x.pending[len(x.pending)-1]
	s.dirs = append(s.dirs, pendingDir{path, m})
	if len(s.dirs) >= maxPending {
		return x.release()
	}
	return nil
}

// settle finishes the directories whose contents must be complete now that a
// member comes in the directory path, outside their parents.
func (x *extractor) settle(path string) error {
	for n := len(x.pending); n > 0 && !fence.Below(path, x.pending[n-1].parent); n-- {
		if err := x.release(); err != nil {
			return err
		}
	}
	return nil
}

// release finishes the last siblings. A directory named twice keeps what was said last.
func (x *extractor) release() error {
	n := len(x.pending) - 1
	s := x.pending[n]
	x.pending = x.pending[:n]
	for _, p := range s.dirs {
		d, err := x.fence.Open(p.path, p.path, false)
		if err != nil {
			return err
		}
		err = d.Apply(p.meta)
		d.Close()
		if err != nil {
			return fault.New(fault.Failed, "set mode of %s: %w", x.fence.Where(p.path), err)
		}
	}
	return nil
}

func (x *extractor) symlink(h *tar.Header, path string, m dirfd.Meta) error {
	target := h.Linkname
	if target == "" || len(target) > fence.MaxPath || strings.IndexByte(target, 0) >= 0 {
		return fence.Bad(h.Name, "a link without a proper target")
	}
	x.tot.Links++
	if x.MountLink != nil {
		dir, err := x.MountLink(path, target)
		if err != nil {
			return err
		}
		if dir != "" {
			return x.mountLate(path, dir)
		}
	}
	if !x.UnsafeLinks && !x.fence.Stays(path, target) {
		return fence.Bad(h.Name, "links to %q, which may lead out of the target", target)
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	err = d.Symlink(target, dirfd.Base(path))
	if errors.Is(err, fs.ErrExist) {
		if err := x.fence.Free(d, path); err != nil {
			return err
		}
		err = d.Symlink(target, dirfd.Base(path))
	}
	if err == nil {
		err = d.ApplyLink(dirfd.Base(path), m)
	}
	if err != nil {
		return fault.New(fault.Failed, "link %s: %w", x.fence.Where(path), err)
	}
	return nil
}

// mountLate mounts what MountLink chose.
func (x *extractor) mountLate(path, dir string) error {
	if x.Mounts == nil {
		x.Mounts = map[string]string{}
	} else {
		x.Mounts = maps.Clone(x.Mounts) // the caller's
	}
	x.Mounts[path] = dir
	if err := fence.CheckMounts(x.Mounts); err != nil {
		return err
	}
	if !x.Join {
		if err := fence.CheckEmpty(dir); err != nil {
			return err
		}
	}
	if _, err := x.enter(path); err != nil {
		return err
	}
	return x.fence.Mount(path, dir)
}

func (x *extractor) hardLink(h *tar.Header, path string) error {
	target, err := fence.Clean(h.Linkname)
	if err != nil {
		return fence.Bad(h.Name, "links to %q, which is not in the target", h.Linkname)
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	from, err := x.fence.Open(dirfd.Parent(target), path, false)
	if err == nil {
		defer from.Close()
		var i dirfd.Info
		if i, err = from.Lstat(dirfd.Base(target)); err == nil && !i.IsRegular() {
			err = fs.ErrNotExist
		}
	}
	if errors.Is(err, fs.ErrNotExist) || target == "" || target == path {
		return fence.Bad(h.Name, "links to %q, which is not a file extracted before", h.Linkname)
	}
	if err != nil {
		return err
	}
	old, at := x.fence.Place(from, target), x.fence.Place(d, path)
	if old.Top != at.Top {
		return fence.Bad(h.Name, "links to %q across file systems", h.Linkname)
	}
	x.tot.Links++
	if err = dirfd.Link(old, at); errors.Is(err, fs.ErrExist) {
		if err := x.fence.Free(d, path); err != nil {
			return err
		}
		err = dirfd.Link(old, at)
	}
	if err != nil {
		return fault.New(fault.Failed, "link %s: %w", x.fence.Where(path), err)
	}
	return nil
}

// end finishes the directories, makes all durable, and then writes the files
// that were held back.
func (x *extractor) end() error {
	var paths []string
	for _, o := range x.held {
		if _, err := x.enter(o.path); err != nil { // its directory must be durable before
			return err
		}
		paths = append(paths, o.path)
	}
	for len(x.pending) > 0 {
		if err := x.release(); err != nil {
			return err
		}
	}
	if x.rootMeta != nil {
		if err := x.fence.Root().Apply(*x.rootMeta); err != nil {
			return fault.New(fault.Failed, "set mode of %s: %w", x.Root, err)
		}
	}
	if x.Sync {
		if err := x.fence.Sync(); err != nil {
			return err
		}
	}
	if x.beforeLast != nil {
		if err := x.beforeLast(paths); err != nil {
			return err
		}
	}
	for _, o := range x.held {
		d, err := x.enter(o.path)
		if err == nil {
			err = d.Replace(dirfd.Base(o.path), o.content, o.meta)
		}
		if err != nil {
			return fault.New(fault.Failed, "write %s: %w", x.fence.Where(o.path), err)
		}
		x.tot.Bytes += int64(len(o.content))
	}
	return nil
}
