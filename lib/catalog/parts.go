package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"walg/lib/fault"
)

// maxParts is how many parts a backup may have: 1 PiB of the usual size.
const maxParts = 1 << 20

// ReadParts reads the names of a backup's parts, sorted, from its
// files_metadata.json. The lists of files, however long, are passed over
// without being held. The part of pg_control is not among the names.
func ReadParts(backup string, r io.Reader) ([]string, error) {
	key := FilesKey(backup)
	src := &meter{r: r}
	names, err := partNames(json.NewDecoder(src), src)
	switch {
	case err == nil:
		slices.Sort(names)
		return slices.Compact(names), nil
	case src.err != nil:
		return nil, fmt.Errorf("read %s: %w", key, src.err)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, fault.New(fault.Data, "read %s: %w", key, err)
}

func partNames(dec *json.Decoder, src *meter) (names []string, err error) {
	err = eachKey(dec, src, func(key string) error {
		if key != "TarFileSets" {
			return pass(dec, src)
		}
		return eachKey(dec, src, func(part string) error {
			if names = append(names, part); len(names) > maxParts {
				return fmt.Errorf("more than %d parts", maxParts)
			}
			return pass(dec, src)
		})
	})
	if err != nil {
		return nil, err
	}
	src.since = 0
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return names, nil
}

// eachKey reads one object, or null, and has value read the value of each key.
func eachKey(dec *json.Decoder, src *meter, value func(key string) error) error {
	src.since = 0
	switch token, err := dec.Token(); {
	case err != nil:
		return err
	case token == nil:
		return nil
	case token != json.Delim('{'):
		return errors.New("not a JSON object")
	}
	for {
		src.since = 0
		token, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok { // the end of the object
			return nil
		}
		if err := value(key); err != nil {
			return err
		}
	}
}
