// Package brotli writes and reads brotli streams (RFC 7932). What it writes has
// a window of 4 MiB at every level, and is the same whatever the sizes of the
// writes. The format has no checksum: a reader sees every truncation, but not
// all damage, and no stream is proven.
package brotli

import (
	"errors"
	"io"
	"strings"

	library "github.com/andybalholm/brotli"

	"walg/lib/decode"
	"walg/lib/fault"
)

const inputSize = 128 << 10 // of the reader's buffer

type reader struct {
	src   *decode.Input
	z     *library.Reader
	begun bool
	err   error
}

// NewReader returns a reader of one stream with a window of up to 16 MiB, which
// is all that RFC 7932 has. Corrupt and truncated data are errors with status
// 65, and so are bytes after the end and streams of the large-window extension;
// an error of r is passed on unchanged.
func NewReader(r io.Reader) decode.Reader {
	src := decode.NewInput(r, "brotli", inputSize)
	return &reader{src: src, z: library.NewReader(src)}
}

// Proven is false: the format has no checksum.
func (r *reader) Proven() bool { return false }

func (r *reader) Read(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		r.err = r.begin()
	}
	for r.err == nil {
		n, err := r.z.Read(p)
		if r.err = err; err != nil && err != io.EOF {
			r.err = r.fault(err)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// largeWindow is what a stream of the extension begins with (RFC 9841): a size
// of the window that RFC 7932 keeps free. Six bits of the next byte have the
// real one.
const largeWindow = 0x11

func (r *reader) begin() error {
	head, err := r.src.Peek(2)
	if len(head) == 2 && head[0] == largeWindow {
		return fault.WithHint(r.src.Corrupt("a stream with a large window (2^%d bytes), which RFC 7932 does not have", head[1]&0x3f),
			"run its own program as the stage: --through -- brotli -dc")
	}
	if err == io.EOF && len(head) > 0 { // the shortest stream has one byte
		return nil
	}
	return r.src.Fault(err)
}

func (r *reader) fault(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return r.src.Fault(err)
	}
	what := strings.TrimPrefix(err.Error(), "brotli: ")
	if what == "excessive input" {
		return r.src.Fault(errors.New("something else after the end"))
	}
	return r.src.Fault(errors.New("damaged, or no brotli data: " + what))
}
