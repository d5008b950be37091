package brotli

import (
	"io"
	"runtime"

	library "github.com/andybalholm/brotli"
	"github.com/andybalholm/brotli/matchfinder"
)

const (
	windowLog = 22
	window    = 1<<windowLog - 16 // the farthest distance (RFC 7932 section 9.1)
)

// NewWriter returns a writer of one stream into w, at a level of the brotli
// program's, 0 to 11. At the levels 0 to 3 one core finds matches and another
// codes them; the others work on one core. The process stays below 128 MiB.
//
// No level makes more than the one before it, but for WAL, of which 6 to 9 make
// up to 1 % more than 5, as those of the brotli program do. The library's
// levels 0 to 4 would: they make more than its newer match finders do in less
// time. So 0 and 1 are the same here, and so are 2 and 3, and 4 and 5.
func NewWriter(w io.Writer, level int) io.WriteCloser {
	switch {
	case level <= 1:
		return newFast(w, &matchfinder.ZFast{MaxDistance: window})
	case level <= 3:
		return newFast(w, &matchfinder.ZM{MaxDistance: window})
	}
	portion, piece := 2<<20, 2<<20
	if level >= 10 { // which take the most memory for what they are given at once
		portion, piece = 1<<20, 256<<10
	}
	return &dense{
		z:       library.NewWriterOptions(w, library.WriterOptions{Quality: min(max(level, 5), 11), LGWin: windowLog}),
		portion: make([]byte, 0, portion),
		piece:   piece,
	}
}

// dense is the library's first writer, which knows all of the format. It codes
// the content in portions, whatever the sizes of writes, because the library
// goes by the size of its first one: below 1 MiB it searches in a way that does
// badly on text. Without an end after each portion it makes hardly less, and
// takes twice the memory.
type dense struct {
	z       *library.Writer
	portion []byte // being filled, up to its capacity
	piece   int    // of a portion, that the library takes at once
	err     error
	done    bool
}

func (d *dense) Write(p []byte) (n int, err error) {
	for len(p) > 0 && d.err == nil {
		k := min(len(p), cap(d.portion)-len(d.portion))
		d.portion = append(d.portion, p[:k]...)
		n += k
		p = p[k:]
		if len(d.portion) == cap(d.portion) {
			if d.err = d.pass(); d.err == nil {
				d.err = d.z.Flush()
			}
		}
	}
	return n, d.err
}

// pass gives the portion to the library.
func (d *dense) pass() error {
	for p := d.portion; len(p) > 0; {
		k := min(len(p), d.piece)
		if _, err := d.z.Write(p[:k]); err != nil {
			return err
		}
		p = p[k:]
		// The library leaves garbage of a few large pieces, as much as all that
		// is in use; left alone it doubles the process. To collect it takes less
		// than a millisecond, to code a piece a hundred.
		runtime.GC()
	}
	d.portion = d.portion[:0]
	return nil
}

// Close writes the rest and the end of the stream.
func (d *dense) Close() error {
	if d.done || d.err != nil {
		return d.err
	}
	d.done = true
	if d.err = d.pass(); d.err == nil {
		d.err = d.z.Close()
	}
	return d.err
}
