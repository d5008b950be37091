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
// some the others go on; where it does not answer they end.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if full[i], err = s.full(key); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	stay := map[string]error{} // by full name
	var group errgroup.Group
	group.SetLimit(s.traits.Parallel)
	for batch := range slices.Chunk(full, max(s.traits.Batch, 1)) {
		group.Go(func() error {
			some, outage := s.deleteBatch(ctx, batch)
			if outage != nil {
				cancel(outage)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, u := range some {
				stay[u.Key] = u.Err
			}
			return nil
		})
	}
	group.Wait()
	var failed []store.Undeleted
	for i, key := range keys {
		if err := stay[full[i]]; err != nil {
			delete(stay, full[i]) // a key that was given twice
			failed = append(failed, store.Undeleted{Key: key, Err: &undeleted{s, key, err}})
		}
	}
	if failed == nil {
		return nil
	}
	return &store.DeleteError{Failed: failed, Of: len(keys)}
}

// deleteBatch removes objects and returns those that may be there still, with
// their causes. Only what may yet be mended is tried again. outage is set where
// the storage did not answer.
func (s *Store) deleteBatch(ctx context.Context, batch []string) (stay []store.Undeleted, outage error) {
	left := batch               // to try
	var again []store.Undeleted // the same with their causes, where those are known
	err := s.try(ctx, func(ctx context.Context) error {
		again = nil
		err := s.d.Delete(ctx, left)
		var some driver.Undeleted
		if !errors.As(err, &some) {
			return err
		}
		left = nil
		for _, u := range some {
			u.Err = driver.Explain(u.Err, s.traits)
			switch {
			case driver.Mendable(u.Err):
				left, again = append(left, u.Key), append(again, u)
			case !errors.Is(u.Err, fs.ErrNotExist):
				stay = append(stay, u)
			}
		}
		if again == nil {
			return nil
		}
		return again[0].Err
	})
	if err == nil || len(batch) == 1 && errors.Is(err, fs.ErrNotExist) {
		return stay, nil
	}
	if again != nil && ctx.Err() == nil {
		// The storage answers, and does not do these. err is about the first,
		// and says how often it was tried.
		again[0].Err = err
		return append(stay, again...), nil
	}
	if driver.Mendable(err) {
		outage = err
	}
	for _, key := range left {
		stay = append(stay, store.Undeleted{Key: key, Err: err})
	}
	return stay, outage
}

// undeleted makes its text when it is asked: an outage has as many of them as
// there are keys.
type undeleted struct {
	s     *Store
	key   string
	cause error
}

func (e *undeleted) Error() string { return e.s.fail("delete", e.key, e.cause).Error() }
func (e *undeleted) Unwrap() error { return e.cause }

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

// Discard removes what a killed upload has left, where the storage can.
func (s *Store) Discard(ctx context.Context, l store.Leftover) error {
	key, err := s.full(l.Key)
	if err != nil {
		return err
	}
	d, ok := s.d.(driver.Unfinished)
	if !ok {
		return s.fail("discard", l.Name, fault.New(fault.Usage, "this storage shows no unfinished uploads"))
	}
	name := l.Name
	l.Key, l.Name = key, s.root+name
	err = s.try(ctx, func(ctx context.Context) error { return d.Discard(ctx, l) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.fail("discard", name, err)
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
