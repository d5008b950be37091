package s3

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

const noSuchUpload = "NoSuchUpload"

// answer is what an error of the SDK comes down to.
type answer struct {
	err           error // short
	code, message string
	status        int // 0 where there was no answer
	header        http.Header
}

func describe(err error) answer {
	var a answer
	if err == nil {
		return a
	}
	var n *nobody
	if errors.As(err, &n) { // no answer of the storage's
		return answer{err: prefixed("no credentials", describe(n.error).err)}
	}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		a.status, a.header = response.Response.StatusCode, response.Response.Header
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	var request *url.Error
	switch {
	case a.status == 0 && errors.As(err, &request):
		a.err = request.Err // without the URL
	case a.code == "" && a.status < http.StatusMultipleChoices:
		a.err = innermost(err) // no answer, or one that broke off
	default:
		a.err = errors.New(a.String())
	}
	return a
}

// longestMessage is how much is shown of what a server says.
const longestMessage = 200

func (a *answer) String() string {
	status := http.StatusText(a.status)
	said, message := a.code, strings.Join(strings.Fields(a.message), " ")
	if message == status {
		message = ""
	}
	// The SDK makes a code of the status where the server gives none.
	if said == "" || said == "UnknownError" || message == "" && said == strings.ReplaceAll(status, " ", "") {
		said = status
	}
	if runes := []rune(message); len(runes) > longestMessage {
		message = string(runes[:longestMessage]) + "..."
	}
	if message != "" && message != said {
		said += ": " + strings.TrimSuffix(message, ".")
	}
	var where []string
	if a.status != 0 {
		where = append(where, fmt.Sprint(a.status))
	}
	if id := a.header.Get("X-Amz-Request-Id"); id != "" {
		where = append(where, "request "+id)
	}
	if len(where) > 0 {
		said += " (" + strings.Join(where, ", ") + ")"
	}
	return said
}

// innermost takes the wrappings of the SDK off, which repeat each other.
func innermost(err error) error {
	for {
		switch err.(type) {
		case *smithy.OperationError, *smithyhttp.RequestSendError, *smithyhttp.ResponseError, *smithy.SerializationError, *smithy.DeserializationError:
			inner := errors.Unwrap(err)
			if inner == nil {
				return err
			}
			err = inner
		default:
			return err
		}
	}
}

func prefixed(text string, err error) error { return fmt.Errorf("%s: %w", text, err) }

// hints, by the code of the error: what trying again cannot mend.
var hints = map[string]string{
	"InvalidAccessKeyId":              "is AWS_ACCESS_KEY_ID right, and of this storage?",
	"XAdminUserNotFound":              "is AWS_ACCESS_KEY_ID right, and of this storage?", // versitygw
	"SignatureDoesNotMatch":           "is AWS_SECRET_ACCESS_KEY right?",
	"InvalidToken":                    "is AWS_SESSION_TOKEN of the same key?",
	"ExpiredToken":                    "AWS_SESSION_TOKEN has expired",
	"RequestTimeTooSkewed":            "set the clock of this machine right",
	"RequestExpired":                  "set the clock of this machine right",
	"AccessDenied":                    "may this key (AWS_ACCESS_KEY_ID) do that in the bucket of WALG_S3_PREFIX?",
	"AllAccessDisabled":               "the bucket of WALG_S3_PREFIX is closed to all",
	"AccountProblem":                  "ask who runs the storage",
	"NoSuchBucket":                    "WALG_S3_PREFIX must name an existing bucket; none is created",
	"InvalidBucketName":               "WALG_S3_PREFIX must name an existing bucket",
	"InvalidStorageClass":             "does this storage know the class of WALG_S3_STORAGE_CLASS?",
	"InvalidEncryptionAlgorithmError": "does this storage know the encryption of WALG_S3_SSE?",
	"ServerSideEncryptionConfigurationNotFoundError": "does this storage know the encryption of WALG_S3_SSE?",
	"KMSNotConfigured":                     "this storage has no keys: unset WALG_S3_SSE",
	"InvalidObjectState":                   "the object is in an archive; restore it first",
	"NoSuchObjectLockConfiguration":        "S3_RETENTION_PERIOD needs a bucket with object lock",
	"ObjectLockConfigurationNotFoundError": "S3_RETENTION_PERIOD needs a bucket with object lock",
}

// retried are codes that come with a status that looks final.
var retried = map[string]bool{
	"RequestTimeout": true, "RequestTimeoutException": true, "BadDigest": true, "XAmzContentChecksumMismatch": true,
	"XAmzContentSHA256Mismatch": true, "IncompleteBody": true, "ConditionalRequestConflict": true, "OperationAborted": true,
	"InternalError": true, "ServiceUnavailable": true, "TokenRefreshRequired": true,
}

// oddDenials is how many refusals are tried again where others were granted:
// MinIO denies a put while another request takes the directory away. In the
// same moment versitygw takes the directory for the object.
const (
	oddDenials = 3
	inTheWay   = "ExistingObjectIsDirectory"
)

// judge gives an error of the SDK its kind.
func (d *Driver) judge(ctx context.Context, err error) error {
	var judged *fault.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &judged):
		return err
	}
	var n *nobody
	if errors.As(err, &n) {
		return d.noCredentials(ctx, n.error, identityHint, true)
	}
	a := describe(err)
	switch {
	case a.code == "" && a.status < http.StatusMultipleChoices:
		return a.err
	case a.code == noSuchUpload:
		return a.err
	case retried[a.code] || a.code == "SlowDown" || a.code == "SlowDownRead" || a.code == "SlowDownWrite" || strings.HasPrefix(a.code, "Throttl") || a.code == "RequestLimitExceeded":
		return driver.Judge(a.err, http.StatusServiceUnavailable, a.header, "")
	case (a.code == "ExpiredToken" || a.code == "ExpiredTokenException") && d.cache != nil:
		d.cache.Invalidate() // whoever gave it gives another
		return a.err
	case a.code == "NoSuchKey" || a.code == "NoSuchVersion":
		return fmt.Errorf("%w: %w", fs.ErrNotExist, a.err)
	case a.code == "PreconditionFailed":
		return fmt.Errorf("%w: %w", fs.ErrExist, a.err)
	case (a.code == "AccessDenied" || a.code == inTheWay) && d.found.Load() && d.denied.Add(1) <= oddDenials:
		return a.err
	case a.status == http.StatusNotImplemented:
		return driver.Permanent(a.err, "this storage does not do that; IfAbsent, WALG_S3_SSE and S3_RETENTION_PERIOD ask for more than some do")
	case hints[a.code] != "":
		return driver.Permanent(a.err, hints[a.code])
	case strings.HasPrefix(strings.ToLower(a.code), "kms"):
		return driver.Permanent(a.err, "is WALG_S3_SSE_KMS_ID a key that may be used?")
	case a.code == "InvalidRequest" && d.config.retention > 0 && strings.Contains(strings.ToLower(a.message), "lock"):
		return driver.Permanent(a.err, hints["NoSuchObjectLockConfiguration"])
	case d.elsewhere(a):
		return driver.Permanent(a.err, d.region(err))
	case a.code == "BadRequest": // made of the status: HEAD has no body
		return driver.Permanent(a.err, "the storage does not say why: look at AWS_ENDPOINT (https?), AWS_REGION, AWS_SESSION_TOKEN and WALG_S3_SSE_C")
	case a.status == http.StatusNotFound && a.code == "" && d.found.Load():
		return a.err // a gateway's page, not S3's words: no absent object
	case a.status == http.StatusNotFound:
		return d.missing(ctx, a)
	case a.status == http.StatusForbidden || a.status == http.StatusUnauthorized:
		return driver.Permanent(a.err, hints["AccessDenied"])
	case a.status == http.StatusOK:
		return a.err // an error in the body of a success
	}
	return driver.Judge(a.err, a.status, a.header, "")
}

// elsewhere reports whether the bucket is in another region, or at another
// address.
func (d *Driver) elsewhere(a answer) bool {
	switch a.code {
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException", "InvalidRegion":
		return true
	}
	return a.status >= 300 && a.status < 400 ||
		a.status == http.StatusBadRequest && a.code != "" && a.header.Get("X-Amz-Bucket-Region") != "" && d.api != nil &&
			a.header.Get("X-Amz-Bucket-Region") != d.api.Options().Region
}

func (d *Driver) region(err error) string {
	if region := regionIn(err); region != "" {
		return "set AWS_REGION=" + region + ", where the bucket is"
	}
	hint := "is AWS_REGION that of the bucket, AWS_ENDPOINT that of the storage, and AWS_S3_FORCE_PATH_STYLE as it wants it?"
	if d.guessed {
		hint = "no AWS_REGION is set, and the storage does not tell it; " + hint
	}
	return hint
}

// missing tells an absent object from an absent bucket, where the answer does
// not. A wrong prefix must not look like an empty archive.
func (d *Driver) missing(ctx context.Context, a answer) error {
	absent := fmt.Errorf("%w: %w", fs.ErrNotExist, a.err)
	if d.found.Load() || d.api == nil {
		return absent
	}
	_, err := d.api.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &d.bucket})
	switch status := describe(err).status; {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, status == http.StatusForbidden:
		d.found.Store(true)
		return absent
	case status == http.StatusNotFound:
		return driver.Permanent(a.err, hints["NoSuchBucket"])
	}
	return describe(err).err
}

// tagged wants the tag that each object has, and each part. Without one the
// answer is not from S3, or was cut: none of it is to be believed.
func tagged(etag *string) error {
	if aws.ToString(etag) == "" {
		return errors.New("the answer has no ETag: it is not that of an S3 server")
	}
	return nil
}

// judge of an upload: one that the storage does not know any more cannot go on.
func (u *upload) judge(ctx context.Context, err error) error { return u.d.judge(ctx, err) }

// etagMD5 returns the MD5 that an ETag is, or nil.
func etagMD5(etag string) []byte {
	sum, err := hex.DecodeString(strings.Trim(etag, `"`))
	if err != nil || len(sum) != 16 {
		return nil
	}
	return sum
}
