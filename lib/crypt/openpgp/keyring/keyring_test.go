package keyring

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"walg/lib/crypt/openpgp/armor"
	"walg/lib/crypt/openpgp/packet"
	"walg/lib/decode"
	"walg/lib/fault"
)

const passphrase = "walg test pass" // of rsa3072

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func text(t testing.TB, name string) []byte {
	t.Helper()
	p, err := os.ReadFile("../testdata/" + name + ".asc")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// bare is a key without its armor.
func bare(t testing.TB, name string) []byte {
	t.Helper()
	r := armor.NewReader(decode.NewInput(bytes.NewReader(text(t, name)), "test", 4096))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ring(t testing.TB, text []byte, passphrase string) *Ring {
	t.Helper()
	r, err := Read(text, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// usage fails unless err has status 64 and says all of words, in itself or in
// its hint.
func usage(t *testing.T, err error, words ...string) {
	t.Helper()
	if fault.Status(err) != fault.Usage {
		t.Errorf("status %d (%v)", fault.Status(err), err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error()+fault.Hint(err), word) {
			t.Errorf("%q is not in %q, hint %q", word, err, fault.Hint(err))
		}
	}
}

// seal encrypts a session key for all recipients.
func seal(t testing.TB, r *Ring) (Session, []Sealed) {
	t.Helper()
	s := Session{Cipher: 9, Key: make([]byte, 32)}
	rand.Read(s.Key)
	to, err := r.Recipients(now)
	if err != nil {
		t.Fatal(err)
	}
	var all []Sealed
	for _, k := range to {
		p, err := Seal(s, k)
		if err != nil {
			t.Fatal(err)
		}
		body, err := packet.Next(bufio.NewReader(bytes.NewReader(p)))
		if err != nil {
			t.Fatal(err)
		}
		data, err := body.All(10_000)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := ParseSealed(data)
		if err != nil || sealed.ID != k.KeyId {
			t.Fatal(sealed, err)
		}
		all = append(all, sealed)
	}
	return s, all
}

func equal(a, b Session) bool { return a.Cipher == b.Cipher && bytes.Equal(a.Key, b.Key) }

func TestASessionKeyComesBackForEveryKindOfKey(t *testing.T) {
	for _, name := range []string{"rsa1024", "rsa2048", "rsa3072", "rsa4096", "elgamal", "primary", "subkeys", "extended", "stub"} {
		for _, key := range [][]byte{text(t, name), bare(t, name)} {
			r := ring(t, key, passphrase)
			s, sealed := seal(t, r)
			got, err := r.Open(sealed[0])
			if err != nil || !equal(got, s) {
				t.Errorf("%s: equal %v, %v", name, equal(got, s), err)
			}
			if err := r.Usable(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestAllKeysOfARingAreRecipients(t *testing.T) {
	together := slices.Concat(text(t, "rsa2048"), []byte("\nand\n"), text(t, "elgamal"), text(t, "primary"))
	r := ring(t, together, "")
	s, sealed := seal(t, r)
	if len(sealed) != 3 || len(r.Names()) != 3 {
		t.Fatalf("%d recipients, names %v", len(sealed), r.Names())
	}
	for i, name := range []string{"rsa2048", "elgamal", "primary"} {
		one := ring(t, text(t, name), "")
		if got, err := one.Open(sealed[i]); err != nil || !equal(got, s) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := one.Open(sealed[(i+1)%3]); err != ErrOther {
			t.Errorf("%s opens another's: %v, %v", name, got, err)
		}
	}
	if r := ring(t, slices.Concat(bare(t, "rsa2048"), bare(t, "elgamal"), bare(t, "primary")), ""); len(r.Names()) != 3 {
		t.Errorf("binary: %v", r.Names())
	}
	twice := ring(t, slices.Concat(text(t, "rsa2048"), text(t, "rsa2048.pub")), "")
	if to, err := twice.Recipients(now); len(to) != 1 || err != nil {
		t.Errorf("a key twice: %d recipients, %v", len(to), err)
	}
}

func TestBackslashAndNStandForNewlines(t *testing.T) {
	one := strings.ReplaceAll(strings.TrimSpace(string(text(t, "rsa2048"))), "\n", `\n`)
	if names := ring(t, []byte(one), "").Names(); len(names) != 1 {
		t.Error(names)
	}
}

// As a key is found where a variable lost its line ends, or a file has those of
// Windows.
func TestATextMayHaveOtherLineEnds(t *testing.T) {
	for name, key := range map[string]string{
		"CRLF":     strings.ReplaceAll(string(text(t, "rsa2048")), "\n", "\r\n"),
		"no blank": strings.Replace(string(text(t, "rsa2048")), "\n\n", "\n", 1),
		"indented": "\n\n  \n" + string(text(t, "rsa2048")),
		"Notepad":  "\ufeff" + strings.ReplaceAll(string(text(t, "rsa2048")), "\n", "\r\n"),
	} {
		if names := ring(t, []byte(key), "").Names(); len(names) != 1 {
			t.Error(name, names)
		}
	}
}

func TestAProtectedKeyEncryptsWithoutItsPassphrase(t *testing.T) {
	r := ring(t, text(t, "rsa3072"), "")
	s, sealed := seal(t, r)
	_, err := r.Open(sealed[0])
	usage(t, err, "protected by a passphrase", "WALG_PGP_KEY_PASSPHRASE", r.Names()[0])
	usage(t, r.Usable(), "protected by a passphrase")
	wrong := ring(t, text(t, "rsa3072"), "sesame")
	_, err = wrong.Open(sealed[0])
	usage(t, err, "wrong passphrase", r.Names()[0])
	if strings.Contains(err.Error()+fault.Hint(err), "sesame") {
		t.Errorf("the passphrase is told: %v", err)
	}
	if got, err := ring(t, text(t, "rsa3072"), passphrase).Open(sealed[0]); err != nil || !equal(got, s) {
		t.Error(err)
	}
}

func TestAPublicKeyEncryptsAndSaysWhyItDoesNotDecrypt(t *testing.T) {
	r := ring(t, text(t, "rsa2048.pub"), "")
	s, sealed := seal(t, r)
	_, err := r.Open(sealed[0])
	usage(t, err, "private key", r.Names()[0], "public", "gpg --export-secret-keys")
	if got, err := ring(t, text(t, "rsa2048"), "").Open(sealed[0]); err != nil || !equal(got, s) {
		t.Error(err)
	}
}

// hide is a session key whose recipient is not told.
func hide(s Sealed) Sealed { return Sealed{0, s.key} }

func TestForAHiddenRecipientEachKeyIsTried(t *testing.T) {
	r := ring(t, slices.Concat(text(t, "rsa2048"), text(t, "rsa3072"), text(t, "elgamal"), text(t, "rsa4096")), "")
	s, sealed := seal(t, r)
	for i, name := range []string{"rsa2048", "", "elgamal", "rsa4096"} {
		got, err := r.Open(hide(sealed[i]))
		if name == "" {
			usage(t, err, "protected by a passphrase") // it may be that one
		} else if err != nil || !equal(got, s) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ring(t, text(t, "rsa2048"), "").Open(hide(sealed[3])); err != ErrOther {
		t.Errorf("of another: %v", err)
	}
	if _, err := ring(t, text(t, "rsa2048.pub"), "").Open(hide(sealed[0])); err != ErrOther {
		t.Errorf("public: %v", err)
	}
}

func TestADamagedSessionKeyIsNoMatterOfConfiguration(t *testing.T) {
	for _, name := range []string{"rsa1024", "elgamal"} {
		r := ring(t, text(t, name), "")
		_, sealed := seal(t, r)
		to, err := r.Recipients(now)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Seal(Session{9, make([]byte, 32)}, to[0])
		if err != nil {
			t.Fatal(err)
		}
		body, err := packet.Next(bufio.NewReader(bytes.NewReader(p)))
		if err != nil {
			t.Fatal(err)
		}
		data, err := body.All(10_000)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range data {
			if s, err := ParseSealed(data[:cut]); err == nil {
				if _, err := r.Open(s); err == nil || fault.Status(err) == fault.Usage {
					t.Errorf("%s cut to %d bytes: %v", name, cut, err)
				}
			}
		}
		data[20] ^= 1
		s, err := ParseSealed(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Open(s); err == nil || err == ErrOther || fault.Status(err) == fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.Open(sealed[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysThatMayNotEncryptAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		words []string
	}{
		{"expired", []string{"expired on 2020-12-31", "--quick-set-expire"}},
		{"revoked", []string{"is revoked"}},
	} {
		r := ring(t, text(t, c.name), "")
		_, err := r.Recipients(now)
		usage(t, err, c.words...)
		_, err = ring(t, slices.Concat(text(t, "rsa2048"), text(t, c.name)), "").Recipients(now)
		usage(t, err, c.words...)
		if r.Usable() != nil {
			t.Errorf("%s does not decrypt: %v", c.name, r.Usable())
		}
	}
	before := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC)
	if _, err := ring(t, text(t, "expired"), "").Recipients(before); err != nil {
		t.Errorf("before it expired: %v", err)
	}
	if _, err := ring(t, text(t, "extended"), "").Recipients(now); err != nil {
		t.Errorf("extended: %v", err)
	}
	_, err := ring(t, text(t, "extended"), "").Recipients(now.AddDate(60, 0, 0))
	usage(t, err, "expired on 2080")
}

// What was encrypted for a key before it expired or was revoked stays readable.
func TestAnExpiredKeyStillDecrypts(t *testing.T) {
	before := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC)
	r := ring(t, text(t, "expired"), "")
	to, err := r.Recipients(before)
	if err != nil {
		t.Fatal(err)
	}
	s := Session{9, make([]byte, 32)}
	p, err := Seal(s, to[0])
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := ParseSealed(p[3:])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Open(sealed); err != nil || !equal(got, s) {
		t.Error(err)
	}
}

func TestKeysThatCannotEncryptNameThemselvesAndTheWayOut(t *testing.T) {
	for _, c := range []struct {
		name  string
		words []string
	}{
		{"curve25519", []string{"EdDSA over Ed25519", "WALG_CRYPT_COMMAND", "WALG_DECRYPT_COMMAND", "--through -- gpg"}},
		{"nistp256", []string{"ECDSA over NIST P-256", "WALG_CRYPT_COMMAND"}},
		{"signonly", []string{"no subkey for encryption", "gpg --quick-add-key"}},
	} {
		// The id, as gpg names the key, stands in the message.
		id := newKey(packet.SecretKey, first(t, bare(t, c.name))).id
		_, err := Read(text(t, c.name), "")
		usage(t, err, append(c.words, id)...)
		_, err = Read(bare(t, c.name), "")
		usage(t, err, append(c.words, id)...)

		// Beside one that can be used: refused as a recipient, and no
		// obstacle to reading.
		both := ring(t, slices.Concat(text(t, "rsa2048"), text(t, c.name)), "")
		_, err = both.Recipients(now)
		usage(t, err, append(c.words, id)...)
		s, sealed := seal(t, ring(t, text(t, "rsa2048"), ""))
		if got, err := both.Open(sealed[0]); err != nil || !equal(got, s) {
			t.Errorf("%s beside: %v", c.name, err)
		}
	}
}

// first is the body of the first packet.
func first(t testing.TB, p []byte) []byte {
	t.Helper()
	body, err := packet.Next(bufio.NewReader(bytes.NewReader(p)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := body.All(maxText)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Packets of an RSA primary key with an encryption subkey on a curve: the
// subkey may be the one that others encrypt for.
func TestASubkeyThatCannotBeUsedIsRefused(t *testing.T) {
	mixed := slices.Concat(packets(t, bare(t, "rsa2048"), packet.SecretKey, packet.UserID, packet.Signature),
		packets(t, bare(t, "curve25519"), packet.SecretSubkey))
	_, err := Read(mixed, "")
	usage(t, err, "subkey", "ECDH over Curve25519", "WALG_CRYPT_COMMAND")

	both := slices.Concat(packets(t, bare(t, "rsa2048"), packet.SecretKey, packet.UserID, packet.Signature, packet.SecretSubkey, packet.Signature),
		packets(t, bare(t, "curve25519"), packet.SecretSubkey))
	_, err = ring(t, both, "").Recipients(now)
	usage(t, err, "subkey", "ECDH over Curve25519")
	if to, err := ring(t, append(both, "\xc2\x06\x04\x28\x16\x08\x00\x00"...), "").Recipients(now); err != nil || len(to) != 1 {
		t.Errorf("revoked, it is in the way: %v", err)
	}
}

// packets picks the first packet of each of the kinds.
func packets(t testing.TB, from []byte, kinds ...byte) []byte {
	t.Helper()
	var picked []byte
	src := bufio.NewReader(bytes.NewReader(from))
	for len(kinds) > 0 {
		body, err := packet.Next(src)
		if err != nil {
			t.Fatal(err)
		}
		data, err := body.All(maxText)
		if err != nil {
			t.Fatal(err)
		}
		if body.Tag == kinds[0] {
			kinds = kinds[1:]
			picked = append(packet.AppendHeader(picked, body.Tag, len(data)), data...)
		}
	}
	return picked
}

// gpg chooses the same: "gpg --list-packets" showed this id.
func TestTheNewestSubkeyForEncryptionIsChosen(t *testing.T) {
	r := ring(t, text(t, "subkeys"), "")
	for at, want := range map[string]int{"2020-06-01": 2, "2021-06-01": 2, "2026-01-01": 2} {
		when, err := time.Parse(time.DateOnly, at)
		if err != nil {
			t.Fatal(err)
		}
		to, err := r.Recipients(when)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Index(r.Names(), ID(to[0].KeyId)); got != want {
			t.Errorf("%s: subkey %d of %v, want %d", at, got, r.Names(), want)
		}
	}
	c := r.certificates[0]
	c.subkeys = slices.DeleteFunc(c.subkeys, func(k *key) bool { return k.id == r.Names()[2] })
	to, err := r.Recipients(now) // the second has expired
	if err != nil || ID(to[0].KeyId) != r.Names()[0] {
		t.Errorf("%v, %v", to, err)
	}
	c.subkeys[0].revoked = true
	_, err = r.Recipients(now)
	usage(t, err, "its subkey", "expired on 2023-01-01")
}

// A private key that was exported without its primary part, as for a server.
func TestAStubOfAPrimaryKeyDoesNotMatter(t *testing.T) {
	r := ring(t, text(t, "stub"), "")
	if primary := r.certificates[0].primary; primary.absent == "" {
		t.Error("the primary key is no stub")
	} else {
		_, err := primary.unlock("")
		usage(t, err, "left out")
	}
	if err := r.Usable(); err != nil {
		t.Error(err)
	}
}

func TestTextsWithoutAKeySayWhatTheyAre(t *testing.T) {
	key := text(t, "rsa2048")
	message := "-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n"
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"nothing":             {"", []string{"empty"}},
		"blank":               {" \n\t\n", []string{"empty"}},
		"words":               {"my key is on the other machine", []string{"no key", "gpg --export"}},
		"a message":           {message, []string{"PGP MESSAGE"}},
		"a binary message":    {"\xd2\x03abc", []string{"a message"}},
		"other binary data":   {"\xff\xfe\x00\x01", nil},
		"a subkey alone":      {string(packets(t, bare(t, "rsa2048"), packet.SecretSubkey)), []string{"subkey without"}},
		"a user id alone":     {string(packets(t, bare(t, "rsa2048"), packet.UserID)), []string{"no key"}},
		"an armored half":     {string(key[:len(key)/2]), []string{"truncated"}},
		"half in binary":      {string(bare(t, "rsa2048")[:1000]), []string{"truncated"}},
		"a damaged text":      {strings.Replace(string(key), "lQ", "lR", 1), nil},
		"a key of version 3":  {"\x99\x00\x08\x03\x00\x00\x00\x00\x00\x00\x01", []string{"version 3"}},
		"a key of version 6":  {"\xc6\x06\x06\x00\x00\x00\x00\x1b", []string{"version 6"}},
		"an unknown key":      {"\xc6\x06\x04\x00\x00\x00\x00\x63", []string{"unknown algorithm 99"}},
		"a key without body":  {"\xc6\x00", []string{"truncated"}},
		"a number too large":  {"\xc6\x08\x04\x00\x00\x00\x00\x01\xff\xff", []string{"65535 bits"}},
		"a large exponent":    {"\xc6\x0f\x04\x00\x00\x00\x00\x01\x00\x01\x01\x00\x20\x80\x00\x00\x01", []string{"its numbers", "large public exponent"}},
		"ElGamal, both":       {"\xc6\x0c\x04\x00\x00\x00\x00\x14\x00\x01\x01\x00\x01\x01", []string{"truncated"}},
		"more than can be so": {strings.Repeat(" ", maxText+1), []string{"16 MiB"}},
	} {
		_, err := Read([]byte(c.text), "")
		if err == nil {
			t.Errorf("%s passed", name)
			continue
		}
		t.Run(name, func(t *testing.T) { usage(t, err, c.words...) })
	}
}

func TestEveryTruncationOfAKeyIsStatus64OrStillAKey(t *testing.T) {
	key := bare(t, "rsa2048")
	for cut := range key {
		r, err := Read(key[:cut], "")
		if err != nil && fault.Status(err) != fault.Usage {
			t.Errorf("cut to %d: status %d (%v)", cut, fault.Status(err), err)
		}
		if err == nil {
			if _, err = r.Recipients(now); err == nil {
				t.Errorf("cut to %d of %d bytes it still encrypts", cut, len(key))
			}
		}
	}
	armored := text(t, "rsa2048")
	for cut := range len(armored) - 1 { // the last line may lack its end
		if _, err := Read(armored[:cut], ""); fault.Status(err) != fault.Usage {
			t.Errorf("armored, cut to %d: status %d (%v)", cut, fault.Status(err), err)
		}
	}
}

// A key may carry signatures of other people, made with algorithms that the
// library does not know.
func TestSignaturesOfOthersDoNotMatter(t *testing.T) {
	key := bare(t, "rsa2048")
	other := packets(t, bare(t, "curve25519"), packet.Signature)
	head := packets(t, key, packet.SecretKey, packet.UserID)
	tail := packets(t, key, packet.Signature, packet.SecretSubkey, packet.Signature)
	for _, key := range [][]byte{
		slices.Concat(head, other, tail),
		slices.Concat(head, tail, other),
		slices.Concat(head, tail, []byte("\xd1\x05photo"), other),
		slices.Concat(head, []byte("\xcc\x02\x00\x00"), tail),
	} {
		if to, err := ring(t, key, "").Recipients(now); len(to) != 1 || err != nil {
			t.Errorf("%d recipients, %v", len(to), err)
		}
	}
}

func TestAKeyNeedsASelfSignatureToEncrypt(t *testing.T) {
	key := bare(t, "rsa2048")
	for name, key := range map[string][]byte{
		"none":             packets(t, key, packet.SecretKey, packet.UserID, packet.SecretSubkey),
		"for another name": slices.Concat(packets(t, key, packet.SecretKey), []byte("\xcd\x07mallory"), packets(t, key, packet.Signature, packet.SecretSubkey)),
		"by another key":   slices.Concat(packets(t, key, packet.SecretKey, packet.UserID), packets(t, bare(t, "rsa4096"), packet.Signature)),
	} {
		_, err := ring(t, key, "").Recipients(now)
		t.Run(name, func(t *testing.T) { usage(t, err, "no self-signature") })
	}
	unbound := packets(t, key, packet.SecretKey, packet.UserID, packet.Signature, packet.SecretSubkey)
	_, err := ring(t, unbound, "").Recipients(now)
	usage(t, err, "its subkey", "no signature that verifies")
	if names := ring(t, slices.Concat(key, bare(t, "rsa2048.pub")), "").Names(); len(names) != 1 {
		t.Errorf("the same key twice: %v", names)
	}
}

func TestARevocationThatCannotBeVerifiedCounts(t *testing.T) {
	key := bare(t, "rsa2048")
	head := packets(t, key, packet.SecretKey)
	tail := packets(t, key, packet.UserID, packet.Signature, packet.SecretSubkey, packet.Signature)
	for name, c := range map[string][2]string{
		"of the key, version 4":    {"\xc2\x06\x04\x20\x16\x08\x00\x00", ""},
		"of the key, version 3":    {"\xc2\x06\x03\x05\x20\x00\x00\x00", ""},
		"of the subkey, version 4": {"", "\xc2\x06\x04\x28\x16\x08\x00\x00"},
	} {
		_, err := ring(t, slices.Concat(head, []byte(c[0]), tail, []byte(c[1])), "").Recipients(now)
		t.Run(name, func(t *testing.T) { usage(t, err, "is revoked") })
	}
}

func TestGPGsStubsAreKnown(t *testing.T) {
	for _, c := range []struct{ secret, want string }{
		{"\xff\x00\x65\x00GNU\x01", "left out"},
		{"\xfe\x07\x65\x02GNU\x02\x10serial", "smart card"},
		{"\xfe\x07\x03\x02saltsalt\x60", ""},
		{"\x00", ""},
		{"", ""},
	} {
		if got := stub([]byte(c.secret)); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%q: %q", c.secret, got)
		}
	}
}

func FuzzKeys(f *testing.F) {
	for _, name := range []string{"rsa1024", "rsa2048.pub", "elgamal", "curve25519", "nistp256", "expired", "revoked", "stub"} {
		f.Add(text(f, name))
		f.Add(bare(f, name))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		r, err := Read(key, passphrase)
		if err != nil {
			if fault.Status(err) != fault.Usage {
				t.Fatalf("status %d: %v", fault.Status(err), err)
			}
			return
		}
		// Any answer is good that has a status.
		if err := r.Usable(); err != nil && fault.Status(err) != fault.Usage {
			t.Fatalf("status %d: %v", fault.Status(err), err)
		}
		to, err := r.Recipients(now)
		if err != nil && fault.Status(err) != fault.Usage {
			t.Fatalf("status %d: %v", fault.Status(err), err)
		}
		for _, k := range to {
			if k.PublicKey == nil {
				t.Fatal("a recipient without a key")
			}
			if _, err := Seal(Session{9, make([]byte, 32)}, k); err != nil && fault.Status(err) != fault.Usage {
				t.Fatalf("status %d: %v", fault.Status(err), err)
			}
		}
	})
}

func FuzzSealed(f *testing.F) {
	r := ring(f, slices.Concat(text(f, "rsa1024"), text(f, "elgamal")), "")
	to, err := r.Recipients(now)
	if err != nil {
		f.Fatal(err)
	}
	for _, k := range to {
		p, err := Seal(Session{9, make([]byte, 32)}, k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(first(f, p))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := ParseSealed(body)
		if err != nil {
			return
		}
		if _, err := r.Open(s); fault.Status(err) == fault.Usage {
			t.Fatal(err)
		}
	})
}
