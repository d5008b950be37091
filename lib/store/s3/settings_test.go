package s3

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
)

type m = map[string]string

type doer func(*http.Request) (*http.Response, error)

func (do doer) Do(r *http.Request) (*http.Response, error) { return do(r) }

// captures makes the fake answer for every host on earth: it sees for which.
func (f *fake) captures(d *Driver) *Driver {
	d.options.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
		r.Header.Set("Was-Scheme", r.URL.Scheme)
		if r.Host == "" {
			r.Host = r.URL.Host
		}
		r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(f.URL, "http://")
		return http.DefaultTransport.RoundTrip(r)
	})
	return d
}

func whole(t *testing.T, d *Driver, data string) {
	t.Helper()
	if err := d.Whole(t.Context(), "k", []byte(data), driver.Options{}); err != nil {
		t.Fatal(err)
	}
}

func page(t *testing.T, d *Driver) {
	t.Helper()
	if _, _, err := d.Page(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
}

// inParts puts data of two parts and gives the object's checksum.
func inParts(t *testing.T, d *Driver) {
	t.Helper()
	ctx := t.Context()
	up, err := d.Begin(ctx, "k", driver.Options{})
	for n := 1; err == nil && n <= 2; n++ {
		err = up.Part(ctx, n, int64(n-1)*4, []byte("data"))
	}
	if err == nil {
		err = up.Commit(ctx, 2, driver.Sum{Size: 8, CRC32C: 0x01020304})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeyAndRegionSignTheRequests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings m
		scope    string // KEY/REGION
		token    string
	}{
		"plain":             {m{}, "THEKEYID/eu-central-1", ""},
		"token":             {m{"AWS_SESSION_TOKEN": "a-token"}, "THEKEYID/eu-central-1", "a-token"},
		"other names":       {m{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY": "OTHER", "AWS_SECRET_KEY": "s"}, "OTHER/eu-central-1", ""},
		"with WALG":         {m{"AWS_ACCESS_KEY_ID": "", "WALG_AWS_ACCESS_KEY_ID": "OTHER"}, "OTHER/eu-central-1", ""},
		"default region":    {m{"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, "THEKEYID/us-west-2", ""},
		"region goes first": {m{"AWS_REGION": "us-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, "THEKEYID/us-west-1", ""},
	} {
		f := newFake(t)
		page(t, f.driver(t, c.settings))
		f.wantScope(t, name, "GET /walg?list-type", c.scope)
		if token := f.request(t, "GET /walg?list-type").header.Get("X-Amz-Security-Token"); token != c.token {
			t.Errorf("%s: token %q", name, token)
		}
	}
}

// wantScope wants a request signed by KEY for REGION.
func (f *fake) wantScope(t *testing.T, name, what, scope string) {
	t.Helper()
	key, region, _ := strings.Cut(scope, "/")
	signed := f.request(t, what).header.Get("Authorization")
	if !strings.HasPrefix(signed, "AWS4-HMAC-SHA256 Credential="+key+"/") || !strings.Contains(signed, "/"+region+"/s3/aws4_request") {
		t.Errorf("%s: %s signed %q, want %s", name, what, signed, scope)
	}
}

func TestTheBucketIsAskedForItsRegion(t *testing.T) {
	t.Parallel()
	location := func(region string) http.HandlerFunc {
		return sends(200, "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"+region+"</LocationConstraint>")
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		region string // "" is an error
		status int
	}{
		"told":        {location("eu-north-1"), "eu-north-1", 0},
		"not told":    {location(""), "us-east-1", 0},
		"an old name": {location("EU"), "eu-west-1", 0},
		"redirect":    {says(301, "PermanentRedirect", "there", "X-Amz-Bucket-Region", "eu-north-1"), "eu-north-1", 0},
		"header":      {says(403, "AccessDenied", "no", "X-Amz-Bucket-Region", "eu-north-1"), "eu-north-1", 0},
		"in the text": {says(400, "AuthorizationHeaderMalformed", "wrong; expecting 'eu-north-1'"), "eu-north-1", 0},
		"not allowed": {says(403, "AccessDenied", "no"), "us-east-1", 0},
		"not known":   {says(501, "NotImplemented", "no"), "us-east-1", 0},
		"no bucket":   {says(404, "NoSuchBucket", "no"), "", fault.Usage},
		"not now":     {says(503, "SlowDown", "later"), "", fault.Failed},
		"trouble":     {says(500, "InternalError", "later"), "", fault.Failed},
		"cut":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", fault.Failed},
	} {
		f := newFake(t)
		f.answer("GET /walg?location", c.answer)
		d := f.driver(t, m{"AWS_REGION": ""})
		_, _, err := d.Page(t.Context(), "", "")
		if c.region == "" {
			if fault.Status(err) != c.status {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		page(t, d)
		f.wantScope(t, name, "GET /walg?list-type", fakeKey+"/"+c.region)
		f.wantScope(t, name, "GET /walg?location", fakeKey+"/us-east-1")
		if n := len(f.requests("GET /walg?location")); n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}

	f := newFake(t)
	f.answer("", says(403, "AccessDenied", "no"))
	f.answer("GET /walg?list-type", says(400, "AuthorizationHeaderMalformed", "the region is wrong"))
	_, _, err := f.driver(t, m{"AWS_REGION": ""}).Page(t.Context(), "", "")
	if hint := fault.Hint(err); fault.Status(err) != fault.Usage || !strings.Contains(hint, "no AWS_REGION is set") {
		t.Errorf("a guess that was wrong: %v, hint %q", err, hint)
	}
}

func TestWhereRequestsGo(t *testing.T) {
	t.Parallel()
	const amazon = "s3.eu-central-1.amazonaws.com"
	for name, c := range map[string]struct {
		settings           m
		scheme, host, path string
	}{
		"Amazon":           {m{"AWS_ENDPOINT": "", "AWS_S3_FORCE_PATH_STYLE": ""}, "https", "walg." + amazon, "/k"},
		"Amazon, path":     {m{"AWS_ENDPOINT": ""}, "https", amazon, "/walg/k"},
		"dual stack":       {m{"AWS_ENDPOINT": "", "AWS_S3_FORCE_PATH_STYLE": "", "AWS_DUAL_STACK": "true"}, "https", "walg.s3.dualstack.eu-central-1.amazonaws.com", "/k"},
		"not dual stack":   {m{"AWS_ENDPOINT": "", "AWS_S3_FORCE_PATH_STYLE": "", "AWS_DUAL_STACK": "false"}, "https", "walg." + amazon, "/k"},
		"China":            {m{"AWS_ENDPOINT": "", "AWS_S3_FORCE_PATH_STYLE": "", "AWS_REGION": "cn-north-1"}, "https", "walg.s3.cn-north-1.amazonaws.com.cn", "/k"},
		"host":             {m{"AWS_ENDPOINT": "https://storage.example", "AWS_S3_FORCE_PATH_STYLE": ""}, "https", "walg.storage.example", "/k"},
		"host, false":      {m{"AWS_ENDPOINT": "https://storage.example", "AWS_S3_FORCE_PATH_STYLE": "false"}, "https", "walg.storage.example", "/k"},
		"host, path":       {m{"AWS_ENDPOINT": "https://storage.example"}, "https", "storage.example", "/walg/k"},
		"port":             {m{"AWS_ENDPOINT": "http://storage.example:9000", "AWS_S3_FORCE_PATH_STYLE": ""}, "http", "walg.storage.example:9000", "/k"},
		"no scheme":        {m{"AWS_ENDPOINT": "storage.example:9000"}, "https", "storage.example:9000", "/walg/k"},
		"slash at the end": {m{"AWS_ENDPOINT": "http://storage.example/"}, "http", "storage.example", "/walg/k"},
		"path in front":    {m{"AWS_ENDPOINT": "http://storage.example/s3"}, "http", "storage.example", "/s3/walg/k"},
	} {
		f := newFake(t)
		d := f.captures(f.driver(t, c.settings))
		whole(t, d, "data")
		got := f.request(t, "PUT "+c.path)
		if got.host != c.host || got.header.Get("Was-Scheme") != c.scheme {
			t.Errorf("%s: went to %s://%s", name, got.header.Get("Was-Scheme"), got.host)
		}
		if url := d.URL("a/k"); url != "s3://walg/a/k" {
			t.Errorf("URL %s", url)
		}
	}
}

// What is sent with each request that makes an object.
func TestHeadersOfNewObjects(t *testing.T) {
	t.Parallel()
	raw := "0123456789abcdef0123456789abcdef"
	encoded := base64.StdEncoding.EncodeToString([]byte(raw))
	for name, c := range map[string]struct {
		settings m
		headers  m // "" is none
	}{
		"nothing": {m{}, m{"X-Amz-Storage-Class": "", "X-Amz-Server-Side-Encryption": "", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "",
			"X-Amz-Server-Side-Encryption-Customer-Key": "", "X-Amz-Object-Lock-Mode": "", "X-Amz-Object-Lock-Retain-Until-Date": "", "Content-Encoding": ""}},
		"storage class":       {m{"WALG_S3_STORAGE_CLASS": "STANDARD_IA"}, m{"X-Amz-Storage-Class": "STANDARD_IA"}},
		"storage class, bare": {m{"S3_STORAGE_CLASS": "GLACIER_IR"}, m{"X-Amz-Storage-Class": "GLACIER_IR"}},
		"AES256":              {m{"WALG_S3_SSE": "AES256"}, m{"X-Amz-Server-Side-Encryption": "AES256", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": ""}},
		"KMS": {m{"WALG_S3_SSE": "aws:kms", "WALG_S3_SSE_KMS_ID": "arn:aws:kms:1"},
			m{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "arn:aws:kms:1"}},
		"customer's key, raw":    {m{"AWS_ENDPOINT": "https://storage.example", "WALG_S3_SSE_C": raw}, m{"X-Amz-Server-Side-Encryption-Customer-Key": encoded, "X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}},
		"customer's key, base64": {m{"AWS_ENDPOINT": "https://storage.example", "WALG_S3_SSE_C": encoded}, m{"X-Amz-Server-Side-Encryption-Customer-Key": encoded}},
		"no retention":           {m{"S3_RETENTION_PERIOD": "-1", "S3_RETENTION_MODE": "COMPLIANCE"}, m{"X-Amz-Object-Lock-Mode": "", "X-Amz-Object-Lock-Retain-Until-Date": ""}},
		"retention":              {m{"S3_RETENTION_PERIOD": "60"}, m{"X-Amz-Object-Lock-Mode": "GOVERNANCE"}},
		"compliance":             {m{"S3_RETENTION_PERIOD": "60", "S3_RETENTION_MODE": "COMPLIANCE"}, m{"X-Amz-Object-Lock-Mode": "COMPLIANCE"}},
		"more":                   {m{"S3_REQUEST_ADDITIONAL_HEADERS": `{"X-One": "1", "x-two": "a b"}`}, m{"X-One": "1", "X-Two": "a b"}},
		"more, lines":            {m{"WALG_S3_REQUEST_ADDITIONAL_HEADERS": "X-One: 1\nx-two: 'a b'\n"}, m{"X-One": "1", "X-Two": "a b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			d := f.captures(f.driver(t, c.settings))
			whole(t, d, "data")
			inParts(t, d)
			for _, what := range []string{"PUT /walg/k", "POST /walg/k?uploads"} {
				got := f.request(t, what).header
				for name, value := range c.headers {
					if got.Get(name) != value {
						t.Errorf("%s: %s is %q, want %q", what, name, got.Get(name), value)
					}
				}
				if until := got.Get("X-Amz-Object-Lock-Retain-Until-Date"); until != "" {
					when, err := time.Parse(time.RFC3339, until)
					if left := time.Until(when); err != nil || left < 40*time.Second || left > 70*time.Second {
						t.Errorf("%s: locked until %s, want a minute", what, until)
					}
				}
			}
		})
	}
}

func TestHeadersOfAllRequests(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	f := newFake(t)
	d := f.captures(f.driver(t, m{"AWS_ENDPOINT": "https://storage.example", "WALG_S3_SSE_C": key, "S3_REQUEST_ADDITIONAL_HEADERS": "X-One: 1"}))
	for op, do := range operations(t, d) {
		before := len(f.requests(""))
		if op == "PUT if absent" {
			f.absent(d)
			before++ // it looks first
		}
		if err := do(t.Context()); err != nil && op != "GET again" { // the fake has but one answer to GET
			t.Fatalf("%s: %v", op, err)
		}
		f.answer("HEAD /walg/k", nil)
		sent := f.requests("")[before:]
		if len(sent) != 1 || sent[0].what != where[op] {
			t.Errorf("%s: %d requests, the first %s", op, len(sent), sent[0].what)
		}
		h := sent[0].header
		if h.Get("X-One") != "1" {
			t.Errorf("%s: without the header", op)
		}
		if !strings.Contains(h.Get("Authorization"), "x-one") {
			t.Errorf("%s: the header is not signed: %s", op, h.Get("Authorization"))
		}
		want := key
		switch op {
		case "abort", "list", "delete", "unfinished": // no business of theirs
			want = ""
		}
		if got := h.Get("X-Amz-Server-Side-Encryption-Customer-Key"); got != want {
			t.Errorf("%s: customer's key %q", op, got)
		}
		if want != "" && h.Get("X-Amz-Server-Side-Encryption-Customer-Key-Md5") == "" {
			t.Errorf("%s: without the key's checksum", op)
		}
	}
}

func TestWhatIsSentIsSummedOnce(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"", "https://storage.example"} { // "" is plain HTTP
		f := newFake(t)
		settings := m{}
		if endpoint != "" {
			settings["AWS_ENDPOINT"] = endpoint
		}
		d := f.captures(f.driver(t, settings))
		whole(t, d, "data")
		inParts(t, d)
		for _, what := range []string{"PUT /walg/k", "PUT /walg/k?uploadId"} {
			got := f.request(t, what)
			h := got.header
			if got.body != "data" || h.Get("X-Amz-Checksum-Crc32c") != "rth90Q==" || h.Get("X-Amz-Content-Sha256") != "UNSIGNED-PAYLOAD" ||
				h.Get("Content-Encoding") != "" || h.Get("X-Amz-Checksum-Crc32") != "" || h.Get("Content-Md5") != "" {
				t.Errorf("%s: %q with %v", what, got.body, h)
			}
			if !strings.Contains(h.Get("Authorization"), "x-amz-checksum-crc32c") {
				t.Errorf("%s: the checksum is not signed: %s", what, h.Get("Authorization"))
			}
		}
		if got := f.request(t, "PUT /walg/k").header.Get("X-Amz-Meta-Walg.crc32c"); got != "aed87dd1" {
			t.Errorf("checksum in the metadata %q", got)
		}
		begun := f.request(t, "POST /walg/k?uploads").header
		if begun.Get("X-Amz-Checksum-Algorithm") != "CRC32C" || begun.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
			t.Errorf("begun with %v", begun)
		}
		done := f.request(t, "POST /walg/k?uploadId")
		if h := done.header; h.Get("X-Amz-Checksum-Crc32c") != "AQIDBA==" || h.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" || h.Get("X-Amz-Mp-Object-Size") != "8" {
			t.Errorf("done with %v", h)
		}
		if strings.Count(done.body, "<ChecksumCRC32C>rth90Q==</ChecksumCRC32C>") != 2 || !strings.Contains(done.body, "<PartNumber>2</PartNumber>") {
			t.Errorf("done with %s", done.body)
		}
	}
}

// A server that knows nothing of such checksums is not told of them again.
func TestAServerWithoutChecksumsGetsNone(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer("POST /walg/k?uploads", sends(200, "<InitiateMultipartUploadResult><UploadId>17</UploadId></InitiateMultipartUploadResult>"))
	inParts(t, f.driver(t, nil))
	done := f.request(t, "POST /walg/k?uploadId")
	if done.header.Get("X-Amz-Checksum-Crc32c") != "" || done.header.Get("X-Amz-Mp-Object-Size") != "" || strings.Contains(done.body, "Checksum") {
		t.Errorf("%v %s", done.header, done.body)
	}
}

func TestConditionsAreSent(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	f.absent(d)
	for op, do := range operations(t, d) {
		do(t.Context()) // judged elsewhere
		h := f.requests("")[len(f.requests(""))-1].header
		none, match := "", ""
		switch op {
		case "PUT if absent", "commit if absent":
			none = "*"
		case "GET again":
			match = `"tag"`
		}
		if h.Get("If-None-Match") != none || h.Get("If-Match") != match {
			t.Errorf("%s: If-None-Match %q, If-Match %q", op, h.Get("If-None-Match"), h.Get("If-Match"))
		}
		if r := h.Get("Range"); op == "GET again" && r != "bytes=2-11" || op == "GET" && r != "bytes=0-9" {
			t.Errorf("%s: range %q", op, r)
		}
	}
}

func TestLargeBodiesAskFirst(t *testing.T) {
	t.Parallel()
	for value, want := range (m{"": "100-continue", "false": "100-continue", "true": ""}) {
		f := newFake(t)
		whole(t, f.driver(t, m{"S3_DISABLE_100_CONTINUE": value}), strings.Repeat("x", 3*mib))
		got := f.request(t, "PUT /walg/k")
		if got.header.Get("Expect") != want || len(got.body) != 3*mib {
			t.Errorf("S3_DISABLE_100_CONTINUE=%s: Expect %q, %d bytes", value, got.header.Get("Expect"), len(got.body))
		}
	}
}

func TestListingByTheOldRequest(t *testing.T) {
	t.Parallel()
	const item = "<Contents><Key>%s</Key><Size>3</Size><LastModified>2026-11-24T17:00:00.000Z</LastModified></Contents>"
	answer := func(more bool, keys ...string) string {
		all := "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>" + strconv.FormatBool(more) + "</IsTruncated>"
		for _, key := range keys {
			all += fmt.Sprintf(item, url.QueryEscape(key))
		}
		return all + "</ListBucketResult>"
	}
	f := newFake(t)
	f.answer("GET /walg", sends(200, answer(true, "p/a", "p/b +&%41")))
	f.answer("GET /walg?marker", sends(200, answer(false, "p/c")))
	s := remote.New(f.driver(t, m{"S3_USE_LIST_OBJECTS_V1": "true"}), "", remote.Policy{})
	var keys []string
	for info, err := range s.List(t.Context(), "p/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
		if info.Size != 3 || info.ModTime.Year() != 2026 {
			t.Errorf("%v", info)
		}
	}
	if !slices.Equal(keys, []string{"p/a", "p/b +&%41", "p/c"}) {
		t.Errorf("listed %q", keys)
	}
	if q := f.request(t, "GET /walg?marker").query; q.Get("marker") != "p/b +&%41" || q.Get("prefix") != "p/" || q.Get("encoding-type") != "url" {
		t.Errorf("asked for %v", q)
	}
}

func TestListingByTheNewRequest(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer("GET /walg?list-type", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("continuation-token") {
		case "":
			sends(200, "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t+1</NextContinuationToken>"+
				"<Contents><Key>a%2Bb</Key></Contents></ListBucketResult>")(w, r)
		case "t+1":
			sends(200, "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a%2Bb</Key></Contents></ListBucketResult>")(w, r)
		}
	})
	d := f.driver(t, nil)
	got, next, err := d.Page(t.Context(), "a", "")
	if err != nil || next != "t+1" || len(got) != 1 || got[0].Key != "a+b" {
		t.Errorf("%v, next %q, %v", got, next, err)
	}
	if _, _, err = d.Page(t.Context(), "a", "t+1"); err == nil || !strings.Contains(err.Error(), "not where") {
		t.Errorf("a page without the way to the next: %v", err)
	}
}

func TestDeletionsGoInBatches(t *testing.T) {
	t.Parallel()
	for size, want := range map[string][]int{"": {5}, "2": {1, 2, 2}, "1": {1, 1, 1, 1, 1}} {
		f := newFake(t)
		s := remote.New(f.driver(t, m{"S3_DELETE_BATCH_SIZE": size}), "", remote.Policy{})
		if err := s.Delete(t.Context(), "a", "b", "c", "d", "e"); err != nil {
			t.Fatal(err)
		}
		var sent []int
		for _, r := range f.requests("POST /walg?delete") {
			sent = append(sent, strings.Count(r.body, "<Key>"))
		}
		if slices.Sort(sent); !slices.Equal(sent, want) {
			t.Errorf("S3_DELETE_BATCH_SIZE=%s: %v", size, sent)
		}
	}
}

func TestPartsHaveTheirSize(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string][]int{"S3_MAX_PART_SIZE": {1 * mib, 5 * mib, 5 * mib}, "WALG_S3_MAX_PART_SIZE": {1 * mib, 5 * mib, 5 * mib}} {
		f := newFake(t)
		s := remote.New(f.driver(t, m{setting: "5242880"}), "", remote.Policy{})
		if err := s.Put(t.Context(), "k", strings.NewReader(strings.Repeat("x", 11*mib)), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		var sent []int
		for _, r := range f.requests("PUT /walg/k?uploadId") {
			sent = append(sent, len(r.body))
		}
		if slices.Sort(sent); !slices.Equal(sent, want) {
			t.Errorf("%s: %v", setting, sent)
		}
	}
}

func TestRequestsAreTriedAgainAsSet(t *testing.T) {
	t.Parallel()
	for retries, want := range map[string]int{"0": 1, "2": 3} {
		f := newFake(t)
		f.answer("", says(500, "InternalError", "no"))
		s := remote.New(f.driver(t, m{"S3_MAX_RETRIES": retries, "S3_MIN_THROTTLING_RETRY_DELAY": "1", "S3_MAX_THROTTLING_RETRY_DELAY": "2"}), "", remote.Policy{})
		if _, err := s.Stat(t.Context(), "k"); err == nil {
			t.Error("no error")
		}
		if n := len(f.requests("HEAD /walg/k")); n != want {
			t.Errorf("S3_MAX_RETRIES=%s: %d requests", retries, n)
		}
	}
}

func TestNumbersComeFromTheSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings m
		change   func(*driver.Traits)
	}{
		"defaults": {m{}, func(*driver.Traits) {}},
		"part":     {m{"WALG_S3_MAX_PART_SIZE": "67108864"}, func(t *driver.Traits) { t.PartSize = 64 * mib }},
		"batch":    {m{"S3_DELETE_BATCH_SIZE": "7"}, func(t *driver.Traits) { t.Batch = 7 }},
		"tries":    {m{"S3_MAX_RETRIES": "3"}, func(t *driver.Traits) { t.Tries = 4 }},
		"delays": {m{"S3_MIN_THROTTLING_RETRY_DELAY": "500", "S3_MAX_THROTTLING_RETRY_DELAY": "300000"},
			func(t *driver.Traits) { t.MinDelay, t.MaxDelay = 500*time.Millisecond, 5*time.Minute }},
		"no path style": {m{"AWS_S3_FORCE_PATH_STYLE": ""}, func(t *driver.Traits) { t.Endpoint = "AWS_ENDPOINT (or AWS_S3_FORCE_PATH_STYLE)" }},
		// Accepted, and nothing follows from them.
		"no effect": {m{"S3_RANGE_BATCH_ENABLED": "true", "S3_RANGE_MAX_RETRIES": "3", "S3_LOG_LEVEL": "DEVEL", "S3_SKIP_VALIDATION": "false"}, func(*driver.Traits) {}},
	} {
		want := driver.Traits{
			PartSize: 20971520, MaxPart: 5 << 30, MaxParts: 10000, Piece: 8 * mib, Parallel: 4, Batch: 1000, Meta: true,
			Endpoint: "AWS_ENDPOINT", CA: "WALG_S3_CA_CERT_FILE",
		}
		c.change(&want)
		if got := newFake(t).driver(t, c.settings).Traits(); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestWrongSettingsAreRefused(t *testing.T) {
	t.Parallel()
	const bit = "0123456789abcdef"
	for _, c := range []struct {
		settings m
		want     string // in the message
	}{
		{m{"AWS_S3_FORCE_PATH_STYLE": "perhaps"}, "AWS_S3_FORCE_PATH_STYLE=perhaps"},
		{m{"AWS_DUAL_STACK": "perhaps"}, "AWS_DUAL_STACK=perhaps"},
		{m{"AWS_DUAL_STACK": "true"}, "AWS_DUAL_STACK and AWS_ENDPOINT"},
		{m{"AWS_ENDPOINT": "ftp://host"}, "AWS_ENDPOINT"},
		{m{"AWS_ENDPOINT": "http://"}, "AWS_ENDPOINT"},
		{m{"AWS_ENDPOINT": "http://user:hidden@host"}, "AWS_ENDPOINT"},
		{m{"AWS_ENDPOINT": "http://host?hidden"}, "AWS_ENDPOINT"},
		{m{"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is not"},
		{m{"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID is not"},
		{m{"AWS_SECRET_ACCESS_KEY": "hidden\n"}, "AWS_SECRET_ACCESS_KEY=...: want no line end"},
		{m{"AWS_SESSION_TOKEN": "hidden\r"}, "AWS_SESSION_TOKEN=..."},
		{m{"AWS_ROLE_SESSION_NAME": "two words"}, "AWS_ROLE_SESSION_NAME"},
		{m{"WALG_S3_CA_CERT_FILE": "/dev/null/none"}, "certificate authority"},
		{m{"AWS_CA_BUNDLE": "/dev/null"}, "no certificate in it"},
		{m{"WALG_S3_SSE": "aes"}, "WALG_S3_SSE=aes: want one of AES256, aws:kms"},
		{m{"WALG_S3_SSE": "aws:kms"}, "needs WALG_S3_SSE_KMS_ID"},
		{m{"WALG_S3_SSE_KMS_ID": "id"}, "WALG_S3_SSE is not aws:kms"},
		{m{"WALG_S3_SSE": "AES256", "WALG_S3_SSE_KMS_ID": "id"}, "WALG_S3_SSE is not aws:kms"},
		{m{"WALG_S3_SSE": "AES256", "WALG_S3_SSE_C": bit + bit}, "both"},
		{m{"WALG_S3_SSE_C": bit + bit}, "https://"},
		{m{"AWS_ENDPOINT": "https://h", "WALG_S3_SSE_C": "hidden"}, "WALG_S3_SSE_C=...: want 32 bytes"},
		{m{"AWS_ENDPOINT": "https://h", "WALG_S3_SSE_C": base64.StdEncoding.EncodeToString([]byte(bit))}, "WALG_S3_SSE_C=..."},
		{m{"S3_MAX_PART_SIZE": "5242879"}, "S3_MAX_PART_SIZE=5242879: want a whole number, 5242880 or more"},
		{m{"S3_MAX_PART_SIZE": "5368709121"}, "at most"},
		{m{"S3_MAX_PART_SIZE": "20MB"}, "S3_MAX_PART_SIZE=20MB"},
		{m{"S3_DELETE_BATCH_SIZE": "0"}, "S3_DELETE_BATCH_SIZE=0"},
		{m{"S3_DELETE_BATCH_SIZE": "1001"}, "S3_DELETE_BATCH_SIZE=1001: want 1000 at most"},
		{m{"S3_MAX_RETRIES": "-1"}, "S3_MAX_RETRIES=-1"},
		{m{"S3_MIN_THROTTLING_RETRY_DELAY": "1s"}, "S3_MIN_THROTTLING_RETRY_DELAY=1s"},
		{m{"S3_MIN_THROTTLING_RETRY_DELAY": "2", "S3_MAX_THROTTLING_RETRY_DELAY": "1"}, "more than"},
		{m{"S3_RANGE_BATCH_ENABLED": "perhaps"}, "S3_RANGE_BATCH_ENABLED=perhaps"},
		{m{"S3_RANGE_MAX_RETRIES": "some"}, "S3_RANGE_MAX_RETRIES=some"},
		{m{"S3_RETENTION_PERIOD": "-2"}, "S3_RETENTION_PERIOD=-2"},
		{m{"S3_RETENTION_PERIOD": "1h"}, "S3_RETENTION_PERIOD=1h"},
		{m{"S3_RETENTION_PERIOD": "99999999999999"}, "100 years"},
		{m{"S3_RETENTION_MODE": "forever"}, "S3_RETENTION_MODE=forever"},
		{m{"S3_SKIP_VALIDATION": "perhaps"}, "S3_SKIP_VALIDATION=perhaps"},
		{m{"S3_USE_LIST_OBJECTS_V1": "perhaps"}, "S3_USE_LIST_OBJECTS_V1=perhaps"},
		{m{"S3_ENABLE_VERSIONING": "yes"}, "S3_ENABLE_VERSIONING=yes: want one of enabled, disabled"},
		{m{"S3_DISABLE_100_CONTINUE": "perhaps"}, "S3_DISABLE_100_CONTINUE=perhaps"},
		{m{"S3_USE_YC_SESSION_TOKEN": "perhaps"}, "S3_USE_YC_SESSION_TOKEN=perhaps"},
		{m{"S3_USE_YC_SESSION_TOKEN": "true", "AWS_ROLE_ARN": "arn"}, "both"},
		{m{"S3_ENDPOINT_SOURCE": "host"}, "S3_ENDPOINT_SOURCE"},
		{m{"S3_ENDPOINT_PORT": "65536"}, "S3_ENDPOINT_PORT=65536"},
		{m{"S3_ENDPOINT_PORT": "0"}, "S3_ENDPOINT_PORT=0"},
		{m{"S3_ENDPOINT_PROTOCOL": "ftp"}, "S3_ENDPOINT_PROTOCOL=ftp"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "{"}, "S3_REQUEST_ADDITIONAL_HEADERS: want a JSON object"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": `{"a": 1}`}, "want a JSON object of strings"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "a"}, "name: value"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "a: [1, 2]"}, "name: value"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "a:\n  b: c"}, "name: value"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "a b: c"}, "no name of a header"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "Authorization: hidden"}, "not yours to set"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "if-none-match: '*'"}, "not yours to set"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": "x-amz-checksum-crc32c: hidden"}, "not yours to set"},
		{m{"S3_REQUEST_ADDITIONAL_HEADERS": `{"a": "hidden\nb: c"}`}, "control character"},
	} {
		settings := m{"AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "hidden", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "r"}
		for name, value := range c.settings {
			settings[name] = value
		}
		_, err := newDriver(settings)
		switch {
		case fault.Status(err) != fault.Usage:
			t.Errorf("%v: %v", c.settings, err)
		case !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden"):
			t.Errorf("%v: %q, want %q", c.settings, err, c.want)
		}
	}
}

func TestAdditionalHeadersAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]m{
		`{"A": "b", "C-d": ""}`:              {"A": "b", "C-d": ""},
		"A: b":                               {"A": "b"},
		"---\n# comment\nA: b\n\nC: d: e\n":  {"A": "b", "C": "d: e"},
		"A: \"b c\"\r\nD: 'http://x/?y'\r\n": {"A": "b c", "D": "http://x/?y"},
		"  ":                                 {},
	} {
		got, err := headers(&driver.Settings{Get: func(name string) string { return m{headersSetting: text}[name] }})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzAdditionalHeaders(f *testing.F) {
	f.Add(`{"a": "b"}`)
	f.Add("a: b\nc: 'd'\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := headers(&driver.Settings{Get: func(name string) string { return m{headersSetting: text}[name] }})
		if err != nil && fault.Status(err) != fault.Usage {
			t.Errorf("%v", err)
		}
		for name, value := range got {
			if strings.ContainsAny(name+value, "\r\n\x00") || name == "" {
				t.Errorf("%q: %q", name, value)
			}
		}
	})
}

func TestAnotherHostServesForTheEndpoint(t *testing.T) {
	t.Parallel()
	source := newFake(t)
	source.answer("GET /host", sends(200, "127.0.0.1\n"))
	f := newFake(t)
	address, _ := url.Parse(f.URL)
	for name, settings := range map[string]m{
		"same protocol":  {"AWS_ENDPOINT": "http://storage.invalid"},
		"other protocol": {"AWS_ENDPOINT": "https://storage.invalid", "S3_ENDPOINT_PROTOCOL": "http"},
		"in the host":    {"AWS_ENDPOINT": "http://storage.invalid", "AWS_S3_FORCE_PATH_STYLE": "false"},
	} {
		settings["WALG_S3_ENDPOINT_SOURCE"] = source.URL + "/host"
		settings["S3_ENDPOINT_PORT"] = address.Port()
		before := len(source.requests(""))
		d := f.driver(t, settings)
		whole(t, d, "data")
		whole(t, d, "data")
		path, host := "PUT /walg/k", "storage.invalid"
		if name == "in the host" {
			path, host = "PUT /k", "walg.storage.invalid"
		}
		if got := f.request(t, path).host; got != host {
			t.Errorf("%s: the host is %q", name, got)
		}
		if n := len(source.requests("")) - before; n != 1 {
			t.Errorf("%s: %d questions", name, n)
		}
	}
	c, err := read(&driver.Settings{Get: func(name string) string { return m{"S3_ENDPOINT_SOURCE": "http://h"}[name] }})
	if got := c.hostPort("h"); err != nil || got != "h:443" {
		t.Errorf("without S3_ENDPOINT_PORT: %s, %v", got, err)
	}
}

func TestTheEndpointServesWhereNoHostIsNamed(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"error":    sends(500, "127.0.0.1"),
		"nothing":  sends(200, ""),
		"too long": sends(200, strings.Repeat("x", 300)),
		"a page":   sends(200, "<html>no such page</html>"),
		"a URL":    sends(200, "http://127.0.0.1/"),
		"a port":   sends(200, "127.0.0.1:1"),
		"cut":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		source, f := newFake(t), newFake(t)
		source.answer("", answer)
		whole(t, f.driver(t, m{"S3_ENDPOINT_SOURCE": source.URL, "S3_ENDPOINT_PORT": "1"}), "data")
		if len(source.requests("")) == 0 || len(f.requests("PUT /walg/k")) != 1 {
			t.Errorf("%s: not asked, or not sent", name)
		}
	}
}

func TestANewDriverCostsNothing(t *testing.T) {
	// Not parallel: it measures.
	settings := m{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "r", "AWS_ENDPOINT": "http://127.0.0.1:1"}
	best := time.Hour
	for range 10 {
		begun := time.Now()
		d, err := newDriver(settings)
		if err == nil {
			_, err = d.client(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begun))
	}
	if best > 2*time.Millisecond {
		t.Errorf("took %v", best)
	}
}

func TestADriverAsksNobodyBeforeItsFirstRequest(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.driver(t, m{"AWS_REGION": "", "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "S3_ENDPOINT_SOURCE": f.URL})
	if all := f.requests(""); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

func TestMD5IsTakenFromAmazonOnly(t *testing.T) {
	t.Parallel()
	const tag = "0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct {
		settings m
		etag     string
		header   []string
		want     bool
	}{
		"Amazon":         {m{"AWS_ENDPOINT": ""}, tag, nil, true},
		"its URL":        {m{"AWS_ENDPOINT": "https://s3.eu-central-1.amazonaws.com"}, tag, nil, true},
		"AES256":         {m{"AWS_ENDPOINT": ""}, tag, []string{"X-Amz-Server-Side-Encryption", "AES256"}, true},
		"KMS":            {m{"AWS_ENDPOINT": ""}, tag, []string{"X-Amz-Server-Side-Encryption", "aws:kms"}, false},
		"in parts":       {m{"AWS_ENDPOINT": ""}, tag + "-2", nil, false},
		"customer's key": {m{"AWS_ENDPOINT": "", "WALG_S3_SSE_C": tag}, tag, nil, false},
		"others":         {m{"AWS_ENDPOINT": "https://storage.example"}, tag, nil, false},
		"in disguise":    {m{"AWS_ENDPOINT": "https://amazonaws.com.example"}, tag, nil, false},
	} {
		f := newFake(t)
		answer := append([]string{"ETag", `"` + c.etag + `"`, "Content-Range", "bytes 0-3/4", "Content-Length", "4"}, c.header...)
		f.answer("HEAD /walg/k", says(200, "", "", answer...))
		f.answer("GET /walg/k", sends(206, "data", answer...))
		d := f.captures(f.driver(t, c.settings))
		head, err := d.Stat(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		r, read, err := d.Read(t.Context(), "k", 0, 4, "")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r)
		r.Close()
		if (len(head.MD5) == 16) != c.want || (len(read.MD5) == 16) != c.want || head.Version != read.Version {
			t.Errorf("%s: HEAD %x, GET %x", name, head.MD5, read.MD5)
		}
	}
}

func TestChecksumsAreThoseOfTheWhole(t *testing.T) {
	t.Parallel()
	const header = "X-Amz-Checksum-Crc32c"
	for name, c := range map[string]struct {
		header []string
		want   uint32 // 0 is none
	}{
		"none":            {nil, 0},
		"whole":           {[]string{header, "AQIDBA==", "X-Amz-Checksum-Type", "FULL_OBJECT"}, 0x01020304},
		"no type":         {[]string{header, "AQIDBA=="}, 0x01020304},
		"composite":       {[]string{header, "AQIDBA==-2", "X-Amz-Checksum-Type", "COMPOSITE"}, 0},
		"composite, bare": {[]string{header, "AQIDBA==", "X-Amz-Checksum-Type", "COMPOSITE"}, 0},
		"composite, old":  {[]string{header, "AQIDBA==-2"}, 0},
		"nonsense":        {[]string{header, "AQ=="}, 0},
		"in the metadata": {[]string{"X-Amz-Meta-Walg.crc32c", "01020304"}, 0x01020304},
	} {
		f := newFake(t)
		f.answer("HEAD /walg/k", says(200, "", "", append([]string{"ETag", `"e"`, "Content-Length", "4", "X-Amz-Meta-User", "mine"}, c.header...)...))
		o, err := f.driver(t, nil).Stat(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		var got uint32
		if o.CRC32C != nil {
			got = *o.CRC32C
		}
		if got != c.want || len(o.Meta) != 1 || o.Meta["user"] != "mine" || o.Size != 4 {
			t.Errorf("%s: %08x, %v", name, got, o)
		}
	}
}

func TestConnectingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	arrived, release := make(chan bool), make(chan bool)
	defer close(release)
	f.answer("GET /walg?location", func(http.ResponseWriter, *http.Request) { arrived <- true; <-release })
	d := f.driver(t, m{"AWS_REGION": ""})
	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	first := make(chan error)
	go func() { _, err := d.Stat(ctx, "k"); first <- err }()
	<-arrived
	second := make(chan error)
	go func() { _, err := d.Stat(ctx, "k"); second <- err }() // waits for the first
	cancel(cause)
	for _, c := range []chan error{first, second} {
		if err := <-c; !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	}
}

func TestVersionsAndUnfinishedUploadsGoOnOverPages(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer("GET /walg?versions", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch q.Get("key-marker") + "," + q.Get("version-id-marker") {
		case ",":
			sends(200, "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>1</NextVersionIdMarker>"+
				"<Version><Key>k</Key><VersionId>1</VersionId></Version></ListVersionsResult>")(w, r)
		case "k,1": // the rest is of other keys
			sends(200, "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k2</NextKeyMarker><NextVersionIdMarker>3</NextVersionIdMarker>"+
				"<Version><Key>k</Key><VersionId>2</VersionId></Version><Version><Key>k2</Key><VersionId>3</VersionId></Version></ListVersionsResult>")(w, r)
		default:
			says(400, "InvalidArgument", "unexpected marker")(w, r)
		}
	})
	f.answer("GET /walg?uploads", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch q.Get("key-marker") + "," + q.Get("upload-id-marker") {
		case ",":
			sends(200, "<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>a%2Bb</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"+
				"<Upload><Key>a%2Bb</Key><UploadId>1</UploadId><Initiated>2026-11-24T17:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>")(w, r)
		case "a+b,1":
			sends(200, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"+
				"<Upload><Key>c</Key><UploadId>2</UploadId><Initiated>2026-11-24T17:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>")(w, r)
		default:
			says(400, "InvalidArgument", "unexpected marker")(w, r)
		}
	})
	d := f.driver(t, m{"S3_ENABLE_VERSIONING": "enabled"})
	if err := d.Delete(t.Context(), []string{"k"}); err != nil {
		t.Fatal(err)
	}
	if sent := f.requests("POST /walg?delete"); len(sent) != 1 || !strings.Contains(sent[0].body, "<VersionId>1<") || !strings.Contains(sent[0].body, "<VersionId>2<") {
		t.Errorf("%v", sent)
	}
	var names []string
	for l, err := range d.Unfinished(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, l.Name)
	}
	if !slices.Equal(names, []string{"a+b?uploadId=1", "c?uploadId=2"}) {
		t.Errorf("unfinished: %q", names)
	}
}
