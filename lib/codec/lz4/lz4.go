// Package lz4 writes one lz4 frame in parallel, as fast as the C program, and
// reads every stream of frames (lz4_Frame_format.md, lz4_Block_format.md), in
// parallel too where the blocks do not look back.
package lz4

import (
	"io"

	"walg/lib/decode"
)

const (
	inputSize = 256 << 10

	// What is written at once fits into a pipe: with more, we and the one who
	// reads wait for one another and never work at the same time.
	writeSize = 64 << 10

	// Blocks between the one being read and the one being written hold so much,
	// and take twice that: 3 of 4 MiB, 2 of the old format's 8 MiB, and no more
	// than 12 of smaller ones.
	aheadSize = 12 << 20
	maxAhead  = 12
)

// reader reads what the parser finds.
type reader struct {
	src     *decode.Input
	threads int
	free    chan *block // nil before the first read
	queue   chan *block
	held    *block // whose data rest is
	rest    []byte
	sum     *xxh32
	size    uint64 // of the frame so far
	frames  int
	proven  bool
	err     error
}

// NewReader returns a reader of frames of any kind, one after another, that
// decodes so many blocks at once. Corrupt and truncated data are errors with
// status 65; an error of r is passed on unchanged.
func NewReader(r io.Reader, threads int) decode.Reader {
	return &reader{src: decode.NewInput(r, "lz4", inputSize), threads: threads}
}

// Proven reports whether the stream was exactly one frame with a checksum of
// its content: several could have lost some of their number.
func (r *reader) Proven() bool { return r.err == io.EOF && r.frames == 1 && r.proven }

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.pass(n)
	return n, nil
}

// pass takes the first of rest into account and leaves it.
func (r *reader) pass(n int) {
	if r.held.frame.checked {
		r.sum.write(r.rest[:n])
	}
	r.size += uint64(n)
	r.rest = r.rest[n:]
}

// WriteTo writes to w without a copy between.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		for len(r.rest) > 0 {
			p := r.rest[:min(len(r.rest), writeSize)]
			r.pass(len(p))
			m, err := w.Write(p)
			n += int64(m)
			if err != nil {
				r.stop(err)
				return n, err
			}
		}
		if r.err == io.EOF {
			return n, nil
		}
		if r.err != nil {
			return n, r.err
		}
		r.next()
	}
}

// begin starts the parser.
func (r *reader) begin() {
	r.free = make(chan *block, maxAhead)
	r.queue = make(chan *block, maxAhead)
	for range cap(r.free) {
		r.free <- new(block)
	}
	p := parser{src: r.src, free: r.free, ahead: maxAhead, queue: r.queue, workers: make(chan struct{}, max(r.threads, 1))}
	go p.run()
}

// next makes rest the content of the next block, or sets err.
func (r *reader) next() {
	if r.free == nil {
		r.begin()
	}
	if r.held != nil {
		r.free <- r.held
		r.held = nil
	}
	b := <-r.queue
	if b.ready != nil {
		<-b.ready
	}
	if b.first {
		r.sum, r.size = newXXH32(), 0
		r.frames++
	}
	if b.end {
		b.err = r.judge(b)
	}
	if b.err != nil {
		r.stop(b.err)
		return
	}
	r.held, r.rest = b, b.data
}

// stop ends the reading, and the parser.
func (r *reader) stop(err error) {
	r.err, r.rest = err, nil
	close(r.free)
}

// judge compares what a frame held with what its end says of it.
func (r *reader) judge(b *block) error {
	r.proven = b.frame.checked
	switch {
	case b.frame.checked && r.sum.sum() != b.sum:
		return r.src.Corrupt("the content has another checksum")
	case b.frame.sized && r.size != b.frame.size:
		return r.src.Corrupt("the content has %d bytes, not %d", r.size, b.frame.size)
	}
	return nil
}
