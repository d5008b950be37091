package ask

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"walg/lib/fault"
)

// longestMessage is how much is shown of what a service says.
const longestMessage = 200

// Refusal makes an error of an answer: the service's code, its message and the
// status. Of the message only the first line is shown: what Amazon has to say
// of a wrong signature goes on with the headers of the request.
func Refusal(status int, code, message string) error {
	said, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	said = strings.TrimSuffix(strings.Join(strings.Fields(said), " "), ".")
	if runes := []rune(said); len(runes) > longestMessage {
		said = string(runes[:longestMessage]) + "..."
	}
	switch {
	case code != "" && said != "":
		said = code + ": " + said
	case code != "":
		said = code
	case said == "":
		said = http.StatusText(status)
	}
	return fmt.Errorf("%s (%d)", said, status)
}

// Judge gives a refusal its kind by the HTTP status, for what means the same
// everywhere. hint is for one that stays.
func Judge(err error, status int, hint string) error {
	if status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500 {
		return err
	}
	return Final(err, hint)
}

// Final is an error that trying again cannot mend: status 64.
func Final(err error, hint string) error {
	return &fault.Error{Status: fault.Usage, Err: err, Hint: hint}
}

// explain says what an error of the HTTP client is.
func (c *Client) explain(try context.Context, err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL
	}
	if try.Err() != nil {
		if context.Cause(try) == errOver {
			return fmt.Errorf("no answer within %v", min(c.options.Try, c.options.Total))
		}
		return context.Cause(try)
	}
	var (
		dns       *net.DNSError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch at := c.options.EndpointSetting; {
	case errors.As(err, &dns) && dns.IsNotFound:
		return Final(err, "no such host; is "+at+" right?")
	case errors.As(err, &host):
		return Final(err, "the certificate is for another host; is "+at+" right?")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Final(err, "the certificate has expired, or the clock of this machine is wrong")
	case errors.As(err, &authority), errors.As(err, &invalid), errors.As(err, &verify):
		return Final(err, "the certificate is signed by nobody we know; "+c.options.CASetting+" names a file with the authority's certificate")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return Final(err, "the server does not speak TLS; is "+at+" right?")
	case errors.As(err, &alert):
		return Final(err, "the server refuses TLS with us")
	}
	return err
}
