package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

var (
	errPermission = errors.New("permission denied")
	errNested     = fault.New(fault.Usage, "an object has the name of one of its directories")
	errDirectory  = fault.New(fault.Usage, "a directory of objects has this name")
	errTempGone   = errors.New("the temporary file is gone from the server")
)

// answer is a failure for which the protocol has no name.
type answer struct{ code *sftp.StatusError }

func (a *answer) Error() string {
	return "the server answers " + strings.TrimPrefix(a.code.Error(), "sftp: ")
}

// refused reports whether the server answered, and why it refuses is not known
// from that.
func refused(err error) bool { return errors.As(err, new(*answer)) }

// status gives an answer its kind.
func status(code *sftp.StatusError) error {
	err := &answer{code}
	switch code.FxCode() {
	case sftp.ErrSSHFxBadMessage:
		// OpenSSH's words for EINVAL and ENAMETOOLONG.
		return driver.Permanent(err, "is the name too long? one between slashes may have 217 bytes")
	case sftp.ErrSSHFxOpUnsupported:
		return driver.Permanent(err, "")
	}
	return err
}

// judge turns the error of a request into one of driver.Driver.
func (c *conn) judge(err error) error {
	var answer *sftp.StatusError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return driver.Permanent(errPermission,
			"the user "+c.user+" may not do that on the server; look at the owners and modes there, at "+endpoint+" and SSH_USERNAME")
	case errors.As(err, &answer):
		return status(answer)
	}
	// What is no answer is the end of the connection.
	c.fail(err)
	return c.lost()
}

// reason finds out what a plain "failure" of something that takes up space
// means: SFTP has no word for a full disk.
func (c *conn) reason(ctx context.Context, dir string, err error) error {
	if _, ok := c.sftp.HasExtension(extSpace); !ok || !refused(err) || errors.As(err, new(*fault.Error)) {
		return err
	}
	space, look := ask(ctx, c, func() (*sftp.StatVFS, error) { return c.sftp.StatVFS(dir) })
	if look != nil {
		return err
	}
	const little = 1 << 20
	if space.Bavail*space.Frsize < little || space.Files > 0 && space.Favail == 0 {
		return fault.WithHint(fmt.Errorf("no space left on the server: %w", err),
			"the file system of the store is full (or out of inodes); make room, then try again")
	}
	return err
}

// noSubsystem explains why there is no SFTP behind a login that worked.
func noSubsystem(err error) error {
	if strings.Contains(err.Error(), "subsystem request failed") {
		return driver.Permanent(errors.New("the server offers no SFTP to this user"),
			"sshd_config wants a line: Subsystem sftp internal-sftp")
	}
	return fmt.Errorf("start of SFTP: %w", err)
}

// refused explains why an SSH connection was not made. The library has types
// for some of it only.
func (l *login) refused(err error) error {
	var judged *fault.Error
	var algorithms *ssh.AlgorithmNegotiationError
	switch {
	case errors.As(err, &judged):
		return judged // of the host key, by us
	case errors.As(err, &algorithms):
		hint := "client and server are too far apart in age"
		if l.hosts != nil && strings.Contains(err.Error(), "for host key") {
			hint = "the server has no key of a type that is known of it; add its new one to " + l.hosts.name()
		}
		return driver.Permanent(errors.New(strings.TrimPrefix(algorithms.Error(), "ssh: ")), hint)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return driver.Permanent(fmt.Errorf("the server does not let the user %s in", l.user),
			"tried: "+strings.Join(l.tried, ", ")+"; is SSH_USERNAME right?")
	case strings.Contains(err.Error(), "Too many authentication failures"):
		return driver.Permanent(fmt.Errorf("the server does not let the user %s in: too many authentication failures", l.user),
			"tried: "+strings.Join(l.tried, ", ")+"; name one key with SSH_PRIVATE_KEY_PATH")
	}
	return err
}
