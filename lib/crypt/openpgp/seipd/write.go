package seipd

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"hash"
	"io"
	"math/bits"
	"sync"

	"walg/lib/crypt/openpgp/packet"
)

const (
	// pieceLog is that of the partial lengths, 256 KiB: all chunks fit into the
	// second cache, and cores seldom wait for each other.
	pieceLog  = 18
	pieceSize = 1 << pieceLog
	readSize  = 1 << 20

	// Around the data of a chunk there is room for headers, which are put in
	// front once the length is known, and for the code at the end.
	headRoom = 64
	tailRoom = 64
)

// literalHead begins the body of the literal packet: binary, no name, no date.
var literalHead = []byte{'b', 0, 0, 0, 0, 0}

// Writer writes one encrypted data packet with one literal data packet in it.
// The caller's goroutine reads, hashes and writes; another enciphers, which is
// the slowest and therefore never waits while there is a chunk.
type Writer struct {
	w      io.Writer
	stream *cfb
	sum    hash.Hash
	begun  bool
	chunk  *sealing   // being filled, or nil
	flight []*sealing // being enciphered, oldest first
	free   []*sealing
	err    error // of writing
	closed bool

	mu    sync.Mutex
	queue []*sealing // to be enciphered
	busy  bool       // somebody enciphers, until the queue is empty
}

// sealing is a chunk on its way. Data stands from headRoom on.
type sealing struct {
	buf   []byte
	n     int    // bytes of data
	most  int    // room for data
	plain []byte // to be enciphered
	out   []byte // to be written
	over  int    // bytes at its end that need lengths of their own
	done  chan struct{}
}

// NewWriter returns a writer of what is written to it, encrypted, to w.
func NewWriter(w io.Writer, block cipher.Block) *Writer {
	return &Writer{w: w, stream: newCFB(block), sum: sha1.New()}
}

// room returns the free part of the chunk that is filled.
func (z *Writer) room() ([]byte, error) {
	if z.chunk != nil && z.chunk.n == z.chunk.most {
		z.send(false)
	}
	if z.chunk == nil {
		if len(z.flight) == chunks-1 {
			z.receive()
		}
		z.chunk = z.take()
	}
	c := z.chunk
	return c.buf[headRoom+c.n : headRoom+c.most], z.err
}

func (z *Writer) take() *sealing {
	var c *sealing
	if n := len(z.free); n > 0 {
		c, z.free = z.free[n-1], z.free[:n-1]
	} else {
		c = &sealing{buf: make([]byte, headRoom+pieceSize+tailRoom)}
	}
	c.n, c.most, c.done = 0, pieceSize, make(chan struct{})
	if !z.begun {
		c.most -= len(literalHead)
	}
	return c
}

// receive writes the oldest chunk when it is ready.
func (z *Writer) receive() {
	c := z.flight[0]
	z.flight = append(z.flight[:0], z.flight[1:]...)
	<-c.done
	if z.err == nil {
		_, z.err = z.w.Write(c.out)
	}
	z.free = append(z.free, c)
}

// send gives the chunk its headers and has it enciphered. Only the last chunk
// may be shorter than a partial length.
func (z *Writer) send(last bool) {
	c, first := z.chunk, !z.begun
	z.chunk, z.begun = nil, true
	from, end := headRoom, headRoom+c.n
	front := func(p ...byte) {
		from -= len(p)
		copy(c.buf[from:], p)
	}

	if first {
		front(literalHead...)
	}
	if last {
		front(packet.AppendLength(nil, end-from)...)
	} else {
		front(packet.Partial(pieceLog))
	}
	if first {
		front(packet.AppendHeader(nil, packet.Literal, 0)[0])
		front(prefix(z.stream.size)...)
	}
	if last {
		end += copy(c.buf[end:], []byte{mdcTag, mdcSize - 2})
	}
	z.sum.Write(c.buf[from:end])
	if last {
		end += copy(c.buf[end:], z.sum.Sum(nil))
	}

	c.plain = c.buf[from:end]
	if first {
		front(version)
	}
	body := end - from
	c.over = 0
	if last {
		front(packet.AppendLength(nil, body)...)
	} else {
		front(packet.Partial(pieceLog))
		c.over = body - pieceSize
	}
	if first {
		front(packet.AppendHeader(nil, packet.Encrypted, 0)[0])
	}
	c.out = c.buf[from:end]
	z.flight = append(z.flight, c)

	z.mu.Lock()
	defer z.mu.Unlock()
	z.queue = append(z.queue, c)
	if !z.busy {
		z.busy = true
		go z.encipher()
	}
}

// encipher works until the queue is empty.
func (z *Writer) encipher() {
	for {
		z.mu.Lock()
		if len(z.queue) == 0 {
			z.busy = false
			z.mu.Unlock()
			return
		}
		c := z.queue[0]
		z.queue = append(z.queue[:0], z.queue[1:]...)
		z.mu.Unlock()
		z.stream.encipher(c.plain)
		c.out = split(c.out, c.over)
		close(c.done)
	}
}

// split gives the last n bytes of p lengths of their own, which are powers of
// two. They are what exceeds the partial length at the front of p.
func split(p []byte, n int) []byte {
	var over [headRoom]byte
	rest := over[:copy(over[:], p[len(p)-n:])]
	p = p[:len(p)-n]
	for len(rest) > 0 {
		log := bits.Len(uint(len(rest))) - 1
		p = append(p, packet.Partial(log))
		p = append(p, rest[:1<<log]...)
		rest = rest[1<<log:]
	}
	return p
}

// prefix is a random block, and its last two bytes again.
func prefix(size int) []byte {
	p := make([]byte, size, size+2)
	rand.Read(p) // never fails
	return append(p, p[size-2:]...)
}

// Write encrypts p.
func (z *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k := copy(room, p)
		z.chunk.n += k
		n += k
		p = p[k:]
	}
	return n, nil
}

// ReadFrom encrypts what r yields, without a copy between.
func (z *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		room, err := z.room()
		if err != nil {
			return n, err
		}
		k, err := r.Read(room[:min(len(room), readSize)])
		z.chunk.n += k
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close finishes the packet. It does not close w.
func (z *Writer) Close() error {
	if z.closed {
		return z.err
	}
	z.closed = true
	if _, err := z.room(); err == nil {
		z.send(true)
	}
	for len(z.flight) > 0 {
		z.receive()
	}
	return z.err
}
