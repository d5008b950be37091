package gcs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// TestWhatTheStorageSays is said by a fake in the words of Google's
// documentation, in JSON and, for reads, in XML.
func TestWhatTheStorageSays(t *testing.T) {
	var status int
	var body string
	var header http.Header
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("X-GUploader-UploadID", "ABC-1")
		for name := range header {
			w.Header().Set(name, header.Get(name))
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer fake.Close()
	json := func(reason, message string) string {
		return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"errors":[{"message":%[2]q,"domain":"global","reason":%q}]}}`, status, message, reason)
	}
	xml := func(code, message string) string {
		return "<?xml version='1.0' encoding='UTF-8'?><Error><Code>" + code + "</Code><Message>" + message + "</Message><Details>more</Details></Error>"
	}
	for _, c := range []struct {
		op              string
		status          int
		reason, message string
		want            string // the error
		is              error
		exit            int // its status
		hint            string
	}{
		{"read", 404, "NoSuchKey", "The specified key does not exist.", "NoSuchKey: The specified key does not exist (404, request ABC-1)", fs.ErrNotExist, 66, ""},
		{"read", 404, "NoSuchBucket", "The specified bucket does not exist.", "NoSuchBucket: The specified bucket does not exist (404, request ABC-1)", nil, 64, "WALG_GS_PREFIX"},
		{"read", 403, "AccessDenied", "Access denied.", "AccessDenied: Access denied (403, request ABC-1)", nil, 64, "GOOGLE_APPLICATION_CREDENTIALS"},
		{"read", 400, "ResourceIsEncryptedWithCustomerEncryptionKey", "The resource is encrypted with a customer encryption key.", "ResourceIsEncrypted", nil, 64, "GCS_ENCRYPTION_KEY"},
		{"read", 400, "CustomerEncryptionKeyIsIncorrect", "The provided encryption key is incorrect.", "CustomerEncryptionKeyIs", nil, 64, "GCS_ENCRYPTION_KEY"},
		{"read", 416, "InvalidRange", "The requested range cannot be satisfied.", "InvalidRange", driver.ErrRange, 1, ""},
		{"read", 503, "ServiceUnavailable", "Try again.", "ServiceUnavailable: Try again (503, request ABC-1)", nil, 1, ""},
		{"stat", 404, "notFound", "No such object: b/k", "notFound: No such object: b/k (404, request ABC-1)", fs.ErrNotExist, 66, ""},
		{"stat", 404, "notFound", "The specified bucket does not exist.", "notFound: The specified bucket does not exist (404", nil, 64, "WALG_GS_PREFIX"},
		{"stat", 404, "notFound", "Not Found", "notFound: Not Found (404", nil, 64, "WALG_GS_PREFIX"}, // the listing says so too
		{"stat", 401, "authError", "Invalid Credentials", "authError: Invalid Credentials (401, request ABC-1)", nil, 64, "GOOGLE_APPLICATION_CREDENTIALS"},
		{"stat", 403, "forbidden", "a@b does not have storage.objects.get access to b/k.\nMore", "forbidden: a@b does not have storage.objects.get access to b/k (403, request ABC-1)", nil, 64, "Storage Object User"},
		{"stat", 403, "rateLimitExceeded", "Slow down.", "rateLimitExceeded: Slow down (403", nil, 1, ""},
		{"stat", 429, "rateLimitExceeded", "Slow down.", "rateLimitExceeded: Slow down (429", nil, 1, ""},
		{"stat", 500, "internalError", "Sorry.", "internalError: Sorry (500", nil, 1, ""},
		{"stat", 400, "customerEncryptionKeyIsIncorrect", "Wrong.", "customerEncryptionKeyIsIncorrect: Wrong (400", nil, 64, "GCS_ENCRYPTION_KEY"},
		{"put", 404, "notFound", "The specified bucket does not exist.", "notFound", nil, 64, "WALG_GS_PREFIX"},
		{"put", 412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.", "conditionNotMet", fs.ErrExist, 73, ""},
		{"put", 400, "invalid", `Provided CRC32C "AAAAAA==" doesn't match calculated CRC32C "yZRlqg==".`, "invalid: Provided CRC32C", nil, 1, ""},
		{"put", 400, "invalid", "Invalid argument.", "invalid: Invalid argument (400", nil, 64, ""},
		{"put", 403, "retentionPolicyNotMet", "Object b/k is subject to bucket's retention policy.", "retentionPolicyNotMet", nil, 64, "retention policy"},
		{"put", 408, "requestTimeout", "Slow.", "requestTimeout", nil, 1, ""},
		{"list", 404, "notFound", "Not Found", "notFound", nil, 64, "WALG_GS_PREFIX"},
		{"list", 403, "forbidden", "No.", "forbidden: No (403", nil, 64, "Storage Object User"},
		{"delete", 404, "notFound", "No such object: b/k", "", nil, 0, ""},
		{"delete", 403, "objectUnderActiveHold", "Held.", "objectUnderActiveHold", nil, 64, "hold"},
	} {
		d, err := New(t.Context(), "b", settings(map[string]string{"STORAGE_EMULATOR_HOST": fake.URL}))
		if err != nil {
			t.Fatal(err)
		}
		status, header = c.status, http.Header{"Retry-After": {"7"}}
		body = json(c.reason, c.message)
		switch c.op {
		case "read":
			body = xml(c.reason, c.message)
			_, _, err = d.Read(t.Context(), "k", 0, 1, "")
		case "stat":
			_, err = d.Stat(t.Context(), "k")
		case "put":
			err = d.Whole(t.Context(), "k", []byte("x"), driver.Options{IfAbsent: true})
		case "list":
			_, _, err = d.Page(t.Context(), "", "")
		case "delete":
			err = d.Delete(t.Context(), []string{"k"})
		}
		if c.want == "" {
			if err != nil {
				t.Errorf("%s %d: %v", c.op, c.status, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(c.want, ".")) && !strings.Contains(err.Error(), c.want) ||
			strings.ContainsAny(err.Error(), "\n?") || strings.Contains(err.Error(), "googleapi") {
			t.Errorf("%s %d %s: %v, want %q", c.op, c.status, c.reason, err, c.want)
		}
		if c.is != nil && !errors.Is(err, c.is) || c.is == nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
			t.Errorf("%s %d %s: %v is of another kind", c.op, c.status, c.reason, err)
		}
		if fault.Status(err) != c.exit || !strings.Contains(fault.Hint(err), c.hint) || c.hint == "" && fault.Hint(err) != "" {
			t.Errorf("%s %d %s: status %d, hint %q", c.op, c.status, c.reason, fault.Status(err), fault.Hint(err))
		}
		var later *driver.Later
		if waits := c.exit == 1 && c.is == nil && c.status != 400; errors.As(err, &later) != waits || waits && later.After != 7*time.Second {
			t.Errorf("%s %d %s: %+v", c.op, c.status, c.reason, later)
		}
	}
}

// TestAnUnclearAbsenceIsAskedFor: of what emulators say.
func TestAnUnclearAbsenceIsAskedFor(t *testing.T) {
	listing := 0
	allowed := true
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.URL.Path, "/o"):
			http.Error(w, "nothing here", http.StatusNotFound)
		case allowed:
			listing++
			io.WriteString(w, `{"items":[]}`)
		default:
			refuse(w, http.StatusForbidden, "forbidden", "no")
		}
	}))
	defer fake.Close()
	d, err := New(t.Context(), "b", settings(map[string]string{"STORAGE_EMULATOR_HOST": fake.URL}))
	if err != nil {
		t.Fatal(err)
	}
	allowed = false
	if _, err := d.Stat(t.Context(), "k"); errors.Is(err, fs.ErrNotExist) || fault.Status(err) != fault.Usage {
		t.Errorf("where the listing is refused: %v", err)
	}
	allowed = true
	for range 2 {
		if _, err := d.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) || err.Error() != "Not Found (404)" {
			t.Error(err)
		}
		if _, _, err := d.Read(t.Context(), "k", 0, 1, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if listing != 1 {
		t.Errorf("the listing was asked %d times, want once", listing)
	}
}

// TestAServerThatIsNoGoogle answers 200 to all.
func TestAServerThatIsNoGoogle(t *testing.T) {
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "welcome") }))
	defer fake.Close()
	d, err := New(t.Context(), "b", settings(map[string]string{"STORAGE_EMULATOR_HOST": fake.URL}))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Read(t.Context(), "k", 0, 1, ""); fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "STORAGE_EMULATOR_HOST") {
		t.Errorf("Read: %v, hint %q", err, fault.Hint(err))
	}
	_, statErr := d.Stat(t.Context(), "k")
	_, _, pageErr := d.Page(t.Context(), "", "")
	for op, err := range map[string]error{"Stat": statErr, "Page": pageErr, "Whole": d.Whole(t.Context(), "k", nil, driver.Options{})} {
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", op, err)
		}
	}
}
