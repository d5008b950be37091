package awskms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"walg/lib/awsid"
	"walg/lib/crypt/ask"
	"walg/lib/fault"
)

// service is KMS as the settings show it.
type service struct {
	settings Settings
	ask      *ask.Client

	mu sync.Mutex
	by *asker // found out at the first question
}

// asker is who asks, and where.
type asker struct {
	credentials aws.CredentialsProvider
	region      string
	endpoint    string
}

// Encrypt is what WAL-G does too: the data key is not KMS's own.
func (s *service) Encrypt(ctx context.Context, data []byte) ([]byte, error) {
	var answer struct{ CiphertextBlob []byte }
	err := s.question(ctx, "Encrypt", struct {
		KeyId     string
		Plaintext []byte
	}{s.settings.Key, data}, &answer, func() bool { return len(answer.CiphertextBlob) > 0 })
	if err != nil {
		return nil, fmt.Errorf("encrypt a data key with %s at %s: %w", s.settings.Key, s.host(), err)
	}
	return answer.CiphertextBlob, nil
}

// Decrypt leaves the key to the data: they name it, and it need not be the one
// of today's settings.
func (s *service) Decrypt(ctx context.Context, sealed []byte) ([]byte, string, error) {
	var answer struct {
		Plaintext []byte
		KeyId     string
	}
	err := s.question(ctx, "Decrypt", struct{ CiphertextBlob []byte }{sealed}, &answer,
		func() bool { return len(answer.Plaintext) > 0 && answer.KeyId != "" })
	if err != nil {
		return nil, "", fmt.Errorf("decrypt a data key (%s) at %s: %w", s.settings.Key, s.host(), err)
	}
	return answer.Plaintext, answer.KeyId, nil
}

// question asks once, as often as that takes.
func (s *service) question(ctx context.Context, op string, in, out any, whole func() bool) error {
	ctx, cancel := s.ask.Within(ctx)
	defer cancel()
	var by *asker
	err := s.ask.Repeat(ctx, func() (err error) {
		by, err = s.identify(ctx)
		return err
	})
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return s.ask.Ask(ctx,
		func(ctx context.Context) (*http.Request, error) { return by.sign(ctx, op, body) },
		func(a ask.Answer) error {
			if a.Status != http.StatusOK {
				return s.refusal(op, a)
			}
			if err := json.Unmarshal(a.Body, out); err != nil || !whole() {
				return fault.New(fault.Failed, "the answer is none of KMS")
			}
			return nil
		})
}

// identify finds out who asks, and where.
func (s *service) identify(ctx context.Context) (*asker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != nil {
		return s.by, nil
	}
	who, region, err := awsid.Find(ctx, s.settings.Identity)
	var nobody *awsid.Nobody
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("no credentials yet")
	case errors.As(err, &nobody) && !nobody.Passes():
		return nil, ask.Final(err, nobody.Hint)
	case err != nil:
		return nil, err
	case region == "":
		return nil, ask.Final(errors.New("no region"), "set WALG_CSE_KMS_REGION or AWS_REGION")
	}
	s.by = &asker{who, region, s.settings.Endpoint}
	if s.by.endpoint == "" {
		s.by.endpoint = endpoint(region)
	}
	return s.by, nil
}

// endpoint is Amazon's. Other partitions than the public one and China's need
// the setting.
func endpoint(region string) string {
	host := "https://kms." + region + ".amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		host += ".cn"
	}
	return host
}

// host is for messages.
func (s *service) host() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != nil {
		if u, err := url.Parse(s.by.endpoint); err == nil {
			return u.Host
		}
	}
	return "AWS KMS"
}

// sign makes one request.
func (a *asker) sign(ctx context.Context, op string, body []byte) (*http.Request, error) {
	credentials, err := a.credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "TrentService."+op)
	req.Header.Set("User-Agent", "walg")
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), "kms", a.region, time.Now())
	return req, err
}

const (
	tokenHint    = "are AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN right, and of this region?"
	keyHint      = "does WALG_CSE_KMS_ID name a key that exists in the region of WALG_CSE_KMS_REGION?"
	stateHint    = "is the key of WALG_CSE_KMS_ID enabled, and a symmetric one for encryption?"
	clockHint    = "is the clock of this machine right?"
	endpointHint = "is AWS_ENDPOINT_URL_KMS the address of KMS?"
)

// hints, by code: what trying again cannot mend.
var hints = map[string]string{
	"AccessDeniedException":       "may these credentials use the key (kms:Encrypt, kms:Decrypt)? look at AWS_ACCESS_KEY_ID or AWS_PROFILE, and at the policy of the key",
	"UnrecognizedClientException": tokenHint,
	"InvalidClientTokenId":        tokenHint,
	"ExpiredTokenException":       "AWS_SESSION_TOKEN has expired",
	"InvalidSignatureException":   "is AWS_SECRET_ACCESS_KEY right?",
	"NotFoundException":           keyHint,
	"InvalidArnException":         keyHint,
	"ValidationException":         keyHint,
	"DisabledException":           stateHint,
	"KMSInvalidStateException":    stateHint,
	"InvalidKeyUsageException":    stateHint,
	"UnknownOperationException":   endpointHint,
	"":                            endpointHint, // no words of KMS
}

// refusal judges an answer that is none of success.
func (s *service) refusal(op string, a ask.Answer) error {
	var said struct {
		Type    string `json:"__type"`
		Message string
	}
	_ = json.Unmarshal(a.Body, &said) // what is no JSON says nothing to us
	code := said.Type
	if code == "" {
		code, _, _ = strings.Cut(a.Header.Get("X-Amzn-Errortype"), ":")
	}
	code = code[strings.LastIndexByte(code, '#')+1:] // without the namespace
	err := ask.Refusal(a.Status, code, said.Message)
	switch {
	case strings.HasPrefix(code, "Throttl"), code == "RequestLimitExceeded", code == "TooManyRequestsException":
		return err
	case op == "Decrypt" && (code == "InvalidCiphertextException" || code == "IncorrectKeyException"):
		return fault.New(fault.Data, "KMS does not take it as encrypted by one of its keys: %w", err)
	case code == "InvalidSignatureException" && (strings.Contains(said.Message, "expired") || strings.Contains(said.Message, "not yet current")):
		return ask.Final(err, clockHint)
	}
	return ask.Judge(err, a.Status, hints[code])
}
