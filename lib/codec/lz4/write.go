package lz4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pierrec "github.com/pierrec/lz4/v4"
)

const (
	blockSize = 1 << 20 // of the 4 MiB that the header allows: smaller ones stay in the cache and flow sooner
	stored    = 1 << 31 // a block's size when it is stored as it was
	readSize  = 1 << 20
)

// header begins the one frame that we write, as WAL-G does: version 1,
// independent blocks of at most 4 MiB, a checksum of the content.
var header = []byte{0x04, 0x22, 0x4d, 0x18, 0x64, 0x70, 0xb9}

// libraryLevel maps the levels of the lz4 program's high compression, 3 and more.
func libraryLevel(n int) pierrec.CompressionLevel {
	levels := []pierrec.CompressionLevel{pierrec.Level3, pierrec.Level4, pierrec.Level5, pierrec.Level6, pierrec.Level7, pierrec.Level8, pierrec.Level9}
	return levels[min(n-3, len(levels)-1)]
}

// writer compresses blocks in parallel. It takes the checksum while the data
// is still in the cache of the core that read it; taken later it costs as much
// as all the rest.
type writer struct {
	w     io.Writer
	sum   *xxh32
	block *work         // being filled, or nil
	free  chan *work    // blocks that can be filled: their number bounds memory
	queue chan *work    // blocks being compressed, in order
	ended chan struct{} // the queue is written
	err   error         // of writing; read after ended, or under failed
	fail  chan struct{} // closed when err is set
	begun bool
	level int
	done  bool
}

// work is one block on its way.
type work struct {
	src, dst []byte // dst has room for the size before the block
	ready    chan struct{}
	table    hashTable
	high     *pierrec.CompressorHC // for the levels from 3 on
	err      error
}

// NewWriter returns a writer of one frame into w that compresses so many blocks
// at once, at a level of the lz4 program: 1 and 2 fast, 3 and more smaller.
func NewWriter(w io.Writer, level, threads int) io.WriteCloser {
	z := &writer{
		w:     w,
		sum:   newXXH32(),
		queue: make(chan *work, max(threads, 1)),
		free:  make(chan *work, max(threads, 1)+1),
		ended: make(chan struct{}),
		fail:  make(chan struct{}),
		level: level,
	}
	for range cap(z.free) {
		z.free <- nil // made when it is needed
	}
	return z
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
		for b := range z.queue {
			<-b.ready
			if err == nil {
				err = b.err
			}
			if err == nil {
				_, err = z.w.Write(b.dst)
			}
			if err != nil && z.err == nil {
				z.err = err
				close(z.fail)
			}
			z.free <- b
		}
		if err != nil && z.err == nil {
			z.err = err
			close(z.fail)
		}
	}()
}

// room returns the free part of the block being filled.
func (z *writer) room() ([]byte, error) {
	z.begin()
	select {
	case <-z.fail:
		return nil, z.err
	default:
	}
	if z.block == nil {
		z.block = <-z.free
		if z.block == nil {
			z.block = &work{src: make([]byte, 0, blockSize), dst: make([]byte, 4+blockSize)}
		}
		z.block.src = z.block.src[:0]
		z.block.ready = make(chan struct{})
	}
	return z.block.src[len(z.block.src):blockSize], nil
}

// filled takes n more bytes in the block being filled.
func (z *writer) filled(n int) {
	b := z.block
	at := len(b.src)
	b.src = b.src[:at+n]
	z.sum.write(b.src[at:])
	if len(b.src) == blockSize {
		z.send()
	}
}

func (z *writer) send() {
	b := z.block
	z.block = nil
	z.queue <- b
	go func() {
		defer close(b.ready)
		b.compress(z.level)
	}()
}

// compress makes dst the block as it stands in the frame.
func (b *work) compress(level int) {
	dst := b.dst[:cap(b.dst)]
	room := dst[4 : 4+len(b.src)] // what does not become smaller is stored
	var n int
	if level < 3 {
		n = compress(room, b.src, &b.table)
	} else {
		if b.high == nil {
			b.high = &pierrec.CompressorHC{Level: libraryLevel(level)}
		}
		if n, b.err = b.high.CompressBlock(b.src, room); errors.Is(b.err, pierrec.ErrInvalidSourceShortBuffer) {
			n, b.err = 0, nil
		}
	}
	size := uint32(n)
	if n == 0 {
		n = copy(room, b.src)
		size = uint32(n) | stored
	}
	binary.LittleEndian.PutUint32(dst, size)
	b.dst = dst[:4+n]
}

// Write compresses p.
func (z *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k := copy(room, p)
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

// Close writes the last block, the end of the frame and the checksum.
func (z *writer) Close() error {
	if z.done {
		return z.err
	}
	z.done = true
	z.begin()
	if z.block != nil && len(z.block.src) > 0 {
		z.send()
	}
	close(z.queue)
	<-z.ended
	if z.err != nil {
		return z.err
	}
	end := binary.LittleEndian.AppendUint32(make([]byte, 4, 8), z.sum.sum())
	if _, z.err = z.w.Write(end); z.err != nil {
		return fmt.Errorf("end of frame: %w", z.err)
	}
	return nil
}
