package driver

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"walg/lib/fault"
)

// Settings reads the settings of a storage. The first that is wrong is kept:
// ask Err after the last.
type Settings struct {
	Get   func(name string) string // the environment; "" is not set
	Stall time.Duration            // of each request
	err   error
}

// Err returns the first error, of status 64, under the setting's name.
func (s *Settings) Err() error { return s.err }

func (s *Settings) fail(name, value, want string) {
	if s.err == nil {
		s.err = fault.New(fault.Usage, "setting %s=%s: want %s", name, value, want)
	}
}

// find looks for the setting bare, then as WALG_name and WALE_name, as WAL-G
// does, and returns the name under which it was found.
func (s *Settings) find(name string) (string, string) {
	bare := strings.TrimPrefix(name, "WALG_")
	for _, name := range []string{bare, "WALG_" + bare, "WALE_" + bare} {
		if value := s.Get(name); value != "" {
			return name, value
		}
	}
	return name, ""
}

// Text returns the value of the first of names that is set. Control characters
// are refused, and not shown: a secret with a line end in it would end up in a
// header.
func (s *Settings) Text(names ...string) string {
	for _, name := range names {
		name, value := s.find(name)
		if strings.ContainsFunc(value, unicode.IsControl) {
			s.fail(name, "...", "no line end or other control character in it")
		}
		if value != "" {
			return value
		}
	}
	return ""
}

// Choice returns the value, which must be one of choices, or def.
func (s *Settings) Choice(name, def string, choices ...string) string {
	name, value := s.find(name)
	if value == "" {
		return def
	}
	if !slices.Contains(choices, value) {
		s.fail(name, value, "one of "+strings.Join(choices, ", "))
	}
	return value
}

// Bool returns a value as strconv.ParseBool reads it, or def.
func (s *Settings) Bool(name string, def bool) bool {
	name, value := s.find(name)
	if value == "" {
		return def
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		s.fail(name, value, "true or false")
	}
	return on
}

// Int returns a whole number that is least or more, or def.
func (s *Settings) Int(name string, def, least int64) int64 {
	name, value := s.find(name)
	if value == "" {
		return def
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least {
		s.fail(name, value, "a whole number, "+strconv.FormatInt(least, 10)+" or more")
		return def
	}
	return n
}

// Span returns a number of units as a time, or def.
func (s *Settings) Span(name string, unit, def time.Duration) time.Duration {
	n := s.Int(name, int64(def/unit), 0)
	if n > int64(1<<62/unit) {
		s.fail(name, strconv.FormatInt(n, 10), "a shorter time")
		return def
	}
	return time.Duration(n) * unit
}
