// Package envelope is encryption with a key service. Each message has a data
// key of its own, made here from random bytes. The service encrypts it with a
// key that never leaves the service; so it stands at the head of the message,
// and the content follows as a DARE stream.
//
// Nothing is written of a message that could not be read: not before the
// service has answered, and nothing at all of an empty one, because DARE has
// no empty stream.
package envelope

import (
	"context"
	"crypto/rand"
	"io"

	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/fault"
)

// KeySize is the size of a data key, bytes.
const KeySize = 32

// Service is a key service. Its errors say operation, key and host, and have
// the exit status that fits.
type Service interface {
	// Encrypt encrypts a data key.
	Encrypt(ctx context.Context, data []byte) (sealed []byte, err error)
	// Decrypt returns the data key, and the name of the key that opened it.
	// One that the service does not take is status 65.
	Decrypt(ctx context.Context, sealed []byte) (data []byte, key string, err error)
}

// Format is how a message begins.
type Format struct {
	Name string // of the method
	// Pack returns the head of a message with the encrypted data key in it, or
	// fails where no reader could take it.
	Pack func(sealed []byte) (head []byte, err error)
	// Unpack reads the head and returns the encrypted data key. Its errors are
	// those of in.
	Unpack func(in *decode.Input) (sealed []byte, err error)
	// OnlyAES says that the stream has no other cipher than AES-256-GCM.
	OnlyAES bool
}

// Method is a crypt.Method.
type Method struct {
	Format  Format
	Service Service
}

var _ crypt.Method = (*Method)(nil)

// Name returns the name of the format.
func (m *Method) Name() string { return m.Format.Name }

// CanDecrypt is false: the key stays with the service.
func (m *Method) CanDecrypt() bool { return false }

// NewWriter asks the service to encrypt a new data key, and writes nothing.
// The head of the message goes before the first bytes written.
func (m *Method) NewWriter(ctx context.Context, w io.Writer) (io.WriteCloser, error) {
	data := make([]byte, KeySize)
	rand.Read(data) // never fails
	sealed, err := m.Service.Encrypt(ctx, data)
	if err != nil {
		return nil, err
	}
	head, err := m.Format.Pack(sealed)
	if err != nil {
		return nil, err
	}
	return newWriter(w, head, data, m.Format)
}

// NewReader returns a reader that asks the service at the first Read.
func (m *Method) NewReader(ctx context.Context, r io.Reader) decode.Reader {
	return &reader{method: m, ctx: ctx, in: m.input(r)}
}

// bufferSize is enough for a head. A package of DARE goes past the buffer.
const bufferSize = 8 << 10

func (m *Method) input(r io.Reader) *decode.Input { return decode.NewInput(r, m.Name(), bufferSize) }

// open reads the head and returns the data key, and the name of the key that
// opened it.
func (m *Method) open(ctx context.Context, in *decode.Input) ([]byte, string, error) {
	sealed, err := m.Format.Unpack(in)
	if err != nil {
		return nil, "", err
	}
	data, key, err := m.Service.Decrypt(ctx, sealed)
	if err != nil {
		return nil, "", err
	}
	if len(data) != KeySize {
		return nil, "", in.Corrupt("%s holds a data key of %d bytes, not %d", key, len(data), KeySize)
	}
	return data, key, nil
}

// Inspect asks the service which key opens a message. Where the service cannot
// be asked, or refuses to answer, that is the error.
func (m *Method) Inspect(ctx context.Context, r io.Reader) (crypt.Report, error) {
	report := crypt.Report{Method: m.Name()}
	in := m.input(r)
	sealed, err := m.Format.Unpack(in)
	if err != nil {
		return report, err
	}
	_, key, err := m.Service.Decrypt(ctx, sealed)
	switch {
	case err == nil:
		report.Keys, report.Fits = []string{key}, true
	case fault.Status(err) == fault.Data:
		report.Reason = err.Error()
	default:
		return report, err
	}
	return report, nil
}
