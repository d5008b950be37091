package dirfd

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var when = time.Unix(1_600_000_000, 0)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open returns an open directory with a file f, a directory d and links to both.
func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	must(t, os.WriteFile(filepath.Join(path, "f"), []byte("content"), 0o640))
	must(t, os.Mkdir(filepath.Join(path, "d"), 0o700))
	must(t, os.Symlink("f", filepath.Join(path, "to f")))
	must(t, os.Symlink("d", filepath.Join(path, "to d")))
	d, err := OpenDir(path)
	must(t, err)
	t.Cleanup(d.Close)
	return d, path
}

func TestLinksAreNotFollowed(t *testing.T) {
	d, _ := open(t)
	if _, err := d.OpenDir("to d"); !Gone(err) {
		t.Errorf("opening a link to a directory: %v", err)
	}
	if _, _, err := d.Open("to f"); !Gone(err) {
		t.Errorf("opening a link to a file: %v", err)
	}
	if _, err := d.Create("to f"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating through a link: %v", err)
	}
	if i, err := d.Lstat("to f"); err != nil || !i.IsSymlink() {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := d.Stat("to f"); err != nil || !i.IsRegular() {
		t.Errorf("%+v, %v", i, err)
	}
	sub, err := d.OpenDir("d")
	must(t, err)
	sub.Close()
}

func TestGoneIsNotEveryError(t *testing.T) {
	d, _ := open(t)
	_, absent := d.Lstat("absent")
	if !Gone(absent) || !errors.Is(absent, fs.ErrNotExist) || Gone(fs.ErrPermission) || Gone(nil) {
		t.Errorf("%v", absent)
	}
}

func TestListTellsDirectoriesFromOthers(t *testing.T) {
	d, _ := open(t)
	var got []string
	must(t, d.List(make([]byte, 4096), func(name []byte, isDir bool) {
		if isDir {
			name = append(slices.Clone(name), '/')
		}
		got = append(got, string(name))
	}))
	slices.Sort(got)
	if !slices.Equal(got, []string{"d/", "f", "to d", "to f"}) {
		t.Errorf("%q", got)
	}
}

func TestFinishSetsModeAndTime(t *testing.T) {
	d, path := open(t)
	f, err := d.Create("new")
	must(t, err)
	_, err = f.Write([]byte("content"))
	must(t, err)
	must(t, d.Finish(f, "new", Meta{Mode: 0o444, ModTime: when}, true))
	i, err := os.Stat(filepath.Join(path, "new"))
	if err != nil || i.Mode() != 0o444 || !i.ModTime().Equal(when) || i.Size() != 7 {
		t.Errorf("%v, %v", i, err)
	}
}

func TestReadAtReportsTheEnd(t *testing.T) {
	d, _ := open(t)
	f, i, err := d.Open("f")
	must(t, err)
	defer f.Close()
	p := make([]byte, 10)
	if n, err := f.ReadAt(p, 3); string(p[:n]) != "tent" || err != io.EOF || i.Size != 7 {
		t.Errorf("%q, %v of %d bytes", p[:n], err, i.Size)
	}
}

func TestReplaceKeepsTheDirectorysTimeAndLeavesNoOtherFile(t *testing.T) {
	d, path := open(t)
	must(t, os.WriteFile(filepath.Join(path, TempName), []byte("of a run that died"), 0o600))
	must(t, os.Chtimes(path, when, when))
	must(t, d.Replace("f", []byte("new"), Meta{Mode: 0o600, ModTime: when}))
	if p, err := os.ReadFile(filepath.Join(path, "f")); string(p) != "new" {
		t.Errorf("%q, %v", p, err)
	}
	if i, err := os.Stat(path); err != nil || !i.ModTime().Equal(when) {
		t.Errorf("%v, %v", i.ModTime(), err)
	}
	if err := d.Replace("d", nil, Meta{}); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := d.Lstat(TempName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a temporary file is left: %v", err)
	}
}

func TestLinkMakesOneFileOfTwoNames(t *testing.T) {
	d, path := open(t)
	sub, err := d.OpenDir("d")
	must(t, err)
	defer sub.Close()
	from, to := Place{d, d, "f", "f"}, Place{d, sub, "d/f", "f"}
	must(t, Link(from, to))
	if err := Link(from, to); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	a, err := os.Stat(filepath.Join(path, "f"))
	must(t, err)
	if b, err := os.Stat(filepath.Join(path, "d/f")); err != nil || !os.SameFile(a, b) {
		t.Errorf("%v, %v", b, err)
	}
}

func TestBaseAndParent(t *testing.T) {
	for path, want := range map[string][2]string{"": {"", ""}, "a": {"", "a"}, "a/b": {"a", "b"}, "a/b/c": {"a/b", "c"}} {
		if p, b := Parent(path), Base(path); p != want[0] || b != want[1] {
			t.Errorf("%s: %q and %q", path, p, b)
		}
	}
}
