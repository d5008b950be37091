package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"walg/lib/awsid"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

const identityHint = awsid.Hint

// options are those of the client, as far as they are known without a request.
func options(c config) (s3.Options, error) {
	client, err := wire.Client(wire.Options{Stall: c.stall, CA: c.ca, Parallel: parallel, No100Continue: c.no100Continue})
	if err != nil {
		return s3.Options{}, err
	}
	if c.source != "" {
		client.Transport = &elsewhere{config: c, next: client.Transport}
	}
	o := s3.Options{
		HTTPClient:   client,
		Retryer:      aws.NopRetryer{}, // trying again is the store's work
		UsePathStyle: c.pathStyle,
		Logger:       logging.Nop{},
		// The checksums are ours: see Whole, Part and Stat.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if c.endpoint != "" {
		o.BaseEndpoint = &c.endpoint
	}
	if c.dualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	if c.no100Continue {
		o.ContinueHeaderThresholdBytes = -1
	}
	for name, value := range c.headers {
		o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue(name, value))
	}
	return o, nil
}

// client returns the client of the SDK. The first call finds out what the
// settings leave open: credentials and region.
func (d *Driver) client(ctx context.Context) (*s3.Client, error) {
	select {
	case d.connecting <- struct{}{}:
		defer func() { <-d.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if d.api != nil {
		return d.api, nil
	}
	o := d.options
	region, err := d.identify(ctx, &o)
	if err != nil {
		return nil, err
	}
	if o.Region = region; region == "" {
		if o.Region, err = d.findRegion(ctx, o); err != nil {
			return nil, err
		}
	}
	d.api = s3.New(o)
	return d.api, nil
}

// identify sets the credentials. It returns the region, which a profile may
// tell.
func (d *Driver) identify(ctx context.Context, o *s3.Options) (string, error) {
	c := d.config
	if c.yandexToken {
		cache := aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = awsid.Metadata(c.metadata) }))
		if _, err := cache.Retrieve(ctx); err != nil {
			return "", d.noCredentials(ctx, err, "is this a virtual machine of Yandex Cloud, with a service account? S3_USE_YC_SESSION_TOKEN asks for its token", false)
		}
		o.Credentials = aws.AnonymousCredentials{}
		o.APIOptions = append(o.APIOptions, subjectToken(identity{cache}))
		return c.region, nil
	}
	if c.key != "" && (c.role == "" || c.webIdentity != "") {
		// No file is looked at, not even for the region.
		o.Credentials = credentials.NewStaticCredentialsProvider(c.key, c.secret, c.token)
		return c.region, nil
	}
	who, region, err := awsid.Find(ctx, awsid.Settings{
		Key: c.key, Secret: c.secret, Token: c.token,
		Profile: c.profile, CredentialsFile: c.credentials, ConfigFile: c.profiles,
		Role: c.role, RoleSession: c.roleSession, WebIdentity: c.webIdentity,
		Metadata: c.metadata, Region: c.region,
	})
	var nobody *awsid.Nobody
	if errors.As(err, &nobody) {
		return "", d.noCredentials(ctx, nobody.Err, nobody.Hint, nobody.Exists)
	}
	// Credentials that cannot be had again later are another matter: see
	// identity.
	d.cache, _ = who.(*aws.CredentialsCache)
	o.Credentials = identity{who}
	return region, err
}

// identity gives keys, and tells what goes wrong there from what the storage
// says: a role that is not found must not look like an absent object.
type identity struct{ aws.CredentialsProvider }

func (i identity) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := i.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, &nobody{err}
	}
	return c, nil
}

type nobody struct{ error }

func (n *nobody) Unwrap() error { return n.error }

// noCredentials judges why there are none. Where whoever gives them is known to
// exist the network may be better the next time.
func (d *Driver) noCredentials(ctx context.Context, err error, hint string, exists bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	said := describe(err)
	var broken *url.Error
	network := said.status == 0 && errors.As(err, &broken)
	err = prefixed("no credentials", said.err)
	switch {
	case said.status == http.StatusTooManyRequests || said.status >= 500:
		return driver.Judge(err, said.status, said.header, "")
	case network && exists:
		return err
	}
	return driver.Permanent(err, hint)
}

// subjectToken puts the token of a virtual machine into the header where Yandex
// Cloud wants it.
func subjectToken(from aws.CredentialsProvider) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("subjectToken", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (
			middleware.BuildOutput, middleware.Metadata, error) {
			request, ok := in.Request.(*smithyhttp.Request)
			if !ok {
				return middleware.BuildOutput{}, middleware.Metadata{}, errors.New("not an HTTP request")
			}
			credentials, err := from.Retrieve(ctx)
			if err != nil {
				return middleware.BuildOutput{}, middleware.Metadata{}, err
			}
			request.Header.Set("X-YaCloud-SubjectToken", credentials.SessionToken)
			return next.HandleBuild(ctx, in)
		}), middleware.After)
	}
}

// findRegion asks where the bucket is. A storage that does not tell gets the
// region that most of them take.
func (d *Driver) findRegion(ctx context.Context, o s3.Options) (string, error) {
	o.Region = defaultRegion
	answer, err := s3.New(o).GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: &d.bucket})
	if err == nil {
		switch region := string(answer.LocationConstraint); region {
		case "":
			return defaultRegion, nil
		case "EU": // of the first years
			return "eu-west-1", nil
		default:
			return region, nil
		}
	}
	if region := regionIn(err); region != "" {
		return region, nil
	}
	judged := d.judge(ctx, err)
	switch said := describe(err); {
	case said.code == "NoSuchBucket", said.status == 0, said.status >= 500 && said.status != http.StatusNotImplemented:
		return "", judged
	}
	d.guessed = true
	return defaultRegion, nil
}

// regionIn finds the right region in an answer to a request that was signed for
// another.
func regionIn(err error) string {
	said := describe(err)
	if region := said.header.Get("X-Amz-Bucket-Region"); region != "" {
		return region
	}
	if m := expecting.FindStringSubmatch(said.message); m != nil {
		return m[1]
	}
	return ""
}

var expecting = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`) // versitygw: double quotes

const (
	sourceKept  = time.Minute     // how long a host is used before it is asked for again
	sourceLimit = 5 * time.Second // for that question
	longestHost = 255
)

// elsewhere connects to the host that S3_ENDPOINT_SOURCE names, which answers
// for the endpoint: Host and signature stay the endpoint's. Without an answer
// the endpoint itself serves.
type elsewhere struct {
	config config
	next   http.RoundTripper

	mu    sync.Mutex
	host  string
	until time.Time
}

// CloseIdleConnections lets http.Client close the connections below.
func (e *elsewhere) CloseIdleConnections() {
	if c, ok := e.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (e *elsewhere) RoundTrip(req *http.Request) (*http.Response, error) {
	host := e.where(req.Context())
	if host == "" {
		return e.next.RoundTrip(req)
	}
	out := req.Clone(req.Context())
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	out.URL.Host = e.config.hostPort(host)
	if e.config.sourceProtocol != "" {
		out.URL.Scheme = e.config.sourceProtocol
	}
	resp, err := e.next.RoundTrip(out)
	if err != nil {
		e.mu.Lock()
		e.until = time.Time{}
		e.mu.Unlock()
	}
	return resp, err
}

func (e *elsewhere) where(ctx context.Context) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().After(e.until) {
		e.host, e.until = e.ask(ctx), time.Now().Add(sourceKept)
	}
	return e.host
}

func (e *elsewhere) ask(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, sourceLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.config.source, nil)
	if err != nil {
		return ""
	}
	resp, err := e.next.RoundTrip(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestHost+1))
	host := strings.TrimSpace(string(body))
	if err != nil || resp.StatusCode != http.StatusOK || len(body) > longestHost || host == "" {
		return ""
	}
	if u, err := url.Parse("http://" + e.config.hostPort(host)); err != nil || u.Hostname() != strings.Trim(host, "[]") {
		return ""
	}
	return host
}
