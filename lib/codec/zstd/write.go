package zstd

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The levels that WAL-G has names for, in the numbers of the zstd program.
const (
	Fastest = 1
	Default = 3
	Better  = 7
	Best    = 11
)

const (
	// A part is compressed without what was before it. Larger ones would
	// compress a little more and take their size in memory three times.
	partSize = 4 << 20
	readSize = 256 << 10 // the checksum is taken of what is still in the cache

	// An encoder takes its part's size and its tables, 1 to 5 MiB, from level
	// 10 on 34 MiB.
	maxThreads     = 6
	maxThreadsBest = 2
)

// header begins the one frame that we write, as WAL-G does: a window of 8 MiB,
// a checksum of the content, no size (RFC 8878, 3.1.1.1).
var header = []byte{0x28, 0xb5, 0x2f, 0xfd, 1 << 2, (23 - 10) << 3}

// writer compresses parts in parallel, each as the library would compress all
// of a frame, and joins their blocks to one frame.
//
// That is sound because nothing at the beginning of a part depends on what a
// decoder knows there: matches reach back to the beginning of the part at
// most, its first block brings its own tables, and the library repeats an
// offset only after three others in the same block. The last is no promise of
// the library; TestPartsDoNotDependOnWhatWasBefore watches it.
type writer struct {
	w        io.Writer
	level    int
	encoders chan *zstd.Encoder // those that are idle
	sum      *xxh64
	part     *part         // being filled, or nil
	free     chan *part    // parts that can be filled: their number bounds memory
	queue    chan *part    // parts being compressed, in order
	ended    chan struct{} // the queue is written
	err      error         // of writing; read after ended, or under fail
	fail     chan struct{} // closed when err is set
	begun    bool
	done     bool
}

// part is some of the content on its way.
type part struct {
	src, dst []byte // dst has room for the largest that src can become
	blocks   []byte // what dst holds, without the header
	ready    chan struct{}
	err      error
}

// NewWriter returns a writer of one frame into w that compresses so many parts
// at once, at most 6, or 2 from level 10 on. level is the zstd program's, 1 to
// 22; the library has the four that are named here and takes the nearest.
func NewWriter(w io.Writer, level, threads int) (io.WriteCloser, error) {
	most := maxThreads
	if level >= 10 {
		most = maxThreadsBest
	}
	threads = min(max(threads, 1), most)
	e, err := newEncoder(level)
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	z := &writer{
		w:        w,
		level:    level,
		encoders: make(chan *zstd.Encoder, threads),
		sum:      newXXH64(),
		queue:    make(chan *part, threads),
		free:     make(chan *part, threads+1),
		ended:    make(chan struct{}),
		fail:     make(chan struct{}),
	}
	z.encoders <- e
	for range cap(z.encoders) - 1 {
		z.encoders <- nil // made when it is needed
	}
	for range cap(z.free) {
		z.free <- nil // the same
	}
	return z, nil
}

// begin starts the goroutine that writes what is compressed.
func (z *writer) begin() {
	if z.begun {
		return
	}
	z.begun = true
	go func() {
		defer close(z.ended)
		_, err := z.w.Write(header)
		for p := range z.queue {
			<-p.ready
			if err == nil {
				err = p.err
			}
			if err == nil {
				_, err = z.w.Write(p.blocks)
			}
			z.failed(err)
			z.free <- p
		}
		z.failed(err)
	}()
}

// failed tells the others of the first error.
func (z *writer) failed(err error) {
	if err != nil && z.err == nil {
		z.err = err
		close(z.fail)
	}
}

// room returns the free end of the part being filled.
func (z *writer) room() ([]byte, error) {
	z.begin()
	select {
	case <-z.fail:
		return nil, z.err
	default:
	}
	if z.part == nil {
		z.part = <-z.free
		if z.part == nil {
			z.part = &part{src: make([]byte, 0, partSize)}
		}
		z.part.src = z.part.src[:0]
		z.part.ready = make(chan struct{})
	}
	return z.part.src[len(z.part.src):partSize], nil
}

// filled takes n more bytes in the part being filled.
func (z *writer) filled(n int) {
	p := z.part
	at := len(p.src)
	p.src = p.src[:at+n]
	z.sum.write(p.src[at:])
	if len(p.src) == partSize {
		z.send()
	}
}

func (z *writer) send() {
	p := z.part
	z.part = nil
	z.queue <- p
	go func() {
		defer close(p.ready)
		e := <-z.encoders
		if e == nil {
			e, p.err = newEncoder(z.level)
		}
		if p.err == nil {
			p.compress(e)
		}
		z.encoders <- e
	}()
}

func newEncoder(level int) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(partSize),
		zstd.WithEncoderCRC(false)) // ours is of all parts
}

// compress makes blocks of src.
func (p *part) compress(e *zstd.Encoder) {
	if most := e.MaxEncodedSize(len(p.src)); cap(p.dst) < most {
		p.dst = make([]byte, 0, most)
	}
	p.dst = e.EncodeAll(p.src, p.dst[:0])
	var h zstd.Header
	if p.err = h.Decode(p.dst); p.err != nil {
		return
	}
	p.blocks = p.dst[h.HeaderSize:]
	// None of them is the frame's last.
	for b := p.blocks; len(b) > 0; {
		size, _ := block(b)
		b[0] &^= lastFlag
		b = b[blockHead+size:]
	}
}

// Write compresses p.
func (z *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k := copy(room[:min(len(room), readSize)], p)
		z.filled(k)
		n += k
		p = p[k:]
	}
	return n, nil
}

// ReadFrom compresses what r yields, without a copy between.
func (z *writer) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k, err := r.Read(room[:min(len(room), readSize)])
		z.filled(k)
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close writes the last part, the end of the frame and the checksum.
func (z *writer) Close() error {
	if z.done {
		return z.err
	}
	z.done = true
	z.begin()
	if z.part != nil && len(z.part.src) > 0 {
		z.send()
	}
	close(z.queue)
	<-z.ended
	if z.err != nil {
		return z.err
	}
	if _, z.err = z.w.Write(appendEnd(nil, z.sum)); z.err != nil {
		return fmt.Errorf("end of frame: %w", z.err)
	}
	return nil
}

// appendEnd appends what follows the last part of a frame.
func appendEnd(b []byte, sum *xxh64) []byte {
	b = append(b, lastFlag, 0, 0) // the last block, raw and without content
	return binary.LittleEndian.AppendUint32(b, uint32(sum.sum()))
}
