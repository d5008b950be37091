package yckms

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"walg/lib/crypt/ask"
	"walg/lib/fault"
)

// Addresses of Yandex Cloud.
const (
	kmsAddress      = "https://kms.yandex"
	iamAddress      = "https://iam.api.cloud.yandex.net"
	metadataAddress = "169.254.169.254"
)

const (
	tokenPath    = "/iam/v1/tokens"
	metadataPath = "/computeMetadata/v1/instance/service-accounts/default/token"
)

// service is Yandex KMS, and who gives tokens for it.
type service struct {
	key      string
	kms, iam string
	account  *account // nil asks the metadata service
	metadata string

	ask    *ask.Client
	direct *ask.Client // for the metadata service
}

func newService(s Settings) (_ *service, err error) {
	v := &service{key: s.Key, kms: kmsAddress, iam: iamAddress, metadata: "http://" + metadataAddress}
	if s.KMS != "" {
		if v.kms, err = ask.Endpoint("YC_KMS_ENDPOINT", s.KMS); err != nil {
			return nil, err
		}
	}
	if s.IAM != "" {
		if v.iam, err = ask.Endpoint("YC_IAM_ENDPOINT", s.IAM); err != nil {
			return nil, err
		}
	}
	if s.Metadata != "" {
		v.metadata = "http://" + s.Metadata
		if u, err := url.Parse(v.metadata); err != nil || u.Host != s.Metadata {
			return nil, fault.New(fault.Usage, "setting YC_METADATA_ADDR=%s: want a host, or a host and its port", s.Metadata)
		}
	}
	if s.AccountFile != "" {
		if v.account, err = readAccount(s.AccountFile); err != nil {
			return nil, fault.New(fault.Usage, "setting YC_SERVICE_ACCOUNT_KEY_FILE: %w", err)
		}
	}
	o := ask.Options{Limits: s.Limits, EndpointSetting: "YC_KMS_ENDPOINT, or YC_IAM_ENDPOINT,", CASetting: "SSL_CERT_FILE"}
	if v.ask, err = ask.New(o); err != nil {
		return nil, err
	}
	o.Direct, o.EndpointSetting = true, "YC_METADATA_ADDR"
	o.Try = metadataTime
	if s.Limits.Try > 0 {
		o.Try = min(s.Limits.Try, metadataTime)
	}
	v.direct, err = ask.New(o)
	return v, err
}

// Encrypt encrypts with the primary version of the key.
func (s *service) Encrypt(ctx context.Context, data []byte) ([]byte, error) {
	var answer struct{ Ciphertext []byte }
	err := s.question(ctx, "encrypt", map[string][]byte{"plaintext": data}, &answer, func() bool { return len(answer.Ciphertext) > 0 })
	if err != nil {
		return nil, fmt.Errorf("encrypt a data key with %s at %s: %w", s.key, s.host(), err)
	}
	return answer.Ciphertext, nil
}

// Decrypt asks for the key of the settings: the message does not name its own.
func (s *service) Decrypt(ctx context.Context, sealed []byte) ([]byte, string, error) {
	var answer struct {
		KeyID     string `json:"keyId"`
		Plaintext []byte
	}
	err := s.question(ctx, "decrypt", map[string][]byte{"ciphertext": sealed}, &answer,
		func() bool { return len(answer.Plaintext) > 0 && answer.KeyID != "" })
	if err != nil {
		return nil, "", fmt.Errorf("decrypt a data key with %s at %s: %w", s.key, s.host(), err)
	}
	return answer.Plaintext, answer.KeyID, nil
}

func (s *service) host() string {
	u, _ := url.Parse(s.kms) // judged before
	return u.Host
}

// question gets a token and asks once, as often as that takes.
func (s *service) question(ctx context.Context, op string, in, out any, whole func() bool) error {
	ctx, cancel := s.ask.Within(ctx)
	defer cancel()
	token, err := s.token(ctx)
	if err != nil {
		return fmt.Errorf("no token: %w", err)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return s.ask.Ask(ctx,
		func(ctx context.Context) (*http.Request, error) {
			req, err := post(ctx, s.kms+"/kms/v1/keys/"+s.key+":"+op, body)
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			return req, err
		},
		func(a ask.Answer) error {
			if a.Status != http.StatusOK {
				return refusal(op, a)
			}
			if err := json.Unmarshal(a.Body, out); err != nil || !whole() {
				return fault.New(fault.Failed, "the answer is none of KMS")
			}
			return nil
		})
}

func post(ctx context.Context, address string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "walg")
	return req, nil
}

// Codes in answers, those of gRPC.
const (
	invalidArgument    = 3
	notFound           = 5
	permissionDenied   = 7
	failedPrecondition = 9
	unauthenticated    = 16
)

var hints = map[int]string{
	invalidArgument:    "is YC_CSE_KMS_KEY_ID the id of a symmetric key?",
	notFound:           "does YC_CSE_KMS_KEY_ID name a key that exists?",
	permissionDenied:   "has the service account the role kms.keys.encrypterDecrypter for the key of YC_CSE_KMS_KEY_ID?",
	failedPrecondition: "is the key of YC_CSE_KMS_KEY_ID active?",
	unauthenticated:    "is YC_SERVICE_ACCOUNT_KEY_FILE of this cloud, and the clock of this machine right?",
	0:                  "is YC_KMS_ENDPOINT the address of KMS?", // no words of KMS
}

// words are those of an answer that is none of success.
type words struct {
	Code    int
	Message string
}

func said(a ask.Answer) (words, error) {
	var w words
	if json.Unmarshal(a.Body, &w) != nil {
		w = words{} // what is no JSON says nothing to us
	}
	return w, ask.Refusal(a.Status, "", w.Message)
}

// refusal judges an answer that is none of success.
func refusal(op string, a ask.Answer) error {
	w, err := said(a)
	if op == "decrypt" && w.Code == invalidArgument {
		return fault.New(fault.Data, "KMS does not take it as encrypted by this key: %w", err)
	}
	return ask.Judge(err, a.Status, hints[w.Code])
}
