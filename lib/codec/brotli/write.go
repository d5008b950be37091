package brotli

import (
	"io"
	"runtime"

	library "github.com/andybalholm/brotli"
	"github.com/andybalholm/brotli/matchfinder"

	"walg/lib/fault"
)

// Levels, the numbers of the brotli program's -q.
const (
	Fastest  = 0
	Default  = 3
	Smallest = 11
)

const (
	windowLog = 22
	window    = 1<<windowLog - 16 // the farthest distance (RFC 7932 section 9.1)
)

// NewWriter returns a writer of one stream into w. At the levels 0 to 3 it
// finds matches and codes them on two cores where threads allows it; the
// others work on one. They take up to 128 MiB.
//
// Each level is at least as small as the one below it, which the library's own
// are not: its levels 0 to 4 are larger than what its newer match finders do in
// less time, so that here 0 and 1 are the same, 2 and 3, and 4 and 5.
func NewWriter(w io.Writer, level, threads int) (io.WriteCloser, error) {
	switch {
	case level < Fastest || level > Smallest:
		return nil, fault.New(fault.Usage, "brotli has no level %d: it is %d to %d", level, Fastest, Smallest)
	case level <= 1:
		return newFast(w, &matchfinder.ZFast{MaxDistance: window}, threads), nil
	case level <= 3:
		return newFast(w, &matchfinder.ZM{MaxDistance: window}, threads), nil
	}
	return &dense{
		z:       library.NewWriterOptions(w, library.WriterOptions{Quality: max(level, 5), LGWin: windowLog}),
		portion: make([]byte, 0, portionSize),
	}, nil
}

// portionSize is how much the library codes at once. With more the levels from
// 10 on need more than 128 MiB; with less all become larger, and below 1 MiB
// the library searches in another way, which does badly on text.
const portionSize = 2 << 20

// dense is the library's first writer, which knows all of the format.
type dense struct {
	z       *library.Writer
	portion []byte
	err     error
	done    bool
}

func (d *dense) Write(p []byte) (n int, err error) {
	for len(p) > 0 && d.err == nil {
		k := min(len(p), portionSize-len(d.portion))
		d.portion = append(d.portion, p[:k]...)
		n += k
		p = p[k:]
		if len(d.portion) == portionSize {
			d.err = d.pass()
		}
	}
	return n, d.err
}

// pass codes the portion, to the end.
func (d *dense) pass() error {
	_, err := d.z.Write(d.portion)
	d.portion = d.portion[:0]
	if err == nil {
		err = d.z.Flush()
	}
	// A portion leaves garbage of a few large pieces, as much as all that is in
	// use; left alone it doubles the process. To look takes less than a
	// millisecond, to code a portion a hundred.
	runtime.GC()
	return err
}

// Close writes the rest and the end of the stream.
func (d *dense) Close() error {
	if d.done || d.err != nil {
		return d.err
	}
	d.done = true
	if _, d.err = d.z.Write(d.portion); d.err == nil {
		d.err = d.z.Close()
	}
	return d.err
}
