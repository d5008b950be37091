// Package seipd writes and reads the Symmetrically Encrypted and Integrity
// Protected Data packet of OpenPGP, version 1 (RFC 9580 section 5.13.1): a
// cipher in feedback mode and a modification detection code, the SHA-1 of the
// plaintext. Reading believes an end only where the code matches. Hashing and
// ciphering run beside each other; a reader or writer holds about 1 MiB, and
// nothing goes on behind the back of a caller that stops.
package seipd

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"fmt"

	//lint:ignore SA1019 gpg wrote messages with CAST5 for ten years; they are read, not written
	"golang.org/x/crypto/cast5"
)

const (
	version = 1
	mdcTag  = 0xd3 // with its length of 20 in the next byte
	mdcSize = 22

	// chunks are worked on at once, the one that is filled or emptied included.
	chunks = 4
)

// AES256 is the algorithm that we write with.
const AES256 = 9

// algorithm is a cipher (RFC 9580 section 9.3).
type algorithm struct {
	name string
	size int // of the key, bytes; 0 for a cipher that is not read here
	make func(key []byte) (cipher.Block, error)
}

var algorithms = map[byte]algorithm{
	1:      {name: "IDEA"},
	2:      {"3DES", 24, des.NewTripleDESCipher},
	3:      {"CAST5", cast5.KeySize, func(key []byte) (cipher.Block, error) { return cast5.NewCipher(key) }},
	4:      {name: "Blowfish"},
	7:      {"AES-128", 16, aes.NewCipher},
	8:      {"AES-192", 24, aes.NewCipher},
	AES256: {"AES-256", 32, aes.NewCipher},
	10:     {name: "Twofish"},
	11:     {name: "Camellia-128"},
	12:     {name: "Camellia-192"},
	13:     {name: "Camellia-256"},
}

// NewCipher returns the cipher with an OpenPGP number and its session key.
func NewCipher(number byte, key []byte) (cipher.Block, error) {
	a := algorithms[number]
	switch {
	case a.name == "":
		return nil, fmt.Errorf("the cipher number %d is unknown", number)
	case a.size == 0:
		return nil, fmt.Errorf("the cipher %s is not read here", a.name)
	case a.size != len(key):
		return nil, fmt.Errorf("a session key of %d bytes for %s", len(key), a.name)
	}
	return a.make(key)
}
