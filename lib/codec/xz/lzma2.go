package xz

import (
	"encoding/binary"
	"io"

	"walg/lib/codec/lzma/raw"
	"walg/lib/decode"
)

// What the first byte of a chunk says.
const (
	chunkEnd         = 0x00
	chunkStoredReset = 0x01 // not compressed, and the window begins anew
	chunkStored      = 0x02
	chunkCoded       = 0x80 // and above: from bit 5 on what begins anew, below the top of the size
)

// What begins anew at a coded chunk; each with those before it.
const (
	anewState = 1 + iota
	anewProperties
	anewWindow
)

const (
	mostPacked  = 64 << 10 // bytes of a coded chunk
	mostLiteral = 4        // LC and LP together
)

// chunks decodes the chunks of a block.
type chunks struct {
	src   *decode.Input
	coded raw.Decoder
	taken int64 // bytes of the block

	window     bool // has begun
	properties bool // are known
	stored     bool // the chunk is not compressed
	left       int  // bytes of the chunk to come
	packed     [mostPacked + raw.Need]byte
	at, size   int // in packed
}

// begin begins a block.
func (c *chunks) begin(window int) {
	c.coded.Open(window)
	c.taken, c.left = 0, 0
	c.window, c.properties = false, false
}

// next decodes a step. io.EOF says that the block's chunks are at their end.
func (c *chunks) next() ([]byte, error) {
	if c.left == 0 {
		if err := c.open(); err != nil {
			return nil, err
		}
	}
	if c.stored {
		// Some of it must be there; a peek for 1 byte fetches what there is.
		if _, err := c.src.Peek(1); err != nil {
			return nil, c.src.Fault(err)
		}
		p, _ := c.src.Peek(min(c.src.Buffered(), c.left))
		out := c.coded.Store(p)
		c.left -= len(out)
		c.taken += int64(len(out))
		_, err := c.src.Discard(len(out))
		return out, c.src.Fault(err)
	}
	out, n, err := c.coded.Decode(c.packed[c.at:c.size+raw.Need], min(c.left, step))
	c.at += n
	c.left -= len(out)
	switch {
	case err != nil:
		return nil, c.src.Corrupt("%w", err)
	case c.at > c.size || len(out) == 0 || c.left == 0 && (c.at < c.size || !c.coded.Whole()):
		return nil, c.src.Corrupt("a chunk has not the size that it says")
	}
	return out, nil
}

// open reads the header of a chunk, and all of one that is coded.
func (c *chunks) open() error {
	control, err := c.src.ReadByte()
	if err != nil {
		return c.src.Fault(err)
	}
	c.taken++
	switch {
	case control == chunkEnd:
		return io.EOF
	case control == chunkStored && c.window, control == chunkStoredReset:
		if control == chunkStoredReset {
			c.coded.Forget()
			c.window, c.properties = true, false
		}
		c.stored = true
		size, err := c.short()
		c.left = size + 1
		return err
	case control < chunkCoded:
		return c.src.Corrupt("a chunk that makes no sense")
	}
	c.stored = false
	low, err := c.short()
	if err != nil {
		return err
	}
	packed, err := c.short()
	if err != nil {
		return err
	}
	c.left = int(control&0x1f)<<16 + low + 1
	c.size = packed + 1
	if err := c.anew(control >> 5 & 3); err != nil {
		return err
	}
	if c.size < raw.StartSize {
		return c.src.Corrupt("a chunk that makes no sense")
	}
	if _, err := io.ReadFull(c.src, c.packed[:c.size]); err != nil {
		return c.src.Fault(err)
	}
	c.taken += int64(c.size)
	c.at = raw.StartSize
	return c.src.Fault(c.coded.Start([raw.StartSize]byte(c.packed[:])))
}

// anew begins anew what a coded chunk asks for. The first must ask for all
// that no chunk before it has begun.
func (c *chunks) anew(what byte) error {
	if what < anewWindow && !c.window || what < anewProperties && !c.properties {
		return c.src.Corrupt("a chunk that goes on with nothing")
	}
	if what == anewWindow {
		c.coded.Forget()
		c.window = true
	}
	if what == anewState {
		c.coded.ResetState()
	}
	if what < anewProperties {
		return nil
	}
	b, err := c.src.ReadByte()
	if err != nil {
		return c.src.Fault(err)
	}
	c.taken++
	p, ok := raw.ParseProperties(b)
	if !ok || p.LC+p.LP > mostLiteral {
		return c.src.Corrupt("a chunk that makes no sense")
	}
	c.coded.SetProperties(p)
	c.properties = true
	return nil
}

// short reads a number of two bytes, the high one first.
func (c *chunks) short() (int, error) {
	var b [2]byte
	if _, err := io.ReadFull(c.src, b[:]); err != nil {
		return 0, c.src.Fault(err)
	}
	c.taken += 2
	return int(binary.BigEndian.Uint16(b[:])), nil
}
