package swift

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	api "github.com/ncw/swift/v2"
)

// Metadata travels in headers, whose names come back in another case, in which
// some proxies drop "_" and Swift itself takes it for "-"; a value is limited to
// 256 bytes and may not be empty. So the name is written with "--" for "-" and
// "-u" for "_", the value in quotes where it needs them, and a long value in
// pieces, "-p2" and so on being added to the names of those after the first.
// What others have written is read as it is.
const (
	metaPrefix = "X-Object-Meta-"
	// sumName is no name that encodeName can make.
	sumName  = metaPrefix + "Walg-Crc32c"
	maxValue = 240
)

var encodeName = strings.NewReplacer("-", "--", "_", "-u")

// writeMeta returns metadata and checksum as headers.
func writeMeta(meta map[string]string, crc uint32) api.Headers {
	h := api.Headers{sumName: fmt.Sprintf("%08x", crc)}
	for name, value := range meta {
		name = metaPrefix + encodeName.Replace(name)
		if len(value) <= maxValue && value != "" && value[0] != '"' {
			h[name] = value
			continue
		}
		for n := 1; n == 1 || value != ""; n++ {
			some := value[:min(maxValue, len(value))]
			value = value[len(some):]
			h[pieceName(name, n)] = `"` + some + `"`
		}
	}
	return h
}

func pieceName(name string, n int) string {
	if n == 1 {
		return name
	}
	return name + "-p" + strconv.Itoa(n)
}

// readMeta is the reverse of writeMeta.
func readMeta(h http.Header) (map[string]string, *uint32) {
	meta := map[string]string{}
	var crc *uint32
	for header := range h {
		encoded, ok := strings.CutPrefix(header, metaPrefix)
		if !ok {
			continue
		}
		if header == sumName {
			if sum, err := strconv.ParseUint(h.Get(header), 16, 32); err == nil {
				sum := uint32(sum)
				crc = &sum
			}
			continue
		}
		name, first := decodeName(strings.ToLower(encoded))
		if !first {
			continue
		}
		var value strings.Builder
		value.WriteString(unquote(h.Get(header)))
		for n := 2; h.Get(pieceName(header, n)) != ""; n++ {
			value.WriteString(unquote(h.Get(pieceName(header, n))))
		}
		meta[name] = value.String()
	}
	return meta, crc
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// decodeName returns the name that was encoded, and s where that is none of
// ours. first is false for the later pieces of a long value.
func decodeName(s string) (name string, first bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '-' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch rest := s[i:]; {
		case strings.HasPrefix(rest, "-"):
			b.WriteByte('-')
		case strings.HasPrefix(rest, "u"):
			b.WriteByte('_')
		case strings.HasPrefix(rest, "p"):
			if _, err := strconv.ParseUint(rest[1:], 10, 16); err == nil {
				return "", false
			}
			return s, true
		default:
			return s, true
		}
	}
	return b.String(), true
}
