package azure

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"walg/lib/store/driver"
)

// longest is how much of a server's own words we repeat, in bytes.
const longest = 300

// line returns the first line of a text, without control characters.
func line(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.Join(strings.FieldsFunc(text, unicode.IsControl), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "..."
	}
	return text
}

// written explains the error of a request that makes an object.
func (d *Driver) written(ctx context.Context, err error, o driver.Options) error {
	// A blob that a policy protects from being overwritten exists too.
	exists := o.IfAbsent && bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.BlobImmutableDueToPolicy)
	err = d.explain(ctx, err)
	if exists && ctx.Err() == nil {
		return fmt.Errorf("%w: %v", fs.ErrExist, err) // err itself has been judged for other cases
	}
	return err
}

// explain makes a short cause of the SDK's error, of the kind that
// driver.Driver wants.
func (d *Driver) explain(ctx context.Context, err error) error {
	var answer *azcore.ResponseError
	var noToken *azidentity.AuthenticationFailedError
	var final interface{ NonRetriable() }
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, which may have a SAS token in it
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == context.DeadlineExceeded: // and not what only calls itself so, as a dialer's time limit
		return fmt.Errorf("not done after %v (AZURE_TRY_TIMEOUT)", d.timeout)
	case errors.As(err, &answer):
		return d.refused(answer)
	case errors.As(err, &noToken):
		return tokenRefused(noToken)
	case errors.As(err, &final):
		if strings.Contains(err.Error(), "failed to acquire a token") {
			return driver.Permanent(errors.New("no credentials: there is no key and no SAS token, and no identity that gives a token"),
				"set AZURE_STORAGE_ACCESS_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
		}
		return driver.Permanent(errors.New(line(err.Error())), d.denied)
	}
	return err
}

// stranger is for what no server of Azure's says.
func (d *Driver) stranger(err error) error {
	return driver.Permanent(err, "the server does not speak Azure's protocol; is "+d.traits.Endpoint+" right?")
}

// refusal is what Azure says in the body of an answer.
type refusal struct {
	Message    string
	Detail     string `xml:"AuthenticationErrorDetail"`
	HeaderName string
}

// refused judges an answer of the storage.
func (d *Driver) refused(answer *azcore.ResponseError) error {
	var said refusal
	header := answer.RawResponse.Header
	if text, err := runtime.Payload(answer.RawResponse); err == nil {
		xml.Unmarshal(text, &said) // an answer without XML is none of Azure's
	}
	id := ""
	if request := line(header.Get("X-Ms-Request-Id")); request != "" {
		id = ", request " + request // under which Azure's people find it
	}
	code, status := bloberror.Code(answer.ErrorCode), answer.StatusCode
	err := fmt.Errorf("%s (%d%s)", sentence(answer.ErrorCode, status, said.Message), status, id)
	if hint := hint(code); hint != "" {
		return driver.Permanent(err, hint)
	}
	for words, hint := range details {
		if strings.Contains(said.Detail, words) {
			return driver.Permanent(err, hint)
		}
	}
	switch {
	case code == bloberror.BlobNotFound:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case code == bloberror.InvalidRange:
		return fmt.Errorf("%w: %w", driver.ErrRange, err)
	case code == bloberror.MD5Mismatch, code == crc64Mismatch:
		return err // damaged on the way
	case strings.EqualFold(said.HeaderName, "x-ms-version"):
		return driver.Permanent(err, "AZURE_BLOB_STORE_API_VERSION can name an older version of the protocol")
	case status == http.StatusNotFound && code == "", status < 400: // it never redirects
		// To take this for an absent object could end a recovery early.
		return d.stranger(err)
	case status == http.StatusNotFound, status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable:
		return driver.Permanent(err, "")
	}
	return driver.Judge(err, status, header, d.denied)
}

// sentence is one line of a code, or what stands for it, and a message.
func sentence(code string, status int, message string) string {
	code, message = line(cmp.Or(code, http.StatusText(status))), strings.TrimSuffix(line(message), ".")
	if message == "" {
		return code
	}
	return code + ": " + message
}

// hint is for what trying again cannot mend.
func hint(code bloberror.Code) string {
	switch code {
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled, bloberror.InvalidResourceName:
		return "WALG_AZ_PREFIX must name an existing container; none is created"
	case bloberror.ResourceNotFound, bloberror.AccountIsDisabled:
		return "are AZURE_STORAGE_ACCOUNT and WALG_AZ_PREFIX right?"
	case bloberror.BlobArchived, bloberror.BlobBeingRehydrated:
		return "the object is in the archive tier; move it to another tier first, which takes hours"
	case bloberror.BlobImmutableDueToPolicy, bloberror.SnapshotsPresent:
		return "a policy, hold or snapshot of this storage protects the object"
	case bloberror.LeaseIDMissing, bloberror.LeaseAlreadyPresent, bloberror.LeaseIDMismatchWithBlobOperation:
		return "somebody holds a lease on the object"
	case bloberror.InvalidBlobOrBlock, bloberror.BlockCountExceedsLimit:
		return "unfinished uploads of this object are in the way; they go away after a week"
	}
	return ""
}

// details are what Azure says beside AuthenticationFailed, with hints. The rest
// of it may have signatures in it.
var details = map[string]string{
	"Request date header":                             "is the clock of this machine right?",
	"Signature not valid in the specified time frame": "AZURE_STORAGE_SAS_TOKEN has expired or is not valid yet, or the clock of this machine is wrong",
}

const crc64Mismatch bloberror.Code = "Crc64Mismatch"

// requestLine is what Go puts before a failure of the network.
var requestLine = regexp.MustCompile(`(Get|Post) "[^"]*": `)

// tokenRefused judges the answer of the authority that gives tokens.
func tokenRefused(e *azidentity.AuthenticationFailedError) error {
	if e.RawResponse == nil {
		text, _, _ := strings.Cut(strings.Join(strings.Fields(e.Error()), " "), " To troubleshoot")
		text = line(requestLine.ReplaceAllString(text, ""))
		err := fmt.Errorf("no token: %s", strings.TrimSuffix(text, "."))
		if strings.Contains(text, "x509: ") || strings.Contains(text, "tls: ") || strings.Contains(text, "no such host") {
			return driver.Permanent(err, "is AZURE_AUTHORITY_HOST right? SSL_CERT_FILE names a file with a certificate authority of your own")
		}
		return err
	}
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if text, err := runtime.Payload(e.RawResponse); err == nil {
		json.Unmarshal(text, &said) // what is no JSON says nothing to us
	}
	status := e.RawResponse.StatusCode
	err := fmt.Errorf("no token: %s (%d)", sentence(said.Error, status, said.Description), status)
	if status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500 {
		return driver.Judge(err, status, e.RawResponse.Header, "")
	}
	return driver.Permanent(err, "are AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET right?")
}
