package kmsfake

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"

	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
)

// Message is content, encrypted.
func Message(t testing.TB, m crypt.Method, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := m.NewWriter(context.Background(), &b)
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Content is that of a message.
func Content(m crypt.Method, message []byte) (string, error) {
	got, err := io.ReadAll(m.NewReader(context.Background(), bytes.NewReader(message)))
	return string(got), err
}

// Stored is what a file of hexadecimal digits holds.
func Stored(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Format is that of a method, for the suite. There is no empty message, so that
// a byte of ours goes before each of the suite's contents.
func Format(m crypt.Method) decodetest.Format {
	return decodetest.Format{
		Encode: func(w io.Writer) (io.WriteCloser, error) {
			e, err := m.NewWriter(context.Background(), w)
			if err == nil {
				_, err = e.Write([]byte{'>'})
			}
			return e, err
		},
		Decode:  func(r io.Reader) decode.Reader { return &behind{Reader: m.NewReader(context.Background(), r)} },
		Checked: true,
		Block:   64<<10 - 1, // with our byte it is a package of DARE
	}
}

// behind reads what comes after the first byte.
type behind struct {
	decode.Reader
	begun bool
}

func (b *behind) begin() error {
	if b.begun {
		return nil
	}
	var first [1]byte
	_, err := io.ReadFull(b.Reader, first[:])
	b.begun = err == nil
	return err
}

func (b *behind) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

// WriteTo goes on with the WriteTo of the reader.
func (b *behind) WriteTo(w io.Writer) (int64, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return io.Copy(w, b.Reader)
}
