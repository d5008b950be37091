//go:build linux

package open

import (
	"cmp"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/servertest"
)

// Faults of the connection, of which Toxiproxy is the cause. They hit all
// requests, and the connection that is open already too.

// A fracture is one of them.
type fracture struct {
	name  string
	cause string // what shows that it was this one
	first string // what shows it at first, where that differs
	begin func(c *bench)
	stall bool
}

var fractures = []fracture{
	{"refused", `connection refused`, `refused|reset|EOF|broken pipe|closed|connection lost`, refuse, false},
	{"reset", `reset by peer|EOF|broken pipe|connection lost|closed`, "", func(c *bench) {
		c.tcp.AddToxic("reset_peer", "upstream", map[string]any{"timeout": 0})
		c.tcp.AddToxic("reset_peer", "downstream", map[string]any{"timeout": 0})
	}, false},
	{"stall", `stalled|timeout`, "", func(c *bench) {
		c.tcp.AddToxic("timeout", "upstream", map[string]any{"timeout": 0})
		c.tcp.AddToxic("timeout", "downstream", map[string]any{"timeout": 0})
	}, true},
	{"byte a second", `stalled|timeout`, "", func(c *bench) {
		// The delay is in microseconds.
		c.tcp.AddToxic("slicer", "upstream", map[string]any{"average_size": 1, "size_variation": 0, "delay": 1_000_000})
		c.tcp.AddToxic("slicer", "downstream", map[string]any{"average_size": 1, "size_variation": 0, "delay": 1_000_000})
	}, true},
	{"closed early", `EOF|closed|cut after|reset by peer|broken pipe|connection lost|malformed`, "", func(c *bench) {
		c.tcp.AddToxic("limit_data", "upstream", map[string]any{"bytes": 30_000})
		c.tcp.AddToxic("limit_data", "downstream", map[string]any{"bytes": 40})
	}, false},
}

// refuse ends the proxy's listening. The port is held, by a socket that is bound
// and does not listen, or another case would get it and the client somebody
// else's server.
func refuse(c *bench) {
	c.tcp.Disable()
	to, err := net.ResolveTCPAddr("tcp", c.tcp.Addr())
	c.must(err)
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	c.must(err)
	c.Cleanup(func() { syscall.Close(socket) })
	c.must(syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	c.must(syscall.Bind(socket, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}))
}

// end undoes a fracture.
func end(p *servertest.Proxy) {
	p.Enable()
	p.RemoveToxics()
}

var tcpOperations = []operation{putNew, putOld, putLarge, get, getLarge, listOperation, deleteOperation}

func eachFracture(t *testing.T, b *backend, f func(t *testing.T, a fracture, o operation)) {
	for _, a := range fractures {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			for _, o := range tcpOperations {
				o.skip = 0
				t.Run(o.name, func(t *testing.T) {
					t.Parallel()
					f(t, a, o)
				})
			}
		})
	}
}

func TestABrokenConnectionIsOvercome(t *testing.T) {
	t.Parallel()
	eachBackend(t, true, func(t *testing.T, b *backend) {
		eachFracture(t, b, func(t *testing.T, a fracture, o operation) {
			if o.heavy && o.writes && b.name == "gcs" {
				// Google's library sends chunks again by itself and tells nobody,
				// so that there is no moment to end the fault at. See the other
				// tests of its chunks.
				o = putOld
			}
			c := newBench(t, b, true)
			o.prepare(c)
			c.patience = longer
			s := c.store(b.timing(o, a.stall))
			c.connect(s)
			a.begin(c)
			c.heal = func() { end(c.tcp) }
			took, err := c.run(o, s)
			c.judge(o, err, took, b.limit(), []int{fault.OK}, "", "")
			if c.noticed(cmp.Or(a.first, a.cause)) == 0 {
				t.Errorf("the fault never showed: %q", c.notices)
			}
			o.check(c, true, false)
		})
	})
}

func TestABrokenConnectionThatStaysIsStatus1(t *testing.T) {
	t.Parallel()
	eachBackend(t, true, func(t *testing.T, b *backend) {
		eachFracture(t, b, func(t *testing.T, a fracture, o operation) {
			c := newBench(t, b, true)
			o.prepare(c)
			s := c.store(b.timing(o, a.stall))
			c.connect(s)
			a.begin(c)
			took, err := c.run(o, s)
			// The cause in the message is the proof: without the fault there is none.
			c.judge(o, err, took, b.limit(), []int{fault.Failed}, a.cause, "")
			// Where only the answers are cut the server may have done it.
			may := a.name == "closed early" && o.deed
			o.check(c, may, true)
		})
	})
}

// connect opens a connection. On a busy machine that may take longer than a short
// stall allows, and more than one try.
func (c *bench) connect(s store.Store) {
	c.Helper()
	for end := time.Now().Add(caseLimit); ; {
		_, err := s.Stat(c.Context(), "absent")
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.notices = nil // nobody else tries yet
			return
		case time.Now().After(end):
			c.Fatal(err)
		}
	}
}

// ssh

// sshAt makes the settings for sshd at another address: there it has the same
// keys.
func sshAt(t testing.TB, env map[string]string, direct, address string) {
	host, port, _ := strings.Cut(address, ":")
	env["SSH_PORT"] = port
	known, err := os.ReadFile(env["SSH_KNOWN_HOSTS"])
	if err != nil {
		t.Fatal(err)
	}
	from, to := "["+strings.Replace(direct, ":", "]:", 1), "["+host+"]:"+port
	env["SSH_KNOWN_HOSTS"] = filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(env["SSH_KNOWN_HOSTS"], []byte(strings.ReplaceAll(string(known), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
	delete(env, "SSH_PASSWORD") // the key will do; passwords have their own case
}

func TestSSHThatCannotBeIsStatus64(t *testing.T) {
	t.Parallel()
	b := backendOf("ssh")
	know := func(c *bench, lines string) {
		c.env["SSH_KNOWN_HOSTS"] = filepath.Join(c.TempDir(), "known_hosts")
		c.must(os.WriteFile(c.env["SSH_KNOWN_HOSTS"], []byte(lines), 0o600))
	}
	for _, test := range []struct {
		name, cause, hint string
		set               func(c *bench)
	}{
		{"wrong key", `does not let the user`, `SSH_PRIVATE_KEY_PATH`, func(c *bench) {
			// The server knows its own key, as a host, and nobody by it.
			c.env["SSH_PRIVATE_KEY_PATH"] = filepath.Join(filepath.Dir(c.env["SSH_PRIVATE_KEY_PATH"]), "host_ed25519")
		}},
		{"wrong password", `does not let the user`, `SSH_PASSWORD`, func(c *bench) {
			delete(c.env, "SSH_PRIVATE_KEY_PATH")
			c.env["SSH_PASSWORD"] = "not this one"
		}},
		{"unknown host", `is not known; its key is .*SHA256`, `SSH_KNOWN_HOSTS|known_hosts|ssh-keyscan`, func(c *bench) {
			know(c, "")
		}},
		{"changed host key", `has changed`, `SSH_KNOWN_HOSTS|known_hosts`, func(c *bench) {
			other, err := os.ReadFile(c.env["SSH_PRIVATE_KEY_PATH"] + ".pub") // the user's
			c.must(err)
			know(c, "[127.0.0.1]:"+c.env["SSH_PORT"]+" "+string(other))
		}},
		{"missing directory", `no directory`, `WALG_SSH_PREFIX`, func(c *bench) {
			c.env["WALG_SSH_PREFIX"] += "/missing"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, o := range verbs {
				t.Run(o.name, func(t *testing.T) {
					t.Parallel()
					c := newBench(t, b, false)
					o.prepare(c)
					test.set(c)
					c.refused(o, test.cause, test.hint)
					o.check(c, false, true)
				})
			}
		})
	}
}
