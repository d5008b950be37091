//go:build unix

package file_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/file"
)

func open(t *testing.T) (*file.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func put(t *testing.T, s store.Store, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.Put(t.Context(), key, strings.NewReader("content of "+key), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// tree returns the names below dir, directories with a slash.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			name, _ := filepath.Rel(dir, path)
			if e.IsDir() {
				name += "/"
			}
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func wantTree(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Fatalf("the store holds %q, want %q", got, want)
	}
}

func list(t *testing.T, s store.Store, prefix string) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// wantError checks status, words and, where hint is set, the hint of err.
func wantError(t *testing.T, err error, status int, words, hint string) {
	t.Helper()
	if fault.Status(err) != status || !strings.Contains(err.Error(), words) || !strings.Contains(fault.Hint(err), hint) {
		t.Errorf("error %v (status %d, hint %q), want status %d, %q and hint %q", err, fault.Status(err), fault.Hint(err), status, words, hint)
	}
}

func TestPrefixForms(t *testing.T) {
	dir := t.TempDir()
	put(t, must(file.New(dir)), "k")
	for _, prefix := range []string{dir, dir + "/", dir + "//", "file://" + dir, "file://localhost" + dir, "file://" + dir + "/"} {
		s, err := file.New(prefix)
		if err != nil {
			t.Errorf("New(%q): %v", prefix, err)
			continue
		}
		if got, want := s.URL("k"), "file://"+dir+"/k"; got != want {
			t.Errorf("New(%q): URL %q, want %q", prefix, got, want)
		}
		if _, err := s.Stat(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	}
	t.Chdir(dir)
	if _, err := must(file.New(".")).Stat(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

func must(s *file.Store, err error) *file.Store {
	if err != nil {
		panic(err)
	}
	return s
}

func TestBadPrefixIsRefused(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for prefix, words := range map[string]string{
		"":                           "no path",
		"file://":                    "want file:///path",
		"file://otherhost" + dir:     "want file:///path",
		"file://localhost":           "want file:///path",
		plain:                        "not a directory",
		dir + "/missing":             "no such directory",
		"file://" + dir + "/mis/ing": "no such directory",
	} {
		_, err := file.New(prefix)
		wantError(t, err, fault.Usage, words, "")
	}
	_, err := file.New(dir + "/missing")
	wantError(t, err, fault.Usage, "store file://"+dir+"/missing", "is the disk mounted? WALG_FILE_PREFIX")
	wantTree(t, dir, "plain")
}

func TestVanishedPrefixIsNoEmptyStore(t *testing.T) {
	s, dir := open(t)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, _, getErr := s.Get(ctx, "k", 0)
	_, statErr := s.Stat(ctx, "k")
	var listErr error
	for _, err := range s.List(ctx, "some/") {
		listErr = err
	}
	for op, err := range map[string]error{
		"put": s.Put(ctx, "d/k", strings.NewReader("x"), store.PutOptions{}), "get": getErr, "stat": statErr, "list": listErr,
		"delete": s.Delete(ctx, "k"), "sync": s.Sync(ctx, "k"),
	} {
		wantError(t, err, fault.Usage, op, "is the disk mounted?")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the prefix was made: %v", err)
	}
}

func TestModesAndTemporaryNames(t *testing.T) {
	for umask, want := range map[int][2]fs.FileMode{0o022: {0o755, 0o644}, 0o077: {0o700, 0o600}, 0: {0o755, 0o644}} {
		s, dir := open(t)
		old := syscall.Umask(umask)
		var inFlight []string
		look := readFunc(func([]byte) (int, error) { inFlight = tree(t, dir); return 0, io.EOF })
		err := s.Put(t.Context(), "wal_005/segment.lz4", io.MultiReader(strings.NewReader("x"), look), store.PutOptions{})
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"wal_005", "wal_005/segment.lz4"} {
			if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != want[i] {
				t.Errorf("umask %o: %s has %v, %v; want %v", umask, name, fi.Mode(), err, want[i])
			}
		}
		if !regexp.MustCompile(`^wal_005/segment\.lz4\.tmp\.\d{8}T\d{6}Z-[0-9a-f]{16}$`).MatchString(inFlight[len(inFlight)-1]) {
			t.Errorf("in flight: %q", inFlight)
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestFailedPutRemovesWhatItMade(t *testing.T) {
	s, dir := open(t)
	if err := os.Mkdir(filepath.Join(dir, "kept"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a/b/c/k", "kept/d/k", "kept/k", "k"} {
		if err := s.Put(t.Context(), key, iotest.ErrReader(errors.New("no")), store.PutOptions{}); err == nil {
			t.Error("Put succeeded")
		}
	}
	wantTree(t, dir, "kept/")
}

func TestShortFileIsNoEnd(t *testing.T) {
	for _, cut := range []int64{0, 1, 99} {
		s, dir := open(t)
		put(t, s, strings.Repeat("k", 100))
		r, info, err := s.Get(t.Context(), strings.Repeat("k", 100), 5)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, info.Key), cut); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, r)
		wantError(t, err, fault.Data, "the file ends", "")
		r.Close()
	}
}

func TestGrownFileEndsWhereItDid(t *testing.T) {
	s, dir := open(t)
	put(t, s, "k")
	r, info, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := os.OpenFile(filepath.Join(dir, "k"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(r); err != nil || int64(len(p)) != info.Size {
		t.Errorf("read %d bytes, %v; want %d", len(p), err, info.Size)
	}
}

func TestDeleteRemovesEmptyParents(t *testing.T) {
	s, dir := open(t)
	put(t, s, "a/b/c/k", "a/b/l", "m")
	for _, step := range []struct {
		key  string
		want []string
	}{
		{"a/b/c/k", []string{"a/", "a/b/", "a/b/l", "m"}},
		{"a/b/l", []string{"m"}},
		{"m", nil},
	} {
		if err := s.Delete(t.Context(), step.key); err != nil {
			t.Fatal(err)
		}
		wantTree(t, dir, step.want...)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("the prefix is gone too")
	}
}

func TestDeleteKeepsALinkedDirectory(t *testing.T) {
	s, dir := open(t)
	other := t.TempDir()
	if err := os.Symlink(other, filepath.Join(dir, "wal_005")); err != nil {
		t.Fatal(err)
	}
	put(t, s, "wal_005/k")
	wantTree(t, other, "k")
	if got := list(t, s, ""); !slices.Equal(got, []string{"wal_005/k"}) {
		t.Errorf("List = %q", got)
	}
	if err := s.Delete(t.Context(), "wal_005/k"); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, "wal_005")
}

func TestWhatIsNoObject(t *testing.T) {
	s, dir := open(t)
	put(t, s, "d/k")
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Symlink("nowhere", path("dangling")),
		os.Symlink("d/k", path("link")),
		syscall.Mkfifo(path("fifo"), 0o600),
		os.WriteFile(path("bad\nname"), nil, 0o600),
		os.Mkdir(path("empty"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"d/k", "link"}) {
		t.Errorf("List = %q", got)
	}
	_, _, err := s.Get(t.Context(), "fifo", 0) // and does not wait for a writer
	wantError(t, err, fault.Failed, "not a regular file", "")
	_, _, err = s.Get(t.Context(), "dangling", 0)
	wantError(t, err, fault.Absent, "no such object", "")
	if err := s.Delete(t.Context(), "empty", "d"); err != nil {
		t.Error(err)
	}
	if got := tree(t, dir); !slices.Contains(got, "empty/") || !slices.Contains(got, "d/k") {
		t.Errorf("Delete removed a directory: %q", got)
	}
}

func TestLinkLoopEndsTheList(t *testing.T) {
	s, dir := open(t)
	put(t, s, "a", "d/k")
	if err := os.Symlink("..", filepath.Join(dir, "d", "loop")); err != nil {
		t.Fatal(err)
	}
	var last error
	n := 0
	for _, err := range s.List(t.Context(), "") {
		if last = err; n > 10 {
			break
		}
		n++
	}
	wantError(t, last, fault.Failed, "leads back to", "")
}

func TestKeyBelowAnObjectIsRefused(t *testing.T) {
	s, dir := open(t)
	put(t, s, "d/k")
	o := store.PutOptions{}
	wantError(t, s.Put(t.Context(), "d/k/l", strings.NewReader("x"), o), fault.Usage, "one of its directories", "")
	wantError(t, s.Put(t.Context(), "d/k/l/m", strings.NewReader("x"), o), fault.Usage, "one of its directories", "")
	wantError(t, s.Put(t.Context(), "d", strings.NewReader("x"), o), fault.Usage, "a directory of objects", "")
	wantTree(t, dir, "d/", "d/k")
}

func TestLongNameIsRefused(t *testing.T) {
	s, _ := open(t)
	put(t, s, strings.Repeat("n", 217))
	err := s.Put(t.Context(), strings.Repeat("n", 218), strings.NewReader("x"), store.PutOptions{})
	wantError(t, err, fault.Usage, "name too long", "217 bytes")
}

func TestLeftoversAreShownAndNotListed(t *testing.T) {
	s, dir := open(t)
	put(t, s, "d/k")
	for _, name := range []string{
		"d/z.tmp.20261122T164420Z-0123456789abcdef", "d/k.tmp.20250101T000000Z-0123456789abcdef",
		"k.tmp.20261399T000000Z-fedcba9876543210", "no.tmp.20261122T164420Z-0123",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"d/k", "no.tmp.20261122T164420Z-0123"}) {
		t.Errorf("List = %q", got)
	}
	leftovers := func(s store.Store, prefix string) (got []string) {
		for l, err := range store.FindLeftovers(t.Context(), s, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if l.Size != 4 || l.ModTime.IsZero() || !strings.HasPrefix(l.Name, l.Key+".tmp.") {
				t.Errorf("leftover %+v", l)
			}
			got = append(got, l.Key+" "+l.Started.Format("2006-01-02"))
		}
		return got
	}
	if got := leftovers(s, ""); !slices.Equal(got, []string{"d/k 2025-01-01", "d/z 2026-11-22", "k 0001-01-01"}) {
		t.Errorf("Leftovers = %q", got)
	}
	p, err := store.Prefix(s, "d")
	if err != nil {
		t.Fatal(err)
	}
	if got := leftovers(store.Rate(p, 1), "z"); !slices.Equal(got, []string{"z 2026-11-22"}) {
		t.Errorf("Leftovers = %q", got)
	}
}

func TestOnlyTemporaryFilesAreDiscarded(t *testing.T) {
	s, dir := open(t)
	const tail = ".tmp.20261122T164420Z-0123456789abcdef"
	put(t, s, "d/k", "no.tmp.20261122T164420Z-0123")
	for _, name := range []string{"d/k" + tail, "deep/er/x" + tail} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"+tail), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range []store.Leftover{
		{Name: "d/k", Key: "d/k"}, {Name: "no.tmp.20261122T164420Z-0123", Key: "no"}, {Name: "d/k" + tail, Key: "d/other"}, {Name: "d/k" + tail, Key: "d"},
		{Name: "../" + filepath.Base(dir) + "/d/k" + tail, Key: "../" + filepath.Base(dir) + "/d/k"}, {Name: "dir" + tail + "/k", Key: "dir/k"}, {}, {Name: "/d/k" + tail, Key: "/d/k"},
	} {
		if err := s.Discard(t.Context(), l); fault.Status(err) != fault.Usage {
			t.Errorf("Discard(%+v) = %v, want status 64", l, err)
		}
	}
	// The name alone does not make a directory a leftover.
	if err := s.Discard(t.Context(), store.Leftover{Name: "dir" + tail, Key: "dir"}); err != nil {
		t.Errorf("Discard of an absent one = %v", err)
	}
	wantTree(t, dir, "d/", "d/k", "d/k"+tail, "deep/", "deep/er/", "deep/er/x"+tail, "dir"+tail+"/", "no.tmp.20261122T164420Z-0123")
	n := 0
	for l, err := range store.FindLeftovers(t.Context(), s, "") {
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := store.Discard(t.Context(), s, l); err != nil {
				t.Errorf("Discard(%+v) = %v", l, err)
			}
		}
		n++
	}
	wantTree(t, dir, "d/", "d/k", "dir"+tail+"/", "no.tmp.20261122T164420Z-0123")
	if n != 2 {
		t.Errorf("%d leftovers were listed", n)
	}
	gone := must(file.New(t.TempDir()))
	if err := os.Remove(strings.TrimPrefix(gone.URL(""), file.Scheme)); err != nil {
		t.Fatal(err)
	}
	wantError(t, gone.Discard(t.Context(), store.Leftover{Name: "k" + tail, Key: "k"}), fault.Usage, "no such directory", "mounted")
	err := gone.Delete(t.Context(), "k", "l")
	wantError(t, err, fault.Usage, "no such directory (and 1 more of 2 objects)", "mounted")
}
