package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"walg/lib/dirfd"
	"walg/lib/tarball"
	"walg/lib/tree"
)

// batch is a run of entries that a worker turns into archive bytes. It stops at
// an entry that does not fit; that one and the rest are streamed.
type batch struct {
	entries []tree.Entry
	size    int64 // what the entries will need
	dirs    int
	bytes   []byte
	members []Member
	rest    []tree.Entry
	err     error
	done    chan struct{} // capacity 1
}

func (b *batch) reset() {
	for i := range b.entries {
		b.entries[i].Release()
	}
	clear(b.entries)
	*b = batch{entries: b.entries[:0], bytes: b.bytes[:0], members: b.members[:0], done: b.done}
}

// add takes an entry and reports whether the batch is full with it.
func (b *batch) add(e *tree.Entry) bool {
	if n := len(b.entries); n == 0 || !b.entries[n-1].Beside(e) {
		b.dirs++
	}
	b.entries = append(b.entries, *e)
	e.Retain()
	b.size += 2 * blockSize
	if e.Info.IsRegular() {
		b.size += e.Info.Size
	}
	return b.size > batchSize-smallFile || len(b.entries) == batchFiles || b.dirs == batchDirs
}

// tree archives the paths from from to to: it walks, reads ahead and writes,
// each in its own goroutines, in order.
func (w *Writer) tree(parent context.Context, h *hooks, from, to string) (tot tarball.Totals, err error) {
	if w.err != nil {
		return tot, w.err
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	free, order, work := make(chan *batch, inFlight), make(chan *batch, inFlight), make(chan *batch, inFlight)
	for range inFlight {
		free <- &batch{done: make(chan struct{}, 1)}
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	var walked int64 // with walkErr valid when order is closed
	var walkErr error
	wait.Go(func() {
		defer close(order)
		defer close(work)
		send := func(b *batch) { order <- b; work <- b } // neither blocks: each holds all batches
		walked, walkErr = batches(ctx, &h.tree, from, to, free, send)
	})
	for range workers {
		wait.Go(func() {
			for b := range work {
				if ctx.Err() == nil {
					w.fill(h, b)
				}
				b.done <- struct{}{}
			}
		})
	}
	for b := range order {
		<-b.done
		if w.err == nil && parent.Err() == nil {
			w.err = w.emit(parent, h, b, &tot)
		}
		if w.err != nil {
			cancel()
		}
		b.reset()
		free <- b
	}
	if w.err == nil {
		w.err = walkErr
	}
	if parent.Err() != nil && (w.err == nil || errors.Is(w.err, parent.Err())) {
		w.err = context.Cause(parent)
	}
	tot.Walked, tot.Parts = walked, 1
	return tot, w.err
}

// batches walks the tree in batches taken from free.
func batches(ctx context.Context, t *tree.Tree, from, to string, free <-chan *batch, send func(*batch)) (walked int64, err error) {
	var b *batch
	walked, err = t.Walk(from, to, func(e *tree.Entry) error {
		if b == nil {
			select {
			case b = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if b.add(e) {
			send(b)
			b = nil
		}
		return nil
	})
	if b != nil {
		send(b)
	}
	return walked, err
}

// open opens a regular file; ok is false where it has vanished meanwhile.
func (h *hooks) open(e *tree.Entry) (f dirfd.File, i dirfd.Info, ok bool, err error) {
	f, i, err = e.Open()
	if err == nil && !i.IsRegular() {
		f.Close() // only read from
		err = fs.ErrNotExist
	}
	switch {
	case err == nil:
		return f, i, true, nil
	case errors.Is(err, fs.ErrNotExist) || dirfd.Gone(err):
		h.warn("%s vanished: left out", h.tree.Where(e.Path))
		return f, i, false, nil
	}
	return f, i, false, fmt.Errorf("open %s: %w", h.tree.Where(e.Path), err)
}

// shrunk is the live tree rule for a file that had fewer bytes than its header says.
func (h *hooks) shrunk(path string, missing int64) error {
	if !h.Live {
		return fmt.Errorf("read %s: the file shrank by %d bytes while it was read", h.tree.Where(path), missing)
	}
	h.warn("%s shrank by %d bytes while it was read: padded with zeros", h.tree.Where(path), missing)
	return nil
}

// readFull returns fewer bytes than p holds only at the end of the file.
func readFull(f io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(f, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, err
}

// fill prepares the bytes of a batch.
func (w *Writer) fill(h *hooks, b *batch) {
	if b.bytes == nil {
		b.bytes = make([]byte, 0, batchSize)
	}
	for n := range b.entries {
		e := &b.entries[n]
		fits, err := w.small(h, b, e)
		if err != nil {
			b.err = err
			return
		}
		if !fits {
			b.rest = b.entries[n:]
			return
		}
	}
}

// small appends one member to the batch, or reports that it does not fit.
func (w *Writer) small(h *hooks, b *batch, e *tree.Entry) (fits bool, err error) {
	room := int64(cap(b.bytes)-len(b.bytes)) - headerRoom - 2*int64(len(e.Path)+len(e.Link))
	regular := e.Info.IsRegular()
	if room < 0 || regular && e.Info.Size > min(room, smallFile) {
		return false, nil
	}
	var f dirfd.File
	if regular {
		var ok bool
		if f, e.Info, ok, err = h.open(e); err != nil || !ok {
			return true, err
		}
		defer f.Close()         // only read from
		if e.Info.Size > room { // it has grown
			return false, nil
		}
	}
	name := h.memberName(e.Path, e.Info.IsDir())
	header := w.owners.header(name, &e.Info, e.Link)
	if b.bytes, err = appendHeader(b.bytes, header); err != nil {
		return true, fmt.Errorf("archive %s: %w", h.tree.Where(e.Path), err)
	}
	if regular {
		p := b.bytes[len(b.bytes) : len(b.bytes)+int(e.Info.Size)]
		got, err := readFull(f, p)
		if err != nil {
			return true, fmt.Errorf("read %s: %w", h.tree.Where(e.Path), err)
		}
		if err := h.inspect(e.Path, 0, p[:got], f); err != nil {
			return true, err
		}
		if got < len(p) {
			clear(p[got:])
			if err := h.shrunk(e.Path, int64(len(p)-got)); err != nil {
				return true, err
			}
		}
		b.bytes = append(b.bytes[:len(b.bytes)+len(p)], padding(e.Info.Size)...)
	}
	b.members = append(b.members, Member{Name: name, Part: w.part, Size: header.Size, ModTime: e.Info.ModTime, Dir: e.Info.IsDir(), Link: e.Link != ""})
	return true, nil
}

func count(t *tarball.Totals, m Member) {
	switch {
	case m.Dir:
		t.Dirs++
	case m.Link:
		t.Links++
	default:
		t.Files++
		t.Bytes += m.Size
	}
}

// emit writes a batch.
func (w *Writer) emit(ctx context.Context, h *hooks, b *batch, tot *tarball.Totals) error {
	if len(b.entries) > 0 && b.entries[0].Path == "" { // the root
		w.uid, w.gid = b.entries[0].Info.UID, b.entries[0].Info.GID
	}
	if w.write(b.bytes); w.err != nil {
		return w.err
	}
	for _, m := range b.members {
		count(tot, m)
	}
	h.members(b.members)
	if b.err != nil {
		return b.err
	}
	for n := range b.rest {
		if err := w.stream(ctx, h, &b.rest[n], tot); err != nil {
			return err
		}
	}
	return nil
}

// stream writes one member whose contents need not fit into memory.
func (w *Writer) stream(ctx context.Context, h *hooks, e *tree.Entry, tot *tarball.Totals) error {
	regular := e.Info.IsRegular()
	var f dirfd.File
	if regular {
		var ok bool
		var err error
		if f, e.Info, ok, err = h.open(e); err != nil || !ok {
			return err
		}
		defer f.Close() // only read from
	}
	name := h.memberName(e.Path, e.Info.IsDir())
	header, err := appendHeader(nil, w.owners.header(name, &e.Info, e.Link))
	if err != nil {
		return fmt.Errorf("archive %s: %w", h.tree.Where(e.Path), err)
	}
	w.write(header)
	m := Member{Name: name, Part: w.part, ModTime: e.Info.ModTime, Dir: e.Info.IsDir(), Link: e.Link != ""}
	if regular {
		m.Size = e.Info.Size
		if err := w.contents(ctx, h, e, f); err != nil {
			return err
		}
		w.write(padding(m.Size))
	}
	if w.err != nil {
		return w.err
	}
	count(tot, m)
	h.members([]Member{m})
	return nil
}

// contents copies a file in chunks, reading ahead of the writer.
func (w *Writer) contents(ctx context.Context, h *hooks, e *tree.Entry, f dirfd.File) error {
	if w.chunks == nil {
		for range streamAhead {
			w.chunks = append(w.chunks, make([]byte, chunkSize))
		}
	}
	type chunk struct {
		p   []byte
		err error
	}
	free, full := make(chan []byte, streamAhead), make(chan chunk, streamAhead)
	for _, c := range w.chunks {
		free <- c
	}
	size := e.Info.Size
	read := func() {
		defer close(full)
		for off := int64(0); off < size; off += chunkSize {
			p, ok := <-free
			if !ok {
				return
			}
			p = p[:min(chunkSize, size-off)]
			n, err := readFull(f, p)
			if err != nil {
				err = fmt.Errorf("read %s: %w", h.tree.Where(e.Path), err)
			} else {
				err = h.inspect(e.Path, off, p[:n], f)
			}
			full <- chunk{p[:n], err}
			if err != nil || n < len(p) {
				return
			}
		}
	}
	if size > chunkSize {
		go read()
	} else {
		read()
	}
	left, err := size, error(nil)
	for c := range full {
		if err != nil {
			continue // until the reader has noticed
		}
		if err = cmp.Or(c.err, ctx.Err()); err == nil {
			w.write(c.p)
			left, err = left-int64(len(c.p)), w.err
		}
		if err != nil {
			close(free)
			continue
		}
		free <- c.p[:chunkSize]
	}
	if err == nil && left > 0 {
		err = h.shrunk(e.Path, left)
	}
	for ; err == nil && left > 0; left -= min(left, int64(len(zeros))) {
		w.write(zeros[:min(left, int64(len(zeros)))])
		err = cmp.Or(w.err, ctx.Err())
	}
	return err
}
