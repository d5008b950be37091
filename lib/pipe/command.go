package pipe

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

// command is a program that runs under this one in a process group of its own.
// Only its exit status proves that its output is whole.
type command struct {
	cmd          *exec.Cmd
	reportsPipes bool // its shell has pipefail set, so that its status speaks for all its stages
	otherwise    int  // our status where its own means nothing here
	words        *lastWords
	exited       chan struct{}
	err          error // of Wait; read after exited

	linger  time.Duration
	late    atomic.Bool // exited, and linger has passed
	mu      sync.Mutex
	onLate  func()
	release func() // gives the terminal back
}

// start starts argv with the given ends and additions to its environment. The
// child inherits nothing else. With asks it may talk to the terminal.
func start(argv []string, stdin, stdout *os.File, env []string, asks bool, otherwise int, linger time.Duration) (*command, error) {
	c := &command{
		cmd:          exec.Command(argv[0], argv[1:]...),
		reportsPipes: reportsPipes(argv),
		otherwise:    otherwise,
		words:        &lastWords{},
		exited:       make(chan struct{}),
		linger:       linger,
	}
	if stdin != nil {
		c.cmd.Stdin = stdin
	}
	c.cmd.Stdout = stdout
	if env != nil {
		c.cmd.Env = append(c.cmd.Environ(), env...)
	}
	stderr, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stderr = theirs
	c.release = group(c.cmd, asks)

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
		case <-time.After(min(linger, 100*time.Millisecond)):
		}
		c.release()
		close(c.exited)
		time.AfterFunc(linger, c.lingered)
	}()
	if err := <-started; err != nil {
		stderr.Close()
		c.release()
		return nil, fault.New(fault.Usage, "run %s: %w", argv[0], err)
	}
	return c, nil
}

func (c *command) lingered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late.Store(true)
	if c.onLate != nil {
		c.onLate()
	}
}

func (c *command) onLinger(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onLate = f
}

func (c *command) lingers() bool { return c != nil && c.late.Load() }

// kill ends the whole process group, unless the command has exited: what it
// left behind on purpose is not ours.
func (c *command) kill() {
	select {
	case <-c.exited:
	default:
		killGroup(c.cmd)
		<-c.exited
	}
}

// wait waits for the exit and returns nil only for status 0. The statuses that
// mean the same in every walg program are passed on.
func (c *command) wait(ctx context.Context) error {
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
		return fault.New(c.otherwise, "%s: %w", c.name(), c.err)
	}
	status := c.otherwise
	switch code := exit.ExitCode(); code {
	case fault.Usage, fault.Data, fault.Absent, fault.Exists, fault.Unearned:
		status = code
	}
	return fault.New(status, "%s ended with %s%s", c.name(), exit.ProcessState, said)
}

func (c *command) name() string { return c.cmd.Args[0] }

// reportsPipes reports whether argv's own status speaks for the stages of
// pipelines inside it.
func reportsPipes(argv []string) bool {
	return strings.Contains(strings.Join(argv, " "), "pipefail")
}

// hidesPipes finds a pipeline in argv whose first stages can die unseen, and
// names what runs it: a shell with -c, however it is started, or a program that
// gives a line to a shell of its own. Marks do not come through ssh either.
func hidesPipes(argv []string) (where string) {
	if reportsPipes(argv) {
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

// warnPipes says what no pipe can show.
func warnPipes(argv []string, p Policy) {
	if where := hidesPipes(argv); where != "" && p.Warn != nil {
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
	c, err := start(argv, nil, w, nil, true, fault.Unearned, p.Linger)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	in := &Input{ctx: ctx, policy: p, name: argv[0], f: r, kind: produced, command: c, total: -1}
	if err := in.watch(); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

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
