package sftp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.Child(backend)
	servertest.Main(m)
}

// place is all that a child process needs to open a store.
type place struct {
	Root string
	Env  map[string]string
}

var backend = storetest.Backend{
	New: func(t *testing.T) string {
		text, err := json.Marshal(newPlace(t))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	},
	Open: func(address string) (store.Store, error) {
		var p place
		if err := json.Unmarshal([]byte(address), &p); err != nil {
			return nil, err
		}
		d, err := p.driver(context.Background())
		if err != nil {
			return nil, err
		}
		return remote.New(d, p.Root[1:]+"/", remote.Policy{}), nil
	},
	PartSize: partSize,
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, backend)
}

// newPlace makes an empty directory on the real server, with settings of a
// login by password. It is gone after the test.
func newPlace(t *testing.T) place {
	t.Helper()
	env := servertest.Get(t, "sshd").Env
	p := place{Env: map[string]string{}}
	for _, name := range []string{"SSH_HOST", "SSH_PORT", "SSH_USERNAME", "SSH_PASSWORD", "SSH_KNOWN_HOSTS"} {
		p.Env[name] = env[name]
	}
	_, data, _ := strings.Cut(strings.TrimPrefix(env["WALG_SSH_PREFIX"], "ssh://"), "/")
	p.Root = "/" + data + "/" + rand.Text()
	// The server's directory is on this machine, and the test runs as root, the
	// server as another user.
	must(t, os.Mkdir(p.Root, 0o777))
	must(t, os.Chmod(p.Root, 0o777))
	t.Cleanup(func() { must(t, os.RemoveAll(p.Root)) })
	return p
}

// with returns the place with other settings; an empty value takes one away.
func (p place) with(settings ...string) place {
	p.Env = maps.Clone(p.Env)
	for i := 0; i < len(settings); i += 2 {
		p.Env[settings[i]] = settings[i+1]
	}
	return p
}

func (p place) settings() *driver.Settings {
	return &driver.Settings{Get: func(name string) string { return p.Env[name] }}
}

func (p place) driver(ctx context.Context) (*Driver, error) {
	return New(ctx, Address{Host: p.Env["SSH_HOST"], Root: p.Root}, p.settings())
}

func (p place) open(t *testing.T) *Driver {
	t.Helper()
	d, err := p.driver(t.Context())
	must(t, err)
	t.Cleanup(func() {
		if d.line != nil {
			d.line.fail(net.ErrClosed)
		}
	})
	return d
}

// key is the driver's name of a key below the root.
func (p place) key(key string) string { return p.Root[1:] + "/" + key }

// file is the path on this machine of an object.
func (p place) file(key string) string { return filepath.Join(p.Root, key) }

// store is what programs use, with little patience.
func (p place) store(d *Driver) *remote.Store {
	return remote.New(d, p.Root[1:]+"/", remote.Policy{MinDelay: time.Millisecond, MaxDelay: 50 * time.Millisecond, Budget: 20 * time.Second})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks status, words of the message and of the hint, and that it is
// one line.
func wantError(t *testing.T, err error, status int, words, hint string) {
	t.Helper()
	if fault.Status(err) != status || !strings.Contains(err.Error(), words) || !strings.Contains(fault.Hint(err), hint) {
		t.Errorf("error %v, status %d, hint %q; want %d, %q, %q", err, fault.Status(err), fault.Hint(err), status, words, hint)
	}
	if err != nil && strings.ContainsAny(err.Error()+fault.Hint(err), "\n\r") {
		t.Errorf("more than a line: %q", err)
	}
}

// wantTree checks what is below the root, by a walk on this machine.
func (p place) wantTree(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	must(t, filepath.WalkDir(p.Root, func(name string, e fs.DirEntry, err error) error {
		if name != p.Root {
			name = name[len(p.Root)+1:]
			if e.IsDir() {
				name += "/"
			}
			got = append(got, name)
		}
		return err
	}))
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the server has %q, want %q", got, want)
	}
}
