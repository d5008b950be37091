package seipd

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/sha1"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/crypt/openpgp/packet"
	"walg/lib/decode/decodetest"
)

func newCipher(t testing.TB, number byte) cipher.Block {
	t.Helper()
	block, err := NewCipher(number, []byte(strings.Repeat("key material ", 3)[:algorithms[number].size]))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// sealed is an encrypted data packet.
func sealed(t testing.TB, block cipher.Block, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, block)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// opened is the content of a literal packet in an encrypted one.
func opened(block cipher.Block, p []byte) ([]byte, error) {
	src := bufio.NewReader(bytes.NewReader(p))
	b, err := packet.Next(src)
	if err != nil {
		return nil, err
	}
	if v, err := io.ReadAll(io.LimitReader(b, 1)); err != nil || len(v) != 1 || b.Tag != packet.Encrypted || v[0] != version {
		return nil, errors.New("no encrypted data")
	}
	plain := NewReader(b, block)
	literal, err := packet.Next(plain)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(literal)
	if err != nil {
		return data, err
	}
	if n, err := io.Copy(io.Discard, plain); n > 0 || err != nil {
		return data, errors.Join(errors.New("not the end"), err)
	}
	if literal.Tag != packet.Literal || !bytes.HasPrefix(data, literalHead) {
		return data, errors.New("no literal packet")
	}
	return data[len(literalHead):], nil
}

// raw is the body of an encrypted packet around any plaintext, enciphered by
// the standard library.
func raw(block cipher.Block, plain []byte, spoil func(code []byte) []byte) []byte {
	p := append(prefix(block.BlockSize()), plain...)
	p = append(p, mdcTag, mdcSize-2)
	sum := sha1.Sum(p)
	p = append(p[:len(p)-2], spoil(append([]byte{mdcTag, mdcSize - 2}, sum[:]...))...)
	//lint:ignore SA1019 the other implementation, to compare with
	cipher.NewCFBEncrypter(block, make([]byte, block.BlockSize())).XORKeyStream(p, p)
	return p
}

func whole(code []byte) []byte { return code }

func TestEncipheringInAnyPiecesIsTheStandardCFB(t *testing.T) {
	r := decodetest.Rand(t)
	for _, number := range []byte{2, 3, 7, 8, AES256} {
		block := newCipher(t, number)
		for range decodetest.Soak(50, 5000) {
			plain := decodetest.Content(r.IntN(3 * batch))
			want := bytes.Clone(plain)
			//lint:ignore SA1019 the other implementation, to compare with
			cipher.NewCFBEncrypter(block, make([]byte, block.BlockSize())).XORKeyStream(want, want)
			got := bytes.Clone(plain)
			stream := newCFB(block)
			for rest := got; len(rest) > 0; {
				n := min(r.IntN(100), len(rest))
				if r.IntN(3) == 0 {
					n = min(r.IntN(3000), len(rest))
				}
				stream.encipher(rest[:n])
				rest = rest[n:]
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("cipher %d, %d bytes: differs", number, len(plain))
			}
			from := r.IntN(len(got)/block.BlockSize()+1) * block.BlockSize()
			before := make([]byte, block.BlockSize())
			if from > 0 {
				copy(before, got[from-block.BlockSize():])
			}
			decipher(block, before, got[from:])
			if !bytes.Equal(got[from:], plain[from:]) {
				t.Fatalf("cipher %d, %d bytes, from %d: deciphered differs", number, len(plain), from)
			}
		}
	}
}

func TestContentOfEverySizeComesBack(t *testing.T) {
	sizes := []int{0, 1, 2, 15, 16, 17, 180, 185, 186, 191, 192, 8300, 8383, 8384, 100_000}
	for _, around := range []int{pieceSize, pieceSize - len(literalHead), chunkSize, 2 * pieceSize, 4 * chunkSize} {
		for d := -25; d <= 25; d++ {
			if decodetest.Soak(d%4, 0) == 0 || d > -3 && d < 3 {
				sizes = append(sizes, around+d)
			}
		}
	}
	for _, number := range []byte{AES256, 2, 3} {
		block := newCipher(t, number)
		for _, n := range sizes {
			if number != AES256 && n > chunkSize+100 {
				continue
			}
			plain := decodetest.Content(n)
			got, err := opened(block, sealed(t, block, plain))
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("cipher %d, %d bytes: equal %v, %v", number, n, bytes.Equal(got, plain), err)
			}
		}
	}
}

func TestWriteAndReadFromWriteTheSame(t *testing.T) {
	block := newCipher(t, AES256)
	plain := decodetest.Content(3*pieceSize + 1234)
	var lengths []int
	for _, copied := range []func(w io.Writer, r io.Reader) (int64, error){
		io.Copy,
		func(w io.Writer, r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{w}, r) },
		func(w io.Writer, r io.Reader) (int64, error) {
			return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 777))
		},
		func(w io.Writer, r io.Reader) (int64, error) {
			return io.Copy(w, iotest.DataErrReader(iotest.HalfReader(r)))
		},
	} {
		var b bytes.Buffer
		w := NewWriter(&b, block)
		if n, err := copied(w, bytes.NewReader(plain)); n != int64(len(plain)) || err != nil {
			t.Fatal(n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, b.Len())
		if got, err := opened(block, b.Bytes()); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("equal %v, %v", bytes.Equal(got, plain), err)
		}
	}
	if slices.Min(lengths) != slices.Max(lengths) {
		t.Errorf("lengths differ: %v", lengths)
	}
}

func TestPlaintextOfTheStandardCFBIsRead(t *testing.T) {
	for _, number := range []byte{2, 3, 7, 8, AES256} {
		block := newCipher(t, number)
		for _, n := range []int{0, 1, 7, 8, chunkSize - 40, chunkSize - mdcSize - 18, chunkSize - 18, chunkSize - 10, chunkSize, chunkSize + mdcSize, 2*chunkSize - 3} {
			plain := decodetest.Content(n)
			got, err := io.ReadAll(NewReader(bytes.NewReader(raw(block, plain, whole)), block))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("cipher %d, %d bytes: equal %v, %v", number, n, bytes.Equal(got, plain), err)
			}
		}
	}
}

func TestTheCodeMustBeThereAndRight(t *testing.T) {
	block := newCipher(t, AES256)
	for _, n := range []int{0, 100, chunkSize - 30, chunkSize + 1000} {
		plain := decodetest.Content(n)
		for name, spoil := range map[string]func(code []byte) []byte{
			"a wrong sum":      func(code []byte) []byte { code[21] ^= 1; return code },
			"a wrong tag":      func(code []byte) []byte { code[0] ^= 1; return code },
			"a wrong length":   func(code []byte) []byte { code[1]++; return code },
			"no code":          func([]byte) []byte { return nil },
			"half a code":      func(code []byte) []byte { return code[:12] },
			"a byte less":      func(code []byte) []byte { return code[:21] },
			"a byte more":      func(code []byte) []byte { return append(code, 0) },
			"the code twice":   func(code []byte) []byte { return append(code, code...) },
			"a code of zeros":  func([]byte) []byte { return make([]byte, mdcSize) },
			"only tag, length": func(code []byte) []byte { return code[:2] },
		} {
			r := NewReader(bytes.NewReader(raw(block, plain, spoil)), block)
			if _, err := io.ReadAll(r); err != errChanged && err != io.ErrUnexpectedEOF {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
			if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("%s, %d bytes, again: %v", name, n, err)
			}
		}
	}
}

func TestAnotherKeyIsSeenAtTheFirstBytes(t *testing.T) {
	p := raw(newCipher(t, AES256), decodetest.Content(1000), whole)
	p[16] ^= 1
	if _, err := NewReader(bytes.NewReader(p), newCipher(t, AES256)).Peek(1); err != errPrefix {
		t.Error(err)
	}
}

func TestErrorsOfTheBodyPassAfterWhatCameBefore(t *testing.T) {
	block := newCipher(t, AES256)
	p := raw(block, decodetest.Content(6*chunkSize), whole)
	for _, cut := range []int{0, 1, 100, chunkSize, chunkSize + mdcSize, 5*chunkSize + 3, len(p)} {
		r := NewReader(io.MultiReader(bytes.NewReader(p[:cut]), iotest.ErrReader(iotest.ErrTimeout)), block)
		n, err := io.Copy(io.Discard, r)
		if err != iotest.ErrTimeout {
			t.Errorf("after %d bytes: %v", cut, err)
		}
		if want := int64((cut-mdcSize)/chunkSize*chunkSize - 18); n != max(want, 0) {
			t.Errorf("after %d bytes: %d bytes of plaintext, want %d", cut, n, want)
		}
	}
}

// full is a writer with room for n bytes.
type full struct{ n int }

func (w *full) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestAFailedWriteStaysAndStopsTheRest(t *testing.T) {
	block := newCipher(t, AES256)
	w := NewWriter(&full{3 * pieceSize}, block)
	n, err := io.Copy(w, io.LimitReader(zeros{}, 1<<40))
	if err != io.ErrShortWrite || n > 10*pieceSize {
		t.Errorf("after %d bytes: %v", n, err)
	}
	for range 2 {
		if err := w.Close(); err != io.ErrShortWrite {
			t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestNothingGoesOnBehindACallerThatStops(t *testing.T) {
	block := newCipher(t, AES256)
	packed := raw(block, decodetest.Content(10*chunkSize), whole)
	before := runtime.NumGoroutine()
	for range 20 {
		r := NewReader(bytes.NewReader(packed), block)
		if _, err := r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		w := NewWriter(io.Discard, block)
		if _, err := w.Write(packed); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(end) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are left of %d", n-before, n)
	}
}

func TestCiphersThatAreNotReadAreNamed(t *testing.T) {
	for number, want := range map[byte]string{1: "IDEA", 4: "Blowfish", 10: "Twofish", 13: "Camellia-256", 0: "number 0", 99: "number 99"} {
		if _, err := NewCipher(number, make([]byte, 16)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", number, err)
		}
	}
	for _, size := range []int{0, 16, 31, 33} {
		if _, err := NewCipher(AES256, make([]byte, size)); err == nil {
			t.Errorf("a key of %d bytes passed", size)
		}
	}
}

func FuzzReader(f *testing.F) {
	block := newCipher(f, AES256)
	f.Add(raw(block, decodetest.Content(100), whole))
	f.Add(raw(block, nil, whole))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := io.ReadAll(NewReader(bytes.NewReader(data), block))
		if err == nil && !bytes.Equal(plain, decodetest.Content(100)) && len(plain) > 0 {
			t.Fatalf("%x passed", data)
		}
	})
}

func benchmark(b *testing.B, work func(block cipher.Block, plain, packed []byte)) {
	block := newCipher(b, AES256)
	plain := decodetest.Content(16 << 20)
	packed := raw(block, plain, whole)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		work(block, plain, packed)
	}
}

func BenchmarkWriter(b *testing.B) {
	benchmark(b, func(block cipher.Block, plain, _ []byte) {
		w := NewWriter(io.Discard, block)
		// No error: it writes to nowhere.
		_, _ = io.Copy(w, struct{ io.Reader }{bytes.NewReader(plain)})
		_ = w.Close()
	})
}

func BenchmarkReader(b *testing.B) {
	benchmark(b, func(block cipher.Block, _, packed []byte) {
		r := NewReader(bytes.NewReader(packed), block)
		for {
			if _, err := r.Peek(1); err != nil {
				break
			}
			// They are at hand.
			_, _ = r.Discard(r.Buffered())
		}
	})
}
