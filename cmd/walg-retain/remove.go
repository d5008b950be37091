package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	holds          map[string]bool // backups of which parts stay
}

func (r *removal) run(ctx context.Context) error {
	r.holds = map[string]bool{}
	defer func() { r.e.Say(fmt.Sprintf("deleted %d objects", r.objects.Load())) }()
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
		metadata := func(o catalog.Object) bool {
			return mine(o) && o.Class == catalog.ClassMetadata && !r.held(o.Backup)
		}
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
	if r.stay > 0 {
		return fault.WithHint(fault.New(fault.Failed, "delete: %d objects stay, see above", r.stay),
			"may these credentials delete there, and are the objects locked? Call it again to go on (--grace 0 for what is younger than a day)")
	}
	return nil
}

// sentinels removes the sentinels round by round. A backup whose sentinel stays
// is one still, so all that it needs must stay too: the plan is made again.
func (r *removal) sentinels(ctx context.Context) error {
	pinned := map[string]string{}
	if err := r.unfinished(ctx, pinned); err != nil {
		return err
	}
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
			failed, err := r.delete(ctx, keys[:n])
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
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, v := range r.plan.Verdicts {
		if v.Keep || v.Backup.Finished {
			continue
		}
		group.Go(func() error {
			_, err := r.st.Stat(gctx, catalog.SentinelKey(v.Backup.Name))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			r.e.Warn("backup %s is finished now, and stays", v.Backup.Name)
			r.stay++
			pinned[v.Backup.Name] = "it is finished now"
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(pinned) > before {
		return r.again(pinned)
	}
	return nil
}

// pass removes what the plan says below a prefix, as far as it is which.
func (r *removal) pass(ctx context.Context, prefix string, which func(catalog.Object) bool) error {
	newest := map[string]time.Time{}
	for _, v := range r.plan.Verdicts {
		newest[v.Backup.Name] = v.Backup.Newest
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(removers)
	var batch []store.Info
	flush := func() {
		if some := batch; len(some) > 0 {
			batch = nil
			group.Go(func() error { return r.objectsOf(gctx, some) })
		}
	}
	for info, err := range r.st.List(gctx, prefix) {
		if err != nil {
			// Of a batch that failed the list only knows that it was ended.
			return cmp.Or(group.Wait(), err)
		}
		remove, _ := r.plan.Object(info.Key, info.ModTime)
		o := r.plan.Classify(info.Key)
		if !remove || !which(o) {
			continue
		}
		if o.Backup != "" && info.ModTime.After(newest[o.Backup]) {
			r.keep(store.Undeleted{Key: info.Key, Err: errNew})
			continue
		}
		if batch = append(batch, info); len(batch) == r.batch {
			flush()
		}
	}
	flush()
	return group.Wait()
}

// errNew is about a backup that is made under the name of an old one, as a standby
// may do.
var errNew = errors.New("it was put after the plan was made")

func (r *removal) objectsOf(ctx context.Context, batch []store.Info) error {
	keys := make([]string, len(batch))
	for i, info := range batch {
		keys[i] = info.Key
	}
	failed, err := r.delete(ctx, keys)
	if err != nil {
		return err
	}
	stays := map[string]bool{}
	for _, u := range failed {
		stays[u.Key] = true
	}
	for _, info := range batch {
		if !stays[info.Key] {
			r.bytes.Add(info.Size)
		}
	}
	return nil
}

// delete removes a batch. What the storage refuses is told, and the rest goes
// on; a storage that answers nothing at all is an error.
func (r *removal) delete(ctx context.Context, keys []string) ([]store.Undeleted, error) {
	err := r.st.Delete(ctx, keys...)
	var some *store.DeleteError
	switch {
	case err == nil:
		r.objects.Add(int64(len(keys)))
		return nil, nil
	case !errors.As(err, &some), ctx.Err() != nil:
		return nil, err
	case len(some.Failed) == len(keys) && len(keys) > 1 && !refused(err):
		return nil, err
	}
	r.objects.Add(int64(len(keys) - len(some.Failed)))
	for _, u := range some.Failed {
		r.keep(u)
	}
	return some.Failed, nil
}

// held tells that parts of a backup stay, so that its metadata must too.
func (r *removal) held(backup string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holds[backup]
}

// refused tells that the storage has answered, and will not do it.
func refused(err error) bool {
	return err != nil && (fault.Status(err) == fault.Usage || errors.Is(err, fs.ErrPermission))
}

// keep tells of an object that stays.
func (r *removal) keep(u store.Undeleted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stay++; r.stay <= maxNamed {
		r.e.Warn("%s stays: %v", u.Key, u.Err)
	}
	if backup, ok := catalog.BackupOf(u.Key); ok {
		r.holds[backup] = true
	}
}
