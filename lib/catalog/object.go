package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"walg/lib/fault"
)

const (
	// maxValue is the length of everything that is kept of one JSON object, in
	// bytes. User data and a Spec of ten thousand tablespaces are far below it.
	maxValue = 16 << 20
	// maxDepth is how deep the values may be that are read past.
	maxDepth = 1000
)

var errTooLarge = fmt.Errorf("a value of more than %d bytes", maxValue)

// readObject decodes the one JSON object that r holds into v, a pointer to a
// struct, and reads past the values of the keys in skip, however long they
// are. An error of r stays what it is; everything else that is wrong has
// status 65. Both name key.
func readObject(key string, r io.Reader, v any, skip ...string) error {
	src := &meter{r: r}
	err := decodeObject(src, v, skip)
	switch {
	case err == nil:
		return nil
	case src.err != nil:
		return fmt.Errorf("read %s: %w", key, src.err)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.Data, "read %s: %w", key, err)
}

func decodeObject(src *meter, v any, skip []string) error {
	dec := json.NewDecoder(src)
	token, err := dec.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	fields := map[string]json.RawMessage{}
	size := 0
	for {
		src.since = 0
		if token, err = dec.Token(); err != nil {
			return err
		}
		if token == json.Delim('}') {
			break
		}
		name := token.(string) // inside an object nothing else can come here
		if slices.Contains(skip, name) {
			if err := pass(dec, src); err != nil {
				return err
			}
			continue
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if size += len(name) + len(value); size > maxValue {
			return errTooLarge
		}
		fields[name] = value
	}
	if _, err := dec.Token(); err != io.EOF {
		if err == nil {
			err = errors.New("something follows the JSON object")
		}
		return err
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return json.Unmarshal(whole, v)
}

// pass reads past one value.
func pass(dec *json.Decoder, src *meter) error {
	for depth := 0; ; {
		src.since = 0
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		if depth > maxDepth {
			return fmt.Errorf("values nested more than %d deep", maxDepth)
		}
	}
}

// meter bounds what the decoder takes in for one value, which it would
// hold in memory, and remembers an error of the reader as against one of the
// JSON.
type meter struct {
	r     io.Reader
	since int // bytes since the last value began
	err   error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.since > maxValue {
		return 0, errTooLarge
	}
	n, err := m.r.Read(p)
	m.since += n
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}
