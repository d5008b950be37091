package openpgp_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	//lint:ignore SA1019 the library that WAL-G uses
	pgp "golang.org/x/crypto/openpgp"
	//lint:ignore SA1019 the library that WAL-G uses
	pgppacket "golang.org/x/crypto/openpgp/packet"

	"walg/lib/crypt"
	"walg/lib/crypt/openpgp"
	"walg/lib/crypt/openpgp/keyring"
	"walg/lib/crypt/openpgp/packet"
	"walg/lib/crypt/openpgp/seipd"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const (
	passphrase = "walg test pass" // of rsa3072
	block      = 256 << 10        // of the stream
)

var _ crypt.Method = (*openpgp.Method)(nil)

func text(t testing.TB, names ...string) []byte {
	t.Helper()
	var all []byte
	for _, name := range names {
		p, err := os.ReadFile("testdata/" + name + ".asc")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p...)
	}
	return all
}

func method(t testing.TB, names ...string) *openpgp.Method {
	t.Helper()
	m, err := openpgp.Open(text(t, names...), passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// format is a method under test. The short key is the fast one.
func format(m *openpgp.Method) decodetest.Format {
	return decodetest.Format{
		Encode:  func(w io.Writer) (io.WriteCloser, error) { return m.NewWriter(context.Background(), w) },
		Decode:  func(r io.Reader) decode.Reader { return m.NewReader(context.Background(), r) },
		Checked: true,
		Block:   block,
	}
}

func read(m *openpgp.Method, p []byte) (string, error) {
	var b strings.Builder
	_, err := io.Copy(&b, m.NewReader(context.Background(), bytes.NewReader(p)))
	return b.String(), err
}

// refused fails unless err has the status and says all of words, in itself or
// in its hint.
func refused(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	if fault.Status(err) != status {
		t.Errorf("status %d (%v)", fault.Status(err), err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error()+fault.Hint(err), word) {
			t.Errorf("%q is not in %q, hint %q", word, err, fault.Hint(err))
		}
	}
}

func TestFormat(t *testing.T) { decodetest.Run(t, format(method(t, "rsa1024"))) }

// The suite's damage, to a message in the forms of others.
func TestDamageToCompressedMessagesIsStatus65(t *testing.T) {
	m := method(t, "rsa1024")
	plain := string(decodetest.Content(700))
	r := decodetest.Rand(t)
	for _, inner := range [][]byte{
		partial(packet.Compressed, deflated(literal([]byte(plain)))),
		slices.Concat(packed(packet.OnePassSignature, make([]byte, 13)), packed(packet.Compressed, zlibbed(literal([]byte(plain)))), packed(packet.Signature, make([]byte, 99))),
	} {
		p := message(t, "rsa1024", inner)
		for cut := range p {
			if _, err := read(m, p[:cut]); fault.Status(err) != fault.Data {
				t.Errorf("cut to %d of %d: status %d (%v)", cut, len(p), fault.Status(err), err)
			}
		}
		for range decodetest.Soak(300, 10_000) {
			bit := r.IntN(len(p) * 8)
			p[bit/8] ^= 1 << (bit % 8)
			got, err := read(m, p)
			p[bit/8] ^= 1 << (bit % 8)
			if err == nil && got != plain || err != nil && fault.Status(err) != fault.Data {
				t.Errorf("bit %d: status %d (%v)", bit, fault.Status(err), err)
			}
		}
		if got, err := read(m, p); err != nil || got != plain {
			t.Errorf("undamaged: equal %v, %v", got == plain, err)
		}
	}
}

// The building of messages.

func packed(tag byte, body ...[]byte) []byte {
	p := slices.Concat(body...)
	return append(packet.AppendHeader(nil, tag, len(p)), p...)
}

// partial is a packet in pieces of 512 bytes.
func partial(tag byte, body []byte) []byte {
	p := []byte{0xc0 | tag}
	for len(body) >= 512 {
		p = append(append(p, packet.Partial(9)), body[:512]...)
		body = body[512:]
	}
	return append(packet.AppendLength(p, len(body)), body...)
}

func literal(content []byte) []byte {
	return packed(packet.Literal, []byte("u\x04name\x00\x00\x00\x00"), content)
}

func deflated(p []byte) []byte {
	var b bytes.Buffer
	b.WriteByte(1)
	z, err := flate.NewWriter(&b, 6)
	if err != nil {
		panic(err)
	}
	// No error: it writes into memory.
	_, _ = z.Write(p)
	_ = z.Close()
	return b.Bytes()
}

func zlibbed(p []byte) []byte {
	var b bytes.Buffer
	b.WriteByte(2)
	z := zlib.NewWriter(&b)
	// No error: it writes into memory.
	_, _ = z.Write(p)
	_ = z.Close()
	return b.Bytes()
}

var session = keyring.Session{Cipher: 9, Key: []byte("a session key with 32 bytes in it")[:32]}

// sealed is the session key for a stored key.
func sealed(t testing.TB, name string, s keyring.Session) []byte {
	t.Helper()
	ring, err := keyring.Read(text(t, name), "")
	if err != nil {
		t.Fatal(err)
	}
	to, err := ring.Recipients(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p, err := keyring.Seal(s, to[0])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// enciphered is the body of an encrypted packet, by the standard library.
func enciphered(t testing.TB, plain []byte) []byte {
	t.Helper()
	c, err := seipd.NewCipher(session.Cipher, session.Key)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 16, 18+len(plain)+22)
	rand.Read(p)
	p = append(append(p, p[14:]...), plain...)
	p = append(p, 0xd3, 0x14)
	sum := sha1.Sum(p)
	p = append(p, sum[:]...)
	//lint:ignore SA1019 the other implementation, to compare with
	cipher.NewCFBEncrypter(c, make([]byte, 16)).XORKeyStream(p, p)
	return append([]byte{1}, p...)
}

// message is a message with any packets in it.
func message(t testing.TB, name string, inner ...[]byte) []byte {
	return append(sealed(t, name, session), packed(packet.Encrypted, enciphered(t, slices.Concat(inner...)))...)
}

func TestWhatIsWrittenHasWALGsForm(t *testing.T) {
	for _, n := range []int{0, 1000, 3*block + 5} {
		p := format(method(t, "rsa1024", "elgamal")).Packed(t, decodetest.Content(n))
		src := bufio.NewReader(bytes.NewReader(p))
		var tags []byte
		for {
			body, err := packet.Next(src)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			tags = append(tags, body.Tag)
			if want := map[byte]byte{packet.PublicKeyEncrypted: 3, packet.Encrypted: 1}[body.Tag]; data[0] != want {
				t.Errorf("tag %d has version %d", body.Tag, data[0])
			}
		}
		if want := []byte{packet.PublicKeyEncrypted, packet.PublicKeyEncrypted, packet.Encrypted}; !bytes.Equal(tags, want) {
			t.Errorf("%d bytes: tags %v", n, tags)
		}
	}
}

func TestTheLibraryOfWALGReadsOurs(t *testing.T) {
	for _, names := range [][]string{{"rsa1024"}, {"rsa2048", "elgamal"}, {"primary"}} {
		ring, err := pgp.ReadArmoredKeyRing(bytes.NewReader(text(t, names[len(names)-1])))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 500, 511, 512, 8000, block - 7, block - 6, block - 5, block, block + 1, 3*block + 7} {
			plain := decodetest.Content(n)
			p := format(method(t, names...)).Packed(t, plain)
			md, err := pgp.ReadMessage(bytes.NewReader(p), ring, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(md.UnverifiedBody)
			if err != nil || !bytes.Equal(got, plain) || !md.LiteralData.IsBinary || md.LiteralData.FileName != "" || md.LiteralData.Time != 0 {
				t.Errorf("%v, %d bytes: equal %v, %v", names, n, bytes.Equal(got, plain), err)
			}
		}
	}
}

func TestWhatTheLibraryOfWALGWritesIsRead(t *testing.T) {
	for _, name := range []string{"rsa2048", "elgamal"} {
		ring, err := pgp.ReadArmoredKeyRing(bytes.NewReader(text(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []pgppacket.CipherFunction{pgppacket.CipherAES128, pgppacket.CipherAES256, pgppacket.CipherCAST5} {
			for _, n := range []int{0, 1, 1000, 200_000} {
				plain := decodetest.Content(n)
				var b bytes.Buffer
				w, err := pgp.Encrypt(&b, ring, nil, nil, &pgppacket.Config{DefaultCipher: c})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(plain); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if got, err := read(method(t, name), b.Bytes()); err != nil || got != string(plain) {
					t.Errorf("%s, cipher %d, %d bytes: equal %v, %v", name, c, n, got == string(plain), err)
				}
			}
		}
	}
}

// gnupg is a home of gpg with all keys that it needs.
type gnupg struct {
	t    testing.TB
	home string
}

func newGPG(t testing.TB, names ...string) gnupg {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // a short path, for the agent's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It may not run, and the folder goes all the same.
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run()
		os.RemoveAll(home)
	})
	g := gnupg{t, home}
	g.run(text(t, names...), "--import")
	return g
}

func (g gnupg) run(input []byte, args ...string) []byte {
	g.t.Helper()
	argv := []string{"gpg", "--homedir", g.home, "--batch", "--quiet", "--no-tty", "--trust-model", "always",
		"--pinentry-mode", "loopback", "--passphrase", passphrase, "--s2k-count", "1024"}
	return decodetest.Tool(g.t, input, append(argv, args...)...)
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	g := newGPG(t, "rsa1024", "rsa2048", "rsa3072", "rsa4096", "elgamal", "primary", "subkeys")
	sizes := []int{1000}
	for _, d := range []int{-7, -6, -5, -1, 0, 1} {
		sizes = append(sizes, block+d)
	}
	for i, names := range [][]string{{"rsa1024"}, {"rsa2048"}, {"rsa3072"}, {"rsa4096"}, {"elgamal"}, {"primary"}, {"subkeys"}, {"rsa2048", "elgamal", "rsa3072"}} {
		these := sizes[:1]
		if i == 0 {
			these = append(sizes, 0, 1, 191, 8384, 5*block, decodetest.Soak(5*block+1, 100<<20))
		}
		for _, n := range these {
			plain := decodetest.Content(n)
			got := g.run(format(method(t, names...)).Packed(t, plain), "-d")
			if !bytes.Equal(got, plain) {
				t.Errorf("%v, %d bytes differ", names, n)
			}
		}
	}
}

func TestWhatTheStockProgramWritesIsRead(t *testing.T) {
	g := newGPG(t, "rsa1024", "rsa2048", "rsa3072", "rsa4096", "elgamal", "primary", "subkeys")
	plain := decodetest.Content(300_000)
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, args string }{
		{"rsa1024", "-e -r rsa1024"},
		{"rsa2048", "-e -r rsa2048"},
		{"rsa3072", "-e -r rsa3072"},
		{"rsa4096", "-e -r rsa4096"},
		{"elgamal", "-e -r elgamal"},
		{"primary", "-e -r primary"},
		{"subkeys", "-e -r subkeys"},
		{"rsa1024", "-e -r rsa2048 -r elgamal -r rsa1024 -r rsa4096"},
		{"elgamal", "-e -r rsa2048 -r elgamal -r rsa1024 -r rsa4096"},
		{"rsa2048", "-e -R rsa2048"},
		{"elgamal", "-e -R rsa2048 -R elgamal -r rsa1024"},
		{"rsa3072", "-e -R elgamal -R rsa3072"},
		{"rsa1024", "-e -r rsa1024 --cipher-algo AES128"},
		{"rsa1024", "-e -r rsa1024 --cipher-algo AES192"},
		{"rsa1024", "-e -r rsa1024 --cipher-algo AES256"},
		{"rsa1024", "-e -r rsa1024 --cipher-algo CAST5"},
		{"rsa1024", "-e -r rsa1024 --cipher-algo 3DES"},
		{"rsa1024", "-e -r rsa1024 --compress-algo none"},
		{"rsa1024", "-e -r rsa1024 --compress-algo zip"},
		{"rsa1024", "-e -r rsa1024 --compress-algo zlib"},
		{"rsa1024", "-e -r rsa1024 --compress-algo bzip2"},
		{"rsa1024", "-e -r rsa1024 --compress-algo bzip2 --armor"},
		{"rsa1024", "-e -r rsa1024 --armor --compress-algo none --comment hello"},
		{"rsa1024", "-s -e -r rsa1024 -u rsa2048"},
		{"rsa1024", "-s -e -r rsa1024 -u rsa2048 --compress-algo none"},
		{"rsa1024", "-s -e -r rsa1024 -u rsa2048 -u elgamal --compress-algo zlib --armor"},
		{"rsa1024", "-e -c -r rsa1024"},
		{"rsa1024", "-e -r rsa1024 --textmode"},
		{"rsa1024", "-e -r rsa1024 --rfc4880"},
		{"rsa1024", "-e -r rsa1024 --chunk-size 6"},
	} {
		args := strings.Fields(c.args)
		for _, piped := range []bool{true, false} {
			if strings.Contains(c.args, "--chunk-size") || strings.Contains(c.args, "--textmode") {
				continue // below
			}
			var p []byte
			if piped {
				p = g.run(plain, args...)
			} else if strings.Contains(c.args, "compress-algo none") {
				p = g.run(nil, append(args, "-o", "-", file)...) // with lengths that are known
			} else {
				continue
			}
			r := method(t, c.key).NewReader(context.Background(), bytes.NewReader(p))
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, plain) || !r.Proven() {
				t.Errorf("gpg %s, piped %v: equal %v, proven %v, %v", c.args, piped, bytes.Equal(got, plain), r.Proven(), err)
			}
		}
	}
	lines := []byte("one\ntwo\n")
	if got, err := read(method(t, "rsa1024"), g.run(lines, "-e", "-r", "rsa1024", "--textmode")); err != nil || got != "one\r\ntwo\r\n" {
		t.Errorf("gpg --textmode: %q, %v", got, err)
	}
	large := decodetest.Content(decodetest.Soak(1<<20, 100<<20))
	if got, err := read(method(t, "rsa1024"), g.run(large, "-e", "-r", "rsa1024", "--compress-algo", "none")); err != nil || got != string(large) {
		t.Errorf("%d bytes: equal %v, %v", len(large), got == string(large), err)
	}
}

func TestWhatTheStockProgramWritesAndIsNotReadSaysWhy(t *testing.T) {
	g := newGPG(t, "rsa1024", "curve25519")
	plain := []byte("plain")
	m := method(t, "rsa1024")
	for _, c := range []struct {
		args  string
		words []string
	}{
		{"-c", []string{"passphrase", "gpg -d"}},
		{"-e -r curve25519", []string{"encrypted for", "the configured key is"}},
		{"-e -R curve25519", []string{"hidden", "the configured key is"}},
		{"-s -u rsa1024", []string{"not encrypted"}},
		{"--store", []string{"not encrypted"}},
		{"--export", []string{"a key, not a message"}},
		{"--export --armor", []string{"PUBLIC KEY BLOCK"}},
		{"--clear-sign -u rsa1024", []string{"SIGNED MESSAGE"}},
		{"-e -r rsa1024 --cipher-algo TWOFISH", []string{"Twofish", "gpg -d"}},
		{"-e -r rsa1024 --cipher-algo CAMELLIA192", []string{"Camellia-192", "gpg -d"}},
		{"-e -r rsa1024 --cipher-algo BLOWFISH", []string{"Blowfish", "gpg -d"}},
		{"-e -r rsa1024 --rfc2440 --disable-mdc", []string{"no integrity protection", "gpg -d"}},
	} {
		_, err := read(m, g.run(plain, strings.Fields(c.args)...))
		t.Run(c.args, func(t *testing.T) { refused(t, err, fault.Data, c.words...) })
	}
}

func TestArmoredMessagesAreReadAndInsistOnTheirEnd(t *testing.T) {
	g := newGPG(t, "rsa1024")
	m := method(t, "rsa1024")
	plain := decodetest.Content(500)
	p := g.run(plain, "-e", "-r", "rsa1024", "--armor", "--compress-algo", "none")
	if got, err := read(m, p); err != nil || got != string(plain) {
		t.Errorf("equal %v, %v", got == string(plain), err)
	}
	for cut := range p {
		if _, err := read(m, p[:cut]); fault.Status(err) != fault.Data {
			t.Errorf("cut to %d of %d: status %d (%v)", cut, len(p), fault.Status(err), err)
		}
	}
	r := decodetest.Rand(t)
	for range decodetest.Soak(300, len(p)*8) {
		bit := r.IntN(len(p) * 8)
		p[bit/8] ^= 1 << (bit % 8)
		got, err := read(m, p)
		p[bit/8] ^= 1 << (bit % 8)
		if err == nil && got != string(plain) || err != nil && fault.Status(err) != fault.Data {
			t.Errorf("bit %d: status %d (%v)", bit, fault.Status(err), err)
		}
	}
	for _, more := range []string{"x", "\nx", string(p)} {
		if _, err := read(m, append(bytes.Clone(p), more...)); fault.Status(err) != fault.Data {
			t.Errorf("%.10q after it: %v", more, err)
		}
	}
	outage := errors.New("outage")
	for cut := 0; cut <= len(p); cut += 1 + cut/20 {
		_, err := io.ReadAll(m.NewReader(context.Background(), io.MultiReader(bytes.NewReader(p[:cut]), iotest.ErrReader(outage))))
		if !errors.Is(err, outage) || fault.Status(err) != fault.Failed {
			t.Errorf("an outage after %d: %v", cut, err)
		}
	}
}

func TestPacketsInAnyFormOfLengthAreRead(t *testing.T) {
	m := method(t, "rsa1024")
	content := decodetest.Content(3000)
	body := enciphered(t, literal(content))
	key := sealed(t, "rsa1024", session)
	for name, p := range map[string][]byte{
		"five octets":      slices.Concat(key, []byte{0xd2, 255, 0, 0, byte(len(body) >> 8), byte(len(body))}, body),
		"partial":          slices.Concat(key, partial(packet.Encrypted, body)),
		"old, two octets":  slices.Concat(key, []byte{0x80 | 18&15<<2 | 1, byte(len(body) >> 8), byte(len(body))}, body),
		"inner partial":    message(t, "rsa1024", partial(packet.Literal, literal(content)[3:])),
		"inner endless":    message(t, "rsa1024", []byte{0x80 | packet.Literal<<2 | 3}, literal(content)[3:]),
		"zipped, endless":  message(t, "rsa1024", []byte{0x80 | packet.Compressed<<2 | 3}, deflated(literal(content))),
		"zlib":             message(t, "rsa1024", packed(packet.Compressed, zlibbed(literal(content)))),
		"not compressed":   message(t, "rsa1024", packed(packet.Compressed, []byte{0}, literal(content))),
		"markers":          slices.Concat(packed(packet.Marker, []byte("PGP")), key, packed(packet.Encrypted, enciphered(t, slices.Concat(packed(packet.Marker, []byte("PGP")), literal(content))))),
		"passphrase first": slices.Concat(packed(packet.PassphraseKey, []byte("\x04\x09\x03\x02saltsalt\x60")), key, packed(packet.Encrypted, body)),
		"a key of version 6 first": slices.Concat(packed(packet.PublicKeyEncrypted, []byte("\x06\x00\x19"+strings.Repeat("x", 50))), key,
			packed(packet.Encrypted, body)),
		"another's first":  slices.Concat(sealed(t, "elgamal", session), key, packed(packet.Encrypted, body)),
		"signed":           message(t, "rsa1024", packed(packet.OnePassSignature, make([]byte, 13)), literal(content), packed(packet.Signature, make([]byte, 300))),
		"signed, old form": message(t, "rsa1024", packed(packet.Signature, make([]byte, 300)), literal(content)),
	} {
		if name == "old, two octets" {
			continue // tag 18 has no old form
		}
		got, err := read(m, p)
		if err != nil || got != string(content) {
			t.Errorf("%s: equal %v, %v", name, got == string(content), err)
		}
	}
}

func TestHostileMessagesAreStatus65(t *testing.T) {
	m := method(t, "rsa1024")
	content := literal(decodetest.Content(3000))
	key := sealed(t, "rsa1024", session)
	body := enciphered(t, content)
	nested := content
	for range 20 {
		nested = packed(packet.Compressed, deflated(nested))
	}
	for name, c := range map[string]struct {
		p     []byte
		words []string
	}{
		"nothing":                   {nil, []string{"truncated"}},
		"plain text":                {[]byte("plain text"), []string{"not an OpenPGP message"}},
		"only a session key":        {key, []string{"truncated"}},
		"no session key":            {packed(packet.Encrypted, body), []string{"no session key"}},
		"tag 9":                     {slices.Concat(key, packed(packet.EncryptedBare, body[1:])), []string{"no integrity protection", "gpg -d"}},
		"tag 20":                    {slices.Concat(key, packed(packet.EncryptedOCB, []byte("\x01\x09\x02\x10"), body)), []string{"OCB", "gpg -d"}},
		"version 2":                 {slices.Concat(key, packed(packet.Encrypted, []byte{2}, body[1:])), []string{"AEAD"}},
		"version 3":                 {slices.Concat(key, packed(packet.Encrypted, []byte{3}, body[1:])), []string{"version 3"}},
		"an empty one":              {slices.Concat(key, packed(packet.Encrypted)), []string{"truncated"}},
		"only a version":            {slices.Concat(key, packed(packet.Encrypted, []byte{1})), []string{"truncated"}},
		"only version 6 keys":       {slices.Concat(packed(packet.PublicKeyEncrypted, []byte("\x06\x00")), packed(packet.Encrypted, body)), []string{"not read here"}},
		"a key of 4 GiB":            {append([]byte{0xc1, 0xff, 0xff, 0xff, 0xff, 0xff}, key...), []string{"more than 8192 bytes"}},
		"a key in partial lengths":  {append([]byte{0xc1, 0xfe}, make([]byte, 1<<20)...), []string{"more than 8192 bytes"}},
		"a key without an end":      {append([]byte{0x87}, make([]byte, 1<<20)...), []string{"more than 8192 bytes"}},
		"a number beyond its end":   {slices.Concat(packed(packet.PublicKeyEncrypted, []byte("\x0312345678\x01\xff\xffx")), packed(packet.Encrypted, body)), nil},
		"an empty key":              {slices.Concat(packed(packet.PublicKeyEncrypted), packed(packet.Encrypted, body)), nil},
		"thousands of keys":         {slices.Concat(bytes.Repeat(key, 257), packed(packet.Encrypted, body)), []string{"more than 256 keys"}},
		"thousands of other keys":   {bytes.Repeat(packed(packet.PublicKeyEncrypted, []byte{6}), 10_000), []string{"more than 256 keys"}},
		"an unknown packet":         {packed(50, []byte("x")), []string{"packet type 50"}},
		"a packet of tag 0":         {packed(0, []byte("x")), []string{"packet type 0"}},
		"two literals":              {message(t, "rsa1024", content, content), []string{"two literal"}},
		"two literals, packed":      {message(t, "rsa1024", packed(packet.Compressed, deflated(content)), content), []string{"two literal"}},
		"no literal":                {message(t, "rsa1024"), []string{"no literal"}},
		"only a signature":          {message(t, "rsa1024", packed(packet.Signature, []byte{4})), []string{"no literal"}},
		"an unknown packet inside":  {message(t, "rsa1024", packed(50, []byte("x")), content), []string{"type 50"}},
		"encrypted twice":           {message(t, "rsa1024", key, packed(packet.Encrypted, body)), []string{"type 1"}},
		"no packet inside":          {message(t, "rsa1024", []byte("plain text")), nil},
		"no packet after":           {message(t, "rsa1024", content, []byte("plain text")), nil},
		"deeply packed":             {message(t, "rsa1024", nested), []string{"packed in one another"}},
		"an unknown compression":    {message(t, "rsa1024", packed(packet.Compressed, []byte{9}, content)), []string{"compression number 9"}},
		"an empty compression":      {message(t, "rsa1024", packed(packet.Compressed)), []string{"truncated"}},
		"damaged deflate":           {message(t, "rsa1024", packed(packet.Compressed, []byte{1, 0xff, 0xff, 0xff})), nil},
		"damaged zlib":              {message(t, "rsa1024", packed(packet.Compressed, []byte{2, 0xff, 0xff, 0xff})), nil},
		"damaged bzip2":             {message(t, "rsa1024", packed(packet.Compressed, []byte{3, 0xff, 0xff, 0xff})), nil},
		"half a deflate":            {message(t, "rsa1024", packed(packet.Compressed, deflated(content)[:500])), []string{"truncated"}},
		"more after deflate":        {message(t, "rsa1024", packed(packet.Compressed, deflated(content), []byte("x"))), []string{"after the compressed"}},
		"a literal beyond the end":  {message(t, "rsa1024", []byte{0xcb, 0xff, 0, 1, 0, 0}, content), []string{"truncated"}},
		"a literal of half a head":  {message(t, "rsa1024", packed(packet.Literal, []byte("b\x10abc"))), []string{"truncated"}},
		"a signature of a megabyte": {message(t, "rsa1024", content, packed(packet.Signature, make([]byte, 1<<20))), []string{"more than 65536"}},
		"another cipher's key":      {slices.Concat(sealed(t, "rsa1024", keyring.Session{Cipher: 9, Key: make([]byte, 16)}), packed(packet.Encrypted, body)), []string{"16 bytes for AES-256"}},
		"an unknown cipher":         {slices.Concat(sealed(t, "rsa1024", keyring.Session{Cipher: 99, Key: make([]byte, 16)}), packed(packet.Encrypted, body)), []string{"number 99"}},
		"no cipher":                 {slices.Concat(sealed(t, "rsa1024", keyring.Session{Cipher: 0}), packed(packet.Encrypted, body)), []string{"number 0"}},
		"another session key":       {slices.Concat(sealed(t, "rsa1024", keyring.Session{Cipher: 9, Key: make([]byte, 32)}), packed(packet.Encrypted, body)), nil},
	} {
		r := m.NewReader(context.Background(), bytes.NewReader(c.p))
		_, err := io.Copy(io.Discard, r)
		t.Run(name, func(t *testing.T) {
			refused(t, err, fault.Data, c.words...)
			if r.Proven() {
				t.Error("proven")
			}
		})
	}
}

func TestABombTakesNoMemory(t *testing.T) {
	m := method(t, "rsa1024")
	p := message(t, "rsa1024", packed(packet.Compressed, deflated(literal(make([]byte, 64<<20)))))
	if len(p) > 100_000 {
		t.Fatalf("%d bytes", len(p))
	}
	allocated := testing.AllocsPerRun(1, func() {
		if n, err := io.Copy(io.Discard, m.NewReader(context.Background(), bytes.NewReader(p))); n != 64<<20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	if allocated > 1000 {
		t.Errorf("%.0f allocations", allocated)
	}
}

func TestKeysAndMessagesThatDoNotFitSayWhose(t *testing.T) {
	plain := decodetest.Content(100)
	ids := func(names ...string) []string {
		ring, err := keyring.Read(text(t, names...), "")
		if err != nil {
			t.Fatal(err)
		}
		return ring.Names()
	}
	p := format(method(t, "rsa2048", "elgamal")).Packed(t, plain)
	_, err := read(method(t, "rsa1024"), p)
	refused(t, err, fault.Data, append(ids("rsa2048", "elgamal", "rsa1024"), "encrypted for", "the configured key is")...)

	_, err = read(method(t, "rsa2048.pub"), p)
	refused(t, err, fault.Usage, append(ids("rsa2048"), "private key")...)

	protected := format(method(t, "rsa3072")).Packed(t, plain)
	for given, words := range map[string][]string{"": {"protected by a passphrase", "WALG_PGP_KEY_PASSPHRASE"}, "wrong": {"wrong passphrase"}} {
		m, err := openpgp.Open(text(t, "rsa3072"), given)
		if err != nil {
			t.Fatal(err)
		}
		_, err = read(m, protected)
		refused(t, err, fault.Usage, append(words, ids("rsa3072")...)...)
		if m.CanDecrypt() != (given != "") { // the self-test names a wrong one
			t.Errorf("can decrypt with passphrase %q: %v", given, m.CanDecrypt())
		}
		w, err := m.NewWriter(context.Background(), io.Discard)
		if err != nil {
			t.Fatalf("it does not encrypt with passphrase %q: %v", given, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if !method(t, "rsa3072").CanDecrypt() || method(t, "rsa2048.pub").CanDecrypt() {
		t.Error("CanDecrypt")
	}
}

func TestAKeyThatMayNotEncryptIsRefusedBeforeAByteIsWritten(t *testing.T) {
	for _, names := range [][]string{{"expired"}, {"revoked"}, {"rsa1024", "curve25519"}, {"rsa1024", "signonly"}} {
		var b bytes.Buffer
		_, err := method(t, names...).NewWriter(context.Background(), &b)
		t.Run(fmt.Sprint(names), func(t *testing.T) { refused(t, err, fault.Usage, "openpgp key ") })
		if b.Len() > 0 {
			t.Errorf("%v: %d bytes were written", names, b.Len())
		}
	}
}

func TestInspectSaysWhichKeysFit(t *testing.T) {
	id := func(name string) string {
		ring, err := keyring.Read(text(t, name), "")
		if err != nil {
			t.Fatal(err)
		}
		return ring.Names()[0]
	}
	g := newGPG(t, "rsa1024", "rsa2048", "rsa3072")
	plain := decodetest.Content(100_000)
	hidden := g.run(plain, "-e", "-R", "rsa2048")
	named := g.run(plain, "-e", "-r", "rsa1024", "-r", "rsa2048", "--armor")
	const noID = "0000000000000000 (hidden)"
	for name, c := range map[string]struct {
		key    string
		p      []byte
		keys   []string
		fits   bool
		reason string
	}{
		"ours":              {"rsa2048", named, []string{id("rsa1024"), id("rsa2048")}, true, ""},
		"another's":         {"rsa4096", named, []string{id("rsa1024"), id("rsa2048")}, false, "the configured key is " + id("rsa4096")},
		"ours, public":      {"rsa2048.pub", named, []string{id("rsa1024"), id("rsa2048")}, false, "private"},
		"hidden, ours":      {"rsa2048", hidden, []string{noID}, true, ""},
		"hidden, another's": {"rsa4096", hidden, []string{noID}, false, "the configured key is"},
		"hidden, public":    {"rsa2048.pub", hidden, []string{noID}, false, "hidden, and none can be tried"},
		"the head alone":    {"rsa1024", format(method(t, "rsa1024")).Packed(t, plain)[:200], []string{id("rsa1024")}, true, ""},
		"no key at all":     {"rsa1024", g.run(plain, "-c"), nil, false, "passphrase"},
	} {
		report, err := method(t, c.key).Inspect(context.Background(), bytes.NewReader(c.p))
		if err != nil || report.Method != "openpgp" || !slices.Equal(report.Keys, c.keys) || report.Fits != c.fits || !strings.Contains(report.Reason, c.reason) || c.fits && report.Reason != "" {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		alone, err := openpgp.Inspect(bytes.NewReader(c.p))
		if err != nil || alone.Fits || alone.Reason != "" || !slices.Equal(alone.Keys, c.keys) {
			t.Errorf("%s, without a key: %+v, %v", name, alone, err)
		}
	}
	for _, p := range []string{"", "plain text", "\xc1"} {
		if _, err := openpgp.Inspect(strings.NewReader(p)); fault.Status(err) != fault.Data {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestTheSelfTestPasses(t *testing.T) {
	for _, names := range [][]string{{"rsa3072"}, {"rsa2048.pub"}, {"rsa1024", "elgamal"}} {
		if err := crypt.SelfTest(context.Background(), method(t, names...)); err != nil {
			t.Error(names, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	fast := method(f, "rsa1024")
	content := literal(decodetest.Content(300))
	for _, p := range [][]byte{
		message(f, "rsa1024", content),
		message(f, "rsa1024", packed(packet.Compressed, deflated(content))),
		message(f, "rsa1024", partial(packet.Compressed, zlibbed(content))),
		message(f, "rsa1024", packed(packet.OnePassSignature, make([]byte, 13)), content, packed(packet.Signature, make([]byte, 300))),
		slices.Concat(sealed(f, "elgamal", session), sealed(f, "rsa1024", session), partial(packet.Encrypted, enciphered(f, content))),
		[]byte("-----BEGIN PGP MESSAGE-----\n\nhQ==\n-----END PGP MESSAGE-----\n"),
	} {
		f.Add(p)
	}
	format(fast).Fuzz(f)
}

// FuzzPackets reads whatever packets stand in a message that is good as such.
func FuzzPackets(f *testing.F) {
	m := method(f, "rsa1024")
	key := sealed(f, "rsa1024", session)
	content := literal(decodetest.Content(300))
	f.Add(content)
	f.Add(packed(packet.Compressed, deflated(content)))
	f.Add(partial(packet.Compressed, zlibbed(content)))
	f.Add(packed(packet.Compressed, append([]byte{3}, "BZh9"...)))
	f.Add(slices.Concat(packed(packet.OnePassSignature, make([]byte, 13)), content, packed(packet.Signature, make([]byte, 300))))
	f.Fuzz(func(t *testing.T, inner []byte) {
		p := slices.Concat(key, packed(packet.Encrypted, enciphered(t, inner)))
		r := m.NewReader(context.Background(), bytes.NewReader(p))
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 16<<20)); err != nil && (fault.Status(err) != fault.Data || r.Proven()) {
			t.Fatalf("status %d, proven %v: %v", fault.Status(err), r.Proven(), err)
		}
	})
}
