// Package xz reads .xz files (xz-file-format.txt 1.1.0): streams one after
// another, with padding, of blocks that LZMA2 alone has compressed. It holds
// one window and no index, however many blocks there are. It does not write.
package xz

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"walg/lib/codec/lzma/raw"
	"walg/lib/decode"
	"walg/lib/fault"
)

const (
	magic       = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	headerSize  = 12
	footerSize  = 12
	align       = 4

	inputSize = 256 << 10 // of the buffer
	step      = 256 << 10 // decoded at once, so that it stays in the cache until it is written
)

// reader reads streams one after another.
type reader struct {
	*raw.Pieces
	src     *decode.Input
	memory  int64
	streams int
	padded  bool
	inside  bool // a stream
	flags   [2]byte
	check   check
	index   *index
	block   *block // nil between blocks
	chunks  chunks
}

// NewReader returns a reader of streams whose window, together with
// decode.Overhead, takes no more than memory. The window grows with the data.
// Corrupt and truncated data are errors with status 65; an error of r is passed
// on unchanged.
func NewReader(r io.Reader, memory int64) decode.Reader {
	x := &reader{src: decode.NewInput(r, "xz", inputSize), memory: memory}
	x.Pieces = raw.NewPieces(x.next)
	x.chunks.src = x.src
	return x
}

// Proven reports whether the data was exactly one stream, with a check of its
// blocks: several could have lost some of their number.
func (x *reader) Proven() bool {
	return x.Ended() && x.streams == 1 && !x.padded && x.check.size > 0
}

// next goes a step on in the format, and returns what that decoded. io.EOF
// comes only after a stream.
func (x *reader) next() ([]byte, error) {
	if x.block != nil {
		return x.content()
	}
	if !x.inside {
		return nil, x.begin()
	}
	first, err := x.src.Peek(1)
	if err != nil {
		return nil, x.src.Fault(err)
	}
	if first[0] != indexIndicator {
		return nil, x.open(first[0])
	}
	if err := x.index.read(x.src); err != nil {
		return nil, err
	}
	return nil, x.finish()
}

// begin reads padding and the header of the next stream.
func (x *reader) begin() error {
	for x.streams > 0 {
		word, err := x.src.Peek(align)
		if err == io.EOF && len(word) == 0 {
			return io.EOF
		}
		if err == io.EOF {
			return x.src.Corrupt("something else after the end")
		}
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(word) != 0 {
			break
		}
		x.padded = true
		if _, err := x.src.Discard(align); err != nil {
			return x.src.Fault(err)
		}
	}
	head, err := x.src.Peek(headerSize)
	if n := min(len(head), len(magic)); string(head[:n]) != magic[:n] {
		if x.streams > 0 {
			return x.src.Corrupt("something else after the end")
		}
		return x.src.Corrupt("not an xz stream")
	}
	if err != nil {
		return x.src.Fault(err)
	}
	x.flags = [2]byte(head[len(magic):])
	if crc32.ChecksumIEEE(x.flags[:]) != binary.LittleEndian.Uint32(head[len(magic)+2:]) {
		return x.src.Corrupt("the header of the stream is damaged")
	}
	known := false
	if x.check, known = checks[x.flags[1]]; !known || x.flags[0] != 0 {
		return x.unread("a stream with flags %x", x.flags)
	}
	x.inside = true
	x.index = newIndex()
	x.streams++
	_, err = x.src.Discard(headerSize)
	return x.src.Fault(err)
}

// finish reads the end of a stream.
func (x *reader) finish() error {
	foot, err := x.src.Peek(footerSize)
	if err != nil {
		return x.src.Fault(err)
	}
	if string(foot[10:]) != footerMagic ||
		binary.LittleEndian.Uint32(foot) != crc32.ChecksumIEEE(foot[4:10]) ||
		(int64(binary.LittleEndian.Uint32(foot[4:]))+1)*align != x.index.size ||
		[2]byte(foot[8:]) != x.flags {
		return x.src.Corrupt("the end of the stream is damaged")
	}
	x.inside = false
	_, err = x.src.Discard(footerSize)
	return x.src.Fault(err)
}

// unread is the error for what the format allows and we do not read.
func (x *reader) unread(text string, args ...any) error {
	return fault.WithHint(x.src.Corrupt(text+" is not read here", args...),
		"run its own program as the stage: --through -- xz -dc")
}
