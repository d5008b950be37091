// Package file keeps objects as files below one directory, in WAL-G's layout:
// the key is the path, and a file that is being written has a temporary name
// beside its target.
//
// What the package promises beyond package store: the directory is never
// created, so that an unmounted disk does not look like an empty store;
// directories between it and an object are made by Put (0755) and removed by
// Delete when the last object has left them; files are 0644 less the umask.
// Metadata is kept in extended attributes user.walg.NAME: where the file system
// has none (and outside Linux) it is silently not kept, and Stat returns what
// is there. Symbolic links below the directory are followed, because it is
// the operator's; a name that is neither a file nor a directory is no object.
// Of two keys one of which is the directory of the other, only one can exist.
// A name may be 217 bytes long on the usual file systems (255 less what a
// temporary name adds).
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"walg/lib/fault"
	"walg/lib/store"
)

// Scheme begins the URLs of this store.
const Scheme = "file://"

// Store is a store.Store, with store.Durable, store.Leftovers and
// store.Locator.
type Store struct {
	root string // absolute, clean
}

// New returns the store in an existing directory: a path, file:///path or
// file://localhost/path. Nothing in a URL is an escape; % stands for itself. A
// directory that is missing is an error of status 64.
func New(prefix string) (*Store, error) {
	path, err := Path(prefix)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.New(fault.Usage, "store %s: %w", path, err)
	}
	s := &Store{root}
	if err := s.present(); err != nil {
		return nil, err
	}
	return s, nil
}

// Path returns the path in a file URL, or a plain path as it is.
func Path(prefix string) (string, error) {
	path, isURL := strings.CutPrefix(prefix, Scheme)
	if isURL {
		path = strings.TrimPrefix(path, "localhost")
		if !strings.HasPrefix(path, "/") {
			return "", fault.New(fault.Usage, "store %s: want file:///path or file://localhost/path", prefix)
		}
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return "", fault.New(fault.Usage, "store %q: no path", prefix)
	}
	return path, nil
}

// present returns an error of status 64 unless the root is a directory. Each
// operation that finds nothing asks it, so that a root that has gone away is
// not an empty store.
func (s *Store) present() error {
	fi, err := os.Stat(s.root)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return fault.New(fault.Usage, "store %s: not a directory", s.URL(""))
	case errors.Is(err, fs.ErrNotExist):
		return fault.WithHint(fault.New(fault.Usage, "store %s: no such directory", s.URL("")),
			"is the disk mounted? WALG_FILE_PREFIX must name an existing directory; it is never created")
	}
	return explain("store", s.URL(""), err)
}

// path returns the path of a valid key.
func (s *Store) path(key string) (string, error) {
	if err := store.ValidKey(key); err != nil {
		return "", err
	}
	local, err := filepath.Localize(key)
	if err != nil {
		return "", fault.New(fault.Usage, "key %q: not a file name on this system", key)
	}
	return filepath.Join(s.root, local), nil
}

// URL returns file:// and the absolute path of the object.
func (s *Store) URL(key string) string {
	return Scheme + filepath.ToSlash(filepath.Join(s.root, filepath.FromSlash(key)))
}

// Stat returns size, time and metadata of an object.
func (s *Store) Stat(ctx context.Context, key string) (store.Info, error) {
	path, err := s.path(key)
	if err != nil {
		return store.Info{}, err
	}
	f, info, err := s.open(ctx, key, path)
	if err != nil {
		return store.Info{}, s.fail("stat", key, err)
	}
	defer f.Close()
	if info.Meta, err = getMeta(f); err != nil {
		return store.Info{}, s.fail("stat", key, err)
	}
	return info, nil
}

// Get opens an object. Its reader fails with status 65 where the file has
// become shorter than it was at Get.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, store.Info{}, err
	}
	f, info, err := s.open(ctx, key, path)
	if err != nil {
		return nil, store.Info{}, s.fail("get", key, err)
	}
	if info.Meta, err = getMeta(f); err == nil {
		switch {
		case offset < 0 || offset > info.Size:
			err = fault.New(fault.Usage, "offset %d is outside its %d bytes", offset, info.Size)
		case offset > 0:
			_, err = f.Seek(offset, io.SeekStart)
		}
	}
	if err != nil {
		f.Close()
		return nil, store.Info{}, s.fail("get", key, err)
	}
	readAhead(f)
	return &reader{ctx, f, s, key, info.Size - offset}, info, nil
}

// open opens the regular file of an object. It looks before it opens, because
// opening a FIFO waits.
func (s *Store) open(ctx context.Context, key, path string) (*os.File, store.Info, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, store.Info{}, err
	}
	fi, err := os.Stat(path)
	if err == nil && fi.IsDir() {
		err = fs.ErrNotExist // no object of its own
	}
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, store.Info{}, s.absent(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, store.Info{}, s.absent(err)
	}
	// Asked again of the open file: another may have come in its place.
	if fi, err = f.Stat(); err != nil {
		f.Close()
		return nil, store.Info{}, err
	}
	return f, store.Info{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// absent turns the ways of a path to lead nowhere into fs.ErrNotExist, unless
// the whole store is missing.
func (s *Store) absent(err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	if gone := s.present(); gone != nil {
		return gone
	}
	return fs.ErrNotExist
}

type reader struct {
	ctx  context.Context
	f    *os.File
	s    *Store
	key  string
	left int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, r.s.fail("get", r.key, err)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case err == io.EOF:
		err = r.s.fail("get", r.key, fault.New(fault.Data, "the file ends %d bytes early", r.left))
	case err != nil:
		err = r.s.fail("get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.f.Close() }

// fail gives err its operation and object, once.
func (s *Store) fail(op, key string, err error) error {
	return explain(op, s.URL(key), err)
}

// explain takes the path and the call out of an error of package os, whose
// object is named in url already, and adds a hint where there is one to give.
// What the reader of a Put said stays as it is.
func explain(op, url string, err error) error {
	var in inputError
	if errors.As(err, &in) {
		return fmt.Errorf("%s %s: %w", op, url, in.error)
	}
	switch e := err.(type) {
	case *fs.PathError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	case *os.LinkError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	if err == fs.ErrNotExist {
		err = noObject{}
	}
	wrapped := fmt.Errorf("%s %s: %w", op, url, err)
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota):
		return fault.WithHint(wrapped, "the file system of the store is full (or out of inodes or quota); make room, then try again")
	case errors.Is(err, syscall.EROFS):
		return fault.WithHint(wrapped, "the file system of the store is mounted read-only")
	case errors.Is(err, fs.ErrPermission):
		return fault.WithHint(wrapped, "check the owner and the mode of the directory; this program runs as uid %d", os.Geteuid())
	case errors.Is(err, syscall.ENAMETOOLONG):
		return &fault.Error{Status: fault.Usage, Err: wrapped, Hint: "a name between slashes may be 217 bytes long"}
	}
	return wrapped
}

// inputError is an error of the reader that was given to Put, as against one
// of the file system of the store.
type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

// noObject is fs.ErrNotExist in the words of a store.
type noObject struct{}

func (noObject) Error() string        { return "no such object" }
func (noObject) Is(target error) bool { return target == fs.ErrNotExist }

var (
	_ store.Store     = (*Store)(nil)
	_ store.Durable   = (*Store)(nil)
	_ store.Leftovers = (*Store)(nil)
	_ store.Locator   = (*Store)(nil)
)
