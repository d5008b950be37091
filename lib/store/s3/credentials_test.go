package s3

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyless are settings without a key. Nothing of the machine's own is found:
// no files, and no metadata service.
func keyless(t *testing.T, change m) m {
	s := m{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
		"AWS_SHARED_CREDENTIALS_FILE": write(t, "credentials", ""), "AWS_CONFIG_FILE": write(t, "config", ""),
	}
	maps.Copy(s, change)
	return s
}

const profiles = `
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = s
[other]
aws_access_key_id = OTHERKEY
aws_secret_access_key = s
aws_session_token = other-token
`

func TestProfilesGiveKeyAndRegion(t *testing.T) {
	t.Parallel()
	keys := write(t, "credentials", profiles)
	config := write(t, "config", "[default]\nregion = eu-west-3\n[profile other]\nregion = us-west-2\n")
	all := write(t, "all", "[profile whole]\nregion = us-west-1\naws_access_key_id = WHOLEKEY\naws_secret_access_key = s\n")
	for name, c := range map[string]struct {
		settings m
		scope    string
		token    string
	}{
		"default":          {m{"AWS_SHARED_CREDENTIALS_FILE": keys}, "DEFAULTKEY/eu-central-1", ""},
		"AWS_PROFILE":      {m{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_PROFILE": "other"}, "OTHERKEY/eu-central-1", "other-token"},
		"region of one":    {m{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_PROFILE": "other", "AWS_CONFIG_FILE": config, "AWS_REGION": ""}, "OTHERKEY/us-west-2", "other-token"},
		"default's region": {m{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_CONFIG_FILE": config, "AWS_REGION": ""}, "DEFAULTKEY/eu-west-3", ""},
		"setting first":    {m{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_CONFIG_FILE": config}, "DEFAULTKEY/eu-central-1", ""},
		"config file":      {m{"AWS_CONFIG_FILE": all, "AWS_PROFILE": "whole", "AWS_REGION": ""}, "WHOLEKEY/us-west-1", ""},
		"a key goes first": {m{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "s"}, "KEY/eu-central-1", ""},
	} {
		f := newFake(t)
		page(t, f.driver(t, keyless(t, c.settings)))
		f.wantScope(t, name, "GET /walg?list-type", c.scope)
		if token := f.request(t, "GET /walg?list-type").header.Get("X-Amz-Security-Token"); token != c.token {
			t.Errorf("%s: token %q", name, token)
		}
	}
}

// newMetadata is a fake of the metadata service of EC2, the second version.
func newMetadata(t *testing.T, key string, expires time.Time) *fake {
	f := newFake(t)
	const base = "/latest/meta-data/iam/security-credentials"
	f.answer("", says(404, "", ""))
	f.answer("PUT /latest/api/token", sends(200, "metadata-token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300"))
	f.answer("GET "+base+"/", sends(200, "the-role"))
	f.answer("GET "+base+"/the-role", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "metadata-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": %q, "SecretAccessKey": "s", "Token": "role-token", "Expiration": %q}`,
			key, expires.UTC().Format(time.RFC3339))
	})
	return f
}

func TestTheMetadataServiceGivesAKey(t *testing.T) {
	t.Parallel()
	f, metadata := newFake(t), newMetadata(t, "EC2KEY", time.Now().Add(time.Hour))
	d := f.driver(t, keyless(t, m{"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}))
	page(t, d)
	page(t, d)
	f.wantScope(t, "EC2", "GET /walg?list-type", "EC2KEY/eu-central-1")
	if token := f.request(t, "GET /walg?list-type").header.Get("X-Amz-Security-Token"); token != "role-token" {
		t.Errorf("token %q", token)
	}
	if n := len(metadata.requests("GET /latest/meta-data/iam/security-credentials/the-role")); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestAnExpiredKeyIsHadAgain(t *testing.T) {
	t.Parallel()
	f, metadata := newFake(t), newMetadata(t, "EC2KEY", time.Now().Add(time.Hour))
	f.answer("GET /walg?list-type", says(400, "ExpiredToken", "The provided token has expired."))
	d := f.driver(t, keyless(t, m{"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}))
	for range 2 {
		if _, _, err := d.Page(t.Context(), "", ""); fault.Status(err) != fault.Failed {
			t.Errorf("%v", err)
		}
	}
	if n := len(metadata.requests("GET /latest/meta-data/iam/security-credentials/the-role")); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// newSTS is a fake of the service that gives roles; it returns the text of a
// config file that leads to it.
func newSTS(t *testing.T) (*fake, string) {
	f := newFake(t)
	f.answer("", says(404, "", ""))
	const credentials = "<Credentials><AccessKeyId>ROLEKEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey>" +
		"<SessionToken>role-token</SessionToken><Expiration>2036-01-01T00:00:00Z</Expiration></Credentials>"
	answers := map[string]string{}
	for _, action := range []string{"AssumeRole", "AssumeRoleWithWebIdentity"} {
		answers[action] = fmt.Sprintf("<%[1]sResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, credentials)
	}
	f.answer("POST /", func(w http.ResponseWriter, r *http.Request) {
		form, _ := url.ParseQuery(f.requests("POST /")[len(f.requests("POST /"))-1].body)
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, answers[form.Get("Action")])
	})
	return f, "[default]\nservices = local\n[services local]\nsts =\n  endpoint_url = " + f.URL + "\n"
}

// form is the body of the last request for a role.
func (f *fake) form(t *testing.T) url.Values {
	t.Helper()
	form, err := url.ParseQuery(f.request(t, "POST /").body)
	if err != nil {
		t.Fatal(err)
	}
	return form
}

func TestARoleIsAssumed(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:iam::17:role/backup"
	for name, c := range map[string]struct {
		settings m
		by       string // KEY/REGION that asked
		session  string
		bucket   string // region it is used in
	}{
		"by a key":         {m{"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "s"}, "KEY/eu-central-1", "", "eu-central-1"},
		"with a name":      {m{"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ROLE_SESSION_NAME": "the-session"}, "KEY/eu-central-1", "the-session", "eu-central-1"},
		"by a profile":     {m{"AWS_SHARED_CREDENTIALS_FILE": write(t, "credentials", profiles), "AWS_PROFILE": ""}, "DEFAULTKEY/eu-central-1", "", "eu-central-1"},
		"no region is set": {m{"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": ""}, "KEY/us-east-1", "", "eu-central-1"},
	} {
		f := newFake(t)
		sts, config := newSTS(t)
		settings := keyless(t, m{"AWS_ROLE_ARN": arn, "AWS_CONFIG_FILE": write(t, "config", config)})
		maps.Copy(settings, c.settings)
		d := f.driver(t, settings)
		page(t, d)
		page(t, d)
		f.wantScope(t, name, "GET /walg?list-type", "ROLEKEY/"+c.bucket)
		if token := f.request(t, "GET /walg?list-type").header.Get("X-Amz-Security-Token"); token != "role-token" {
			t.Errorf("%s: token %q", name, token)
		}
		form := sts.form(t)
		if form.Get("RoleArn") != arn || c.session != "" && form.Get("RoleSessionName") != c.session || form.Get("RoleSessionName") == "" {
			t.Errorf("%s: asked for %v", name, form)
		}
		key, region, _ := strings.Cut(c.by, "/")
		if signed := sts.request(t, "POST /").header.Get("Authorization"); !strings.Contains(signed, "Credential="+key+"/") || !strings.Contains(signed, "/"+region+"/sts/") {
			t.Errorf("%s: asked as %s", name, signed)
		}
		if n := len(sts.requests("POST /")); n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
}

func TestARoleIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer      http.HandlerFunc
		status      int
		words, hint string
	}{
		"denied": {sends(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"),
			fault.Usage, "no credentials: AccessDenied: not authorized to perform: sts:AssumeRole (403)", "AWS_ROLE_ARN"},
		"not now": {sends(503, "<ErrorResponse><Error><Code>ServiceUnavailable</Code><Message>later</Message></Error></ErrorResponse>"), fault.Failed, "ServiceUnavailable", ""},
		"cut":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Failed, "EOF", ""},
	} {
		f := newFake(t)
		sts, config := newSTS(t)
		sts.answer("POST /", c.answer)
		d := f.driver(t, m{"AWS_ROLE_ARN": "arn:aws:iam::17:role/backup", "AWS_CONFIG_FILE": write(t, "config", config), "AWS_SHARED_CREDENTIALS_FILE": write(t, "credentials", "")})
		_, _, err := d.Page(t.Context(), "", "")
		if fault.Status(err) != c.status || !strings.Contains(fmt.Sprint(err), c.words) || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%s: status %d, %v, hint %q", name, fault.Status(err), err, fault.Hint(err))
			continue
		}
		short(t, err)
	}
}

// The SDK reads this setting by itself.
func TestAWebIdentityIsExchanged(t *testing.T) {
	f := newFake(t)
	sts, config := newSTS(t)
	token := write(t, "token", "identity-token")
	settings := keyless(t, m{"AWS_ROLE_ARN": "arn:aws:iam::17:role/backup", "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_CONFIG_FILE": write(t, "config", config)})
	t.Setenv("AWS_ROLE_ARN", settings["AWS_ROLE_ARN"])
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	page(t, f.driver(t, settings))
	f.wantScope(t, "web identity", "GET /walg?list-type", "ROLEKEY/eu-central-1")
	if form := sts.form(t); form.Get("Action") != "AssumeRoleWithWebIdentity" || form.Get("WebIdentityToken") != "identity-token" || form.Get("RoleArn") != "arn:aws:iam::17:role/backup" {
		t.Errorf("asked for %v", form)
	}
	sts.answer("POST /", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, _, err := f.driver(t, settings).Page(t.Context(), "", ""); fault.Status(err) != fault.Failed || !strings.Contains(fmt.Sprint(err), "no credentials") {
		t.Errorf("cut: %v", err) // it may be better the next time
	}
	settings["AWS_WEB_IDENTITY_TOKEN_FILE"] = "/dev/null/none"
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/dev/null/none")
	if _, _, err := f.driver(t, settings).Page(t.Context(), "", ""); fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "AWS_ROLE_ARN") {
		t.Errorf("no token: %v", err)
	} else {
		short(t, err)
	}
}

func TestYandexCloudGivesAToken(t *testing.T) {
	t.Parallel()
	f, metadata := newFake(t), newMetadata(t, "YCKEY", time.Now().Add(time.Hour))
	d := f.driver(t, keyless(t, m{"S3_USE_YC_SESSION_TOKEN": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}))
	for op, do := range operations(t, d) {
		if op == "PUT if absent" {
			f.absent(d)
		}
		if err := do(t.Context()); err != nil && op != "GET again" {
			t.Errorf("%s: %v", op, err)
		}
		f.answer("HEAD /walg/k", nil)
		h := f.requests("")[len(f.requests(""))-1].header
		if h.Get("X-Yacloud-Subjecttoken") != "role-token" || h.Get("Authorization") != "" || h.Get("X-Amz-Security-Token") != "" {
			t.Errorf("%s: %v", op, h)
		}
	}
	d = f.driver(t, keyless(t, m{"S3_USE_YC_SESSION_TOKEN": "true"})) // nobody there
	if err := d.Whole(t.Context(), "k", nil, driver.Options{}); fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "S3_USE_YC_SESSION_TOKEN") {
		t.Errorf("without the service: %v", err)
	} else {
		short(t, err)
	}
}

func TestWithoutAKeyNothingIsSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings m
		words    string
	}{
		"nothing":             {m{}, "no credentials"},
		"no such profile":     {m{"AWS_PROFILE": "absent"}, "absent"},
		"no such file":        {m{"AWS_SHARED_CREDENTIALS_FILE": "/dev/null/none"}, "no credentials"},
		"a role, by nobody":   {m{"AWS_ROLE_ARN": "arn:aws:iam::17:role/backup"}, "no credentials"},
		"a file that is none": {m{"AWS_SHARED_CREDENTIALS_FILE": write(t, "c", "[default]\naws_access_key_id\n")}, "no credentials"},
	} {
		f := newFake(t)
		_, _, err := f.driver(t, keyless(t, c.settings)).Page(t.Context(), "", "")
		if fault.Status(err) != fault.Usage || !strings.Contains(fmt.Sprint(err), c.words) || !strings.Contains(fault.Hint(err), "AWS_ACCESS_KEY_ID") {
			t.Errorf("%s: %v, hint %q", name, err, fault.Hint(err))
			continue
		}
		short(t, err)
		if n := len(f.requests("")); n != 0 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
}

// Who gives keys may say 404 too: that must not look like an absent object.
func TestAKeyThatCannotBeHadAgainIsNoAbsentObject(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		status int
	}{
		"gone":    {says(404, "", ""), fault.Usage},
		"exists":  {says(412, "", ""), fault.Usage},
		"trouble": {says(500, "", ""), fault.Failed},
		"cut":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Failed},
	} {
		f, metadata := newFake(t), newMetadata(t, "EC2KEY", time.Now().Add(time.Hour))
		d := f.driver(t, keyless(t, m{"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}))
		ops := operations(t, d)
		page(t, d) // the bucket is there
		metadata.answer("GET /latest/meta-data/iam/security-credentials/the-role", c.answer)
		before := len(f.requests(""))
		for op, do := range ops {
			d.cache.Invalidate()
			err := do(t.Context())
			if fault.Status(err) != c.status || !strings.Contains(fmt.Sprint(err), "no credentials") {
				t.Errorf("%s, %s: status %d, %v", name, op, fault.Status(err), err)
				continue
			}
			short(t, err)
		}
		if n := len(f.requests("")) - before; n != 0 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
}
