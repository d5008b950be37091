// Package dirfd works on a tree by way of directories that are held open, so
// that nobody who moves or replaces something meanwhile leads the work astray.
// The names that its methods take are single elements of a path and are never
// followed when they are symbolic links, if nothing else is said. Errors are
// bare; callers add the path.
//
// Linux has a way of its own, with fewer calls for each file than package os
// makes; other systems, and the build tag portable, use os.Root.
package dirfd

import (
	"errors"
	"io/fs"
	"strings"
	"time"
)

// Info is what stat(2) says about one file.
type Info struct {
	Mode     fs.FileMode
	Size     int64
	ModTime  time.Time
	UID, GID int
}

func (i *Info) IsDir() bool     { return i.Mode.IsDir() }
func (i *Info) IsRegular() bool { return i.Mode.IsRegular() }
func (i *Info) IsSymlink() bool { return i.Mode&fs.ModeSymlink != 0 }

// Meta is what a file gets besides contents.
type Meta struct {
	Mode     fs.FileMode
	ModTime  time.Time
	UID, GID int
	Owner    bool // UID and GID count
}

// Place is a name in an open directory. Path leads there from Top.
type Place struct {
	Top, Dir   *Dir
	Path, Name string
}

// Base is the last element of a slash separated path, the name that a method
// of the open Parent takes.
func Base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// Parent is the path without its last element, "" where it has but one.
func Parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// TempName is the name that Replace gives a file until it is durable.
const TempName = ".walg-last"

// Replace makes a file appear under its name whole and durable, or not at all,
// and keeps the directory's time.
func (d *Dir) Replace(name string, content []byte, m Meta) error {
	before, err := d.Lstat(".")
	if err != nil {
		return err
	}
	if err := d.Remove(TempName); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was interrupted
		return err
	}
	f, err := d.Create(TempName)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if e := d.Finish(f, TempName, m, true); err == nil {
		err = e
	}
	if err == nil {
		err = d.rename(TempName, name)
	}
	if err != nil {
		d.Remove(TempName) // best effort: err says more
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	d.KeepTime(before)
	return nil
}

// KeepTime gives the directory the time back that it had before. It is only for
// looks: an error is nobody's concern.
func (d *Dir) KeepTime(before Info) { d.Apply(Meta{Mode: before.Mode, ModTime: before.ModTime}) }
