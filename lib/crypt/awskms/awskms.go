// Package awskms encrypts with a key of AWS KMS, in WAL-G's envelope: a
// message begins with the 184 bytes that KMS makes of a data key, and goes on
// with a DARE stream.
//
// It speaks the API of KMS itself, JSON over HTTPS with a signature of version
// 4. It is tested against a server of our own, not against Amazon's.
package awskms

import (
	"cmp"
	"io"
	"strings"
	"time"
	"unicode"

	"walg/lib/awsid"
	"walg/lib/crypt"
	"walg/lib/crypt/ask"
	"walg/lib/crypt/envelope"
	"walg/lib/decode"
	"walg/lib/fault"
)

// Name of the method.
const Name = "aws-kms"

// sealedSize is what KMS makes of a data key of 32 bytes, and what WAL-G reads.
const sealedSize = 184

// Settings say which key, where, and who asks for it.
type Settings struct {
	Key      string // WALG_CSE_KMS_ID: id, ARN or alias
	Region   string // WALG_CSE_KMS_REGION, else that of Identity or its profile
	Endpoint string // AWS_ENDPOINT_URL_KMS; "" is Amazon's in the region
	CA       string // AWS_CA_BUNDLE
	Identity awsid.Settings
	Limits   ask.Limits
}

// Open returns the method that the settings mean, which lookup finds; timeout
// is for all questions together, 0 is the default.
func Open(lookup func(name string) string, timeout time.Duration) (crypt.Method, error) {
	s, err := Read(lookup)
	if err != nil {
		return nil, err
	}
	s.Limits.Total = timeout
	return New(s)
}

// Read reads the settings through get, which returns "" for what is not set.
// They are judged by New.
func Read(get func(name string) string) (Settings, error) {
	who, err := awsid.Read(get)
	return Settings{
		Key:      get("WALG_CSE_KMS_ID"),
		Region:   get("WALG_CSE_KMS_REGION"),
		Endpoint: get("AWS_ENDPOINT_URL_KMS"),
		CA:       cmp.Or(get("AWS_CA_BUNDLE"), get("WALG_AWS_CA_BUNDLE"), get("WALE_AWS_CA_BUNDLE")),
		Identity: who,
	}, err
}

// New returns the method. Settings that do not make sense are status 64; the
// network is not asked yet.
func New(s Settings) (crypt.Method, error) {
	s.Identity.Region = cmp.Or(s.Region, s.Identity.Region)
	switch {
	case s.Key == "":
		return nil, fault.New(fault.Usage, "WALG_CSE_KMS_ID is not set")
	case strings.ContainsFunc(s.Key, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return nil, fault.New(fault.Usage, "setting WALG_CSE_KMS_ID=%q: want the id, the ARN or an alias of a key", s.Key)
	case strings.ContainsFunc(s.Identity.Region, notRegion):
		return nil, fault.New(fault.Usage, "setting WALG_CSE_KMS_REGION, or AWS_REGION, %q: want a region such as eu-central-1", s.Identity.Region)
	}
	at := "WALG_CSE_KMS_REGION"
	if s.Endpoint != "" {
		at = "AWS_ENDPOINT_URL_KMS"
		var err error
		if s.Endpoint, err = ask.Endpoint(at, s.Endpoint); err != nil {
			return nil, err
		}
	}
	client, err := ask.New(ask.Options{Limits: s.Limits, CA: s.CA, EndpointSetting: at, CASetting: "AWS_CA_BUNDLE"})
	if err != nil {
		return nil, err
	}
	return &envelope.Method{
		Format:  envelope.Format{Name: Name, Pack: pack, Unpack: unpack},
		Service: &service{settings: s, ask: client},
	}, nil
}

func notRegion(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
}

func pack(sealed []byte) ([]byte, error) {
	if len(sealed) != sealedSize {
		return nil, fault.WithHint(
			fault.New(fault.Usage, "%s: KMS makes %d bytes of a data key, and no reader takes other than %d", Name, len(sealed), sealedSize),
			"is WALG_CSE_KMS_ID a symmetric key with material of Amazon's own?")
	}
	return sealed, nil
}

func unpack(in *decode.Input) ([]byte, error) {
	sealed, err := in.Peek(sealedSize)
	// What is known to be something else is not shown to Amazon.
	if what := crypt.Detect(sealed); what.Name != "" && (err == nil || err == io.EOF) {
		return nil, in.Corrupt("this is %s data", what.Name)
	}
	if err != nil {
		return nil, in.Fault(err)
	}
	sealed = append([]byte(nil), sealed...)
	_, err = in.Discard(sealedSize)
	return sealed, err
}
