package store

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"walg/lib/fault"
)

const (
	// MaxKey is the length of the longest key, in bytes: what S3 takes, the
	// strictest of the backends.
	MaxKey = 1024
	// MaxMeta bounds all names and values of one object's metadata together,
	// in bytes: again what S3 takes.
	MaxMeta = 2048
)

// ValidKey returns an error of status 64 unless key can name an object: valid
// UTF-8 of 1 to MaxKey bytes in elements divided by single slashes, without
// control characters, with no element that is ".", ".." or a temporary name.
func ValidKey(key string) error {
	if key == "" {
		return fault.New(fault.Usage, "the key is empty")
	}
	if err := validText("key", key); err != nil {
		return err
	}
	return validElements("key", key, strings.Split(key, "/"))
}

// ValidPrefix returns an error of status 64 unless some key could begin with
// prefix. The empty prefix is valid, and the last element may be incomplete.
func ValidPrefix(prefix string) error {
	if err := validText("prefix", prefix); err != nil {
		return err
	}
	elements := strings.Split(prefix, "/")
	return validElements("prefix", prefix, elements[:len(elements)-1])
}

func validText(what, s string) error {
	switch {
	case len(s) > MaxKey:
		return fault.New(fault.Usage, "%s %.40q...: %d bytes long, the limit is %d", what, s, len(s), MaxKey)
	case !utf8.ValidString(s):
		return fault.New(fault.Usage, "%s %q: not valid UTF-8", what, s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fault.New(fault.Usage, "%s %q: has a control character", what, s)
	}
	return nil
}

func validElements(what, s string, elements []string) error {
	for i, e := range elements {
		switch {
		case e == "" && i == 0:
			return fault.New(fault.Usage, "%s %q: begins with a slash", what, s)
		case e == "":
			return fault.New(fault.Usage, "%s %q: has an empty element", what, s)
		case e == "." || e == "..":
			return fault.New(fault.Usage, "%s %q: has an element %q", what, s, e)
		}
		if _, _, temporary := ParseTemp(e); temporary {
			return fault.New(fault.Usage, "%s %q: %q is the name of a temporary file", what, s, e)
		}
	}
	return nil
}

// ValidMeta returns an error of status 64 unless every backend can keep meta:
// names of 1 to 64 characters from a-z, 0-9, "-" and "_", beginning with a
// letter; values of printable ASCII that neither begin nor end with a space;
// at most MaxMeta bytes in all.
func ValidMeta(meta map[string]string) error {
	total := 0
	for name, value := range meta {
		total += len(name) + len(value)
		if !metaName.MatchString(name) {
			return fault.New(fault.Usage, "metadata name %q: want 1 to 64 of a-z, 0-9, - and _, a letter first", name)
		}
		notPrintable := func(r rune) bool { return r < ' ' || r > '~' }
		if strings.ContainsFunc(value, notPrintable) || strings.TrimSpace(value) != value {
			return fault.New(fault.Usage, "metadata %s: value %q is not plain printable text", name, value)
		}
	}
	if total > MaxMeta {
		return fault.New(fault.Usage, "metadata: %d bytes, the limit is %d", total, MaxMeta)
	}
	return nil
}

var metaName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)

// A temporary name is WAL-G's: NAME.tmp.YYYYMMDDThhmmssZ-16 hex digits. Both
// programs hide such names, whichever of the two wrote them.
var tempName = regexp.MustCompile(`^(.+)\.tmp\.([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{16}$`)

const tempTime = "20060102T150405Z"

// TempName returns the temporary name of an object called name, begun at
// start. random should be different each time.
func TempName(name string, start time.Time, random uint64) string {
	const digits = "0123456789abcdef"
	var hex [16]byte
	for i := range hex {
		hex[i] = digits[random>>(60-4*i)&15]
	}
	return name + ".tmp." + start.UTC().Format(tempTime) + "-" + string(hex[:])
}

// ParseTemp takes a temporary name apart. ok is false for all other names.
func ParseTemp(temp string) (name string, start time.Time, ok bool) {
	m := tempName.FindStringSubmatch(temp)
	if m == nil {
		return "", time.Time{}, false
	}
	// A date such as month 13 leaves start zero: the name is no less temporary.
	start, _ = time.Parse(tempTime, m[2])
	return m[1], start, true
}
