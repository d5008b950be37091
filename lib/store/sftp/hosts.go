package sftp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

const systemKnownHosts = "/etc/ssh/ssh_known_hosts"

// hosts knows the keys of servers.
type hosts struct {
	files []string // the first is where a new key belongs; it may be missing
	known ssh.HostKeyCallback
}

// newHosts reads the files of known hosts, and returns nil where all hosts are
// believed.
func newHosts(home string, s *driver.Settings) (*hosts, error) {
	named := s.Text("SSH_KNOWN_HOSTS")
	if !s.Bool("SSH_STRICT_HOST_KEY", true) {
		if named != "" {
			return nil, fault.New(fault.Usage, "SSH_KNOWN_HOSTS says whom to believe, and SSH_STRICT_HOST_KEY=false to believe anybody")
		}
		return nil, s.Err()
	}
	h := &hosts{files: []string{named}}
	if named == "" {
		h.files = []string{systemKnownHosts}
		if home != "" {
			h.files = slices.Insert(h.files, 0, filepath.Join(home, ".ssh", "known_hosts"))
		}
	}
	var there []string
	for _, name := range h.files {
		if _, err := os.Stat(name); err == nil || named != "" {
			there = append(there, name)
		}
	}
	var err error
	if h.known, err = knownhosts.New(there...); err != nil {
		return nil, fault.WithHint(fault.New(fault.Usage, "known hosts: %s", strings.TrimPrefix(err.Error(), "knownhosts: ")),
			"SSH_KNOWN_HOSTS names a file as OpenSSH's known_hosts")
	}
	return h, nil
}

// name is where a new key belongs, for hints.
func (h *hosts) name() string { return h.files[0] + " (SSH_KNOWN_HOSTS)" }

// check is a host key callback. Its errors are of status 64.
func (h *hosts) check(address string, from net.Addr, key ssh.PublicKey) error {
	err := h.known(address, from, key)
	var mismatch *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	print := key.Type() + " " + ssh.FingerprintSHA256(key)
	host := knownhosts.Normalize(address)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return driver.Permanent(fmt.Errorf("the key of the server, %s, is revoked by %s:%d", print, revoked.Revoked.Filename, revoked.Revoked.Line),
			"do not trust this server")
	case errors.As(err, &mismatch) && len(mismatch.Want) > 0:
		want := mismatch.Want[0]
		return driver.Permanent(fmt.Errorf("the key of the server has changed: it is %s, and not that of %s:%d", print, want.Filename, want.Line),
			"somebody may be posing as the server. If it really has a new key, take the lines of "+host+" out of "+want.Filename+" and add the new one")
	case errors.As(err, &mismatch):
		name, port, _ := net.SplitHostPort(address) // it has been dialled
		return driver.Permanent(fmt.Errorf("the server is not known; its key is %s", print),
			fmt.Sprintf("compare that on the server itself, then add the key to %s: ssh-keyscan -p %s %s", h.name(), port, name))
	}
	return driver.Permanent(fmt.Errorf("the certificate of the server: %s", strings.TrimPrefix(err.Error(), "ssh: ")), "look at "+h.name())
}

// algorithms returns those of the keys that are known of a server, best first.
// Without them the server would show the key that it likes best, and that one
// may be unknown. None are known: any will do, for the message.
func (h *hosts) algorithms(address string) []string {
	var want *knownhosts.KeyError
	if !errors.As(h.known(address, &net.TCPAddr{}, noKey{}), &want) {
		return nil
	}
	var certified, plain []string
	for _, k := range want.Want {
		if isAuthority(k) {
			// It may have signed keys of any type.
			certified = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
				ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
			continue
		}
		types := []string{k.Key.Type()}
		if types[0] == ssh.KeyAlgoRSA {
			types = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, t := range types {
			if !slices.Contains(plain, t) {
				plain = append(plain, t)
			}
		}
	}
	return append(certified, plain...)
}

// isAuthority looks at the line itself, because the library does not tell.
func isAuthority(k knownhosts.KnownKey) bool {
	text, err := os.ReadFile(k.Filename)
	lines := strings.Split(string(text), "\n")
	return err == nil && k.Line <= len(lines) && strings.HasPrefix(strings.TrimSpace(lines[k.Line-1]), "@cert-authority")
}

// noKey is the key of no server: asked about it, the library tells which ones
// it knows.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
