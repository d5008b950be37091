// Package packet frames OpenPGP packets (RFC 9580 section 4.2): the tag, and
// the bytes of the body in every form of length. What a body means is for
// others to say. Its errors carry no status: io.EOF is an end between packets,
// io.ErrUnexpectedEOF one inside, errors of the source pass unchanged, and any
// other says what is wrong with the data.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Tags of packets (RFC 9580 section 5).
const (
	PublicKeyEncrypted = 1 // a session key, encrypted with a public key
	Signature          = 2
	PassphraseKey      = 3 // a session key, encrypted with a passphrase
	OnePassSignature   = 4
	SecretKey          = 5
	PublicKey          = 6
	SecretSubkey       = 7
	Compressed         = 8
	EncryptedBare      = 9 // without a modification detection code
	Marker             = 10
	Literal            = 11
	UserID             = 13
	PublicSubkey       = 14
	UserAttribute      = 17
	Encrypted          = 18 // and integrity protected
	EncryptedOCB       = 20 // GnuPG's own, from 2.3
)

const (
	newFormat = 0xc0 // the first byte of a packet: 0xc0 and the tag
	partial   = 0xe0 // a partial length: 0xe0 and the binary logarithm
)

// Source is what packets are read from. A *bufio.Reader is one.
type Source interface {
	io.Reader
	io.ByteReader
	Buffered() int
	Peek(n int) ([]byte, error)
	Discard(n int) (int, error)
}

// Body is the body of one packet. Read returns io.EOF at the end of the packet.
type Body struct {
	Tag  byte
	src  Source
	left int64 // bytes of the piece at hand
	more bool  // another piece follows
	open bool  // the body ends with the source
}

// Next reads the header of the next packet. The body of the one before must
// have been read.
func Next(src Source) (*Body, error) {
	first, err := src.ReadByte()
	if err != nil {
		return nil, err
	}
	b := &Body{src: src}
	switch {
	case first&newFormat == newFormat:
		b.Tag = first &^ newFormat
		return b, b.length()
	case first&0x80 == 0:
		return nil, errors.New("no OpenPGP packet")
	}
	b.Tag = first >> 2 & 0xf
	octets := 1 << (first & 3)
	if first&3 == 3 {
		b.left, b.open = math.MaxInt64, true
		return b, nil
	}
	b.left, err = number(src, octets)
	return b, err
}

// length reads the length of the next piece.
func (b *Body) length() error {
	first, err := number(b.src, 1)
	b.left, b.more = first, false
	switch {
	case err != nil || first < 192:
	case first < partial:
		var second int64
		second, err = number(b.src, 1)
		b.left = (first-192)<<8 + second + 192
	case first < 255:
		b.left, b.more = 1<<(first&0x1f), true
	default:
		b.left, err = number(b.src, 4)
	}
	return err
}

// number reads a big-endian number.
func number(src Source, octets int) (int64, error) {
	var n int64
	for range octets {
		c, err := src.ReadByte()
		if err != nil {
			return 0, inside(err)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// piece makes sure that there is a byte left of the piece at hand, or ends.
func (b *Body) piece() error {
	for b.left == 0 {
		if !b.more {
			return io.EOF
		}
		if err := b.length(); err != nil {
			return err
		}
	}
	return nil
}

// end judges an error of the source in the middle of a piece.
func (b *Body) end(err error) error {
	if err == io.EOF && !b.open {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := b.piece(); err != nil {
		return 0, err
	}
	n, err := b.src.Read(p[:min(int64(len(p)), b.left)])
	b.took(n)
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, b.end(err)
}

// Peek returns bytes of the body that are at hand, at least one, without
// taking them: Discard does.
func (b *Body) Peek() ([]byte, error) {
	if err := b.piece(); err != nil {
		return nil, err
	}
	if _, err := b.src.Peek(1); err != nil {
		return nil, b.end(err)
	}
	return b.src.Peek(int(min(int64(b.src.Buffered()), b.left)))
}

// Discard takes n bytes that Peek returned.
func (b *Body) Discard(n int) {
	// It cannot fail: the bytes are at hand.
	n, _ = b.src.Discard(n)
	b.took(n)
}

func (b *Body) took(n int) {
	if !b.open {
		b.left -= int64(n)
	}
}

// All returns the whole body, which may have at most limit bytes.
func (b *Body) All(limit int) ([]byte, error) {
	if !b.open && b.left > int64(limit) {
		return nil, fmt.Errorf("a packet of type %d with more than %d bytes", b.Tag, limit)
	}
	body, err := io.ReadAll(io.LimitReader(b, int64(limit)+1))
	if err == nil && len(body) > limit {
		err = fmt.Errorf("a packet of type %d with more than %d bytes", b.Tag, limit)
	}
	return body, err
}

// AppendHeader appends the header of a packet with a body of n bytes.
func AppendHeader(p []byte, tag byte, n int) []byte {
	return AppendLength(append(p, newFormat|tag), n)
}

// AppendLength appends the length of a body or of its last piece.
func AppendLength(p []byte, n int) []byte {
	switch {
	case n < 192:
		return append(p, byte(n))
	case n < 8384:
		n -= 192
		return append(p, byte(192+n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(p, 255), uint32(n))
}

// Partial is the length of a piece of 1<<log bytes that is not the last.
func Partial(log int) byte { return partial | byte(log) }
