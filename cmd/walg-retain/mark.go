package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/store"
)

// maxMetadata is how large a metadata.json may be that is changed, in bytes.
const maxMetadata = 16 << 20

func setupMark(f *cli.Flags) cli.Run {
	impermanent := f.Bool("impermanent", "i", "", "make it an ordinary backup again")
	return with(f, 1, 1, func(ctx context.Context, e *cli.Env, st store.Store, name string) error {
		name, err := resolve(ctx, e, st, name)
		if err != nil {
			return err
		}
		chain, err := lineage.Chain(name, func(backup string) (*catalog.Sentinel, error) { return sentinel(ctx, st, backup) })
		if err != nil {
			return err
		}
		if !*impermanent {
			// The full backup first: what a permanent one needs is permanent at
			// any moment.
			for _, backup := range chain {
				if err := mark(ctx, e, st, backup, true); err != nil {
					return err
				}
			}
			return nil
		}
		needed, err := permanentDeltas(ctx, e, st, name)
		if err != nil {
			return err
		}
		if needed != nil {
			return fault.WithHint(fault.New(fault.Usage, "mark %s: permanent backups are based on it: %s", name, strings.Join(needed, ", ")),
				"make these ordinary first, the newest first")
		}
		return mark(ctx, e, st, name, false)
	})
}

// permanentDeltas are the permanent backups that name is part of the chain of.
func permanentDeltas(ctx context.Context, e *cli.Env, st store.Store, name string) (needed []string, err error) {
	backups, err := scan(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := everything(ctx, e, st, backups); err != nil {
		return nil, err
	}
	for _, b := range lineage.Needing(backups, name) {
		if b.Permanent() {
			needed = append(needed, b.Name)
		}
	}
	return needed, nil
}

// mark changes one word in a backup's metadata. Where that is missing or
// damaged, the sentinel says it all.
func mark(ctx context.Context, e *cli.Env, st store.Store, backup string, permanent bool) error {
	key := catalog.MetadataKey(backup)
	old, err := content(ctx, st, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var marked []byte
	if err == nil {
		marked, err = catalog.SetPermanent(backup, old, permanent)
	}
	if err != nil {
		e.Warn("%v: written anew from the sentinel", err)
		s, err := sentinel(ctx, st, backup)
		if err != nil {
			return err
		}
		m := s.Metadata()
		m.IsPermanent = permanent
		if marked, err = m.Encode(); err != nil {
			return err
		}
	}
	state := map[bool]string{true: "permanent", false: "not permanent"}[permanent]
	if old != nil && bytes.Equal(old, marked) {
		e.Warn("backup %s is %s already", backup, state)
		return nil
	}
	if err := st.Put(ctx, key, bytes.NewReader(marked), store.PutOptions{}); err != nil {
		return err
	}
	e.Say("backup " + backup + " is " + state + " now")
	return nil
}

// content is all of a small object.
func content(ctx context.Context, st store.Store, key string) ([]byte, error) {
	r, _, err := st.Get(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err == nil && len(text) > maxMetadata {
		err = fault.New(fault.Data, "read %s: more than %d bytes", key, maxMetadata)
	}
	return text, err
}
