package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/store"
)

// parts prints the keys of a backup's parts in the order of a restore, with
// pg_control last. A part that the backup's list of files names must be there:
// the listing alone does not show that one is missing.
func parts(ctx context.Context, e *cli.Env, st store.Store, name string) error {
	name, err := resolve(ctx, e, st, name)
	if err != nil {
		return err
	}
	recorded, err := read(ctx, st, catalog.FilesKey(name), name, readParts)
	if errors.Is(err, fs.ErrNotExist) { // of an old backup, or its owner wanted none
		recorded, err = &[]string{}, nil
	}
	if err != nil {
		return err
	}
	prefix := catalog.PartsPrefix(name)
	var keys, control []string
	for info, err := range st.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(info.Key, prefix+catalog.ControlPart("")) {
			control = append(control, info.Key)
		} else {
			keys = append(keys, info.Key)
		}
	}
	if len(keys) == 0 && len(control) == 0 {
		return fault.New(fault.Absent, "backup %s has no parts in %s", name, store.URL(st, ""))
	}
	for _, part := range *recorded {
		if _, found := slices.BinarySearch(keys, prefix+part); !found {
			return fault.New(fault.Absent, "backup %s: a part is missing: %s", name, store.URL(st, prefix+part))
		}
	}
	if control == nil {
		return fault.New(fault.Absent, "backup %s: a part is missing: %s", name, store.URL(st, prefix+catalog.ControlPart("")))
	}
	return lines(e.Stdout, append(keys, control...))
}

func readParts(backup string, r io.Reader) (*[]string, error) {
	names, err := catalog.ReadParts(backup, r)
	return &names, err
}
