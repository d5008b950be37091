package open

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"walg/lib/codec"
	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const golden = "../../../testdata/golden/"

// configured opens what the settings "NAME=VALUE" mean.
func configured(method string, settings ...string) (crypt.Method, error) {
	lookup := func(name string) string {
		for _, s := range settings {
			if n, value, _ := strings.Cut(s, "="); n == name {
				return value
			}
		}
		return ""
	}
	return Configured(Settings{Lookup: lookup, Method: method, Timeout: time.Second})
}

var (
	pgp    = []string{"WALG_PGP_KEY_PATH=" + golden + "pgp/keys/priv.gpg"}
	public = []string{"WALG_PGP_KEY_PATH=" + golden + "pgp/keys/pub.gpg"}
	sodium = []string{"WALG_LIBSODIUM_KEY_PATH=" + golden + "libsodium/keys/key.hex", "WALG_LIBSODIUM_KEY_TRANSFORM=hex"}
	phrase = []string{"WALG_PGP_KEY_PATH=" + golden + "pgp_pass/keys/priv.gpg", "WALG_PGP_KEY_PASSPHRASE=s3cr3t phrase"}
)

func mustOpen(t testing.TB, settings ...string) crypt.Method {
	t.Helper()
	m, err := configured("auto", settings...)
	if err != nil || m == nil {
		t.Fatalf("%q: %v, %v", settings, m, err)
	}
	return m
}

func TestTheConfiguredKeyChoosesTheMethod(t *testing.T) {
	aws := []string{"WALG_CSE_KMS_ID=k", "WALG_CSE_KMS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=s"}
	for _, c := range []struct {
		method   string
		settings []string
		want     string // name of the method, or empty
		status   int
		message  string
	}{
		{"auto", nil, "", 0, ""},
		{"none", nil, "", 0, ""},
		{"auto", pgp, "openpgp", 0, ""},
		{"openpgp", pgp, "openpgp", 0, ""},
		{"auto", public, "openpgp", 0, ""},
		{"auto", sodium, "libsodium", 0, ""},
		{"auto", aws, "aws-kms", 0, ""},
		{"auto", []string{"YC_CSE_KMS_KEY_ID=k"}, "yc-kms", 0, ""},
		{"auto", []string{"YC_SERVICE_ACCOUNT_KEY_FILE=/x"}, "", 0, ""}, // other programs have it too
		{"none", pgp, "", 64, "-m none contradicts WALG_PGP_KEY_PATH"},
		{"libsodium", pgp, "", 64, "-m libsodium contradicts WALG_PGP_KEY_PATH"},
		{"openpgp", nil, "", 64, "no key for encryption method openpgp"},
		{"gpg", pgp, "", 64, `unknown encryption method "gpg"`},
		{"auto", slices.Concat(pgp, sodium), "", 64, "more than one encryption key is configured: WALG_PGP_KEY_PATH, WALG_LIBSODIUM_KEY_PATH"},
		{"auto", slices.Concat(pgp, []string{"WALG_PGP_KEY=x"}), "", 64, "more than one encryption key is configured: WALG_PGP_KEY, WALG_PGP_KEY_PATH"},
		{"auto", slices.Concat(aws, []string{"YC_CSE_KMS_KEY_ID=k"}), "", 64, "more than one"},
		{"auto", []string{"WALG_PGP_KEY_PASSPHRASE=x"}, "", 64, "WALG_PGP_KEY_PASSPHRASE is set, and no key for it"},
		{"auto", slices.Concat(sodium, []string{"WALG_PGP_KEY_PASSPHRASE=x"}), "", 64, "no key for it"},
		{"auto", []string{"WALG_LIBSODIUM_KEY_TRANSFORM=hex"}, "", 64, "no key for it"},
		{"auto", []string{"WALG_CSE_KMS_REGION=x"}, "", 64, "no key for it"},
		{"auto", []string{"WALG_PGP_KEY_PATH=/no/such/key"}, "", 64, "setting WALG_PGP_KEY_PATH: open /no/such/key"},
		{"auto", []string{"WALG_PGP_KEY=nonsense"}, "", 64, "setting WALG_PGP_KEY: "},
		{"auto", []string{"WALG_LIBSODIUM_KEY=abcd", "WALG_LIBSODIUM_KEY_TRANSFORM=hex"}, "", 64, "setting WALG_LIBSODIUM_KEY: "},
	} {
		m, err := configured(c.method, c.settings...)
		got := ""
		if m != nil {
			got = m.Name()
		}
		if got != c.want || fault.Status(err) != c.status || err != nil && !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s with %q: %q, %v; want %q, status %d and %q", c.method, c.settings, got, err, c.want, c.status, c.message)
		}
	}
}

// sealed is text, encrypted by m.
func sealed(t testing.TB, m crypt.Method, plain []byte) []byte {
	t.Helper()
	return decodetest.Format{
		Encode: func(w io.Writer) (io.WriteCloser, error) { return m.NewWriter(context.Background(), w) },
	}.Packed(t, plain)
}

func TestDataOfAnotherKindNeverPasses(t *testing.T) {
	ctx := context.Background()
	gpg, box := mustOpen(t, pgp...), mustOpen(t, sodium...)
	text := []byte("plain text of some length")
	pgpData, boxData := sealed(t, gpg, text), sealed(t, box, text)
	for _, c := range []struct {
		name       string
		m          crypt.Method
		head       []byte
		allowPlain bool
		encrypted  bool
		message    string // of an error with status 65
	}{
		{"no key, plain", nil, text, false, false, ""},
		{"no key, empty", nil, nil, false, false, ""},
		{"no key, OpenPGP", nil, pgpData, false, false, "this is OpenPGP data and no key is configured"},
		{"no key, OpenPGP", nil, pgpData, true, false, "this is OpenPGP data and no key is configured"},
		{"no key, Yandex", nil, []byte("yckms\x01"), false, false, "this is Yandex KMS data and no key"},
		{"no key, envelope", nil, []byte("envelope-yc-kms\x01"), false, false, "this is OpenPGP with a Yandex KMS envelope data"},
		{"OpenPGP", gpg, pgpData, false, true, ""},
		{"OpenPGP, plain allowed", gpg, pgpData, true, true, ""},
		{"OpenPGP key, plain", gpg, text, false, false, "this is not openpgp data, and a key for it is configured"},
		{"OpenPGP key, plain allowed", gpg, text, true, false, ""},
		{"OpenPGP key, empty", gpg, nil, false, false, "this is not openpgp data"},
		{"OpenPGP key, Yandex", gpg, []byte("yckms\x01"), true, false, "this is Yandex KMS data, and the configured key is for openpgp"},
		{"libsodium", box, boxData, false, true, ""},
		{"libsodium, plain allowed", box, boxData, true, true, ""},
		{"libsodium key, plain", box, text, false, true, ""}, // its reader says that it is not
		{"libsodium key, plain allowed", box, text, true, false, ""},
		{"libsodium key, OpenPGP", box, pgpData, true, false, "this is OpenPGP data, and the configured key is for libsodium"},
	} {
		got, err := Encrypted(ctx, c.m, c.head, c.allowPlain)
		if got != c.encrypted || (err == nil) != (c.message == "") || err != nil && (fault.Status(err) != fault.Data || !strings.Contains(err.Error(), c.message)) {
			t.Errorf("%s: %v, %v; want %v, %q", c.name, got, err, c.encrypted, c.message)
		}
		if err != nil && fault.Hint(err) == "" {
			t.Errorf("%s: no hint with %v", c.name, err)
		}
	}
	if _, err := io.ReadAll(box.NewReader(ctx, bytes.NewReader(text))); fault.Status(err) != fault.Data {
		t.Errorf("libsodium reads plain text: %v", err)
	}
}

// The header of a secretstream is random; now and then it looks like OpenPGP.
func TestASecretstreamThatLooksLikeSomethingElseIsRead(t *testing.T) {
	ctx := context.Background()
	m := mustOpen(t, sodium...)
	for range 1_000_000 {
		data := sealed(t, m, []byte("text"))
		if crypt.Detect(data).Name == "" {
			continue
		}
		if ok, err := Encrypted(ctx, m, data, false); !ok || err != nil {
			t.Errorf("% x: %v, %v", data[:24], ok, err)
		}
		return
	}
	t.Error("none of a million looks like anything")
}

func TestGoldenObjectsOpenWithTheirKeys(t *testing.T) {
	for archive, settings := range map[string][]string{"pgp": pgp, "pgp_pass": phrase, "libsodium": sodium} {
		m := mustOpen(t, settings...)
		names, err := filepath.Glob(golden + archive + "/store/*/*.lz4")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d objects, %v", archive, len(names), err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Encrypted(context.Background(), m, data[:min(len(data), HeadSize)], false); !got || err != nil {
				t.Errorf("%s: encrypted %v, %v", name, got, err)
			}
			r := m.NewReader(context.Background(), bytes.NewReader(data))
			packed, err := io.ReadAll(r)
			if err != nil || !r.Proven() || !bytes.HasPrefix(packed, []byte("\x04\x22\x4d\x18")) {
				t.Errorf("%s: %d bytes, proven %v, %v", name, len(packed), r.Proven(), err)
			}
		}
	}
}

func TestSelfTestFindsAKeyThatDoesNotFit(t *testing.T) {
	for _, settings := range [][]string{pgp, phrase, sodium, public} {
		if err := crypt.SelfTest(context.Background(), mustOpen(t, settings...)); err != nil {
			t.Errorf("%q: %v", settings, err)
		}
	}
	wrong := mustOpen(t, phrase[0], "WALG_PGP_KEY_PASSPHRASE=wrong")
	if err := crypt.SelfTest(context.Background(), wrong); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "wrong passphrase") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	bad := twisted{mustOpen(t, sodium...), mustOpen(t, "WALG_LIBSODIUM_KEY=another-text-of-more-than-32-bytes-in-all")}
	if err := crypt.SelfTest(context.Background(), bad); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "self-test") {
		t.Errorf("%v", err)
	}
}

// twisted encrypts with one key and decrypts with another.
type twisted struct {
	crypt.Method
	other crypt.Method
}

func (m twisted) NewReader(ctx context.Context, r io.Reader) decode.Reader {
	return m.other.NewReader(ctx, r)
}

// One bit of a stream that was compressed and encrypted is flipped: it comes
// back as it was, or not at all.
func TestABitFlipBehindEncryptionNeverPasses(t *testing.T) {
	ctx := context.Background()
	r := decodetest.Rand(t)
	plain := decodetest.Content(9000)
	for name, settings := range map[string][]string{"openpgp": pgp, "libsodium": sodium} {
		m := mustOpen(t, settings...)
		for _, method := range []string{"lz4", "lzma", "brotli", "zstd", "none"} {
			c, err := codec.Writing(method)
			if err != nil {
				t.Fatal(err)
			}
			o := codec.Options{Level: codec.Default, Threads: 1, Memory: 256 << 20}
			packed := sealed(t, m, decodetest.Format{Encode: func(w io.Writer) (io.WriteCloser, error) { return c.NewWriter(w, o) }}.Packed(t, plain))
			refused := 0
			for range decodetest.Soak(100, 1000) {
				bit := r.IntN(len(packed) * 8)
				packed[bit/8] ^= 1 << (bit % 8)
				got, err := io.ReadAll(c.NewReader(m.NewReader(ctx, bytes.NewReader(packed)), o))
				packed[bit/8] ^= 1 << (bit % 8)
				if err != nil {
					refused++
				}
				if err != nil && fault.Status(err) != fault.Data || err == nil && !bytes.Equal(got, plain) {
					t.Fatalf("%s, %s, bit %d of %d bytes: %d bytes, %v", name, method, bit, len(packed), len(got), err)
				}
			}
			if refused == 0 {
				t.Errorf("%s, %s: no flip was refused", name, method)
			}
			for cut := 0; cut < len(packed); cut += 1 + len(packed)/decodetest.Soak(200, 100_000) {
				_, err := io.ReadAll(c.NewReader(m.NewReader(ctx, bytes.NewReader(packed[:cut])), o))
				if fault.Status(err) != fault.Data {
					t.Fatalf("%s, %s, cut to %d of %d bytes: %v", name, method, cut, len(packed), err)
				}
			}
		}
	}
}
