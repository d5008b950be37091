// Package policy is what users say of the backups that they want to keep, in the
// words of wal-g delete.
package policy

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
)

// Mode is the first word of a policy.
type Mode string

// The modes of wal-g delete.
const (
	Retain     Mode = "retain"     // keep the newest Count
	Before     Mode = "before"     // remove what is older than From
	Everything Mode = "everything" // remove all
	Target     Mode = "target"     // remove one backup and what is based on it
	Garbage    Mode = "garbage"    // remove what is older than the oldest backup, and so of no use
)

// The words that may follow a mode.
const (
	Full     = "FULL"      // count full backups only
	FindFull = "FIND_FULL" // take the full backup that is needed
	Force    = "FORCE"     // permanent backups too
	Archives = "ARCHIVES"  // WAL only
	Leftover = "BACKUPS"   // backups that were never finished only
)

// Point is a place in the row of backups: a backup, or a time.
type Point struct {
	Name string // of a backup, what it begins with, or LATEST
	Time time.Time
	UTC  bool // the time was given without a zone
}

func (p Point) String() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Time.Format(time.RFC3339Nano)
}

// Policy says what is to stay.
type Policy struct {
	Mode     Mode
	Modifier string          // one of the words, or empty
	Count    int             // of Retain
	From     Point           // of Before; of Target the Name, or none
	After    *Point          // of Retain: keep what is newer than this too
	UserData json.RawMessage // of Target: the backup with this user data

	// System limits the policy to the backups of one cluster; those of others
	// stay. 0 is no limit, and where there are several an error.
	System catalog.Number
	// Now and Grace tell a backup that is being made from one that was never
	// finished: its newest object is younger than Grace.
	Now   time.Time
	Grace time.Duration
	// SegmentSize is that of WAL, in bytes.
	SegmentSize uint64
	// Exts are extensions of objects beside WAL-G's.
	Exts []string
	// Pinned backups stay whatever the policy says, each with the reason.
	Pinned map[string]string
}

func (p Policy) String() string {
	operand := p.From.String()
	switch p.Mode {
	case Retain:
		operand = strconv.Itoa(p.Count)
	case Everything, Garbage:
		operand = ""
	}
	if p.UserData != nil {
		operand = "--target-user-data " + string(p.UserData)
	}
	return strings.Join(strings.Fields(string(p.Mode)+" "+p.Modifier+" "+operand), " ")
}

// modes are the words that each mode takes: modifiers, then whether an operand
// follows.
var modes = map[Mode]struct {
	modifiers []string
	operand   string
}{
	Retain:     {[]string{Full, FindFull}, "NUMBER"},
	Before:     {[]string{FindFull}, "NAME or TIME"},
	Everything: {[]string{Force}, ""},
	Target:     {[]string{FindFull}, "NAME"},
	Garbage:    {[]string{Archives, Leftover}, ""},
}

// Parse reads the words of a command line, such as "retain FULL 3", and
// the values of --after and --target-user-data, empty where they are not given.
// Everything that is wrong is status 64.
func Parse(words []string, after, userData string) (Policy, error) {
	if len(words) == 0 {
		return Policy{}, fault.New(fault.Usage, "nothing says what to delete: retain, before, everything, target or garbage")
	}
	p := Policy{Mode: Mode(words[0])}
	mode, known := modes[p.Mode]
	if !known {
		return Policy{}, fault.New(fault.Usage, "delete %s: want retain, before, everything, target or garbage", words[0])
	}
	operands := words[1:]
	if len(operands) > 0 && slices.Contains(mode.modifiers, operands[0]) {
		p.Modifier, operands = operands[0], operands[1:]
	}
	if userData != "" {
		if p.Mode != Target {
			return Policy{}, fault.New(fault.Usage, "delete %s: --target-user-data goes with target only", p.Mode)
		}
		if !json.Valid([]byte(userData)) {
			return Policy{}, fault.New(fault.Usage, "delete target: --target-user-data %s: not JSON", userData)
		}
		p.UserData, mode.operand = json.RawMessage(userData), ""
	}
	switch {
	case mode.operand == "" && len(operands) > 0, len(operands) > 1:
		return Policy{}, fault.New(fault.Usage, "delete %s: %q is one word too many", p.Mode, operands[len(operands)-1])
	case mode.operand != "" && len(operands) == 0:
		return Policy{}, fault.New(fault.Usage, "delete %s: no %s is given", p.Mode, mode.operand)
	}
	if after != "" {
		if p.Mode != Retain {
			return Policy{}, fault.New(fault.Usage, "delete %s: --after goes with retain only", p.Mode)
		}
		at, err := ParsePoint(after)
		if err != nil {
			return Policy{}, err
		}
		p.After = &at
	}
	if mode.operand == "" {
		return p, nil
	}
	var err error
	switch p.Mode {
	case Retain:
		p.Count, err = strconv.Atoi(operands[0])
		if err != nil || p.Count < 1 {
			err = fault.New(fault.Usage, "delete retain %s: not a number above 0", operands[0])
		}
	case Before:
		p.From, err = ParsePoint(operands[0])
	case Target:
		p.From.Name, err = parseName(operands[0])
	}
	return p, err
}

// zoneless is a time as WAL-G's documentation writes it.
const zoneless = "2006-01-02T15:04:05"

// ParsePoint reads the name of a backup or a time of RFC 3339. One without a zone
// is in UTC.
func ParsePoint(text string) (Point, error) {
	for _, layout := range []string{time.RFC3339Nano, zoneless} {
		if t, err := time.Parse(layout, text); err == nil {
			return Point{Time: t, UTC: layout == zoneless}, nil
		}
	}
	if len(text) >= 5 && strings.Trim(text[:4], "0123456789") == "" && text[4] == '-' {
		return Point{}, fault.New(fault.Usage, "%q is no time such as %s or %sZ", text, zoneless, zoneless)
	}
	name, err := parseName(text)
	return Point{Name: name}, err
}

func parseName(text string) (string, error) {
	if text != catalog.Latest && !catalog.ValidName(text) {
		return "", fault.New(fault.Usage, "%q cannot be the name of a backup", text)
	}
	return text, nil
}
