package main

import (
	"context"
	"maps"
	"slices"

	"walg/lib/fault"
	"walg/lib/store"
)

// sync compares the recorded metadata and makes the object durable.
func sync(ctx context.Context, st store.Store, key string, meta map[string]string) error {
	info, err := st.Stat(ctx, key)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		switch recorded, ok := info.Meta[name]; {
		case !ok:
			return fault.New(fault.Data, "sync %s: no %s is recorded, want %s", store.URL(st, key), name, meta[name])
		case recorded != meta[name]:
			return fault.New(fault.Data, "sync %s: %s is recorded as %s, want %s", store.URL(st, key), name, recorded, meta[name])
		}
	}
	return store.Sync(ctx, st, key)
}
