package codec

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"
)

// The numbers of the LZ4 frame format (lz4_Frame_format.md, 1.6.x).
const (
	lz4Magic     = 0x184d2204
	lz4Legacy    = 0x184c2102
	lz4Skippable = 0x184d2a50 // and the 15 above it

	lz4FlagBlockSum   = 1 << 4
	lz4FlagSize       = 1 << 3
	lz4FlagContentSum = 1 << 2
	lz4FlagDict       = 1 << 0
)

func isSkippable(head []byte) bool {
	return len(head) >= 4 && binary.LittleEndian.Uint32(head)&^0xf == lz4Skippable
}

// lz4Level maps the levels of the lz4 program's high compression, 3 and more.
func lz4Level(n int) lz4.CompressionLevel {
	levels := []lz4.CompressionLevel{lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9}
	return levels[min(n-3, len(levels)-1)]
}

// lz4Reader reads frames one after another.
type lz4Reader struct {
	src    *bufio.Reader
	frame  lz4Frame
	z      *lz4.Reader
	inside bool
	frames int
	proven bool
	err    error
}

func newLZ4Reader(r io.Reader, o Options) Reader {
	z := lz4.NewReader(nil)
	// It fails for numbers that max excludes.
	_ = z.Apply(lz4.ConcurrencyOption(max(o.Threads, 1)))
	return &lz4Reader{src: bufio.NewReaderSize(r, 1<<20), z: z}
}

// Proven reports whether the stream was exactly one frame with a checksum of
// its content: several could have lost some of their number.
func (r *lz4Reader) Proven() bool { return r.err == io.EOF && r.frames == 1 && r.proven }

func (r *lz4Reader) Read(p []byte) (int, error) {
	for r.err == nil {
		if !r.inside {
			if r.err = r.next(); r.err != nil {
				break
			}
		}
		n, err := r.z.Read(p)
		r.finish(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// WriteTo writes whole blocks to w without a copy between.
func (r *lz4Reader) WriteTo(w io.Writer) (n int64, err error) {
	for r.err == nil {
		if !r.inside {
			if r.err = r.next(); r.err != nil {
				break
			}
		}
		dst := &destination{w: w}
		m, err := r.z.WriteTo(dst)
		n += m
		if dst.err != nil {
			return n, dst.err
		}
		if err == nil {
			err = io.EOF
		}
		r.finish(err)
	}
	if r.err == io.EOF {
		return n, nil
	}
	return n, r.err
}

// destination tells a failed write from corrupt input.
type destination struct {
	w   io.Writer
	err error
}

func (d *destination) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		d.err = err
	}
	return n, err
}

// next finds the next frame; io.EOF says that there is none.
func (r *lz4Reader) next() error {
	for {
		head, err := r.src.Peek(4)
		switch {
		case err == io.EOF && len(head) == 0 && r.frames > 0:
			return io.EOF
		case err == io.EOF:
			if r.frames > 0 {
				return corrupt("lz4: %d bytes of something else after the last frame", len(head))
			}
			return corrupt("lz4: truncated")
		case err != nil:
			return err
		}
		magic := binary.LittleEndian.Uint32(head)
		if magic&^0xf == lz4Skippable {
			if err := r.skip(); err != nil {
				return err
			}
			continue
		}
		if magic != lz4Magic && magic != lz4Legacy {
			if r.frames > 0 {
				return corrupt("lz4: something else after the last frame")
			}
			return corrupt("lz4: not an lz4 frame")
		}
		r.frames++
		r.inside = true
		r.frame = lz4Frame{src: r.src, legacy: magic == lz4Legacy}
		r.z.Reset(&r.frame)
		return nil
	}
}

func (r *lz4Reader) skip() error {
	head, err := r.src.Peek(8)
	if err == nil {
		_, err = r.src.Discard(8 + int(binary.LittleEndian.Uint32(head[4:])))
	}
	if err == io.EOF {
		return corrupt("lz4: truncated")
	}
	return err
}

// finish takes the decoder's error at the end of a frame.
func (r *lz4Reader) finish(err error) {
	switch {
	case err == nil:
	case r.frame.err != nil && r.frame.err != io.EOF:
		r.err = r.frame.err // not the data's fault
	case err == io.EOF && r.frame.done:
		r.inside = false
		r.proven = r.frame.checked
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		r.err = corrupt("lz4: truncated")
	default:
		r.err = corrupt("%w", err)
	}
}

// lz4Frame passes the bytes of one frame on and ends with it, so that what
// follows is seen. The decoder judges the content.
type lz4Frame struct {
	src      *bufio.Reader
	left     int  // bytes to pass before the next decision
	head     bool // the header has been seen
	last     bool // left holds the end of the frame
	done     bool
	legacy   bool // ends with the input: it has no mark for its end
	blockSum bool
	checked  bool  // has a checksum of the content
	err      error // of src
}

func (f *lz4Frame) Read(p []byte) (int, error) {
	if f.err == nil && f.left == 0 {
		f.err = f.decide()
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.src.Read(p[:min(len(p), f.left)])
	f.left -= n
	if err != nil {
		f.err = err
	}
	return n, err
}

// decide finds out how many bytes the next piece of the frame has.
func (f *lz4Frame) decide() error {
	if f.last {
		f.done = true
		return io.EOF
	}
	if f.legacy {
		if _, err := f.src.Peek(1); err != nil {
			f.done = err == io.EOF
			return err
		}
		f.left = f.src.Buffered()
		return nil
	}
	if !f.head {
		head, err := f.src.Peek(5)
		if err != nil {
			return err
		}
		flags := head[4]
		f.head, f.blockSum, f.checked = true, flags&lz4FlagBlockSum != 0, flags&lz4FlagContentSum != 0
		f.left = 7
		if flags&lz4FlagSize != 0 {
			f.left += 8
		}
		if flags&lz4FlagDict != 0 {
			f.left += 4
		}
		return nil
	}
	head, err := f.src.Peek(4)
	if err != nil {
		return err
	}
	f.left = 4
	if size := binary.LittleEndian.Uint32(head); size == 0 {
		f.last = true
		if f.checked {
			f.left += 4
		}
	} else {
		f.left += int(size & (1<<31 - 1))
		if f.blockSum {
			f.left += 4
		}
	}
	return nil
}
