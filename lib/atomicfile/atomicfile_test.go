package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestAFileAppearsWithCommitOnly(t *testing.T) {
	for _, old := range []string{"", "old content"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "f")
		if old != "" {
			if err := os.WriteFile(name, []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, err := Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.File().WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(name); string(got) != old {
			t.Errorf("before Commit: %q, want %q", got, old)
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		a.Abort() // does nothing any more
		if got, err := os.ReadFile(name); string(got) != "new" || err != nil {
			t.Errorf("after Commit: %q, %v", got, err)
		}
		if got := names(t, dir); got != "f" {
			t.Errorf("after Commit there are %q", got)
		}
	}
}

func TestAbortLeavesNothingAndKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	a.Abort()
	a.Abort()
	if got, _ := os.ReadFile(name); string(got) != "old" || names(t, dir) != "f" {
		t.Errorf("%q, and there are %q", got, names(t, dir))
	}
}

// The temporary file is beside the target, since rename does not cross file
// systems, and hidden.
func TestTheTemporaryFileIsBesideTheTarget(t *testing.T) {
	dir := t.TempDir()
	a, err := Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Abort()
	if got := names(t, dir); !strings.HasPrefix(got, ".f.tmp.") {
		t.Errorf("there are %q", got)
	}
}

func TestANewFileIsPrivateAndAnOldOneKeepsItsMode(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"new": 0, "old": 0o640, "wide": 0o666, "executable": 0o755} {
		path := filepath.Join(dir, name)
		want := mode
		if mode == 0 {
			want = 0o600
		} else {
			if err := os.WriteFile(path, nil, mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil { // past the umask
				t.Fatal(err)
			}
		}
		if err := WriteFile(path, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestTheLongestNameIsNotTooLong(t *testing.T) {
	name := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	if err := WriteFile(name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// Errors name what the user named, and not the temporary file.
func TestErrorsNameTheTarget(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent", "f")
	_, err := Create(absent)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "create "+absent+": ") || strings.Contains(err.Error(), ".tmp.") {
		t.Errorf("a directory that is not there: %v", err)
	}
	// A directory appears under the name meanwhile: rename fails.
	name := filepath.Join(dir, "f")
	a, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	err = a.Commit()
	if err == nil || !strings.HasPrefix(err.Error(), "write "+name+": ") || strings.Contains(err.Error(), ".tmp.") {
		t.Errorf("Commit onto a directory: %v", err)
	}
	if got := names(t, dir); got != "f" {
		t.Errorf("after a failed Commit there are %q", got)
	}
}

func TestAFailedCommitKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	a.File().Close() // so that fsync fails
	if err := a.Commit(); err == nil {
		t.Error("Commit of a closed file succeeds")
	}
	if got, _ := os.ReadFile(name); string(got) != "old" || names(t, dir) != "f" {
		t.Errorf("%q, and there are %q", got, names(t, dir))
	}
}

func TestWritersOfOneNameDoNotMeet(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	a, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	a.File().WriteString("aaa")
	b.File().WriteString("b")
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "b" || names(t, dir) != "f" {
		t.Errorf("%q, and there are %q", got, names(t, dir))
	}
}

func TestSyncDirRefusesWhatIsNoDirectory(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent directory: %v", err)
	}
}
