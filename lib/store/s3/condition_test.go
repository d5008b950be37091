package s3

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"walg/lib/store/driver"
)

// A server that does not know If-None-Match takes the put for an ordinary one.
// It is not sent where the object is there.
func TestIfAbsentLooksFirstWhereTheServerMayNot(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.driver(t, nil)
	f.answer("HEAD /walg/k", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"old"`) })
	err := d.Whole(t.Context(), "k", []byte("new"), driver.Options{IfAbsent: true})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("Whole = %v, want fs.ErrExist", err)
	}
	for _, r := range f.requests("") {
		if strings.HasPrefix(r.what, http.MethodPut) {
			t.Errorf("sent %s", r.what)
		}
	}
}
