package secretstream

import (
	"io"

	"walg/lib/decode"
)

// reader deciphers a chunk at a time, and proves it before it lets any of it
// be read.
type reader struct {
	in    *decode.Input
	key   *[keySize]byte
	state *state
	buf   []byte // a block, and a chunk behind it
	plain []byte // what was not read of the chunk
	out   []byte // of WriteTo
	final bool
	err   error
}

// Proven reports whether the final chunk was read, and nothing followed it.
func (r *reader) Proven() bool { return r.err == io.EOF }

func (r *reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && r.err == nil {
		r.err = r.next()
	}
	if len(r.plain) == 0 {
		return 0, r.err
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// WriteTo writes many chunks at a time.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	if r.out == nil {
		r.out = make([]byte, 0, batch)
	}
	for {
		for r.err == nil && len(r.out)+len(r.plain) < batch {
			r.out = append(r.out, r.plain...)
			r.plain = nil
			r.err = r.next()
		}
		r.out = append(r.out, r.plain...)
		r.plain = nil
		k, err := w.Write(r.out)
		n += int64(k)
		r.out = r.out[:0]
		switch {
		case err != nil:
			r.err = err // nothing is proven by what was not written
			return n, err
		case r.err == io.EOF:
			return n, nil
		case r.err != nil:
			return n, r.err
		}
	}
}

// next opens the next chunk; io.EOF says that the last was the final one.
func (r *reader) next() error {
	if r.final {
		if _, err := r.in.Peek(1); err == nil {
			return r.in.Corrupt("something else after the final chunk")
		} else if err != io.EOF {
			return err
		}
		return io.EOF
	}
	first := r.state == nil
	if first {
		var header [headerSize]byte
		if _, err := io.ReadFull(r.in, header[:]); err != nil {
			return r.in.Fault(err)
		}
		r.state = newState(r.key, header[:])
		r.buf = make([]byte, blockSize+chunkSize+macSize)
	}
	n, err := io.ReadFull(r.in, r.buf[blockSize-tagSize:])
	if n < overhead || err != nil && err != io.ErrUnexpectedEOF {
		return r.in.Fault(err)
	}
	whole := r.buf[:blockSize-tagSize+n]
	tag, err := r.state.open(whole)
	switch {
	case err != nil && first:
		return r.in.Corrupt("the key does not fit, or the data is damaged or of another kind")
	case err != nil && n < chunkSize+overhead:
		return r.in.Corrupt("truncated or damaged")
	case err != nil:
		return r.in.Corrupt("damaged")
	case tag > tagFinal:
		return r.in.Corrupt("a chunk of the unknown kind %d", tag)
	case tag != tagFinal && n < chunkSize+overhead:
		return r.in.Corrupt("truncated")
	}
	r.final = tag == tagFinal
	r.plain = whole[blockSize : len(whole)-macSize]
	return nil
}
