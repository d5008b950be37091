package lzma

import (
	"errors"
	"io"

	"walg/lib/codec/lzma/raw"
	"walg/lib/fault"
)

// Default is the level for those who ask for none, in size and speed like
// xz -0. WAL-G has no levels; what it writes is a tenth larger, or more.
const Default = 6

const (
	most = 9 // levels

	symbols  = 16 << 10  // in a batch
	batches  = 4         // at once: they bound what is on its way
	outSize  = 64 << 10  // that is worth writing
	pending  = 64 << 10  // that is worth searching
	readSize = 256 << 10 // taken at once
)

// header begins every stream that we write, as WAL-G does: the usual
// properties, a dictionary of 8 MiB, unknown size.
var header = []byte{0x5d, 0, 0, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// effort is what a level spends. Levels are close to each other: to search
// longer, and then take what is found, hardly makes the data smaller. What would
// is the way of xz -6, to weigh all possible parses; it is twenty times slower.
type effort struct {
	lazy   bool // look whether the next place has a better match
	depth  int  // places in the table of near ones, up to ways
	enough int  // a match so long is taken at once
}

var efforts = [most + 1]effort{
	{false, 1, 16},
	{false, 2, 32},
	{true, 1, 16},
	{true, 1, 32},
	{true, 2, 32},
	{true, 2, 64},
	{true, 4, 64},
	{true, 4, 128},
	{true, 4, 200},
	{true, 4, raw.MaxMatch},
}

// writer searches for matches on the core of its user, and codes them on
// another.
type writer struct {
	w      io.Writer
	search *search
	batch  []raw.Symbol
	free   chan []raw.Symbol
	queue  chan []raw.Symbol
	ended  chan struct{} // the queue is written
	failed chan struct{} // closed when err is set
	err    error         // of writing; read after ended or failed
	done   bool
}

// NewWriter returns a writer of a stream into w. Levels are 0 to 9: they
// differ in time and size, and all write the same header, and take as much
// memory to read.
func NewWriter(w io.Writer, level int) (io.WriteCloser, error) {
	if level < 0 || level > most {
		return nil, fault.New(fault.Usage, "lzma has no level %d: it is 0 to %d", level, most)
	}
	z := &writer{
		w:      w,
		search: newSearch(efforts[level]),
		free:   make(chan []raw.Symbol, batches),
		queue:  make(chan []raw.Symbol, batches),
		ended:  make(chan struct{}),
		failed: make(chan struct{}),
	}
	for range batches {
		z.free <- make([]raw.Symbol, 0, symbols)
	}
	z.batch = <-z.free
	go z.write()
	return z, nil
}

// write codes and writes what is in the queue.
func (z *writer) write() {
	defer close(z.ended)
	code := raw.NewEncoder()
	out := append(make([]byte, 0, 2*outSize), header...)
	put := func() {
		if z.err == nil {
			if _, z.err = z.w.Write(out); z.err != nil {
				close(z.failed)
			}
		}
		out = out[:0]
	}
	for batch := range z.queue {
		out = code.Append(out, batch)
		z.free <- batch[:0]
		if len(out) >= outSize {
			put()
		}
	}
	out = code.Finish(out)
	put()
}

var errClosed = errors.New("lzma: write after close")

// room returns where data can be added.
func (z *writer) room() ([]byte, error) {
	select {
	case <-z.failed:
		return nil, z.err
	default:
	}
	if z.done {
		return nil, errClosed
	}
	return z.search.free(), nil
}

// added takes n more bytes.
func (z *writer) added(n int) {
	z.search.end += n
	if z.search.end-z.search.at >= pending {
		z.parse(false)
	}
}

func (z *writer) parse(all bool) {
	for {
		z.batch = z.search.parse(z.batch, all)
		if len(z.batch) < cap(z.batch) {
			return
		}
		z.queue <- z.batch
		z.batch = <-z.free
	}
}

// Write compresses p.
func (z *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k := copy(room[:min(len(room), readSize)], p)
		z.added(k)
		n += k
		p = p[k:]
	}
	return n, nil
}

// ReadFrom compresses what r yields, without a copy between.
func (z *writer) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k, err := r.Read(room[:min(len(room), readSize)])
		z.added(k)
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close writes what is left, and the end marker.
func (z *writer) Close() error {
	if !z.done {
		z.done = true
		z.parse(true)
		z.queue <- z.batch
		close(z.queue)
		<-z.ended
	}
	return z.err
}
