package raw

import "io"

// Pieces reads what next decodes, piece by piece.
type Pieces struct {
	next func() ([]byte, error)
	out  []byte // not yet read
	err  error  // after out
}

// NewPieces returns a reader of what next returns: a piece, which may be empty
// and is read before the next call, and an error, after which there is no call.
func NewPieces(next func() ([]byte, error)) *Pieces { return &Pieces{next: next} }

// Ended reports whether all was read, to io.EOF.
func (p *Pieces) Ended() bool { return p.err == io.EOF && len(p.out) == 0 }

func (p *Pieces) Read(b []byte) (int, error) {
	for len(p.out) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		p.out, p.err = p.next()
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

// WriteTo writes without a copy between.
func (p *Pieces) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(p.out) > 0 {
			m, err := w.Write(p.out)
			n += int64(m)
			p.out = p.out[m:]
			if err != nil {
				return n, err
			}
		}
		if p.err == io.EOF {
			return n, nil
		}
		if p.err != nil {
			return n, p.err
		}
		p.out, p.err = p.next()
	}
}
