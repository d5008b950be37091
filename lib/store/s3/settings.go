package s3

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

const (
	mib            = 1 << 20
	gib            = 1 << 30
	defaultPart    = 20 * mib
	leastPart      = 5 * mib // S3 refuses smaller ones, but for the last
	maxPart        = 5 * gib
	maxParts       = 10000
	piece          = 8 * mib
	parallel       = 4
	maxBatch       = 1000
	maxRetention   = 100 * 365 * 24 * time.Hour
	defaultRegion  = "us-east-1"
	amazon         = ".amazonaws.com"
	amazonInChina  = ".amazonaws.com.cn"
	sseCustomerKey = 32 // bytes
)

// config is what the settings say.
type config struct {
	endpoint, region      string // "" is Amazon, and to be found out
	pathStyle, dualStack  bool
	ca                    string
	key, secret, token    string
	profile               string
	credentials, profiles string // files
	role, roleSession     string
	webIdentity           string // file of a token, which the SDK exchanges for the role
	metadata              string // endpoint of the metadata service; "" is the SDK's
	yandexToken           bool

	storageClass       string
	sse, kmsID         string
	customer           customer
	retention          time.Duration
	retentionMode      string
	listV1, versioning bool
	headers            map[string]string
	no100Continue      bool

	source         string // URL that names the host to connect to
	sourcePort     string
	sourceProtocol string // "" is that of the endpoint

	stall  time.Duration
	traits driver.Traits
}

// customer is a key for encryption that the server does not keep, as S3 wants
// it: base64.
type customer struct{ algorithm, key, md5 *string }

func refuse(format string, args ...any) error { return fault.New(fault.Usage, format, args...) }

// read reads and judges all settings.
func read(s *driver.Settings) (config, error) {
	c := config{
		endpoint:    s.Text("AWS_ENDPOINT"),
		region:      s.Text("AWS_REGION", "AWS_DEFAULT_REGION"),
		pathStyle:   s.Bool("AWS_S3_FORCE_PATH_STYLE", false),
		dualStack:   s.Bool("AWS_DUAL_STACK", false),
		ca:          s.Text("S3_CA_CERT_FILE", "AWS_CA_BUNDLE"),
		key:         s.Text("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
		secret:      s.Text("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
		token:       s.Text("AWS_SESSION_TOKEN"),
		profile:     s.Text("AWS_PROFILE"),
		credentials: s.Text("AWS_SHARED_CREDENTIALS_FILE"),
		profiles:    s.Text("AWS_CONFIG_FILE"),
		role:        s.Text("AWS_ROLE_ARN"),
		roleSession: s.Text("AWS_ROLE_SESSION_NAME"),
		webIdentity: s.Text("AWS_WEB_IDENTITY_TOKEN_FILE"),
		metadata:    s.Text("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
		yandexToken: s.Bool("S3_USE_YC_SESSION_TOKEN", false),

		storageClass:  s.Text("S3_STORAGE_CLASS"),
		sse:           s.Choice("S3_SSE", "", "AES256", "aws:kms"),
		kmsID:         s.Text("S3_SSE_KMS_ID"),
		retentionMode: s.Choice("S3_RETENTION_MODE", "GOVERNANCE", "GOVERNANCE", "COMPLIANCE"),
		listV1:        s.Bool("S3_USE_LIST_OBJECTS_V1", false),
		versioning:    s.Choice("S3_ENABLE_VERSIONING", "disabled", "enabled", "disabled") == "enabled",
		no100Continue: s.Bool("S3_DISABLE_100_CONTINUE", false),

		source:         s.Text("S3_ENDPOINT_SOURCE"),
		sourcePort:     strconv.FormatInt(s.Int("S3_ENDPOINT_PORT", 443, 1), 10),
		sourceProtocol: s.Choice("S3_ENDPOINT_PROTOCOL", "", "http", "https"),
		stall:          s.Stall,
	}
	// What WAL-G needs and we do not is judged all the same, so that a slip of
	// the pen shows. A broken read always goes on where it was.
	s.Text("S3_LOG_LEVEL")
	s.Bool("S3_SKIP_VALIDATION", true)
	s.Bool("S3_RANGE_BATCH_ENABLED", false)
	s.Int("S3_RANGE_MAX_RETRIES", 10, 0)

	seconds := s.Int("S3_RETENTION_PERIOD", -1, -1)
	part := s.Int("S3_MAX_PART_SIZE", defaultPart, leastPart)
	batch := s.Int("S3_DELETE_BATCH_SIZE", maxBatch, 1)
	retries := s.Int("S3_MAX_RETRIES", -1, 0)
	c.traits = driver.Traits{
		PartSize: part, MaxPart: maxPart, MaxParts: maxParts, Piece: piece, Parallel: parallel, Batch: int(batch), Meta: true,
		Endpoint: "AWS_ENDPOINT", CA: "WALG_S3_CA_CERT_FILE",
		Tries:    int(min(retries, 1<<20)) + 1, // 0, the policy's, where it is not set
		MinDelay: s.Span("S3_MIN_THROTTLING_RETRY_DELAY", time.Millisecond, 0),
		MaxDelay: s.Span("S3_MAX_THROTTLING_RETRY_DELAY", time.Millisecond, 0),
	}
	key := s.Text("S3_SSE_C")
	if err := s.Err(); err != nil {
		return c, err
	}
	switch t := c.traits; {
	case part > maxPart:
		return c, refuse("setting WALG_S3_MAX_PART_SIZE=%d: want %d at most", part, int64(maxPart))
	case batch > maxBatch:
		return c, refuse("setting S3_DELETE_BATCH_SIZE=%d: want %d at most", batch, maxBatch)
	case seconds > int64(maxRetention/time.Second):
		return c, refuse("setting S3_RETENTION_PERIOD=%d: want seconds, 100 years at most", seconds)
	case t.MaxDelay > 0 && t.MinDelay > t.MaxDelay:
		return c, refuse("S3_MIN_THROTTLING_RETRY_DELAY is more than S3_MAX_THROTTLING_RETRY_DELAY")
	}
	c.retention = time.Duration(max(seconds, 0)) * time.Second
	var err error
	if c.headers, err = headers(s); err != nil {
		return c, err
	}
	for _, judge := range []func() error{c.where, c.who, func() error { return c.encryption(key) }} {
		if err := judge(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// where judges the addresses.
func (c *config) where() error {
	if c.endpoint != "" {
		if !strings.Contains(c.endpoint, "://") {
			c.endpoint = "https://" + c.endpoint // as WAL-G reads it
		}
		c.endpoint = strings.TrimRight(c.endpoint, "/")
		if !plainURL(c.endpoint) {
			return refuse("setting AWS_ENDPOINT: want an URL such as https://HOST or http://HOST:PORT")
		}
		if c.dualStack {
			return refuse("AWS_DUAL_STACK and AWS_ENDPOINT are both set: it is about Amazon's own endpoints")
		}
	}
	if c.source != "" && !plainURL(strings.SplitN(c.source, "?", 2)[0]) {
		return refuse("setting S3_ENDPOINT_SOURCE: want an URL that returns the name of a host")
	}
	if n, _ := strconv.Atoi(c.sourcePort); n > 65535 {
		return refuse("setting S3_ENDPOINT_PORT=%s: want a port, 65535 at most", c.sourcePort)
	}
	return nil
}

// plainURL reports whether text is the URL of a server without anything secret.
func plainURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

func (c *config) secure() bool { return !strings.HasPrefix(c.endpoint, "http://") }

// isAmazon reports whether the storage is S3 itself, of which we know what it
// can do.
func (c *config) isAmazon() bool {
	if c.endpoint == "" {
		return true
	}
	u, err := url.Parse(c.endpoint)
	return err == nil && (strings.HasSuffix(u.Hostname(), amazon) || strings.HasSuffix(u.Hostname(), amazonInChina))
}

// who judges the credentials.
func (c *config) who() error {
	switch {
	case c.key == "" && c.secret != "":
		return refuse("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")
	case c.key != "" && c.secret == "":
		return refuse("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")
	case c.roleSession != "" && !sessionName.MatchString(c.roleSession):
		return refuse("setting AWS_ROLE_SESSION_NAME=%s: want 2 to 64 of letters, digits and _+=,.@-", c.roleSession)
	case c.yandexToken && c.role != "":
		return refuse("S3_USE_YC_SESSION_TOKEN and AWS_ROLE_ARN are both set")
	}
	return nil
}

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// encryption judges how the server is to encrypt. None of it is ever ignored.
func (c *config) encryption(key string) error {
	switch {
	case c.kmsID != "" && c.sse != "aws:kms":
		return refuse("WALG_S3_SSE_KMS_ID is set, and WALG_S3_SSE is not aws:kms")
	case c.kmsID == "" && c.sse == "aws:kms":
		return refuse("WALG_S3_SSE=aws:kms needs WALG_S3_SSE_KMS_ID, the key")
	case key == "":
		return nil
	case c.sse != "":
		return refuse("WALG_S3_SSE and WALG_S3_SSE_C are both set: which is meant?")
	case !c.secure():
		return refuse("WALG_S3_SSE_C is a secret that is sent with each request: AWS_ENDPOINT must begin with https://")
	}
	raw := []byte(key)
	if len(raw) != sseCustomerKey {
		var err error
		if raw, err = base64.StdEncoding.DecodeString(key); err != nil || len(raw) != sseCustomerKey {
			return refuse("setting WALG_S3_SSE_C=...: want %d bytes, or the base64 of them", sseCustomerKey)
		}
	}
	algorithm, encoded, sum := "AES256", base64.StdEncoding.EncodeToString(raw), md5.Sum(raw)
	digest := base64.StdEncoding.EncodeToString(sum[:])
	c.customer = customer{&algorithm, &encoded, &digest}
	return nil
}

const headersSetting = "S3_REQUEST_ADDITIONAL_HEADERS"

// headers reads the headers to add to each request: a JSON object of strings,
// or lines "name: value", the simple half of YAML. It is not for Text, because
// lines have ends.
func headers(s *driver.Settings) (map[string]string, error) {
	text := ""
	for _, name := range []string{headersSetting, "WALG_" + headersSetting} {
		if text = strings.TrimSpace(s.Get(name)); text != "" {
			break
		}
	}
	if text == "" {
		return nil, nil
	}
	found, err := parseHeaders(text)
	if err != nil {
		return nil, refuse("setting %s: %w", headersSetting, err)
	}
	for name, value := range found {
		switch {
		case !headerName.MatchString(name):
			return nil, refuse("setting %s: %q is no name of a header", headersSetting, name)
		case ownHeaders.MatchString(name):
			return nil, refuse("setting %s: %s is not yours to set", headersSetting, name)
		case strings.ContainsFunc(value, unicode.IsControl):
			return nil, refuse("setting %s: the value of %s has a control character in it", headersSetting, name)
		}
	}
	return found, nil
}

var (
	headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	// What signatures, framing and checksums rest on.
	ownHeaders = regexp.MustCompile(`(?i)^(authorization|host|content-length|content-md5|transfer-encoding|expect|range|if-.*|` +
		`x-amz-date|x-amz-content-sha256|x-amz-security-token|x-amz-checksum-.*|x-amz-meta-.*)$`)
)

func parseHeaders(text string) (map[string]string, error) {
	found := map[string]string{}
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			return nil, errors.New("want a JSON object of strings, or lines such as name: value")
		}
		return found, nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || line == "---" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		// The rest of YAML is refused rather than misread.
		if !ok || value == "" || strings.ContainsAny(value[:1], "[]{}&*!|>%@`?") || strings.Contains(value, " #") {
			return nil, errors.New("want lines such as name: value, or a JSON object of strings")
		}
		if quote := value[0]; quote == '"' || quote == '\'' {
			inner := strings.TrimSuffix(value[1:], string(quote))
			if len(inner) != len(value)-2 || strings.ContainsAny(inner, string(quote)+`\`) {
				return nil, errors.New("want no quotes or backslashes inside of quotes")
			}
			value = inner
		}
		found[strings.TrimSpace(name)] = value
	}
	return found, nil
}

// hostPort is where to connect to instead of the endpoint.
func (c *config) hostPort(host string) string { return net.JoinHostPort(host, c.sourcePort) }
