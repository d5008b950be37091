package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

// List reads page after page.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := store.ValidPrefix(prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		last, from := "", ""
		for {
			var page []store.Info
			var next string
			err := s.try(ctx, func(ctx context.Context) (err error) {
				page, next, err = s.d.Page(ctx, s.root+prefix, from)
				return err
			})
			if err != nil {
				yield(store.Info{}, s.fail("list", prefix, err))
				return
			}
			for _, info := range page {
				key, below := strings.CutPrefix(info.Key, s.root)
				switch {
				case !below || !strings.HasPrefix(key, prefix):
					err = fmt.Errorf("the storage lists %q, which is not below the prefix", info.Key)
				case store.ValidKey(key) != nil:
					continue
				case key <= last:
					// Chains and retention rest on the order.
					err = fmt.Errorf("the storage lists %q after %q", key, last)
				}
				if err != nil {
					yield(store.Info{}, s.fail("list", prefix, err))
					return
				}
				last = key
				if !yield(store.Info{Key: key, Size: info.Size, ModTime: info.ModTime}, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			from = next
		}
	}
}

// Delete removes objects in batches, several at once. Where the storage refuses
// one the others go on; where it does not answer they end.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if full[i], err = s.full(key); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return s.fail("delete", "", context.Cause(ctx))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var first error
	failed := 0
	var group errgroup.Group
	group.SetLimit(s.traits.Parallel)
	for batch := range slices.Chunk(full, max(s.traits.Batch, 1)) {
		group.Go(func() error {
			err := s.try(ctx, func(ctx context.Context) error { return s.d.Delete(ctx, batch) })
			if err == nil || len(batch) == 1 && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if driver.Mendable(err) {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if failed += len(batch); first == nil {
				first = s.fail("delete", strings.TrimPrefix(batch[0], s.root), err)
			}
			return nil
		})
	}
	group.Wait()
	if failed > 1 {
		return fmt.Errorf("%w (this one or others, up to %d of %d objects)", first, failed, len(keys))
	}
	return first
}

// Leftovers shows what killed uploads have left, where the storage can.
func (s *Store) Leftovers(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		if err := store.ValidPrefix(prefix); err != nil {
			yield(store.Leftover{}, err)
			return
		}
		d, ok := s.d.(driver.Unfinished)
		if !ok {
			return
		}
		for l, err := range d.Unfinished(ctx, s.root+prefix) {
			if err != nil {
				yield(store.Leftover{}, s.fail("list unfinished uploads of", prefix, driver.Explain(err, s.traits)))
				return
			}
			l.Name, l.Key = strings.TrimPrefix(l.Name, s.root), strings.TrimPrefix(l.Key, s.root)
			if !yield(l, nil) {
				return
			}
		}
	}
}

// URL returns the absolute name of the object.
func (s *Store) URL(key string) string { return s.d.URL(s.root + key) }

// full returns the name in the bucket of a valid key.
func (s *Store) full(key string) (string, error) {
	if err := store.ValidKey(key); err != nil {
		return "", err
	}
	if n := len(s.root) + len(key); n > store.MaxKey {
		return "", fault.New(fault.Usage, "key %.40q...: %d bytes long with the prefix, the limit is %d", key, n, store.MaxKey)
	}
	return s.root + key, nil
}

func (s *Store) fail(op, key string, err error) error {
	return fmt.Errorf("%s %s: %w", op, s.URL(key), err)
}

// info is what the user of the store sees of an object.
func (s *Store) info(key string, o driver.Object) store.Info {
	info := o.Info
	info.Key = key
	delete(info.Meta, mark)
	if len(info.Meta) == 0 {
		info.Meta = nil
	}
	return info
}
