package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"walg/lib/dirfd"
	"walg/lib/fault"
	"walg/lib/fence"
	"walg/lib/tarball"
)

// A restore of several archives into one directory is Begin, then Extract with
// Join and the mounts of Mounts, in any order and at once, then Finish with
// the archive whose files make the tree complete. From Begin to Finish the
// directory holds a marker. Losing power at any moment leaves a marker, or a
// complete and durable tree, or both; never a tree that has the last files
// without all others.

const markerName = ".walg-restore"

type marker struct {
	Name   string            `json:"name"`
	Mounts map[string]string `json:"mounts,omitempty"`
	// Last are the files that Finish was about to write. A restore that begins
	// again removes them first.
	Last []string `json:"last,omitempty"`
}

// Begin prepares dir for the restore of the backup name: makes it with mode
// 0700 if it is absent, marks it, and makes the mounts and the links to them. A
// dir or mount that holds files is refused (73), unless dir is marked for the
// same name and mounts: then an interrupted restore goes on.
func Begin(dir, name string, mounts map[string]string) error {
	t := Target{Root: dir, Mounts: mounts}
	old, err := readMarker(dir)
	switch {
	case err == nil && old.Name == name && maps.Equal(old.Mounts, mounts):
		t.Join = true
	case err == nil:
		err := fault.New(fault.Exists, "restore to %s: the restore of another backup, %q, was begun there", dir, old.Name)
		if old.Name == name {
			err = fault.New(fault.Exists, "restore to %s: the restore of %q was begun there with other tablespace directories", dir, name)
		}
		return fault.WithHint(err, "finish that restore, or choose or make an empty directory")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	f, err := fence.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, path := range old.Last {
		if err := unfinish(f, path); err != nil {
			return err
		}
	}
	if err := writeMarker(f.Root(), dir, marker{Name: name, Mounts: mounts}); err != nil {
		return err
	}
	return f.MountAll(mounts)
}

// unfinish removes a file that made the tree look complete, durably.
func unfinish(f *fence.Fence, path string) error {
	path, err := fence.Clean(path)
	if err != nil {
		return err
	}
	d, err := f.Enter(path)
	if err != nil {
		return err
	}
	if err = f.Free(d, path); err == nil {
		err = d.Sync()
	}
	if err != nil {
		return fault.New(fault.Failed, "remove %s: %w", f.Where(path), err)
	}
	return nil
}

// Mounts returns the mounts of the restore that was begun in dir.
func Mounts(dir string) (map[string]string, error) {
	m, err := begun(dir)
	return m.Mounts, err
}

// begun reads the marker that must be there.
func begun(dir string) (marker, error) {
	m, err := readMarker(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fault.WithHint(fault.New(fault.Usage, "restore to %s: no restore was begun there", dir), "begin one with --begin NAME")
	}
	return m, err
}

// Finish ends the restore that was begun in dir: it extracts one more archive,
// makes everything durable, writes the files chosen by t.Last (nil: all of this
// archive) and only then removes the marker. Root, Mounts, Join and Sync of t
// are set here. On an error the marker stays and Finish can be called again.
func Finish(ctx context.Context, dir string, r io.Reader, t Target) (tarball.Totals, error) {
	m, err := begun(dir)
	if err != nil {
		return tarball.Totals{}, err
	}
	root, err := dirfd.OpenDir(dir)
	if err != nil {
		return tarball.Totals{}, fault.New(fault.Failed, "restore to %s: %w", dir, err)
	}
	defer root.Close()
	t.Root, t.Mounts, t.Join, t.Sync = dir, m.Mounts, true, true
	if t.Last == nil {
		t.Last = func(string) bool { return true }
	}
	t.beforeLast = func(paths []string) error {
		if len(paths) == 0 {
			return fault.New(fault.Data, "restore to %s: this archive does not hold the file that completes it", dir)
		}
		m.Last = paths
		return writeMarker(root, dir, m)
	}
	tot, err := Extract(ctx, r, t)
	if err != nil {
		return tot, err
	}
	before, err := root.Lstat(".")
	if err == nil {
		err = root.Remove(markerName)
	}
	if err == nil {
		err = root.Sync()
	}
	if err != nil {
		return tot, fault.New(fault.Failed, "remove %s: %w", filepath.Join(dir, markerName), err)
	}
	root.KeepTime(before)
	return tot, nil
}

func readMarker(dir string) (m marker, err error) {
	path := filepath.Join(dir, markerName)
	p, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(p, &m); err != nil || m.Name == "" {
		return m, fault.New(fault.Exists, "read %s: not the mark of a restore", path)
	}
	return m, nil
}

func writeMarker(root *dirfd.Dir, dir string, m marker) error {
	p, err := json.Marshal(m)
	if err == nil {
		err = root.Replace(markerName, append(p, '\n'), dirfd.Meta{Mode: 0o600, ModTime: time.Now()})
	}
	if err != nil {
		return fault.New(fault.Failed, "write %s: %w", filepath.Join(dir, markerName), err)
	}
	return nil
}
