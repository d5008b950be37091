package keyring

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	//lint:ignore SA1019 frozen, but it is the library that WAL-G uses
	pgp "golang.org/x/crypto/openpgp/packet"

	"walg/lib/crypt/openpgp/packet"
	"walg/lib/fault"
)

// maxBits is the largest number in a key that is read here; gpg's is the same.
const maxBits = 16384

// Algorithms of public keys that matter here (RFC 9580 section 9.1).
const (
	rsa            = 1
	rsaEncryptOnly = 2
	rsaSignOnly    = 3
	elgamal        = 16
	dsa            = 17
	ecdh           = 18
	ecdsa          = 19
	eddsa          = 22
	x25519         = 25
	x448           = 26
	ed25519        = 27
	ed448          = 28
)

// algorithm is one of them.
type algorithm struct {
	name    string
	numbers int  // of which the public part consists, or 0
	octets  int  // the size of a public part that consists of no numbers
	curve   bool // the public part begins with a curve's name
	derives bool // and ends with how the shared secret becomes a key
	usable  bool // by the library
	encrypt bool
}

var algorithms = map[byte]algorithm{
	rsa:            {name: "RSA", numbers: 2, usable: true, encrypt: true},
	rsaEncryptOnly: {name: "RSA", numbers: 2, usable: true, encrypt: true},
	rsaSignOnly:    {name: "RSA", numbers: 2, usable: true},
	elgamal:        {name: "ElGamal", numbers: 3, usable: true, encrypt: true},
	dsa:            {name: "DSA", numbers: 4, usable: true},
	ecdh:           {name: "ECDH", numbers: 1, curve: true, derives: true, encrypt: true},
	ecdsa:          {name: "ECDSA", numbers: 1, curve: true},
	20:             {name: "ElGamal, encrypt and sign", numbers: 3, encrypt: true},
	eddsa:          {name: "EdDSA", numbers: 1, curve: true},
	x25519:         {name: "X25519", octets: 32, encrypt: true},
	x448:           {name: "X448", octets: 56, encrypt: true},
	ed25519:        {name: "Ed25519", octets: 32},
	ed448:          {name: "Ed448", octets: 57},
}

// curves are named by their object identifiers (RFC 9580 section 9.2).
var curves = map[string]string{
	"\x2a\x86\x48\xce\x3d\x03\x01\x07":         "NIST P-256",
	"\x2b\x81\x04\x00\x22":                     "NIST P-384",
	"\x2b\x81\x04\x00\x23":                     "NIST P-521",
	"\x2b\x81\x04\x00\x0a":                     "secp256k1",
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x07":     "brainpoolP256r1",
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b":     "brainpoolP384r1",
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d":     "brainpoolP512r1",
	"\x2b\x06\x01\x04\x01\x97\x55\x01\x05\x01": "Curve25519",
	"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01":     "Ed25519",
}

// key is a primary key or a subkey.
type key struct {
	id        string // 16 hexadecimal digits, or words where it cannot be known
	algorithm algorithm
	public    *pgp.PublicKey // nil for a key that is not usable
	why       string         // it is not
	binding   *pgp.Signature // of a subkey, the newest
	revoked   bool

	tag     byte
	secret  []byte // the packet's body where it is a private key, or nil
	absent  string // why there is no private key in it
	once    sync.Once
	private *pgp.PrivateKey
	locked  error // why private is not usable
}

// newKey reads a key packet. What cannot be used says why.
func newKey(tag byte, body []byte) *key {
	k := &key{id: "of unknown id", tag: tag}
	switch {
	case len(body) < 6:
		k.why = "it is truncated"
		return k
	case body[0] != 4:
		k.why = fmt.Sprintf("it is a key of version %d", body[0])
		return k
	}
	number := body[5]
	k.algorithm = algorithms[number]
	n, err := k.algorithm.publicSize(body)
	if k.algorithm.name == "" {
		k.why = fmt.Sprintf("it is of the unknown algorithm %d", number)
		return k
	}
	if err != nil {
		k.why = err.Error()
		return k
	}
	sum := sha1.New()
	sum.Write(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(n)))
	sum.Write(body[:n])
	k.id = ID(binary.BigEndian.Uint64(sum.Sum(nil)[12:]))
	if !k.algorithm.usable {
		k.why = "it is for " + k.algorithm.name
		if k.algorithm.curve {
			if curve := curves[string(body[7:7+int(body[6])])]; curve != "" {
				k.why += " over " + curve
			}
		}
		return k
	}

	public := byte(packet.PublicKey)
	if tag == packet.PublicSubkey || tag == packet.SecretSubkey {
		public = packet.PublicSubkey
	}
	p, err := parse(public, body[:n])
	if err != nil {
		k.why = fmt.Sprint("its numbers: ", err)
		return k
	}
	k.public, _ = p.(*pgp.PublicKey) // of this version it is nothing else
	if tag == packet.SecretKey || tag == packet.SecretSubkey {
		k.secret = body
		k.absent = stub(body[n:])
	}
	return k
}

// publicSize finds how much of a key packet is the public part.
func (a algorithm) publicSize(body []byte) (int, error) {
	truncated := errors.New("it is truncated")
	at := 6 + a.octets
	if a.curve {
		if at >= len(body) {
			return 0, truncated
		}
		at += 1 + int(body[at])
	}
	for range a.numbers {
		if at+2 > len(body) {
			return 0, truncated
		}
		bits := int(binary.BigEndian.Uint16(body[at:]))
		if bits > maxBits {
			return 0, fmt.Errorf("it has a number of %d bits", bits)
		}
		at += 2 + (bits+7)/8
	}
	if a.derives {
		if at >= len(body) {
			return 0, truncated
		}
		at += 1 + int(body[at])
	}
	if at > len(body) {
		return 0, truncated
	}
	return at, nil
}

// stub says why a private key is not in its packet: GnuPG's extension of the
// string-to-key specifier, number 101, stands in its place.
func stub(secret []byte) string {
	const usage, kind, extension, mode = 0, 2, 4, 7
	if len(secret) <= mode || secret[usage] < 254 || secret[kind] != 101 || string(secret[extension:mode]) != "GNU" {
		return ""
	}
	if secret[mode] == 2 {
		return "is on a smart card"
	}
	return "was left out when the key was exported"
}

// parse has the library read one packet.
func parse(tag byte, body []byte) (p pgp.Packet, err error) {
	err = guard(func() (err error) {
		p, err = pgp.Read(bytes.NewReader(append(packet.AppendHeader(nil, tag, len(body)), body...)))
		return err
	})
	return p, err
}

// guard turns the panics of the library into errors: it has some for keys that
// it does not know.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the library: %v", p)
		}
	}()
	return f()
}

// unlock returns the private key. Its errors are status 64.
func (k *key) unlock(passphrase string) (*pgp.PrivateKey, error) {
	k.once.Do(func() {
		k.locked = k.open(passphrase)
	})
	return k.private, k.locked
}

func (k *key) open(passphrase string) error {
	name := "private key " + k.id
	switch {
	case k.secret == nil:
		return fault.WithHint(fault.New(fault.Usage, "%s is not in the configured key, which is a public one", name),
			"decrypting needs the private key: gpg --export-secret-keys --armor")
	case k.absent != "":
		return fault.WithHint(fault.New(fault.Usage, "%s %s", name, k.absent), "%s", StageHint)
	}
	p, err := parse(k.tag, k.secret)
	private, ok := p.(*pgp.PrivateKey)
	if err != nil || !ok {
		return fault.WithHint(fault.New(fault.Usage, "%s cannot be read: %w", name, err), "%s", StageHint)
	}
	if private.Encrypted {
		if passphrase == "" {
			return fault.WithHint(fault.New(fault.Usage, "%s is protected by a passphrase", name), "set WALG_PGP_KEY_PASSPHRASE")
		}
		if guard(func() error { return private.Decrypt([]byte(passphrase)) }) != nil {
			return fault.WithHint(fault.New(fault.Usage, "%s: %w", name, ErrPassphrase), "set WALG_PGP_KEY_PASSPHRASE to that of this key")
		}
	}
	k.private = private
	return nil
}
