package secretstream

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	//lint:ignore SA1019 the one-time authenticator by itself is what the format is made of
	"golang.org/x/crypto/poly1305"
)

// The numbers of crypto_secretstream_xchacha20poly1305 (libsodium's
// documentation, "Encrypting a set of related messages").
const (
	keySize    = 32
	headerSize = 24
	tagSize    = 1
	macSize    = poly1305.TagSize
	overhead   = tagSize + macSize // of a chunk

	tagMessage = 0
	tagPush    = 1
	tagRekey   = 2
	tagFinal   = tagPush | tagRekey

	// A chunk's tag is enciphered as the first byte of a block of its own,
	// which the code covers as a whole.
	blockSize = 64
)

// state is a stream between two chunks. Each chunk's code changes the nonce of
// the next, so that chunks can be neither swapped nor worked on at once.
type state struct {
	key   [keySize]byte
	nonce [chacha20.NonceSize]byte // a counter, little endian, and 8 bytes that change
	aead  cipher.AEAD              // with key
}

func newState(key *[keySize]byte, header []byte) *state {
	s := &state{}
	sub, err := chacha20.HChaCha20(key[:], header[:16])
	if err != nil {
		panic(err) // of sizes that are fixed
	}
	copy(s.key[:], sub)
	copy(s.nonce[4:], header[16:headerSize])
	s.reset()
	return s
}

// reset begins a new count, with the key of now.
func (s *state) reset() {
	binary.LittleEndian.PutUint32(s.nonce[:], 1)
	s.aead, _ = chacha20poly1305.New(s.key[:]) // which fails for other sizes only
}

// keyStream is a part of the stream that enciphers the chunk, from so many
// blocks on.
func (s *state) keyStream(p []byte, from uint32) {
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], s.nonce[:])
	if err != nil {
		panic(err)
	}
	c.SetCounter(from)
	c.XORKeyStream(p, p)
}

// fast reports whether ChaCha20-Poly1305 (RFC 8439), which has assembly, is the
// same for a message of this size. It enciphers and covers the same bytes, tag
// block and message; but libsodium fills the last block up with as many zeros
// as it has bytes, instead of those that it lacks.
func fast(size int) bool { return size%16 == 0 || size%16 == 8 }

// seal enciphers a chunk in place. p is blockSize bytes of any content, the
// message, and room for the code; what is to be written begins at
// p[blockSize-1].
func (s *state) seal(p []byte, tag byte) {
	clear(p[:blockSize])
	p[0] = tag
	body := p[:len(p)-macSize]
	if fast(len(body) - blockSize) {
		s.aead.Seal(p[:0], s.nonce[:], body, nil)
	} else {
		s.keyStream(body, 1)
		code := s.code(body)
		copy(p[len(body):], code[:])
	}
	p[blockSize-1] = p[0]
	s.advance(p[len(body):], tag)
}

var errCode = errors.New("authentication failed")

// open deciphers a chunk in place, the reverse of seal, and returns its tag.
// Nothing of a chunk whose code is wrong is of any use.
func (s *state) open(p []byte) (tag byte, err error) {
	body := p[:len(p)-macSize]
	sealed := p[blockSize-1]
	clear(p[:blockSize])
	s.keyStream(p[:blockSize], 1)
	tag = p[0] ^ sealed
	p[0] = sealed
	var code [macSize]byte
	copy(code[:], p[len(body):])
	if fast(len(body) - blockSize) {
		if _, err := s.aead.Open(p[:0], s.nonce[:], p, nil); err != nil {
			return 0, errCode
		}
	} else {
		if want := s.code(body); !equal(code, want) {
			return 0, errCode
		}
		s.keyStream(body[blockSize:], 2)
	}
	s.advance(code[:], tag)
	return tag, nil
}

// code is the authentication code of the ciphertext of a tag block and a
// message.
func (s *state) code(body []byte) (code [macSize]byte) {
	var key [32]byte
	s.keyStream(key[:], 0)
	mac := poly1305.New(&key)
	var zeros, lengths [16]byte
	binary.LittleEndian.PutUint64(lengths[8:], uint64(len(body)))
	for _, p := range [][]byte{body, zeros[:len(body)%16], lengths[:]} {
		mac.Write(p) // never fails
	}
	mac.Sum(code[:0])
	return code
}

// advance goes on to the next chunk.
func (s *state) advance(code []byte, tag byte) {
	for i := range 8 {
		s.nonce[4+i] ^= code[i]
	}
	count := binary.LittleEndian.Uint32(s.nonce[:]) + 1
	binary.LittleEndian.PutUint32(s.nonce[:], count)
	if tag&tagRekey != 0 || count == 0 {
		s.rekey()
	}
}

func (s *state) rekey() {
	var next [keySize + 8]byte
	copy(next[:], s.key[:])
	copy(next[keySize:], s.nonce[4:])
	s.keyStream(next[:], 0)
	copy(s.key[:], next[:])
	copy(s.nonce[4:], next[keySize:])
	s.reset()
}
