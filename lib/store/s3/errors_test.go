package s3

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// operations are all that a driver can do, with the request that each sends.
func operations(t *testing.T, d *Driver) map[string]func(context.Context) error {
	t.Helper()
	begin := func(o driver.Options) driver.Upload {
		u, err := d.Begin(t.Context(), "k", o)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	up, absent := begin(driver.Options{}), begin(driver.Options{IfAbsent: true})
	read := func(ctx context.Context, at int64, version string) error {
		r, _, err := d.Read(ctx, "k", at, 10, version)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		return err
	}
	return map[string]func(context.Context) error{
		"PUT": func(ctx context.Context) error { return d.Whole(ctx, "k", []byte("data"), driver.Options{}) },
		"PUT if absent": func(ctx context.Context) error {
			return d.Whole(ctx, "k", []byte("data"), driver.Options{IfAbsent: true})
		},
		"begin": func(ctx context.Context) error {
			_, err := d.Begin(ctx, "k", driver.Options{})
			return err
		},
		"part":             func(ctx context.Context) error { return up.Part(ctx, 1, 0, []byte("data")) },
		"commit":           func(ctx context.Context) error { return up.Commit(ctx, 1, driver.Sum{Size: 4}) },
		"commit if absent": func(ctx context.Context) error { return absent.Commit(ctx, 1, driver.Sum{Size: 4}) },
		"abort":            func(ctx context.Context) error { return up.Abort(ctx) },
		"GET":              func(ctx context.Context) error { return read(ctx, 0, "") },
		"GET again":        func(ctx context.Context) error { return read(ctx, 2, `"tag"`) },
		"HEAD":             func(ctx context.Context) error { _, err := d.Stat(ctx, "k"); return err },
		"list":             func(ctx context.Context) error { _, _, err := d.Page(ctx, "", ""); return err },
		"delete":           func(ctx context.Context) error { return d.Delete(ctx, []string{"k"}) },
		"unfinished": func(ctx context.Context) error {
			for _, err := range d.Unfinished(ctx, "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// where it goes: the request of an operation as the fake calls it.
var where = map[string]string{
	"PUT": "PUT /walg/k", "PUT if absent": "PUT /walg/k", "begin": "POST /walg/k?uploads", "part": "PUT /walg/k?uploadId",
	"commit": "POST /walg/k?uploadId", "commit if absent": "POST /walg/k?uploadId", "abort": "DELETE /walg/k?uploadId",
	"GET": "GET /walg/k", "GET again": "GET /walg/k", "HEAD": "HEAD /walg/k", "list": "GET /walg?list-type",
	"delete": "POST /walg?delete", "unfinished": "GET /walg?uploads",
}

func TestRefusalsAreJudged(t *testing.T) {
	t.Parallel()
	const usage, failed, ok = fault.Usage, fault.Failed, fault.OK
	const (
		keyID, secret, token = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
		bucket, clock        = "WALG_S3_PREFIX", "clock"
		region               = "AWS_REGION=us-west-2"
	)
	inWest := []string{"X-Amz-Bucket-Region", "us-west-2"}
	malformed := "The authorization header is malformed; the region 'eu-central-1' is wrong; expecting 'us-west-2'"
	for _, c := range []struct {
		ops    string // with commas
		answer http.HandlerFunc
		status int
		is     error  // or nil
		words  string // of the message
		hint   string // its words; "" is none
	}{
		// Who we are.
		{"PUT,GET,list,begin,part,commit,delete", says(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
			usage, nil, "InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records (403, request 17A0)", keyID},
		{"list", says(404, "XAdminUserNotFound", "no such user"), usage, nil, "XAdminUserNotFound: no such user (404", keyID},
		{"PUT,GET,list,begin,part,commit,delete", says(403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
			usage, nil, "SignatureDoesNotMatch: The request signature", secret},
		{"PUT,GET,list,part,commit", says(403, "RequestTimeTooSkewed", "The difference is too large."), usage, nil, "RequestTimeTooSkewed", clock},
		{"GET", says(403, "RequestExpired", "Request has expired"), usage, nil, "RequestExpired", clock},
		{"PUT,GET,list", says(400, "ExpiredToken", "The provided token has expired."), usage, nil, "ExpiredToken: The provided token has expired (400", token},
		{"GET", says(400, "InvalidToken", "malformed"), usage, nil, "InvalidToken", token},
		{"GET,PUT,list,part,commit,delete", says(403, "AccessDenied", "Access Denied"), usage, nil, "AccessDenied: Access Denied (403", bucket},
		{"HEAD", says(403, "", ""), usage, nil, "Forbidden (403, request 17A0)", keyID},
		{"HEAD,GET", says(401, "", ""), usage, nil, "Unauthorized (401", keyID},

		// Where it is.
		{"PUT,GET,list,begin,part,delete,unfinished", says(404, "NoSuchBucket", "The specified bucket does not exist"),
			usage, nil, "NoSuchBucket: The specified bucket does not exist (404", bucket},
		{"HEAD", says(404, "", ""), usage, nil, "Not Found (404, request 17A0)", bucket}, // HEAD of the bucket says the same
		{"list", says(400, "InvalidBucketName", "bad"), usage, nil, "InvalidBucketName", bucket},
		{"PUT,GET,list,part", says(301, "PermanentRedirect", "Use another endpoint", inWest...), usage, nil, "PermanentRedirect: Use another endpoint (301", region},
		{"HEAD", says(301, "", "", inWest...), usage, nil, "Moved Permanently (301", region},
		{"PUT,GET,list,part", says(307, "TemporaryRedirect", "elsewhere", "Location", "http://other.invalid/walg/k?X-Amz-Signature=5ec7e7"),
			usage, nil, "TemporaryRedirect", "AWS_ENDPOINT"},
		{"PUT,GET,list,part", says(400, "AuthorizationHeaderMalformed", malformed), usage, nil, "AuthorizationHeaderMalformed", region},
		{"PUT,GET,list,part", says(400, "AuthorizationHeaderMalformed", strings.ReplaceAll(malformed, "'", "&quot;")), usage, nil, "AuthorizationHeaderMalformed", region}, // versitygw
		{"HEAD", says(400, "", ""), usage, nil, "Bad Request (400", "AWS_REGION"},
		{"GET", says(400, "AuthorizationHeaderMalformed", "wrong region", inWest...), usage, nil, "AuthorizationHeaderMalformed", region},
		{"HEAD", says(400, "", "", inWest...), usage, nil, "Bad Request (400", region},
		{"PUT", says(400, "IllegalLocationConstraintException", "incompatible"), usage, nil, "IllegalLocationConstraint", "AWS_REGION"},

		// What is there.
		{"GET", says(404, "NoSuchKey", "The specified key does not exist."), fault.Absent, fs.ErrNotExist, "NoSuchKey", ""},
		{"GET", says(404, "NoSuchVersion", "gone"), fault.Absent, fs.ErrNotExist, "NoSuchVersion", ""},
		{"PUT if absent,commit if absent", says(412, "PreconditionFailed", "At least one of the pre-conditions did not hold"),
			fault.Exists, fs.ErrExist, "PreconditionFailed", ""},
		{"PUT if absent,commit if absent", says(409, "ConditionalRequestConflict", "conflict"), failed, nil, "ConditionalRequestConflict: conflict (409", ""},
		{"commit", says(409, "OperationAborted", "conflict"), failed, nil, "OperationAborted", ""},
		{"GET,GET again", says(412, "PreconditionFailed", "replaced"), failed, driver.ErrChanged, "replaced while", ""},
		{"GET", says(416, "InvalidRange", "The requested range is not satisfiable"), failed, driver.ErrRange, "InvalidRange", ""},
		{"GET", says(403, "InvalidObjectState", "archived"), usage, nil, "InvalidObjectState", "restore"},
		{"part,commit", says(404, "NoSuchUpload", "The specified upload does not exist."), failed, nil, "NoSuchUpload: The specified upload does not exist (404", ""},
		{"abort", says(404, "NoSuchUpload", "The specified upload does not exist."), ok, nil, "", ""},
		{"abort", says(403, "AccessDenied", "no"), usage, nil, "AccessDenied", bucket},
		{"commit", says(400, "InvalidPart", "One or more of the specified parts could not be found."), usage, nil, "InvalidPart", ""},

		// What it can do.
		{"PUT,begin", says(400, "InvalidStorageClass", "no such class"), usage, nil, "InvalidStorageClass", "WALG_S3_STORAGE_CLASS"},
		{"PUT,begin", says(400, "InvalidEncryptionAlgorithmError", "unknown"), usage, nil, "InvalidEncryption", "WALG_S3_SSE"},
		{"PUT,begin", says(501, "KMSNotConfigured", "no keys"), usage, nil, "KMSNotConfigured", "WALG_S3_SSE"},
		{"PUT,begin,GET", says(400, "KMS.NotFoundException", "key is not there"), usage, nil, "KMS.NotFoundException: key is not there (400", "WALG_S3_SSE_KMS_ID"},
		{"PUT", says(400, "KMS.DisabledException", "off"), usage, nil, "KMS.Disabled", "WALG_S3_SSE_KMS_ID"},
		{"PUT", says(404, "kms:KeyNotFound", "no key"), usage, nil, "kms:KeyNotFound", "WALG_S3_SSE_KMS_ID"}, // MinIO
		{"PUT", says(404, "ObjectLockConfigurationNotFoundError", "no lock"), usage, nil, "ObjectLockConfiguration", "S3_RETENTION_PERIOD"},
		{"PUT,list", says(501, "NotImplemented", "A header you provided implies functionality that is not implemented"), usage, nil, "NotImplemented", "WALG_S3_SSE"},
		{"PUT", says(400, "InvalidArgument", "bad"), usage, nil, "InvalidArgument: bad (400, request 17A0)", ""},

		// What passes.
		{"PUT,part", says(400, "BadDigest", "The CRC32C you specified did not match"), failed, nil, "BadDigest", ""},
		{"PUT,part", says(400, "XAmzContentChecksumMismatch", "damaged"), failed, nil, "XAmzContentChecksumMismatch", ""},
		{"PUT,part", says(400, "RequestTimeout", "Your socket connection was not read from in time"), failed, nil, "RequestTimeout", ""},
		{"PUT,part", says(400, "IncompleteBody", "cut"), failed, nil, "IncompleteBody", ""},
		{"PUT,GET,list,begin,part,commit,abort,delete,unfinished", says(500, "InternalError", "We encountered an internal error."),
			failed, nil, "InternalError: We encountered an internal error (500", ""},
		{"HEAD", says(500, "", ""), failed, nil, "Internal Server Error (500", ""},
		{"HEAD", says(503, "", ""), failed, nil, "Service Unavailable (503", ""},
		{"PUT,GET,list,part,commit,delete", says(503, "SlowDown", "Please reduce your request rate."), failed, nil, "SlowDown: Please reduce your request rate (503", ""},
		{"GET", says(400, "ThrottlingException", "rate"), failed, nil, "Throttling", ""},
		{"GET", sends(502, "<html><body>Bad Gateway</body></html>"), failed, nil, "Bad Gateway (502)", ""},
		{"commit", says(200, "InternalError", "We encountered an internal error."), failed, nil, "InternalError", ""},
		{"commit", says(200, "SlowDown", "Reduce"), failed, nil, "SlowDown", ""},
		{"commit if absent", says(200, "PreconditionFailed", "exists"), fault.Exists, fs.ErrExist, "PreconditionFailed", ""},

		// What is no answer.
		{"list", sends(200, "<?xml version=\"1.0\"?><ListBucketResult><Contents><Key>a</Key>"), failed, nil, "EOF", ""},
		{"begin", sends(200, "<InitiateMultipartUploadResult><UploadId>1"), failed, nil, "EOF", ""},
		{"begin", sends(200, "<InitiateMultipartUploadResult></InitiateMultipartUploadResult>"), failed, nil, "no upload id", ""},
		{"commit", sends(200, "<?xml version=\"1.0\"?>\n<CompleteMultipartUploadResult><ETag>"), failed, nil, "EOF", ""},
		{"commit", sends(200, "<?xml version=\"1.0\"?>\n   "), failed, nil, "no ETag", ""}, // it had begun to wait for the object
		{"PUT,part,commit,HEAD", sends(200, ""), failed, nil, "no ETag", ""},
		{"PUT,part,commit,GET,HEAD", sends(200, "<html>hello</html>"), failed, nil, "no ETag", ""},
		{"delete", sends(200, "<DeleteResult><Err"), failed, nil, "EOF", ""},
		{"list", sends(500, "<Error><Code>Inter"), failed, nil, "(500)", ""},
		{"list,unfinished", sends(200, ""), failed, nil, "not a listing", ""},
		{"list,unfinished", sends(200, "<html>hello</html>"), failed, nil, "not a listing", ""}, // nor an empty archive
		{"GET", sends(206, "data"), failed, nil, "how much", ""},
		{"GET", sends(206, "data", "Content-Range", "bytes 5-8/9"), failed, nil, "bytes 5-8/9", ""},
		{"GET again", sends(200, "data"), usage, nil, "does not know ranges", ""},
	} {
		for op := range strings.SplitSeq(c.ops, ",") {
			t.Run(op+" "+c.words, func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				d := f.driver(t, nil)
				do := operations(t, d)[op]
				f.answer("", c.answer)
				if op == "PUT if absent" {
					f.absent(d)
				}
				err := do(t.Context())
				if len(f.requests(where[op])) == 0 {
					t.Fatalf("no request %s", where[op])
				}
				if got := fault.Status(err); got != c.status {
					t.Errorf("status %d (%v), want %d", got, err, c.status)
				}
				if err == nil {
					return
				}
				if c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%v is not %v", err, c.is)
				}
				for _, not := range []error{fs.ErrExist, fs.ErrNotExist} {
					if c.is != not && errors.Is(err, not) {
						t.Errorf("%v is %v", err, not)
					}
				}
				if !strings.Contains(err.Error(), c.words) {
					t.Errorf("%q is without %q", err, c.words)
				}
				if hint := fault.Hint(err); !strings.Contains(hint, c.hint) || c.hint == "" && hint != "" {
					t.Errorf("hint %q, want one with %q", hint, c.hint)
				}
				short(t, err)
			})
		}
	}
}

var unwanted = regexp.MustCompile(`\n|\?|http://|operation error|api error|5ec7e7|` + fakeSecret + `|aG9zdA==`)

// short wants one line without what nobody reads, or nobody may.
func short(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); unwanted.MatchString(text) || len(text) > 300 {
		t.Errorf("not a short plain line: %q", text)
	}
}

func TestMessagesOfServersAreTamed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	f.answer("", says(400, "InvalidArgument", "one\n  two\tthree "+strings.Repeat("and so on ", 1000)))
	_, _, err := d.Page(t.Context(), "", "")
	if err == nil || !strings.HasPrefix(err.Error(), "InvalidArgument: one two three and so on") || !strings.HasSuffix(err.Error(), "(400, request 17A0)") {
		t.Errorf("%.80q", err)
	}
	short(t, err)
}

func TestThrottlingSaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"429":         sends(429, "", "Retry-After", "7"),
		"503":         says(503, "", "", "Retry-After", "7"),
		"SlowDown":    says(503, "SlowDown", "slow", "Retry-After", "7"),
		"InternalErr": sends(500, "", "Retry-After", "7"),
	} {
		f := newFake(t)
		d := f.driver(t, nil)
		f.answer("", answer)
		err := d.Whole(t.Context(), "k", nil, driver.Options{})
		var later *driver.Later
		if !errors.As(err, &later) || later.After != 7*time.Second {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestAnAbsentBucketIsNotAnAbsentObject(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer("HEAD /walg/k", says(404, "", ""))
	f.answer("HEAD /walg", says(404, "", ""))
	d := f.driver(t, nil)
	for range 2 { // nothing wrong is remembered
		if _, err := d.Stat(t.Context(), "k"); fault.Status(err) != fault.Usage {
			t.Errorf("no bucket: %v", err)
		}
	}
	f.answer("HEAD /walg", says(500, "", ""))
	if _, err := d.Stat(t.Context(), "k"); fault.Status(err) != fault.Failed {
		t.Errorf("not known: %v", err)
	}
	for _, there := range []http.HandlerFunc{says(200, "", ""), says(403, "", "")} {
		d := f.driver(t, nil)
		f.answer("HEAD /walg", there)
		before := len(f.requests("HEAD /walg"))
		for range 3 {
			if _, err := d.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no object: %v", err)
			}
		}
		if n := len(f.requests("HEAD /walg")) - before; n != 1 {
			t.Errorf("%d questions for the bucket", n)
		}
	}
}

func TestOneRefusalAmongGrantsIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	put := func() error { return d.Whole(t.Context(), "k", nil, driver.Options{}) }
	if err := put(); err != nil {
		t.Fatal(err)
	}
	f.answer("", says(409, inTheWay, "Existing Object is a directory"))
	if err := put(); fault.Status(err) != fault.Failed {
		t.Errorf("versitygw: %v", err)
	}
	f.answer("", says(403, "AccessDenied", "Access Denied"))
	for range oddDenials - 1 {
		if err := put(); fault.Status(err) != fault.Failed {
			t.Errorf("the first times: %v", err)
		}
	}
	if err := put(); fault.Status(err) != fault.Usage {
		t.Errorf("ever again: %v", err)
	}
}

func TestDeleteNamesWhatIsLeft(t *testing.T) {
	t.Parallel()
	each := func(code, message, key string) string {
		return "<Error><Key>" + key + "</Key><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
	}
	for name, c := range map[string]struct {
		errors      string
		status      int
		words, hint string
		left        int // 0: all, because nobody can say
	}{
		"none":        {"", fault.OK, "", "", 0},
		"absent":      {each("NoSuchKey", "gone", "a"), fault.OK, "", "", 0},
		"denied":      {each("AccessDenied", "Access Denied.", "b") + each("AccessDenied", "Access Denied.", "a"), fault.Usage, "a: AccessDenied: Access Denied", "locked", 2},
		"locked":      {each("InvalidRequest", "Object is WORM protected", "b"), fault.Usage, "b: InvalidRequest: Object is WORM protected", "locked", 1},
		"elsewhere":   {each("AuthorizationHeaderMalformed", "the region is wrong; expecting 'us-west-2'", "b"), fault.Usage, "b: AuthorizationHeaderMalformed: the region is wrong; expecting 'us-west-2'", "AWS_REGION=us-west-2", 1}, // MinIO
		"odd":         {each("MethodNotAllowed", "no", "b"), fault.Usage, "b: MethodNotAllowed: no", "", 1},
		"not now":     {each("InternalError", "again", "b"), fault.Failed, "b: InternalError: again", "", 1},
		"not so fast": {each("SlowDown", "slow", "b"), fault.Failed, "b: SlowDown: slow", "", 1},
		"strange":     {each("InternalError", "again", "c"), fault.Failed, `the storage speaks of "c", for which it was not asked: InternalError: again`, "", 0},
	} {
		f := newFake(t)
		f.answer("POST /walg?delete", sends(200, "<DeleteResult>"+c.errors+"</DeleteResult>"))
		err := f.driver(t, nil).Delete(t.Context(), []string{"a", "b"})
		if fault.Status(err) != c.status || !strings.Contains(fault.Hint(err), c.hint) || err != nil && err.Error() != c.words {
			t.Errorf("%s: status %d, %v, hint %q", name, fault.Status(err), err, fault.Hint(err))
		}
		var left driver.Undeleted
		if errors.As(err, &left); len(left) != c.left {
			t.Errorf("%s: left %v, want %d", name, left, c.left)
		}
	}
}

func TestCancelledRequestsEndWithTheCause(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	ops := operations(t, d)
	arrived, release := make(chan bool, 1), make(chan bool)
	defer close(release)
	f.answer("", func(http.ResponseWriter, *http.Request) { arrived <- true; <-release })
	cause := errors.New("the cause")
	for op, do := range ops {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-arrived; cancel(cause) }()
		if err := do(ctx); !errors.Is(err, cause) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestAnErrorOfTheNetworkIsShort(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	ops := operations(t, d)
	f.answer("", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	for op, do := range ops {
		err := do(t.Context())
		if fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("%s: %v", op, err)
			continue
		}
		short(t, err)
	}
	f.Close()
	if _, err := d.Stat(t.Context(), "k"); fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	} else {
		short(t, err)
	}
}
