package envelope

import (
	"context"
	"errors"
	"io"

	"github.com/minio/sio"

	"walg/lib/decode"
	"walg/lib/fault"
)

const (
	packageSize = 64 << 10 // bytes of content in a package
	// maxContent is how much one data key may encrypt: DARE counts packages
	// with 32 bits, and sio does not look.
	maxContent = packageSize << 32
)

func config(data []byte, f Format) sio.Config {
	c := sio.Config{Key: data}
	if f.OnlyAES {
		c.CipherSuites = []byte{sio.AES_256_GCM}
	}
	return c
}

// writer writes the head of a message and its stream.
type writer struct {
	w    io.Writer
	name string
	head []byte // not written yet
	dare io.WriteCloser
	n    int64 // bytes of content
	done bool
	err  error
}

func newWriter(w io.Writer, head, data []byte, f Format) (io.WriteCloser, error) {
	// Its Close would close w, if it could.
	dare, err := sio.EncryptWriter(struct{ io.Writer }{w}, config(data, f))
	if err != nil {
		return nil, err
	}
	return &writer{w: w, name: f.Name, head: head, dare: dare}, nil
}

func (w *writer) Write(p []byte) (int, error) {
	switch {
	case w.err != nil || len(p) == 0:
		return 0, w.err
	case w.done:
		return 0, io.ErrClosedPipe
	case int64(len(p)) > maxContent-w.n:
		w.err = fault.New(fault.Usage, "%s: one message holds %d bytes at most", w.name, int64(maxContent))
		return 0, w.err
	}
	if w.head != nil {
		var n int
		if n, w.err = w.w.Write(w.head); w.err == nil && n < len(w.head) {
			w.err = io.ErrShortWrite
		}
		if w.err != nil {
			return 0, w.err
		}
		w.head = nil
	}
	n, err := w.dare.Write(p)
	w.n, w.err = w.n+int64(n), err
	return n, err
}

// Close writes the final package.
func (w *writer) Close() error {
	if w.err != nil || w.done {
		return w.err
	}
	w.done = true
	if w.n == 0 {
		w.err = fault.WithHint(fault.New(fault.Usage, "%s: nothing to encrypt: this format has no empty message", w.name),
			"compress first: walg-compress makes something of nothing")
		return w.err
	}
	w.err = w.dare.Close()
	return w.err
}

// reader reads a message.
type reader struct {
	method *Method
	ctx    context.Context
	in     *decode.Input
	tail   tail
	dare   io.Reader // nil before the head was read
	marked bool      // the version of the stream marks its end
	err    error
}

// tail remembers whether the input has ended.
type tail struct {
	io.Reader
	ended bool
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.ended = err == io.EOF
	return n, err
}

// Proven reports whether the final package was seen. DARE 1.0 has none.
func (r *reader) Proven() bool { return r.err == io.EOF && r.marked }

func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil && r.dare == nil {
		r.err = r.begin()
	}
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.dare.Read(p)
	if err != nil {
		r.err = r.judge(err)
	}
	if n > 0 {
		return n, nil // an error comes with the next call
	}
	return 0, r.err
}

// WriteTo has room for whole packages, which sio then decrypts in place.
func (r *reader) WriteTo(w io.Writer) (written int64, err error) {
	buf := make([]byte, packageSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			written += int64(m)
			if werr != nil {
				return written, werr
			}
		}
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

func (r *reader) begin() error {
	data, _, err := r.method.open(r.ctx, r.in)
	if err != nil {
		return err
	}
	version, err := r.in.Peek(1)
	if err != nil {
		return r.in.Fault(err)
	}
	r.marked = version[0] == sio.Version20
	r.tail.Reader = r.in
	r.dare, err = sio.DecryptReader(&r.tail, config(data, r.method.Format))
	return err
}

// judge says what an error of sio means.
func (r *reader) judge(err error) error {
	var damaged sio.Error
	switch {
	case err == io.EOF && r.tail.ended:
		return io.EOF
	case errors.As(err, &damaged) && r.tail.ended:
		err = errors.New("truncated or damaged")
	case errors.As(err, &damaged):
		err = errors.New("damaged")
	}
	return r.in.Fault(err)
}
