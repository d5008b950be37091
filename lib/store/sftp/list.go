package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"walg/lib/store"
	"walg/lib/store/driver"
)

const (
	pageSize = 1000
	maxWalks = 8 // that wait for their next Page
)

// Page goes on with the walk that ended the page before, so that a directory is
// read once and not for each page of it. Where that walk is not there any more
// (after an error, or with too many at once) a new one begins behind from.
func (d *Driver) Page(ctx context.Context, prefix, from string) (page []store.Info, next string, err error) {
	id := walkID{prefix, from}
	d.mu.Lock()
	w := d.walks[id]
	delete(d.walks, id)
	d.mu.Unlock()
	if w == nil {
		w = newWalk(d, prefix, from)
	}
	for len(page) < pageSize {
		e, ok, err := w.next(ctx)
		if err != nil {
			return nil, "", err
		}
		if !ok {
			return page, "", nil
		}
		if _, _, temporary := store.ParseTemp(path.Base(e.name)); !temporary {
			page = append(page, store.Info{Key: e.name, Size: e.size, ModTime: e.modified})
		}
	}
	id.from = page[len(page)-1].Key
	d.mu.Lock()
	defer d.mu.Unlock()
	for old := range d.walks {
		if len(d.walks) < maxWalks {
			break
		}
		delete(d.walks, old)
	}
	d.walks[id] = w
	return page, id.from, nil
}

// Unfinished returns the temporary files of killed and of running puts.
func (d *Driver) Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		w := newWalk(d, prefix, "")
		for {
			e, ok, err := w.next(ctx)
			if err != nil {
				yield(store.Leftover{}, err)
				return
			}
			if !ok {
				return
			}
			key, started, ok := leftoverOf(e.name)
			if !ok {
				continue
			}
			l := store.Leftover{Name: e.name, Key: key, Size: e.size, Started: started, ModTime: e.modified}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// leftoverOf returns the key of the object that a temporary file was to become,
// and when that began. ok is false for all other names.
func leftoverOf(name string) (key string, started time.Time, ok bool) {
	dir, base := path.Split(name)
	base, started, ok = store.ParseTemp(base)
	return dir + base, started, ok && store.ValidKey(dir+base) == nil
}

// Discard removes a temporary file, then the directories that became empty.
func (d *Driver) Discard(ctx context.Context, l store.Leftover) error {
	if key, _, ok := leftoverOf(l.Name); !ok || key != l.Key {
		return driver.Permanent(errors.New("not the name of a temporary file"), "")
	}
	c, err := d.conn(ctx)
	if err != nil {
		return err
	}
	if err := d.absent(ctx, c, c.remove(ctx, "/"+l.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := d.prune(ctx, c, path.Dir("/"+l.Name))
	if err != nil {
		return err
	}
	return c.syncDir(ctx, dir)
}

// walkID is a walk between two pages.
type walkID struct{ prefix, from string }

// walk goes through the files whose names have a prefix, in byte order. It holds
// one directory per level.
type walk struct {
	d            *Driver
	prefix, from string
	levels       [][]entry // what is left of each
}

// entry is a file, or a directory whose name ends with a slash.
type entry struct {
	name     string // without the first slash
	size     int64
	modified time.Time
}

func newWalk(d *Driver, prefix, from string) *walk {
	start := entry{name: prefix[:strings.LastIndex(prefix, "/")+1]}
	return &walk{d, prefix, from, [][]entry{{start}}}
}

// next returns the next file, and false behind the last.
func (w *walk) next(ctx context.Context) (entry, bool, error) {
	for len(w.levels) > 0 {
		top := len(w.levels) - 1
		if len(w.levels[top]) == 0 {
			w.levels = w.levels[:top]
			continue
		}
		e := w.levels[top][0]
		w.levels[top] = w.levels[top][1:]
		if e.name != "" && !strings.HasSuffix(e.name, "/") {
			return e, true, nil
		}
		below, err := w.read(ctx, e.name)
		if err != nil {
			return entry{}, false, err
		}
		w.levels = append(w.levels, below)
	}
	return entry{}, false, nil
}

// read returns what lies in a directory (empty, or ending with a slash), is
// behind from and has the prefix, or may have it below, in the order of the
// keys.
func (w *walk) read(ctx context.Context, at string) ([]entry, error) {
	c, err := w.d.conn(ctx)
	if err != nil {
		return nil, err
	}
	dir := path.Clean("/" + at)
	found, err := ask(ctx, c, func() ([]fs.FileInfo, error) { return c.sftp.ReadDirContext(ctx, dir) })
	// A directory that is not there holds nothing; a deletion may just have
	// taken it away. But the root is always there.
	if err := w.d.absent(ctx, c, err); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, inDirectory(dir, err)
	}
	var entries []entry
	for _, fi := range found {
		name := at + fi.Name()
		if !w.wants(name) && !w.wants(name+"/") {
			continue
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			if fi, err = w.follow(ctx, c, dir, fi.Name()); err != nil {
				return nil, inDirectory(dir, err)
			}
		}
		switch {
		case fi == nil:
		case fi.IsDir() && w.wants(name+"/"):
			entries = append(entries, entry{name: name + "/"})
		case fi.Mode().IsRegular() && w.wants(name):
			entries = append(entries, entry{name, fi.Size(), fi.ModTime()})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}

func inDirectory(dir string, err error) error { return fmt.Errorf("%s: %w", dir, err) }

// wants reports whether a file, or something in a directory, can be among what
// is listed.
func (w *walk) wants(name string) bool {
	if len(name) > store.MaxKey {
		return false
	}
	if strings.HasSuffix(name, "/") {
		return (strings.HasPrefix(name, w.prefix) || strings.HasPrefix(w.prefix, name)) &&
			(name > w.from || strings.HasPrefix(w.from, name))
	}
	return strings.HasPrefix(name, w.prefix) && name > w.from
}

// follow returns what a link leads to, nil where that is nothing. A directory
// that leads back to where the link lies would be walked for ever, and is an
// error.
func (w *walk) follow(ctx context.Context, c *conn, dir, name string) (fs.FileInfo, error) {
	link := path.Join(dir, name)
	fi, err := c.stat(ctx, link)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || !fi.IsDir() {
		return fi, err
	}
	var here, there string
	err = c.call(ctx, func() (err error) {
		if here, err = c.sftp.RealPath(dir); err == nil {
			there, err = c.sftp.RealPath(link)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if there == "/" || strings.HasPrefix(here+"/", there+"/") {
		return nil, driver.Permanent(errors.New("symbolic link "+name+" leads back to "+there), "")
	}
	return fi, nil
}

var (
	_ driver.Driver     = (*Driver)(nil)
	_ driver.Releaser   = (*Driver)(nil)
	_ driver.Unfinished = (*Driver)(nil)
)
