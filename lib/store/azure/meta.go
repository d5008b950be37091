package azure

import (
	"fmt"
	"strconv"
	"strings"
)

// sumName is the metadata that holds the CRC32C of the whole, as 8 hex digits.
// No name that pack makes of a user's has an underscore followed by a c.
const sumName = "walg_crc32c"

// Azure's names of metadata are identifiers, and we never see their case: a
// hyphen and an underscore are written as _ and two hex digits.
var (
	escape   = strings.NewReplacer("_", "_5f", "-", "_2d")
	unescape = strings.NewReplacer("_5f", "_", "_2d", "-")
)

// quote is put at the end of a value that is empty or has nothing but quotes:
// Azure keeps no empty values.
const quote = `"`

func onlyQuotes(value string) bool { return strings.Trim(value, quote) == "" }

// pack returns metadata as Azure keeps it, with the checksum.
func pack(meta map[string]string, sum uint32) map[string]*string {
	packed := make(map[string]*string, len(meta)+1)
	for name, value := range meta {
		if onlyQuotes(value) {
			value += quote
		}
		packed[escape.Replace(name)] = &value
	}
	text := fmt.Sprintf("%08x", sum)
	packed[sumName] = &text
	return packed
}

// unpack returns the metadata as it was, without the checksum, and the
// checksum, nil where there is none.
func unpack(packed map[string]*string) (map[string]string, *uint32) {
	var meta map[string]string
	var sum *uint32
	for name, p := range packed {
		name, value := strings.ToLower(name), deref(p)
		if name == sumName {
			if n, err := strconv.ParseUint(value, 16, 32); err == nil && len(value) == 8 {
				sum = new(uint32)
				*sum = uint32(n)
			}
			continue
		}
		if value != "" && onlyQuotes(value) {
			value = value[1:]
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[unescape.Replace(name)] = value
	}
	return meta, sum
}
