//go:build !linux || portable

package dirfd

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Dir is an open directory, by means of the standard library alone. os.Root
// keeps everything inside the directory that was named; that a link is not
// followed either is looked up first, so that only somebody who changes the
// tree meanwhile can lead us elsewhere inside it.
type Dir struct{ root *os.Root }

// File is an open regular file.
type File struct{ *os.File }

// StartWriteback has nothing to ask here.
func (File) StartWriteback(_, _ int64) {}

func bare(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

func OpenDir(path string) (*Dir, error) {
	r, err := os.OpenRoot(path)
	return &Dir{r}, bare(err)
}

func (d *Dir) Close() { d.root.Close() } // nothing was written through it

// check refuses a name that is a link or of the wrong kind.
func (d *Dir) check(name string, want func(fs.FileMode) bool) error {
	i, err := d.root.Lstat(name)
	if err == nil && !want(i.Mode()) {
		return syscall.ENOTDIR
	}
	return bare(err)
}

func (d *Dir) OpenDir(name string) (*Dir, error) {
	if err := d.check(name, fs.FileMode.IsDir); err != nil {
		return nil, err
	}
	r, err := d.root.OpenRoot(name)
	return &Dir{r}, bare(err)
}

func (d *Dir) List(_ []byte, add func(name []byte, isDir bool)) error {
	f, err := d.root.Open(".")
	if err != nil {
		return bare(err)
	}
	defer f.Close() // only read from
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			add([]byte(e.Name()), e.IsDir())
		}
		if len(entries) == 0 {
			if err == io.EOF {
				return nil
			}
			return bare(err)
		}
	}
}

func (d *Dir) Lstat(name string) (Info, error) { return newInfo(d.root.Lstat(name)) }

// Stat follows a link, out of the directory too, which os.Root does not.
func (d *Dir) Stat(name string) (Info, error) {
	return newInfo(os.Stat(filepath.Join(d.root.Name(), name)))
}

func newInfo(fi fs.FileInfo, err error) (Info, error) {
	if err != nil {
		return Info{}, bare(err)
	}
	i := Info{Mode: fi.Mode(), Size: fi.Size(), ModTime: fi.ModTime()}
	if h, err := tar.FileInfoHeader(fi, "-"); err == nil { // it knows where each system keeps the ids
		i.UID, i.GID = h.Uid, h.Gid
	}
	return i, nil
}

func (d *Dir) Readlink(name string) (string, error) {
	target, err := d.root.Readlink(name)
	return target, bare(err)
}

func (d *Dir) Open(name string) (File, Info, error) {
	if err := d.check(name, fs.FileMode.IsRegular); err != nil {
		return File{}, Info{}, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return File{}, Info{}, bare(err)
	}
	i, err := newInfo(f.Stat())
	if err != nil {
		f.Close()
	}
	return File{f}, i, err
}

func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

func (d *Dir) Create(name string) (File, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return File{f}, bare(err)
}

func (d *Dir) Finish(f File, name string, m Meta, durable bool) error {
	var err error
	if durable {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = d.setMeta(name, m)
	}
	return bare(err)
}

func (d *Dir) Apply(m Meta) error { return bare(d.setMeta(".", m)) }

func (d *Dir) setMeta(name string, m Meta) error {
	if m.Owner {
		if err := d.root.Chown(name, m.UID, m.GID); err != nil {
			return err
		}
	}
	if err := d.root.Chmod(name, m.Mode); err != nil {
		return err
	}
	return d.root.Chtimes(name, time.Time{}, m.ModTime)
}

func (d *Dir) Mkdir(name string) error           { return bare(d.root.Mkdir(name, 0o700)) }
func (d *Dir) Remove(name string) error          { return bare(d.root.Remove(name)) }
func (d *Dir) rename(from, to string) error      { return bare(d.root.Rename(from, to)) }
func (d *Dir) Symlink(target, name string) error { return bare(d.root.Symlink(target, name)) }

// ApplyLink leaves the link's time, which the standard library cannot set.
func (d *Dir) ApplyLink(name string, m Meta) error {
	if m.Owner {
		return bare(d.root.Lchown(name, m.UID, m.GID))
	}
	return nil
}

func Link(from, to Place) error { return bare(from.Top.root.Link(from.Path, to.Path)) }

func (d *Dir) Sync() error {
	if runtime.GOOS == "windows" { // it has no such call for directories
		return nil
	}
	f, err := d.root.Open(".")
	if err == nil {
		err = f.Sync()
		f.Close()
	}
	return bare(err)
}

func (d *Dir) SyncAll() error { return d.Sync() }

const SyncsAll = false
