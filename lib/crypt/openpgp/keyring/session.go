package keyring

import (
	"bytes"
	"errors"
	"fmt"

	//lint:ignore SA1019 frozen, but it is the library that WAL-G uses
	pgp "golang.org/x/crypto/openpgp/packet"

	"walg/lib/crypt/openpgp/packet"
	"walg/lib/fault"
)

// Session is the key of one message.
type Session struct {
	Cipher byte // OpenPGP's number
	Key    []byte
}

// ErrOther says that a session key is for none of the keys in a ring.
var ErrOther = errors.New("encrypted for another key")

// Seal encrypts a session key for a key; what it returns is a whole packet.
func Seal(s Session, to *pgp.PublicKey) ([]byte, error) {
	var b bytes.Buffer
	err := guard(func() error {
		return pgp.SerializeEncryptedKey(&b, to, pgp.CipherFunction(s.Cipher), s.Key, nil)
	})
	if err != nil {
		return nil, fault.New(fault.Usage, "encrypt for key %s: %w", ID(to.KeyId), err)
	}
	return b.Bytes(), nil
}

// Sealed is a session key, encrypted for a key.
type Sealed struct {
	ID  uint64 // of the key; 0 where it is hidden
	key *pgp.EncryptedKey
}

// ParseSealed reads the body of a packet of version 3. A key for an algorithm
// that is not known here is for nobody in a ring.
func ParseSealed(body []byte) (Sealed, error) {
	p, err := parse(packet.PublicKeyEncrypted, body)
	e, ok := p.(*pgp.EncryptedKey)
	if err != nil || !ok {
		return Sealed{}, fmt.Errorf("an encrypted session key: %w", err)
	}
	return Sealed{e.KeyId, e}, nil
}

// Open decrypts a session key. ErrOther says that no key fits, an error of
// status 64 that the one which fits cannot be used, and any other that the data
// is damaged.
func (r *Ring) Open(s Sealed) (Session, error) {
	found := ErrOther
	for _, k := range r.candidates(s.ID) {
		if k.algorithm.name != algorithms[byte(s.key.Algo)].name {
			continue
		}
		private, err := k.unlock(r.passphrase)
		if err != nil {
			// A hidden key may be another one.
			if s.ID != 0 || k.secret != nil {
				found = err
			}
			continue
		}
		err = guard(func() error { return s.key.Decrypt(private, nil) })
		if err == nil {
			return Session{byte(s.key.CipherFunc), s.key.Key}, nil
		}
		if s.ID != 0 {
			found = fmt.Errorf("the session key for key %s is damaged", k.id)
		}
	}
	return Session{}, found
}

// ErrPassphrase says that the passphrase does not open the private key.
var ErrPassphrase = errors.New("wrong passphrase")

// Usable returns nil where a private key is at hand that can be used, or says
// why not.
func (r *Ring) Usable() error {
	err := errors.New("no key")
	for _, k := range r.candidates(0) {
		if _, err = k.unlock(r.passphrase); err == nil {
			return nil
		}
	}
	return err
}
