package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
)

var ctx = context.Background()

// when is a time in the past with a fraction of a second.
var when = time.Unix(1_600_000_000, 123456789)

// put makes a file with its directories; a name with "/" at its end a directory.
func put(t testing.TB, root, name string, content []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if strings.HasSuffix(name, "/") {
		must(t, os.MkdirAll(path, 0o755))
		return
	}
	must(t, os.WriteFile(path, content, 0o600))
	must(t, os.Chtimes(path, when, when))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantStatus(t testing.TB, err error, status int, parts ...string) {
	t.Helper()
	if fault.Status(err) != status {
		t.Fatalf("error %v: status %d, want %d", err, fault.Status(err), status)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("error %q does not mention %q", err, p)
		}
	}
}

// warnings collects what a Source warns of.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) warn(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf(format, args...))
}

func (w *warnings) mentions(parts ...string) bool {
	return slices.ContainsFunc(w.all, func(s string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
	})
}

// archive returns the whole archive of a tree.
func archive(t testing.TB, src Source) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	_, err := w.Tree(ctx, src)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// memberNames lists an archive by means of archive/tar alone.
func memberNames(t testing.TB, b []byte) []string {
	t.Helper()
	var names []string
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return names
		}
		must(t, err)
		names = append(names, h.Name)
	}
}

// tarOf builds an archive from headers; the content is x as often as Size says.
func tarOf(t testing.TB, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		if h.Mode == 0 {
			h.Mode = 0o700
		}
		must(t, w.WriteHeader(&h))
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func regular(name string, size int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, ModTime: when}
}

func folder(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, ModTime: when}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, ModTime: when}
}

// snapshot describes everything below dir, itself too, with times in seconds.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := os.Lstat(path)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %d", i.Mode(), i.ModTime().Unix())
		if os.Geteuid() == 0 {
			line += ownerOf(i)
		}
		switch {
		case i.Mode().IsRegular():
			p, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(p), sha256.Sum256(p))
		case i.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = "link to " + target // a link's mode and time differ between systems
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = line
		return err
	}))
	return all
}

func wantSame(t testing.TB, got, want map[string]string) {
	t.Helper()
	for p, line := range want {
		if got[p] != line {
			t.Errorf("%s: %q, want %q", p, got[p], line)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: not wanted", p)
		}
	}
}

// sampleTree has one of each thing that a tree can hold, names and sizes at the
// edges of the format and of our buffers.
func sampleTree(t testing.TB) string {
	root := filepath.Join(t.TempDir(), "tree")
	for _, size := range []int{0, 1, 511, 512, 513, smallFile - 1, smallFile, smallFile + 1, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 7} {
		put(t, root, fmt.Sprintf("sizes/%d", size), bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size])
	}
	for n := range 300 {
		put(t, root, fmt.Sprintf("many/%03d/f", n), []byte(fmt.Sprint(n)))
		put(t, root, fmt.Sprintf("more/%03d", n), bytes.Repeat([]byte{byte(n)}, n*40))
	}
	for _, name := range []string{"a", "a-b", "a.c", "a0", "dir/x", "dir-b/y", "dir.c", "dir0", "empty/", "späß/日本", "back\\slash", "new\nline", "bad\xff",
		"a b", "-dash", ".hidden", "..twodots", "...", strings.Repeat("n", 255), strings.Repeat("p", 99) + "/" + strings.Repeat("q", 200) + "/" + strings.Repeat("r", 255) + "/leaf"} {
		put(t, root, name, []byte(name))
	}
	must(t, os.Symlink("a", filepath.Join(root, "link")))
	must(t, os.Symlink("../a", filepath.Join(root, "dir/up")))
	must(t, os.Symlink(strings.Repeat("t", 200), filepath.Join(root, "dangling")))
	must(t, os.Link(filepath.Join(root, "a"), filepath.Join(root, "hard")))
	must(t, os.Chmod(filepath.Join(root, "a0"), 0o4755))
	must(t, os.Chmod(filepath.Join(root, "dir0"), 0o440))
	must(t, os.Chmod(filepath.Join(root, "dir"), 0o550))
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "dir"), 0o755) })
	old := time.Unix(-1000, 0)
	must(t, os.Chtimes(filepath.Join(root, "dir.c"), old, old))
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chtimes(path, when, when)
		}
		return err
	}))
	return root
}

// ordinary reports whether the test runs as an ordinary user. To root, whom no
// mode stops, it gives the verdict of the same test run by another user.
func ordinary(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
	cmd.Dir = "/"
	otherUser(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	return false
}
