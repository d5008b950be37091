package sftp

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

const defaultPort = "22"

// defaultKeys are looked for in ~/.ssh where no setting says how to log in.
var defaultKeys = []string{"id_ed25519", "id_rsa", "id_ecdsa"}

// login is where to connect, as whom, and what proves it.
type login struct {
	host, port, user string
	keys             []ssh.Signer
	password         string
	agent            string // a socket, or empty
	hosts            *hosts // nil believes any host
	tried            []string
}

// newLogin reads the settings. The user and the port of a URL are there where
// no setting names them; two different ports are a contradiction.
func newLogin(a Address, s *driver.Settings) (*login, error) {
	l := &login{host: a.Host, port: a.Port}
	if a.Host == "" || strings.ContainsAny(a.Host, " /@?#") {
		return nil, fault.New(fault.Usage, "%s: want ssh://[user@]host[:port]/path", endpoint)
	}
	if strings.Contains(a.User, ":") {
		return nil, fault.WithHint(fault.New(fault.Usage, "%s: a password in the URL", endpoint), "SSH_PASSWORD is for it")
	}
	if err := l.setPort(s); err != nil {
		return nil, err
	}

	me, err := user.Current()
	if l.user = s.Text("SSH_USERNAME"); l.user == "" {
		l.user = a.User
	}
	if l.user == "" {
		if err != nil {
			return nil, fault.WithHint(fault.New(fault.Usage, "no user: %w", err), "set SSH_USERNAME")
		}
		l.user = me.Username
	}
	home := s.Get("HOME")
	if home == "" && err == nil {
		home = me.HomeDir // daemons may have no HOME
	}
	if err := l.secrets(home, s); err != nil {
		return nil, err
	}
	if l.hosts, err = newHosts(home, s); err != nil {
		return nil, err
	}
	return l, s.Err()
}

func (l *login) setPort(s *driver.Settings) error {
	port := s.Text("SSH_PORT")
	switch {
	case l.port == "" && port == "":
		port = defaultPort
	case port == "":
		port = l.port
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fault.New(fault.Usage, "SSH_PORT %s: want 1 to 65535", port)
	}
	if l.port != "" && l.port != port {
		return fault.New(fault.Usage, "SSH_PORT is %s, and the URL says %s", port, l.port)
	}
	l.port = port
	return nil
}

// secrets reads what proves who we are.
func (l *login) secrets(home string, s *driver.Settings) error {
	name, passphrase := s.Text("SSH_PRIVATE_KEY_PATH"), s.Text("SSH_PRIVATE_KEY_PASSPHRASE")
	if name != "" {
		key, err := readKey(name, passphrase)
		if err != nil {
			return driver.Permanent(fmt.Errorf("SSH_PRIVATE_KEY_PATH: %w", err), fault.Hint(err))
		}
		l.keys = append(l.keys, key)
		l.tried = append(l.tried, "SSH_PRIVATE_KEY_PATH")
	}
	if l.password = s.Text("SSH_PASSWORD"); l.password != "" {
		l.tried = append(l.tried, "SSH_PASSWORD")
	}
	if len(l.tried) > 0 {
		return nil
	}
	if l.agent = s.Get("SSH_AUTH_SOCK"); l.agent != "" {
		l.tried = append(l.tried, "the agent of SSH_AUTH_SOCK")
	}
	var unusable error
	for _, name := range defaultKeys {
		if home == "" {
			break
		}
		name = filepath.Join(home, ".ssh", name)
		key, err := readKey(name, passphrase)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			unusable = err // an encrypted one is for the agent, as a rule
		default:
			l.keys = append(l.keys, key)
			l.tried = append(l.tried, name)
		}
	}
	switch {
	case len(l.keys) > 0 || l.agent != "":
		return nil
	case unusable != nil:
		return unusable
	}
	return fault.WithHint(fault.New(fault.Usage, "nothing to log in to %s with", l.host),
		"set SSH_PRIVATE_KEY_PATH or SSH_PASSWORD, or start an agent")
}

// readKey reads a private key, encrypted or not.
func readKey(name, passphrase string) (ssh.Signer, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, &fault.Error{Status: fault.Usage, Err: err}
	}
	key, err := ssh.ParsePrivateKey(text)
	var encrypted *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &encrypted) && passphrase == "":
		return nil, fault.WithHint(fault.New(fault.Usage, "%s: the key is encrypted", name), "set SSH_PRIVATE_KEY_PASSPHRASE")
	case errors.As(err, &encrypted):
		key, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase))
	}
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, fault.WithHint(fault.New(fault.Usage, "%s: the passphrase is wrong", name), "look at SSH_PRIVATE_KEY_PASSPHRASE")
	case err != nil:
		return nil, fault.New(fault.Usage, "%s: no private key: %s", name, strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return key, nil
}

// config is for one connection. done is to be called when that is made: until
// then the agent is needed.
func (l *login) config(ctx context.Context) (config *ssh.ClientConfig, done func(), err error) {
	signers, done := l.keys, func() {}
	if l.agent != "" {
		var held []ssh.Signer
		if held, done, err = askAgent(ctx, l.agent); err != nil && len(l.keys) == 0 {
			done()
			return nil, nil, driver.Permanent(fmt.Errorf("agent: %w", err), "is the agent of SSH_AUTH_SOCK alive, and does it hold a key?")
		}
		signers = slices.Concat(held, l.keys)
	}
	config = &ssh.ClientConfig{User: l.user, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	if len(signers) > 0 {
		config.Auth = append(config.Auth, ssh.PublicKeys(signers...))
	}
	if l.password != "" {
		config.Auth = append(config.Auth, ssh.Password(l.password), ssh.KeyboardInteractive(l.answer))
	}
	if l.hosts != nil {
		config.HostKeyCallback = l.hosts.check
		config.HostKeyAlgorithms = l.hosts.algorithms(net.JoinHostPort(l.host, l.port))
	}
	return config, done, nil
}

// answer gives the password to a server that asks for it as a question. What is
// to be shown on the screen is none.
func (l *login) answer(_, _ string, questions []string, echo []bool) ([]string, error) {
	answers := make([]string, len(questions))
	for i := range answers {
		if !echo[i] {
			answers[i] = l.password
		}
	}
	return answers, nil
}

// askAgent returns the keys that an agent holds, which work until done.
func askAgent(ctx context.Context, socket string) (keys []ssh.Signer, done func(), err error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, func() {}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	// It may ask the user before it signs.
	conn.SetDeadline(time.Now().Add(defaultStall))
	keys, err = agent.NewClient(conn).Signers()
	if err == nil && len(keys) == 0 {
		err = errors.New("it holds no key")
	}
	return keys, func() { stop(); conn.Close() }, err
}
