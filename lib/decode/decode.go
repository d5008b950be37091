// Package decode holds what the readers of all formats, compressed and
// encrypted, have in common: an error of the input stays what it is, and all
// else that goes wrong is the data's fault.
package decode

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"walg/lib/fault"
)

// Reader undoes what a format did to a stream. After the first error Read goes
// on returning it. io.EOF comes only at an end that the format shows.
type Reader interface {
	io.Reader
	// Proven reports at io.EOF whether the data itself proved its end and its
	// content: the whole stream was one frame or message with a checksum.
	Proven() bool
}

// Overhead is what a reader may take beside the window of its format, bytes.
const Overhead = 64 << 20

// Input is what a reader reads from.
type Input struct {
	*bufio.Reader
	from   source
	format string
}

// source remembers why reading failed.
type source struct {
	io.Reader
	err error // not io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// NewInput returns an input over r with a buffer of size bytes. format begins
// the messages.
func NewInput(r io.Reader, format string, size int) *Input {
	in := &Input{from: source{Reader: r}, format: format}
	in.Reader = bufio.NewReaderSize(&in.from, size)
	return in
}

// Fault says what an error that a decoder met means: one of the input
// unchanged, because it says nothing about the data; else status 65.
// io.EOF and io.ErrUnexpectedEOF are "truncated". nil stays nil.
func (in *Input) Fault(err error) error {
	switch {
	case err == nil:
		return nil
	case in.from.err != nil:
		return in.from.err
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return in.Corrupt("truncated")
	}
	return in.Corrupt("%w", err)
}

// Corrupt is an error with status 65; text is as for fmt.Errorf.
func (in *Input) Corrupt(text string, args ...any) error {
	return fault.New(fault.Data, "%s: %w", in.format, fmt.Errorf(text, args...))
}

// Fits fails with status 65 where a window of so many bytes, and what is needed
// beside it, is more than memory allows.
func (in *Input) Fits(window, memory int64) error {
	const mib = 1 << 20
	if window <= memory-Overhead {
		return nil
	}
	need := (window-1)/mib + 1 + Overhead/mib
	return fault.WithHint(in.Corrupt("a window of %d bytes takes %d MiB to read, more than the %d MiB allowed", window, need, memory/mib),
		"allow it with --memory %dM", need)
}
