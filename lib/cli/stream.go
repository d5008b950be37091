package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/pipe"
)

// Streams are the options that every filter has for its input and output.
type Streams struct {
	commits      bool
	file         *string
	through      *bool
	force, trust *bool
	idle, linger *time.Duration
}

// Input declares the options for an input. commits says that the program
// commits what it reads and therefore refuses an end of file that nobody
// earned.
func (f *Flags) Input(commits bool) *Streams {
	s := f.streams()
	s.commits = commits
	if commits {
		s.trust = f.Bool("trust-eof", "", "WALG_TRUST_EOF", "take the end of a foreign pipe for the end of good data")
	}
	s.idle = f.Duration("idle-input", 0, "fail when the input brings nothing for this `time`; 0 waits for ever")
	return s
}

// OutputOnly declares the options of a program that reads no stream.
func (f *Flags) OutputOnly() *Streams { return f.streams().Output(f) }

// streams declares what every filter has.
func (f *Flags) streams() *Streams {
	return &Streams{
		force:  f.Bool("force", "f", "", "read and write binary data on a terminal"),
		linger: f.Duration("linger", 5*time.Second, "how long the output of a command may stay open after its exit, a `time`"),
		trust:  new(bool),
		idle:   new(time.Duration),
	}
}

// Output adds the options for an output.
func (s *Streams) Output(f *Flags) *Streams {
	s.file = f.String("output", "o", "", "", "write to `file`, which appears whole and durable or not at all")
	return s
}

// Through adds --through, which puts a program of the user's in the place of
// the filter's own work.
func (s *Streams) Through(f *Flags) *Streams {
	s.through = f.Bool("through", "", "", "let COMMAND do the work, between the same input and output")
	return s
}

// Filter opens input and output, lets stage do its work between them, or
// COMMAND with --through, and commits the output where all went well. stage
// says with Follow or FollowEnd how its output depends on the input's end.
func (s *Streams) Filter(ctx context.Context, e *Env, stage func(out *pipe.Output, in *pipe.Input) error) error {
	var command []string
	if *s.through {
		if e.Command == nil {
			return fault.New(fault.Usage, "--through needs -- COMMAND")
		}
		command, e.Command = e.Command, nil
	}
	in, err := s.Open(ctx, e, e.Operands)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.Create(e)
	if err != nil {
		return err
	}
	defer out.Abort()
	if command != nil {
		out.Follow(in)
		if err = pipe.Through(ctx, out, in, command, s.Policy(e)); err != nil {
			err = fmt.Errorf("pass %s through %s: %w", in.Name(), command[0], err)
		}
	} else {
		err = stage(out, in)
	}
	if err != nil {
		return err
	}
	return out.Commit()
}

// Policy returns the policy for inputs and commands.
func (s *Streams) Policy(e *Env) pipe.Policy {
	p := pipe.Policy{
		Commits: s.commits,
		Force:   *s.force,
		Idle:    *s.idle,
		Linger:  *s.linger,
		Trust:   *s.trust,
		Warn:    func(m string) { e.Warn("%s", m) },
	}
	if s.commits {
		p.Hint = "let it run the producer and see its exit status: " + strings.Join(e.line, " ") +
			" -- COMMAND, nested as in " + e.Name + " ... -- walg-crypt -- walg-compress FILE; or take its word with --trust-eof"
	}
	return p
}

// Open opens the input: COMMAND's output, the FILE among operands (none or
// one), or standard input; and shows its progress.
func (s *Streams) Open(ctx context.Context, e *Env, operands []string) (*pipe.Input, error) {
	var in *pipe.Input
	var err error
	switch {
	case len(operands) > 1:
		return nil, fault.New(fault.Usage, "more than one FILE: %s", strings.Join(operands, " "))
	case len(operands) == 1 && e.Command != nil:
		return nil, fault.New(fault.Usage, "both a FILE and a COMMAND")
	case e.Command != nil:
		in, err = pipe.Command(ctx, e.Command, s.Policy(e))
	case len(operands) == 1:
		in, err = pipe.Open(ctx, operands[0], s.Policy(e))
	default:
		in, err = pipe.Stdin(ctx, s.Policy(e))
	}
	if err != nil {
		return nil, err
	}
	e.Count(func() (int64, int64) { return in.Bytes(), in.Total() })
	return in, nil
}

// Create opens the output of -o.
func (s *Streams) Create(e *Env) (*pipe.Output, error) { return e.Create(*s.file, *s.force) }

// Create opens an output: file, or standard output where it is empty. The
// stamp is set when the program ends.
func (e *Env) Create(file string, force bool) (*pipe.Output, error) {
	if file == "" {
		return pipe.Stdout(e.Stdout, force), nil
	}
	out, err := pipe.Create(file, e.Stdout, force)
	if err != nil {
		return nil, err
	}
	if out.End() != e.Stdout {
		e.ends = append(e.ends, out.End())
	}
	return out, nil
}
