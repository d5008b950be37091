// Package zstd writes one zstd frame in parallel and reads every stream of
// frames (RFC 8878) but those that need a dictionary. A reader returns io.EOF
// only after a whole frame, and takes the window that the frame asks for and
// decode.Overhead at most.
package zstd

import (
	"encoding/binary"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"walg/lib/decode"
)

const (
	inputSize = 256 << 10

	// Blocks between the one being read and the one being written: with fewer
	// the stages of the decoder wait for one another. Each takes up to 2 MiB.
	blocksAhead = 12

	// What is written at once fits into a pipe: with more, we and the one who
	// reads wait for one another and never work at the same time.
	writeSize = 64 << 10
)

// reader reads frames one after another.
type reader struct {
	src     *decode.Input
	ahead   int   // blocks
	memory  int64 // bytes
	z       *decoder
	garbage int64 // bytes of windows that decoders before z held
	frame   frame
	inside  bool
	frames  int
	proven  bool
	err     error
}

// NewReader returns a reader of frames, one after another. With two threads or
// more reading, decoding and writing go on at once. A window that does not fit
// into memory, in bytes, and corrupt and truncated data are errors with status
// 65; an error of r is passed on unchanged.
func NewReader(r io.Reader, threads int, memory int64) decode.Reader {
	ahead := 1
	if threads > 1 {
		ahead = blocksAhead
	}
	return &reader{src: decode.NewInput(r, "zstd", inputSize), ahead: ahead, memory: memory}
}

// Proven reports whether the stream was exactly one frame with a checksum of
// its content: several could have lost some of their number.
func (r *reader) Proven() bool { return r.err == io.EOF && r.frames == 1 && r.proven }

func (r *reader) Read(p []byte) (int, error) {
	for r.err == nil {
		if !r.inside {
			if r.err = r.next(); r.err != nil {
				break
			}
		}
		n, err := r.z.Read(p)
		r.finish(err)
		if n > 0 || len(p) == 0 && r.err == nil {
			return n, nil
		}
	}
	r.release()
	return 0, r.err
}

// WriteTo writes to w without a copy between.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	for r.err == nil {
		if !r.inside {
			if r.err = r.next(); r.err != nil {
				break
			}
		}
		dst := &target{w: w}
		m, err := r.z.WriteTo(dst)
		n += m
		if dst.err != nil {
			r.err = dst.err
			break
		}
		if err == nil {
			err = io.EOF
		}
		r.finish(err)
	}
	r.release()
	if r.err == io.EOF {
		return n, nil
	}
	return n, r.err
}

// target tells a failed write from corrupt input.
type target struct {
	w   io.Writer
	err error
}

func (t *target) Write(p []byte) (n int, err error) {
	for n < len(p) && t.err == nil {
		var m int
		m, t.err = t.w.Write(p[n:min(len(p), n+writeSize)])
		n += m
	}
	return n, t.err
}

// finish takes the decoder's error at the end of a frame. What the decoder
// started has ended then.
func (r *reader) finish(err error) {
	if err == io.EOF && r.frame.done {
		r.inside = false
		r.proven = r.frame.checked
		return
	}
	r.err = r.src.Fault(err)
}

// next finds the next frame; io.EOF says that there is none.
func (r *reader) next() error {
	for {
		head, err := r.src.Peek(4)
		switch {
		case err == io.EOF && len(head) == 0 && r.frames > 0:
			return io.EOF
		case err == io.EOF && r.frames > 0:
			return r.src.Corrupt("%d bytes of something else after the last frame", len(head))
		case err != nil:
			return r.src.Fault(err)
		}
		magic := binary.LittleEndian.Uint32(head)
		switch {
		case magic == frameMagic:
			return r.open()
		case magic&^0xf == skippableMagic:
			if err := r.skip(); err != nil {
				return r.src.Fault(err)
			}
		case r.frames > 0:
			return r.src.Corrupt("something else after the last frame")
		default:
			return r.src.Corrupt("not a zstd frame")
		}
	}
}

func (r *reader) skip() error {
	head, err := r.src.Peek(skippableHead)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, r.src, skippableHead+int64(binary.LittleEndian.Uint32(head[4:])))
	return err
}

// open begins the frame whose header comes next.
func (r *reader) open() error {
	head, err := r.src.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return r.src.Fault(err)
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return r.src.Fault(err)
	}
	if h.DictionaryID != 0 {
		return r.src.Corrupt("made with dictionary %d, which is not here", h.DictionaryID)
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = max(h.FrameContentSize, zstd.MinWindowSize)
	}
	if err := r.prepare(int64(min(window, math.MaxInt64/2))); err != nil {
		return err
	}
	r.frame = frame{src: r.src, left: h.HeaderSize, checked: h.HasCheckSum}
	r.frames++
	r.inside = true
	return r.src.Fault(r.z.Reset(&r.frame))
}
