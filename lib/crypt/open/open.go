// Package open finds the way to encrypt that the settings mean, and tells data
// that it wrote from other data.
package open

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"time"

	"walg/lib/crypt"
	"walg/lib/crypt/awskms"
	"walg/lib/crypt/openpgp"
	"walg/lib/crypt/secretstream"
	"walg/lib/crypt/yckms"
	"walg/lib/fault"
)

// Settings are what the environment and the flags say of encryption. They are
// given in: this package reads no environment.
type Settings struct {
	Lookup  func(name string) string
	Method  string        // a method's name, none, or auto for that of the configured key
	WeakKey bool          // encrypt with a libsodium key that is a text of fewer than 32 bytes
	Timeout time.Duration // for all questions to a key service
}

// methods are the ways to encrypt, by the settings that ask for each. The first
// setting says what the key is, or the second where to find it; the others say
// more of it.
var methods = []struct {
	name     string
	keys     []string
	more     []string
	openWith func(s Settings) (crypt.Method, error)
}{
	{"openpgp", []string{"WALG_PGP_KEY", "WALG_PGP_KEY_PATH"}, []string{"WALG_PGP_KEY_PASSPHRASE"}, openPGP},
	{"libsodium", []string{"WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH"}, []string{"WALG_LIBSODIUM_KEY_TRANSFORM"}, libsodium},
	{"aws-kms", []string{"WALG_CSE_KMS_ID"}, []string{"WALG_CSE_KMS_REGION"}, awsKMS},
	{"yc-kms", []string{"YC_CSE_KMS_KEY_ID"}, nil, yandexKMS}, // YC_SERVICE_ACCOUNT_KEY_FILE is other programs' too
}

// Configured returns the way to encrypt that the settings mean, or nil for
// none. Settings that contradict each other or name no usable key are errors
// of status 64.
func Configured(s Settings) (crypt.Method, error) {
	known := s.Method == "auto" || s.Method == "none"
	var set []string // settings that ask for a key
	chosen := -1
	for i, m := range methods {
		known = known || s.Method == m.name
		var keys []string
		for _, name := range m.keys {
			if s.Lookup(name) != "" {
				keys = append(keys, name)
			}
		}
		if len(keys) == 0 {
			for _, name := range m.more {
				if s.Lookup(name) != "" {
					return nil, fault.WithHint(fault.New(fault.Usage, "setting %s is set, and no key for it", name),
						"set %s, or unset it", strings.Join(m.keys, " or "))
				}
			}
			continue
		}
		chosen, set = i, append(set, keys...)
	}
	switch {
	case !known:
		return nil, fault.New(fault.Usage, "unknown encryption method %q: it is openpgp, libsodium, aws-kms, yc-kms, none or auto", s.Method)
	case len(set) > 1:
		return nil, fault.WithHint(fault.New(fault.Usage, "more than one encryption key is configured: %s", strings.Join(set, ", ")),
			"unset all but one of them")
	case chosen < 0 && (s.Method == "auto" || s.Method == "none"):
		return nil, nil
	case chosen < 0:
		return nil, fault.WithHint(fault.New(fault.Usage, "no key for encryption method %s is configured", s.Method),
			"set %s; walg-crypt(1) lists the settings", keysOf(s.Method))
	case s.Method != "auto" && s.Method != methods[chosen].name:
		return nil, fault.New(fault.Usage, "-m %s contradicts %s", s.Method, set[0])
	}
	return methods[chosen].openWith(s)
}

func keysOf(method string) string {
	for _, m := range methods {
		if m.name == method {
			return strings.Join(m.keys, " or ")
		}
	}
	return ""
}

// key returns the text of a key: the value of setting, or what the file holds
// that path names.
func (s Settings) key(setting, path string) ([]byte, string, error) {
	if text := s.Lookup(setting); text != "" {
		return []byte(text), setting, nil
	}
	name := s.Lookup(path)
	text, err := os.ReadFile(name)
	if err != nil { // which is no absent object
		return nil, path, fault.New(fault.Usage, "setting %s: %w", path, err)
	}
	return text, path, nil
}

func openPGP(s Settings) (crypt.Method, error) {
	text, setting, err := s.key("WALG_PGP_KEY", "WALG_PGP_KEY_PATH")
	if err != nil {
		return nil, err
	}
	return named(setting)(openpgp.Open(text, s.Lookup("WALG_PGP_KEY_PASSPHRASE")))
}

func libsodium(s Settings) (crypt.Method, error) {
	text, setting, err := s.key("WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH")
	if err != nil {
		return nil, err
	}
	if setting == "WALG_LIBSODIUM_KEY_PATH" {
		text = bytes.TrimSpace(text) // as WAL-G does, in files only
	}
	return named(setting)(secretstream.Open(string(text), s.Lookup("WALG_LIBSODIUM_KEY_TRANSFORM"), s.WeakKey))
}

func awsKMS(s Settings) (crypt.Method, error) {
	return awskms.Open(s.Lookup, s.Timeout)
}

func yandexKMS(s Settings) (crypt.Method, error) {
	return yckms.Open(s.Lookup, s.Timeout)
}

// named puts the setting's name before what is wrong with its value.
func named(setting string) func(m crypt.Method, err error) (crypt.Method, error) {
	return func(m crypt.Method, err error) (crypt.Method, error) {
		if err == nil {
			return m, nil
		}
		named := fault.New(fault.Status(err), "setting %s: %w", setting, err)
		if hint := fault.Hint(err); hint != "" {
			named = fault.WithHint(named, "%s", hint)
		}
		return nil, named
	}
}

// HeadSize is how many first bytes Encrypted and Inspect want: the session keys
// of many recipients.
const HeadSize = 64 << 10

// Encrypted reports whether head begins data that m encrypted, and an error of
// status 65 where it is something that must not be passed on: encrypted data of
// another kind, or plain data where a key is configured and plain is not
// allowed. Data without a magic counts as m's, which will judge it.
func Encrypted(ctx context.Context, m crypt.Method, head []byte, allowPlain bool) (bool, error) {
	what := crypt.Detect(head)
	switch {
	case m == nil && what.Name != "":
		return false, fault.WithHint(fault.New(fault.Data, "this is %s data and no key is configured", what.Name), "%s", wayOut(what))
	case m == nil:
		return false, nil
	case what.Method == m.Name():
		return true, nil
	}
	if !hasMagic(m) {
		if what.Name == "" && !allowPlain {
			return true, nil
		}
		if r, err := m.Inspect(ctx, bytes.NewReader(head)); err == nil && r.Fits {
			return true, nil // what looks like something else is chance
		}
	}
	switch {
	case what.Name != "":
		return false, fault.WithHint(fault.New(fault.Data, "this is %s data, and the configured key is for %s", what.Name, m.Name()), "%s", wayOut(what))
	case allowPlain:
		return false, nil
	}
	return false, fault.WithHint(fault.New(fault.Data, "this is not %s data, and a key for it is configured", m.Name()),
		"somebody may have put it there; --allow-plain passes data that was never encrypted")
}

// hasMagic: libsodium's secretstream and the envelope of AWS KMS begin with
// random bytes.
func hasMagic(m crypt.Method) bool { return m.Name() != "libsodium" && m.Name() != "aws-kms" }

func wayOut(what crypt.Kind) string {
	if what.Method == "" {
		return "no version of walg reads it; WAL-G does"
	}
	return "set " + keysOf(what.Method) + ", or run the program that has the key as the stage: --through -- COMMAND; -m none passes data through"
}

// Inspect says what the encrypted stream r needs, and whether m, which may be
// nil, has it.
func Inspect(ctx context.Context, m crypt.Method, r io.Reader) (crypt.Report, error) {
	head, err := io.ReadAll(io.LimitReader(r, HeadSize))
	if err != nil {
		return crypt.Report{}, err
	}
	what := crypt.Detect(head)
	if m != nil && what.Method == m.Name() {
		return m.Inspect(ctx, bytes.NewReader(head))
	}
	if m != nil && !hasMagic(m) {
		report, err := m.Inspect(ctx, bytes.NewReader(head))
		if err != nil || report.Fits || what.Name == "" {
			return report, err
		}
	}
	report := crypt.Report{Method: what.Name}
	switch {
	case what.Method == "openpgp":
		if report, err = openpgp.Inspect(bytes.NewReader(head)); err != nil {
			return report, err
		}
	case what.Name == "":
		report.Method = "none, or one that has no magic (libsodium, aws-kms)"
	}
	report.Reason = reason(m)
	return report, nil
}

func reason(m crypt.Method) string {
	if m == nil {
		return "no key is configured"
	}
	return "the configured key is for " + m.Name()
}
