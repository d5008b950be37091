package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// mark is the name of the metadata by which a Put knows its own object again,
// after an answer that never came.
const mark = "walg-put"

// abortTime is how long the removal of an unfinished upload may take. What it
// cannot remove the storage shows as a leftover.
const abortTime = 10 * time.Second

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Put stores an object that fits into one part by one request, and a larger one
// in parts that are sent side by side. Memory is that of Parallel parts and one
// more; parts grow where a storage limits their number.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, o store.PutOptions) error {
	if err := store.ValidMeta(o.Meta); err != nil {
		return err
	}
	full, err := s.full(key)
	if err != nil {
		return err
	}
	options := driver.Options{IfAbsent: o.IfAbsent}
	if s.traits.Meta {
		options.Meta = map[string]string{mark: rand.Text()}
		maps.Copy(options.Meta, o.Meta)
	}
	if err := s.put(ctx, full, &source{ctx: ctx, r: r}, options); err != nil {
		return s.fail("put", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, src *source, o driver.Options) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	first := s.buffer()
	n, err := src.fill(first)
	if err == nil {
		// Full: only what follows tells whether it is all.
		next := make([]byte, s.partSize(int64(n)))
		m, err := src.fill(next)
		switch {
		case err != nil && err != io.EOF:
			return err
		case m > 0:
			return s.putParts(ctx, key, o, src, first, next[:m], err == io.EOF)
		}
	} else if err != io.EOF {
		return err
	}
	err = s.commit(ctx, key, o, s.try, func(ctx context.Context) error {
		return s.d.Whole(ctx, key, first[:n], o)
	})
	if err == nil { // after an error a request may still be reading it
		select {
		case s.spare <- first:
		default:
		}
	}
	return err
}

// buffer returns one for the first part, which most objects do not fill: it
// need not be made anew for each of them.
func (s *Store) buffer() []byte {
	select {
	case buf := <-s.spare:
		return buf
	default:
		return make([]byte, s.traits.PartSize)
	}
}

// putParts sends first, next and, unless that was all, what follows in src.
func (s *Store) putParts(ctx context.Context, key string, o driver.Options, src *source, first, next []byte, all bool) (err error) {
	if o.IfAbsent {
		// The condition is checked by Commit. This only saves the trouble.
		switch _, err := s.stat(ctx, key); {
		case err == nil:
			return fs.ErrExist
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	living, end := context.WithCancel(ctx)
	defer end()
	var up driver.Upload
	err = s.try(ctx, func(context.Context) (err error) {
		up, err = s.d.Begin(living, key, o)
		return err
	})
	if err != nil {
		return fmt.Errorf("begin upload: %w", err)
	}
	defer func() {
		if err != nil {
			abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
			defer cancel()
			_ = up.Abort(abort) // what is left is no object, and Leftovers shows it
		}
	}()
	p := s.newParts(ctx, up)
	p.add(first)
	p.add(next)
	for !all && err == nil && p.ctx.Err() == nil {
		all, err = p.addFrom(src)
	}
	if failed := p.group.Wait(); failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	return s.commit(ctx, key, o, p.try, func(ctx context.Context) error { return up.Commit(ctx, p.n, p.whole) })
}

// parts sends the parts of one upload.
type parts struct {
	s      *Store
	up     driver.Upload
	ctx    context.Context // done when a part has failed
	group  *errgroup.Group
	try    func(context.Context, func(context.Context) error) error
	window int64 // bytes of all buffers together
	memory *semaphore.Weighted
	free   chan []byte
	n      int
	whole  driver.Sum
}

func (s *Store) newParts(ctx context.Context, up driver.Upload) *parts {
	p := &parts{s: s, up: up, try: s.try}
	p.group, p.ctx = errgroup.WithContext(ctx)
	p.group.SetLimit(s.traits.Parallel)
	if s.traits.Stream {
		p.group.SetLimit(1)
		p.try = s.once
	}
	p.window = s.traits.PartSize * int64(s.traits.Parallel+1)
	p.memory = semaphore.NewWeighted(p.window)
	p.free = make(chan []byte, s.traits.Parallel+1)
	return p
}

// weight is what a buffer takes of the window. One that is larger than the
// window has it for itself.
func (p *parts) weight(buf []byte) int64 { return min(int64(cap(buf)), p.window) }

// add sends data. Its buffer is free again when it has arrived.
func (p *parts) add(data []byte) {
	if p.memory.Acquire(p.ctx, p.weight(data)) == nil {
		p.send(data)
	}
}

func (p *parts) send(data []byte) {
	p.n++
	n, at := p.n, p.whole.Size
	p.whole.Size += int64(len(data))
	p.whole.CRC32C = crc32.Update(p.whole.CRC32C, castagnoli, data)
	p.group.Go(func() error {
		err := p.try(p.ctx, func(ctx context.Context) error { return p.up.Part(ctx, n, at, data) })
		p.release(data)
		if err != nil {
			return fmt.Errorf("upload part %d: %w", n, err)
		}
		return nil
	})
}

// release keeps a buffer for the next part: the collector would come too late
// to keep memory where it is.
func (p *parts) release(buf []byte) {
	select {
	case p.free <- buf[:cap(buf)]:
	default:
	}
	p.memory.Release(p.weight(buf))
}

// addFrom sends the next part of src and reports whether it was the last.
func (p *parts) addFrom(src *source) (last bool, err error) {
	size := p.s.partSize(p.whole.Size)
	if p.s.traits.MaxParts > 0 && p.n == p.s.traits.MaxParts {
		return false, fmt.Errorf("the storage takes no more than %d parts, and %d bytes are sent", p.n, p.whole.Size)
	}
	if err := p.memory.Acquire(p.ctx, min(size, p.window)); err != nil {
		return false, nil // the group knows the cause
	}
	var buf []byte
	select {
	case buf = <-p.free:
	default:
	}
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size:size]
	n, err := src.fill(buf)
	switch {
	case err != nil && err != io.EOF, n == 0:
		p.release(buf)
	default:
		p.send(buf[:n])
	}
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// partSize returns the size of the part that begins at an offset. While parts
// are few it is PartSize. Then it grows with the offset, so that MaxParts are
// enough for the largest object: 10,000 parts beginning with 20 MiB hold
// 8 TiB. A part is then a 1500th of what was sent before.
func (s *Store) partSize(at int64) int64 {
	const mib = 1 << 20
	size := s.traits.PartSize
	if s.traits.MaxParts > 0 {
		steady := int64(s.traits.MaxParts) * 3 / 20
		size = max(size, (at/max(steady, 1)+mib-1)/mib*mib)
	}
	if s.traits.MaxPart > 0 {
		size = min(size, s.traits.MaxPart)
	}
	return size
}

// commit makes an object, by f. An answer that did not come may have been a
// yes: then the object carries our mark.
func (s *Store) commit(ctx context.Context, key string, o driver.Options,
	try func(context.Context, func(context.Context) error) error, f func(context.Context) error) error {
	doubt := false
	err := try(ctx, func(ctx context.Context) error {
		err := f(ctx)
		if err != nil && doubt {
			switch mine, unknown := s.ours(ctx, key, o); {
			case mine:
				return nil
			case unknown != nil:
				return unknown // and not "it exists", which may be by ourselves
			}
		}
		doubt = doubt || err != nil && driver.Mendable(driver.Explain(err, s.traits))
		return err
	})
	if err != nil && doubt && ctx.Err() == nil {
		if mine, _ := s.ours(ctx, key, o); mine {
			return nil
		}
	}
	return err
}

// ours reports whether the object is there and the one of this Put. The error
// says that nobody knows.
func (s *Store) ours(ctx context.Context, key string, o driver.Options) (bool, error) {
	if !s.traits.Meta {
		return false, nil
	}
	object, err := s.d.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && object.Meta[mark] == o.Meta[mark], err
}

// source fills buffers from a reader.
type source struct {
	ctx context.Context
	r   io.Reader
	err error // what comes after the bytes returned so far
}

// patience is how often in a row a reader may return nothing.
const patience = 100

// fill reads until buf is full. An error comes with the bytes before it only if
// it is io.EOF.
func (s *source) fill(buf []byte) (int, error) {
	n, idle := 0, 0
	for n < len(buf) && s.err == nil {
		var m int
		m, s.err = s.r.Read(buf[n:])
		n += m
		if idle++; m > 0 {
			idle = 0
		} else if idle == patience && s.err == nil {
			s.err = io.ErrNoProgress
		}
		if s.ctx.Err() != nil {
			s.err = context.Cause(s.ctx)
		}
	}
	if n == len(buf) && (s.err == nil || s.err == io.EOF) {
		return n, nil // the end shows at the next call
	}
	return n, s.err
}
