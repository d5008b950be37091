package yckms

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/crypt"
	"walg/lib/crypt/ask"
	"walg/lib/crypt/kmsfake"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

type m = map[string]string

// settings are those that a fake's environment means, with changes.
func settings(f *kmsfake.Yandex, limits ask.Limits, changes m) Settings {
	env := f.Env()
	maps.Copy(env, changes)
	return Settings{
		Key: env["YC_CSE_KMS_KEY_ID"], AccountFile: env["YC_SERVICE_ACCOUNT_KEY_FILE"],
		KMS: env["YC_KMS_ENDPOINT"], IAM: env["YC_IAM_ENDPOINT"], Metadata: env["YC_METADATA_ADDR"], Limits: limits,
	}
}

func mustOpen(t testing.TB, s Settings) crypt.Method {
	t.Helper()
	method, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return method
}

var (
	patient = ask.Limits{Pause: time.Millisecond}
	quick   = ask.Limits{Total: 300 * time.Millisecond, Pause: time.Millisecond}
	machine = m{"YC_SERVICE_ACCOUNT_KEY_FILE": ""}
)

func TestFormat(t *testing.T) {
	decodetest.Run(t, kmsfake.Format(mustOpen(t, settings(kmsfake.NewYandex(t), patient, machine))))
}

func TestAMessageBeginsWithItsEnvelope(t *testing.T) {
	f := kmsfake.NewYandex(t)
	method := mustOpen(t, settings(f, patient, nil))
	message := kmsfake.Message(t, method, "content")
	const sealed = 12 + 32 + 16 // of the fake
	if string(message[:6]) != "yckms\x01" || binary.LittleEndian.Uint32(message[6:]) != sealed {
		t.Errorf("it begins with % x", message[:10])
	}
	// DARE: version 2.0, AES-256-GCM, length less one; 16 bytes of head and of tag.
	if dare := message[10+sealed:]; dare[0] != 0x20 || dare[1] != 0 || dare[2] != 6 || dare[3] != 0 || dare[4]&0x80 == 0 || len(dare) != 16+7+16 {
		t.Errorf("the stream is % x", dare)
	}
	if what := crypt.Detect(message[:16]); what.Method != Name {
		t.Errorf("it is detected as %+v", what)
	}
	if f.Asked("iam") != 1 || f.Asked("metadata") != 0 || f.Asked("encrypt") != 1 || f.Asked("decrypt") != 0 {
		t.Error("more is asked than needed")
	}
	if got, err := kmsfake.Content(method, message); got != "content" || err != nil || f.Asked("decrypt") != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if other := kmsfake.Message(t, method, "content"); bytes.Equal(other[10:10+sealed], message[10:10+sealed]) {
		t.Error("two messages have one data key")
	}
}

// The sample was written with the fake, whose keys are made of their names.
func TestAStoredMessageIsRead(t *testing.T) {
	message := kmsfake.Stored(t, "testdata/message.hex")
	if got, err := kmsfake.Content(mustOpen(t, settings(kmsfake.NewYandex(t), patient, nil)), message); got != "a message of 2026\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTheMetadataServiceGivesAToken(t *testing.T) {
	f := kmsfake.NewYandex(t)
	method := mustOpen(t, settings(f, patient, machine))
	if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil || f.Asked("metadata") != 2 || f.Asked("iam") != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDamagedEnvelopesAreStatus65(t *testing.T) {
	f := kmsfake.NewYandex(t)
	method := mustOpen(t, settings(f, patient, machine))
	for name, c := range map[string]struct{ message, words string }{
		"nothing":         {"", "truncated"},
		"half a magic":    {"yck", "truncated"},
		"another":         {"PGP message", "not a message of this format"},
		"another, short":  {"x", "not a message of this format"},
		"OpenPGP's":       {"envelope-yc-kms\x01\x00\x00\x00\x00", "not a message of this format"},
		"version":         {"yckms\x02\x01\x00\x00\x00x", "version 2"},
		"no length":       {"yckms\x01\x01\x00\x00", "truncated"},
		"no data key":     {"yckms\x01\x00\x00\x00\x00x", "0 bytes"},
		"a long one":      {"yckms\x01\x01\x10\x00\x00" + strings.Repeat("x", 5000), "4097 bytes"},
		"a very long one": {"yckms\x01\xff\xff\xff\xffx", "4294967295 bytes"},
		"half a data key": {"yckms\x01\x04\x00\x00\x00xxx", "truncated"},
	} {
		if _, err := kmsfake.Content(method, []byte(c.message)); fault.Status(err) != fault.Data || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.Asked("decrypt") != 0 {
		t.Error("KMS was asked")
	}
	if _, err := kmsfake.Content(method, []byte("yckms\x01\x00\x10\x00\x00"+strings.Repeat("x", 5000))); fault.Status(err) != fault.Data || f.Asked("decrypt") != 1 {
		t.Errorf("the longest: %v", err)
	}
}

func TestALongDataKeyIsNotWritten(t *testing.T) {
	for size, fine := range map[int]bool{4096: true, 4097: false} {
		f := kmsfake.NewYandex(t)
		f.Instead("encrypt", -1, func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(map[string][]byte{"ciphertext": make([]byte, size)})
		})
		_, err := mustOpen(t, settings(f, patient, machine)).NewWriter(t.Context(), io.Discard)
		if fine && err != nil || !fine && (fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "4097")) {
			t.Errorf("%d: %v", size, err)
		}
	}
}

func TestTheKeyIsTheConfiguredOne(t *testing.T) {
	f := kmsfake.NewYandex(t)
	message := kmsfake.Message(t, mustOpen(t, settings(f, patient, nil)), "content")
	report, err := mustOpen(t, settings(f, patient, nil)).Inspect(t.Context(), bytes.NewReader(message))
	if err != nil || report.Method != "yc-kms" || !report.Fits || len(report.Keys) != 1 || report.Keys[0] != kmsfake.YandexKey {
		t.Errorf("%+v, %v", report, err)
	}
	other := mustOpen(t, settings(f, patient, m{"YC_CSE_KMS_KEY_ID": kmsfake.OtherKey}))
	if _, err := kmsfake.Content(other, message); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), kmsfake.OtherKey) {
		t.Errorf("another key: %v", err)
	}
	report, err = other.Inspect(t.Context(), bytes.NewReader(message))
	if err != nil || report.Fits || len(report.Keys) != 0 || !strings.Contains(report.Reason, kmsfake.OtherKey) {
		t.Errorf("%+v, %v", report, err)
	}
}

// check looks at an error: status, words, hint, and no secrets.
func check(t *testing.T, name string, err error, status int, words, hint string) {
	t.Helper()
	text := fmt.Sprint(err)
	if err == nil || fault.Status(err) != status || !strings.Contains(text, words) || !strings.Contains(fault.Hint(err), hint) || hint == "" && fault.Hint(err) != "" {
		t.Errorf("%s: status %d, %v, hint %q", name, fault.Status(err), err, fault.Hint(err))
	}
	if strings.Contains(text, "t1.") || strings.Contains(text, "eyJ") || strings.Contains(text, "\n") || len(text) > 500 {
		t.Errorf("%s: %v says too much", name, err)
	}
}

// do asks for an operation.
func do(method crypt.Method, op string, message []byte) error {
	if op == "decrypt" {
		_, err := kmsfake.Content(method, message)
		return err
	}
	_, err := method.NewWriter(context.Background(), io.Discard)
	return err
}

func TestRefusalsAreJudged(t *testing.T) {
	for _, c := range []struct {
		name   string
		ops    string
		answer http.HandlerFunc
		status int
		words  string
		hint   string
	}{
		{"denied", "encrypt decrypt", kmsfake.YandexDenied, 64, "Permission denied (403)", "YC_CSE_KMS_KEY_ID"},
		{"no key", "encrypt decrypt", kmsfake.YandexSays(404, 5, "Symmetric key not found"), 64, "not found (404)", "YC_CSE_KMS_KEY_ID"},
		{"inactive", "encrypt decrypt", kmsfake.YandexSays(400, 9, "Key is not active."), 64, "Key is not active (400)", "YC_CSE_KMS_KEY_ID"},
		{"token", "encrypt decrypt", kmsfake.YandexSays(401, 16, "The token has expired"), 64, "expired (401)", "YC_SERVICE_ACCOUNT_KEY_FILE"},
		{"not KMS", "encrypt decrypt", kmsfake.Sends(404, "<html>"), 64, "Not Found (404)", "YC_KMS_ENDPOINT"},
		{"elsewhere", "encrypt decrypt", kmsfake.Sends(302, ""), 64, "Found (302)", "YC_KMS_ENDPOINT"},
		{"argument", "encrypt", kmsfake.YandexSays(400, 3, "Illegal argument"), 64, "Illegal argument (400)", "YC_CSE_KMS_KEY_ID"},
		{"no ciphertext", "decrypt", kmsfake.YandexSays(400, 3, "Invalid ciphertext"), 65, "Invalid ciphertext (400)", ""},
		{"garbage", "encrypt decrypt", kmsfake.Garbage, 1, "none of KMS", ""},
		{"huge", "encrypt decrypt", kmsfake.Huge, 1, "more than 65536 bytes", ""},
		{"nothing in it", "encrypt decrypt", kmsfake.Sends(200, "{}"), 1, "none of KMS", ""},
		{"empty", "encrypt decrypt", kmsfake.Sends(200, `{"keyId":"k","ciphertext":"","plaintext":""}`), 1, "none of KMS", ""},
		{"no base64", "encrypt decrypt", kmsfake.Sends(200, `{"keyId":"k","ciphertext":"?","plaintext":"?"}`), 1, "none of KMS", ""},
		{"short data key", "decrypt", kmsfake.Sends(200, `{"keyId":"the-key","plaintext":"AAAA"}`), 65, "the-key holds a data key of 3 bytes", ""},
		{"IAM knows nobody", "iam", kmsfake.YandexSays(401, 16, "Invalid JWT"), 64, "no token: Invalid JWT (401)", "YC_SERVICE_ACCOUNT_KEY_FILE"},
		{"IAM has none", "iam", kmsfake.YandexSays(404, 5, "Service account not found"), 64, "no token: Service account not found (404)", "YC_SERVICE_ACCOUNT_KEY_FILE"},
		{"IAM's garbage", "iam", kmsfake.Garbage, 1, "none of IAM", ""},
		{"no account", "metadata", kmsfake.Sends(404, ""), 64, "no token: Not Found (404)", "YC_SERVICE_ACCOUNT_KEY_FILE"},
		{"no metadata", "metadata", kmsfake.Cut, 64, "no token: metadata service: EOF", "YC_SERVICE_ACCOUNT_KEY_FILE"},
		{"other metadata", "metadata", kmsfake.Garbage, 1, "none of the metadata service", ""},
	} {
		for _, op := range strings.Fields(c.ops) {
			f := kmsfake.NewYandex(t)
			changes := m(nil)
			if op == "metadata" {
				changes = machine
			}
			method := mustOpen(t, settings(f, patient, changes))
			message := kmsfake.Message(t, method, "content")
			before := f.Asked(op)
			f.Instead(op, -1, c.answer)
			err := do(method, op, message)
			check(t, c.name+", "+op, err, c.status, c.words, c.hint)
			if n := f.Asked(op) - before; n != 1 {
				t.Errorf("%s, %s: asked %d times", c.name, op, n)
			}
			if text, host := fmt.Sprint(err), strings.TrimPrefix(f.URL, "http://"); !strings.Contains(text, host) && !strings.Contains(text, "the-key") {
				t.Errorf("%s: %v does not name %s", c.name, err, host)
			}
		}
	}
}

func TestThrottlingPasses(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"throttled": kmsfake.YandexThrottles,
		"not there": kmsfake.YandexSays(503, 14, "Unavailable"),
		"internal":  kmsfake.YandexSays(500, 13, "Internal error"),
		"no words":  kmsfake.Sends(502, "<html>"),
	} {
		for _, op := range []string{"encrypt", "decrypt", "iam", "metadata"} {
			f := kmsfake.NewYandex(t)
			changes := m(nil)
			if op == "metadata" {
				changes = machine
			}
			method := mustOpen(t, settings(f, patient, changes))
			f.Instead(op, 3, answer)
			if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil || f.Asked(op) < 4 {
				t.Errorf("%s, %s: %q, asked %d times, %v", name, op, got, f.Asked(op), err)
			}
		}
	}
}

func TestTroubleThatStaysIsStatus1(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		words  string
	}{
		"throttled": {kmsfake.YandexThrottles, "Quota exceeded"},
		"silence":   {kmsfake.Silence, "no answer within 300ms"},
		"cut":       {kmsfake.Cut, "EOF"},
	} {
		for _, op := range []string{"encrypt", "decrypt", "iam"} {
			f := kmsfake.NewYandex(t)
			message := kmsfake.Message(t, mustOpen(t, settings(f, patient, nil)), "content")
			before := f.Asked(op)
			method := mustOpen(t, settings(f, quick, nil))
			f.Instead(op, -1, c.answer)
			err := do(method, op, message)
			check(t, name+", "+op, err, fault.Failed, c.words, "")
			if !strings.Contains(fmt.Sprint(err), "gave up after 300ms") || name != "silence" && f.Asked(op)-before < 2 {
				t.Errorf("%s, %s: asked %d times, %v", name, op, f.Asked(op)-before, err)
			}
		}
	}
}

func TestWhereNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	closed := l.Addr().String()
	f := kmsfake.NewYandex(t)
	check(t, "KMS", do(mustOpen(t, settings(f, quick, m{"YC_KMS_ENDPOINT": "http://" + closed})), "encrypt", nil), fault.Failed, "refused", "")
	check(t, "IAM", do(mustOpen(t, settings(f, quick, m{"YC_IAM_ENDPOINT": "http://" + closed})), "encrypt", nil), fault.Failed, "refused", "")
	noMetadata := m{"YC_SERVICE_ACCOUNT_KEY_FILE": "", "YC_METADATA_ADDR": closed}
	check(t, "metadata", do(mustOpen(t, settings(f, quick, noMetadata)), "encrypt", nil), fault.Usage, "refused", "YC_SERVICE_ACCOUNT_KEY_FILE")
	f.Instead("metadata", -1, kmsfake.Silence)
	limits := patient
	limits.Try = 20 * time.Millisecond
	check(t, "silent metadata", do(mustOpen(t, settings(f, limits, machine)), "encrypt", nil), fault.Usage, "no answer within 20ms", "YC_SERVICE_ACCOUNT_KEY_FILE")
}

func TestSettingsAreJudged(t *testing.T) {
	f := kmsfake.NewYandex(t)
	for name, c := range map[string]struct {
		settings m
		words    string
	}{
		"no key":    {m{"YC_CSE_KMS_KEY_ID": ""}, "YC_CSE_KMS_KEY_ID"},
		"key":       {m{"YC_CSE_KMS_KEY_ID": "abj/../x"}, "YC_CSE_KMS_KEY_ID"},
		"KMS":       {m{"YC_KMS_ENDPOINT": "kms.example"}, "YC_KMS_ENDPOINT"},
		"plain KMS": {m{"YC_KMS_ENDPOINT": "http://kms.example"}, "YC_KMS_ENDPOINT"},
		"plain IAM": {m{"YC_IAM_ENDPOINT": "http://iam.example"}, "YC_IAM_ENDPOINT"},
		"metadata":  {m{"YC_METADATA_ADDR": "http://169.254.169.254/"}, "YC_METADATA_ADDR"},
		"no file":   {m{"YC_SERVICE_ACCOUNT_KEY_FILE": filepath.Join(t.TempDir(), "none")}, "YC_SERVICE_ACCOUNT_KEY_FILE"},
		"a folder":  {m{"YC_SERVICE_ACCOUNT_KEY_FILE": t.TempDir()}, "YC_SERVICE_ACCOUNT_KEY_FILE"},
	} {
		if _, err := New(settings(f, patient, c.settings)); fault.Status(err) != fault.Usage || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyFilesAreJudged(t *testing.T) {
	f := kmsfake.NewYandex(t)
	text, err := os.ReadFile(f.AccountFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string]string{
		"empty":      "",
		"no JSON":    "-----BEGIN PRIVATE KEY-----",
		"no id":      strings.Replace(string(text), `"id"`, `"ID2"`, 1),
		"no account": strings.Replace(string(text), `"service_account_id"`, `"account"`, 1),
		"no key":     strings.Replace(string(text), `"private_key"`, `"secret_key"`, 1),
		"no PEM":     strings.Replace(string(text), "BEGIN PRIVATE KEY", "BEGIN", 1),
		"no RSA":     strings.Replace(string(text), "BEGIN PRIVATE KEY-----", "BEGIN PRIVATE KEY-----AAAA", 1),
		"long":       `{"more":"` + strings.Repeat("x", maxAccount) + `",` + string(text[1:]),
	} {
		file := filepath.Join(t.TempDir(), "account.json")
		if err := os.WriteFile(file, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(settings(f, patient, m{"YC_SERVICE_ACCOUNT_KEY_FILE": file}))
		check(t, name, err, fault.Usage, file, "")
		if strings.Contains(fmt.Sprint(err), "BEGIN") || !strings.Contains(fmt.Sprint(err), "YC_SERVICE_ACCOUNT_KEY_FILE") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The fake judges a token as RFC 7519 and Yandex's documentation say; so it
// must refuse bad ones.
func TestAWrongTokenIsRefused(t *testing.T) {
	f := kmsfake.NewYandex(t)
	text, err := os.ReadFile(f.AccountFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"its header": strings.Replace(string(text), `"id":"aje`, `"id":"ajx`, 1),
		"its issuer": strings.Replace(string(text), `"service_account_id":"aje`, `"service_account_id":"ajx`, 1),
	} {
		file := filepath.Join(t.TempDir(), "account.json")
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		err := do(mustOpen(t, settings(f, patient, m{"YC_SERVICE_ACCOUNT_KEY_FILE": file})), "encrypt", nil)
		check(t, name, err, fault.Usage, name, "YC_SERVICE_ACCOUNT_KEY_FILE")
	}
	account, err := parseAccount(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		audience string
		at       time.Time
	}{
		"its audience": {f.URL, time.Now()},
		"its times":    {iamAddress + tokenPath, time.Now().Add(-2 * time.Hour)},
		"fine":         {iamAddress + tokenPath, time.Now()},
	} {
		jwt, err := account.sign(c.audience, c.at)
		if err != nil {
			t.Fatal(err)
		}
		for _, damaged := range []bool{false, true} {
			if damaged {
				jwt = jwt[:len(jwt)-4] + strings.Map(func(r rune) rune {
					if r == 'A' {
						return 'B'
					}
					return 'A'
				}, jwt[len(jwt)-4:])
			}
			resp, err := http.Post(f.URL+tokenPath, "application/json", strings.NewReader(`{"jwt":"`+jwt+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := name
			if damaged {
				want = "its signature"
			}
			if err != nil || (resp.StatusCode == 200) != (want == "fine") || want != "fine" && !strings.Contains(string(body), want) {
				t.Errorf("%s, damaged %v: %d %s, %v", name, damaged, resp.StatusCode, body, err)
			}
		}
	}
}

func TestWhatTheMethodSaysOfItself(t *testing.T) {
	env := kmsfake.NewYandex(t).Env()
	method, err := Open(func(name string) string { return env[name] }, time.Minute)
	if err != nil || method.Name() != "yc-kms" || method.CanDecrypt() {
		t.Errorf("%v, %v", method, err)
	}
	if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Open(func(string) string { return "" }, 0); fault.Status(err) != fault.Usage {
		t.Errorf("%v", err)
	}
}

func FuzzReader(f *testing.F) {
	kmsfake.Format(mustOpen(f, settings(kmsfake.NewYandex(f), patient, machine))).Fuzz(f)
}

func FuzzEnvelope(f *testing.F) {
	head, err := pack(make([]byte, 60))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add(append(head, "the stream"...))
	f.Add([]byte("yckms\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, message []byte) {
		in := decode.NewInput(bytes.NewReader(message), Name, 8<<10)
		sealed, err := unpack(in)
		if err != nil {
			if fault.Status(err) != fault.Data {
				t.Fatalf("status %d: %v", fault.Status(err), err)
			}
			return
		}
		// What is taken is what pack makes, and no byte more is read.
		again, err := pack(sealed)
		rest, _ := io.ReadAll(in)
		if err != nil || !bytes.Equal(append(again, rest...), message) {
			t.Fatalf("%x, and %d bytes behind it, %v", again, len(rest), err)
		}
	})
}

func FuzzAccount(f *testing.F) {
	text, err := os.ReadFile(kmsfake.NewYandex(f).AccountFile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"id":"a","service_account_id":"b","private_key":"c"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parseAccount(text)
		if (a == nil) == (err == nil) {
			t.Fatalf("%v, %v", a, err)
		}
	})
}
