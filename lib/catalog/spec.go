package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Spec says where the tablespaces of a backup were.
type Spec struct {
	BasePrefix  string // the data directory
	Tablespaces []Tablespace
}

// Tablespace is one of them.
type Tablespace struct {
	OID      string // decimal
	Location string // the directory, absolute
	Link     string // where its symbolic link is, below the data directory: pg_tblspc/OID
}

// location is a tablespace in WAL-G's JSON.
type location struct {
	Loc  string `json:"loc"`
	Link string `json:"link"`
}

// MarshalJSON writes WAL-G's form: the tablespaces by OID, the data directory
// under "base_prefix", and all OIDs under "tablespaces".
func (s Spec) MarshalJSON() ([]byte, error) {
	fields := map[string]any{}
	oids := make([]string, 0, len(s.Tablespaces))
	for _, t := range s.Tablespaces {
		if err := t.check(); err != nil {
			return nil, err
		}
		if _, twice := fields[t.OID]; twice {
			return nil, fmt.Errorf("tablespace %s: twice", t.OID)
		}
		fields[t.OID] = location{t.Location, t.Link}
		oids = append(oids, t.OID)
	}
	fields["base_prefix"], fields["tablespaces"] = s.BasePrefix, oids
	return json.Marshal(fields) // sorted: digits come before letters
}

// UnmarshalJSON reads WAL-G's form, and refuses what would lead a restore
// astray: a link that is not pg_tblspc/OID, a location that is not absolute.
func (s *Spec) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	var oids []string
	spec := Spec{}
	for name, into := range map[string]any{"base_prefix": &spec.BasePrefix, "tablespaces": &oids} {
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			delete(fields, name)
		}
	}
	if left := slices.Sorted(maps.Keys(fields)); !slices.Equal(left, slices.Sorted(slices.Values(oids))) {
		return fmt.Errorf("tablespaces %q, but locations of %q", oids, left)
	}
	for _, oid := range oids {
		var l location
		if err := json.Unmarshal(fields[oid], &l); err != nil {
			return fmt.Errorf("tablespace %s: %w", oid, err)
		}
		t := Tablespace{OID: oid, Location: l.Loc, Link: l.Link}
		if err := t.check(); err != nil {
			return err
		}
		spec.Tablespaces = append(spec.Tablespaces, t)
	}
	*s = spec
	return nil
}

func (t Tablespace) check() error {
	notDigit := func(r rune) bool { return r < '0' || r > '9' }
	var err error
	switch {
	case t.OID == "" || strings.ContainsFunc(t.OID, notDigit):
		err = errors.New("not a number")
	case t.Link != "pg_tblspc/"+t.OID:
		err = fmt.Errorf("link %q is not pg_tblspc/%s", t.Link, t.OID)
	case !path.IsAbs(t.Location) || strings.ContainsRune(t.Location, 0):
		err = fmt.Errorf("location %q is not an absolute path", t.Location)
	}
	if err != nil {
		return fmt.Errorf("tablespace %q: %w", t.OID, err)
	}
	return nil
}
