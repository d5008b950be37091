package pipe

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"walg/lib/child"
	"walg/lib/fault"
)

// Policy says how an Input treats an end of file that nobody earned, and how
// long it waits.
type Policy struct {
	Commits bool          // the reader commits what it reads: refuse a tainted stream at its first byte
	Trust   bool          // take a foreign or tainted end of file for earned (--trust-eof)
	Force   bool          // read binary data from a terminal
	Idle    time.Duration // fail when no byte comes for so long; 0 waits for ever
	Linger  time.Duration // how long COMMAND's output may stay open after its exit
	Hint    string        // what to do about a refused foreign stream
	Warn    func(message string)
}

// Input is a stream that this program reads. Its Read returns io.EOF only
// where the end was earned, trusted, or, with Tainted true, foreign; in all
// other cases the end is an error with the status to exit with. After the
// first error Read goes on returning it.
type Input struct {
	ctx     context.Context
	policy  Policy
	name    string // for messages: "standard input", a file's name, a command
	f       *os.File
	kind    kind
	command *child.Child // the producer behind f, or nil
	honest  bool         // its status speaks for all the pipelines inside it
	wake    *os.File     // at its end when a waiting Read must look up
	waker   *os.File     // the other side of wake, held open until then
	unwatch func() bool
	total   int64 // size of a regular file, else -1
	n       atomic.Int64
	tainted atomic.Bool // a codec's writing goroutine asks
	err     error
}

type kind int

const (
	believed kind = iota // a regular file, /dev/null: the kernel knows the end
	stamped              // an anonymous pipe: the stamp decides
	foreign              // nothing proves the end
	command              // COMMAND's output: its exit status decides
)

// Stdin opens standard input.
func Stdin(ctx context.Context, p Policy) (*Input, error) {
	if IsTerminal(os.Stdin) && !p.Force {
		return nil, fault.WithHint(fault.New(fault.Usage, "standard input is a terminal"),
			"name a FILE, read from a pipe, or use --force")
	}
	return newInput(ctx, os.Stdin, "standard input", p)
}

// Open opens a FILE operand. A pipe by name (/dev/stdin, process
// substitution) comes under the same contract as standard input.
func Open(ctx context.Context, name string, p Policy) (*Input, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	in, err := newInput(ctx, f, name, p)
	if err != nil {
		f.Close()
		return nil, err
	}
	return in, nil
}

func newInput(ctx context.Context, f *os.File, name string, p Policy) (*Input, error) {
	in := &Input{ctx: ctx, policy: p, name: name, f: f, total: -1}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		in.total = fi.Size()
		if at, err := f.Seek(0, io.SeekCurrent); err == nil {
			in.total -= at
		}
		return in, nil
	case mode.IsDir():
		return nil, fault.New(fault.Usage, "read %s: is a directory", name)
	case isNull(fi), isBlockDevice(mode):
		return in, nil
	case isPipe(f):
		in.kind = stamped
		grow(f)
	default:
		in.kind = foreign
	}
	return in, in.watch()
}

// watch makes a waiting Read look up when the context ends.
func (in *Input) watch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	in.wake, in.waker = r, w
	in.unwatch = context.AfterFunc(in.ctx, func() { w.Close() })
	if in.command != nil {
		in.command.OnLinger(func() { w.Close() })
	}
	return nil
}

// Name returns the input's name for messages.
func (in *Input) Name() string { return in.name }

// Bytes returns the number of bytes read.
func (in *Input) Bytes() int64 { return in.n.Load() }

// Total returns the number of bytes to expect, or -1 where nobody knows.
func (in *Input) Total() int64 { return in.total }

// Tainted reports whether the data comes from an end of file that nobody
// earned. It is known after the first byte as a rule and for certain at
// io.EOF.
func (in *Input) Tainted() bool { return in.tainted.Load() && !in.policy.Trust }

// Read reads from the stream under its contract.
func (in *Input) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := in.read(p)
	if n > 0 && in.n.Load() == 0 {
		if first := in.look(); first != nil {
			in.err = first
			return 0, first
		}
	}
	in.n.Add(int64(n))
	switch {
	case err == io.EOF:
		in.err = in.end()
	case err != nil:
		in.err = fmt.Errorf("read %s: %w", in.name, err)
	}
	if n > 0 {
		return n, nil // in.err comes with the next call
	}
	return 0, in.err
}

// Await waits for the first byte, or the end, without reading it, so that
// Tainted is known before this program writes a header of its own. What is
// wrong the next Read says.
func (in *Input) Await() error {
	if in.kind == believed || in.n.Load() > 0 {
		return in.ctx.Err()
	}
	if err := in.wait(); err != nil {
		return fmt.Errorf("read %s: %w", in.name, err)
	}
	_ = in.look()
	return nil
}

// read waits and reads once.
func (in *Input) read(p []byte) (int, error) {
	if err := in.wait(); err != nil {
		return 0, err
	}
	return in.f.Read(p)
}

// wait waits until there is something to read.
func (in *Input) wait() error {
	if err := in.ctx.Err(); err != nil {
		return err
	}
	if in.wake == nil {
		return nil
	}
	ready, err := waitReadable(in.f, in.wake, in.policy.Idle)
	switch {
	case err != nil:
		return err
	case in.ctx.Err() != nil:
		return in.ctx.Err()
	case !ready && in.command.Lingers():
		return fault.New(fault.Unearned, "%s exited %v ago and its output is still open", in.name, in.policy.Linger)
	case !ready:
		return fault.New(fault.Failed, "no data for %v", in.policy.Idle)
	}
	return nil
}

// look is the look after the first byte.
func (in *Input) look() error {
	switch in.kind {
	case believed:
		return nil
	case foreign:
		in.tainted.Store(true)
	case stamped:
		m, err := readMarks(in.f)
		if err != nil {
			return fmt.Errorf("read %s: %w", in.name, err)
		}
		if m.mixed {
			return mixedError(in.name)
		}
		in.tainted.Store(!m.walg || m.tainted)
	case command:
		m, err := readMarks(in.f)
		in.tainted.Store(err == nil && m.walg && m.tainted && !in.honest)
	}
	return in.refuse()
}

// end is the look at end of file: io.EOF, or why it does not count.
func (in *Input) end() error {
	switch in.kind {
	case believed:
		return io.EOF
	case command:
		if err := in.command.Wait(in.ctx); err != nil {
			return err
		}
		if err := in.look(); err != nil {
			return err
		}
		return io.EOF
	case foreign:
		in.tainted.Store(true)
	case stamped:
		m, err := readMarks(in.f)
		if err != nil {
			return fmt.Errorf("read %s: %w", in.name, err)
		}
		in.tainted.Store(in.tainted.Load() || !m.walg || m.tainted)
		if !m.walg {
			break
		}
		if earned, status := m.verdict(in.n.Load()); status != 0 {
			return fault.New(status, "upstream failed with status %d", status)
		} else if m.mixed {
			return mixedError(in.name)
		} else if !earned {
			return fault.WithHint(
				fault.New(fault.Unearned, "%s ended after %d bytes before its producer had finished", in.name, in.n.Load()),
				"the stage upstream died; its own message, or the kernel's log, says why")
		}
	}
	if err := in.refuse(); err != nil {
		return err
	}
	return io.EOF
}

// refuse refuses a tainted stream where the reader would commit it.
func (in *Input) refuse() error {
	if !in.Tainted() || !in.policy.Commits {
		return nil
	}
	return fault.WithHint(
		fault.New(fault.Unearned, "%s comes from a program that cannot say whether it finished", in.name),
		"%s", in.policy.Hint)
}

func mixedError(name string) error {
	return fault.WithHint(
		fault.New(fault.Unearned, "%s was written by more than one walg program", name),
		"run them as one producer: -- sh -ec 'first; second'")
}

// Close ends the reading. A COMMAND that has not finished is killed with all
// of its process group.
func (in *Input) Close() error {
	if in.command != nil {
		in.command.Kill()
	}
	if in.wake != nil {
		in.unwatch()
		in.wake.Close()
		in.waker.Close()
	}
	return in.f.Close()
}

func isNull(fi fs.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(fi, null)
}

// isBlockDevice: a disk's end is a fact, as a file's is.
func isBlockDevice(mode fs.FileMode) bool {
	return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
}

// Peek returns the first bytes of in, at most n and fewer only where the
// stream is shorter, and a reader that delivers them again with all the rest.
func Peek(in io.Reader, n int) (head []byte, rest io.Reader, err error) {
	head = make([]byte, n)
	got, err := io.ReadFull(in, head)
	head = head[:got]
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // rest meets the end again
	}
	return head, io.MultiReader(bytes.NewReader(head), in), err
}
