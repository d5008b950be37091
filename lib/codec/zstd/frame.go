package zstd

import (
	"io"

	"walg/lib/decode"
)

// The numbers of the frame format (RFC 8878, 3.1).
const (
	frameMagic     = 0xfd2fb528
	skippableMagic = 0x184d2a50 // and the 15 above it
	skippableHead  = 8          // magic and size
	blockHead      = 3          // bytes before each block
	lastFlag       = 1          // in the first of them
	rleBlock       = 1          // a block of one byte, many times
	sumSize        = 4          // bytes of the checksum that ends a frame
)

// block reads the header of a block: how many bytes follow it, and whether the
// block is the last of its frame.
func block(b []byte) (size int, last bool) {
	head := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	size = head >> 3
	if head>>1&3 == rleBlock {
		size = 1
	}
	return size, head&lastFlag != 0
}

// frame passes the bytes of one frame on and ends with it, so that what
// follows is seen. The decoder judges the content.
type frame struct {
	src     *decode.Input
	left    int  // bytes to pass before the next decision
	checked bool // has a checksum of the content
	last    bool // left holds the end of the frame
	done    bool
}

func (f *frame) Read(p []byte) (int, error) {
	if f.left == 0 {
		if f.last {
			f.done = true
			return 0, io.EOF
		}
		head, err := f.src.Peek(blockHead)
		if err != nil {
			return 0, err
		}
		f.left, f.last = block(head)
		f.left += blockHead
		if f.last && f.checked {
			f.left += sumSize
		}
	}
	n, err := f.src.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}
