package raw

const (
	// MinWindow is the least window; the format allows distances up to it
	// whatever a header says.
	MinWindow = 4 << 10

	firstWindow = 64 << 10
	lastStep    = 16 << 20
)

// window holds the bytes that matches reach. It is a ring that grows with the
// data, for a header can ask for 4 GiB and be wrong: fourfold, and from
// lastStep on to the whole, which the system gives page by page as it fills.
type window struct {
	buf    []byte
	size   int // how far back matches reach
	at     int // next byte
	base   int // position of buf[0] in the data
	valid  int // bytes before at that matches may reach
	before byte
	round  bool // at has gone round: the ring can no longer grow
}

// Open begins a window of size bytes. It keeps the memory of the last one.
func (w *window) Open(size int) {
	*w = window{buf: w.buf, size: max(size, MinWindow)}
}

// Forget puts what came before out of the reach of matches.
func (w *window) Forget() { w.base, w.valid, w.before = -w.at, 0, 0 }

// Store takes bytes that are not coded. It returns those that it took, which
// stay until the next call.
func (w *window) Store(p []byte) []byte {
	start, end := w.advance(len(p))
	return w.done(start + copy(w.buf[start:end], p))
}

// advance makes room for at least one and at most room bytes from start to end.
func (w *window) advance(room int) (start, end int) {
	if w.at == len(w.buf) {
		if w.round || len(w.buf) >= w.size {
			w.base += w.at
			w.at, w.round = 0, true
		} else {
			n := max(4*len(w.buf), firstWindow)
			if n > lastStep || n > w.size {
				n = w.size
			}
			larger := make([]byte, n)
			copy(larger, w.buf)
			w.buf = larger
		}
	}
	return w.at, min(w.at+room, len(w.buf))
}

// done says that the window is full to at, and returns what is new.
func (w *window) done(at int) []byte {
	fresh := w.buf[w.at:at]
	if len(fresh) > 0 {
		w.before = fresh[len(fresh)-1]
	}
	w.valid = min(w.valid+len(fresh), w.size)
	w.at = at
	return fresh
}

// index is where the byte lies that is distance+1 before at.
func (w *window) index(at int, distance uint32) int {
	i := at - int(distance) - 1
	if i < 0 {
		i += len(w.buf)
	}
	return i
}

// repeat copies what is left of the last match to at, but not beyond end. It
// returns where the copy ends.
func (d *Decoder) repeat(at, end int) int {
	n := min(d.left, end-at)
	d.left -= n
	from := d.index(at, d.distance[0])
	if k := len(d.buf) - from; k < n { // round the end of the ring
		copy(d.buf[at:at+k], d.buf[from:])
		at, n, from = at+k, n-k, 0
	}
	to := d.buf[at : at+n]
	switch back := at - from; {
	case back >= n || back <= 0:
		copy(to, d.buf[from:])
	case back == 1:
		c := d.buf[from]
		for i := range to {
			to[i] = c
		}
	default: // it runs into itself, and what it copies doubles
		for k := 0; k < n; {
			k += copy(to[k:], d.buf[from:at+k])
		}
	}
	return at + n
}
