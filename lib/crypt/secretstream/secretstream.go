// Package secretstream is libsodium's crypto_secretstream_xchacha20poly1305 in
// the framing of WAL-G: a random header, then chunks of 8 KiB of plaintext, of
// which the last is shorter and marked as final. Every chunk is proven before
// it is read, and the final one proves the end.
package secretstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"io"

	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/fault"
)

const (
	chunkSize = 8192           // of plaintext
	batch     = 16 * chunkSize // of plaintext that is written at a time
	weakest   = 25             // bytes of a key that is a text, as WAL-G takes it
)

// Method is the format with a key: a crypt.Method.
type Method struct {
	key     [keySize]byte
	refused error // of writing with a weak key
}

const keyHint = "make one with openssl rand -hex 32, and set WALG_LIBSODIUM_KEY_TRANSFORM=hex"

// Open returns the method for a key as the settings have it. transform says how
// text is written: hex or base64, of exactly 32 bytes, or none, a text of 25
// bytes or more that is cut or filled with zeros to 32. A text of fewer than 32
// bytes only decrypts, unless weak allows it. Errors are status 64.
func Open(text, transform string, weak bool) (crypt.Method, error) {
	m := &Method{}
	var key []byte
	var err error
	switch transform {
	case "hex":
		key, err = hex.DecodeString(text)
	case "base64":
		key, err = base64.StdEncoding.DecodeString(text)
	case "none", "":
		if len(text) < weakest {
			return nil, fault.WithHint(fault.New(fault.Usage, "a text of %d bytes, where 32 are needed", len(text)), keyHint)
		}
		if len(text) < keySize && !weak {
			m.refused = fault.WithHint(fault.New(fault.Usage, "the libsodium key is a text of %d bytes: too few to encrypt with", len(text)),
				"%s; or allow it with --weak-key", keyHint)
		}
		copy(m.key[:], text)
		return m, nil
	default: // which may be the key, if somebody swapped the two
		return nil, fault.New(fault.Usage, "setting WALG_LIBSODIUM_KEY_TRANSFORM: it is hex, base64 or none")
	}
	switch {
	case err != nil: // which would show a part of the key
		return nil, fault.WithHint(fault.New(fault.Usage, "not %s, as WALG_LIBSODIUM_KEY_TRANSFORM says", transform), keyHint)
	case len(key) != keySize:
		return nil, fault.WithHint(fault.New(fault.Usage, "%d bytes in %s, where 32 are needed", len(key), transform), keyHint)
	}
	copy(m.key[:], key)
	return m, nil
}

// Name is that of -m.
func (m *Method) Name() string { return "libsodium" }

// CanDecrypt is true: there is one key for both.
func (m *Method) CanDecrypt() bool { return true }

// NewWriter returns a writer of a stream to w.
func (m *Method) NewWriter(_ context.Context, w io.Writer) (io.WriteCloser, error) {
	if m.refused != nil {
		return nil, m.refused
	}
	header := make([]byte, headerSize)
	rand.Read(header) // never fails
	return newWriter(w, &m.key, header), nil
}

// NewReader returns a reader of a stream.
func (m *Method) NewReader(_ context.Context, r io.Reader) decode.Reader {
	return &reader{in: decode.NewInput(r, "libsodium", batch), key: &m.key}
}

// Inspect tries the key on the first chunk: the format has no magic.
func (m *Method) Inspect(ctx context.Context, r io.Reader) (crypt.Report, error) {
	report := crypt.Report{Method: m.Name()}
	head, err := io.ReadAll(io.LimitReader(r, headerSize+chunkSize+overhead))
	if err != nil {
		return report, err
	}
	var one [1]byte
	_, err = m.NewReader(ctx, bytes.NewReader(head)).Read(one[:])
	// A first chunk that is good and not the last is cut off behind it here.
	if report.Fits = err == nil || err == io.EOF; !report.Fits {
		report.Reason = "another key, or no libsodium data: the format has no mark"
	}
	return report, nil
}

func equal(a, b [macSize]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
