package kmsfake

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a new Yandex knows.
const (
	YandexKey    = "abjfakekeyone0000000"
	OtherKey     = "abjfakekeytwo0000000"
	yandexKeyID  = "ajefakekeyid00000000"
	yandexUser   = "ajefakeaccount000000"
	yandexIAM    = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
	userToken    = "t1.fake-token-of-the-account"
	machineToken = "t1.fake-token-of-the-machine"
)

// Yandex is a fake of Yandex KMS, of the service that gives tokens (operation
// "iam") and of a machine's metadata service (operation "metadata").
type Yandex struct {
	Server
	Keys []string // ids
	t    testing.TB
}

// NewYandex starts a fake, which ends with the test.
func NewYandex(t testing.TB) *Yandex {
	f := &Yandex{Keys: []string{YandexKey, OtherKey}, t: t}
	f.start(t, func(r *http.Request) string {
		switch {
		case strings.HasPrefix(r.URL.Path, "/iam/"):
			return "iam"
		case strings.HasPrefix(r.URL.Path, "/computeMetadata/"):
			return "metadata"
		}
		return r.URL.Path[strings.LastIndexByte(r.URL.Path, ':')+1:]
	}, f.serve)
	return f
}

// Env is the environment of a program that uses the fake as a service account.
// Without YC_SERVICE_ACCOUNT_KEY_FILE it is that of the machine.
func (f *Yandex) Env() map[string]string {
	return map[string]string{
		"YC_CSE_KMS_KEY_ID": YandexKey, "YC_SERVICE_ACCOUNT_KEY_FILE": f.AccountFile(),
		"YC_KMS_ENDPOINT": f.URL, "YC_IAM_ENDPOINT": f.URL, "YC_METADATA_ADDR": strings.TrimPrefix(f.URL, "http://"),
	}
}

// accountKey is of the one service account.
var accountKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// AccountFile writes the key file of the service account, as Yandex's tools do,
// and returns its name.
func (f *Yandex) AccountFile() string {
	f.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(accountKey())
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"id": yandexKeyID, "service_account_id": yandexUser, "created_at": "2026-01-02T03:04:05Z", "key_algorithm": "RSA_2048",
		"private_key": "PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <" + yandexKeyID + ">\n" +
			string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	name := filepath.Join(f.t.TempDir(), "account.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return name
}

// YandexSays is an answer with an error of Yandex Cloud.
func YandexSays(status, code int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": message, "details": []any{}})
	}
}

// Errors of Yandex Cloud.
var (
	YandexDenied    = YandexSays(403, 7, "Permission denied")
	YandexThrottles = YandexSays(429, 8, "Quota exceeded")
)

func (f *Yandex) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	send := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	key, op, isKMS := strings.Cut(strings.TrimPrefix(r.URL.Path, "/kms/v1/keys/"), ":")
	var q struct {
		JWT                               string
		Plaintext, Ciphertext, AADContext []byte
	}
	if len(body) > 0 && json.Unmarshal(body, &q) != nil {
		YandexSays(400, 3, "Illegal argument: not JSON")(w, r)
		return
	}
	switch {
	case r.URL.Path == "/computeMetadata/v1/instance/service-accounts/default/token":
		if r.Method != http.MethodGet || r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		send(map[string]any{"access_token": machineToken, "expires_in": 43200, "token_type": "Bearer"})
	case r.URL.Path == "/iam/v1/tokens":
		if why := checkJWT(q.JWT, time.Now()); r.Method != http.MethodPost || why != "" {
			YandexSays(401, 16, "The JWT is invalid: "+why)(w, r)
			return
		}
		send(map[string]any{"iamToken": userToken, "expiresAt": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	case !isKMS || r.Method != http.MethodPost:
		YandexSays(404, 5, "Not Found")(w, r)
	case !slices.Contains([]string{"Bearer " + userToken, "Bearer " + machineToken}, r.Header.Get("Authorization")):
		YandexSays(401, 16, "The token is invalid")(w, r)
	case !slices.Contains(f.Keys, key):
		YandexSays(404, 5, "Symmetric key "+key+" not found")(w, r)
	case op == "encrypt" && len(q.Plaintext) > 0:
		send(map[string]any{"keyId": key, "versionId": "abjfakeversion000000", "ciphertext": f.Seal(key, q.Plaintext, q.AADContext)})
	case op == "decrypt":
		plain, err := vault(key).Open(nil, nil, q.Ciphertext, append([]byte(key), q.AADContext...))
		if err != nil {
			YandexSays(400, 3, "Decryption failed: invalid ciphertext")(w, r)
			return
		}
		send(map[string]any{"keyId": key, "versionId": "abjfakeversion000000", "plaintext": plain})
	default:
		YandexSays(400, 3, "Illegal argument")(w, r)
	}
}

// Seal encrypts as the operation encrypt does.
func (f *Yandex) Seal(key string, plain, aad []byte) []byte {
	return vault(key).Seal(nil, nil, plain, append([]byte(key), aad...))
}

// checkJWT returns what is wrong with a JSON Web Token.
func checkJWT(text string, now time.Time) string {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return "it has not three parts"
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return "it is not base64"
		}
	}
	var head struct{ Typ, Alg, Kid string }
	var claims struct {
		Iss, Aud string
		Iat, Exp int64
	}
	strict := func(b []byte, v any) bool {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		return d.Decode(v) == nil
	}
	if !strict(raw[0], &head) || !strict(raw[1], &claims) {
		return "it is not what was expected"
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	err := rsa.VerifyPSS(&accountKey().PublicKey, crypto.SHA256, sum[:], raw[2], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	switch {
	case head.Typ != "JWT" || head.Alg != "PS256" || head.Kid != yandexKeyID:
		return "its header"
	case err != nil:
		return "its signature"
	case claims.Iss != yandexUser:
		return "its issuer"
	case claims.Aud != yandexIAM:
		return "its audience"
	case claims.Iat > now.Unix()+60 || claims.Exp <= now.Unix() || claims.Exp-claims.Iat > 3600:
		return "its times"
	}
	return ""
}
