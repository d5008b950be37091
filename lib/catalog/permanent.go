package catalog

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"

	"walg/lib/fault"
)

// SetPermanent returns the metadata.json of a backup with another value of
// is_permanent. All else stays byte for byte, also what we do not know.
// Metadata that ReadMetadata would refuse is an error of status 65.
func SetPermanent(backup string, metadata []byte, permanent bool) ([]byte, error) {
	if _, err := ReadMetadata(backup, bytes.NewReader(metadata)); err != nil {
		return nil, err
	}
	word := strconv.FormatBool(permanent)
	var out []byte
	done := 0 // of metadata, in out
	dec := json.NewDecoder(bytes.NewReader(metadata))
	dec.Token() // the brace; that it is valid is known
	found, empty := false, true
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			return nil, fault.New(fault.Data, "read %s: %w", MetadataKey(backup), err)
		}
		if empty = false; name == "is_permanent" {
			end := int(dec.InputOffset())
			out = append(append(out, metadata[done:end-len(value)]...), word...)
			done, found = end, true
		}
	}
	if _, err := dec.Token(); err != nil && err != io.EOF {
		return nil, fault.New(fault.Data, "read %s: %w", MetadataKey(backup), err)
	}
	if end := int(dec.InputOffset()) - 1; !found {
		out = append(out, metadata[:end]...)
		if !empty {
			out = append(out, ',')
		}
		out = append(append(out, `"is_permanent":`...), word...)
		done = end
	}
	return append(out, metadata[done:]...), nil
}
