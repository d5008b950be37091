package secretstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

var testKey = strings.Repeat("5a17", 16)

func open(t testing.TB) crypt.Method {
	t.Helper()
	m, err := Open(testKey, "hex", false)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func format(t testing.TB) decodetest.Format {
	m := open(t)
	return decodetest.Format{
		Encode:  func(w io.Writer) (io.WriteCloser, error) { return m.NewWriter(context.Background(), w) },
		Decode:  func(r io.Reader) decode.Reader { return m.NewReader(context.Background(), r) },
		Checked: true,
		Block:   chunkSize,
	}
}

func TestFormat(t *testing.T) { decodetest.Run(t, format(t)) }

func FuzzReader(f *testing.F) { format(f).Fuzz(f) }

func unpack(t testing.TB, sealed []byte) ([]byte, error) {
	t.Helper()
	return io.ReadAll(open(t).NewReader(context.Background(), bytes.NewReader(sealed)))
}

// library compiles a program around the real library.
func library(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secretstream")
	if out, err := exec.Command("cc", "-O2", "-o", name, "testdata/secretstream.c", "-lsodium").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return name
}

func TestTheRealLibraryOpensOursAndWeItsStreams(t *testing.T) {
	program := library(t)
	sizes := []int{0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, chunkSize - 1, chunkSize, chunkSize + 1, chunkSize + 8,
		2 * chunkSize, batch - 1, batch, batch + 1, 3*batch + 4711, decodetest.Soak(1<<20, 100<<20)}
	r := decodetest.Rand(t)
	for range decodetest.Soak(20, 2000) {
		sizes = append(sizes, r.IntN(3*chunkSize))
	}
	for _, n := range sizes {
		plain := decodetest.Content(n)
		if got := decodetest.Tool(t, format(t).Packed(t, plain), program, "d", testKey); !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: libsodium reads %d others", n, len(got))
		}
		for _, how := range []string{"e", "p", "r"} { // plain, with pushed chunks, with new keys
			if got, err := unpack(t, decodetest.Tool(t, plain, program, how, testKey)); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes by libsodium (%s): we read %d, %v", n, how, len(got), err)
			}
		}
	}
}

// The bytes of a stream are pinned. They were made by libsodium 1.0.18.
func TestBytesAreThoseOfLibsodium(t *testing.T) {
	var key [keySize]byte
	for i := range key {
		key[i] = byte(i)
	}
	header := bytes.Repeat([]byte{7}, headerSize)
	for text, want := range pinned {
		var b bytes.Buffer
		w := newWriter(&b, &key, header)
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b.Bytes()[headerSize:]); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// After 2^32 chunks the key changes by itself.
func TestTheKeyChangesWhenTheCounterWraps(t *testing.T) {
	var key [keySize]byte
	header := make([]byte, headerSize)
	one, two := newState(&key, header), newState(&key, header)
	copy(one.nonce[:], "\xff\xff\xff\xff")
	copy(two.nonce[:], "\xff\xff\xff\xff")
	before := one.key
	for i := range 3 {
		p := make([]byte, blockSize+5+macSize)
		copy(p[blockSize:], "hello")
		one.seal(p, tagMessage)
		if tag, err := two.open(p); tag != tagMessage || err != nil || string(p[blockSize:blockSize+5]) != "hello" {
			t.Fatalf("chunk %d: tag %d, %v", i, tag, err)
		}
	}
	if one.key == before {
		t.Error("the key is the old one")
	}
}

// A chunk that is whole and in the wrong place is as bad as a damaged one.
func TestChunksCannotBeMoved(t *testing.T) {
	const sealed = chunkSize + overhead
	plain := decodetest.Content(4 * chunkSize)
	good := format(t).Packed(t, plain)
	chunk := func(i int) []byte { return good[headerSize+i*sealed:][:sealed] }
	other := format(t).Packed(t, plain)
	for name, bad := range map[string][]byte{
		"swapped":               bytes.Join([][]byte{good[:headerSize], chunk(1), chunk(0), good[headerSize+2*sealed:]}, nil),
		"left out":              bytes.Join([][]byte{good[:headerSize], chunk(0), good[headerSize+2*sealed:]}, nil),
		"twice":                 bytes.Join([][]byte{good[:headerSize], chunk(0), chunk(0), good[headerSize+sealed:]}, nil),
		"of another stream":     bytes.Join([][]byte{good[:headerSize+sealed], other[headerSize+sealed:]}, nil),
		"without the final one": good[:headerSize+4*sealed],
		"two streams":           bytes.Join([][]byte{good, other}, nil),
	} {
		if got, err := unpack(t, bad); fault.Status(err) != fault.Data || !bytes.HasPrefix(plain, got) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A final chunk of full size, which WAL-G does not write, is good; what comes
// after it is not.
func TestNothingFollowsAFinalChunkOfFullSize(t *testing.T) {
	m := open(t).(*Method)
	header := make([]byte, headerSize)
	s := newState(&m.key, header)
	p := make([]byte, blockSize+chunkSize+macSize)
	s.seal(p, tagFinal)
	sealed := append(header, p[blockSize-1:]...)
	if got, err := unpack(t, sealed); len(got) != chunkSize || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := unpack(t, append(sealed, 0)); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "after the final chunk") {
		t.Errorf("with more behind it: %v", err)
	}
}

func TestAWrongKeyIsNamed(t *testing.T) {
	other, err := Open(strings.Repeat("00", 32), "hex", false)
	if err != nil {
		t.Fatal(err)
	}
	sealed := format(t).Packed(t, []byte("text"))
	_, err = io.ReadAll(other.NewReader(context.Background(), bytes.NewReader(sealed)))
	if fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "the key does not fit") {
		t.Errorf("%v", err)
	}
	for m, fits := range map[crypt.Method]bool{open(t): true, other: false} {
		for _, n := range []int{0, 4, chunkSize, 5 * chunkSize} {
			report, err := m.Inspect(context.Background(), bytes.NewReader(format(t).Packed(t, decodetest.Content(n))))
			if err != nil || report.Method != "libsodium" || report.Fits != fits || (report.Reason == "") != fits {
				t.Errorf("%d bytes: %+v, %v; want %v", n, report, err, fits)
			}
		}
	}
}

func TestKeysHaveTheirExactLength(t *testing.T) {
	raw := bytes.Repeat([]byte{0xa5}, 33)
	for _, c := range []struct {
		text, transform string
		weak            bool
		opens, writes   bool
		message         string
	}{
		{hex.EncodeToString(raw[:32]), "hex", false, true, true, ""},
		{strings.ToUpper(hex.EncodeToString(raw[:32])), "hex", false, true, true, ""},
		{base64.StdEncoding.EncodeToString(raw[:32]), "base64", false, true, true, ""},
		{hex.EncodeToString(raw[:31]), "hex", true, false, false, "31 bytes in hex, where 32 are needed"},
		{hex.EncodeToString(raw[:33]), "hex", true, false, false, "33 bytes in hex"},
		{base64.StdEncoding.EncodeToString(raw[:16]), "base64", true, false, false, "16 bytes in base64"},
		{"not hex at all", "hex", true, false, false, "not hex"},
		{"", "hex", true, false, false, "0 bytes"},
		{"a text of thirty-two bytes or so", "", false, true, true, ""},
		{"a text of thirty-two bytes and some more", "none", false, true, true, ""},
		{"a text of 28 bytes, is short", "none", false, true, false, "a text of 28 bytes"},
		{"a text of 28 bytes, is short", "none", true, true, true, ""},
		{"a text of 24 bytes, it is", "none", true, true, true, ""},
		{"a text of 24 bytes it is", "none", true, false, false, "a text of 24 bytes, where 32 are needed"},
		{hex.EncodeToString(raw[:32]), "rot13", true, false, false, "hex, base64 or none"},
	} {
		m, err := Open(c.text, c.transform, c.weak)
		if (err == nil) != c.opens {
			t.Errorf("%q, %s: %v", c.text, c.transform, err)
		}
		if err == nil {
			_, err = m.NewWriter(context.Background(), io.Discard)
		}
		if (err == nil) != c.writes || err != nil && (fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), c.message)) {
			t.Errorf("write with %q, %s: %v, want %q", c.text, c.transform, err, c.message)
		}
		if err != nil && len(c.text) > 3 && strings.Contains(err.Error()+fault.Hint(err), c.text[:4]+c.text[4:]) {
			t.Errorf("%v shows the key", err)
		}
	}
	// A text is the same key as its bytes.
	text, _ := Open("a text of thirty-two bytes or so", "", false)
	bytesToo, _ := Open(hex.EncodeToString([]byte("a text of thirty-two bytes or so")), "hex", false)
	if text.(*Method).key != bytesToo.(*Method).key {
		t.Error("a text is another key than its bytes")
	}
}

// What is damaged is not read, and what was good before it is.
func TestGoodChunksAreReadAndBadOnesNot(t *testing.T) {
	sealed := format(t).Packed(t, decodetest.Content(chunkSize+10))
	sealed[len(sealed)-1] ^= 1
	r := open(t).NewReader(context.Background(), bytes.NewReader(sealed))
	n, err := io.Copy(io.Discard, r)
	if n != chunkSize || fault.Status(err) != fault.Data {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// pinned are single final chunks with the key 00 01 .. 1f and a header of 07.
var pinned = map[string]string{
	"":                         "d086607789f1de3ad45ffb0ea48da15bff",
	"hello":                    "d0d0dd0d86aa0dda833b65d7fa8244f6cc280bdd0f56",
	"sixteen bytes ok":         "d0cbd1199ea005955d350652373a1d8b37f1a6705d6d7df91e1c2aa8fcd092f385",
	"a text of 24 bytes it is": "d0d998158fbd14db12315f1466695f9d28968724f571fa1c05a2fc1b4787d027a8c085beedd4add815",
}
