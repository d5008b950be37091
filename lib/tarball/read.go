package tarball

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"walg/lib/fault"
)

const (
	blockSize = 512
	direct    = 64 << 10 // reads of this size pass the input's buffer
)

// Read calls each with every member of an archive, in order; content is valid
// during the call. The archive must have its two zero blocks, and after them
// only zero bytes may follow, up to the end of r: else the error has status 65.
// An error of r itself is returned unchanged, in preference to what it caused.
func Read(ctx context.Context, r io.Reader, each func(h *tar.Header, content io.Reader) error) error {
	in := &input{ctx: ctx, r: r, buf: make([]byte, 256<<10)}
	err := in.members(each)
	if in.told && in.err != io.EOF {
		return in.err
	}
	return err
}

// List writes one line for each member: mode, size, time, name and target.
func List(ctx context.Context, r io.Reader, w io.Writer) error {
	buf := bufio.NewWriter(w)
	err := Read(ctx, r, func(h *tar.Header, _ io.Reader) error {
		line := fmt.Sprintf("%s %12d %s %s", modeString(h), h.Size, h.ModTime.UTC().Format(time.RFC3339), printable(h.Name))
		switch h.Typeflag {
		case tar.TypeSymlink:
			line += " -> " + printable(h.Linkname)
		case tar.TypeLink:
			line += " link to " + printable(h.Linkname)
		}
		_, err := fmt.Fprintln(buf, line)
		return err
	})
	if e := buf.Flush(); err == nil {
		err = e
	}
	return err
}

func modeString(h *tar.Header) string {
	m := h.FileInfo().Mode()
	b := []byte(m.Perm().String())
	switch {
	case m.IsDir():
		b[0] = 'd'
	case m&fs.ModeSymlink != 0:
		b[0] = 'l'
	case h.Typeflag == tar.TypeLink:
		b[0] = 'h'
	case m.IsRegular():
		b[0] = '-'
	default:
		b[0] = '?'
	}
	for _, special := range []struct {
		mode fs.FileMode
		at   int
		with string // where x is set and where it is not
	}{{fs.ModeSetuid, 3, "sS"}, {fs.ModeSetgid, 6, "sS"}, {fs.ModeSticky, 9, "tT"}} {
		if m&special.mode == 0 {
			continue
		}
		if b[special.at] == 'x' {
			b[special.at] = special.with[0]
		} else {
			b[special.at] = special.with[1]
		}
	}
	return string(b)
}

// printable keeps a member's name from ending its line or reaching the terminal.
func printable(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) < 0 {
		return name
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// input buffers small reads and remembers how r ended, because archive/tar
// takes an end of input at a member's edge for the end of the archive.
type input struct {
	ctx  context.Context
	r    io.Reader
	buf  []byte
	have []byte // unread part of buf
	n    int64  // bytes handed on
	err  error  // what r said last
	told bool   // err was handed on
}

func (in *input) Read(p []byte) (int, error) {
	for tries := 0; len(in.have) == 0; tries++ {
		if in.err == nil {
			in.err = in.ctx.Err()
		}
		if in.err == nil && tries == 100 {
			in.err = io.ErrNoProgress
		}
		if in.err != nil {
			in.told = true
			return 0, in.err
		}
		var n int
		if len(p) >= direct { // a large file goes where it is wanted at once
			n, in.err = in.r.Read(p)
			if n > 0 {
				in.n += int64(n)
				return n, nil
			}
			continue
		}
		n, in.err = in.r.Read(in.buf)
		in.have = in.buf[:n]
	}
	n := copy(p, in.have)
	in.have = in.have[n:]
	in.n += int64(n)
	return n, nil
}

func (in *input) members(each func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		switch {
		case err == io.EOF && !in.told:
			return in.drain()
		case in.told && in.n == 0:
			return fault.New(fault.Data, "read archive: the input is empty")
		case in.told:
			return in.short()
		case err != nil && in.n <= blockSize:
			return fault.New(fault.Data, "read archive: this is not a tar archive")
		case err != nil:
			return fault.New(fault.Data, "read archive: before byte %d: %w", in.n, err)
		case h.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		if err := each(h, tr); err != nil {
			if in.told {
				return in.short()
			}
			return err
		}
	}
}

// short is the error for an archive without its end.
func (in *input) short() error {
	return fault.New(fault.Data, "read archive: cut short after %d bytes", in.n)
}

// drain reads on to the end of the input, so that its producer can finish and
// its verdict is heard.
func (in *input) drain() error {
	p := make([]byte, direct)
	for {
		n, err := in.Read(p)
		for _, c := range p[:n] {
			if c != 0 {
				return fault.New(fault.Data, "read archive: data follow its end, before byte %d", in.n)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
