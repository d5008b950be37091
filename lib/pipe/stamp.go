// Package pipe is the policy for standard input and standard output that
// every walg program follows: an end of file counts only where its producer
// has earned it.
//
// A reader of a pipe cannot tell a writer that finished from one that died.
// Both ends can see the inode of an anonymous pipe, though, and its mode and
// modification time are free to use. A walg program marks the pipe that it
// writes when it starts, and stamps its verdict as its last act; the reader
// looks after its first byte and at end of file. Nothing is added to the data.
//
// Only Linux has the stamp. Elsewhere every pipe counts as foreign.
package pipe

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// The numbers of the stamp. They are the interface between walg programs of
// different versions and never change.
const (
	bitWalg  = 0o1000 // a walg program writes this pipe
	bitMixed = 0o0001 // more than one walg program wrote it
	bitTaint = 0o0010 // the data comes, somewhere upstream, from an unproven end of file

	stampNano = 574147 // nanoseconds of a modification time that is a stamp
	lastError = 125    // highest exit status that a stamp carries
)

// marks is what a pipe's inode says about its writers.
type marks struct {
	walg, mixed, tainted bool
	sec, nsec            int64 // modification time
}

// verdict says what the marks prove after n bytes have been read and the pipe
// has ended: earned, or else the status with which the writer failed (1 to
// 125), or neither, for a writer that died or wrote something else.
func (m marks) verdict(n int64) (earned bool, status int) {
	switch {
	case m.mixed || m.nsec != stampNano:
	case m.sec == n:
		return true, 0
	case m.sec < 0 && m.sec >= -lastError:
		return false, int(-m.sec)
	}
	return false, 0
}

// End is the writing end of a stream that this program produces. If it is an
// anonymous pipe that this program may mark, the mark is set by Claim and the
// stamp by Stamp; anything else keeps its mode and times.
type End struct {
	f      *os.File
	n      atomic.Int64
	marked bool // an anonymous pipe with our mark and nobody else's
}

// Claim takes f as a stream that this program writes. It is the first act of
// main, so that a program that dies later is known to have been here.
func Claim(f *os.File) *End {
	e := &End{f: f}
	if !isPipe(f) {
		return e
	}
	grow(f)
	m, err := readMarks(f)
	if err != nil {
		return e
	}
	if m.walg {
		// Another walg program wrote here before us; neither count can
		// match what the reader sees. If the mark fails, the counts
		// still differ.
		_ = addBits(f, bitMixed)
		return e
	}
	// A pipe of another user refuses: it stays foreign to its reader.
	e.marked = addBits(f, bitWalg) == nil
	return e
}

// ErrReaderGone is the error of writing to a pipe that nobody reads any more.
// Its cause lies downstream.
var ErrReaderGone = errors.New("the reader is gone")

// Write writes p to the stream and counts it.
func (e *End) Write(p []byte) (int, error) {
	n, err := e.f.Write(p)
	e.n.Add(int64(n))
	if errors.Is(err, syscall.EPIPE) {
		err = ErrReaderGone
	}
	return n, err
}

// Bytes returns the number of bytes written.
func (e *End) Bytes() int64 { return e.n.Load() }

// File returns the file below the stream.
func (e *End) File() *os.File { return e.f }

// Taint marks the stream as coming from an end of file that nobody earned.
// It returns an error where the mark is needed and cannot be set.
func (e *End) Taint() error {
	if !e.marked {
		return nil // a foreign pipe is tainted by itself
	}
	return addBits(e.f, bitTaint)
}

// Stamp is the last act on the stream: status 0 says that all of it was
// written, 1 to 125 that the program failed. Other statuses leave no stamp,
// which a reader takes for death.
func (e *End) Stamp(status int) error {
	if !e.marked || status < 0 || status > lastError {
		return nil
	}
	sec := e.n.Load()
	if status > 0 {
		sec = -int64(status)
	}
	return setTime(e.f, sec)
}

// BufferSize is the size of the pooled buffers and of the pipes that this
// package makes: large enough that system calls do not count.
const BufferSize = 1 << 20

var buffers = sync.Pool{New: func() any { return new([BufferSize]byte) }}

// Copy copies src to dst through one pooled buffer until io.EOF, which is not
// an error, and returns the number of bytes written.
func Copy(dst io.Writer, src io.Reader) (int64, error) {
	buf := buffers.Get().(*[BufferSize]byte)
	defer buffers.Put(buf)
	// Hiding other methods keeps io.CopyBuffer on our buffer.
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
}
