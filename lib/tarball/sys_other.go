//go:build !linux || portable

package tarball

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

// dir is an open directory and file an open regular file, as in sys_linux.go,
// by means of the standard library alone. os.Root keeps everything inside the
// directory that was named; that a link is not followed either is looked up
// first, so that only somebody who changes the tree meanwhile can lead us
// elsewhere inside it.
type dir struct{ root *os.Root }

type file struct{ *os.File }

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

func openDir(path string) (*dir, error) {
	r, err := os.OpenRoot(path)
	return &dir{r}, bare(err)
}

func (d *dir) close() { d.root.Close() } // nothing was written through it

// check refuses a name that is a link or of the wrong kind.
func (d *dir) check(name string, want func(fs.FileMode) bool) error {
	i, err := d.root.Lstat(name)
	if err == nil && !want(i.Mode()) {
		return syscall.ENOTDIR
	}
	return bare(err)
}

func (d *dir) openDir(name string) (*dir, error) {
	if err := d.check(name, fs.FileMode.IsDir); err != nil {
		return nil, err
	}
	r, err := d.root.OpenRoot(name)
	return &dir{r}, bare(err)
}

func (d *dir) list(_ []byte, add func(name []byte, isDir bool)) error {
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

func (d *dir) lstat(name string) (info, error) { return newInfo(d.root.Lstat(name)) }

// stat follows a link, out of the directory too, which os.Root does not.
func (d *dir) stat(name string) (info, error) {
	return newInfo(os.Stat(filepath.Join(d.root.Name(), name)))
}

func newInfo(fi fs.FileInfo, err error) (info, error) {
	if err != nil {
		return info{}, bare(err)
	}
	i := info{mode: fi.Mode(), size: fi.Size(), mtime: fi.ModTime()}
	if h, err := tar.FileInfoHeader(fi, "-"); err == nil { // it knows where each system keeps the ids
		i.uid, i.gid = h.Uid, h.Gid
	}
	return i, nil
}

func (d *dir) readlink(name string) (string, error) {
	target, err := d.root.Readlink(name)
	return target, bare(err)
}

func (d *dir) open(name string) (file, info, error) {
	if err := d.check(name, fs.FileMode.IsRegular); err != nil {
		return file{}, info{}, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return file{}, info{}, bare(err)
	}
	i, err := newInfo(f.Stat())
	if err != nil {
		f.Close()
	}
	return file{f}, i, err
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

func (f file) close() error { return f.Close() }

func (d *dir) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return file{f}, bare(err)
}

func (d *dir) finish(f file, name string, m meta, durable bool) error {
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

func (d *dir) apply(m meta) error { return bare(d.setMeta(".", m)) }

func (d *dir) setMeta(name string, m meta) error {
	if m.owner {
		if err := d.root.Chown(name, m.uid, m.gid); err != nil {
			return err
		}
	}
	if err := d.root.Chmod(name, m.mode); err != nil {
		return err
	}
	return d.root.Chtimes(name, time.Time{}, m.mtime)
}

func (d *dir) mkdir(name string) error           { return bare(d.root.Mkdir(name, 0o700)) }
func (d *dir) remove(name string) error          { return bare(d.root.Remove(name)) }
func (d *dir) rename(from, to string) error      { return bare(d.root.Rename(from, to)) }
func (d *dir) symlink(target, name string) error { return bare(d.root.Symlink(target, name)) }

// applyLink leaves the link's time, which the standard library cannot set.
func (d *dir) applyLink(name string, m meta) error {
	if m.owner {
		return bare(d.root.Lchown(name, m.uid, m.gid))
	}
	return nil
}

func link(from, to place) error { return bare(from.top.root.Link(from.path, to.path)) }

func (d *dir) sync() error {
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

func (d *dir) syncAll() error { return d.sync() }

const syncsAll = false
