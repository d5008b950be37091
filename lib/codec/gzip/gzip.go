// Package gzip reads gzip data (RFC 1952), one member or several. It writes
// none: WAL-G reads such objects and never makes them.
package gzip

import (
	"bytes"
	"errors"
	"io"

	library "github.com/klauspost/compress/gzip"

	"walg/lib/decode"
)

// magic begins each member; the third byte is the only method that there is.
var magic = []byte{0x1f, 0x8b, 8}

const bufferSize = 128 << 10 // of input

// reader reads members one after another.
type reader struct {
	src     *decode.Input
	z       library.Reader
	inside  bool
	members int
	err     error
}

// NewReader returns a reader of all members of a stream. A header may have any
// fields: name and comment of up to 511 bytes each, and 64 KiB of extra data.
// Corrupt and truncated data are errors with status 65, and so is anything
// after the last member, zeros included; an error of r is passed on unchanged.
func NewReader(r io.Reader) decode.Reader {
	return &reader{src: decode.NewInput(r, "gzip", bufferSize)}
}

// Proven reports whether the stream was exactly one member, which has a CRC
// and the length: several could have lost some of their number.
func (r *reader) Proven() bool { return r.err == io.EOF && r.members == 1 }

func (r *reader) Read(p []byte) (int, error) {
	for r.begin() {
		n, err := r.z.Read(p)
		r.finish(err)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// WriteTo writes the content to w without a copy between.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	for r.begin() {
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

// begin sees to it that a member is being read; false says that r.err is set.
func (r *reader) begin() bool {
	if r.err == nil && !r.inside {
		r.err = r.next()
		r.inside = r.err == nil
	}
	return r.err == nil
}

// next reads the header of the next member; io.EOF says that there is none.
func (r *reader) next() error {
	head, err := r.src.Peek(len(magic))
	switch {
	case err == io.EOF && len(head) == 0 && r.members > 0:
		return io.EOF
	case err != nil && err != io.EOF:
		return r.src.Fault(err)
	case !bytes.HasPrefix(magic, head):
		if r.members > 0 {
			return r.src.Corrupt("something else after the last member")
		}
		return r.src.Corrupt("not gzip data")
	case err == io.EOF:
		return r.src.Corrupt("truncated")
	}
	r.members++
	// The plain buffer: the library is fastest on that, and takes no more of it
	// than the member has.
	if err := r.z.Reset(r.src.Reader); err != nil {
		return r.fault(err)
	}
	r.z.Multistream(false)
	return nil
}

// finish takes the library's error at the end of a member.
func (r *reader) finish(err error) {
	switch err {
	case nil:
	case io.EOF:
		r.inside = false
	default:
		r.err = r.fault(err)
	}
}

func (r *reader) fault(err error) error {
	switch {
	case errors.Is(err, library.ErrHeader):
		err = errors.New("invalid header")
	case errors.Is(err, library.ErrChecksum):
		err = errors.New("the content does not have the checksum and the length that stand after it")
	}
	return r.src.Fault(err)
}
