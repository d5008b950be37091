package swift

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

func TestVersion1(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.is("GET /walg", `[]`)
	for name, settings := range map[string]map[string]string{
		"OS_":          {},
		"ST_":          {"OS_AUTH_URL": "", "OS_USERNAME": "", "OS_PASSWORD": "", "ST_AUTH": f.URL + "/auth/v1.0", "ST_USER": "test:tester", "ST_KEY": "the-secret"},
		"both alike":   {"ST_USER": "test:tester"},
		"with version": {"ST_AUTH_VERSION": "1.0"},
		"with prefix":  {"OS_USERNAME": "", "WALG_OS_USERNAME": "test:tester"},
	} {
		d, err := newDriver(f.settings(settings))
		if err == nil {
			_, _, err = d.Page(t.Context(), "", "")
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		login := f.request(t, "GET /auth/v1.0").header
		if login.Get("X-Auth-User") != "test:tester" || login.Get("X-Auth-Key") != "the-secret" {
			t.Errorf("%s: logged in with %v", name, login)
		}
		if token := f.request(t, "GET /walg").header.Get("X-Auth-Token"); token != "the-token" {
			t.Errorf("%s: token %q", name, token)
		}
	}
}

// identity is a fake of the other two versions: it records what was asked for,
// and has a catalogue of two regions.
type identity struct {
	*httptest.Server
	mu     sync.Mutex
	path   string
	closes bool // the connection is for the login alone
	asked  map[string]any
	logins int
	places []string // where the listing was asked for
}

func newIdentity(t *testing.T) *identity {
	i := &identity{}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *identity) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.Method == "GET" {
		i.places = append(i.places, r.URL.Path)
		fmt.Fprint(w, "[]")
		return
	}
	i.path, i.closes, i.asked = r.URL.Path, r.Close, nil
	i.logins++
	json.NewDecoder(r.Body).Decode(&i.asked)
	var three, two []string
	for _, region := range []string{"North", "South"} {
		for _, place := range []string{"public", "internal", "admin"} {
			three = append(three, fmt.Sprintf(`{"region": %q, "interface": %q, "url": "%s/%s-%s"}`, region, place, i.URL, region, place))
		}
		two = append(two, fmt.Sprintf(`{"region": %q, "publicURL": "%s/%[1]s-public", "internalURL": "%[2]s/%[1]s-internal", "adminURL": "%[2]s/%[1]s-admin"}`, region, i.URL))
	}
	w.Header().Set("X-Subject-Token", "three")
	w.WriteHeader(http.StatusCreated)
	if strings.HasSuffix(i.path, "/auth/tokens") {
		fmt.Fprintf(w, `{"token": {"catalog": [{"type": "object-store", "endpoints": [%s]}]}}`, strings.Join(three, ","))
	} else {
		fmt.Fprintf(w, `{"access": {"token": {"id": "two"}, "serviceCatalog": [{"type": "object-store", "endpoints": [%s]}]}}`, strings.Join(two, ","))
	}
}

func TestWhatIsAskedOfKeystone(t *testing.T) {
	t.Parallel()
	type m = map[string]string
	password := `{"auth": {"identity": {"methods": ["password"], "password": {"user": %s}}, "scope": %s}}`
	user := `{"name": "u", "password": "p", "domain": {"name": "D"}}`
	project := `{"project": {"name": "P", "domain": {"name": "D"}}}`
	base := m{"OS_USERNAME": "u", "OS_PASSWORD": "p", "OS_PROJECT_NAME": "P", "OS_USER_DOMAIN_NAME": "D"}
	for name, c := range map[string]struct {
		url      string
		settings m
		asked    string
		path     string
		place    string
	}{
		"names":           {"/v3", m{}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/North-public"},
		"no version":      {"/identity", m{"OS_IDENTITY_API_VERSION": "3"}, fmt.Sprintf(password, user, project), "/identity/v3/auth/tokens", "/North-public"},
		"ST_AUTH_VERSION": {"", m{"ST_AUTH_VERSION": "3"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/North-public"},
		"tenant":          {"/v3/", m{"OS_PROJECT_NAME": "", "OS_TENANT_NAME": "P"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/North-public"},
		"ids": {"/v3", m{"OS_PROJECT_NAME": "", "OS_PROJECT_ID": "I", "OS_USER_DOMAIN_NAME": "", "OS_USER_DOMAIN_ID": "DI"},
			fmt.Sprintf(password, `{"name": "u", "password": "p", "domain": {"id": "DI"}}`, `{"project": {"id": "I"}}`), "/v3/auth/tokens", "/North-public"},
		"tenant id": {"/v3", m{"OS_PROJECT_NAME": "", "OS_TENANT_ID": "I"}, fmt.Sprintf(password, user, `{"project": {"id": "I"}}`), "/v3/auth/tokens", "/North-public"},
		"user id": {"/v3", m{"OS_USERNAME": "", "OS_USER_ID": "UI", "OS_USER_DOMAIN_NAME": "", "OS_PROJECT_DOMAIN_NAME": "E"},
			fmt.Sprintf(password, `{"id": "UI", "password": "p"}`, `{"project": {"name": "P", "domain": {"name": "E"}}}`), "/v3/auth/tokens", "/North-public"},
		"project's domain": {"/v3", m{"OS_PROJECT_DOMAIN_ID": "EI"}, fmt.Sprintf(password, user, `{"project": {"name": "P", "domain": {"id": "EI"}}}`), "/v3/auth/tokens", "/North-public"},
		"one domain":       {"/v3", m{"OS_USER_DOMAIN_NAME": "", "OS_DOMAIN_NAME": "D"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/North-public"},
		"no domain": {"/v3", m{"OS_USER_DOMAIN_NAME": ""}, fmt.Sprintf(password,
			`{"name": "u", "password": "p", "domain": {"id": "default"}}`, `{"project": {"name": "P", "domain": {"id": "default"}}}`), "/v3/auth/tokens", "/North-public"},
		"trust":  {"/v3", m{"OS_TRUST_ID": "T", "OS_PROJECT_NAME": ""}, fmt.Sprintf(password, user, `{"OS-TRUST:trust": {"id": "T"}}`), "/v3/auth/tokens", "/North-public"},
		"region": {"/v3", m{"OS_REGION_NAME": "South"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/South-public"},
		"place": {"/v3", m{"OS_REGION_NAME": "South", "OS_ENDPOINT_TYPE": "internalURL"}, fmt.Sprintf(password, user, project),
			"/v3/auth/tokens", "/South-internal"},
		"admin": {"/v3", m{"OS_ENDPOINT_TYPE": "admin"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/North-admin"},
		"application credential": {"/v3", m{"OS_USERNAME": "", "OS_PASSWORD": "", "OS_PROJECT_NAME": "", "OS_APPLICATION_CREDENTIAL_ID": "A", "OS_APPLICATION_CREDENTIAL_SECRET": "s"},
			`{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": "A", "secret": "s", "user": {}}}}}`, "/v3/auth/tokens", "/North-public"},
		"application credential by name": {"/v3", m{"OS_PASSWORD": "", "OS_APPLICATION_CREDENTIAL_NAME": "A", "OS_APPLICATION_CREDENTIAL_SECRET": "s"},
			`{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"name": "A", "secret": "s", "user": {"name": "u", "domain": {"name": "D"}}}}}}`,
			"/v3/auth/tokens", "/North-public"},
		"version 2": {"/v2.0", m{"OS_USER_DOMAIN_NAME": "", "OS_REGION_NAME": "South"},
			`{"auth": {"passwordCredentials": {"username": "u", "password": "p"}, "tenantName": "P"}}`, "/v2.0/tokens", "/South-public"},
		"version 2 with ids": {"", m{"OS_USER_DOMAIN_NAME": "", "OS_PROJECT_NAME": "", "OS_TENANT_ID": "I", "OS_IDENTITY_API_VERSION": "2", "OS_ENDPOINT_TYPE": "internal"},
			`{"auth": {"passwordCredentials": {"username": "u", "password": "p"}, "tenantId": "I"}}`, "/v2.0/tokens", "/North-internal"},
		"another place": {"/v3", m{"OS_STORAGE_URL": "http://HOST/other/"}, fmt.Sprintf(password, user, project), "/v3/auth/tokens", "/other"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIdentity(t)
			settings := maps.Clone(base)
			maps.Copy(settings, c.settings)
			settings["OS_AUTH_URL"] = i.URL + c.url
			if s := settings["OS_STORAGE_URL"]; s != "" {
				settings["OS_STORAGE_URL"] = strings.Replace(s, "http://HOST", i.URL, 1)
			}
			d, err := newDriver(settings)
			if err != nil {
				t.Fatal(err)
			}
			if i.logins != 0 {
				t.Error("New has logged in")
			}
			if _, _, err := d.Page(t.Context(), "", ""); err != nil {
				t.Fatal(err)
			}
			var want map[string]any
			if err := json.Unmarshal([]byte(c.asked), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(i.asked, want) || i.path != c.path {
				t.Errorf("asked %s for %v\nwant %s, %v", i.path, i.asked, c.path, want)
			}
			if !i.closes {
				t.Error("the login's connection is kept")
			}
			if got := i.places; len(got) != 1 || got[0] != c.place+"/walg" {
				t.Errorf("listed %q, want %s/walg", got, c.place)
			}
		})
	}
}

func TestOneLoginForAll(t *testing.T) {
	t.Parallel()
	i := newIdentity(t)
	d, err := newDriver(map[string]string{"OS_AUTH_URL": i.URL + "/v3", "OS_USERNAME": "u", "OS_PASSWORD": "p"})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, _, err := d.Page(t.Context(), "", ""); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if i.logins != 1 {
		t.Errorf("%d logins", i.logins)
	}
}

func TestATokenThatIsGiven(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.is("GET /walg", `[]`)
	token := map[string]string{"OS_AUTH_TOKEN": "given", "OS_STORAGE_URL": f.URL + fakeAccount}
	d, err := newDriver(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Page(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	if s := f.request(t, "GET /walg"); s.header.Get("X-Auth-Token") != "given" || len(f.seen) != 1 {
		t.Errorf("%d requests, the last with %v", len(f.seen), s.header)
	}

	// When it has expired there is no other, unless a user is named too.
	f.on["GET /walg"] = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") == "given" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "[]")
	}
	_, _, err = d.Page(t.Context(), "", "")
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "OS_AUTH_TOKEN") {
		t.Errorf("expired: %v, hint %q", err, fault.Hint(err))
	}
	if d, err = newDriver(f.settings(token)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Page(t.Context(), "", ""); err != nil {
		t.Errorf("expired, with a user: %v", err)
	}
}

func TestAnExpiredTokenIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t)
	calls := 0
	f.on["PUT /walg/k"] = func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}
	if err := d.Whole(t.Context(), "k", []byte("content"), driver.Options{}); err != nil {
		t.Fatal(err)
	}
	if s := f.request(t, "PUT /walg/k"); s.body != "content" || len(f.seen) != 4 {
		t.Errorf("sent %q, %d requests", s.body, len(f.seen))
	}
	// A second refusal is the last word.
	f.answer("PUT /walg/k", 401, "<html><h1>Unauthorized</h1><p>This server could not verify you.</p></html>")
	err := d.Whole(t.Context(), "k", nil, driver.Options{})
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "OS_PASSWORD") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func TestCertificateAuthority(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	server := httptest.NewTLSServer(f)
	defer server.Close()
	server.Config.ErrorLog = nil
	f.on["GET /auth/v1.0"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Storage-Url", server.URL+fakeAccount)
		w.Header().Set("X-Auth-Token", "t")
	}
	f.is("GET /walg", `[]`)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := newDriver(f.settings(map[string]string{"OS_AUTH_URL": server.URL + "/auth/v1.0", "OS_CACERT": file}))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Page(t.Context(), "", ""); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{file + ".no", "/dev/null"} {
		_, err := newDriver(f.settings(map[string]string{"OS_CACERT": bad}))
		if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "OS_CACERT") {
			t.Errorf("OS_CACERT=%s: %v, hint %q", bad, err, fault.Hint(err))
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	t.Parallel()
	type m = map[string]string
	three := m{"OS_AUTH_URL": "http://h/v3"}
	with := func(more m) m {
		all := maps.Clone(three)
		maps.Copy(all, more)
		return all
	}
	for name, c := range map[string]struct {
		settings m
		say      string
	}{
		"no URL":                {m{"OS_AUTH_URL": ""}, "OS_AUTH_URL is missing"},
		"no user":               {m{"OS_USERNAME": ""}, "OS_USERNAME is missing"},
		"no password":           {m{"OS_PASSWORD": ""}, "OS_PASSWORD is missing"},
		"no version":            {m{"OS_AUTH_URL": "http://h:5000"}, "names no version"},
		"bad version":           {m{"OS_IDENTITY_API_VERSION": "4"}, "OS_IDENTITY_API_VERSION=4"},
		"another version":       {m{"OS_IDENTITY_API_VERSION": "3"}, "versions 1 and 3 differ"},
		"two versions":          {m{"OS_IDENTITY_API_VERSION": "1", "ST_AUTH_VERSION": "2"}, "both are set, and differ"},
		"two users":             {m{"ST_USER": "other"}, "settings OS_USERNAME and ST_USER: both are set, and differ"},
		"two projects":          {with(m{"OS_PROJECT_NAME": "a", "OS_TENANT_NAME": "b"}), "settings OS_PROJECT_NAME and OS_TENANT_NAME"},
		"not a URL":             {m{"OS_AUTH_URL": "host/v3"}, "want http"},
		"user in the URL":       {m{"OS_AUTH_URL": "http://u:p@h/v3"}, "want http"},
		"storage no URL":        {m{"OS_STORAGE_URL": "h"}, "setting OS_STORAGE_URL"},
		"token alone":           {m{"OS_AUTH_TOKEN": "t"}, "OS_STORAGE_URL is missing"},
		"bad place":             {m{"OS_ENDPOINT_TYPE": "secret"}, "OS_ENDPOINT_TYPE=secret"},
		"place of version 1":    {m{"OS_ENDPOINT_TYPE": "internal"}, "OS_ENDPOINT_TYPE: version 1"},
		"trust of version 1":    {m{"OS_TRUST_ID": "t"}, "OS_TRUST_ID: only version 3"},
		"credential version 1":  {m{"OS_APPLICATION_CREDENTIAL_ID": "t"}, "OS_APPLICATION_CREDENTIAL_ID: only version 3"},
		"no secret":             {with(m{"OS_APPLICATION_CREDENTIAL_ID": "t"}), "OS_APPLICATION_CREDENTIAL_SECRET is missing"},
		"whose credential":      {with(m{"OS_APPLICATION_CREDENTIAL_NAME": "t", "OS_APPLICATION_CREDENTIAL_SECRET": "s", "OS_USERNAME": ""}), "OS_USERNAME is missing"},
		"credential and trust":  {with(m{"OS_APPLICATION_CREDENTIAL_ID": "t", "OS_APPLICATION_CREDENTIAL_SECRET": "s", "OS_TRUST_ID": "x"}), "one excludes the other"},
		"a line in the passwd":  {m{"OS_PASSWORD": "the-secret\n"}, "OS_PASSWORD=..."},
		"a line in the version": {m{"OS_AUTH_TOKEN": "x\r", "OS_STORAGE_URL": "http://h/"}, "OS_AUTH_TOKEN=..."},
	} {
		f := fake{Server: &httptest.Server{URL: "http://127.0.0.1:1"}}
		_, err := newDriver(f.settings(c.settings))
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%s: %v, want status 64 and %q", name, err, c.say)
		}
	}
}
