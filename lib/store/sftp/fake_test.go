package sftp

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// fakeServer speaks SSH in this process, for what a server of OpenSSH does
// not do: it has no SFTP extensions at all, keeps its files in memory, and its
// rename refuses an existing name.
type fakeServer struct {
	config *ssh.ServerConfig
	key    ssh.Signer // of the host
	noSFTP bool
	place  place
}

// init takes all extensions from servers in this process.
func init() { sftp.SetSFTPExtensions() }

// start listens and makes the key known. change may alter the server before.
func (f *fakeServer) start(t *testing.T, change func(*fakeServer)) place {
	t.Helper()
	f.key = newKey(t)
	f.config = &ssh.ServerConfig{PasswordCallback: func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if string(password) != "right" {
			return nil, errors.New("wrong")
		}
		return nil, nil
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	known := filepath.Join(t.TempDir(), "known")
	f.place = place{"/", map[string]string{"SSH_HOST": host, "SSH_PORT": port, "SSH_USERNAME": "u", "SSH_PASSWORD": "right", "SSH_KNOWN_HOSTS": known}}
	writeFile(t, known, knownhosts.Line([]string{listener.Addr().String()}, f.key.PublicKey())+"\n")
	if change != nil {
		change(f)
	}
	f.config.AddHostKey(f.key)
	files := sftp.InMemHandler()
	var mu sync.Mutex
	var conns []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			running.Go(func() { f.serve(conn, files) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return f.place
}

func (f *fakeServer) serve(conn net.Conn, files sftp.Handlers) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, f.config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			r.Reply(r.Type == "subsystem" && !f.noSFTP, nil)
			if r.Type == "subsystem" && !f.noSFTP {
				sftp.NewRequestServer(channel, files).Serve()
				break
			}
		}
	}
}

func newPrivate(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return private
}

// ecdsaKey is of a type that the real server has no key of.
func ecdsaKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	key, err := ssh.NewPublicKey(private.Public())
	must(t, err)
	return key
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := ssh.NewSignerFromKey(newPrivate(t))
	must(t, err)
	return key
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	must(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}
