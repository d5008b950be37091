package gcs

import "strings"

// quote is put at the end of a value that is empty or has nothing but quotes:
// reads bring metadata in HTTP headers, where an empty value may get lost.
const quote = `"`

func onlyQuotes(value string) bool { return strings.Trim(value, quote) == "" }

// pack returns metadata as it is kept.
func pack(meta map[string]string) map[string]string {
	packed := make(map[string]string, len(meta))
	for name, value := range meta {
		if onlyQuotes(value) {
			value += quote
		}
		packed[name] = value
	}
	return packed
}

// unpack returns the metadata as it was. Names come back from a read with the
// capitals of HTTP headers, which ours never have.
func unpack(packed map[string]string) map[string]string {
	var meta map[string]string
	for name, value := range packed {
		if value != "" && onlyQuotes(value) {
			value = value[1:]
		}
		if meta == nil {
			meta = make(map[string]string, len(packed))
		}
		meta[strings.ToLower(name)] = value
	}
	return meta
}
