// Package crypt says what a way to encrypt is, and knows what encrypted data
// looks like. The ways are the packages below it; crypt/open chooses one.
package crypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"walg/lib/decode"
	"walg/lib/fault"
)

// Method is one way to encrypt, with its key.
type Method interface {
	// Name is that of -m: openpgp, libsodium, aws-kms, yc-kms.
	Name() string
	// NewWriter returns a writer that encrypts into w. Its Close finishes the
	// message and does not close w. ctx bounds a question to a key service.
	NewWriter(ctx context.Context, w io.Writer) (io.WriteCloser, error)
	// NewReader returns a reader of what was encrypted. Data that is damaged,
	// truncated, of another format or for another key is status 65, a key
	// service that refuses 64, one that cannot be asked 1; an error of r is
	// passed on unchanged.
	NewReader(ctx context.Context, r io.Reader) decode.Reader
	// CanDecrypt reports whether the key that decrypts is at hand, without a
	// question to anybody: a public key does not decrypt, and a key service
	// keeps its key.
	CanDecrypt() bool
	// Inspect says what the encrypted stream r needs, from its beginning.
	Inspect(ctx context.Context, r io.Reader) (Report, error)
}

// Report is what an encrypted stream needs.
type Report struct {
	Method string   // as Method.Name
	Keys   []string // each key that opens it, as the format names it
	Fits   bool     // the configured key is one of them
	Reason string   // why it does not fit, or why that is not known
}

// String is the report as walg-crypt --inspect prints it, a name and a value a
// line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "method: %s\n", r.Method)
	for _, key := range r.Keys {
		fmt.Fprintf(&b, "key: %s\n", key)
	}
	switch {
	case r.Fits:
		b.WriteString("fits: yes\n")
	case r.Reason != "":
		fmt.Fprintf(&b, "fits: no, %s\n", r.Reason)
	}
	return b.String()
}

// SelfTest encrypts a block and decrypts it again where the key for both is at
// hand. A backup that cannot be read should fail before it is made.
func SelfTest(ctx context.Context, m Method) error {
	if !m.CanDecrypt() {
		return nil
	}
	block := bytes.Repeat([]byte("walg"), 1024)
	var sealed bytes.Buffer
	w, err := m.NewWriter(ctx, &sealed)
	if err != nil {
		return err
	}
	if _, err := w.Write(block); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	got, err := io.ReadAll(m.NewReader(ctx, &sealed))
	if err == nil && !bytes.Equal(got, block) {
		err = errors.New("it comes back changed")
	}
	if err != nil {
		return fault.New(fault.Usage, "self-test: %s does not decrypt what it encrypts: %w", m.Name(), err)
	}
	return nil
}

// Kind is a kind of encrypted data.
type Kind struct {
	Name   string // for messages
	Method string // that of Method.Name, or empty where none of ours reads it
}

// Detect says what the first bytes of a stream show, 16 of them; the zero Kind
// for nothing. libsodium's secretstream and the envelope of AWS KMS have no
// magic.
func Detect(head []byte) Kind {
	switch {
	case hasPrefix(head, "-----BEGIN PGP"):
		return Kind{"OpenPGP (armored)", "openpgp"}
	case hasPrefix(head, "envelope-yc-kms"):
		return Kind{"OpenPGP with a Yandex KMS envelope", ""}
	case hasPrefix(head, "yckms"):
		return Kind{"Yandex KMS", "yc-kms"}
	case len(head) >= 3 && isOpenPGP(head):
		return Kind{"OpenPGP", "openpgp"}
	}
	return Kind{}
}

// isOpenPGP recognises the packet that begins an encrypted message (RFC 9580
// section 4.2): a session key, encrypted with a public key (tag 1, version 3
// or 6) or a passphrase (tag 3, version 4 to 6). Of the versions of old the
// algorithm is looked at too, so that few other data looks like it.
func isOpenPGP(head []byte) bool {
	var tag byte
	var body []byte
	switch first := head[0]; {
	case first&0xc0 == 0xc0: // new format, one-octet length
		tag, body = first&0x3f, head[2:]
		if head[1] >= 192 { // two octets
			body = head[min(3, len(head)):]
		}
	case first&0x80 != 0: // old format
		octets := 1 << (first & 3)
		if first&3 == 3 {
			return false
		}
		tag, body = first>>2&0xf, head[min(1+octets, len(head)):]
	}
	const keyID = 8
	switch {
	case len(body) == 0:
		return false
	case tag == 1 && body[0] == 3:
		// RSA, ElGamal, ECDH: sections 5.1 and 9.1.
		return len(body) <= 1+keyID || slices.Contains([]byte{1, 2, 16, 18}, body[1+keyID])
	case tag == 3 && body[0] == 4:
		return len(body) < 2 || body[1] >= 1 && body[1] <= 13 // a cipher, section 9.3
	}
	return tag == 1 && body[0] == 6 || tag == 3 && (body[0] == 5 || body[0] == 6)
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
