package armor_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	//lint:ignore SA1019 the other implementation, to compare with
	pgparmor "golang.org/x/crypto/openpgp/armor"

	"walg/lib/crypt/openpgp/armor"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

// armored is data in armor, as the library writes it.
func armored(t testing.TB, kind string, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	w, err := pgparmor.Encode(&b, "PGP "+kind, map[string]string{"Comment": "a test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// message reads a text that is one message.
func message(r io.Reader) ([]byte, error) {
	text := armor.NewReader(decode.NewInput(r, "test", 4096))
	kind, err := text.Message()
	if err == nil && kind != "MESSAGE" {
		err = fault.New(fault.Data, "kind %s", kind)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(text)
	if err == nil {
		err = text.Rest()
	}
	return data, err
}

func TestWhatTheLibraryArmoredComesBack(t *testing.T) {
	for n := range 200 {
		data := decodetest.Content(n)
		text := armored(t, "MESSAGE", data)
		for name, text := range map[string]string{
			"as it is": text,
			"CRLF":     strings.ReplaceAll(text, "\n", "\r\n"),
			"spaces":   strings.ReplaceAll(text, "\n", " \t\n"),
			"blanks":   text + "\n \n",
		} {
			got, err := message(strings.NewReader(text))
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %s: equal %v, %v", n, name, bytes.Equal(got, data), err)
			}
		}
		got, err := message(iotest.OneByteReader(strings.NewReader(text)))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, one at a time: equal %v, %v", n, bytes.Equal(got, data), err)
		}
	}
}

func TestEveryTruncationIsStatus65(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 48, 300} {
		text := armored(t, "MESSAGE", decodetest.Content(n))
		for cut := range text {
			if _, err := message(strings.NewReader(text[:cut])); fault.Status(err) != fault.Data {
				t.Errorf("%d bytes cut to %d of %d: status %d (%v)", n, cut, len(text), fault.Status(err), err)
			}
		}
	}
}

func TestDamageIsStatus65OrChangesNothing(t *testing.T) {
	data := decodetest.Content(300)
	text := []byte(armored(t, "MESSAGE", data))
	refused := 0
	for bit := range len(text) * 8 {
		text[bit/8] ^= 1 << (bit % 8)
		got, err := message(bytes.NewReader(text))
		text[bit/8] ^= 1 << (bit % 8)
		switch {
		case err == nil && !bytes.Equal(got, data):
			t.Errorf("bit %d passed, and the content differs", bit)
		case err != nil && fault.Status(err) != fault.Data:
			t.Errorf("bit %d: status %d (%v)", bit, fault.Status(err), err)
		case err != nil:
			refused++
		}
	}
	if refused < len(text)*6 {
		t.Errorf("only %d of %d flips were refused", refused, len(text)*8)
	}
}

func TestWhatIsNotOneMessageIsStatus65(t *testing.T) {
	text := armored(t, "MESSAGE", []byte("some content"))
	begin, rest, _ := strings.Cut(text, "\n")
	for name, text := range map[string]string{
		"something before":    "hello\n" + text,
		"something after":     text + "x",
		"another one after":   text + text,
		"another END":         strings.Replace(text, "END PGP MESSAGE", "END PGP SIGNATURE", 1),
		"text between":        strings.Replace(text, "\n=", "\nhello there\n=", 1),
		"a space in base64":   strings.Replace(text, "c2", "c 2", 1),
		"a wrong checksum":    text[:strings.Index(text, "\n=")+2] + "AAAA" + text[strings.Index(text, "\n=")+6:],
		"a broken checksum":   text[:strings.Index(text, "\n=")+2] + "????" + text[strings.Index(text, "\n=")+6:],
		"an endless line":     begin + "\n\n" + strings.Repeat("A", 5000) + "\n" + rest,
		"an endless header":   begin + "\n" + strings.Repeat("a:", 5000) + "\n" + rest,
		"only a BEGIN line":   begin + "\n",
		"a BEGIN line cut":    "-----BEGIN PGP MESSAGE",
		"a BEGIN line damage": strings.Replace(text, "MESSAGE-----", "MESSAGE----", 1),
	} {
		if _, err := message(strings.NewReader(text)); fault.Status(err) != fault.Data {
			t.Errorf("%s: status %d (%v)", name, fault.Status(err), err)
		}
	}
}

func TestChecksumAndBlankLineMayBeMissing(t *testing.T) {
	text := armored(t, "MESSAGE", []byte("some content"))
	at := strings.Index(text, "\n=")
	without := text[:at] + text[strings.Index(text, "\n-----END"):]
	if got, err := message(strings.NewReader(without)); string(got) != "some content" || err != nil {
		t.Errorf("without checksum: %q, %v", got, err)
	}
	joined := strings.Replace(text, "\n\n", "\n", 1)
	if got, err := message(strings.NewReader(joined)); string(got) != "some content" || err != nil {
		t.Errorf("without the blank line: %q, %v", got, err)
	}
}

func TestSeveralBlocksAreFoundInAText(t *testing.T) {
	text := "first\n" + armored(t, "PUBLIC KEY BLOCK", []byte("one")) + "then\n" + strings.TrimSpace(armored(t, "PRIVATE KEY BLOCK", []byte("two")))
	r := armor.NewReader(decode.NewInput(strings.NewReader(text), "test", 4096))
	var got []string
	for {
		kind, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, kind, string(data))
	}
	if s := strings.Join(got, ", "); s != "PUBLIC KEY BLOCK, one, PRIVATE KEY BLOCK, two" {
		t.Error(s)
	}
}

func TestErrorsOfTheInputPass(t *testing.T) {
	outage := errors.New("outage")
	text := armored(t, "MESSAGE", decodetest.Content(300))
	for cut := range len(text) + 1 {
		_, err := message(io.MultiReader(strings.NewReader(text[:cut]), iotest.ErrReader(outage)))
		if !errors.Is(err, outage) || fault.Status(err) != fault.Failed {
			t.Errorf("after %d bytes: status %d (%v)", cut, fault.Status(err), err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(armored(f, "MESSAGE", nil)))
	f.Add([]byte(armored(f, "MESSAGE", decodetest.Content(100))))
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := message(bytes.NewReader(text))
		if err != nil {
			if fault.Status(err) != fault.Data {
				t.Fatalf("status %d: %v", fault.Status(err), err)
			}
			return
		}
		if got, err := message(strings.NewReader(armored(t, "MESSAGE", data))); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%x comes back as %x, %v", data, got, err)
		}
	})
}
