package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/retain"
	"walg/lib/store"
)

const (
	removers = 4   // batches at once
	maxNamed = 100 // objects that are named on standard error because they stay
)

// removal carries a plan out: sentinels first, so that what is half removed is
// no backup any more; then parts; then the metadata, by which a removal that was
// cut short finds them again; the same for what the user named, last of all; then
// WAL.
type removal struct {
	st    store.Store
	plan  *retain.Plan
	e     *cli.Env
	batch int

	objects, bytes atomic.Int64
	mu             sync.Mutex
	stay           int
}

func (r *removal) run(ctx context.Context) error {
	if err := r.sentinels(ctx); err != nil {
		return err
	}
	tail := r.plan.Tail()
	for _, backup := range append([]string{""}, tail...) {
		prefix := catalog.Backups
		if backup != "" {
			prefix += backup + "/"
		}
		mine := func(o catalog.Object) bool { return backup != "" || !slices.Contains(tail, o.Backup) }
		data := func(o catalog.Object) bool {
			return mine(o) && (o.Class == catalog.ClassPart || o.Class == catalog.ClassFiles)
		}
		metadata := func(o catalog.Object) bool { return mine(o) && o.Class == catalog.ClassMetadata }
		for _, which := range []func(catalog.Object) bool{data, metadata} {
			if err := r.pass(ctx, prefix, which); err != nil {
				return err
			}
		}
	}
	if r.plan.RemovesWAL() {
		if err := r.pass(ctx, catalog.WAL, func(o catalog.Object) bool { return o.Class == catalog.ClassWAL }); err != nil {
			return err
		}
	}
	r.e.Say(fmt.Sprintf("deleted %d objects, %s", r.objects.Load(), cli.Human(r.bytes.Load())))
	if r.stay > 0 {
		return fault.WithHint(fault.New(fault.Failed, "delete: %d objects stay, see above", r.stay),
			"may these credentials delete there, and are the objects locked? Call it again to go on")
	}
	return nil
}

// sentinels removes the sentinels round by round. A backup whose sentinel stays
// is one still, so all that it needs must stay too: the plan is made again.
func (r *removal) sentinels(ctx context.Context) error {
	pinned := map[string]string{}
	for gone := map[string]bool{}; ; {
		round := next(r.plan.Rounds(), gone)
		if round == nil {
			return r.unfinished(ctx, pinned)
		}
		var keys []string
		for _, name := range round {
			gone[name] = true
			keys = append(keys, catalog.SentinelKey(name))
		}
		before := len(pinned)
		for len(keys) > 0 {
			n := min(r.batch, len(keys))
			failed, err := r.delete(ctx, keys[:n], 0)
			if err != nil {
				return err
			}
			for _, u := range failed {
				name, _ := catalog.SentinelOf(u.Key)
				pinned[name] = "its sentinel cannot be removed"
			}
			keys = keys[n:]
		}
		if len(pinned) > before {
			if err := r.again(pinned); err != nil {
				return err
			}
		}
	}
}

// next returns what is not gone of the first round that has any.
func next(rounds [][]string, gone map[string]bool) (round []string) {
	for _, names := range rounds {
		for _, name := range names {
			if !gone[name] {
				round = append(round, name)
			}
		}
		if round != nil {
			break
		}
	}
	return round
}

func (r *removal) again(pinned map[string]string) (err error) {
	r.plan, err = r.plan.With(pinned)
	return err
}

// unfinished looks once more whether what had no sentinel has none: its backup
// may have ended meanwhile.
func (r *removal) unfinished(ctx context.Context, pinned map[string]string) error {
	before := len(pinned)
	for _, v := range r.plan.Verdicts {
		if v.Keep || v.Backup.Finished {
			continue
		}
		switch _, err := r.st.Stat(ctx, catalog.SentinelKey(v.Backup.Name)); {
		case err == nil:
			r.e.Warn("backup %s is finished now, and stays", v.Backup.Name)
			pinned[v.Backup.Name] = "it is finished now"
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if len(pinned) > before {
		return r.again(pinned)
	}
	return nil
}

// pass removes what the plan says below a prefix, as far as it is which.
func (r *removal) pass(ctx context.Context, prefix string, which func(catalog.Object) bool) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(removers)
	var keys []string
	var bytes int64
	flush := func() {
		batch, size := keys, bytes
		keys, bytes = nil, 0
		if len(batch) > 0 {
			group.Go(func() error {
				_, err := r.delete(gctx, batch, size)
				return err
			})
		}
	}
	for info, err := range r.st.List(gctx, prefix) {
		if err != nil {
			group.Wait()
			return err
		}
		if remove, _ := r.plan.Object(info.Key); !remove || !which(r.plan.Classify(info.Key)) {
			continue
		}
		keys, bytes = append(keys, info.Key), bytes+info.Size
		if len(keys) == r.batch {
			flush()
		}
	}
	flush()
	return group.Wait()
}

// delete removes a batch. What the storage refuses is told, and the rest goes
// on; a storage that answers nothing at all is an error.
func (r *removal) delete(ctx context.Context, keys []string, size int64) ([]store.Undeleted, error) {
	err := r.st.Delete(ctx, keys...)
	var some *store.DeleteError
	switch {
	case err == nil:
		r.objects.Add(int64(len(keys)))
		r.bytes.Add(size)
		return nil, nil
	case !errors.As(err, &some), ctx.Err() != nil:
		return nil, err
	case len(some.Failed) == len(keys) && len(keys) > 1 && fault.Status(err) != fault.Usage && !errors.Is(err, fs.ErrPermission):
		return nil, err
	}
	r.objects.Add(int64(len(keys) - len(some.Failed)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range some.Failed {
		if r.stay++; r.stay <= maxNamed {
			r.e.Warn("%s stays: %v", u.Key, u.Err)
		}
	}
	return some.Failed, nil
}
