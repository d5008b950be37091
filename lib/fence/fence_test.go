package fence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walg/lib/fault"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, root string) *Fence {
	t.Helper()
	f, err := Open(root)
	must(t, err)
	t.Cleanup(f.Close)
	return f
}

func FuzzClean(f *testing.F) {
	for _, name := range []string{"", "/", "./", "a/b", "/a//b/", "..", "a/../b", "a\x00", strings.Repeat("x", 256), strings.Repeat("d/", 2049), `a\..\b`, "C:"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := Clean(name)
		if err != nil {
			if fault.Status(err) != fault.Data {
				t.Error(err)
			}
			return
		}
		if path == "" {
			return
		}
		if again, err := Clean(path); again != path || err != nil || !filepath.IsLocal(path) {
			t.Errorf("%q became %q, then %q, %v", name, path, again, err)
		}
	})
}

func TestCleanDropsWhatLeadsToTheRoot(t *testing.T) {
	for name, want := range map[string]string{"/": "", ".": "", "./": "", "/a/b": "a/b", "./a/": "a", ".//a//./b": "a/b", "..a/b..": "..a/b.."} {
		if got, err := Clean(name); got != want || err != nil {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "..", "../a", "a/..", "a/../b", "a\x00b"} {
		if got, err := Clean(name); fault.Status(err) != fault.Data {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestEnterMakesDirectoriesButFollowsNoLink(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "new", "root")
	f := open(t, root)
	d, err := f.Enter("a/b/c")
	must(t, err)
	must(t, d.Mkdir("c"))
	if i, err := os.Stat(filepath.Join(root, "a/b/c")); err != nil || !i.IsDir() {
		t.Errorf("%v, %v", i, err)
	}
	must(t, os.Symlink("a", filepath.Join(root, "link")))
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for _, path := range []string{"link/x", "link/b/x", "file/x"} {
		if _, err := f.Enter(path); fault.Status(err) != fault.Data {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := f.Open("absent", "absent/x", false); fault.Status(err) != fault.Failed || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestMountsAreEnteredInTheirOwnDirectory(t *testing.T) {
	root, space := t.TempDir(), filepath.Join(t.TempDir(), "space")
	f := open(t, root)
	must(t, f.MountAll(map[string]string{"spc/7": space}))
	d, err := f.Enter("spc/7/d/f")
	must(t, err)
	if p := f.Place(d, "spc/7/d/f"); p.Top == f.Root() || p.Path != "d/f" || p.Name != "f" {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(filepath.Join(space, "d")); err != nil || !f.IsMount("spc/7") || f.IsMount("spc") {
		t.Error(err)
	}
	if to, err := os.Readlink(filepath.Join(root, "spc/7")); to != space {
		t.Errorf("%q, %v", to, err)
	}
	must(t, f.Sync())
	if err := open(t, root).Mount("spc/7", t.TempDir()); fault.Status(err) != fault.Exists {
		t.Errorf("a second directory for the same place: %v", err)
	}
}

func TestStaysJudgesFromTheMount(t *testing.T) {
	f := open(t, t.TempDir())
	must(t, f.Mount("spc/7", filepath.Join(t.TempDir(), "space")))
	for link, want := range map[[2]string]bool{
		{"a/l", "../b"}: true, {"a/l", "../../b"}: false, {"l", "/etc"}: false, {"l", "a/../b"}: false,
		{"spc/7/l", "x"}: true, {"spc/7/l", "../x"}: false, {"spc/7/d/l", "../x"}: true,
	} {
		if got := f.Stays(link[0], link[1]); got != want {
			t.Errorf("%s to %s: %v", link[0], link[1], got)
		}
	}
}

func TestFreeKeepsDirectories(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "d"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o600))
	f := open(t, root)
	must(t, f.Free(f.Root(), "f"))
	must(t, f.Free(f.Root(), "absent"))
	if err := f.Free(f.Root(), "d"); fault.Status(err) != fault.Data {
		t.Error(err)
	}
	names, err := os.ReadDir(root)
	if must(t, err); !slices.ContainsFunc(names, func(e fs.DirEntry) bool { return e.Name() == "d" }) || len(names) != 1 {
		t.Errorf("%v", names)
	}
}

func TestCheckEmptyTakesAbsentForEmpty(t *testing.T) {
	full := t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "old"), nil, 0o600))
	must(t, CheckEmpty(t.TempDir(), filepath.Join(full, "absent")))
	err := CheckEmpty(t.TempDir(), full)
	if fault.Status(err) != fault.Exists || fault.Hint(err) == "" || !strings.Contains(err.Error(), "old") {
		t.Error(err)
	}
}
