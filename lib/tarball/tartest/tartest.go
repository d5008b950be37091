// Package tartest helps to test what packs and unpacks archives.
package tartest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
)

// ErrDied is what a producer says that died.
var ErrDied = fault.New(fault.Unearned, "the producer died")

// Mixed is an archive with each kind of header block.
func Mixed(t testing.TB) []byte {
	return TarOf(t, Folder("./"), Regular("empty", 0), Regular("f", 700), Regular("g", 512), Symlink("l", "f"),
		tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "f"},
		tar.Header{Format: tar.FormatGNU, Name: strings.Repeat("long/", 30) + "f", Size: 5},
		tar.Header{Format: tar.FormatPAX, Name: strings.Repeat("pax/", 80) + "é", Size: 5, ModTime: When}, Regular("z", 1500))
}

// When is a time in the past with a fraction of a second.
var When = time.Unix(1_600_000_000, 123456789)

// Put makes a file with its directories; a name with "/" at its end a directory.
func Put(t testing.TB, root, name string, content []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if strings.HasSuffix(name, "/") {
		Must(t, os.MkdirAll(path, 0o755))
		return
	}
	Must(t, os.WriteFile(path, content, 0o600))
	Must(t, os.Chtimes(path, When, When))
}

func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func WantStatus(t testing.TB, err error, status int, parts ...string) {
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

// TarOf builds an archive from headers; the content is x as often as Size says.
func TarOf(t testing.TB, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		if h.Mode == 0 {
			h.Mode = 0o700
		}
		Must(t, w.WriteHeader(&h))
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		Must(t, err)
	}
	Must(t, w.Close())
	return b.Bytes()
}

func Regular(name string, size int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, ModTime: When}
}

func Folder(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, ModTime: When}
}

func Symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, ModTime: When}
}

// Snapshot describes everything below dir, itself too, with times in seconds.
func Snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
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

func WantSame(t testing.TB, got, want map[string]string) {
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

// Ordinary reports whether the test runs as an ordinary user. To root, whom no
// mode stops, it gives the verdict of the same test run by another user.
func Ordinary(t *testing.T) bool {
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

// ErrFull is what a ShortWriter fails with.
var ErrFull = errors.New("no space left")

// ShortWriter takes N bytes.
type ShortWriter struct{ N int }

func (w *ShortWriter) Write(p []byte) (int, error) {
	if w.N < len(p) {
		return w.N, ErrFull
	}
	w.N -= len(p)
	return len(p), nil
}
