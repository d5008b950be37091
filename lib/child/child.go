// Package child runs a program under this one: in a process group of its own
// that is killed as a whole and dies with us, with its last words kept, and
// with an exit status that is ours to pass on.
package child

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"walg/lib/fault"
)

// Child is a running program. Only its exit status proves that its work is
// whole.
type Child struct {
	cmd       *exec.Cmd
	otherwise int
	words     *lastWords
	exited    chan struct{}
	err       error // of Wait; read after exited

	late    atomic.Bool // exited, and linger has passed
	mu      sync.Mutex
	onLate  func()
	release func() // gives the terminal back
}

// Options say how a child is started. It inherits no more than this.
type Options struct {
	Stdin     *os.File // nil for /dev/null
	Stdout    *os.File
	Env       []string      // additions to the environment, NAME=VALUE
	Asks      bool          // it may talk to the terminal, as ssh and gpg do
	Otherwise int           // our status where its own means nothing to a walg program
	Linger    time.Duration // how long after its exit its output may stay open
}

// Start starts a program. Its standard error goes to ours.
func Start(argv []string, o Options) (*Child, error) {
	c := &Child{
		cmd:       exec.Command(argv[0], argv[1:]...),
		otherwise: o.Otherwise,
		words:     &lastWords{},
		exited:    make(chan struct{}),
	}
	if o.Stdin != nil {
		c.cmd.Stdin = o.Stdin
	}
	c.cmd.Stdout = o.Stdout
	if o.Env != nil {
		c.cmd.Env = append(c.cmd.Environ(), o.Env...)
	}
	stderr, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stderr = theirs
	c.release = group(c.cmd, o.Asks)

	started := make(chan error)
	go func() {
		// PDEATHSIG follows the thread that forked, so that thread
		// must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		theirs.Close()
		started <- err
		if err != nil {
			return
		}
		relayed := make(chan struct{})
		go func() {
			defer close(relayed)
			defer stderr.Close()
			_, _ = io.Copy(io.MultiWriter(c.words, os.Stderr), stderr) // messages only
		}()
		c.err = c.cmd.Wait()
		select { // its last words are part of our message
		case <-relayed:
		case <-time.After(min(o.Linger, 100*time.Millisecond)):
		}
		c.release()
		close(c.exited)
		time.AfterFunc(o.Linger, c.lingered)
	}()
	if err := <-started; err != nil {
		stderr.Close()
		c.release()
		return nil, fault.New(fault.Usage, "run %s: %w", argv[0], err)
	}
	return c, nil
}

func (c *Child) lingered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late.Store(true)
	if c.onLate != nil {
		c.onLate()
	}
}

// OnLinger calls f when the child has exited and Options.Linger has passed.
func (c *Child) OnLinger(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late.Load() {
		f()
	}
	c.onLate = f
}

// Lingers reports whether that has happened. A nil child never does.
func (c *Child) Lingers() bool { return c != nil && c.late.Load() }

// Kill ends the whole process group, unless the command has exited: what it
// left behind on purpose is not ours.
func (c *Child) Kill() {
	select {
	case <-c.exited:
	default:
		killGroup(c.cmd)
		<-c.exited
	}
}

// Wait waits for the exit and returns nil only for status 0. The statuses that
// mean the same in every walg program are passed on.
func (c *Child) Wait(ctx context.Context) error {
	select {
	case <-c.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.err == nil {
		return nil
	}
	said := ""
	if w := c.words.String(); w != "" {
		said = ": " + w
	}
	var exit *exec.ExitError
	if !errors.As(c.err, &exit) {
		return fault.New(c.otherwise, "%s: %w", c.Name(), c.err)
	}
	status := c.otherwise
	switch code := exit.ExitCode(); code {
	case fault.Usage, fault.Data, fault.Absent, fault.Exists, fault.Unearned:
		status = code
	}
	return fault.New(status, "%s ended with %s%s", c.Name(), exit.ProcessState, said)
}

// Name returns the program's name as it was given.
func (c *Child) Name() string { return c.cmd.Args[0] }

// ReportsPipes reports whether argv's own status speaks for the stages of
// pipelines inside it.
func ReportsPipes(argv []string) bool {
	return strings.Contains(strings.Join(argv, " "), "pipefail")
}

// HidesPipes finds a pipeline in argv whose first stages can die unseen, and
// names what runs it: a shell with -c, however it is started, or a program that
// gives a line to a shell of its own. Marks do not come through ssh either.
func HidesPipes(argv []string) (where string) {
	if ReportsPipes(argv) {
		return ""
	}
	for i, arg := range argv {
		rest := argv[i+1:]
		if !slices.ContainsFunc(rest, hasPipe) {
			break
		}
		switch arg[strings.LastIndexByte(arg, '/')+1:] {
		case "sh", "dash", "ash", "bash", "ksh", "zsh":
			if slices.ContainsFunc(rest, func(o string) bool { return o[:min(len(o), 1)] == "-" && strings.Contains(o, "c") }) {
				return arg + " -c"
			}
		case "ssh", "su", "runuser":
			return arg
		}
	}
	return ""
}

func hasPipe(line string) bool { return strings.Contains(strings.ReplaceAll(line, "||", ""), "|") }

// lastWords keeps the last line that a command wrote to standard error.
type lastWords struct {
	mu   sync.Mutex
	tail []byte
}

const maxWords = 512

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - maxWords; over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	return len(p), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := bytes.TrimSpace(l.tail)
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	return string(line)
}
