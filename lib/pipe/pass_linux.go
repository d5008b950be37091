package pipe

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Pass copies in to out as it is. From pipe to pipe the system hands pages
// over instead of copying what is in them.
func Pass(out *Output, in *Input) error {
	// The first bytes go the ordinary way: they decide about the taint, of
	// which the reader must learn before any of them.
	first := make([]byte, 4096)
	n, err := in.Read(first)
	if n > 0 {
		if _, err := out.Write(first[:n]); err != nil {
			return err
		}
	}
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	for in.err == nil && isPipe(in.f) && isPipe(out.end.f) {
		err := in.splice(out.end)
		if errors.Is(err, unix.EINVAL) { // a pipe that cannot, as one with O_DIRECT's packets
			break
		}
		if err != nil {
			return err
		}
	}
	_, err = Copy(out, in) // the rest, or the end again
	return err
}

// splice moves once what is there. At the end in.err says how it ended.
func (in *Input) splice(end *End) error {
	if in.err = in.wait(); in.err != nil {
		in.err = fmt.Errorf("read %s: %w", in.name, in.err)
		return in.err
	}
	var n int64
	err := control(in.f, func(from int) error {
		return control(end.f, func(to int) (err error) {
			n, err = unix.Splice(from, nil, to, nil, BufferSize, unix.SPLICE_F_MOVE)
			return err
		})
	})
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return nil
	case errors.Is(err, unix.EPIPE):
		return ErrReaderGone
	case err != nil:
		return fmt.Errorf("read %s: %w", in.name, err)
	}
	in.n.Add(n)
	end.n.Add(n)
	if n == 0 {
		in.err = in.end()
	}
	return nil
}
