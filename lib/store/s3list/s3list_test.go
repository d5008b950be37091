package s3list

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/s3"
	"walg/lib/store/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const walSize = 5_000_000

var walTime = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func wal(n int) Synthetic {
	return Synthetic{Count: n, Size: walSize, ModTime: walTime, Key: func(i int) string {
		return fmt.Sprintf("wal_005/%08X%08X%08X.lz4", 1, i/256, i%256)
	}}
}

func open(t *testing.T, env map[string]string, root string) *remote.Store {
	t.Helper()
	d, err := s3.New(t.Context(), Bucket, &driver.Settings{Get: func(name string) string { return env[name] }})
	if err != nil {
		t.Fatal(err)
	}
	return remote.New(d, root, remote.Policy{Tries: 1})
}

func keys(t *testing.T, s store.Store, prefix string) (all []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return all
}

func TestOurDriverListsAndDeletesSyntheticObjects(t *testing.T) {
	t.Parallel()
	const count = 100_000
	w := wal(count)
	f := New(t, w)
	s := open(t, f.Env(), "")
	first, last := "basebackups_005/base_1_backup_stop_sentinel.json", "wal_005/history"
	between := w.Key(5000) + ".more" // between two synthetic ones
	for _, key := range []string{last, first, between} {
		f.Put(key, []byte(key))
	}
	i, small := 0, 0
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains([]string{first, between, last}, info.Key) {
			if want := []int{0, 5001, count}[small]; i != want || info.Size != int64(len(info.Key)) || time.Since(info.ModTime) > time.Hour {
				t.Errorf("after %d synthetic keys %+v", i, info)
			}
			small++
			continue
		}
		if info.Key != w.Key(i) || info.Size != walSize || !info.ModTime.Equal(walTime) {
			t.Fatalf("object %d is %+v", i, info)
		}
		i++
	}
	if i != count || small != 3 || f.Len() != count+3 || f.Count("ListObjectsV2") != 101 {
		t.Errorf("%d and %d of %d objects, by %d pages", i, small, f.Len(), f.Count("ListObjectsV2"))
	}

	gone := []string{first, "absent", between}
	for i := 0; i < count; i += 40 {
		gone = append(gone, w.Key(i))
	}
	if err := s.Delete(t.Context(), gone...); err != nil {
		t.Fatal(err)
	}
	if n := f.Count("DeleteObjects"); n != 3 {
		t.Errorf("deleted by %d requests", n)
	}
	left := keys(t, s, "")
	if len(left) != count-count/40+1 || len(left) != f.Len() || left[0] != w.Key(1) || !slices.IsSorted(left) ||
		slices.ContainsFunc(gone, func(key string) bool { _, there := slices.BinarySearch(left, key); return there || f.Has(key) }) {
		t.Errorf("%d of %d objects are left, from %s on", len(left), f.Len(), left[0])
	}
	// Prefixes of keys, a page that is just full, and one that is empty.
	for prefix, want := range map[string]int{
		"wal_005/0000000100000002000000": 256 - 256/40 - 1, "wal_005/00000001000000020000003": 16 - 1, "wal_005/h": 1, "wal_006": 0, "": count - count/40 + 1,
	} {
		if got := keys(t, s, prefix); len(got) != want || len(got) > 0 && !strings.HasPrefix(got[0], prefix) {
			t.Errorf("%d objects below %q, want %d", len(got), prefix, want)
		}
	}
}

func TestSyntheticObjectsCanBeReadAndReplaced(t *testing.T) {
	t.Parallel()
	w := wal(2000)
	w.Size = 1000
	f := New(t, w)
	s := open(t, f.Env(), "wal_005/")
	key := strings.TrimPrefix(w.Key(1234), "wal_005/")
	get := func(offset int64) string {
		t.Helper()
		r, info, err := s.Get(t.Context(), key, offset)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil || info.Size != offset+int64(len(data)) {
			t.Errorf("%d bytes of %d from %d on, %v", len(data), info.Size, offset, err)
		}
		return string(data)
	}
	want := strings.Repeat(w.Key(1234)+"\n", 100)[:1000]
	for _, offset := range []int64{0, 1, 40, 999, 1000} {
		if got := get(offset); got != want[offset:] {
			t.Errorf("from %d on: %q", offset, got)
		}
	}
	if info, err := s.Stat(t.Context(), key); err != nil || info.Size != 1000 || !info.ModTime.Equal(walTime) {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	put := func(text string, o store.PutOptions) error {
		return s.Put(t.Context(), key, strings.NewReader(text), o)
	}
	if err := put("new", store.PutOptions{IfAbsent: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Put = %v, want fs.ErrExist", err)
	}
	if err := put("new", store.PutOptions{Meta: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if info, err := s.Stat(t.Context(), key); err != nil || info.Meta["a"] != "b" || get(0) != "new" {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if all := keys(t, s, ""); len(all) != 2000 || all[1234] != key || f.Len() != 2000 {
		t.Errorf("%d objects, %s", len(all), all[1234])
	}
	for range 2 {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) || f.Has(w.Key(1234)) || !f.Has(w.Key(1235)) {
		t.Errorf("Stat = %v", err)
	}
	if err := put("", store.PutOptions{IfAbsent: true}); err != nil || get(0) != "" {
		t.Errorf("Put = %v", err)
	}
	for _, err := range store.FindLeftovers(t.Context(), s, "") {
		t.Errorf("a leftover, %v", err)
	}
	if f.Count("GetObject") == 0 || f.Count("HeadObject") == 0 || f.Count("PutObject") != 2 || f.Count("NotImplemented") != 0 {
		t.Errorf("requests %v", f.counts)
	}
	// One request of the plain kind.
	req, err := http.NewRequest(http.MethodDelete, f.Env()["AWS_ENDPOINT"]+"/"+Bucket+"/"+w.Key(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusNoContent || f.Has(w.Key(0)) || f.Count("DeleteObject") != 1 {
		t.Errorf("DELETE = %v, %v", resp, err)
	}
	resp.Body.Close()
}

// What it cannot do it does not pretend to.
func TestTheRestIsNotImplemented(t *testing.T) {
	t.Parallel()
	f := New(t, wal(10))
	env := f.Env()
	env["S3_ENABLE_VERSIONING"] = "enabled"
	if err := open(t, env, "").Delete(t.Context(), wal(10).Key(3)); err == nil || f.Len() != 10 {
		t.Errorf("Delete of all versions = %v, %d objects are left", err, f.Len())
	}
	env["S3_MAX_PART_SIZE"] = "5242880"
	if err := open(t, env, "").Put(t.Context(), "k", io.LimitReader(rand.Reader, 6<<20), store.PutOptions{}); err == nil || f.Len() != 10 {
		t.Errorf("Put of a large object = %v, %d objects are there", err, f.Len())
	}
	if f.Count("NotImplemented") == 0 {
		t.Error("it has refused nothing")
	}
	for target, status := range map[string]int{
		"/other?list-type=2": 404, "/walg?list-type=2&continuation-token=*": 400, "/walg?list-type=2&max-keys=x": 400, "/walg?list-type=2&delimiter=/": 501, "/walg": 501,
	} {
		w := httptest.NewRecorder()
		f.serve(w, httptest.NewRequest(http.MethodGet, target, nil))
		if w.Code != status {
			t.Errorf("%s: status %d, want %d", target, w.Code, status)
		}
	}
	w := httptest.NewRecorder()
	f.serve(w, httptest.NewRequest(http.MethodPost, "/walg?delete", strings.NewReader("<Delete><Object><Key>"+wal(10).Key(3)+"</Key></Object>")))
	if w.Code != http.StatusBadRequest || f.Len() != 10 {
		t.Errorf("a deletion that was cut: status %d", w.Code)
	}
}

// Keys of all shapes are listed as MinIO lists them, page by page.
func TestItListsAsMinIO(t *testing.T) {
	t.Parallel()
	root := strings.ToLower(rand.Text()) + "/"
	// MinIO lists nothing below a name that is an object.
	odd := []string{"a-b", "a/b", "a b", "a+b", "a%2Bb", "a&b<c>'d\"", "ab", "Grüße/日本語", "~x", "A", "_", "=eq", "a/b.d"}
	slices.Sort(odd)
	s := Synthetic{Count: len(odd), Key: func(i int) string { return root + odd[i] }, Size: 3, ModTime: walTime}
	f := New(t, s)
	fake, minio := open(t, f.Env(), root), open(t, servertest.Get(t, "minio").Env, root)
	for _, key := range slices.Concat(odd, []string{"a/a", "0", "é"}) {
		if err := minio.Put(t.Context(), key, strings.NewReader("abc"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"é", "a/a", "0"} {
		f.Put(root+key, []byte("abc"))
	}
	compare := func() {
		t.Helper()
		for _, prefix := range []string{"", "a", "a/", "a/b", "Gr", "z", "a&", "a "} {
			if got, want := keys(t, fake, prefix), keys(t, minio, prefix); !slices.Equal(got, want) {
				t.Errorf("below %q there are %q, MinIO has %q", prefix, got, want)
			}
		}
	}
	compare()
	for _, s := range []store.Store{fake, minio} {
		if err := s.Delete(t.Context(), "a&b<c>'d\"", "a+b", "Grüße/日本語", "0", "none"); err != nil {
			t.Fatal(err)
		}
	}
	compare()
	if n := len(keys(t, fake, "")); n != len(odd)+3-4 {
		t.Errorf("%d objects are left", n)
	}
	// Small pages, which our driver does not ask for.
	var pages []int
	for token := ""; ; {
		w := httptest.NewRecorder()
		f.serve(w, httptest.NewRequest(http.MethodGet, "/walg?list-type=2&max-keys=6&continuation-token="+token, nil))
		body := w.Body.String()
		pages = append(pages, strings.Count(body, "<Contents>"))
		_, rest, more := strings.Cut(body, "<NextContinuationToken>")
		if !more {
			break
		}
		token, _, _ = strings.Cut(rest, "<")
	}
	if !slices.Equal(pages, []int{6, 6}) {
		t.Errorf("pages of %v", pages)
	}
}

func BenchmarkPage(b *testing.B) {
	f := New(b, wal(1_000_000))
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/walg?list-type=2&encoding-type=url&prefix=wal_005/000000010000080", nil)
	for b.Loop() {
		w.Body.Reset()
		f.serve(w, r)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/page")
}
