package pipe

import (
	"context"
	"errors"
	"io"
	"os"

	"walg/lib/child"
	"walg/lib/fault"
)

// warnPipes says what no pipe can show.
func warnPipes(argv []string, p Policy) {
	if where := child.HidesPipes(argv); where != "" && p.Warn != nil {
		p.Warn("only the last program of a pipeline inside " + where +
			" reports its failure; use bash -o pipefail -c, or end it in a walg filter that reads its own producer with --")
	}
}

// Command starts argv as the producer of the input. Its standard input is
// /dev/null, and its output counts as whole only where it exits 0.
func Command(ctx context.Context, argv []string, p Policy) (*Input, error) {
	warnPipes(argv, p)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	grow(r)
	c, err := child.Start(argv, child.Options{Stdout: w, Asks: true, Otherwise: fault.Unearned, Linger: p.Linger})
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	return produced(ctx, argv, r, c, p)
}

// produced is the output of a command as an input.
func produced(ctx context.Context, argv []string, r *os.File, c *child.Child, p Policy) (*Input, error) {
	in := &Input{ctx: ctx, policy: p, name: argv[0], f: r, kind: command, command: c, honest: child.ReportsPipes(argv), total: -1}
	if err := in.watch(); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// Consumer is a command that this program feeds. Its standard input is an
// anonymous pipe with our stamp, so that a walg program in it knows whether we
// finished; any other is killed when we do not.
type Consumer struct {
	ctx     context.Context
	end     *End
	command *child.Child
}

// Consume starts argv with additions to its environment; its output goes where
// ours goes. Write feeds it and Close ends it.
func Consume(ctx context.Context, argv, env []string, p Policy) (*Consumer, error) {
	return consume(ctx, argv, env, os.Stdout, false, p)
}

func consume(ctx context.Context, argv, env []string, stdout *os.File, asks bool, p Policy) (*Consumer, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	end := Claim(w)
	c, err := child.Start(argv, child.Options{
		Stdin: r, Stdout: stdout, Env: env, Asks: asks, Otherwise: fault.Failed, Linger: p.Linger,
	})
	r.Close()
	if err != nil {
		w.Close()
		return nil, err
	}
	return &Consumer{ctx: ctx, end: end, command: c}, nil
}

// Write feeds p. Where the command has stopped reading, the error is why it
// ended.
func (c *Consumer) Write(p []byte) (int, error) {
	n, err := c.end.Write(p)
	if errors.Is(err, ErrReaderGone) {
		err = c.command.Wait(c.ctx)
		if err == nil {
			err = c.early()
		}
	}
	return n, err
}

// early is the failure of a command that exits with 0 and part of its input
// unread: it cannot have done its work on all of it.
func (c *Consumer) early() error {
	return fault.New(fault.Failed, "%s exited before it had read all of its input", c.command.Name())
}

// Taint tells the command that what it reads comes from an end of file that
// nobody earned.
func (c *Consumer) Taint() error { return c.end.Taint() }

// Close ends the command's input and returns its failure, if any. A nil err
// says that all was written: the stamp is set and the command may finish. Any
// other kills it and its process group, since to a foreign program a closed
// pipe would look like the end of good data; Close then returns err.
func (c *Consumer) Close(err error) error {
	if err == nil {
		err = c.end.Stamp(fault.OK)
	}
	if err != nil {
		c.command.Kill()
		c.end.f.Close()
		return err
	}
	unread := watchUnread(c.end.f)
	if err := c.end.f.Close(); err != nil {
		c.command.Kill()
		return err
	}
	if err := c.command.Wait(c.ctx); err != nil {
		c.command.Kill()
		return err
	}
	if unread() > 0 {
		return c.early()
	}
	return nil
}

// Through runs argv as the stage between in and dst: it gets what in yields,
// its input ends only where in's end was earned, and it is killed otherwise.
// An error of in comes before one of argv, which is its consequence.
func Through(ctx context.Context, dst io.Writer, in *Input, argv []string, p Policy) error {
	warnPipes(argv, p)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	grow(r)
	feed, err := consume(ctx, argv, nil, w, true, p)
	w.Close()
	if err != nil {
		r.Close()
		return err
	}
	through := p
	through.Commits = false
	out, err := produced(ctx, argv, r, feed.command, through)
	if err != nil {
		return feed.Close(err)
	}
	defer out.Close()

	fed := make(chan error, 1)
	go func() {
		_, err := Copy(tainting{feed, in}, in)
		if err == nil && in.Tainted() {
			err = feed.Taint()
		}
		fed <- feed.Close(err)
	}()
	_, err = Copy(dst, out)
	if err != nil {
		feed.command.Kill()
	}
	if ferr := <-fed; ferr != nil && (err == nil || in.failed()) {
		err = ferr
	}
	return err
}

// tainting passes the taint of in on before the first byte.
type tainting struct {
	c  *Consumer
	in *Input
}

func (t tainting) Write(p []byte) (int, error) {
	if t.in.Tainted() {
		if err := t.c.Taint(); err != nil {
			return 0, err
		}
	}
	return t.c.Write(p)
}

// failed reports whether the input itself ended in an error.
func (in *Input) failed() bool { return in.err != nil && in.err != io.EOF }
