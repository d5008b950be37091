package swift

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	api "github.com/ncw/swift/v2"

	"walg/lib/fault"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

// never is for the library's own clocks: each request is watched by wire.
const never = 1000 * time.Hour

// New returns the driver of a container. It reads the settings of OpenStack's
// own tools, and does no request: the first one that needs a token logs in.
func New(_ context.Context, container string, s *driver.Settings) (*Driver, error) {
	r := &reader{s: s}
	c := &api.Connection{
		AuthUrl:                     r.one("OS_AUTH_URL", "ST_AUTH"),
		UserName:                    r.one("OS_USERNAME", "ST_USER"),
		UserId:                      r.one("OS_USER_ID"),
		ApiKey:                      r.one("OS_PASSWORD", "ST_KEY"),
		Tenant:                      r.one("OS_PROJECT_NAME", "OS_TENANT_NAME"),
		TenantId:                    r.one("OS_PROJECT_ID", "OS_TENANT_ID"),
		Domain:                      cmp.Or(r.one("OS_USER_DOMAIN_NAME"), r.one("OS_DOMAIN_NAME")),
		DomainId:                    r.one("OS_USER_DOMAIN_ID"),
		TenantDomain:                cmp.Or(r.one("OS_PROJECT_DOMAIN_NAME"), r.one("OS_DOMAIN_NAME")),
		TenantDomainId:              r.one("OS_PROJECT_DOMAIN_ID"),
		TrustId:                     r.one("OS_TRUST_ID"),
		Region:                      r.one("OS_REGION_NAME"),
		ApplicationCredentialId:     r.one("OS_APPLICATION_CREDENTIAL_ID"),
		ApplicationCredentialName:   r.one("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: r.one("OS_APPLICATION_CREDENTIAL_SECRET"),
		AuthToken:                   r.one("OS_AUTH_TOKEN"),
		StorageUrl:                  r.one("OS_STORAGE_URL"),
		UserAgent:                   "walg",
		ConnectTimeout:              never,
		Timeout:                     never,
	}
	place := s.Choice("OS_ENDPOINT_TYPE", "", "public", "publicURL", "internal", "internalURL", "admin", "adminURL")
	c.EndpointType = api.EndpointType(strings.TrimSuffix(place, "URL"))
	version := r.version()
	client, err := wire.Client(wire.Options{Stall: s.Stall, CA: s.Text("OS_CACERT"), Parallel: parallel})
	switch {
	case s.Err() != nil:
		return nil, s.Err()
	case r.err != nil:
		return nil, r.err
	case err != nil:
		return nil, fault.WithHint(err, "is OS_CACERT right?")
	}
	if err := complete(c, version); err != nil {
		return nil, err
	}
	c.Transport = guard{client.Transport, c.AuthUrl}
	return &Driver{
		container: container, segments: container + "_segments", partSize: partSize,
		c: c, storage: strings.TrimSuffix(c.StorageUrl, "/"), login: c.AuthUrl != "", auth: make(chan struct{}, 1),
	}, nil
}

// reader reads settings that have several names.
type reader struct {
	s   *driver.Settings
	err error
}

// one returns the setting; names that mean the same must agree.
func (r *reader) one(names ...string) string {
	found, value := "", ""
	for _, name := range names {
		switch v := r.s.Text(name); {
		case v == "":
		case value == "":
			found, value = name, v
		case v != value && r.err == nil:
			r.err = fault.New(fault.Usage, "settings %s and %s: both are set, and differ", found, name)
		}
	}
	return value
}

// version returns 1, 2 or 3, and 0 where no setting says it.
func (r *reader) version() int {
	numbers := map[string]int{"1": 1, "1.0": 1, "2": 2, "2.0": 2, "3": 3}
	read := func(name string) int { return numbers[r.s.Choice(name, "", "1", "1.0", "2", "2.0", "3")] }
	identity, auth := read("OS_IDENTITY_API_VERSION"), read("ST_AUTH_VERSION")
	if identity != 0 && auth != 0 && identity != auth && r.err == nil {
		r.err = fault.New(fault.Usage, "settings OS_IDENTITY_API_VERSION and ST_AUTH_VERSION: both are set, and differ")
	}
	return cmp.Or(identity, auth)
}

var pathVersion = regexp.MustCompile(`/v([123])(\.[0-9]+)?(/|$)`)

// complete checks that the settings are enough to log in, and adds what goes
// without saying.
func complete(c *api.Connection, version int) error {
	missing := func(name, why string) error {
		return fault.New(fault.Usage, "setting %s is missing%s", name, why)
	}
	if c.AuthToken != "" && c.StorageUrl == "" {
		return missing("OS_STORAGE_URL", ": OS_AUTH_TOKEN is of no use without it")
	}
	if c.StorageUrl != "" && !isHTTP(c.StorageUrl) {
		return fault.New(fault.Usage, "setting OS_STORAGE_URL: want http://... or https://...")
	}
	if c.AuthUrl == "" && c.AuthToken != "" {
		return nil
	}
	if c.AuthUrl == "" {
		return missing("OS_AUTH_URL", "")
	}
	if !isHTTP(c.AuthUrl) {
		return fault.New(fault.Usage, "setting OS_AUTH_URL: want http://... or https://...")
	}
	in := pathVersion.FindStringSubmatch(c.AuthUrl)
	if in != nil {
		c.AuthVersion = int(in[1][0] - '0')
	}
	switch {
	case in == nil && version == 0:
		return fault.WithHint(fault.New(fault.Usage, "setting OS_AUTH_URL names no version of the authentication"),
			"let it end in /v3, or set OS_IDENTITY_API_VERSION to 1, 2 or 3")
	case in == nil && version > 1:
		c.AuthVersion = version
		c.AuthUrl = strings.TrimSuffix(c.AuthUrl, "/") + map[int]string{2: "/v2.0", 3: "/v3"}[version]
	case in == nil:
		c.AuthVersion = version
	case version != 0 && version != c.AuthVersion:
		return fault.New(fault.Usage, "settings OS_AUTH_URL and OS_IDENTITY_API_VERSION: versions %d and %d differ", c.AuthVersion, version)
	}
	if c.AuthVersion != 3 {
		// A setting that would have no effect is a mistake about where the data goes.
		for name, value := range map[string]string{
			"OS_APPLICATION_CREDENTIAL_ID": c.ApplicationCredentialId, "OS_APPLICATION_CREDENTIAL_NAME": c.ApplicationCredentialName,
			"OS_TRUST_ID": c.TrustId, "OS_USER_ID": c.UserId,
		} {
			if value != "" {
				return fault.New(fault.Usage, "setting %s: only version 3 of the authentication knows it, and OS_AUTH_URL is of version %d", name, c.AuthVersion)
			}
		}
		if c.AuthVersion == 1 && c.EndpointType != "" && c.EndpointType != api.EndpointTypePublic {
			return fault.New(fault.Usage, "setting OS_ENDPOINT_TYPE: version 1 of the authentication knows none but public")
		}
	}
	credential := c.ApplicationCredentialId != "" || c.ApplicationCredentialName != ""
	switch {
	case credential && c.ApplicationCredentialSecret == "":
		return missing("OS_APPLICATION_CREDENTIAL_SECRET", "")
	case credential && c.TrustId != "":
		return fault.New(fault.Usage, "settings OS_TRUST_ID and OS_APPLICATION_CREDENTIAL_...: one excludes the other")
	case c.ApplicationCredentialId != "":
		return nil
	case c.UserName == "" && c.UserId == "":
		return missing("OS_USERNAME", "")
	case !credential && c.ApiKey == "":
		return missing("OS_PASSWORD", "")
	}
	if c.AuthVersion == 3 && c.UserId == "" && c.Domain == "" && c.DomainId == "" {
		c.DomainId = "default" // as OpenStack's tools have it
	}
	return nil
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == ""
}

// guard stands between the library and the network.
type guard struct {
	next  http.RoundTripper
	login string // the URL that those of the authentication begin with
}

// maxText is as much as the library reads of an error's text.
const maxText = 1024

// RoundTrip refuses redirects, which the library would follow with the token.
// It holds ready what the server says of an error: the library reads once, and
// takes nothing from a read that ends the text. Each login has a connection of
// its own: they are rare, and a POST that finds an idle one closed fails. So has
// each conditional PUT: refused, its data unread, the server closes it without a word.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	login := g.login != "" && strings.HasPrefix(req.URL.String(), g.login)
	if login || req.Method == http.MethodPut && req.Header.Get("If-None-Match") != "" {
		req = req.Clone(req.Context())
		req.Close = true
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 {
		return resp, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	if resp.StatusCode >= 400 {
		return resp, nil
	}
	to := "another place"
	if u, err := resp.Location(); err == nil {
		to = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	}
	return nil, driver.Permanent(fmt.Errorf("%s, to %s", resp.Status, to), "is OS_AUTH_URL right?")
}
