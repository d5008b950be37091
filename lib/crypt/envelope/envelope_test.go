package envelope

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/minio/sio"

	"walg/lib/crypt/kmsfake"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

// box is a service within the test. What it has sealed is 60 bytes.
type box struct {
	asked int
	err   error  // of each question
	plain []byte // decrypt to this
}

const sealedSize = 12 + KeySize + 16

var errRefused = fault.New(fault.Data, "no data key of this box")

func gcm(key string) cipher.AEAD {
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (b *box) Encrypt(_ context.Context, data []byte) ([]byte, error) {
	b.asked++
	return gcm("the key of a box").Seal(nil, nil, data, nil), b.err
}

func (b *box) Decrypt(_ context.Context, sealed []byte) ([]byte, string, error) {
	b.asked++
	if b.plain != nil || b.err != nil {
		return b.plain, "the-key", b.err
	}
	data, err := gcm("the key of a box").Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, "", errRefused
	}
	return data, "the-key", nil
}

func method(b *box) *Method {
	return &Method{Service: b, Format: Format{
		Name: "box",
		Pack: func(sealed []byte) ([]byte, error) { return sealed, nil },
		Unpack: func(in *decode.Input) ([]byte, error) {
			sealed := make([]byte, sealedSize)
			_, err := io.ReadFull(in, sealed)
			return sealed, in.Fault(err)
		},
	}}
}

func TestFormat(t *testing.T) {
	t.Run("any cipher", func(t *testing.T) { decodetest.Run(t, kmsfake.Format(method(&box{}))) })
	onlyAES := method(&box{})
	onlyAES.Format.OnlyAES = true
	t.Run("AES", func(t *testing.T) { decodetest.Run(t, kmsfake.Format(onlyAES)) })
}

func FuzzReader(f *testing.F) {
	for _, version := range []byte{sio.Version10, sio.Version20} {
		f.Add(stream(f, version, sio.AES_256_GCM, "content"))
	}
	// The box opens anything, so that all goes to the stream.
	kmsfake.Format(method(&box{plain: make([]byte, KeySize)})).Fuzz(f)
}

func TestAMessageIsAHeadAndAStreamOfDARE2(t *testing.T) {
	m := method(&box{})
	m.Format.OnlyAES = true
	content := decodetest.Content(2*packageSize + 5)
	message := kmsfake.Message(t, m, string(content))
	data, _, err := m.Service.Decrypt(t.Context(), message[:sealedSize])
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(data)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	// A package: version, cipher, length less one, nonce; content; tag.
	rest, got := message[sealedSize:], []byte(nil)
	for n, size := range []int{packageSize, packageSize, 5} {
		if len(rest) < 16+size+16 {
			t.Fatalf("package %d: only %d bytes", n, len(rest))
		}
		head := rest[:16]
		final := n == 2
		if head[0] != 0x20 || head[1] != 0 || int(binary.LittleEndian.Uint16(head[2:]))+1 != size || head[4]&0x80 != 0 != final {
			t.Errorf("package %d begins with % x", n, head)
		}
		nonce := bytes.Clone(head[4:])
		binary.LittleEndian.PutUint32(nonce[8:], binary.LittleEndian.Uint32(nonce[8:])^uint32(n))
		plain, err := aead.Open(nil, nonce, rest[16:16+size+16], head[:4])
		if err != nil {
			t.Fatalf("package %d: %v", n, err)
		}
		got, rest = append(got, plain...), rest[16+size+16:]
	}
	if !bytes.Equal(got, content) || len(rest) != 0 {
		t.Errorf("%d bytes instead of %d, and %d more", len(got), len(content), len(rest))
	}
}

// stream is a message that begins with something for a head.
func stream(t testing.TB, version, suite byte, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	b.Write(make([]byte, sealedSize))
	w, err := sio.EncryptWriter(&b, sio.Config{Key: make([]byte, KeySize), MinVersion: version, MaxVersion: version, CipherSuites: []byte{suite}})
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

func TestStoredMessagesAreRead(t *testing.T) {
	m := method(&box{plain: make([]byte, KeySize)})
	for name, proven := range map[string]bool{"dare-2.0-aes": true, "dare-2.0-chacha20": true, "dare-1.0-aes": false} {
		message := kmsfake.Stored(t, "testdata/"+name+".hex")
		r := m.NewReader(t.Context(), bytes.NewReader(append(make([]byte, sealedSize), message...)))
		if got, err := io.ReadAll(r); string(got) != "walg reads what sio wrote\n" || err != nil || r.Proven() != proven {
			t.Errorf("%s: %q, proven %v, %v", name, got, r.Proven(), err)
		}
	}
}

func TestDARE1DoesNotProveItsEnd(t *testing.T) {
	m := method(&box{plain: make([]byte, KeySize)})
	content := string(decodetest.Content(packageSize + 100))
	message := stream(t, sio.Version10, sio.AES_256_GCM, content)
	boundary := sealedSize + 16 + packageSize + 16
	for size, want := range map[int]int{len(message): len(content), boundary: packageSize} {
		r := m.NewReader(t.Context(), bytes.NewReader(message[:size]))
		if got, err := io.ReadAll(r); len(got) != want || err != nil || r.Proven() {
			t.Errorf("%d bytes: %d of content, proven %v, %v", size, len(got), r.Proven(), err)
		}
	}
	for _, size := range []int{sealedSize, sealedSize + 1, sealedSize + 16, boundary - 1, boundary + 1, boundary + 16, len(message) - 1} {
		r := m.NewReader(t.Context(), bytes.NewReader(message[:size]))
		if _, err := io.ReadAll(r); fault.Status(err) != fault.Data || r.Proven() {
			t.Errorf("%d bytes: proven %v, %v", size, r.Proven(), err)
		}
	}
}

func TestOnlyAESRefusesAnotherCipher(t *testing.T) {
	m := method(&box{plain: make([]byte, KeySize)})
	message := stream(t, sio.Version20, sio.CHACHA20_POLY1305, "content")
	if got, err := io.ReadAll(m.NewReader(t.Context(), bytes.NewReader(message))); string(got) != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	m.Format.OnlyAES = true
	if _, err := io.ReadAll(m.NewReader(t.Context(), bytes.NewReader(message))); fault.Status(err) != fault.Data {
		t.Errorf("%v", err)
	}
}

func TestThereIsNoEmptyMessage(t *testing.T) {
	var b bytes.Buffer
	w, err := method(&box{}).NewWriter(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(nil); err != nil {
		t.Errorf("write nothing: %v", err)
	}
	for range 2 {
		if err := w.Close(); fault.Status(err) != fault.Usage || fault.Hint(err) == "" || b.Len() != 0 {
			t.Errorf("%d bytes written, %v", b.Len(), err)
		}
	}
	head := kmsfake.Message(t, method(&box{}), "x")[:sealedSize]
	r := method(&box{}).NewReader(t.Context(), bytes.NewReader(head))
	if _, err := io.ReadAll(r); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "box: truncated") {
		t.Errorf("a head alone: %v", err)
	}
}

// target takes bytes and must not be closed.
type target struct {
	bytes.Buffer
	closed bool
}

func (t *target) Close() error {
	t.closed = true
	return nil
}

func TestTheTargetStaysOpen(t *testing.T) {
	var to target
	w, err := method(&box{}).NewWriter(t.Context(), &to)
	if err != nil {
		t.Fatal(err)
	}
	if to.Len() != 0 {
		t.Error("something is written before the first Write")
	}
	if _, err := w.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Close(); err != nil || to.closed {
			t.Errorf("closed %v, %v", to.closed, err)
		}
	}
	size := to.Len()
	if n, err := w.Write([]byte("more")); n != 0 || err == nil || to.Len() != size {
		t.Errorf("after Close %d bytes are taken, %v", n, err)
	}
}

func TestOneKeyEncryptsNoMoreThanDARECounts(t *testing.T) {
	w, err := newWriter(io.Discard, nil, make([]byte, KeySize), Format{Name: "box"})
	if err != nil {
		t.Fatal(err)
	}
	w.(*writer).n = maxContent - 1
	if _, err := w.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := w.Write([]byte("x")); fault.Status(err) != fault.Usage {
			t.Errorf("%v", err)
		}
	}
	if err := w.Close(); fault.Status(err) != fault.Usage {
		t.Errorf("Close after that: %v", err)
	}
}

func TestTheServiceIsAskedOnce(t *testing.T) {
	b := &box{}
	m := method(b)
	message := kmsfake.Message(t, m, string(decodetest.Content(300_000)))
	if b.asked != 1 {
		t.Errorf("asked %d times to write", b.asked)
	}
	r := m.NewReader(t.Context(), bytes.NewReader(message))
	if b.asked != 1 {
		t.Error("asked before anything is read")
	}
	if _, err := io.ReadAll(r); err != nil || b.asked != 2 {
		t.Errorf("asked %d times to read, %v", b.asked-1, err)
	}
	for _, cut := range []int{0, 1, sealedSize - 1} {
		if _, err := io.ReadAll(m.NewReader(t.Context(), bytes.NewReader(message[:cut]))); fault.Status(err) != fault.Data || b.asked != 2 {
			t.Errorf("cut to %d: asked, %v", cut, err)
		}
	}
}

func TestErrorsOfTheServiceAreThoseOfTheMessage(t *testing.T) {
	message := kmsfake.Message(t, method(&box{}), "content")
	for _, want := range []error{errRefused, fault.New(fault.Usage, "denied"), errors.New("not now")} {
		b := &box{err: want}
		var to bytes.Buffer
		if _, err := method(b).NewWriter(t.Context(), &to); err != want || to.Len() != 0 {
			t.Errorf("write: %d bytes, %v", to.Len(), err)
		}
		r := method(b).NewReader(t.Context(), bytes.NewReader(message))
		for range 2 {
			if _, err := r.Read(make([]byte, 1)); err != want || b.asked != 2 {
				t.Errorf("read, asked %d times: %v", b.asked-1, err)
			}
		}
		report, err := method(b).Inspect(t.Context(), bytes.NewReader(message))
		if want == errRefused {
			if err != nil || report.Fits || report.Reason != want.Error() {
				t.Errorf("inspect: %+v, %v", report, err)
			}
		} else if err != want {
			t.Errorf("inspect: %v", err)
		}
	}
}

func TestAHeadThatNoReaderTakesIsNotWritten(t *testing.T) {
	m, want := method(&box{}), fault.New(fault.Usage, "too long")
	m.Format.Pack = func([]byte) ([]byte, error) { return nil, want }
	var to bytes.Buffer
	if _, err := m.NewWriter(t.Context(), &to); err != want || to.Len() != 0 {
		t.Errorf("%d bytes, %v", to.Len(), err)
	}
}

func TestADataKeyHas32Bytes(t *testing.T) {
	message := kmsfake.Message(t, method(&box{}), "content")
	for _, size := range []int{0, 16, 31, 33} {
		m := method(&box{plain: make([]byte, size)})
		_, err := io.ReadAll(m.NewReader(t.Context(), bytes.NewReader(message)))
		if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "the-key") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestInspectNamesTheKey(t *testing.T) {
	m := method(&box{})
	message := kmsfake.Message(t, m, "content")
	report, err := m.Inspect(t.Context(), bytes.NewReader(message[:sealedSize]))
	if err != nil || !report.Fits || report.Method != "box" || len(report.Keys) != 1 || report.Keys[0] != "the-key" || report.Reason != "" {
		t.Errorf("%+v, %v", report, err)
	}
	message[3] ^= 1
	if report, err = m.Inspect(t.Context(), bytes.NewReader(message)); err != nil || report.Fits || report.Reason == "" {
		t.Errorf("damaged: %+v, %v", report, err)
	}
	if _, err = m.Inspect(t.Context(), bytes.NewReader(message[:10])); fault.Status(err) != fault.Data {
		t.Errorf("truncated: %v", err)
	}
}
