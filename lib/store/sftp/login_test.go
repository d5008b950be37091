package sftp

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"walg/lib/fault"
	"walg/lib/store/servertest"
)

// tryLogin opens the place and makes a first request.
func (p place) tryLogin(t *testing.T) error {
	t.Helper()
	d, err := p.driver(t.Context())
	if err != nil {
		return err
	}
	c, err := d.conn(t.Context())
	if err == nil {
		c.fail(net.ErrClosed)
	}
	return err
}

func TestWaysToLogIn(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	env := servertest.Get(t, "sshd").Env
	plain, encrypted := env["SSH_PRIVATE_KEY_PATH"], env["SSH_PRIVATE_KEY_ENCRYPTED_PATH"]
	home := func(name, key string) string {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, ".ssh"), 0o700))
		text, err := os.ReadFile(key)
		must(t, err)
		writeFile(t, filepath.Join(dir, ".ssh", name), string(text))
		return dir
	}
	bare := p.with("SSH_PASSWORD", "", "HOME", t.TempDir())
	for name, test := range map[string]struct {
		p           place
		words, hint string // of an error of status 64
	}{
		"password":                   {p: p},
		"wrong password":             {p.with("SSH_PASSWORD", "wrong"), "does not let the user walg-sftp in", "tried: SSH_PASSWORD; is SSH_USERNAME right?"},
		"wrong user":                 {p.with("SSH_USERNAME", "nobody-here"), "does not let the user nobody-here in", "SSH_USERNAME"},
		"key":                        {p: bare.with("SSH_PRIVATE_KEY_PATH", plain)},
		"key, and wrong password":    {p: p.with("SSH_PRIVATE_KEY_PATH", plain, "SSH_PASSWORD", "wrong")},
		"unknown key, and password":  {p: p.with("SSH_PRIVATE_KEY_PATH", newKeyFile(t))},
		"unknown key":                {bare.with("SSH_PRIVATE_KEY_PATH", newKeyFile(t)), "does not let", "tried: SSH_PRIVATE_KEY_PATH"},
		"encrypted key":              {p: bare.with("SSH_PRIVATE_KEY_PATH", encrypted, "SSH_PRIVATE_KEY_PASSPHRASE", env["SSH_PASSPHRASE"])},
		"wrong passphrase":           {bare.with("SSH_PRIVATE_KEY_PATH", encrypted, "SSH_PRIVATE_KEY_PASSPHRASE", "wrong"), "the passphrase is wrong", "SSH_PRIVATE_KEY_PASSPHRASE"},
		"no passphrase":              {bare.with("SSH_PRIVATE_KEY_PATH", encrypted), "the key is encrypted", "SSH_PRIVATE_KEY_PASSPHRASE"},
		"no key file":                {bare.with("SSH_PRIVATE_KEY_PATH", "/no/such/key"), "SSH_PRIVATE_KEY_PATH: open /no/such/key: no such file", ""},
		"a public key":               {bare.with("SSH_PRIVATE_KEY_PATH", plain+".pub"), "no private key", ""},
		"passphrase not needed":      {p: bare.with("SSH_PRIVATE_KEY_PATH", plain, "SSH_PRIVATE_KEY_PASSPHRASE", "x")},
		"default key":                {p: bare.with("HOME", home("id_ed25519", plain))},
		"default key, last choice":   {p: bare.with("HOME", home("id_ecdsa", plain))},
		"encrypted default key":      {p: bare.with("HOME", home("id_rsa", encrypted), "SSH_PRIVATE_KEY_PASSPHRASE", env["SSH_PASSPHRASE"])},
		"locked default key":         {bare.with("HOME", home("id_rsa", encrypted)), "id_rsa: the key is encrypted", "SSH_PRIVATE_KEY_PASSPHRASE"},
		"default key before it":      {p: bare.with("HOME", home("id_rsa", plain))},
		"nothing":                    {bare, "nothing to log in to 127.0.0.1 with", "set SSH_PRIVATE_KEY_PATH or SSH_PASSWORD, or start an agent"},
		"agent":                      {p: bare.with("SSH_AUTH_SOCK", startAgent(t, plain))},
		"agent with another key":     {bare.with("SSH_AUTH_SOCK", startAgent(t, newKeyFile(t))), "does not let", "tried: the agent of SSH_AUTH_SOCK"},
		"agent without keys":         {bare.with("SSH_AUTH_SOCK", startAgent(t)), "agent: it holds no key", "SSH_AUTH_SOCK"},
		"dead agent":                 {bare.with("SSH_AUTH_SOCK", "/no/such/socket"), "agent: dial unix /no/such/socket", "SSH_AUTH_SOCK"},
		"dead agent and default key": {p: bare.with("SSH_AUTH_SOCK", "/no/such/socket", "HOME", home("id_rsa", plain))},
		"agent and password":         {p: p.with("SSH_AUTH_SOCK", "/no/such/socket")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.p.tryLogin(t)
			if test.words == "" {
				must(t, err)
				return
			}
			wantError(t, err, fault.Usage, test.words, test.hint)
		})
	}
}

// newKeyFile makes a key that no server knows.
func newKeyFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	block, err := ssh.MarshalPrivateKey(newPrivate(t), "")
	must(t, err)
	return writeFile(t, name, string(pem.EncodeToMemory(block)))
}

// startAgent runs an agent that holds the keys.
func startAgent(t *testing.T, files ...string) string {
	t.Helper()
	ring := agent.NewKeyring()
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		key, err := ssh.ParseRawPrivateKey(text)
		must(t, err)
		must(t, ring.Add(agent.AddedKey{PrivateKey: key}))
	}
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				agent.ServeAgent(ring, conn)
				conn.Close()
			}()
		}
	}()
	return socket
}

func TestAgentThatHangsEndsWithTheContext(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	defer listener.Close()
	p := place{"/", map[string]string{"SSH_HOST": "127.0.0.1", "SSH_AUTH_SOCK": socket, "HOME": t.TempDir()}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.open(t).conn(ctx); err == nil {
		t.Error("logged in")
	}
}

func TestKnownHosts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	address := net.JoinHostPort(p.Env["SSH_HOST"], p.Env["SSH_PORT"])
	all, err := os.ReadFile(p.Env["SSH_KNOWN_HOSTS"])
	must(t, err)
	var lines = map[string]string{}
	for line := range strings.Lines(string(all)) {
		lines[strings.Fields(line)[1]] = line
	}
	if lines["ssh-rsa"] == "" || lines["ssh-ed25519"] == "" {
		t.Fatalf("the server has keys %q", all)
	}
	other := func(key ssh.PublicKey) string { return knownhosts.Line([]string{address}, key) + "\n" }
	host, key, _ := strings.Cut(lines["ssh-rsa"], " ")
	hashed := knownhosts.HashHostname(host) + " " + key
	dir := t.TempDir()
	known := func(text string) place {
		return p.with("SSH_KNOWN_HOSTS", writeFile(t, filepath.Join(dir, rand.Text()), text))
	}
	home := func(text string) place {
		home := t.TempDir()
		must(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
		writeFile(t, filepath.Join(home, ".ssh", "known_hosts"), text)
		return p.with("SSH_KNOWN_HOSTS", "", "HOME", home)
	}
	for name, test := range map[string]struct {
		p           place
		words, hint string // of an error of status 64
	}{
		"all keys":             {p: p},
		"only ed25519":         {p: known(lines["ssh-ed25519"])},
		"only rsa":             {p: known(lines["ssh-rsa"])},
		"hashed":               {p: known(hashed)},
		"in ~/.ssh":            {p: home(lines["ssh-rsa"])},
		"none":                 {known("# nothing\n"), "the server is not known; its key is ", "ssh-keyscan -p " + p.Env["SSH_PORT"] + " 127.0.0.1"},
		"none in ~/.ssh":       {home(""), "SHA256:", "known_hosts (SSH_KNOWN_HOSTS)"},
		"no ~/.ssh":            {p.with("SSH_KNOWN_HOSTS", "", "HOME", t.TempDir()), "the server is not known", "/.ssh/known_hosts"},
		"of another port":      {known("127.0.0.1 " + key), "the server is not known", "ssh-keyscan"},
		"changed":              {known(other(newKey(t).PublicKey())), "the key of the server has changed: it is ssh-ed25519 SHA256:", "somebody may be posing as the server"},
		"changed to no such":   {known(other(ecdsaKey(t))), "no common algorithm for host key", "has no key of a type that is known of it"},
		"revoked":              {known(lines["ssh-ed25519"] + "@revoked * " + strings.SplitN(lines["ssh-ed25519"], " ", 2)[1]), "is revoked by ", "do not trust"},
		"not strict":           {p: p.with("SSH_KNOWN_HOSTS", "", "SSH_STRICT_HOST_KEY", "false", "HOME", t.TempDir())},
		"not strict, but":      {p.with("SSH_STRICT_HOST_KEY", "false"), "SSH_STRICT_HOST_KEY=false", ""},
		"strict":               {p: p.with("SSH_STRICT_HOST_KEY", "true")},
		"file missing":         {p.with("SSH_KNOWN_HOSTS", "/no/such/file"), "known hosts: open /no/such/file", "SSH_KNOWN_HOSTS"},
		"file is no such file": {known("some text\n"), "known hosts: ", "SSH_KNOWN_HOSTS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.p.tryLogin(t)
			if test.words == "" {
				must(t, err)
				return
			}
			wantError(t, err, fault.Usage, test.words, test.hint)
		})
	}
}

// A host certificate counts where its authority is known, beside plain keys of
// other hosts.
func TestHostCertificates(t *testing.T) {
	t.Parallel()
	authority := newKey(t)
	certify := func(principal string) func(*fakeServer) {
		return func(f *fakeServer) {
			cert := &ssh.Certificate{Key: f.key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity}
			must(t, cert.SignCert(rand.Reader, authority))
			signer, err := ssh.NewCertSigner(cert, f.key)
			must(t, err)
			f.key = signer
			line := knownhosts.Line([]string{"[127.0.0.1]:*"}, authority.PublicKey())
			line = strings.Replace(line, "[127.0.0.1]:*", "[127.0.0.1]:"+f.place.Env["SSH_PORT"], 1)
			writeFile(t, f.place.Env["SSH_KNOWN_HOSTS"], "@cert-authority "+line+"\n")
		}
	}
	must(t, new(fakeServer).start(t, certify("127.0.0.1")).tryLogin(t))
	err := new(fakeServer).start(t, certify("elsewhere")).tryLogin(t)
	wantError(t, err, fault.Usage, "the certificate of the server: ", "SSH_KNOWN_HOSTS")
}

// Many servers ask for the password as a question only.
func TestPasswordAsAnAnswer(t *testing.T) {
	t.Parallel()
	p := new(fakeServer).start(t, func(f *fakeServer) {
		f.config.PasswordCallback = nil
		f.config.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Name: ", "Password: "}, []bool{true, false})
			if err != nil || fmt.Sprint(answers) != "[ right]" {
				return nil, errors.New("wrong")
			}
			return nil, nil
		}
	})
	must(t, p.tryLogin(t))
	wantError(t, p.with("SSH_PASSWORD", "other").tryLogin(t), fault.Usage, "does not let the user u in", "SSH_PASSWORD")
}

func TestServerWithoutSFTP(t *testing.T) {
	t.Parallel()
	p := new(fakeServer).start(t, func(f *fakeServer) { f.noSFTP = true })
	wantError(t, p.tryLogin(t), fault.Usage, "the server offers no SFTP to this user", "Subsystem sftp")
}

// What may be over in a moment is not final.
func TestServerThatClosesTheConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close() // as sshd does with more than MaxStartups
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	p := place{"/", map[string]string{"SSH_HOST": "127.0.0.1", "SSH_PORT": port, "SSH_PASSWORD": "x", "SSH_STRICT_HOST_KEY": "false"}}
	wantError(t, p.tryLogin(t), fault.Failed, "handshake failed", "")
	listener.Close()
	wantError(t, p.tryLogin(t), fault.Failed, "connection refused", "")
}

func TestSettings(t *testing.T) {
	t.Parallel()
	base := place{"/r", map[string]string{"SSH_PASSWORD": "secret", "SSH_STRICT_HOST_KEY": "false"}}
	for name, test := range map[string]struct {
		a          Address
		settings   []string
		user, port string
		words      string // of an error of status 64
	}{
		"defaults":           {a: Address{Host: "h", User: "me"}, user: "me", port: "22"},
		"port of the URL":    {a: Address{Host: "h", User: "me", Port: "2222"}, user: "me", port: "2222"},
		"port":               {a: Address{Host: "h", User: "me"}, settings: []string{"SSH_PORT", "23"}, user: "me", port: "23"},
		"same port":          {a: Address{Host: "h", User: "me", Port: "23"}, settings: []string{"SSH_PORT", "23"}, user: "me", port: "23"},
		"two ports":          {a: Address{Host: "h", Port: "24"}, settings: []string{"SSH_PORT", "23"}, words: "SSH_PORT is 23, and the URL says 24"},
		"port 0":             {a: Address{Host: "h"}, settings: []string{"SSH_PORT", "0"}, words: "SSH_PORT 0: want 1 to 65535"},
		"port 70000":         {a: Address{Host: "h"}, settings: []string{"SSH_PORT", "70000"}, words: "want 1 to 65535"},
		"port of words":      {a: Address{Host: "h"}, settings: []string{"SSH_PORT", "ssh"}, words: "want 1 to 65535"},
		"port of the URL 0":  {a: Address{Host: "h", Port: "0"}, words: "want 1 to 65535"},
		"user":               {a: Address{Host: "h", User: "url"}, settings: []string{"SSH_USERNAME", "me"}, user: "me", port: "22"},
		"as WALG_":           {a: Address{Host: "h"}, settings: []string{"WALG_SSH_USERNAME", "me"}, user: "me", port: "22"},
		"user with password": {a: Address{Host: "h", User: "me:secret"}, words: "a password in the URL"},
		"no host":            {a: Address{}, words: "want ssh://[user@]host[:port]/path"},
		"odd host":           {a: Address{Host: "a b"}, words: "want ssh://[user@]host[:port]/path"},
		"odd strict":         {a: Address{Host: "h"}, settings: []string{"SSH_STRICT_HOST_KEY", "ask"}, words: "SSH_STRICT_HOST_KEY=ask"},
		"line in password":   {a: Address{Host: "h", User: "me"}, settings: []string{"SSH_PASSWORD", "secret\n"}, words: "SSH_PASSWORD=...: want no line end"},
	} {
		p := base.with(test.settings...)
		d, err := New(t.Context(), test.a, p.settings())
		switch {
		case test.words != "":
			wantError(t, err, fault.Usage, test.words, "")
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v tells the password", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case d.login.user != test.user || d.login.port != test.port:
			t.Errorf("%s: user %s, port %s", name, d.login.user, d.login.port)
		}
	}
	s := base.settings()
	s.Stall = 3 * time.Second
	d, err := New(t.Context(), Address{Host: "h"}, s)
	if err != nil || d.login.user == "" || d.stall != s.Stall {
		t.Errorf("no user is the current one: %v, %+v", err, d)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]Address{
		"ssh://h/r/k":          {Host: "h", User: "u", Root: "/r"},
		"ssh://h:2222/r/k":     {Host: "h", Port: "2222", Root: "/r"},
		"ssh://[::1]/r/k":      {Host: "::1", Root: "/r"},
		"ssh://[::1]:2222/r/k": {Host: "::1", Port: "2222", Root: "/r"},
	} {
		p := place{"/", map[string]string{"SSH_PASSWORD": "x", "SSH_STRICT_HOST_KEY": "false"}}
		d, err := New(t.Context(), a, p.settings())
		if err != nil || d.URL("r/k") != want {
			t.Errorf("URL %q, %v, want %q", d.URL("r/k"), err, want)
		}
	}
}
