package driver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"walg/lib/fault"
)

// What a driver's Read can say beyond fs.ErrNotExist.
var (
	ErrRange   = errors.New("the offset is behind the end of the object")
	ErrChanged = errors.New("the object was replaced while it was read")
)

// Later is a failure of which the storage says when to try again.
type Later struct {
	After time.Duration
	Err   error
}

func (e *Later) Error() string { return e.Err.Error() }
func (e *Later) Unwrap() error { return e.Err }

// Judge gives the error of an HTTP response its kind by its status, for the
// codes that mean the same everywhere; hint is what to look at where access is
// denied. Drivers look first at what their storage says in more detail.
func Judge(err error, status int, header http.Header, hint string) error {
	switch status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", fs.ErrExist, err)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", ErrRange, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return Permanent(err, hint)
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return retryAfter(err, header)
	}
	switch {
	case status >= 300 && status < 500:
		return Permanent(err, "")
	case status >= 500:
		return retryAfter(err, header)
	}
	return err
}

func retryAfter(err error, header http.Header) error {
	value := header.Get("Retry-After")
	if seconds, perr := strconv.Atoi(value); perr == nil && seconds >= 0 {
		return &Later{time.Duration(seconds) * time.Second, err}
	}
	if at, perr := http.ParseTime(value); perr == nil {
		return &Later{max(time.Until(at), 0), err}
	}
	return err
}

// Permanent marks an error that trying again cannot mend: status 64. An empty
// hint is none.
func Permanent(err error, hint string) error {
	return &fault.Error{Status: fault.Usage, Err: err, Hint: hint}
}

// Explain finds what the network itself says that no second try can mend. It
// leaves alone what the driver has judged.
func Explain(err error, t Traits) error {
	var judged *fault.Error
	if err == nil || errors.As(err, &judged) {
		return err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return Permanent(err, "no such host; is "+t.Endpoint+" right?")
	}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &host):
		return Permanent(err, "the certificate is for another host; is "+t.Endpoint+" right?")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Permanent(err, "the certificate has expired, or the clock of this machine is wrong")
	case errors.As(err, &authority), errors.As(err, &invalid), errors.As(err, &verify):
		hint := "the certificate is signed by nobody we know"
		if t.CA != "" {
			hint += "; " + t.CA + " names a file with the authority's certificate"
		}
		return Permanent(err, hint)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return Permanent(err, "the server does not speak TLS; should "+t.Endpoint+" begin with http://?")
	case strings.Contains(err.Error(), "malformed HTTP response \"\\x15\\x03"):
		return Permanent(err, "the server speaks TLS; should "+t.Endpoint+" begin with https://?")
	case errors.As(err, &alert):
		return Permanent(err, "the server refuses TLS with us")
	}
	return err
}

// Mendable reports whether trying again may help.
func Mendable(err error) bool {
	var judged *fault.Error
	return !errors.As(err, &judged) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) &&
		!errors.Is(err, ErrRange) && !errors.Is(err, ErrChanged)
}
