package openpgp

import (
	"bufio"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"fmt"
	"io"

	"walg/lib/crypt/openpgp/keyring"
	"walg/lib/crypt/openpgp/packet"
	"walg/lib/crypt/openpgp/seipd"
	"walg/lib/decode"
	"walg/lib/fault"
)

const (
	// maxNesting is how deep packets may be packed: the data, and compressions.
	maxNesting = 8
	// maxSkipped is the size of a signature.
	maxSkipped = 64 << 10

	outputSize = 128 << 10 // of writes
)

// reader reads a message.
type reader struct {
	ring   *keyring.Ring
	in     *decode.Input // with armor
	inside input
	levels []level      // the encrypted data, and what is packed in it
	body   *packet.Body // of the literal packet, or nil
	seen   bool         // the literal packet
	err    error
}

// level is a sequence of packets in another packet.
type level struct {
	packets packet.Source
	around  packet.Source // the compressed data, or nil
}

// Proven reports whether the whole message was read: its modification detection
// code matched.
func (r *reader) Proven() bool { return r.err == io.EOF }

// peek returns bytes of the content that are at hand, at least one.
func (r *reader) peek() ([]byte, error) {
	for r.err == nil {
		if r.body == nil {
			r.err = r.advance()
			continue
		}
		p, err := r.body.Peek()
		switch err {
		case nil:
			return p, nil
		case io.EOF:
			r.body = nil
		default:
			r.err = r.inside.fault(err)
		}
	}
	return nil, r.err
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	at, err := r.peek()
	if err != nil {
		return 0, err
	}
	n := copy(p, at)
	r.body.Discard(n)
	return n, nil
}

// WriteTo writes what is at hand in large pieces without a copy, and gathers
// small ones: gpg has a length every 8 KiB.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	gathered := make([]byte, 0, outputSize)
	write := func(p []byte) error {
		if len(p) == 0 {
			return nil
		}
		k, err := w.Write(p)
		n += int64(k)
		return err
	}
	for {
		p, err := r.peek()
		if err != nil {
			if werr := write(gathered); werr != nil || err == io.EOF {
				return n, werr
			}
			return n, err
		}
		if len(gathered) == 0 && len(p) >= outputSize/2 {
			err = write(p)
		} else {
			p = p[:min(len(p), outputSize-len(gathered))]
			gathered = append(gathered, p...)
			if len(gathered) == outputSize {
				err = write(gathered)
				gathered = gathered[:0]
			}
		}
		if err != nil {
			return n, err
		}
		r.body.Discard(len(p))
	}
}

// advance goes on to the literal packet, or to the end: io.EOF.
func (r *reader) advance() error {
	if r.levels == nil {
		if err := r.begin(); err != nil {
			return r.inside.fault(err)
		}
	}
	for r.body == nil {
		switch err := r.step(); {
		case err == io.EOF && len(r.levels) > 1:
			if err := r.leave(); err != nil {
				return r.inside.fault(err)
			}
		case err == io.EOF:
			if !r.seen {
				return r.inside.Corrupt("no literal data in the message")
			}
			if err := r.inside.end(); err != nil {
				return err
			}
			return io.EOF
		case err != nil:
			return r.inside.fault(err)
		}
	}
	return nil
}

// begin finds the session key and begins to decrypt.
func (r *reader) begin() error {
	var e envelope
	var err error
	if e, r.inside, err = begin(r.in); err != nil {
		return err
	}
	s, err := e.session(r.ring)
	if fault.Status(err) == fault.Data {
		err = fault.New(fault.Data, "openpgp: %w", err)
	}
	if err != nil {
		return err
	}
	block, err := seipd.NewCipher(s.Cipher, s.Key)
	if err != nil {
		return fault.WithHint(r.inside.Corrupt("%w", err), gpgHint)
	}
	r.levels = []level{{packets: seipd.NewReader(e.data, block)}}
	return nil
}

// step reads one packet of the innermost level; io.EOF is its end.
func (r *reader) step() error {
	body, err := packet.Next(r.levels[len(r.levels)-1].packets)
	if err != nil {
		return err
	}
	switch body.Tag {
	case packet.Signature, packet.OnePassSignature, packet.Marker:
		_, err = body.All(maxSkipped)
		return err
	case packet.Compressed:
		return r.enter(body)
	case packet.Literal:
		return r.literal(body)
	}
	return fmt.Errorf("a packet of type %d in the encrypted data", body.Tag)
}

// literal reads the header: a mode, a name and a date, which tell nothing that
// matters here.
func (r *reader) literal(body *packet.Body) error {
	if r.seen {
		return fmt.Errorf("two literal packets in the message")
	}
	var head [255]byte
	_, err := io.ReadFull(body, head[:2])
	if err == nil {
		_, err = io.ReadFull(body, head[:head[1]])
	}
	if err == nil {
		_, err = io.ReadFull(body, head[:4])
	}
	if err != nil {
		return inside(err)
	}
	r.body, r.seen = body, true
	return nil
}

// inside is for an end where there must be more.
func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// enter goes into a compressed packet.
func (r *reader) enter(body *packet.Body) error {
	if len(r.levels) == maxNesting {
		return fmt.Errorf("more than %d packets packed in one another", maxNesting)
	}
	around := bufio.NewReaderSize(body, inputSize)
	algorithm, err := around.ReadByte()
	if err != nil {
		return inside(err)
	}
	var plain io.Reader
	switch algorithm {
	case 0:
		plain = around
	case 1:
		plain = flate.NewReader(around)
	case 2:
		if plain, err = zlib.NewReader(around); err != nil {
			return inside(err)
		}
	case 3:
		plain = bzip2.NewReader(around)
	default:
		return fmt.Errorf("the compression number %d is unknown", algorithm)
	}
	r.levels = append(r.levels, level{bufio.NewReaderSize(plain, outputSize), around})
	return nil
}

// leave goes back to the packets around a compressed one.
func (r *reader) leave() error {
	last := len(r.levels) - 1
	if _, err := r.levels[last].around.Peek(1); err == nil {
		return fmt.Errorf("something else after the compressed data")
	} else if err != io.EOF {
		return err
	}
	r.levels = r.levels[:last]
	return nil
}
