package lz4

import (
	"errors"
	"io"
	"math/bits"

	pierrec "github.com/pierrec/lz4/v4"

	"walg/lib/decode"
)

// block is one block on its way from the input to the target, or the end of a
// frame or of the stream.
type block struct {
	src   []byte // as it stands in the frame
	data  []byte // what it holds, in out or in src
	out   []byte
	first bool // of its frame
	frame frame
	sum   uint32 // of src; at the end of a frame, of the content

	end   bool          // no block but the end of a frame
	err   error         // no block but why there are no more, or what is wrong with this one
	ready chan struct{} // closed when data or err is set
}

// parser cuts a stream into blocks and has them decoded.
type parser struct {
	src     *decode.Input
	free    <-chan *block // closed when the rest of the stream does not matter
	ahead   int           // blocks there are
	queue   chan<- *block // in order
	workers chan struct{} // as many as may decode at once
	frames  int
	window  []byte // what linked blocks look back at
}

var errStopped = errors.New("stopped")

// run parses all of the stream. The last block says why there are no more.
func (p *parser) run() {
	for {
		f, err := p.open()
		if err == nil {
			err = p.blocks(f)
		}
		if err == nil {
			continue
		}
		if b := p.take(); b != nil {
			b.err = err
			p.queue <- b
		}
		return
	}
}

// take returns a block that is free, or nil.
func (p *parser) take() *block {
	b := <-p.free
	if b != nil {
		*b = block{src: b.src, out: b.out}
	}
	return b
}

// blocks reads the blocks of a frame, and its end.
func (p *parser) blocks(f frame) error {
	for ; p.ahead > max(aheadSize/f.most, 2); p.ahead-- {
		<-p.free // and there is one less, for this frame and the next ones
	}
	p.window = p.window[:0]
	for first := true; ; first = false {
		size, plain, err := p.blockSize(f)
		if err != nil {
			return err
		}
		b := p.take()
		if b == nil {
			return errStopped
		}
		b.frame, b.first = f, first
		if size == 0 {
			b.end = true
			if f.checked {
				b.sum, err = p.uint32()
			}
			if err == nil {
				p.queue <- b
			}
			return err
		}
		b.src = sized(b.src, size, f.bound)
		if _, err := io.ReadFull(p.src, b.src); err != nil {
			return p.src.Fault(err)
		}
		if f.blockSum {
			if b.sum, err = p.uint32(); err != nil {
				return err
			}
		}
		b.ready = make(chan struct{})
		p.queue <- b
		if f.linked {
			p.decode(b, plain)
			p.remember(b.data)
			continue
		}
		p.workers <- struct{}{}
		go func() {
			p.decode(b, plain)
			<-p.workers
		}()
	}
}

// decode makes data of src.
func (p *parser) decode(b *block, plain bool) {
	defer close(b.ready)
	if b.frame.blockSum {
		x := newXXH32()
		x.write(b.src)
		if x.sum() != b.sum {
			b.err = p.src.Corrupt("a block has another checksum")
			return
		}
	}
	if plain {
		b.data = b.src
		return
	}
	var window []byte
	if b.frame.linked {
		window = p.window[max(0, len(p.window)-windowSize):]
	}
	b.out = sized(b.out, min(maxExpansion*len(b.src), b.frame.most), b.frame.most)
	n, err := pierrec.UncompressBlockWithDict(b.src, b.out, window)
	if err != nil {
		b.err = p.src.Corrupt("a block: %w", err)
		return
	}
	b.data = b.out[:n]
}

// remember keeps what the next linked block may look back at.
func (p *parser) remember(data []byte) {
	data = data[max(0, len(data)-windowSize):]
	if len(p.window) > 3*windowSize { // seldom, because it moves all of a window
		p.window = append(p.window[:0], p.window[len(p.window)-windowSize:]...)
	}
	p.window = append(p.window, data...)
}

// sized returns b with n bytes, or a new slice where b has no room for them. It
// makes room for up to twice that, but not for more than most: or blocks that
// grow would leave many behind.
func sized(b []byte, n, most int) []byte {
	if cap(b) < n {
		b = make([]byte, min(1<<bits.Len(uint(n-1)), most))
	}
	return b[:n]
}
