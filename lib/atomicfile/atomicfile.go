// Package atomicfile makes a file appear under its name whole and durable, or
// not at all: a temporary file beside it, fsync, rename, fsync of the
// directory.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"walg/lib/fault"
)

// File is a file that has no name yet. Write to File(), then Commit or Abort.
type File struct {
	f    *os.File
	name string
	done bool
}

// Create makes a temporary file in the directory of name. It has the mode of
// an existing file of that name, else 0600.
func Create(name string) (*File, error) {
	mode := fs.FileMode(0o600)
	if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() {
		mode = fi.Mode().Perm()
	}
	temp := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.tmp.%s", short(filepath.Base(name)), rand.Text()))
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrNotExist) { // a wrong path, not an absent object
		return nil, fault.New(fault.Usage, "create %s: %w", name, cause(err))
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, cause(err))
	}
	a := &File{f: f, name: name}
	if err := f.Chmod(mode); err != nil { // past the umask
		a.Abort()
		return nil, fmt.Errorf("create %s: %w", name, cause(err))
	}
	return a, nil
}

// short leaves room in a name of at most 255 bytes for what Create adds.
func short(base string) string { return base[:min(len(base), 200)] }

// File returns the open temporary file.
func (a *File) File() *os.File { return a.f }

// Commit makes the file durable and gives it its name. On an error there is no
// new file and an old one of that name stays.
func (a *File) Commit() error {
	if err := a.commit(); err != nil {
		a.Abort()
		return fmt.Errorf("write %s: %w", a.name, cause(err))
	}
	a.done = true
	if err := SyncDir(filepath.Dir(a.name)); err != nil {
		return fmt.Errorf("write %s: %w", a.name, cause(err))
	}
	return nil
}

func (a *File) commit() error {
	if err := a.f.Sync(); err != nil {
		return err
	}
	if err := a.f.Close(); err != nil {
		return err
	}
	return os.Rename(a.f.Name(), a.name)
}

// Abort removes the temporary file. After Commit it does nothing.
func (a *File) Abort() {
	if a.done {
		return
	}
	a.done = true
	a.f.Close() // it is being thrown away
	os.Remove(a.f.Name())
}

// WriteFile makes name hold content, whole and durable.
func WriteFile(name string, content []byte) error {
	a, err := Create(name)
	if err != nil {
		return err
	}
	defer a.Abort()
	if _, err := a.f.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	return a.Commit()
}

// cause drops the temporary name from an error, which the user never chose.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
