// Package lzma reads and writes the .lzma format ("lzma alone"), the one that
// WAL-G calls lzma: 13 bytes of header and one run of LZMA symbols
// (lzma-specification.txt). It is not .xz. The format has no magic and no
// checksum: damage can pass, and no stream is ever proven.
//
// Reader and writer are our own because speed is asked for here: the library
// that WAL-G has takes twice as long to read, and five times to write.
package lzma

import (
	"encoding/binary"
	"io"

	"walg/lib/codec/lzma/raw"
	"walg/lib/decode"
)

const (
	headerSize = 13
	inputSize  = 256 << 10 // of the buffer
	step       = 256 << 10 // decoded at once, so that it stays in the cache until it is written
	unknown    = -1        // size of the content
)

// reader reads one stream.
type reader struct {
	*raw.Pieces
	src    *decode.Input
	memory int64
	begun  bool
	coded  raw.Decoder
	left   int64 // bytes to come, or unknown
}

// NewReader returns a reader of a stream whose window, together with
// decode.Overhead, takes no more than memory. The window grows with the data.
// Corrupt and truncated data are errors with status 65; an error of r is passed
// on unchanged.
func NewReader(r io.Reader, memory int64) decode.Reader {
	z := &reader{src: decode.NewInput(r, "lzma", inputSize), memory: memory}
	z.Pieces = raw.NewPieces(z.next)
	return z
}

// Proven is false: there is no checksum.
func (r *reader) Proven() bool { return false }

// next decodes a step. io.EOF says that the end was as it should be.
func (r *reader) next() ([]byte, error) {
	if !r.begun {
		r.begun = true
		if err := r.begin(); err != nil {
			return nil, err
		}
	}
	// One byte too many is asked for: where the size is known there may be an
	// end marker after it, and only decoding shows that.
	room := step
	if r.left != unknown {
		if r.left == 0 && r.coded.Whole() {
			return nil, r.end()
		}
		room = int(min(step, max(r.left, 1)))
	}
	out, err := r.decode(room)
	switch {
	case err != nil:
		return nil, err
	case r.left == unknown:
	case int64(len(out)) > r.left:
		return nil, r.src.Corrupt("more data than its header says")
	default:
		r.left -= int64(len(out))
	}
	if r.coded.Ended() {
		if r.left > 0 {
			return nil, r.src.Corrupt("less data than its header says")
		}
		if !r.coded.Whole() {
			return nil, r.src.Corrupt("the end is damaged")
		}
		return out, r.end()
	}
	return out, nil
}

// begin reads the header.
func (r *reader) begin() error {
	head, err := r.src.Peek(headerSize + raw.StartSize)
	if err != nil {
		return r.src.Fault(err)
	}
	properties, ok := raw.ParseProperties(head[0])
	dictionary := int64(binary.LittleEndian.Uint32(head[1:]))
	r.left = int64(binary.LittleEndian.Uint64(head[5:]))
	// Not even the first byte of symbols is ever other than 0: it is looked at
	// before the window of what is no .lzma at all is complained about.
	if !ok || r.left < unknown || head[headerSize] != 0 {
		return r.src.Corrupt("not the header of .lzma data")
	}
	if r.left != unknown {
		dictionary = min(dictionary, r.left)
	}
	if err := r.src.Fits(dictionary, r.memory); err != nil {
		return err
	}
	r.coded.Open(int(dictionary))
	r.coded.SetProperties(properties)
	if err := r.coded.Start([raw.StartSize]byte(head[headerSize:])); err != nil {
		return r.src.Fault(err)
	}
	_, err = r.src.Discard(len(head))
	return r.src.Fault(err)
}

// decode decodes at most room bytes.
func (r *reader) decode(room int) ([]byte, error) {
	coded, err := r.src.Peek(raw.Need)
	have := len(coded)
	switch err {
	case nil:
		have = r.src.Buffered()
		coded, _ = r.src.Peek(have)
	case io.EOF:
		coded = append(make([]byte, 0, 2*raw.Need), coded...)[:have+raw.Need]
	default:
		return nil, err
	}
	out, n, err := r.coded.Decode(coded, room)
	if n > have {
		return nil, r.src.Corrupt("truncated")
	}
	if err != nil {
		return nil, r.src.Fault(err)
	}
	_, err = r.src.Discard(n)
	return out, r.src.Fault(err)
}

// end makes sure that nothing follows.
func (r *reader) end() error {
	switch _, err := r.src.Peek(1); err {
	case io.EOF:
		return io.EOF
	case nil:
		return r.src.Corrupt("something else after the end")
	default:
		return err
	}
}
