// Package fault holds the kinds of failure that a walg program can end with,
// and the exit status of each. The numbers follow sysexits(3); they are part
// of the interface between programs, because a failing stage stamps its status
// onto its pipe and the next stage exits with it.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
)

// Exit statuses of every walg program.
const (
	OK       = 0  // done, and durable
	Failed   = 1  // failed; trying again may help
	Usage    = 64 // usage or configuration: trying again will not help
	Data     = 65 // data is corrupt, truncated or not ours
	Absent   = 66 // no such object
	Exists   = 73 // the object exists already
	Unearned = 76 // the input ended before its producer had finished
)

// Error is a failure whose exit status is known where it happened.
type Error struct {
	Status int    // one of the statuses above, or 1 to 125 from an upstream stage
	Err    error  // operation, object, cause
	Hint   string // what to do, or empty
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// New returns an error with an exit status; format is as for fmt.Errorf.
func New(status int, format string, args ...any) error {
	return &Error{Status: status, Err: fmt.Errorf(format, args...)}
}

// WithHint returns err with a sentence that says what to do. It keeps the
// status of err.
func WithHint(err error, format string, args ...any) error {
	return &Error{Status: Status(err), Err: err, Hint: fmt.Sprintf(format, args...)}
}

// Status returns the exit status for err: the status of the outermost *Error
// in its chain; without one 66 for fs.ErrNotExist, 73 for fs.ErrExist, 1 for
// everything else, and 0 for nil.
func Status(err error) int {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Status
	case errors.Is(err, fs.ErrNotExist):
		return Absent
	case errors.Is(err, fs.ErrExist):
		return Exists
	}
	return Failed
}

// Hint returns the outermost hint in err's chain, or "".
func Hint(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
