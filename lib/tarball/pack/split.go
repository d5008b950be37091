package pack

import (
	"context"
	"fmt"
	"io"
	"sync"

	"walg/lib/tarball"
	"walg/lib/tree"
)

// Part is one archive of several. Close(nil) commits it and Close(err) gives
// it up; exactly one of them is called, once.
type Part interface {
	io.Writer
	Close(err error) error
}

// SplitOptions say how a tree becomes several archives.
type SplitOptions struct {
	Size int64 // a part ends after the member with which its contents exceed Size; not positive: one part
	Jobs int   // parts written at once, at least 1
	Open func(part int) (Part, error)
}

// cut is the range of paths of one part.
type cut struct {
	part     int
	from, to string
}

// Split archives a tree as parts, numbered from 1 in the order of the walk;
// there is always one. A first walk, without reading files, finds the path at
// which each part begins, so that several can be written at once in bounded
// memory; each part then walks its own range. A file that appears or grows
// between the two walks goes where its path belongs. The first error ends all
// parts; a part that is stuck in Write is the caller's to break.
func Split(ctx context.Context, src Source, opt SplitOptions) (tarball.Totals, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := newHooks(src)
	names := newOwners()
	var tot tarball.Totals
	var mu sync.Mutex
	cuts := make(chan cut)
	var wait sync.WaitGroup
	for range max(opt.Jobs, 1) {
		wait.Go(func() {
			for c := range cuts {
				t, err := writePart(ctx, h, names, c, opt.Open)
				if err != nil {
					cancel(err) // the first call counts
				}
				mu.Lock()
				tot.Add(t)
				mu.Unlock()
			}
		})
	}
	if err := plan(ctx, h, opt.Size, cuts); err != nil {
		cancel(err)
	}
	close(cuts)
	wait.Wait()
	return tot, context.Cause(ctx)
}

// plan sends the range of each part.
func plan(ctx context.Context, h *hooks, size int64, cuts chan<- cut) error {
	c := cut{part: 1}
	send := func(to string) error {
		c.to = to
		select {
		case cuts <- c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c = cut{part: c.part + 1, from: to}
		return nil
	}
	var bytes int64
	t := h.tree
	t.Warn = nil // the walks of the parts give the warnings
	_, err := t.Walk("", "", func(e *tree.Entry) error {
		if size > 0 && bytes > size {
			if err := send(e.Path); err != nil {
				return err
			}
			bytes = 0
		}
		if e.Info.IsRegular() {
			bytes += e.Info.Size
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return send("")
}

func writePart(ctx context.Context, h *hooks, names *owners, c cut, open func(int) (Part, error)) (tarball.Totals, error) {
	if ctx.Err() != nil {
		return tarball.Totals{}, context.Cause(ctx)
	}
	p, err := open(c.part)
	if err != nil {
		return tarball.Totals{}, fmt.Errorf("part %d: %w", c.part, err)
	}
	w := NewWriter(p)
	w.part, w.owners = c.part, names
	tot, err := w.tree(ctx, h, c.from, c.to)
	if err == nil {
		err = w.Close()
	}
	if e := p.Close(err); err == nil {
		err = e
	}
	if err != nil {
		return tot, fmt.Errorf("part %d: %w", c.part, err)
	}
	return tot, nil
}
