package seipd

import (
	"crypto/cipher"
	"crypto/subtle"
)

// maxBlock is the block size of AES; the others have less.
const maxBlock = 16

// cfb enciphers one stream in cipher feedback mode (RFC 9580 section 12.9,
// without resynchronisation) with an initial vector of zeros. The mode is
// serial: each block needs the one before.
type cfb struct {
	block cipher.Block
	size  int
	// feed holds ciphertext up to used and key stream after it.
	feed [maxBlock]byte
	used int
}

func newCFB(block cipher.Block) *cfb {
	size := block.BlockSize()
	return &cfb{block: block, size: size, used: size}
}

// encipher goes on with the stream, in place. XORBytes writes a block with one
// store, which the processor forwards to the load in Encrypt; two stores of
// eight bytes would have to reach the cache first.
func (c *cfb) encipher(p []byte) {
	p = c.part(p)
	size, last := c.size, c.feed[:c.size]
	var stream [maxBlock]byte
	key := stream[:size]
	for len(p) >= size {
		c.block.Encrypt(key, last)
		last = p[:size:size]
		subtle.XORBytes(last, last, key)
		p = p[size:]
	}
	copy(c.feed[:], last)
	c.part(p)
}

// part enciphers up to the end of a block and returns the rest.
func (c *cfb) part(p []byte) []byte {
	if len(p) > 0 && c.used == c.size {
		if len(p) >= c.size {
			return p
		}
		c.block.Encrypt(c.feed[:], c.feed[:])
		c.used = 0
	}
	n := min(len(p), c.size-c.used)
	for i := range n {
		c.feed[c.used+i] ^= p[i]
		p[i] = c.feed[c.used+i]
	}
	c.used += n
	return p[n:]
}

// batch is how much key stream is made at a time: it stays in the first cache.
const batch = 4 << 10

// decipher deciphers p in place. p begins with a block; before is the
// ciphertext of the block before it. Every block can be deciphered on its own.
func decipher(block cipher.Block, before, p []byte) {
	size := block.BlockSize()
	var stream [batch]byte
	// From the end, because what comes before is needed as it was.
	for end := len(p); end > 0; {
		from := (end - 1) / batch * batch
		key := stream[:]
		for at := from; at < end; at += size {
			last := before
			if at > 0 {
				last = p[at-size : at]
			}
			block.Encrypt(key, last)
			key = key[size:]
		}
		subtle.XORBytes(p[from:end], p[from:end], stream[:end-from])
		end = from
	}
}
