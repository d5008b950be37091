package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"walg/lib/fault"
)

// Flags declares the options of one program. An option may name the setting
// that is its default; --help shows it beside the option, and a value that
// does not parse is status 64 under the name that the user wrote.
type Flags struct {
	set    *pflag.FlagSet
	lookup func(name string) string // the environment
	env    map[string]string        // option to setting
	given  map[string]bool          // options on the command line
	err    error                    // the first bad setting
}

func newFlags(name string, lookup func(string) string) *Flags {
	set := pflag.NewFlagSet(name, pflag.ContinueOnError)
	set.SortFlags = false
	set.Usage = func() {}
	return &Flags{set: set, lookup: lookup, env: make(map[string]string)}
}

// String declares an option with a text value. letter and setting may be empty.
func (f *Flags) String(name, letter, setting, value, usage string) *string {
	p := f.set.StringP(name, letter, value, usage)
	f.bind(name, setting)
	return p
}

// Strings declares an option that may be given several times.
func (f *Flags) Strings(name, letter, usage string) *[]string {
	return f.set.StringArrayP(name, letter, nil, usage)
}

// Bool declares an option without a value.
func (f *Flags) Bool(name, letter, setting, usage string) *bool {
	p := f.set.BoolP(name, letter, false, usage)
	f.bind(name, setting)
	return p
}

// Int declares an option with a whole number that is least or more.
func (f *Flags) Int(name, letter, setting string, value, least int64, usage string) *int64 {
	n := number{least: least}
	n.value = value
	f.set.VarP(&n, name, letter, usage)
	f.bind(name, setting)
	return &n.value
}

// Size declares an option with a number of bytes, where k, M and G stand for
// powers of 1024.
func (f *Flags) Size(name, letter, setting string, value int64, usage string) *int64 {
	s := size{value}
	f.set.VarP(&s, name, letter, usage)
	f.bind(name, setting)
	return &s.value
}

// Duration declares an option with a time span such as 5s or 1h.
func (f *Flags) Duration(name string, value time.Duration, usage string) *time.Duration {
	return f.set.Duration(name, value, usage)
}

// Given reports whether the option itself was given, its setting aside.
func (f *Flags) Given(name string) bool { return f.given[name] }

// Changed reports whether the option was given or its setting is set.
func (f *Flags) Changed(name string) bool { return f.set.Changed(name) }

// bind takes the default of an option from the environment.
func (f *Flags) bind(name, setting string) {
	if setting == "" {
		return
	}
	if _, known := settings[setting]; !known {
		panic("setting without a class: " + setting)
	}
	f.env[name] = setting
	value := f.lookup(setting)
	if value == "" {
		return
	}
	if err := f.set.Set(name, value); err != nil && f.err == nil {
		f.err = fault.New(fault.Usage, "setting %s=%s: %w", setting, value, cause(err))
	}
}

// parse parses the arguments: options and operands in any order, and after
// "--" a command.
func (f *Flags) parse(args []string) (operands, command []string, err error) {
	f.given = make(map[string]bool)
	err = f.set.ParseAll(args, func(o *pflag.Flag, value string) error {
		f.given[o.Name] = true
		return f.set.Set(o.Name, value)
	})
	if err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, nil, err
		}
		return nil, nil, fault.New(fault.Usage, "%w", err)
	}
	operands = f.set.Args()
	if at := f.set.ArgsLenAtDash(); at >= 0 {
		operands, command = operands[:at], operands[at:]
		if len(command) == 0 {
			return nil, nil, fault.New(fault.Usage, "no COMMAND after --")
		}
	}
	return operands, command, f.err
}

// help returns the options, one or more lines each.
func (f *Flags) help() string {
	var b strings.Builder
	f.set.VisitAll(func(o *pflag.Flag) {
		head := "      --" + o.Name
		if o.Shorthand != "" {
			head = "  -" + o.Shorthand + ", --" + o.Name
		}
		kind, usage := pflag.UnquoteUsage(o)
		if kind != "" {
			head += " " + strings.ToUpper(kind)
		}
		if len(head) > 30 {
			head += "\n" + strings.Repeat(" ", 30)
		}
		fmt.Fprintf(&b, "%-30s %s", head, usage)
		if s := f.env[o.Name]; s != "" {
			fmt.Fprintf(&b, " [$%s]", s)
		}
		if d := o.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "-1" && d != "[]" {
			fmt.Fprintf(&b, " (default %s)", d)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// number is an int64 with a lower bound.
type number struct{ value, least int64 }

func (n *number) String() string { return strconv.FormatInt(n.value, 10) }
func (n *number) Type() string   { return "n" }
func (n *number) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return errors.New("not a whole number")
	}
	if v < n.least {
		return fmt.Errorf("less than %d", n.least)
	}
	n.value = v
	return nil
}

// size is a number of bytes.
type size struct{ value int64 }

func (z *size) String() string { return strconv.FormatInt(z.value, 10) }
func (z *size) Type() string   { return "bytes" }
func (z *size) Set(s string) error {
	shift := 0
	switch digits := strings.TrimRight(s, "kKMG"); s[len(digits):] {
	case "":
	case "k", "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	default:
		return errors.New("not a number of bytes")
	}
	v, err := strconv.ParseInt(strings.TrimRight(s, "kKMG"), 10, 64)
	if err != nil || v < 0 || v > 1<<62>>shift {
		return errors.New("not a number of bytes")
	}
	z.value = v << shift
	return nil
}

// cause is the part of a pflag error that does not repeat option and value.
func cause(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
