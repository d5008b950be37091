package awsid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// alone are settings that find nothing of this machine's own: no files, and no
// metadata service. What the SDK reads by itself is empty.
func alone(t *testing.T) Settings {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_DISABLED"} {
		t.Setenv(name, "")
	}
	return Settings{
		Metadata: "http://127.0.0.1:1", Region: "eu-central-1",
		CredentialsFile: write(t, "credentials", ""), ConfigFile: write(t, "config", ""),
	}
}

// find returns the key that is found, its token and the region.
func find(t *testing.T, s Settings) (string, error) {
	t.Helper()
	who, region, err := Find(t.Context(), s)
	if err != nil {
		return "", err
	}
	c, err := who.Retrieve(t.Context())
	return c.AccessKeyID + "/" + c.SessionToken + "/" + region, err
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

func TestKeysAndProfiles(t *testing.T) {
	keys := write(t, "credentials", profiles)
	config := write(t, "config", "[default]\nregion = eu-west-3\n[profile other]\nregion = us-west-2\n")
	for _, c := range []struct {
		name, want string
		change     func(s *Settings)
	}{
		{"a key", "KEY/token/eu-central-1", func(s *Settings) { s.Key, s.Secret, s.Token = "KEY", "s", "token" }},
		{"a key goes first", "KEY//eu-central-1", func(s *Settings) { s.Key, s.Secret, s.Profile = "KEY", "s", "other" }},
		{"its region is a profile's", "KEY//eu-west-3", func(s *Settings) { s.Key, s.Secret, s.Region, s.ConfigFile = "KEY", "s", "", config }},
		{"the default", "DEFAULTKEY//eu-central-1", func(s *Settings) { s.CredentialsFile = keys }},
		{"another profile", "OTHERKEY/other-token/eu-central-1", func(s *Settings) { s.CredentialsFile, s.Profile = keys, "other" }},
		{"and its region", "OTHERKEY/other-token/us-west-2", func(s *Settings) { s.CredentialsFile, s.Profile, s.ConfigFile, s.Region = keys, "other", config, "" }},
		{"no region", "DEFAULTKEY//", func(s *Settings) { s.CredentialsFile, s.Region = keys, "" }},
	} {
		s := alone(t)
		c.change(&s)
		if got, err := find(t, s); got != c.want || err != nil {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
}

// serve answers by path, and 404 where there is none.
func serve(t *testing.T, answers map[string]http.HandlerFunc) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := answers[r.Method+" "+r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		w.WriteHeader(404)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func sends(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// fakeMetadata is a fake of the metadata service of EC2, the second version.
func fakeMetadata(t *testing.T) (string, map[string]http.HandlerFunc) {
	const base = "GET /latest/meta-data/iam/security-credentials"
	answers := map[string]http.HandlerFunc{
		"PUT /latest/api/token": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			io.WriteString(w, "metadata-token")
		},
		base + "/": sends(200, "the-role"),
		base + "/the-role": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "metadata-token" {
				w.WriteHeader(401)
				return
			}
			fmt.Fprintf(w, `{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "EC2KEY", "SecretAccessKey": "s", "Token": "role-token", "Expiration": %q}`,
				time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		},
	}
	return serve(t, answers), answers
}

func TestTheMetadataServiceGivesAKey(t *testing.T) {
	s := alone(t)
	var answers map[string]http.HandlerFunc
	s.Metadata, answers = fakeMetadata(t)
	if got, err := find(t, s); got != "EC2KEY/role-token/eu-central-1" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		passes bool
	}{
		"gone":    {sends(404, ""), false},
		"trouble": {sends(500, ""), true},
		"later":   {sends(429, ""), true},
		"cut":     {cut, false}, // perhaps there is none
	} {
		answers["GET /latest/meta-data/iam/security-credentials/the-role"] = c.answer
		_, err := find(t, s)
		checkNobody(t, name, err, c.passes, "", "AWS_ACCESS_KEY_ID")
	}
}

func checkNobody(t *testing.T, name string, err error, passes bool, words, hint string) {
	t.Helper()
	var nobody *Nobody
	text := fmt.Sprint(err)
	if !errors.As(err, &nobody) || nobody.Passes() != passes || !strings.HasPrefix(text, "no credentials: ") ||
		!strings.Contains(text, words) || !strings.Contains(nobody.Hint, hint) || len(text) > 250 || strings.Contains(text, "\n") {
		t.Errorf("%s: %v, %+v", name, err, nobody)
	}
}

// fakeSTS is a fake of the service that gives roles. It returns the text of a
// config file that leads to it, and what it was asked.
func fakeSTS(t *testing.T, instead http.HandlerFunc) (string, *url.Values) {
	asked := new(url.Values)
	address := serve(t, map[string]http.HandlerFunc{"POST /": func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		*asked = maps.Clone(r.PostForm)
		asked.Set("by", r.Header.Get("Authorization"))
		if instead != nil {
			instead(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId>`+
			`<SecretAccessKey>s</SecretAccessKey><SessionToken>role-token</SessionToken><Expiration>2036-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			r.PostForm.Get("Action"))
	}})
	return "[default]\nservices = local\n[services local]\nsts =\n  endpoint_url = " + address + "\n", asked
}

const role = "arn:aws:iam::17:role/backup"

func TestARoleIsAssumed(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(s *Settings)
		by      string
		session string
		want    string
	}{
		"by a key":     {func(s *Settings) { s.Key, s.Secret = "KEY", "s" }, "KEY eu-central-1", "", "ROLEKEY/role-token/eu-central-1"},
		"with a name":  {func(s *Settings) { s.Key, s.Secret, s.RoleSession = "KEY", "s", "the-session" }, "KEY eu-central-1", "the-session", "ROLEKEY/role-token/eu-central-1"},
		"by a profile": {func(s *Settings) { s.CredentialsFile = write(t, "credentials", profiles) }, "DEFAULTKEY eu-central-1", "", "ROLEKEY/role-token/eu-central-1"},
		"no region":    {func(s *Settings) { s.Key, s.Secret, s.Region = "KEY", "s", "" }, "KEY us-east-1", "", "ROLEKEY/role-token/"},
	} {
		config, asked := fakeSTS(t, nil)
		s := alone(t)
		s.Role, s.ConfigFile = role, write(t, "config", config)
		c.change(&s)
		if got, err := find(t, s); got != c.want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		key, region, _ := strings.Cut(c.by, " ")
		if by := asked.Get("by"); asked.Get("RoleArn") != role || !strings.Contains(by, "Credential="+key+"/") || !strings.Contains(by, "/"+region+"/sts/") ||
			c.session != "" && asked.Get("RoleSessionName") != c.session {
			t.Errorf("%s: asked for %v", name, asked)
		}
	}
}

func TestARoleIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		passes bool
		words  string
	}{
		"denied": {sends(403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"),
			false, "AccessDenied: not authorized to perform: sts:AssumeRole (403)"},
		"not now": {sends(503, "<ErrorResponse><Error><Code>ServiceUnavailable</Code><Message>later</Message></Error></ErrorResponse>"), true, "ServiceUnavailable: later (503)"},
		"cut":     {cut, true, "EOF"}, // it is known to exist
	} {
		config, _ := fakeSTS(t, c.answer)
		s := alone(t)
		s.Key, s.Secret, s.Role, s.ConfigFile = "KEY", "s", role, write(t, "config", config)
		_, err := find(t, s)
		checkNobody(t, name, err, c.passes, c.words, "AWS_ROLE_ARN")
	}
}

// The SDK reads these settings by itself.
func TestAWebIdentityIsExchanged(t *testing.T) {
	config, asked := fakeSTS(t, nil)
	s := alone(t)
	s.Role, s.WebIdentity, s.ConfigFile = role, write(t, "token", "identity-token"), write(t, "config", config)
	t.Setenv("AWS_ROLE_ARN", s.Role)
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", s.WebIdentity)
	if got, err := find(t, s); got != "ROLEKEY/role-token/eu-central-1" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if asked.Get("Action") != "AssumeRoleWithWebIdentity" || asked.Get("WebIdentityToken") != "identity-token" || asked.Get("RoleArn") != role {
		t.Errorf("asked for %v", asked)
	}
	s.WebIdentity = s.WebIdentity + ".none"
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", s.WebIdentity)
	_, err := find(t, s)
	checkNobody(t, "no token", err, false, "no such file", "AWS_ROLE_ARN")
}

func TestNobody(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *Settings)
		words  string
	}{
		"nothing":             {func(s *Settings) {}, ""},
		"no such profile":     {func(s *Settings) { s.Profile = "absent" }, "absent"},
		"no such file":        {func(s *Settings) { s.CredentialsFile += ".none" }, ""},
		"a role, by nobody":   {func(s *Settings) { s.Role = role }, ""},
		"a file that is none": {func(s *Settings) { s.CredentialsFile = write(t, "c", "[default]\naws_access_key_id\n") }, ""},
	} {
		s := alone(t)
		c.change(&s)
		_, err := find(t, s)
		checkNobody(t, name, err, false, c.words, "AWS_ACCESS_KEY_ID")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := alone(t)
	s.Metadata, _ = fakeMetadata(t)
	if _, _, err := Find(ctx, s); err == nil {
		t.Error("found after the end")
	}
}

func TestSettingsAreRead(t *testing.T) {
	env := map[string]string{
		"AWS_ACCESS_KEY": "key", "WALG_AWS_SECRET_ACCESS_KEY": "secret", "WALE_AWS_SESSION_TOKEN": "token", "AWS_PROFILE": "profile",
		"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config", "AWS_ROLE_ARN": "role", "AWS_ROLE_SESSION_NAME": "session",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "identity", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "metadata", "AWS_DEFAULT_REGION": "region",
	}
	want := Settings{"key", "secret", "token", "profile", "credentials", "config", "role", "session", "identity", "metadata", "region"}
	if got, err := Read(func(name string) string { return env[name] }); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	env["AWS_REGION"], env["AWS_ACCESS_KEY_ID"] = "first", "first"
	if got, err := Read(func(name string) string { return env[name] }); got.Region != "first" || got.Key != "first" || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSettingsAreJudged(t *testing.T) {
	for words, env := range map[string]map[string]string{
		"AWS_SECRET_ACCESS_KEY is not":       {"AWS_ACCESS_KEY_ID": "key"},
		"AWS_ACCESS_KEY_ID is not":           {"AWS_SECRET_ACCESS_KEY": "s"},
		"setting AWS_ROLE_SESSION_NAME=a b:": {"AWS_ROLE_SESSION_NAME": "a b"},
		"setting AWS_SECRET_ACCESS_KEY=...:": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "top\nsecret"},
	} {
		_, err := Read(func(name string) string { return env[name] })
		if fault.Status(err) != fault.Usage || !strings.Contains(fmt.Sprint(err), words) || strings.Contains(fmt.Sprint(err), "top") {
			t.Errorf("%v", err)
		}
	}
}
