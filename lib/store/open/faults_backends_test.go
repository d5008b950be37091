//go:build linux

package open

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/faulttest"
	"walg/lib/store/remote"
)

// The storages of the matrix: how their requests look, and what they say.

// A backend is one storage in the matrix.
type backend struct {
	name   string
	server string // of server.sh
	// Settings: that of the prefix, that with the server's URL, that which no
	// message may show; and those that the tests need beside the server's own.
	prefix, endpoint, secret string
	settings                 map[string]string

	upstream func(env map[string]string) string // the server's host:port
	kind     func(r *http.Request) string       // put, part, commit, get, list, delete, ...; nil where it is not HTTP
	large    int                                // more bytes than a part
	stall    time.Duration                      // where no stall is tested
	stalled  time.Duration                      // and where one is
	gate     chan struct{}                      // holds a token for each case that runs

	bodies map[string]func() answer    // what the storage says, by the fault
	hints  map[string]string           // what the hint must say to it, a regexp
	wrong  func(env map[string]string) // makes the credentials wrong; nil where there are none
	// Statuses where they are not the usual ones, by fault/operation: for faults
	// that pass, and for those that stay.
	passing, staying map[string][]int

	patient  bool // its library takes its own time for chunks
	metadata bool // by which a Put knows its own object again
	lags     bool // a listing may be late when the server is busy
	ownHost  bool // the server answers only to its own name
	// help makes the proxy do what the real service would, and its stand-in does not.
	help func(a ailment, o operation) faulttest.Fault

	started sync.Once // the server takes objects
	shared  sync.Once // what reads read is there
	failed  string    // why it is not
}

// limit is within what time a fault that stays is reported.
func (b *backend) limit() time.Duration {
	if b.patient {
		return 2 * storm
	}
	return storm
}

// An answer is what a storage says.
type answer struct {
	status  int
	body    string
	headers []string // name, value, ...
}

func (a answer) action() faulttest.Action { return faulttest.Answer(a.status, a.body, a.headers...) }

// backendOf returns the one of that name.
func backendOf(name string) *backend {
	return backends[slices.IndexFunc(backends, func(b *backend) bool { return b.name == name })]
}

// withServer is the same storage on another server.
func (b *backend) withServer(server string) *backend {
	return &backend{name: b.name, server: server, prefix: b.prefix, upstream: b.upstream, settings: maps.Clone(b.settings),
		large: b.large, stall: b.stall, stalled: b.stalled, gate: b.gate, hints: b.hints, secret: b.secret, endpoint: b.endpoint, metadata: b.metadata}
}

// newBenchDirect is a case without a proxy.
func newBenchDirect(t *testing.T, b *backend) *bench {
	_, direct := b.address(t)
	b.await(t)
	c := &bench{T: t, b: b, patience: patience, root: "faults/direct/" + strings.ReplaceAll(t.Name(), "/", "-"), env: b.at(t, direct)}
	c.clean = b.open(t, c.env, c.root, 0, remote.Policy{})
	return c
}

// hostOf returns the host:port of a URL in a setting.
func hostOf(setting string) func(map[string]string) string {
	return func(env map[string]string) string {
		_, rest, ok := strings.Cut(env[setting], "://")
		if !ok {
			rest = env[setting]
		}
		host, _, _ := strings.Cut(rest, "/")
		return host
	}
}

func fixed(status int, body string, headers ...string) func() answer {
	return func() answer { return answer{status, body, headers} }
}

var backends = []*backend{s3Backend, gcsBackend, azureBackend, swiftBackend, sshBackend}

// S3

func s3Error(status int, code, message string, headers ...string) func() answer {
	return fixed(status, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<Error><Code>`+code+`</Code><Message>`+message+`</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>`,
		append([]string{"Content-Type", "application/xml"}, headers...)...)
}

var s3Backend = &backend{
	name: "s3", server: "minio", prefix: "WALG_S3_PREFIX", endpoint: "AWS_ENDPOINT",
	upstream: hostOf("AWS_ENDPOINT"), secret: "AWS_SECRET_ACCESS_KEY",
	settings: map[string]string{"S3_MAX_PART_SIZE": "5242880"},
	large:    6 << 20, stall: 5 * time.Second, stalled: 800 * time.Millisecond, gate: make(chan struct{}, 24), metadata: true,
	wrong: func(env map[string]string) { env["AWS_SECRET_ACCESS_KEY"] = "not this one, but as long as one" },
	kind: func(r *http.Request) string {
		query := r.URL.Query()
		has := func(name string) bool { return query.Has(name) }
		_, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case r.Method == "PUT" && has("partNumber"):
			return "part"
		case r.Method == "PUT":
			return "put"
		case r.Method == "POST" && has("uploads"):
			return "begin"
		case r.Method == "POST" && has("uploadId"):
			return "commit"
		case r.Method == "POST" && has("delete"), r.Method == "DELETE" && !has("uploadId"):
			return "delete"
		case r.Method == "GET" && object == "" && has("prefix"):
			return "list"
		case r.Method == "GET" && object != "":
			return "get"
		case r.Method == "HEAD":
			return "stat"
		}
		return "other"
	},
	bodies: map[string]func() answer{
		"500":   s3Error(500, "InternalError", "We encountered an internal error. Please try again."),
		"503":   s3Error(503, "SlowDown", "Please reduce your request rate."),
		"429":   s3Error(429, "TooManyRequests", "Too many requests.", "Retry-After", "1"),
		"403":   s3Error(403, "AccessDenied", "Access Denied"),
		"clock": s3Error(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
		"301": s3Error(301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.",
			"X-Amz-Bucket-Region", "eu-west-1", "Location", "http://elsewhere.invalid/"),
		// An answer that is begun before the work is done can only say 200.
		"200 commit": s3Error(200, "InternalError", "We encountered an internal error. Please try again."),
		"200 delete": fixed(200, `<?xml version="1.0" encoding="UTF-8"?><DeleteResult><Error><Key>any</Key><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error></DeleteResult>`,
			"Content-Type", "application/xml"),
	},
	hints: map[string]string{
		"403": `AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY`, "clock": `clock`, "301": `AWS_REGION|AWS_ENDPOINT`,
		"authority": `WALG_S3_CA_CERT_FILE`, "endpoint": `AWS_ENDPOINT`,
	},
}

// Google Cloud Storage

func gcsError(status int, reason, message string, headers ...string) func() answer {
	return fixed(status, fmt.Sprintf(`{"error": {"code": %d, "message": %q, "errors": [{"message": %q, "domain": "global", "reason": %q}]}}`,
		status, message, message, reason), append([]string{"Content-Type", "application/json; charset=UTF-8"}, headers...)...)
}

var gcsBackend = &backend{
	name: "gcs", server: "fake-gcs-server", prefix: "WALG_GS_PREFIX", endpoint: "STORAGE_EMULATOR_HOST",
	upstream: hostOf("STORAGE_EMULATOR_HOST"),
	settings: map[string]string{"GCS_MAX_CHUNK_SIZE": "262144", "GCS_MAX_RETRIES": "1000"},
	// Its library tries a chunk again for five stalls.
	large: 700 << 10, stall: time.Second, stalled: 800 * time.Millisecond, gate: make(chan struct{}, 24), metadata: true, ownHost: true, patient: true,
	// A chunk that comes twice is taken once; the emulator takes it twice.
	help: func(a ailment, o operation) faulttest.Fault {
		return faulttest.Fault{
			Match: func(r *http.Request) bool {
				return a.name == "lost" && o.target == "part" && r.Header.Get("Content-Range") == "bytes 0-262143/*"
			},
			Do: faulttest.Answer(http.StatusOK, "", "X-Http-Status-Code-Override", "308", "Range", "bytes=0-262143"),
		}
	},
	// The library believes the 200, and has no session any more to try with.
	passing: map[string][]int{"error in 200/commit": {fault.Failed}, "error in 200/commit over an old one": {fault.Failed}},
	staying: map[string][]int{
		// The status is in the part of the answer that comes: 308 for a chunk, and
		// for the second try of a deletion 404, which means that it is done.
		"truncated/put in parts": {fault.OK}, "truncated/delete": {fault.OK},
	},
	kind: func(r *http.Request) string {
		query := r.URL.Query()
		total := r.Header.Get("Content-Range")
		path := r.URL.EscapedPath()
		switch {
		case query.Get("uploadType") == "multipart":
			return "put"
		case query.Has("upload_id") && strings.HasPrefix(total, "bytes */"):
			return "progress"
		case query.Has("upload_id") && strings.HasSuffix(total, "/*"):
			return "part"
		case query.Has("upload_id"):
			return "commit"
		case query.Get("uploadType") == "resumable":
			return "begin"
		case r.Method == "DELETE":
			return "delete"
		case r.Method == "GET" && strings.HasSuffix(path, "/b/walg/o"):
			return "list"
		case r.Method == "GET" && strings.HasPrefix(path, "/storage/v1/"):
			return "stat"
		case r.Method == "GET":
			return "get"
		}
		return "other"
	},
	bodies: map[string]func() answer{
		"500":        gcsError(500, "backendError", "Backend Error"),
		"503":        gcsError(503, "backendError", "Service Unavailable"),
		"429":        gcsError(429, "rateLimitExceeded", "The object exceeded the rate limit for object mutation operations.", "Retry-After", "1"),
		"403":        gcsError(403, "forbidden", "walg@example.iam.gserviceaccount.com does not have storage.objects access to the bucket."),
		"301":        fixed(301, "", "Location", "http://elsewhere.invalid/"),
		"200 put":    gcsError(200, "internalError", "Internal error, try again"),
		"200 commit": gcsError(200, "internalError", "Internal error, try again"),
	},
	hints: map[string]string{
		"403": `GOOGLE_APPLICATION_CREDENTIALS`, "301": `STORAGE_EMULATOR_HOST`,
		"authority": `SSL_CERT_FILE`, "endpoint": `STORAGE_EMULATOR_HOST`,
	},
}

// Azure

func azureError(status int, code, message, more string, headers ...string) func() answer {
	return fixed(status, "\ufeff"+`<?xml version="1.0" encoding="utf-8"?><Error><Code>`+code+`</Code><Message>`+message+"\n"+
		`RequestId:5f0f6ff4-001e-0058-6ce2-0c0a5a000000`+"\n"+`Time:2024-01-01T00:00:00.0000000Z</Message>`+more+`</Error>`,
		append([]string{"Content-Type", "application/xml", "X-Ms-Error-Code", code, "X-Ms-Request-Id", "5f0f6ff4-001e-0058-6ce2-0c0a5a000000"}, headers...)...)
}

var azureBackend = &backend{
	name: "azure", server: "azurite", prefix: "WALG_AZ_PREFIX", endpoint: "AZURE_ENDPOINT",
	upstream: hostOf("AZURE_ENDPOINT"), secret: "AZURE_STORAGE_ACCESS_KEY",
	settings: map[string]string{"WALG_AZURE_BUFFER_SIZE": "1048576"},
	large:    5 << 19, stall: 5 * time.Second, stalled: 800 * time.Millisecond, gate: make(chan struct{}, 24), metadata: true,
	wrong: func(env map[string]string) { env["AZURE_STORAGE_ACCESS_KEY"] = "bm90IHRoaXMgb25l" },
	kind: func(r *http.Request) string {
		comp := r.URL.Query().Get("comp")
		switch {
		case r.Method == "PUT" && comp == "":
			return "put"
		case r.Method == "PUT" && comp == "block":
			return "part"
		case r.Method == "PUT" && comp == "blocklist":
			return "commit"
		case r.Method == "GET" && comp == "list":
			return "list"
		case r.Method == "GET" && comp == "":
			return "get"
		case r.Method == "HEAD":
			return "stat"
		case r.Method == "DELETE", comp == "batch":
			return "delete"
		}
		return "other"
	},
	bodies: map[string]func() answer{
		"500": azureError(500, "InternalError", "The server encountered an internal error. Please retry the request.", ""),
		"503": azureError(503, "ServerBusy", "The server is busy.", ""),
		"429": azureError(429, "TooManyRequests", "Too many requests.", "", "Retry-After", "1"),
		"403": azureError(403, "AuthorizationFailure", "This request is not authorized to perform this operation.", ""),
		"clock": azureError(403, "AuthenticationFailed", "Server failed to authenticate the request.",
			"<AuthenticationErrorDetail>Request date header too old: 'Mon, 01 Jan 2024 00:00:00 GMT'</AuthenticationErrorDetail>"),
		"301": fixed(301, "", "Location", "http://elsewhere.invalid/"),
	},
	hints: map[string]string{
		"403": `AZURE_STORAGE_ACCESS_KEY`, "clock": `clock`, "301": `AZURE_ENDPOINT`,
		"authority": `SSL_CERT_FILE`, "endpoint": `AZURE_ENDPOINT`,
	},
}

// Swift

func swiftError(status int, text string, headers ...string) func() answer {
	return fixed(status, "<html><h1>"+text+"</h1><p>"+text+".</p></html>",
		append([]string{"Content-Type", "text/html; charset=UTF-8", "X-Trans-Id", "tx1234567890"}, headers...)...)
}

var swiftBackend = &backend{
	name: "swift", server: "swift", prefix: "WALG_SWIFT_PREFIX", endpoint: "OS_AUTH_URL",
	upstream: hostOf("OS_AUTH_URL"), secret: "OS_PASSWORD",
	large: 17 << 20, stall: 5 * time.Second, stalled: 1500 * time.Millisecond, gate: make(chan struct{}, 12), metadata: true,
	// What its container server could not take at once it gets from a daemon that
	// the tests do not run.
	lags:  true,
	wrong: func(env map[string]string) { env["OS_PASSWORD"] = "not this one" },
	staying: map[string][]int{
		// A put asks first for an object that is not there yet: what never arrives
		// is that there is one.
		"lost/put over an old one": {fault.Failed}, "lost/commit over an old one": {fault.Failed},
		"truncated/put over an old one": {fault.Failed}, "truncated/commit over an old one": {fault.Failed},
		// A deletion looks first, and finds the second time that it is done, if there
		// is time for one.
		"lost/delete": {fault.OK, fault.Failed}, "truncated/delete": {fault.OK, fault.Failed},
	},
	kind: func(r *http.Request) string {
		query := r.URL.Query()
		parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 4) // v1, account, container, object
		object := len(parts) == 4 && parts[3] != ""
		segments := len(parts) > 2 && strings.HasSuffix(parts[2], "_segments")
		switch {
		case parts[0] == "auth":
			return "login"
		case r.Method == "PUT" && query.Get("multipart-manifest") == "put" && !segments:
			return "commit"
		case r.Method == "PUT" && segments && object:
			return "part"
		case r.Method == "PUT" && object:
			return "put"
		case r.Method == "GET" && object && !query.Has("multipart-manifest"):
			return "get"
		case r.Method == "GET" && len(parts) == 3 && !segments && query.Has("prefix"):
			return "list"
		case r.Method == "HEAD":
			return "stat"
		case r.Method == "DELETE", query.Has("bulk-delete"):
			return "delete"
		}
		return "other"
	},
	bodies: map[string]func() answer{
		"500": swiftError(500, "Internal Error"),
		"503": swiftError(503, "Service Unavailable"),
		"429": swiftError(429, "Too Many Requests", "Retry-After", "1"),
		"403": swiftError(403, "Forbidden"),
		"301": swiftError(301, "Moved Permanently", "Location", "http://elsewhere.invalid/"),
		// Of a bulk delete, and of a manifest that the server looks through.
		"200 delete": fixed(200, `{"Response Status": "502 Bad Gateway", "Response Body": "Bulk Delete failed.", "Number Deleted": 0, "Number Not Found": 0, "Errors": [["walg/any", "503 Internal Error"]]}`,
			"Content-Type", "application/json"),
	},
	hints: map[string]string{
		"403": `OS_USERNAME`, "301": `OS_AUTH_URL|OS_STORAGE_URL`, "authority": `OS_CACERT`, "endpoint": `OS_AUTH_URL`,
	},
}

// SSH: its protocol has no requests that a proxy could tell apart.

var sshBackend = &backend{
	name: "ssh", server: "sshd", prefix: "WALG_SSH_PREFIX", secret: "SSH_PASSWORD",
	upstream: func(env map[string]string) string { return env["SSH_HOST"] + ":" + env["SSH_PORT"] },
	large:    9 << 20, stall: 5 * time.Second, stalled: 800 * time.Millisecond, gate: make(chan struct{}, 24),
	hints: map[string]string{"endpoint": `WALG_SSH_PREFIX`},
}
