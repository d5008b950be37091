package lz4

import (
	"encoding/binary"
	"io"
)

// The numbers of the LZ4 frame format (lz4_Frame_format.md, 1.6.x).
const (
	frameMagic     = 0x184d2204
	legacyMagic    = 0x184c2102
	skippableMagic = 0x184d2a50 // and the 15 above it
	skippableHead  = 8          // magic and size

	flagVersion    = 3 << 6
	flagVersion1   = 1 << 6
	flagUnlinked   = 1 << 5
	flagBlockSum   = 1 << 4
	flagSize       = 1 << 3
	flagContentSum = 1 << 2
	flagReserved   = 1 << 1
	flagDict       = 1 << 0
	sizeReserved   = 1<<7 | 15 // bits of the byte with the size of blocks

	windowSize = 64 << 10 // that linked blocks look back

	maxExpansion = 255 // of a byte, in blocks

	legacySize  = 8 << 20                                   // of the blocks of the old format
	legacyBound = legacySize + legacySize/maxExpansion + 16 // of what they become
)

// frame is what the head of a frame says.
type frame struct {
	legacy   bool   // without checksums, and without a mark at the end
	most     int    // bytes of a block's content
	bound    int    // bytes of a block
	linked   bool   // blocks look back
	blockSum bool   // each block has a checksum
	checked  bool   // the content has
	sized    bool   // its size is known
	size     uint64 // bytes
}

// open reads the head of the next frame; io.EOF says that there is none.
func (p *parser) open() (frame, error) {
	for {
		head, err := p.src.Peek(4)
		switch {
		case err == io.EOF && len(head) == 0 && p.frames > 0:
			return frame{}, io.EOF
		case err == io.EOF && p.frames > 0:
			return frame{}, p.src.Corrupt("%d bytes of something else after the last frame", len(head))
		case err != nil:
			return frame{}, p.src.Fault(err)
		}
		magic := binary.LittleEndian.Uint32(head)
		switch {
		case magic == frameMagic:
			p.frames++
			return p.head()
		case magic == legacyMagic:
			p.frames++
			_, err := p.src.Discard(4)
			return frame{legacy: true, most: legacySize, bound: legacyBound}, p.src.Fault(err)
		case magic&^0xf == skippableMagic:
			if err := p.skip(); err != nil {
				return frame{}, p.src.Fault(err)
			}
		case p.frames > 0:
			return frame{}, p.src.Corrupt("something else after the last frame")
		default:
			return frame{}, p.src.Corrupt("not an lz4 frame")
		}
	}
}

func (p *parser) skip() error {
	head, err := p.src.Peek(skippableHead)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, p.src, skippableHead+int64(binary.LittleEndian.Uint32(head[4:])))
	return err
}

// head reads the head of a frame that is not of the old format.
func (p *parser) head() (f frame, err error) {
	head, err := p.src.Peek(4 + 2)
	if err != nil {
		return f, p.src.Fault(err)
	}
	flags, size := head[4], head[5]
	n := len(head) + 1
	if flags&flagSize != 0 {
		n += 8
	}
	if flags&flagDict != 0 {
		n += 4
	}
	if head, err = p.src.Peek(n); err != nil {
		return f, p.src.Fault(err)
	}
	x := newXXH32()
	x.write(head[4 : n-1])
	switch {
	case byte(x.sum()>>8) != head[n-1]:
		return f, p.src.Corrupt("the head of the frame has another checksum")
	case flags&flagVersion != flagVersion1 || flags&flagReserved != 0 || size&sizeReserved != 0 || size>>4 < 4:
		return f, p.src.Corrupt("a frame of an unknown kind")
	case flags&flagDict != 0:
		return f, p.src.Corrupt("made with a dictionary, which is not here")
	}
	f = frame{
		most:     1 << (8 + 2*(size>>4)), // 64 KiB, 256 KiB, 1 MiB, 4 MiB
		linked:   flags&flagUnlinked == 0,
		blockSum: flags&flagBlockSum != 0,
		checked:  flags&flagContentSum != 0,
		sized:    flags&flagSize != 0,
	}
	if f.sized {
		f.size = binary.LittleEndian.Uint64(head[6:])
	}
	f.bound = f.most
	_, err = p.src.Discard(n)
	return f, p.src.Fault(err)
}

// blockSize reads the size of the next block; 0 says that the frame ends.
func (p *parser) blockSize(f frame) (size int, plain bool, err error) {
	head, err := p.src.Peek(4)
	if f.legacy && err == io.EOF && len(head) == 0 {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, p.src.Fault(err)
	}
	n := binary.LittleEndian.Uint32(head)
	if f.legacy {
		switch {
		case n > legacyBound:
			return 0, false, nil // it must be the magic of another frame
		case n == 0:
			return 0, false, p.src.Corrupt("a block without content")
		}
	} else {
		plain = n&stored != 0
		n &^= stored
		switch {
		case n > uint32(f.bound):
			return 0, false, p.src.Corrupt("a block of %d bytes, more than the %d that the frame allows", n, f.bound)
		case n == 0 && plain:
			return 0, false, p.src.Corrupt("a block without content")
		}
	}
	_, err = p.src.Discard(4)
	return int(n), plain, p.src.Fault(err)
}

// uint32 reads a checksum.
func (p *parser) uint32() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(p.src, b[:])
	return binary.LittleEndian.Uint32(b[:]), p.src.Fault(err)
}
