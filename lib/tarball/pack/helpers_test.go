package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/tarball/tartest"
)

var ctx = context.Background()

var (
	must       = tartest.Must
	put        = tartest.Put
	when       = tartest.When
	wantStatus = tartest.WantStatus
	snapshot   = tartest.Snapshot
	wantSame   = tartest.WantSame
	ordinary   = tartest.Ordinary
	mkfifo     = tartest.Mkfifo
)

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
