package yckms

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"walg/lib/crypt/ask"
	"walg/lib/fault"
)

const (
	metadataTime = 5 * time.Second // for an answer; where there is no such service nobody answers
	tokenTime    = time.Hour       // for which a signed request is good; IAM takes no more
	maxAccount   = 64 << 10        // bytes of a key file; a longer one is none
)

// token asks IAM, or the metadata service, for a token.
func (s *service) token(ctx context.Context) (string, error) {
	if s.account == nil {
		return s.machineToken(ctx)
	}
	var answer struct {
		Token string `json:"iamToken"`
	}
	err := s.ask.Ask(ctx,
		func(ctx context.Context) (*http.Request, error) {
			jwt, err := s.account.sign(iamAddress+tokenPath, time.Now())
			if err != nil {
				return nil, err
			}
			body, err := json.Marshal(map[string]string{"jwt": jwt})
			if err != nil {
				return nil, err
			}
			return post(ctx, s.iam+tokenPath, body)
		},
		func(a ask.Answer) error {
			if a.Status != http.StatusOK {
				_, err := said(a)
				return ask.Judge(err, a.Status, "is YC_SERVICE_ACCOUNT_KEY_FILE the key of a service account that exists, and the clock of this machine right?")
			}
			if json.Unmarshal(a.Body, &answer) != nil || answer.Token == "" {
				return fault.New(fault.Failed, "the answer is none of IAM")
			}
			return nil
		})
	return answer.Token, err
}

const noAccountHint = "set YC_SERVICE_ACCOUNT_KEY_FILE to the key file of a service account, or run on a machine that has one"

// machineToken is that of the machine's service account. Where nobody answers
// there is no such machine.
func (s *service) machineToken(ctx context.Context) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	err := s.direct.Repeat(ctx, func() error {
		answered := false
		err := s.direct.Try(ctx,
			func(ctx context.Context) (*http.Request, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.metadata+metadataPath, nil)
				if err == nil {
					req.Header.Set("Metadata-Flavor", "Google")
				}
				return req, err
			},
			func(a ask.Answer) error {
				answered = true
				if a.Status != http.StatusOK {
					return ask.Judge(ask.Refusal(a.Status, "", ""), a.Status, noAccountHint)
				}
				if json.Unmarshal(a.Body, &answer) != nil || answer.Token == "" {
					return fault.New(fault.Failed, "the answer is none of the metadata service")
				}
				return nil
			})
		if err != nil && !answered && ctx.Err() == nil {
			return ask.Final(fmt.Errorf("metadata service: %w", err), noAccountHint)
		}
		return err
	})
	return answer.Token, err
}

// account is a service account, with its key.
type account struct {
	id, keyID string
	key       *rsa.PrivateKey
}

// readAccount reads the JSON that Yandex's tools write for a service account.
// Its errors have nothing of the content.
func readAccount(file string) (*account, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAccount))
	if err != nil {
		return nil, err
	}
	a, err := parseAccount(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return a, nil
}

func parseAccount(text []byte) (*account, error) {
	var f struct {
		ID         string `json:"id"`
		Account    string `json:"service_account_id"`
		PrivateKey string `json:"private_key"`
	}
	if json.Unmarshal(text, &f) != nil || f.ID == "" || f.Account == "" || f.PrivateKey == "" {
		return nil, errors.New("not the key file of a service account, which is JSON with id, service_account_id and private_key")
	}
	// A line of words may stand before the key.
	block, _ := pem.Decode([]byte(f.PrivateKey))
	if block == nil {
		return nil, errors.New("its private_key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("its private_key is not an RSA key")
	}
	return &account{f.Account, f.ID, rsaKey}, nil
}

// sign returns a JSON Web Token (RFC 7519) with a signature of PS256 (RFC 7518
// section 3.5), which IAM exchanges for one of its own.
func (a *account) sign(audience string, now time.Time) (string, error) {
	head, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "PS256", "kid": a.keyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": a.id, "aud": audience, "iat": now.Unix(), "exp": now.Add(tokenTime).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPSS(rand.Reader, a.key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
