package file

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"walg/lib/atomicfile"
	"walg/lib/fault"
	"walg/lib/store"
)

const (
	bufferSize = 1 << 20 // of one copy
	// writeback is how much is written before the kernel is asked to begin
	// with it, so that the fsync at the end has little left to wait for.
	writeback = 2 << 20
	// emptyReads is how often a reader may return nothing in a row.
	emptyReads = 100
	// mkdirTries bounds how often Delete may take an empty directory away
	// between our making it and our creating a file there.
	mkdirTries = 1000
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Put writes a temporary file beside the target, makes it durable, and gives
// it its name: by rename(2), or with IfAbsent by link(2), which fails where
// the name is taken.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, o store.PutOptions) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err := store.ValidMeta(o.Meta); err != nil {
		return err
	}
	err = s.put(ctx, path, r, o)
	if err == nil {
		return nil
	}
	err = s.fail("put", key, err)
	if fault.Status(err) == fault.Absent && !errors.As(err, new(*fault.Error)) {
		// A file or a directory went away below us. That is no absent object.
		return &fault.Error{Status: fault.Failed, Err: err}
	}
	return err
}

func (s *Store) put(ctx context.Context, path string, r io.Reader, o store.PutOptions) (err error) {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	switch fi, err := os.Lstat(path); {
	case err == nil && fi.IsDir():
		return fault.New(fault.Usage, "a directory of objects has this name")
	case err == nil && o.IfAbsent:
		return fs.ErrExist // at once, not after an hour of reading
	}
	temp, made, err := s.create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temp.Close()
			// Best effort: a temporary file that stays is a leftover, and an
			// empty directory is nothing.
			os.Remove(temp.Name())
			for _, dir := range slices.Backward(made) {
				removeDir(dir)
			}
		}
	}()
	if err := fill(ctx, temp, r); err != nil {
		return err
	}
	if err := setMeta(temp, o.Meta); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	// The last moment to turn back.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if o.IfAbsent {
		if err := moveNew(temp.Name(), path); err != nil {
			return err
		}
	} else if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

var errNested = fault.New(fault.Usage, "an object has the name of one of its directories")

// create opens a new temporary file beside path, and returns it with the
// directories that it had to make for it.
func (s *Store) create(path string) (f *os.File, made []string, err error) {
	dir, name := filepath.Split(path)
	for range mkdirTries {
		var random [8]byte
		rand.Read(random[:]) // never fails
		temp := store.TempName(name, time.Now(), binary.BigEndian.Uint64(random[:]))
		f, err = os.OpenFile(filepath.Join(dir, temp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			return f, made, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, made, err
		}
		if gone := s.present(); gone != nil {
			return nil, made, gone
		}
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, made, errNested
		}
		more, mkErr := s.makeDirs(filepath.Clean(dir))
		made = append(made, more...)
		// Not there: Delete has taken the parent away meanwhile. There: another
		// Put was faster.
		if mkErr != nil && !errors.Is(mkErr, fs.ErrNotExist) {
			return nil, made, mkErr
		}
	}
	return nil, made, err
}

// makeDirs makes the missing directories from the root, which must exist, down
// to dir, each durable before the next is made.
func (s *Store) makeDirs(dir string) (made []string, err error) {
	if dir == s.root {
		return nil, nil
	}
	parent := filepath.Dir(dir)
	if made, err = s.makeDirs(parent); err != nil {
		return made, err
	}
	err = os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return made, nil
	case errors.Is(err, syscall.ENOTDIR):
		return made, errNested
	case err != nil:
		return made, err
	}
	return append(made, dir), syncDir(parent)
}

// fill copies r to f up to io.EOF.
func fill(ctx context.Context, f *os.File, r io.Reader) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var written, started int64
	empty := 0
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, readErr := r.Read(buf[:])
		if n > 0 {
			empty = 0
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
			written += int64(n)
			if written-started >= writeback {
				startWriteback(f, started, written-started)
				started = written
			}
		} else if empty++; readErr == nil && empty == emptyReads {
			readErr = io.ErrNoProgress
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return inputError{readErr}
		}
	}
}

// moveNew gives temp the name path unless that is taken.
func moveNew(temp, path string) error {
	err := os.Link(temp, path)
	switch {
	case err == nil:
		// The object is there under its name. If the temporary name stays, it
		// is a leftover, and no reason to report a failure.
		os.Remove(temp)
		return nil
	case errors.Is(err, fs.ErrExist):
		return fs.ErrExist
	}
	// vfat and some network file systems have no links.
	if renameErr := renameNew(temp, path); !errors.Is(renameErr, errors.ErrUnsupported) {
		return renameErr
	}
	return err
}

// Sync makes an existing object durable: the file, and every directory from
// its own up to the root.
func (s *Store) Sync(ctx context.Context, key string) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	f, _, err := s.open(ctx, key, path)
	if err != nil {
		return s.fail("sync", key, err)
	}
	defer f.Close()
	if err := syncRead(f); err != nil {
		return s.fail("sync", key, err)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := syncDir(dir); err != nil {
			return s.fail("sync", key, err)
		}
		if dir == s.root {
			return nil
		}
	}
}

// Delete removes files, then the directories below the root that became empty.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	paths := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if paths[i], err = s.path(key); err != nil {
			return err
		}
	}
	stay := map[string]error{}    // by key
	changed := map[string][]int{} // directories to make durable, with what was removed from each
	for i, path := range paths {
		if err := context.Cause(ctx); err != nil {
			stay[keys[i]] = err
			continue
		}
		removed, err := remove(path)
		if err != nil {
			if err = s.absent(err); !errors.Is(err, fs.ErrNotExist) {
				stay[keys[i]] = err
			}
		}
		if removed {
			s.leave(changed, filepath.Dir(path), i)
		}
	}
	for dir, removed := range changed {
		// A directory that another Delete has removed meanwhile is durable
		// there.
		if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			for _, i := range removed {
				stay[keys[i]] = err
			}
		}
	}
	var failed []store.Undeleted
	for _, key := range keys {
		if err := stay[key]; err != nil {
			delete(stay, key) // a key that was given twice
			failed = append(failed, store.Undeleted{Key: key, Err: s.fail("delete", key, err)})
		}
	}
	if failed == nil {
		return nil
	}
	return &store.DeleteError{Failed: failed, Of: len(keys)}
}

// leave removes dir and its parents as far as they are empty, and notes that
// the object i is durably gone when the first that stays is durable, as is all
// that was removed from the others.
func (s *Store) leave(changed map[string][]int, dir string, i int) {
	top := s.prune(dir)
	gone := []int{i}
	for ; dir != top; dir = filepath.Dir(dir) {
		gone = append(gone, changed[dir]...)
		delete(changed, dir)
	}
	changed[top] = append(changed[top], gone...)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	err := atomicfile.SyncDir(dir)
	// Some network and user space file systems cannot fsync a directory, and
	// say so. Nothing more can be done there.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// remove removes a file, but no directory, which os.Remove would.
func remove(path string) (bool, error) {
	fi, err := os.Lstat(path)
	if err != nil || fi.IsDir() {
		return false, err
	}
	err = os.Remove(path)
	return err == nil, err
}

// prune removes dir and its parents as long as they are empty and below the
// root. It returns the first that stays.
func (s *Store) prune(dir string) string {
	for dir != s.root && removeDir(dir) == nil {
		dir = filepath.Dir(dir)
	}
	return dir
}
