// Package yckms encrypts with a key of Yandex KMS, in WAL-G's envelope: a
// message begins with "yckms", the byte 1, a length and what KMS makes of a
// data key, and goes on with a DARE stream of AES-256-GCM.
//
// It speaks the REST API. It is tested against a server of our own, not
// against Yandex's.
package yckms

import (
	"encoding/binary"
	"strings"
	"time"

	"walg/lib/crypt"
	"walg/lib/crypt/ask"
	"walg/lib/crypt/envelope"
	"walg/lib/decode"
	"walg/lib/fault"
)

// Name of the method.
const Name = "yc-kms"

// The head of a message.
const (
	magic     = "yckms"
	version   = 1
	fixedSize = len(magic) + 1 + 4 // what stands before the encrypted data key
	maxSealed = 4096               // bytes of that; more WAL-G does not read
)

// Settings say which key, where, and who asks for it. An empty address is
// Yandex's own.
type Settings struct {
	Key         string // YC_CSE_KMS_KEY_ID
	AccountFile string // YC_SERVICE_ACCOUNT_KEY_FILE; "" asks the metadata service
	KMS, IAM    string // YC_KMS_ENDPOINT, YC_IAM_ENDPOINT: URLs
	Metadata    string // YC_METADATA_ADDR: host, or host and port
	Limits      ask.Limits
}

// Open returns the method that the settings mean, which lookup finds; timeout
// is for all questions together, 0 is the default.
func Open(lookup func(name string) string, timeout time.Duration) (crypt.Method, error) {
	return New(Settings{
		Key:         lookup("YC_CSE_KMS_KEY_ID"),
		AccountFile: lookup("YC_SERVICE_ACCOUNT_KEY_FILE"),
		KMS:         lookup("YC_KMS_ENDPOINT"),
		IAM:         lookup("YC_IAM_ENDPOINT"),
		Metadata:    lookup("YC_METADATA_ADDR"),
		Limits:      ask.Limits{Total: timeout},
	})
}

// New returns the method. Settings that do not make sense, and a key file that
// is none, are status 64; the network is not asked yet.
func New(s Settings) (crypt.Method, error) {
	if s.Key == "" {
		return nil, fault.New(fault.Usage, "YC_CSE_KMS_KEY_ID is not set")
	}
	if strings.ContainsFunc(s.Key, notID) {
		return nil, fault.New(fault.Usage, "setting YC_CSE_KMS_KEY_ID=%q: want the id of a key", s.Key)
	}
	service, err := newService(s)
	if err != nil {
		return nil, err
	}
	return &envelope.Method{
		Format:  envelope.Format{Name: Name, Pack: pack, Unpack: unpack, OnlyAES: true},
		Service: service,
	}, nil
}

func notID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func pack(sealed []byte) ([]byte, error) {
	if len(sealed) > maxSealed {
		return nil, fault.New(fault.Usage, "%s: KMS makes %d bytes of a data key, and no reader takes more than %d", Name, len(sealed), maxSealed)
	}
	head := append([]byte(magic), version)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(sealed)))
	return append(head, sealed...), nil
}

func unpack(in *decode.Input) ([]byte, error) {
	fixed, err := in.Peek(fixedSize)
	if known := min(len(fixed), len(magic)); string(fixed[:known]) != magic[:known] {
		return nil, in.Corrupt("not a message of this format")
	}
	if err != nil {
		return nil, in.Fault(err)
	}
	if v := fixed[len(magic)]; v != version {
		return nil, in.Corrupt("an envelope of version %d, which is not known", v)
	}
	n := binary.LittleEndian.Uint32(fixed[len(magic)+1:])
	if n == 0 || n > maxSealed {
		return nil, in.Corrupt("damaged: an encrypted data key of %d bytes", n)
	}
	whole, err := in.Peek(fixedSize + int(n))
	if err != nil {
		return nil, in.Fault(err)
	}
	sealed := append([]byte(nil), whole[fixedSize:]...)
	_, err = in.Discard(len(whole))
	return sealed, err
}
