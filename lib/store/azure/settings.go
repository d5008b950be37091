package azure

import (
	"cmp"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"walg/lib/fault"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

// smallestBuffer keeps a number meant as MiB from making a block of each byte.
const smallestBuffer = 64 << 10

// Versions of the protocol, as AZURE_BLOB_STORE_API_VERSION has them.
const (
	oldest     = "2017-07-29" // the first whose answers to HEAD tell what is wrong
	crc64Since = "2019-02-02"
	bigBlocks  = "2019-12-12"
)

// config is what the settings say.
type config struct {
	account, key, sas      string
	endpoint, endpointFrom string // without a slash at the end; the setting to blame
	authority              string // who gives tokens
	privateAuthority       bool
	tenant, client, secret string
	version                string // of the protocol; "" is the SDK's
	buffer, maxBlock       int64
	buffers                int
	timeout, stall         time.Duration
}

// environments are Azure's clouds, with the suffix of their storage and the
// authority that gives tokens there.
var environments = map[string]struct{ suffix, authority string }{
	"AzurePublicCloud":       {"core.windows.net", cloud.AzurePublic.ActiveDirectoryAuthorityHost},
	"AzureUSGovernmentCloud": {"core.usgovcloudapi.net", cloud.AzureGovernment.ActiveDirectoryAuthorityHost},
	"AzureChinaCloud":        {"core.chinacloudapi.cn", cloud.AzureChina.ActiveDirectoryAuthorityHost},
	"AzureGermanCloud":       {"core.cloudapi.de", "https://login.microsoftonline.de/"},
}

var (
	containerName = regexp.MustCompile(`^(\$root|\$web|[a-z0-9]+(-[a-z0-9]+)*)$`)
	accountName   = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	hostName      = regexp.MustCompile(`^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*$`)
	day           = regexp.MustCompile(`^20[0-9]{2}-[01][0-9]-[0-3][0-9]$`)
)

func refuse(format string, args ...any) error { return fault.New(fault.Usage, format, args...) }

// read reads and judges all settings.
func read(bucket string, s *driver.Settings) (config, error) {
	c := config{
		account:   s.Text("AZURE_STORAGE_ACCOUNT"),
		key:       s.Text("AZURE_STORAGE_ACCESS_KEY"),
		sas:       s.Text("AZURE_STORAGE_SAS_TOKEN"),
		endpoint:  s.Text("AZURE_ENDPOINT"),
		authority: s.Text("AZURE_AUTHORITY_HOST"),
		tenant:    s.Text("AZURE_TENANT_ID"),
		client:    s.Text("AZURE_CLIENT_ID"),
		secret:    s.Text("AZURE_CLIENT_SECRET"),
		version:   s.Text("AZURE_BLOB_STORE_API_VERSION"),
		buffer:    s.Int("AZURE_BUFFER_SIZE", 8*mib, smallestBuffer),
		buffers:   int(s.Int("AZURE_MAX_BUFFERS", 4, 1)),
		timeout:   time.Duration(min(s.Int("AZURE_TRY_TIMEOUT", 5, 1), 1<<20)) * time.Minute,
		stall:     s.Stall,
	}
	env := environments[s.Choice("AZURE_ENVIRONMENT_NAME", "AzurePublicCloud", slices.Sorted(maps.Keys(environments))...)]
	suffix := s.Text("AZURE_ENDPOINT_SUFFIX")
	if err := s.Err(); err != nil {
		return c, err
	}
	if len(bucket) < 3 || len(bucket) > 63 || !containerName.MatchString(bucket) {
		return c, refuse("container %q: want 3 to 63 of a-z, 0-9 and single hyphens inside; is WALG_AZ_PREFIX right?", bucket)
	}
	return c, cmp.Or(c.where(suffix, env.suffix), c.who(env.authority), c.protocol())
}

// where finds the endpoint.
func (c *config) where(suffix, cloudSuffix string) error {
	switch {
	case !accountName.MatchString(c.account):
		return refuse("setting AZURE_STORAGE_ACCOUNT=%s: want the name of the storage account, of a-z and 0-9", c.account)
	case c.endpoint != "" && suffix != "":
		return refuse("AZURE_ENDPOINT and AZURE_ENDPOINT_SUFFIX are both set")
	case c.endpoint == "":
		// Some write it with what goes before it.
		suffix = strings.TrimPrefix(strings.TrimPrefix(cmp.Or(suffix, cloudSuffix), "."), "blob.")
		if !hostName.MatchString(suffix) {
			return refuse("setting AZURE_ENDPOINT_SUFFIX=%s: want a name such as core.windows.net", suffix)
		}
		c.endpoint, c.endpointFrom = "https://"+c.account+".blob."+suffix, "AZURE_STORAGE_ACCOUNT"
		return nil
	}
	c.endpoint = strings.TrimRight(c.endpoint, "/")
	c.endpointFrom = "AZURE_ENDPOINT"
	u, err := url.Parse(c.endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return refuse("setting AZURE_ENDPOINT: want a URL such as https://HOST or, where the account is in the path, http://HOST:PORT/ACCOUNT")
	}
	return nil
}

// who judges the credentials.
func (c *config) who(authority string) error {
	c.sas = strings.TrimPrefix(c.sas, "?")
	c.privateAuthority = c.authority != ""
	c.authority = cmp.Or(c.authority, authority)
	switch {
	case c.key != "" && c.sas != "":
		return refuse("AZURE_STORAGE_ACCESS_KEY and AZURE_STORAGE_SAS_TOKEN are both set: which is meant?")
	case c.key != "":
		if _, err := base64.StdEncoding.DecodeString(c.key); err != nil {
			return refuse("setting AZURE_STORAGE_ACCESS_KEY=...: want base64 as Azure gives it")
		}
	case c.sas != "":
		if q, err := url.ParseQuery(c.sas); err != nil || q.Get("sig") == "" {
			return refuse("setting AZURE_STORAGE_SAS_TOKEN=...: want a token as Azure gives it, with sig=... in it")
		}
	case !strings.HasPrefix(c.endpoint, "https://"):
		return refuse("setting AZURE_ENDPOINT=%s: a token is sent over https:// only; or set AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN", c.endpoint)
	case !strings.HasPrefix(c.authority, "https://"):
		return refuse("setting AZURE_AUTHORITY_HOST=%s: want https://HOST/", c.authority)
	}
	return nil
}

// protocol judges the version, and what it allows.
func (c *config) protocol() error {
	if c.version != "" && (!day.MatchString(c.version) || c.version < oldest) {
		return refuse("setting AZURE_BLOB_STORE_API_VERSION=%s: want a day such as 2021-08-06, %s or later", c.version, oldest)
	}
	c.maxBlock = 4000 * mib
	if c.version != "" && c.version < bigBlocks {
		c.maxBlock = 100 * mib
	}
	if c.buffer > c.maxBlock {
		return refuse("setting WALG_AZURE_BUFFER_SIZE=%d: want %d at most", c.buffer, c.maxBlock)
	}
	return nil
}

// connect makes the client of the container. It returns also what to look at
// where access is denied.
func connect(bucket string, c config) (*container.Client, string, error) {
	client, err := wire.Client(wire.Options{Stall: c.stall, Parallel: c.buffers})
	if err != nil {
		return nil, "", err
	}
	// Trying again is the store's work.
	once := policy.ClientOptions{
		Transport: client,
		Retry:     policy.RetryOptions{MaxRetries: -1, TryTimeout: c.timeout},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	options := &container.ClientOptions{ClientOptions: once}
	if c.version != "" {
		options.PerCallPolicies = []policy.Policy{version(c.version)}
	}
	at := c.endpoint + "/" + bucket
	var d *container.Client
	denied := "does the role of this identity (AZURE_CLIENT_ID) allow to read and write blobs here?"
	switch {
	case c.key != "":
		denied = "is AZURE_STORAGE_ACCESS_KEY the key of the account " + c.account + "?"
		var key *container.SharedKeyCredential
		if key, err = container.NewSharedKeyCredential(c.account, c.key); err == nil {
			d, err = container.NewClientWithSharedKeyCredential(at, key, options)
		}
	case c.sas != "":
		denied = "is AZURE_STORAGE_SAS_TOKEN valid at this time, and does it allow to read, write, delete and list?"
		d, err = container.NewClientWithNoCredential(at+"?"+c.sas, options)
	default:
		var token azcore.TokenCredential
		if token, err = identity(c, once); err == nil {
			d, err = container.NewClient(at, token, options)
		}
	}
	if err != nil {
		err = refuse("AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET: %s", line(err.Error()))
	}
	return d, denied, err
}

// identity is the client of the settings, or else what the SDK finds: workload
// and managed identities, certificates, the az program.
func identity(c config, once policy.ClientOptions) (azcore.TokenCredential, error) {
	once.Cloud.ActiveDirectoryAuthorityHost = c.authority
	if c.tenant != "" && c.client != "" && c.secret != "" {
		o := &azidentity.ClientSecretCredentialOptions{ClientOptions: once, DisableInstanceDiscovery: c.privateAuthority}
		return azidentity.NewClientSecretCredential(c.tenant, c.client, c.secret, o)
	}
	o := &azidentity.DefaultAzureCredentialOptions{ClientOptions: once, DisableInstanceDiscovery: c.privateAuthority, TenantID: c.tenant}
	return azidentity.NewDefaultAzureCredential(o)
}

// version is a policy that sends another version of the protocol than the
// SDK's.
type version string

func (v version) Do(r *policy.Request) (*http.Response, error) {
	// Under the very spelling that the SDK uses, or both would be sent.
	r.Raw().Header["x-ms-version"] = []string{string(v)}
	return r.Next()
}
