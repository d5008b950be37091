package secretstream

import (
	"errors"
	"io"
)

// writer enciphers chunks, and writes many at a time.
type writer struct {
	w      io.Writer
	state  *state
	out    []byte // sealed, and not written yet
	plain  []byte // of the chunk being filled, in out's room, behind what is sealed
	err    error
	closed bool
}

func newWriter(w io.Writer, key *[keySize]byte, header []byte) *writer {
	z := &writer{w: w, state: newState(key, header)}
	z.out = make([]byte, 0, blockSize+headerSize+batch+batch/chunkSize*overhead)
	z.out = append(z.out, header...)
	return z
}

// room returns the free end of the chunk being filled.
func (z *writer) room() []byte {
	if z.plain == nil {
		at := len(z.out) + tagSize
		z.plain = z.out[at : at : at+chunkSize]
	}
	return z.plain[len(z.plain):cap(z.plain)]
}

// Write enciphers p.
func (z *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && z.err == nil {
		k := copy(z.room(), p)
		z.filled(k)
		n += k
		p = p[k:]
	}
	return n, z.err
}

func (z *writer) filled(n int) {
	z.plain = z.plain[:len(z.plain)+n]
	if len(z.plain) == chunkSize {
		z.seal(tagMessage)
	}
}

// seal closes the chunk. The cipher needs a block before it, where the end of
// the chunk before that one lies.
func (z *writer) seal(tag byte) {
	z.room()
	var saved [blockSize - 1]byte
	begin, size := len(z.out), len(z.plain)
	whole := z.out[:begin+tagSize+size+macSize]
	if begin >= len(saved) {
		chunk := whole[begin-len(saved):]
		copy(saved[:], chunk)
		z.state.seal(chunk, tag)
		copy(chunk, saved[:])
	} else { // the first one, behind the header only
		chunk := make([]byte, blockSize+size+macSize)
		copy(chunk[blockSize:], z.plain)
		z.state.seal(chunk, tag)
		copy(whole[begin:], chunk[blockSize-1:])
	}
	z.out, z.plain = whole, nil
	if tag == tagFinal || cap(z.out)-len(z.out) < chunkSize+overhead {
		z.flush()
	}
}

func (z *writer) flush() {
	if z.err == nil {
		_, z.err = z.w.Write(z.out)
	}
	z.out = z.out[:0]
}

// Close writes the final chunk.
func (z *writer) Close() error {
	if z.closed {
		return z.err
	}
	z.closed = true
	if z.err == nil {
		z.seal(tagFinal)
	}
	if z.err != nil {
		return z.err
	}
	z.err = errors.New("libsodium: write after the end")
	return nil
}
