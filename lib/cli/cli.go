// Package cli is the main of a walg program: it claims standard output before
// all else, parses options with their defaults from the environment, turns
// errors into one message and one exit status, and stamps the output as the
// last act. It is the only package that reads the environment.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"walg/lib/fault"
	"walg/lib/pipe"
)

// Version is set when a release is built.
var Version = "development"

// Program is one walg program, or one command of it.
type Program struct {
	Name     string // "walg-put", or "create" for a command
	Synopsis string // what follows the name on the usage line
	About    string // what it does, in a few lines
	// Setup declares the options and returns what runs after they are
	// parsed. A program has either Setup or Commands.
	Setup    func(f *Flags) Run
	Commands []Program
	// Warns makes the program warn of settings without effect. Of each
	// pipeline one program does: the one that knows the storage.
	Warns bool
	// Memory is how many bytes a program that holds little may grow to before
	// it collects what is left lying; 0 leaves that to Go.
	Memory int64
}

// Run is the work of a program. A nil error means done, and durable.
type Run func(ctx context.Context, e *Env) error

// Env is what a program runs in.
type Env struct {
	Name     string   // for messages
	Operands []string // arguments that are not options
	Command  []string // after "--", or nil
	Stdout   *pipe.End
	ends     []*pipe.End // streams to stamp at the end
	meter    meter
	line     []string // the command line, for hints
}

// Setting returns the value of a setting that has no option, without the line
// end that files and here-documents leave behind.
func (e *Env) Setting(name string) string {
	if _, known := settings[name]; !known {
		panic("setting without a class: " + name)
	}
	return setting(name)
}

// Lookup is Setting for the storages, whose settings have several names each.
func (e *Env) Lookup(name string) string { return setting(name) }

func setting(name string) string { return strings.TrimRight(os.Getenv(name), "\r\n") }

// Warn writes a warning to standard error.
func (e *Env) Warn(format string, args ...any) {
	e.Say("warning: " + fmt.Sprintf(format, args...))
}

// Say writes a line to standard error.
func (e *Env) Say(line string) { fmt.Fprintf(os.Stderr, "%s: %s\n", e.Name, line) }

// Main runs the program and exits.
func Main(p Program) {
	// The first act, before options are read: who dies after this is known
	// to have been here.
	stdout := pipe.Claim(os.Stdout)
	e := &Env{Name: p.Name, Stdout: stdout, ends: []*pipe.End{stdout}, line: os.Args}

	// Buffers are pooled and what else is left lying is small. A program that
	// runs for milliseconds should not spend them on collecting it.
	debug.SetGCPercent(400)
	if p.Memory > 0 {
		debug.SetMemoryLimit(p.Memory)
	}
	e.meter.listen(e)
	ctx, cancel := context.WithCancel(context.Background())
	caught := catch(cancel)
	err := run(ctx, e, p, os.Args[1:])
	e.meter.stop(e)

	status := fault.Status(err)
	switch {
	case len(caught) > 0:
		dieOf(<-caught)
	case errors.Is(err, pipe.ErrReaderGone):
		dieOf(syscall.SIGPIPE)
	}
	if err != nil {
		e.Say(err.Error())
		if hint := fault.Hint(err); hint != "" {
			e.Say("hint: " + hint)
		}
	}
	for _, end := range e.ends {
		if serr := end.Stamp(status); serr != nil && status == fault.OK {
			e.Say("stamp output: " + serr.Error())
			status = fault.Failed
		}
	}
	os.Exit(status)
}

// run finds the command, parses and runs.
func run(ctx context.Context, e *Env, p Program, args []string) error {
	name := p.Name
	if p.Commands != nil {
		if len(args) > 0 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
			return e.print(overview(p))
		}
		if len(args) > 0 && args[0] == "--version" {
			return e.print(p.Name + " " + Version + "\n")
		}
		var names []string
		found := false
		for _, c := range p.Commands {
			names = append(names, c.Name)
			if len(args) > 0 && c.Name == args[0] {
				c.Warns = p.Warns
				p, found = c, true
			}
		}
		if !found {
			what := "no command"
			if len(args) > 0 {
				what = fmt.Sprintf("unknown command %q", args[0])
			}
			return fault.WithHint(fault.New(fault.Usage, "%s", what),
				"the commands are %s; see %s --help", strings.Join(names, ", "), name)
		}
		args = args[1:]
		name += " " + p.Name
	}
	f := newFlags(name, setting)
	work := p.Setup(f)
	progress := f.Bool("progress", "", "", "show bytes, rate and time on standard error")
	version := f.Bool("version", "", "", "print the version")
	f.Bool("help", "h", "", "print this help")
	var err error
	e.Operands, e.Command, err = f.parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp) || err == nil && f.Changed("help"):
		return e.print(fmt.Sprintf("usage: %s %s\n\n%s\n\n%s", name, p.Synopsis, p.About, f.help()))
	case err != nil:
		return fault.WithHint(err, "see %s --help", name)
	case *version:
		return e.print(name + " " + Version + "\n")
	}
	warnings, err := checkSettings(os.Environ())
	if err != nil {
		return err
	}
	if p.Warns {
		for _, w := range warnings {
			e.Warn("%s", w)
		}
	}
	if *progress {
		e.meter.show(e)
	}
	return work(ctx, e)
}

func overview(p Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s COMMAND [OPTION]...\n\n%s\n\n", p.Name, p.About)
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "  %s %s\n", c.Name, c.Synopsis)
	}
	fmt.Fprintf(&b, "\n%s COMMAND --help lists the options of a command.\n", p.Name)
	return b.String()
}

// print writes to standard output what the user asked to read.
func (e *Env) print(text string) error {
	_, err := e.Stdout.Write([]byte(text))
	return err
}

// grace is how long a program that was told to stop may clean up. A write to a
// stalled reader cannot be interrupted; its end is the signal's.
const grace = 2 * time.Second

// catch makes signals end the work in order, so that temporary files and
// commands go with it. An interrupt or hangup that the parent ignores stays
// ignored; Go's runtime does not tell us that of SIGTERM.
func catch(cancel func()) <-chan os.Signal {
	in, out := make(chan os.Signal, 1), make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(in, s)
		}
	}
	// With a listener a write to a closed pipe returns an error instead of
	// killing us on the spot; Main then dies of SIGPIPE after the cleaning.
	if !signal.Ignored(syscall.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	}
	go func() {
		s := <-in
		out <- s
		cancel()
		time.Sleep(grace)
		dieOf(s)
	}()
	return out
}

// dieOf ends the program by the signal that ended its work, so that the parent
// sees the truth. No stamp is left.
func dieOf(s os.Signal) {
	signal.Reset(s)
	if sig, ok := s.(syscall.Signal); ok {
		raise(sig)
		os.Exit(128 + int(sig)) // where signals cannot be sent
	}
	os.Exit(fault.Failed)
}
