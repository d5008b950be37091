package awskms

import (
	"bytes"
	"context"
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
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

type m = map[string]string

// open returns the method that a fake's environment means, with changes.
func open(t testing.TB, f *kmsfake.AWS, limits ask.Limits, changes m) (crypt.Method, error) {
	t.Helper()
	env := f.Env()
	maps.Copy(env, changes)
	s, err := Read(func(name string) string { return env[name] })
	if err != nil {
		return nil, err
	}
	s.Limits = limits
	return New(s)
}

func mustOpen(t testing.TB, f *kmsfake.AWS, changes m) crypt.Method {
	t.Helper()
	method, err := open(t, f, patient, changes)
	if err != nil {
		t.Fatal(err)
	}
	return method
}

var (
	patient = ask.Limits{Pause: time.Millisecond}
	quick   = ask.Limits{Total: 300 * time.Millisecond, Pause: time.Millisecond}
)

func TestFormat(t *testing.T) {
	decodetest.Run(t, kmsfake.Format(mustOpen(t, kmsfake.NewAWS(t), nil)))
}

func TestAMessageBeginsWithTheBlobOfKMS(t *testing.T) {
	f := kmsfake.NewAWS(t)
	method := mustOpen(t, f, nil)
	message := kmsfake.Message(t, method, "content")
	// DARE: version 2.0, cipher, length less one; 16 bytes of head and of tag.
	if dare := message[184:]; dare[0] != 0x20 || dare[2] != 6 || dare[3] != 0 || dare[4]&0x80 == 0 || len(dare) != 16+7+16 {
		t.Errorf("the stream is % x", dare)
	}
	if f.Asked("Encrypt") != 1 || f.Asked("Decrypt") != 0 {
		t.Error("KMS is asked to encrypt more than the data key")
	}
	if got, err := kmsfake.Content(method, message); got != "content" || err != nil || f.Asked("Decrypt") != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if other := kmsfake.Message(t, method, "content"); bytes.Equal(other[:184], message[:184]) {
		t.Error("two messages have one data key")
	}
}

// The sample was written with the fake, whose keys are made of their names.
func TestAStoredMessageIsRead(t *testing.T) {
	message := kmsfake.Stored(t, "testdata/message.hex")
	if got, err := kmsfake.Content(mustOpen(t, kmsfake.NewAWS(t), nil), message); got != "a message of 2026\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestABlobOfAnotherSizeIsNotWritten(t *testing.T) {
	for _, size := range []int{100, 183, 185} {
		f := kmsfake.NewAWS(t)
		f.BlobSize = size
		var b bytes.Buffer
		_, err := mustOpen(t, f, nil).NewWriter(t.Context(), &b)
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), fmt.Sprint(size)) || !strings.Contains(fault.Hint(err), "WALG_CSE_KMS_ID") || b.Len() != 0 {
			t.Errorf("%d: %d bytes written, %v", size, b.Len(), err)
		}
	}
}

func TestAKeyHasSeveralNames(t *testing.T) {
	f := kmsfake.NewAWS(t)
	message := kmsfake.Message(t, mustOpen(t, f, nil), "content")
	for _, key := range []string{kmsfake.AWSAlias, kmsfake.AWSKey[strings.LastIndexByte(kmsfake.AWSKey, '/')+1:]} {
		method := mustOpen(t, f, m{"WALG_CSE_KMS_ID": key})
		if got, err := kmsfake.Content(method, message); got != "content" || err != nil {
			t.Errorf("%s: %q, %v", key, got, err)
		}
		if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil {
			t.Errorf("%s: %q, %v", key, got, err)
		}
	}
}

// After a change of keys old messages stay readable.
func TestAMessageNamesItsKey(t *testing.T) {
	f := kmsfake.NewAWS(t)
	newKey := strings.Replace(kmsfake.AWSKey, "key/1", "key/9", 1)
	f.Keys = append(f.Keys, newKey)
	message := kmsfake.Message(t, mustOpen(t, f, nil), "content")
	method := mustOpen(t, f, m{"WALG_CSE_KMS_ID": newKey})
	if got, err := kmsfake.Content(method, message); got != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	report, err := method.Inspect(t.Context(), bytes.NewReader(message))
	if err != nil || report.Method != "aws-kms" || !report.Fits || len(report.Keys) != 1 || report.Keys[0] != kmsfake.AWSKey {
		t.Errorf("%+v, %v", report, err)
	}
	f.Keys = []string{newKey}
	if _, err := kmsfake.Content(method, message); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), newKey) {
		t.Errorf("a key that KMS does not know: %v", err)
	}
	report, err = method.Inspect(t.Context(), bytes.NewReader(message))
	if err != nil || report.Fits || !strings.Contains(report.Reason, "InvalidCiphertextException") {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestOtherDataIsNotShownToKMS(t *testing.T) {
	f := kmsfake.NewAWS(t)
	for _, head := range []string{"-----BEGIN PGP MESSAGE-----", "yckms\x01", "envelope-yc-kms"} {
		for _, size := range []int{20, 1000} {
			message := append([]byte(head), make([]byte, size)...)
			if _, err := kmsfake.Content(mustOpen(t, f, nil), message); fault.Status(err) != fault.Data || !strings.Contains(err.Error(), "this is ") {
				t.Errorf("%s: %v", head, err)
			}
		}
	}
	if f.Asked("Decrypt") != 0 {
		t.Error("KMS was asked")
	}
}

// refusals are answers of KMS, and what they mean.
var refusals = []struct {
	name   string
	answer http.HandlerFunc
	op     string // "" is both
	status int
	words  string
	hint   string
}{
	{"denied", kmsfake.AWSDenied, "", 64, "AccessDeniedException: User: arn:aws:iam::000000000000:user/backup is not authorized", "AWS_ACCESS_KEY_ID"},
	{"token expired", kmsfake.AWSSays(400, "ExpiredTokenException", "The security token included in the request is expired"), "", 64, "ExpiredTokenException", "AWS_SESSION_TOKEN"},
	{"disabled", kmsfake.AWSSays(400, "DisabledException", "key is disabled."), "", 64, "DisabledException: key is disabled (400)", "WALG_CSE_KMS_ID"},
	{"pending deletion", kmsfake.AWSSays(400, "KMSInvalidStateException", "key is pending deletion."), "", 64, "pending deletion", "WALG_CSE_KMS_ID"},
	{"asymmetric", kmsfake.AWSSays(400, "InvalidKeyUsageException", ""), "", 64, "InvalidKeyUsageException (400)", "symmetric"},
	{"no key", kmsfake.AWSSays(400, "NotFoundException", "Alias is not found."), "", 64, "NotFoundException", "WALG_CSE_KMS_REGION"},
	{"the clock", kmsfake.AWSSays(400, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than"), "", 64, "Signature expired", "clock"},
	{"with a namespace", kmsfake.AWSSays(400, "com.amazonaws.kms#DisabledException", ""), "", 64, "DisabledException (400)", "WALG_CSE_KMS_ID"},
	{"by a header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amzn-ErrorType", "DisabledException:http://internal.amazon.com/")
		w.WriteHeader(400)
	}, "", 64, "DisabledException (400)", "WALG_CSE_KMS_ID"},
	{"not KMS", kmsfake.Sends(404, "<html>"), "", 64, "Not Found (404)", "AWS_ENDPOINT_URL_KMS"},
	{"elsewhere", kmsfake.Sends(307, ""), "", 64, "Temporary Redirect (307)", "AWS_ENDPOINT_URL_KMS"},
	{"another key", kmsfake.AWSSays(400, "IncorrectKeyException", ""), "Decrypt", 65, "IncorrectKeyException", ""},
	{"no ciphertext", kmsfake.AWSSays(400, "InvalidCiphertextException", ""), "Decrypt", 65, "InvalidCiphertextException", ""},
	{"garbage", kmsfake.Garbage, "", 1, "none of KMS", ""},
	{"huge", kmsfake.Huge, "", 1, "more than 65536 bytes", ""},
	{"nothing in it", kmsfake.Sends(200, "{}"), "", 1, "none of KMS", ""},
	{"empty", kmsfake.Sends(200, `{"Plaintext":"","CiphertextBlob":"","KeyId":"k"}`), "", 1, "none of KMS", ""},
	{"no base64", kmsfake.Sends(200, `{"Plaintext":"?","CiphertextBlob":"?","KeyId":"k"}`), "", 1, "none of KMS", ""},
	{"more behind it", kmsfake.Sends(200, `{"Plaintext":"AA==","CiphertextBlob":"AA==","KeyId":"k"}{}`), "", 1, "none of KMS", ""},
	{"a short data key", kmsfake.Sends(200, `{"Plaintext":"AAAA","KeyId":"the-key"}`), "Decrypt", 65, "the-key holds a data key of 3 bytes", ""},
}

func TestRefusalsAreJudged(t *testing.T) {
	for _, c := range refusals {
		for _, op := range []string{"Encrypt", "Decrypt"} {
			if c.op != "" && c.op != op {
				continue
			}
			f := kmsfake.NewAWS(t)
			method := mustOpen(t, f, nil)
			message := kmsfake.Message(t, method, "content")
			before := f.Asked(op)
			f.Instead(op, -1, c.answer)
			err := do(method, op, message)
			check(t, c.name+", "+op, err, f, c.status, c.words, c.hint)
			if n := f.Asked(op) - before; n != 1 {
				t.Errorf("%s, %s: asked %d times", c.name, op, n)
			}
		}
	}
}

// do asks for an operation.
func do(method crypt.Method, op string, message []byte) error {
	if op == "Encrypt" {
		_, err := method.NewWriter(context.Background(), io.Discard)
		return err
	}
	_, err := kmsfake.Content(method, message)
	return err
}

// check looks at an error: status, words, hint; who was asked, and no secrets.
func check(t *testing.T, name string, err error, f *kmsfake.AWS, status int, words, hint string) {
	t.Helper()
	text := fmt.Sprint(err)
	if err == nil || fault.Status(err) != status || !strings.Contains(text, words) || !strings.Contains(fault.Hint(err), hint) || hint == "" && fault.Hint(err) != "" {
		t.Errorf("%s: status %d, %v, hint %q", name, fault.Status(err), err, fault.Hint(err))
	}
	if host := strings.TrimPrefix(f.URL, "http://"); !strings.Contains(text, host) && !strings.Contains(text, "the-key") {
		t.Errorf("%s: %v does not name %s", name, err, host)
	}
	if strings.Contains(text, "secret") || strings.Contains(text, "\n") || len(text) > 500 {
		t.Errorf("%s: %v says too much", name, err)
	}
}

func TestWrongCredentialsAreStatus64(t *testing.T) {
	for name, c := range map[string]struct {
		settings    m
		words, hint string
	}{
		"access key": {m{"AWS_ACCESS_KEY_ID": "NOBODY"}, "UnrecognizedClientException: The request signature we calculated does not match (400)", "AWS_ACCESS_KEY_ID"},
		"secret":     {m{"AWS_SECRET_ACCESS_KEY": "wrong-secret", "AWS_SESSION_TOKEN": ""}, "InvalidSignatureException", "AWS_SECRET_ACCESS_KEY"},
		"token":      {m{"AWS_SESSION_TOKEN": "secret-token"}, "UnrecognizedClientException", "AWS_SESSION_TOKEN"},
		"region":     {m{"WALG_CSE_KMS_REGION": "eu-west-1"}, "InvalidSignatureException", "AWS_SECRET_ACCESS_KEY"},
		"key":        {m{"WALG_CSE_KMS_ID": "alias/none"}, "encrypt a data key with alias/none at ", "WALG_CSE_KMS_ID"},
	} {
		f := kmsfake.NewAWS(t)
		_, err := mustOpen(t, f, c.settings).NewWriter(t.Context(), io.Discard)
		check(t, name, err, f, fault.Usage, c.words, c.hint)
	}
}

func TestASessionTokenIsSigned(t *testing.T) {
	f := kmsfake.NewAWS(t)
	f.Tokens[kmsfake.AccessKey] = "the-token"
	method := mustOpen(t, f, m{"AWS_SESSION_TOKEN": "the-token"})
	if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestThrottlingPasses(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"throttled":   kmsfake.AWSThrottles,
		"not there":   kmsfake.AWSSays(503, "DependencyTimeoutException", ""),
		"internal":    kmsfake.AWSSays(500, "KMSInternalException", ""),
		"cut":         kmsfake.Cut,
		"no words":    kmsfake.Sends(502, "<html>"),
		"unavailable": kmsfake.AWSSays(500, "KeyUnavailableException", ""),
	} {
		f := kmsfake.NewAWS(t)
		method := mustOpen(t, f, nil)
		f.Instead("Encrypt", 3, answer)
		f.Instead("Decrypt", 2, answer)
		if got, err := kmsfake.Content(method, kmsfake.Message(t, method, "content")); got != "content" || err != nil || f.Asked("Encrypt") != 4 || f.Asked("Decrypt") != 3 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestTroubleThatStaysIsStatus1(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		words  string
	}{
		"throttled": {kmsfake.AWSThrottles, "ThrottlingException"},
		"silence":   {kmsfake.Silence, "no answer within 300ms"},
		"cut":       {kmsfake.Cut, "EOF"},
	} {
		for _, op := range []string{"Encrypt", "Decrypt"} {
			f := kmsfake.NewAWS(t)
			message := kmsfake.Message(t, mustOpen(t, f, nil), "content")
			method, err := open(t, f, quick, nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Instead(op, -1, c.answer)
			err = do(method, op, message)
			check(t, name+", "+op, err, f, fault.Failed, c.words, "")
			if !strings.Contains(fmt.Sprint(err), "gave up after 300ms") || name != "silence" && f.Asked(op) < 2 {
				t.Errorf("%s, %s: asked %d times, %v", name, op, f.Asked(op), err)
			}
		}
	}
}

func TestAClosedPortIsStatus1(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	f := kmsfake.NewAWS(t)
	f.URL = "http://" + l.Addr().String()
	method, err := open(t, f, quick, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "closed", do(method, "Encrypt", nil), f, fault.Failed, "refused", "")
}

func TestTheCallerMayEndIt(t *testing.T) {
	f := kmsfake.NewAWS(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.Instead("Encrypt", -1, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		kmsfake.Silence(w, r)
	})
	if _, err := mustOpen(t, f, nil).NewWriter(ctx, io.Discard); err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

func TestSettingsAreJudged(t *testing.T) {
	f := kmsfake.NewAWS(t)
	for name, c := range map[string]struct {
		settings m
		words    string
	}{
		"no key":         {m{"WALG_CSE_KMS_ID": ""}, "WALG_CSE_KMS_ID"},
		"key":            {m{"WALG_CSE_KMS_ID": "alias/a b"}, "WALG_CSE_KMS_ID"},
		"region":         {m{"WALG_CSE_KMS_REGION": "eu.example/"}, "WALG_CSE_KMS_REGION"},
		"other region":   {m{"WALG_CSE_KMS_REGION": "", "AWS_REGION": "Frankfurt"}, "AWS_REGION"},
		"endpoint":       {m{"AWS_ENDPOINT_URL_KMS": "kms.example"}, "AWS_ENDPOINT_URL_KMS"},
		"plain endpoint": {m{"AWS_ENDPOINT_URL_KMS": "http://kms.example"}, "AWS_ENDPOINT_URL_KMS"},
		"authority":      {m{"AWS_CA_BUNDLE": filepath.Join(t.TempDir(), "none")}, "AWS_CA_BUNDLE"},
		"half a key":     {m{"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"},
	} {
		if _, err := open(t, f, patient, c.settings); fault.Status(err) != fault.Usage || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheRegionIsFound(t *testing.T) {
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "") // which the SDK reads
	}
	none := m{"WALG_CSE_KMS_REGION": "", "AWS_CONFIG_FILE": file(""), "AWS_SHARED_CREDENTIALS_FILE": file("")}
	for name, c := range map[string]struct {
		settings m
		fine     bool
	}{
		"AWS_REGION":         {m{"AWS_REGION": kmsfake.Region}, true},
		"AWS_DEFAULT_REGION": {m{"AWS_DEFAULT_REGION": kmsfake.Region}, true},
		"its own first":      {m{"AWS_REGION": "us-east-1", "WALG_CSE_KMS_REGION": kmsfake.Region}, true},
		"a profile's":        {m{"AWS_CONFIG_FILE": file("[default]\nregion = " + kmsfake.Region + "\n")}, true},
		"none":               {m{}, false},
	} {
		f := kmsfake.NewAWS(t)
		settings := maps.Clone(none)
		maps.Copy(settings, c.settings)
		_, err := mustOpen(t, f, settings).NewWriter(t.Context(), io.Discard)
		if c.fine && err != nil || !c.fine && (fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_CSE_KMS_REGION")) {
			t.Errorf("%s: %v, hint %q", name, err, fault.Hint(err))
		}
	}
}

func TestNoCredentialsIsStatus64(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := kmsfake.NewAWS(t)
	method := mustOpen(t, f, m{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": empty,
		"AWS_SHARED_CREDENTIALS_FILE": empty, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"})
	err := do(method, "Encrypt", nil)
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "no credentials") || !strings.Contains(fault.Hint(err), "AWS_ACCESS_KEY_ID") || f.Asked("Encrypt") != 0 {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func TestEndpointsOfAmazon(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1": "https://kms.eu-central-1.amazonaws.com",
		"cn-north-1":   "https://kms.cn-north-1.amazonaws.com.cn",
	} {
		if got := endpoint(region); got != want {
			t.Errorf("%s: %s", region, got)
		}
	}
}

func TestWhatTheMethodSaysOfItself(t *testing.T) {
	method, err := Open(func(name string) string { return kmsfake.NewAWS(t).Env()[name] }, time.Minute)
	if err != nil || method.Name() != "aws-kms" || method.CanDecrypt() {
		t.Errorf("%v, %v", method, err)
	}
	if _, err := Open(func(string) string { return "" }, 0); fault.Status(err) != fault.Usage {
		t.Errorf("%v", err)
	}
}

func FuzzReader(f *testing.F) {
	// One data key for all: the stream is what is fuzzed.
	fake := kmsfake.NewAWS(f)
	kmsfake.Format(mustOpen(f, fake, nil)).Fuzz(f)
}
