package pipe

import (
	"bytes"
	"os"
	"unicode/utf8"

	"walg/lib/atomicfile"
	"walg/lib/fault"
)

// Output is the stream that a filter writes: standard output or the FILE of
// -o. It carries payload only. Nothing is committed before Commit.
type Output struct {
	end      *End
	file     *atomicfile.File // the regular FILE of -o, else nil
	force    bool             // write binary data to a terminal
	terminal bool
	tainted  func() bool // whether the data being written is tainted
	late     bool        // the taint is known at the end only
}

// Stdout returns standard output, claimed by the first act of main, as the
// output.
func Stdout(end *End, force bool) *Output {
	return &Output{end: end, force: force, terminal: IsTerminal(end.f)}
}

// Create opens the FILE of -o. A regular or absent FILE appears, whole and
// durable, with Commit; a device, FIFO or symbolic link is written in place,
// never renamed over.
func Create(name string, stdout *End, force bool) (*Output, error) {
	fi, err := os.Lstat(name)
	if err == nil && fi.IsDir() {
		return nil, fault.New(fault.Usage, "write %s: is a directory", name)
	}
	if os.IsNotExist(err) || err == nil && fi.Mode().IsRegular() {
		f, err := atomicfile.Create(name)
		if err != nil {
			return nil, err
		}
		return &Output{end: &End{f: f.File()}, file: f}, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	switch {
	case os.IsNotExist(err): // a link that leads nowhere is no absent object
		return nil, fault.New(fault.Usage, "%w", err)
	case err != nil:
		return nil, err
	}
	if same(f, stdout.f) { // -o /dev/stdout
		f.Close()
		return Stdout(stdout, force), nil
	}
	return &Output{end: Claim(f), force: force, terminal: IsTerminal(f)}, nil
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// Follow makes the output as tainted as in is: its reader learns of it before
// the first byte. Who writes a header before it reads calls in.Await first.
func (o *Output) Follow(in *Input) { o.tainted = in.Tainted }

// FollowEnd makes the output as tainted as in is, unless at the end proven
// says that a decoder saw the data's own proof of its end. Its reader learns
// of it at the end.
func (o *Output) FollowEnd(in *Input, proven func() bool) {
	o.late = true
	o.tainted = func() bool { return in.Tainted() && !proven() }
}

// Write writes payload.
func (o *Output) Write(p []byte) (int, error) {
	if o.terminal && !o.force && binary(p) {
		return 0, fault.WithHint(fault.New(fault.Usage, "binary data is not written to a terminal"),
			"redirect it, name a file with -o FILE, or use --force")
	}
	if !o.late {
		if err := o.taint(); err != nil {
			return 0, err
		}
	}
	return o.end.Write(p)
}

func (o *Output) taint() error {
	if o.tainted == nil || !o.tainted() {
		return nil
	}
	o.tainted = nil // once is enough
	return o.end.Taint()
}

// Bytes returns the number of bytes written.
func (o *Output) Bytes() int64 { return o.end.Bytes() }

// Commit ends a complete output: FILE appears, durable. The stamp on a pipe
// comes later, as the program's last act.
//
// FILE cannot carry a taint. It is taken for what the user asked for, but not
// where nothing came at all: then the producer may never have started.
func (o *Output) Commit() error {
	if o.file != nil && o.Bytes() == 0 && o.tainted != nil && o.tainted() {
		return fault.WithHint(
			fault.New(fault.Unearned, "nothing came from a program that cannot say whether it finished"),
			"look upstream; if the output is empty by right, let it run the producer: -- COMMAND")
	}
	if err := o.taint(); err != nil {
		return err
	}
	if o.file != nil {
		return o.file.Commit()
	}
	return nil
}

// End returns the stream below, for the stamp.
func (o *Output) End() *End { return o.end }

// Abort gives up an output that was not committed: no FILE appears and an old
// one stays. After Commit it does nothing.
func (o *Output) Abort() {
	if o.file != nil {
		o.file.Abort()
	}
}

// binary reports whether p is something that a terminal should not get.
func binary(p []byte) bool {
	p = p[:min(len(p), 1024)]
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 && len(p) >= utf8.UTFMax {
			return true
		}
		if r < ' ' && !bytes.ContainsRune([]byte("\t\n\r\f\b\x1b"), r) {
			return true
		}
		p = p[n:]
	}
	return false
}
