package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"walg/lib/store/wire"
)

const (
	dialTimeout  = 10 * time.Second
	defaultStall = time.Minute
	// grace is how long a request may go on when nobody wants it any more. SFTP
	// cannot take one back: after that the connection is closed.
	grace = time.Second

	extRename = "posix-rename@openssh.com"
	extLink   = "hardlink@openssh.com"
	extSync   = "fsync@openssh.com"
	extSpace  = "statvfs@openssh.com"
)

// conn returns the connection, and makes one where there is none that works.
// Others wait for it, each as long as its own context allows.
func (d *Driver) conn(ctx context.Context) (*conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case d.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-d.gate }()
	if d.line != nil && !d.line.broken() {
		return d.line, nil
	}
	c, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	d.line = c
	return c, nil
}

func (d *Driver) connect(ctx context.Context) (*conn, error) {
	config, done, err := d.login.config(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	address := net.JoinHostPort(d.login.host, d.login.port)
	dialer := &net.Dialer{Timeout: min(dialTimeout, d.stall)}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	c := &conn{user: d.login.user}
	c.line = newLine(raw, d.stall, c.fail)
	err = c.wait(ctx, func() error {
		session, channels, requests, err := ssh.NewClientConn(c.line, address, config)
		if err != nil {
			return d.login.refused(err)
		}
		c.sftp, err = sftp.NewClient(ssh.NewClient(session, channels, requests), sftp.UseConcurrentWrites(true))
		if err != nil {
			return noSubsystem(err)
		}
		return nil
	})
	if err == nil {
		return c, nil
	}
	c.fail(err)
	switch lost := c.lost(); {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(lost, wire.ErrStalled):
		return nil, lost
	}
	return nil, err
}

// conn is one connection. After it broke all its requests fail.
type conn struct {
	user string
	line *line
	sftp *sftp.Client

	once  sync.Once
	cause error
	dead  atomic.Bool
}

func (c *conn) broken() bool { return c.dead.Load() }

// fail ends the connection. The first cause stays.
func (c *conn) fail(err error) {
	c.once.Do(func() {
		if err == io.EOF {
			err = errors.New("closed by the server")
		}
		c.cause = err
		c.dead.Store(true)
		c.line.Conn.Close() // an error changes nothing
	})
}

// lost is the error of a request on a connection that broke.
func (c *conn) lost() error {
	if !c.broken() {
		return errors.New("the connection was lost")
	}
	return fmt.Errorf("the connection was lost: %w", c.cause)
}

// call runs requests, which have no context of their own, and gives their
// error its kind.
func (c *conn) call(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.broken() {
		return c.lost()
	}
	err := c.wait(ctx, f)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.judge(err)
}

// ask is call for a request with an answer.
func ask[T any](ctx context.Context, c *conn, f func() (T, error)) (answer T, err error) {
	err = c.call(ctx, func() (err error) {
		answer, err = f()
		return err
	})
	return answer, err
}

// wait runs f under the watch. It returns when f does: when the context is
// done the answers that are on their way come, or the connection ends.
func (c *conn) wait(ctx context.Context, f func() error) error {
	c.line.begin()
	defer c.line.end()
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-done:
		case <-late.C:
			// Not the context's error: it is not that of the other requests.
			c.fail(errors.New("closed, to cancel a request"))
		}
	})
	defer stop()
	return f()
}

// line is a network connection with a watch over it: while something is waited
// for, wire.Progress bytes must move in each limit.
type line struct {
	net.Conn
	limit time.Duration
	fail  func(error)

	mu      sync.Mutex
	pending int
	moved   int
	since   time.Time // when moved was last 0
	timer   *time.Timer
}

func newLine(raw net.Conn, limit time.Duration, fail func(error)) *line {
	l := &line{Conn: raw, limit: limit, fail: fail}
	l.timer = time.AfterFunc(limit, l.check)
	l.timer.Stop()
	return l
}

// begin and end stand around all that is waited for.
func (l *line) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending++; l.pending == 1 {
		l.moved, l.since = 0, time.Now()
		l.timer.Reset(l.limit)
	}
}

func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending--; l.pending == 0 {
		l.timer.Stop()
	}
}

// check is what the timer does.
func (l *line) check() {
	l.mu.Lock()
	left := l.limit - time.Since(l.since)
	stalled := l.pending > 0 && left <= 0
	if l.pending > 0 && left > 0 {
		l.timer.Reset(left)
	}
	l.mu.Unlock()
	if stalled {
		l.fail(fmt.Errorf("%w: less than %d bytes moved in %v", wire.ErrStalled, wire.Progress, l.limit))
	}
}

func (l *line) progress(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved += n; l.moved >= wire.Progress {
		l.moved, l.since = 0, time.Now()
	}
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.progress(n)
	if err != nil {
		l.fail(err)
	}
	return n, err
}

func (l *line) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	l.progress(n)
	if err != nil {
		l.fail(err)
	}
	return n, err
}
