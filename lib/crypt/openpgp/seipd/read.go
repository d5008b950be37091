package seipd

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"errors"
	"hash"
	"io"
)

// chunkSize is how much ciphertext is deciphered at a time, a multiple of every
// block size.
const chunkSize = 256 << 10

var (
	errChanged = errors.New("the modification detection code does not match: the data was damaged or changed")
	errPrefix  = errors.New("the first bytes are damaged, or the session key is another message's")
)

// Reader reads the plaintext of one encrypted data packet: a packet.Source. Its
// io.EOF says that the modification detection code matched; what came before
// is not proven until then. The caller's goroutine reads; others decipher and
// hash, each chunk in one of its own.
type Reader struct {
	body   io.Reader // after the version
	block  cipher.Block
	size   int // of a block
	sum    hash.Hash
	begun  bool
	carry  []byte         // ciphertext that may be the code, and begins the next chunk
	before [maxBlock]byte // ciphertext before the next chunk
	end    error          // of body; io.EOF at its end
	flight []*opening     // being deciphered, oldest first
	free   []*opening
	hashed chan struct{} // the youngest of all chunks is hashed
	chunk  *opening      // being read, or nil
	rest   []byte        // of its plaintext
	code   [mdcSize]byte
	err    error
}

// opening is a chunk on its way.
type opening struct {
	buf    []byte
	plain  []byte // the part of buf that is deciphered, in place
	last   bool
	before [maxBlock]byte
	ready  chan struct{} // plain is plaintext
	hashed chan struct{}
}

// NewReader returns a reader of the plaintext of a packet whose version has
// been read from body.
func NewReader(body io.Reader, block cipher.Block) *Reader {
	hashed := make(chan struct{})
	close(hashed)
	return &Reader{body: body, block: block, size: block.BlockSize(), sum: sha1.New(), hashed: hashed}
}

// load reads a chunk and has it deciphered. Every chunk but the last is of the
// same size; the code is in the last one as a whole, because the end of each
// chunk is carried over until more is seen.
func (r *Reader) load() error {
	c := r.take()
	n := copy(c.buf, r.carry)
	for n < len(c.buf) {
		k, err := r.body.Read(c.buf[n:])
		n += k
		if err == io.EOF {
			c.last = true
			break
		}
		if err != nil {
			return err
		}
	}
	if c.last {
		if r.carry == nil && n < r.size+2+mdcSize {
			return io.ErrUnexpectedEOF
		}
		c.plain = c.buf[:n]
	} else {
		c.plain = c.buf[:chunkSize]
		r.carry = append(r.carry[:0], c.buf[chunkSize:]...)
	}
	c.before = r.before
	copy(r.before[:], c.plain[len(c.plain)-r.size:])
	before := r.hashed
	r.hashed = c.hashed
	r.flight = append(r.flight, c)
	go func() {
		decipher(r.block, c.before[:r.size], c.plain)
		close(c.ready)
		hashed := c.plain
		if c.last {
			hashed = hashed[:len(hashed)-sha1.Size]
		}
		<-before
		r.sum.Write(hashed)
		close(c.hashed)
	}()
	if c.last {
		return io.EOF
	}
	return nil
}

func (r *Reader) take() *opening {
	var c *opening
	if n := len(r.free); n > 0 {
		c, r.free = r.free[n-1], r.free[:n-1]
		<-c.hashed
	} else {
		c = &opening{buf: make([]byte, chunkSize+mdcSize)}
	}
	c.ready, c.hashed = make(chan struct{}), make(chan struct{})
	return c
}

// next goes on to the next chunk.
func (r *Reader) next() error {
	if r.chunk != nil {
		r.free = append(r.free, r.chunk)
		r.chunk = nil
	}
	for r.end == nil && len(r.flight) < chunks-1 {
		r.end = r.load()
	}
	if len(r.flight) == 0 {
		return r.verify()
	}
	c := r.flight[0]
	r.flight = append(r.flight[:0], r.flight[1:]...)
	<-c.ready
	r.chunk, r.rest = c, c.plain
	if !r.begun {
		r.begun = true
		if !bytes.Equal(r.rest[r.size-2:r.size], r.rest[r.size:r.size+2]) {
			return errPrefix
		}
		r.rest = r.rest[r.size+2:]
	}
	if c.last {
		at := len(r.rest) - mdcSize
		copy(r.code[:], r.rest[at:])
		r.rest = r.rest[:at]
	}
	return nil
}

// verify compares the code, after the last chunk.
func (r *Reader) verify() error {
	if r.end != io.EOF {
		return r.end
	}
	<-r.hashed
	want := append([]byte{mdcTag, mdcSize - 2}, r.sum.Sum(nil)...)
	if subtle.ConstantTimeCompare(want, r.code[:]) != 1 {
		return errChanged
	}
	return io.EOF
}

// Buffered is how many bytes are at hand.
func (r *Reader) Buffered() int { return len(r.rest) }

// Peek returns n bytes without taking them: one, or as many as are at hand.
func (r *Reader) Peek(n int) ([]byte, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.rest[:min(n, len(r.rest))], nil
}

// Discard takes n bytes that are at hand.
func (r *Reader) Discard(n int) (int, error) {
	r.rest = r.rest[n:]
	return n, nil
}

func (r *Reader) Read(p []byte) (int, error) {
	at, err := r.Peek(len(p))
	if err != nil {
		return 0, err
	}
	n := copy(p, at)
	r.rest = r.rest[n:]
	return n, nil
}

// ReadByte is for the headers of packets.
func (r *Reader) ReadByte() (byte, error) {
	at, err := r.Peek(1)
	if err != nil {
		return 0, err
	}
	r.rest = r.rest[1:]
	return at[0], nil
}
