package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
)

// answering starts a fake: a server that answers as the test says, and a driver that asks it.
func answering(t *testing.T, answer http.HandlerFunc, settings ...string) (*Driver, *remote.Store) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	env := map[string]string{
		"AWS_ENDPOINT": server.URL, "AWS_REGION": defaultRegion, "AWS_S3_FORCE_PATH_STYLE": "true",
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "S3_MAX_PART_SIZE": fmt.Sprint(smallPart),
	}
	for i := 0; i < len(settings); i += 2 {
		env[settings[i]] = settings[i+1]
	}
	d, err := newDriver(env)
	if err != nil {
		t.Fatal(err)
	}
	return d, remote.New(d, "", remote.Policy{Tries: 3, MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
}

func just(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func TestWhatIsNoListingIsNoEmptyArchive(t *testing.T) {
	for _, v1 := range []string{"false", "true"} {
		for _, said := range []string{"", "<html>please log in</html>", "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"} {
			d, _ := answering(t, just(said), "S3_USE_LIST_OBJECTS_V1", v1)
			if page, next, err := d.Page(t.Context(), "", ""); err == nil {
				t.Errorf("V1 %s, answered %q: Page = %v, %q and no error", v1, said, page, next)
			}
		}
	}
}

func TestAGatewaysPageIsNoAbsentObject(t *testing.T) {
	for _, before := range []bool{false, true} {
		d, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.Header().Set("ETag", `"x"`)
				return
			}
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "<html><body>no backend<br></body></html>")
		})
		if before {
			if err := d.Whole(t.Context(), "k", nil, driver.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := d.Read(t.Context(), "k", 0, 1, "")
		want := fault.Usage
		if before {
			want = fault.Failed // it may come back
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) || fault.Status(err) != want {
			t.Errorf("Read = %v, status %d, want %d", err, fault.Status(err), want)
		}
	}
}

func TestCredentialsThatCannotBeRenewedAreNoAbsentObject(t *testing.T) {
	t.Setenv("AWS_CA_BUNDLE", "")
	var asked atomic.Int32
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 2 {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "<ErrorResponse><Error><Code>Gone</Code><Message>no such role</Message></Error></ErrorResponse>")
			return
		}
		// Over at once, so that each request asks again.
		fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b</SecretAccessKey>`+
			`<SessionToken>c</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			time.Now().UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL) // the SDK reads it
	d, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"x"`) }, "AWS_ROLE_ARN", "arn:aws:iam::1:role/walg", "AWS_CONFIG_FILE", "/dev/null", "AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	if err := d.Whole(t.Context(), "k", nil, driver.Options{}); err != nil {
		t.Fatal(err)
	}
	_, _, err := d.Read(t.Context(), "k", 0, 1, "")
	if asked.Load() < 3 || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no credentials") {
		t.Errorf("asked %d times, Read = %v, status %d", asked.Load(), err, fault.Status(err))
	}
}

func TestUnfinishedUploadsAreSortedByName(t *testing.T) {
	_, s := answering(t, just("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>a</Key><UploadId>1</UploadId></Upload>"+
		"<Upload><Key>a-b</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>"))
	var names []string
	for l, err := range s.Leftovers(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "a-b?uploadId=2 a?uploadId=1" {
		t.Errorf("got %s", got)
	}
}

func TestMetadataOfTheUsersIsNeverTakenForOurChecksum(t *testing.T) {
	_, s := real(t, "minio", map[string]string{"S3_MAX_PART_SIZE": fmt.Sprint(smallPart)})
	for _, size := range []int{1, smallPart + 1} {
		meta := map[string]string{"walg-crc32c": "00000001"}
		if err := s.Put(t.Context(), "k", bytes.NewReader(make([]byte, size)), store.PutOptions{Meta: meta}); err != nil {
			t.Fatal(err)
		}
		r, info, err := s.Get(t.Context(), "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		if err != nil || n != int64(size) || info.Meta["walg-crc32c"] != "00000001" {
			t.Errorf("%d of %d bytes, %v, metadata %q", n, size, err, info.Meta)
		}
	}
}
