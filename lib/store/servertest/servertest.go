// Package servertest starts the real storage servers for tests: it runs
// scripts/test/server.sh and hands out what that prints. A server is started
// when a test first asks for it, once in a test binary, and ends with that,
// however that ends. A server that cannot be started fails the test: nothing is
// skipped. Proxies break connections on demand.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { servertest.Main(m) }
package servertest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 90 * time.Second // server.sh itself gives up after 60
	stopLimit  = 30 * time.Second
)

// A Server is one that runs.
type Server struct {
	Env  map[string]string // the settings with which clients reach it
	PIDs []int             // its processes

	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
	log    bytes.Buffer // what server.sh says on stderr; whole after Wait
}

// Start runs the server of that name, one of server.sh, and returns when it
// answers. Close ends it, and so does the end of this process.
func Start(name string) (*Server, error) {
	top, err := top()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &Server{Env: map[string]string{}, name: name}
	s.cmd = exec.Command(filepath.Join(top, "scripts", "test", "server.sh"), name)
	s.cmd.Stderr = &s.log
	s.cmd.WaitDelay = time.Second // if something else holds stderr open
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if s.stdout, err = s.cmd.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	late := time.AfterFunc(startLimit, func() { s.cmd.Process.Signal(syscall.SIGTERM) })
	err = s.read()
	if !late.Stop() {
		err = fmt.Errorf("no answer in %v", startLimit)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, errors.Join(err, s.Close()))
	}
	return s, nil
}

// read takes server.sh's lines, up to ready.
func (s *Server) read() error {
	lines := bufio.NewScanner(s.stdout)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "=")
		switch {
		case !ok && name == "ready":
			return nil
		case !ok:
			return fmt.Errorf("server.sh printed %q", name)
		case name == "PID":
			pid, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			s.PIDs = append(s.PIDs, pid)
		default:
			s.Env[name] = value
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("server.sh ended")
}

// Close ends the server and waits for that. It says so if the server had died
// before, with the end of its log.
func (s *Server) Close() error {
	s.stdin.Close() // an error means that server.sh ended already: Wait knows
	late := time.AfterFunc(stopLimit, func() { s.cmd.Process.Kill() })
	defer late.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", s.name, err, bytes.TrimSpace(s.log.Bytes()))
	}
	return nil
}

// top returns the top of the repository, where go.mod is.
func top() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if !errors.Is(err, fs.ErrNotExist) {
			return dir, err
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}

// started has, by name, what Get started: a func() (*Server, error), which
// starts the server at its first call.
var started sync.Map

// Get returns the server of that name, which all tests of this process share.
func Get(t testing.TB, name string) *Server {
	t.Helper()
	start, _ := started.LoadOrStore(name, sync.OnceValues(func() (*Server, error) { return Start(name) }))
	s, err := start.(func() (*Server, error))()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Main runs the tests, ends the servers and exits. A server that died while
// tests ran is a failure.
func Main(m *testing.M) {
	status := m.Run()
	started.Range(func(_, start any) bool {
		s, err := start.(func() (*Server, error))()
		if err != nil {
			return true // a test failed for it
		}
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
		return true
	})
	os.Exit(status)
}
