package gcs

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"google.golang.org/api/googleapi"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// longest is how much of a server's own words we repeat, in bytes.
const longest = 300

// line returns the first line of a text, without control characters.
func line(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.ToValidUTF8(text[:min(len(text), longest)], "")
	return strings.Join(strings.FieldsFunc(text, unicode.IsControl), "")
}

// absent is the error of an answer 404.
type absent struct {
	err error
	// What is absent, the object or the bucket, was not said.
	unclear bool
}

func (a *absent) Error() string        { return a.err.Error() }
func (a *absent) Unwrap() error        { return a.err }
func (a *absent) Is(target error) bool { return target == fs.ErrNotExist }

// explain makes a short cause of the error of a request for an object, of the
// kind that driver.Driver wants.
func (d *Driver) explain(ctx context.Context, err error) error {
	err = d.cause(ctx, err)
	var gone *absent
	if !errors.As(err, &gone) || !gone.unclear || d.seen.Load() {
		return err
	}
	// To take a missing bucket for a missing object could end a recovery early.
	// A listing tells them apart; where that is refused too, it is the answer.
	if _, _, lerr := d.Page(ctx, "", ""); lerr != nil {
		return lerr
	}
	return err
}

// cause is explain without a question to the server.
func (d *Driver) cause(ctx context.Context, err error) error {
	var answer *googleapi.Error
	var judged *fault.Error
	var token *noToken
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &answer):
		return d.refused(answer)
	case errors.As(err, &judged):
		return judged
	case errors.As(err, &token):
		return token
	case errors.As(err, &request):
		return request.Err
	}
	return err
}

// refused judges an answer of the storage. It says a reason, such as notFound,
// in JSON, or a code, such as NoSuchKey, in XML.
func (d *Driver) refused(answer *googleapi.Error) error {
	code, message := hear(answer)
	err := oneLine(answer, code, message)
	switch code {
	case "NoSuchBucket":
		return d.noBucket(err)
	case "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded": // which may come as 403
		return driver.Judge(err, http.StatusTooManyRequests, answer.Header, "")
	case "retentionPolicyNotMet", "objectUnderActiveHold":
		return driver.Permanent(err, "a retention policy or a hold of the bucket protects the object")
	}
	switch status := answer.Code; {
	case strings.Contains(strings.ToLower(code), "encryption"):
		return driver.Permanent(err, "GCS_ENCRYPTION_KEY must be the key with which the object was put, and unset for one without")
	case status == http.StatusNotFound && strings.Contains(message, "bucket does not exist"):
		return d.noBucket(err)
	case status == http.StatusNotFound:
		return &absent{err, code != "NoSuchKey" && !strings.HasPrefix(message, "No such object")}
	case status == http.StatusGone, // a session of chunks that the storage has given up
		status == http.StatusBadRequest && strings.Contains(message, "match calculated"): // a checksum
		return err
	case status >= 300 && status < 400:
		return driver.Permanent(err, d.notGoogle())
	}
	return driver.Judge(err, answer.Code, answer.Header,
		"is GOOGLE_APPLICATION_CREDENTIALS right, and has its account the role Storage Object User in the bucket "+d.name+"?")
}

func (d *Driver) noBucket(err error) error {
	return driver.Permanent(err, "there is no bucket "+d.name+"; WALG_GS_PREFIX must name an existing one: none is created")
}

func (d *Driver) notGoogle() string {
	return "the server does not speak Google's protocol; is " + d.traits.Endpoint + " right?"
}

func hear(answer *googleapi.Error) (code, message string) {
	if len(answer.Errors) > 0 {
		return line(answer.Errors[0].Reason), line(answer.Message)
	}
	var said struct{ Code, Message string }
	// What is no XML is nothing that we understand.
	if xml.Unmarshal([]byte(answer.Body), &said) != nil {
		return "", line(answer.Message)
	}
	return line(said.Code), line(said.Message)
}

// oneLine is code, message, status, and the number under which Google's people
// find the request.
func oneLine(answer *googleapi.Error, code, message string) error {
	what := cmp.Or(code, http.StatusText(answer.Code))
	if message != "" {
		what += ": " + strings.TrimSuffix(message, ".")
	}
	if id := line(answer.Header.Get("X-GUploader-UploadID")); id != "" {
		return fmt.Errorf("%s (%d, request %s)", what, answer.Code, id)
	}
	return fmt.Errorf("%s (%d)", what, answer.Code)
}
