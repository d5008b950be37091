package kmsfake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// What a new AWS knows.
const (
	AccessKey = "FAKEKEY"
	SecretKey = "fake-secret"
	Region    = "eu-central-1"
	AWSKey    = "arn:aws:kms:eu-central-1:000000000000:key/11111111-2222-3333-4444-555555555555"
	AWSAlias  = "alias/backup"
)

// AWS is a fake of AWS KMS: Encrypt, Decrypt and GenerateDataKey.
type AWS struct {
	Server
	// Keys are the ARNs of its keys. AWSAlias is another name of the first.
	Keys []string
	// Secrets are its access keys and their secrets.
	Secrets map[string]string
	// Tokens are the session tokens that must come with access keys.
	Tokens map[string]string
	// BlobSize is that of an encrypted data key.
	BlobSize int
}

// NewAWS starts a fake, which ends with the test.
func NewAWS(t testing.TB) *AWS {
	f := &AWS{
		Keys: []string{AWSKey}, Secrets: map[string]string{AccessKey: SecretKey}, Tokens: map[string]string{}, BlobSize: 184,
	}
	f.start(t, func(r *http.Request) string { return strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.") }, f.serve)
	return f
}

// Env is the environment of a program that uses the fake: all settings that
// another one may come from are empty.
func (f *AWS) Env() map[string]string {
	return map[string]string{
		"WALG_CSE_KMS_ID": AWSKey, "WALG_CSE_KMS_REGION": Region, "AWS_ENDPOINT_URL_KMS": f.URL,
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_ROLE_ARN": "",
	}
}

// AWSSays is an answer with an error of AWS.
func AWSSays(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
	}
}

// Errors of AWS KMS, as it words them.
var (
	AWSDenied    = AWSSays(400, "AccessDeniedException", "User: arn:aws:iam::000000000000:user/backup is not authorized to perform: kms:Encrypt on this resource")
	AWSThrottles = AWSSays(400, "ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")
)

func (f *AWS) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	if err := f.checkSignature(r, body); err != nil {
		AWSSays(400, err.Error(), "The request signature we calculated does not match.\n\nThe Canonical String should have been\n'x-amz-security-token:"+
			r.Header.Get("X-Amz-Security-Token")+"'")(w, r)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		AWSSays(404, "UnknownOperationException", "")(w, r)
		return
	}
	var q struct {
		KeyId                     string
		Plaintext, CiphertextBlob []byte
	}
	if err := json.Unmarshal(body, &q); err != nil {
		AWSSays(400, "SerializationException", "")(w, r)
		return
	}
	answer := map[string]any{}
	switch op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService."); op {
	case "Encrypt", "GenerateDataKey":
		key := f.find(q.KeyId)
		if key == "" {
			AWSSays(400, "NotFoundException", "Key '"+q.KeyId+"' does not exist")(w, r)
			return
		}
		if op == "GenerateDataKey" {
			q.Plaintext = random(32)
			answer["Plaintext"] = q.Plaintext
		}
		answer["CiphertextBlob"], answer["KeyId"] = f.Seal(key, q.Plaintext), key
	case "Decrypt":
		key, plain := f.open(q.CiphertextBlob)
		switch {
		case key == "":
			AWSSays(400, "InvalidCiphertextException", "")(w, r)
			return
		case q.KeyId != "" && f.find(q.KeyId) != key:
			AWSSays(400, "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")(w, r)
			return
		}
		answer["Plaintext"], answer["KeyId"] = plain, key
	default:
		AWSSays(400, "UnknownOperationException", "")(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer)
}

// find returns the ARN of a key, by id, ARN or alias.
func (f *AWS) find(name string) string {
	if name == AWSAlias {
		return f.Keys[0]
	}
	i := slices.IndexFunc(f.Keys, func(arn string) bool { return name == arn || strings.HasSuffix(arn, ":key/"+name) })
	if i < 0 {
		return ""
	}
	return f.Keys[i]
}

// mark begins what the fake encrypts: Amazon's begins with a 1 too.
var mark = []byte("\x01fake")

// Seal encrypts as Encrypt does: mark, the name of the key by its hash, and
// the plain text with its length, filled up.
func (f *AWS) Seal(key string, plain []byte) []byte {
	name := sha256.Sum256([]byte(key))
	head := append(bytes.Clone(mark), name[:8]...)
	gcm := vault(key)
	text := append([]byte{byte(len(plain))}, plain...)
	text = append(text, make([]byte, max(f.BlobSize-len(head)-gcm.Overhead()-len(text), 0))...)
	return gcm.Seal(head, nil, text, head)
}

func (f *AWS) open(blob []byte) (key string, plain []byte) {
	const size = 5 + 8
	for _, key := range f.Keys {
		name := sha256.Sum256([]byte(key))
		if len(blob) < size || !bytes.Equal(blob[:size], append(bytes.Clone(mark), name[:8]...)) {
			continue
		}
		if text, err := vault(key).Open(nil, nil, blob[size:], blob[:size]); err == nil {
			return key, text[1 : 1+int(text[0])]
		}
	}
	return "", nil
}

const skew = 5 * time.Minute

// checkSignature signs the request anew and compares. It returns the code of
// an error.
func (f *AWS) checkSignature(r *http.Request, body []byte) error {
	signature := r.Header.Get("Authorization")
	part := func(name string) string {
		_, rest, _ := strings.Cut(signature, name+"=")
		value, _, _ := strings.Cut(rest, ",")
		return value
	}
	scope := strings.Split(part("Credential"), "/")
	secret, known := f.Secrets[scope[0]]
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	switch {
	case !known || len(scope) != 5 || r.Header.Get("X-Amz-Security-Token") != f.Tokens[scope[0]]:
		return errors.New("UnrecognizedClientException")
	case err != nil || time.Since(at).Abs() > skew || scope[2] != Region || scope[3] != "kms":
		return errors.New("InvalidSignatureException")
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	signed := strings.Split(part("SignedHeaders"), ";")
	if !slices.Contains(signed, "content-length") {
		again.ContentLength = -1 // which some clients do not sign
	}
	for _, name := range signed {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Host", "Content-Length", "X-Amz-Date", "X-Amz-Security-Token": // those the signer adds
		default:
			again.Header[name] = r.Header[name]
		}
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: secret, SessionToken: f.Tokens[scope[0]]},
		again, hex.EncodeToString(sum[:]), scope[3], scope[2], at)
	if err != nil || again.Header.Get("Authorization") != signature {
		return errors.New("InvalidSignatureException")
	}
	return nil
}
