package azure_test

import (
	"context"
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
	"walg/lib/store/azure"
	"walg/lib/store/driver"
)

// fake returns a place on a server that speaks as handler does. It is not
// Azure's; its account is "acc".
func fake(t *testing.T, handler http.HandlerFunc) place {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return place{map[string]string{
		"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_ACCESS_KEY": "c2VjcmV0", "AZURE_ENDPOINT": server.URL + "/acc",
	}, "walg", ""}
}

// operations are all that a driver can do.
func operations(t *testing.T, d *azure.Driver) map[string]func(context.Context) error {
	t.Helper()
	up, err := d.Begin(t.Context(), "k", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	absent, err := d.Begin(t.Context(), "k", driver.Options{IfAbsent: true})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(context.Context) error{
		"whole": func(ctx context.Context) error { return d.Whole(ctx, "k", []byte("data"), driver.Options{}) },
		"create": func(ctx context.Context) error {
			return d.Whole(ctx, "k", []byte("data"), driver.Options{IfAbsent: true})
		},
		"part":   func(ctx context.Context) error { return up.Part(ctx, 1, 0, []byte("data")) },
		"commit": func(ctx context.Context) error { return up.Commit(ctx, 1, driver.Sum{Size: 4}) },
		"commit absent": func(ctx context.Context) error {
			return absent.Commit(ctx, 1, driver.Sum{Size: 4})
		},
		"read": func(ctx context.Context) error {
			r, _, err := d.Read(ctx, "k", 0, 10, "")
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			return err
		},
		"read again": func(ctx context.Context) error {
			r, _, err := d.Read(ctx, "k", 5, 5, `"tag"`)
			if err == nil {
				r.Close()
			}
			return err
		},
		"stat":   func(ctx context.Context) error { _, err := d.Stat(ctx, "k"); return err },
		"page":   func(ctx context.Context) error { _, _, err := d.Page(ctx, "", ""); return err },
		"delete": func(ctx context.Context) error { return d.Delete(ctx, []string{"k"}) },
		"unfinished": func(ctx context.Context) error {
			for _, err := range d.Unfinished(ctx, "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// says is a handler that answers as Azure does when it refuses.
func says(status int, code, message, more string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("x-ms-error-code", code)
		w.Header().Set("x-ms-request-id", "17A0")
		w.Header().Set("Content-Type", "application/xml")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code><Message>%s\nRequestId:17A0\nTime:2026-11-24T17:00:00Z</Message>%s</Error>",
			code, message, more)
	}
}

func TestRefusalsAreJudged(t *testing.T) {
	const usage, failed = fault.Usage, fault.Failed
	for _, test := range []struct {
		op           string
		answer       http.HandlerFunc
		is           error // or nil
		status       int
		words, hints string
	}{
		{"stat", says(404, "BlobNotFound", "", ""), fs.ErrNotExist, fault.Absent, "BlobNotFound (404, request 17A0)", ""},
		{"read", says(404, "BlobNotFound", "The specified blob does not exist.", ""), fs.ErrNotExist, fault.Absent,
			"BlobNotFound: The specified blob does not exist (404, request 17A0)", ""},
		{"delete", says(404, "BlobNotFound", "gone", ""), nil, fault.OK, "", ""},
		{"stat", says(404, "ContainerNotFound", "", ""), nil, usage, "ContainerNotFound (404", "WALG_AZ_PREFIX"},
		{"delete", says(404, "ContainerNotFound", "none", ""), nil, usage, "ContainerNotFound: none", "WALG_AZ_PREFIX"},
		{"page", says(404, "ContainerNotFound", "none", ""), nil, usage, "ContainerNotFound: none", "WALG_AZ_PREFIX"},
		{"create", says(404, "ContainerNotFound", "none", ""), nil, usage, "ContainerNotFound: none", "WALG_AZ_PREFIX"},
		{"page", says(409, "ContainerBeingDeleted", "soon", ""), nil, usage, "ContainerBeingDeleted", "WALG_AZ_PREFIX"},
		{"page", says(404, "ResourceNotFound", "none", ""), nil, usage, "ResourceNotFound", "AZURE_STORAGE_ACCOUNT"},
		{"create", says(409, "BlobAlreadyExists", "there", ""), fs.ErrExist, fault.Exists, "BlobAlreadyExists: there (409", ""},
		{"create", says(412, "ConditionNotMet", "no", ""), fs.ErrExist, fault.Exists, "ConditionNotMet", ""},
		{"create", says(409, "BlobImmutableDueToPolicy", "no", ""), fs.ErrExist, fault.Exists, "BlobImmutableDueToPolicy", ""},
		{"commit absent", says(409, "BlobAlreadyExists", "there", ""), fs.ErrExist, fault.Exists, "BlobAlreadyExists", ""},
		{"whole", says(409, "BlobImmutableDueToPolicy", "no", ""), nil, usage, "BlobImmutableDueToPolicy", "protects"},
		{"delete", says(409, "SnapshotsPresent", "no", ""), nil, usage, "SnapshotsPresent", "snapshot"},
		{"whole", says(412, "LeaseIdMissing", "There is currently a lease on the blob", ""), nil, usage, "LeaseIdMissing", "lease"},
		{"create", says(412, "LeaseIdMissing", "There is currently a lease on the blob", ""), nil, usage, "LeaseIdMissing", "lease"},
		{"commit", says(400, "InvalidBlockList", "gone", ""), nil, failed, "another writer of this object was faster", ""},
		{"part", says(400, "InvalidBlobOrBlock", "bad", ""), nil, usage, "InvalidBlobOrBlock", "after a week"},
		{"part", says(409, "BlockCountExceedsLimit", "bad", ""), nil, usage, "BlockCountExceedsLimit", "after a week"},
		{"part", says(400, "Md5Mismatch", "bad", ""), nil, failed, "Md5Mismatch", ""},
		{"whole", says(400, "Crc64Mismatch", "bad", ""), nil, failed, "Crc64Mismatch", ""},
		{"read again", says(412, "ConditionNotMet", "no", ""), driver.ErrChanged, failed, "replaced", ""},
		{"read", says(416, "InvalidRange", "no", ""), driver.ErrRange, failed, "InvalidRange", ""},
		{"read", says(409, "BlobArchived", "no", ""), nil, usage, "BlobArchived", "archive tier"},
		{"read", says(403, "AuthenticationFailed", "Server failed to authenticate the request.",
			"<AuthenticationErrorDetail>The MAC signature found in the HTTP request 'c2lnbmF0dXJl' is not the same</AuthenticationErrorDetail>"),
			nil, usage, "AuthenticationFailed: Server failed to authenticate the request (403, request 17A0)", "AZURE_STORAGE_ACCESS_KEY"},
		{"page", says(403, "AuthenticationFailed", "Server failed to authenticate the request.",
			"<AuthenticationErrorDetail>Request date header too old: 'Tue, 24 Nov 2026 15:00:00 GMT'</AuthenticationErrorDetail>"),
			nil, usage, "AuthenticationFailed", "clock"},
		{"page", says(403, "AuthenticationFailed", "Server failed to authenticate the request.",
			"<AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [a] - Expiry [b] - Current [c]</AuthenticationErrorDetail>"),
			nil, usage, "AuthenticationFailed", "AZURE_STORAGE_SAS_TOKEN has expired"},
		{"stat", says(403, "AuthorizationFailure", "", ""), nil, usage, "AuthorizationFailure (403", "AZURE_STORAGE_ACCESS_KEY"},
		{"whole", says(403, "AuthorizationPermissionMismatch", "no", ""), nil, usage, "AuthorizationPermissionMismatch", "AZURE_STORAGE_ACCESS_KEY"},
		{"page", says(403, "KeyBasedAuthenticationNotPermitted", "no", ""), nil, usage, "KeyBasedAuthentication", "AZURE_STORAGE_ACCESS_KEY"},
		{"page", says(403, "AccountIsDisabled", "no", ""), nil, usage, "AccountIsDisabled", "AZURE_STORAGE_ACCOUNT"},
		{"page", says(400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format.",
			"<HeaderName>x-ms-version</HeaderName><HeaderValue>2026-12-06</HeaderValue>"), nil, usage, "InvalidHeaderValue", "AZURE_BLOB_STORE_API_VERSION"},
		{"whole", says(409, "InvalidBlobType", "an append blob", ""), nil, usage, "InvalidBlobType", ""},
		{"whole", says(500, "InternalError", "sorry", ""), nil, failed, "InternalError: sorry (500", ""},
		{"part", says(500, "OperationTimedOut", "slow", ""), nil, failed, "OperationTimedOut", ""},
		{"page", says(503, "ServerBusy", "busy", "", "Retry-After", "7"), nil, failed, "ServerBusy: busy (503", ""},
		{"unfinished", says(503, "ServerBusy", "busy", "", "Retry-After", "7"), nil, failed, "ServerBusy", ""},
		// What no Azure says must not be taken for an absent object.
		{"stat", http.NotFound, nil, usage, "Not Found (404)", "AZURE_ENDPOINT"},
		{"read", http.NotFound, nil, usage, "Not Found (404)", "AZURE_ENDPOINT"},
		{"page", http.NotFound, nil, usage, "Not Found (404)", "AZURE_ENDPOINT"},
		{"delete", http.NotFound, nil, usage, "Not Found (404)", "AZURE_ENDPOINT"},
		{"page", http.RedirectHandler("https://elsewhere/", http.StatusTemporaryRedirect).ServeHTTP, nil, usage, "Temporary Redirect (307)", "AZURE_ENDPOINT"},
		{"page", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>Welcome!</html>") }, nil, usage, "no listing", "AZURE_ENDPOINT"},
		{"stat", func(w http.ResponseWriter, r *http.Request) {}, nil, usage, "no ETag", "AZURE_ENDPOINT"},
		{"read", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>Welcome!</html>") }, nil, usage, "no ETag", "AZURE_ENDPOINT"},
		{"page", says(400, "Odd", strings.Repeat("long ", 1000)+"\x7f", ""), nil, usage, "Odd: long long", ""},
	} {
		t.Run(test.op+" "+test.words, func(t *testing.T) {
			t.Parallel()
			err := operations(t, fake(t, test.answer).driver(t))[test.op](t.Context())
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v, want %v", err, test.is)
			}
			if test.is == nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
				t.Errorf("%v is the wrong kind", err)
			}
			if fault.Status(err) != test.status {
				t.Errorf("%v: status %d, want %d", err, fault.Status(err), test.status)
			}
			if !strings.Contains(fault.Hint(err), test.hints) || test.hints == "" && fault.Hint(err) != "" {
				t.Errorf("%v: hint %q, want %q", err, fault.Hint(err), test.hints)
			}
			if err == nil {
				return
			}
			text := err.Error()
			if !strings.Contains(text, test.words) || strings.ContainsAny(text, "\n\x7f") || len(text) > 500 ||
				strings.Contains(text, "c2lnbmF0dXJl") || strings.Contains(text, "http://") {
				t.Errorf("%q, want %q", text, test.words)
			}
			var later *driver.Later
			if strings.Contains(text, "ServerBusy") && (!errors.As(err, &later) || later.After != 7*time.Second) {
				t.Errorf("%v does not say when to try again", err)
			}
		})
	}
}

// TestNetworkTroubleNamesNoURL: it may have a SAS token in it.
func TestNetworkTroubleNamesNoURL(t *testing.T) {
	p := place{map[string]string{
		"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_SAS_TOKEN": "?sv=2021&sig=geheim", "AZURE_ENDPOINT": "http://127.0.0.1:1/acc",
	}, "walg", ""}
	for op, do := range operations(t, p.driver(t)) {
		err := do(t.Context())
		if fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, status %d", op, err, fault.Status(err))
		} else if text := err.Error(); strings.Contains(text, "geheim") || strings.Contains(text, "?") || strings.Contains(text, "\n") {
			t.Errorf("%s: %q", op, text)
		}
	}
}

func TestACutBodyIsAnError(t *testing.T) {
	p := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Range", "bytes 0-9/100")
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(206)
		io.WriteString(w, "half")
	})
	r, o, err := p.driver(t).Read(t.Context(), "k", 0, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) || o.Size != 100 {
		t.Errorf("%q, %v, size %d", got, err, o.Size)
	}
}

func TestAServerThatIgnoresRangesIsNotBelieved(t *testing.T) {
	p := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		io.WriteString(w, "all of it")
	})
	if _, _, err := p.driver(t).Read(t.Context(), "k", 3, 2, ""); err == nil || !strings.Contains(err.Error(), "Content-Range") {
		t.Errorf("%v", err)
	}
}

// TestADirectoryIsNoObject where the account has a hierarchical namespace.
func TestADirectoryIsNoObject(t *testing.T) {
	p := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("comp") == "list" {
			io.WriteString(w, `<EnumerationResults><Blobs>
<Blob><Name>d</Name><Properties><ResourceType>directory</ResourceType><Content-Length>0</Content-Length></Properties></Blob>
<Blob><Name>d/x</Name><Properties><ResourceType>file</ResourceType><Content-Length>5</Content-Length></Properties></Blob>
<Blob><Name>d-</Name><Properties><Content-Length>6</Content-Length></Properties></Blob>
</Blobs><NextMarker>m</NextMarker></EnumerationResults>`)
			return
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("x-ms-meta-hdi_isfolder", "true")
	})
	d := p.driver(t)
	if _, err := d.Stat(t.Context(), "d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
	if _, _, err := d.Read(t.Context(), "d", 0, 1, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read = %v", err)
	}
	page, next, err := d.Page(t.Context(), "", "")
	if err != nil || next != "m" || len(page) != 2 || page[0].Key != "d-" || page[0].Size != 6 || page[1].Key != "d/x" {
		t.Errorf("Page = %+v, %q, %v", page, next, err)
	}
}
