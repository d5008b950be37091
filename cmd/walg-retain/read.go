package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/store"
)

// readers is how many small objects are read at once.
const readers = 16

// scan finds the backups in a store by the names of their objects.
func scan(ctx context.Context, st store.Store) ([]*lineage.Backup, error) {
	var s lineage.Scan
	for info, err := range st.List(ctx, catalog.Backups) {
		if err != nil {
			return nil, err
		}
		s.Add(info.Key, info.Size, info.ModTime)
	}
	return s.Backups(), nil
}

// read reads one small object with parse.
func read[T any](ctx context.Context, st store.Store, key, backup string, parse func(string, io.Reader) (*T, error)) (*T, error) {
	r, _, err := st.Get(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return parse(backup, r)
}

func sentinel(ctx context.Context, st store.Store, backup string) (*catalog.Sentinel, error) {
	return read(ctx, st, catalog.SentinelKey(backup), backup, catalog.ReadSentinel)
}

// A reading reads one thing about a backup into it.
type reading func(ctx context.Context, st store.Store, b *lineage.Backup) error

func metadata(ctx context.Context, st store.Store, b *lineage.Backup) (err error) {
	b.Metadata, err = read(ctx, st, catalog.MetadataKey(b.Name), b.Name, catalog.ReadMetadata)
	b.MetadataErr = err
	return err
}

// described reads the metadata of a backup that may have none.
func described(ctx context.Context, st store.Store, b *lineage.Backup) error {
	if err := metadata(ctx, st, b); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// start reads what says when a backup started: its metadata, or else its
// sentinel.
func start(ctx context.Context, st store.Store, b *lineage.Backup) error {
	err := metadata(ctx, st, b)
	if err == nil || !showable(err) {
		return err
	}
	b.Sentinel, b.SentinelErr = sentinel(ctx, st, b.Name)
	if b.SentinelErr == nil && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(b.SentinelErr, err)
}

// all reads the sentinel and the metadata.
func all(ctx context.Context, st store.Store, b *lineage.Backup) error {
	b.Sentinel, b.SentinelErr = sentinel(ctx, st, b.Name)
	if !showable(b.SentinelErr) {
		return b.SentinelErr
	}
	return cmp.Or(metadata(ctx, st, b), b.SentinelErr)
}

// everything reads all that there is of all backups, finished or not.
func everything(ctx context.Context, e *cli.Env, st store.Store, backups []*lineage.Backup) error {
	if err := readAll(ctx, e, st, backups, all); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, b := range backups {
		if b.Described && !b.Finished {
			g.Go(func() error {
				if err := metadata(ctx, st, b); !showable(err) {
					return err
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// showable reports whether err is about one backup, which can be shown all the
// same. All other errors are about the storage.
func showable(err error) bool {
	return err == nil || fault.Status(err) == fault.Absent || fault.Status(err) == fault.Data || errors.Is(err, fs.ErrPermission)
}

// readAll reads of all finished backups. What is missing stays so; what is
// broken is a warning, where e is not nil, and no reason to show nothing; an outage
// is an error.
func readAll(ctx context.Context, e *cli.Env, st store.Store, backups []*lineage.Backup, what reading) error {
	errs := make([]error, len(backups))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, b := range backups {
		if b.Finished {
			g.Go(func() error {
				if errs[i] = what(ctx, st, b); !showable(errs[i]) {
					return errs[i]
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, b := range backups {
		switch {
		case e == nil:
		case errors.Is(errs[i], fs.ErrNotExist):
			e.Warn("backup %s has no metadata", b.Name)
		case errs[i] != nil:
			e.Warn("backup %s: %v", b.Name, errs[i])
		}
	}
	return nil
}

// resolve returns the name that the user means.
func resolve(ctx context.Context, e *cli.Env, st store.Store, name string) (string, error) {
	if name != catalog.Latest {
		if !catalog.ValidName(name) {
			return "", fault.New(fault.Usage, "%q cannot be the name of a backup", name)
		}
		return name, nil
	}
	backups, err := scan(ctx, st)
	if err != nil {
		return "", err
	}
	if err := readAll(ctx, e, st, backups, start); err != nil {
		return "", err
	}
	newest, err := lineage.Newest(backups)
	if err != nil {
		return "", err
	}
	return newest.Name, nil
}
