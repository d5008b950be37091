package azure

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

const testKey = "c2VjcmV0" // base64

// env makes settings of NAME, VALUE, ...
func env(pairs ...string) *driver.Settings {
	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return &driver.Settings{Get: func(name string) string { return all[name] }}
}

// account is env with an account and its key.
func account(pairs ...string) *driver.Settings {
	return env(append([]string{"AZURE_STORAGE_ACCOUNT", "acc", "AZURE_STORAGE_ACCESS_KEY", testKey}, pairs...)...)
}

func TestDefaults(t *testing.T) {
	d, err := New(t.Context(), "walg", account())
	if err != nil {
		t.Fatal(err)
	}
	want := driver.Traits{
		PartSize: 8388608, MaxPart: 4000 << 20, MaxParts: 50000, Piece: 8 << 20, Parallel: 4, Batch: 1, Meta: true,
		Endpoint: "AZURE_STORAGE_ACCOUNT", CA: "SSL_CERT_FILE",
	}
	if d.Traits() != want {
		t.Errorf("traits %+v, want %+v", d.Traits(), want)
	}
	if d.timeout != 5*time.Minute || d.useMD5 || d.URL("a/b") != "azure://walg/a/b" {
		t.Errorf("%+v, URL %s", d, d.URL("a/b"))
	}
}

func TestNumbers(t *testing.T) {
	for _, prefix := range []string{"", "WALG_", "WALE_"} {
		d, err := New(t.Context(), "walg", account(prefix+"AZURE_BUFFER_SIZE", "65536", prefix+"AZURE_MAX_BUFFERS", "1", prefix+"AZURE_TRY_TIMEOUT", "2"))
		if err != nil {
			t.Fatal(err)
		}
		if tr := d.Traits(); tr.PartSize != 65536 || tr.Parallel != 1 || d.timeout != 2*time.Minute {
			t.Errorf("%s: %+v, timeout %v", prefix, tr, d.timeout)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for _, test := range []struct {
		s              *driver.Settings
		endpoint, from string
	}{
		{account(), "https://acc.blob.core.windows.net", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENVIRONMENT_NAME", "AzurePublicCloud"), "https://acc.blob.core.windows.net", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENVIRONMENT_NAME", "AzureUSGovernmentCloud"), "https://acc.blob.core.usgovcloudapi.net", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENVIRONMENT_NAME", "AzureChinaCloud"), "https://acc.blob.core.chinacloudapi.cn", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENVIRONMENT_NAME", "AzureGermanCloud"), "https://acc.blob.core.cloudapi.de", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENDPOINT_SUFFIX", "stack.example"), "https://acc.blob.stack.example", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENDPOINT_SUFFIX", ".blob.stack.example"), "https://acc.blob.stack.example", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENVIRONMENT_NAME", "AzureChinaCloud", "AZURE_ENDPOINT_SUFFIX", "x.cn"), "https://acc.blob.x.cn", "AZURE_STORAGE_ACCOUNT"},
		{account("AZURE_ENDPOINT", "http://[::1]:10000/acc/"), "http://[::1]:10000/acc", "AZURE_ENDPOINT"},
	} {
		c, err := read("walg", test.s)
		if err != nil || c.endpoint != test.endpoint || c.endpointFrom != test.from {
			t.Errorf("endpoint %s from %s, %v; want %s from %s", c.endpoint, c.endpointFrom, err, test.endpoint, test.from)
		}
	}
}

func TestContainersOfAllShapes(t *testing.T) {
	for _, name := range []string{"abc", "a-b", "1-2-3", "$root", "$web", strings.Repeat("a", 63)} {
		if _, err := New(t.Context(), name, account()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "ab", "-ab", "ab-", "a--b", "Abc", "a_b", "a.b", "$logs2", strings.Repeat("a", 64), "a/b", "a?b"} {
		if _, err := New(t.Context(), name, account()); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "WALG_AZ_PREFIX") {
			t.Errorf("%q: %v, want status 64", name, err)
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	for words, s := range map[string]*driver.Settings{
		"AZURE_STORAGE_ACCOUNT=: want the name":          env("AZURE_STORAGE_ACCESS_KEY", testKey),
		"AZURE_STORAGE_ACCOUNT=a.b":                      env("AZURE_STORAGE_ACCOUNT", "a.b", "AZURE_STORAGE_ACCESS_KEY", testKey),
		"AZURE_STORAGE_ACCESS_KEY=...: want":             env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_STORAGE_ACCESS_KEY", "geheim!"),
		"AZURE_STORAGE_ACCESS_KEY=...: want no line end": env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_STORAGE_ACCESS_KEY", "geheim\n"),
		"AZURE_STORAGE_SAS_TOKEN=...":                    env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_STORAGE_SAS_TOKEN", "?sv=geheim"),
		"are both set: which is meant":                   account("AZURE_STORAGE_SAS_TOKEN", "sig=geheim"),
		"AZURE_ENVIRONMENT_NAME=Azure":                   account("AZURE_ENVIRONMENT_NAME", "Azure"),
		"AZURE_ENDPOINT_SUFFIX=a/b":                      account("AZURE_ENDPOINT_SUFFIX", "a/b"),
		"AZURE_ENDPOINT_SUFFIX are both set":             account("AZURE_ENDPOINT_SUFFIX", "a.b", "AZURE_ENDPOINT", "https://h"),
		"AZURE_ENDPOINT: want a URL":                     account("AZURE_ENDPOINT", "127.0.0.1:10000/acc"),
		"setting AZURE_ENDPOINT: want":                   account("AZURE_ENDPOINT", "https://user:geheim@h/acc"),
		"ENDPOINT: want a URL such":                      account("AZURE_ENDPOINT", "https://h/acc?sig=geheim"),
		"AZURE_TRY_TIMEOUT=5m":                           account("AZURE_TRY_TIMEOUT", "5m"),
		"AZURE_TRY_TIMEOUT=0":                            account("AZURE_TRY_TIMEOUT", "0"),
		"AZURE_MAX_BUFFERS=0":                            account("WALG_AZURE_MAX_BUFFERS", "0"),
		"AZURE_BUFFER_SIZE=8":                            account("WALG_AZURE_BUFFER_SIZE", "8"),
		"AZURE_BUFFER_SIZE=4194304001":                   account("WALG_AZURE_BUFFER_SIZE", "4194304001"),
		"AZURE_BUFFER_SIZE=104857601":                    account("WALG_AZURE_BUFFER_SIZE", "104857601", "AZURE_BLOB_STORE_API_VERSION", "2019-12-11"),
		"API_VERSION=2017-07-28":                         account("AZURE_BLOB_STORE_API_VERSION", "2017-07-28"),
		"API_VERSION=latest":                             account("AZURE_BLOB_STORE_API_VERSION", "latest"),
		"token is sent over https:// only":               env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_ENDPOINT", "http://h/acc"),
		"AZURE_AUTHORITY_HOST=http://h":                  env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_AUTHORITY_HOST", "http://h"),
		"AZURE_TENANT_ID, AZURE_CLIENT_ID":               env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_TENANT_ID", "a/b", "AZURE_CLIENT_ID", "c", "AZURE_CLIENT_SECRET", "geheim"),
	} {
		_, err := New(t.Context(), "walg", s)
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), words) {
			t.Errorf("%v (status %d), want %q and 64", err, fault.Status(err), words)
		} else if strings.Contains(err.Error()+fault.Hint(err), "geheim") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q tells a secret", err)
		}
	}
}

// recorder is a server, not Azure's, that keeps the requests and says 201.
func recorder(t *testing.T) (endpoint string, requests func() []*http.Request) {
	var mu sync.Mutex
	var all []*http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		all = append(all, r)
		mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/acc", func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestWhatIsSent(t *testing.T) {
	data := []byte("some data")
	sum := md5.Sum(data)
	wantMD5 := base64.StdEncoding.EncodeToString(sum[:])
	wantCRC := base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, crc64.Checksum(data, azureCRC64)))
	for _, test := range []struct {
		version, md5, crc string
	}{
		{"", "", wantCRC}, {"2021-08-06", "", wantCRC}, {"2019-02-02", "", wantCRC}, {"2019-02-01", wantMD5, ""}, {"2017-11-09", wantMD5, ""},
	} {
		endpoint, requests := recorder(t)
		d, err := New(t.Context(), "walg", account("AZURE_ENDPOINT", endpoint, "AZURE_BLOB_STORE_API_VERSION", test.version))
		if err != nil {
			t.Fatal(err)
		}
		o := driver.Options{IfAbsent: true, Meta: map[string]string{"walg-put": "x", "empty": ""}}
		if err := d.Whole(t.Context(), "k", data, o); err != nil {
			t.Fatal(err)
		}
		up, err := d.Begin(t.Context(), "k", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Part(t.Context(), 1, 0, data); err != nil {
			t.Fatal(err)
		}
		if err := up.Commit(t.Context(), 1, driver.Sum{Size: 9, CRC32C: 0xabc}); err != nil {
			t.Fatal(err)
		}
		if err := up.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := requests()
		if len(all) != 3 {
			t.Fatalf("%d requests", len(all))
		}
		for i, r := range all {
			version := r.Header.Values("x-ms-version")
			if len(version) != 1 || test.version != "" && version[0] != test.version {
				t.Errorf("x-ms-version %q, want %q", version, test.version)
			}
			if r.URL.Path != "/acc/walg/k" || r.Header.Get("Expect") != "" || !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey acc:") {
				t.Errorf("%s, headers %q", r.URL, r.Header)
			}
			block, none := i == 1, r.Header.Get("If-None-Match")
			if block != (none == "") || !block && none != "*" {
				t.Errorf("%s: If-None-Match %q", r.URL, none)
			}
			if list := i == 2; !list && (r.Header.Get("Content-Md5") != test.md5 || r.Header.Get("x-ms-content-crc64") != test.crc) {
				t.Errorf("%s: MD5 %q, CRC64 %q", r.URL, r.Header.Get("Content-Md5"), r.Header.Get("x-ms-content-crc64"))
			}
			wantSum := map[int]string{0: "", 1: "", 2: "00000abc"}[i]
			if got := r.Header.Get("x-ms-meta-walg_crc32c"); i > 0 && got != wantSum || i == 0 && len(got) != 8 {
				t.Errorf("%s: CRC32C %q", r.URL, got)
			}
			if !block && (r.Header.Get("x-ms-meta-walg_2dput") != "x" || r.Header.Get("x-ms-meta-empty") != `"`) {
				t.Errorf("%s: metadata in %q", r.URL, r.Header)
			}
		}
	}
}

func TestSASTokenIsSent(t *testing.T) {
	for _, token := range []string{"?sv=2021-08-06&sig=a%2Bb%3D", "sv=2021-08-06&sig=a%2Bb%3D"} {
		endpoint, requests := recorder(t)
		d, err := New(t.Context(), "walg", env("AZURE_STORAGE_ACCOUNT", "acc", "AZURE_ENDPOINT", endpoint, "AZURE_STORAGE_SAS_TOKEN", token))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Whole(t.Context(), "a/b ?&%c", nil, driver.Options{}); err != nil {
			t.Fatal(err)
		}
		r := requests()[0]
		if q := r.URL.Query(); r.URL.Path != "/acc/walg/a/b ?&%c" || len(q) != 2 || q.Get("sv") != "2021-08-06" || q.Get("sig") != "a+b=" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s, Authorization %q", r.URL, r.Header.Get("Authorization"))
		}
	}
}

// hang is a server that never answers.
func hang(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestTryTimeoutEndsARequest(t *testing.T) {
	c, err := read("walg", account("AZURE_ENDPOINT", hang(t)))
	if err != nil {
		t.Fatal(err)
	}
	c.timeout = 50 * time.Millisecond // the setting counts minutes
	d := &Driver{name: "walg", timeout: c.timeout}
	if d.container, d.denied, err = connect("walg", c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err = d.Whole(t.Context(), "k", []byte("data"), driver.Options{})
		if fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "not done after 50ms (AZURE_TRY_TIMEOUT)") {
			t.Errorf("%v", err)
		}
	}
}

func TestAStalledRequestEnds(t *testing.T) {
	s := account("AZURE_ENDPOINT", hang(t))
	s.Stall = 50 * time.Millisecond
	d, err := New(t.Context(), "walg", s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Stat(t.Context(), "k"); !errors.Is(err, wire.ErrStalled) {
		t.Errorf("%v, want %v", err, wire.ErrStalled)
	}
}
