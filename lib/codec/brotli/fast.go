package brotli

import (
	"io"

	library "github.com/andybalholm/brotli"
	"github.com/andybalholm/brotli/matchfinder"
)

const (
	blockSize = 64 << 10 // is searched at once

	// A metablock ends after so many symbols, literals and copies, as in the
	// reference's own fast levels: often enough to follow the data, so seldom
	// that the codes at its head cost little.
	metaSymbols = 12 << 10
	metaSize    = 1 << 20 // the longest, of data that is nearly all copies

	batches    = 3        // one being searched, one waiting, one being coded
	outputSize = 64 << 10 // is written at once, or more
)

// fast finds matches and codes them, each on a core of its own.
type fast struct {
	w       io.Writer
	finder  matchfinder.MatchFinder
	encoder library.Encoder
	batch   *batch        // being searched, or nil before the first
	free    chan *batch   // batches that can be filled: their number bounds memory
	queue   chan *batch   // batches to be coded, in order
	ended   chan struct{} // the queue is written
	fail    chan struct{} // closed when err is set
	err     error         // of writing; read after ended or fail
	out     []byte        // coded, not yet written
	begun   bool          // the first byte is written
	done    bool
}

// batch is the content of one metablock, and its matches.
type batch struct {
	src      []byte
	searched int // of src
	matches  []matchfinder.Match
	tail     int // bytes after the last match
	symbols  int
	last     bool
}

func newFast(w io.Writer, finder matchfinder.MatchFinder) *fast {
	z := &fast{
		w:      w,
		finder: finder,
		free:   make(chan *batch, batches),
		queue:  make(chan *batch, 1),
		ended:  make(chan struct{}),
		fail:   make(chan struct{}),
	}
	for range batches {
		z.free <- new(batch)
	}
	return z
}

// begin starts the goroutine that codes what was searched.
func (z *fast) begin() {
	if z.batch == nil {
		z.batch = <-z.free
		go z.codeAll()
	}
}

// Write compresses p.
func (z *fast) Write(p []byte) (n int, err error) {
	z.begin()
	for len(p) > 0 {
		if err := z.failure(); err != nil {
			return n, err
		}
		b := z.batch
		k := min(len(p), b.searched+blockSize-len(b.src))
		b.src = append(b.src, p[:k]...)
		n += k
		p = p[k:]
		if len(b.src) == b.searched+blockSize {
			b.search(z.finder)
			if b.symbols >= metaSymbols || len(b.src) == metaSize {
				z.send()
			}
		}
	}
	return n, z.failure()
}

// search finds the matches in the part of src that has not been searched.
func (b *batch) search(finder matchfinder.MatchFinder) {
	had := len(b.matches)
	b.matches = finder.FindMatches(b.matches, b.src[b.searched:])
	b.searched = len(b.src)
	for _, m := range b.matches[had:] {
		b.symbols += m.Unmatched + 1
	}
	b.matches[had].Unmatched += b.tail
	b.tail = 0
	// A match without a length is the end of the block. Within a metablock
	// there must be none: its bytes belong to the next match.
	if end := b.matches[len(b.matches)-1]; end.Length == 0 {
		b.matches = b.matches[:len(b.matches)-1]
		b.tail = end.Unmatched
	}
}

// failure is the error of writing, if it is known yet.
func (z *fast) failure() error {
	select {
	case <-z.fail:
		return z.err
	default:
		return nil
	}
}

// send has the batch coded and takes the next one to fill.
func (z *fast) send() {
	z.queue <- z.batch
	b := <-z.free
	*b = batch{src: b.src[:0], matches: b.matches[:0]}
	z.batch = b
}

func (z *fast) codeAll() {
	defer close(z.ended)
	for b := range z.queue {
		if z.err == nil {
			if z.err = z.code(b); z.err != nil {
				close(z.fail)
			}
		}
		z.free <- b
	}
}

// code writes a batch as a metablock.
func (z *fast) code(b *batch) error {
	if b.tail > 0 {
		b.matches = append(b.matches, matchfinder.Match{Unmatched: b.tail})
	}
	z.out = z.encoder.Encode(z.out, b.src, b.matches, b.last)
	if len(z.out) < outputSize && !b.last {
		return nil
	}
	if !z.begun {
		z.begun = true
		// The library says that it needs the largest window, in the first four
		// bits (RFC 7932 section 9.1). It does not: no match is so far away.
		z.out[0] = z.out[0]&^0xf | (windowLog-17)<<1 | 1
	}
	_, err := z.w.Write(z.out)
	z.out = z.out[:0]
	return err
}

// Close writes the last metablock and the end of the stream.
func (z *fast) Close() error {
	if z.done {
		return z.err
	}
	z.done = true
	z.begin()
	if len(z.batch.src) > z.batch.searched {
		z.batch.search(z.finder)
	}
	z.batch.last = true
	z.queue <- z.batch
	close(z.queue)
	<-z.ended
	return z.err
}
