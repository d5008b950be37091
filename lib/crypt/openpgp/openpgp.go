// Package openpgp encrypts for OpenPGP keys as WAL-G does and reads what WAL-G
// and gpg write (RFC 9580). A message that it writes is binary: the session key
// for each key of the ring, then AES-256 with a modification detection code
// around one literal packet, neither compressed nor signed. Reading insists on
// the code. Signatures are passed over, not verified.
package openpgp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"walg/lib/crypt"
	"walg/lib/crypt/openpgp/keyring"
	"walg/lib/crypt/openpgp/seipd"
	"walg/lib/decode"
)

// Method is OpenPGP with a ring of keys: a crypt.Method.
type Method struct{ ring *keyring.Ring }

// Open returns the method for keys, armored or binary; every key in the text is
// a recipient. passphrase is for private keys and tried when one is needed, so
// that encrypting does without. Errors are status 64.
func Open(key []byte, passphrase string) (*Method, error) {
	ring, err := keyring.Read(key, passphrase)
	if err != nil {
		return nil, err
	}
	return &Method{ring}, nil
}

// Name is that of -m.
func (m *Method) Name() string { return "openpgp" }

// CanDecrypt reports whether there is a private key, and the passphrase if it
// needs one. A wrong passphrase counts: whoever set it means to decrypt, and
// should hear of it before there is a backup.
func (m *Method) CanDecrypt() bool {
	err := m.ring.Usable()
	return err == nil || errors.Is(err, keyring.ErrPassphrase)
}

// NewWriter returns a writer of a message to w. A key that is expired, revoked
// or not usable here is status 64.
func (m *Method) NewWriter(_ context.Context, w io.Writer) (io.WriteCloser, error) {
	to, err := m.ring.Recipients(time.Now())
	if err != nil {
		return nil, err
	}
	session := keyring.Session{Cipher: seipd.AES256, Key: make([]byte, 32)}
	rand.Read(session.Key) // never fails
	var head bytes.Buffer
	for _, key := range to {
		sealed, err := keyring.Seal(session, key)
		if err != nil {
			return nil, err
		}
		head.Write(sealed)
	}
	cipher, err := seipd.NewCipher(session.Cipher, session.Key)
	if err != nil {
		return nil, fmt.Errorf("openpgp: %w", err)
	}
	if _, err := w.Write(head.Bytes()); err != nil {
		return nil, err
	}
	return seipd.NewWriter(w, cipher), nil
}

// NewReader returns a reader of a message, binary or armored.
func (m *Method) NewReader(_ context.Context, r io.Reader) decode.Reader {
	return &reader{ring: m.ring, in: decode.NewInput(r, "openpgp", inputSize)}
}

// Inspect says which keys a message is encrypted for, and whether the ring
// opens it. It decrypts no more than the session key.
func (m *Method) Inspect(_ context.Context, r io.Reader) (crypt.Report, error) {
	e, report, err := inspect(r)
	if err == nil {
		report.Fits, report.Reason = e.fits(m.ring)
	}
	return report, err
}

// Inspect says which keys a message is encrypted for.
func Inspect(r io.Reader) (crypt.Report, error) {
	_, report, err := inspect(r)
	return report, err
}

func inspect(r io.Reader) (envelope, crypt.Report, error) {
	e, in, err := begin(decode.NewInput(r, "openpgp", inputSize))
	return e, crypt.Report{Method: "openpgp", Keys: e.names()}, in.fault(err)
}
