package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// Dir makes a directory that belongs to the server's user, whom the parents
// of t.TempDir keep out, and whose path is short enough for a socket (107
// bytes). It is removed with the test.
func Dir(t testing.TB) string {
	t.Helper()
	base := os.TempDir()
	if len(base) > 60 || !traversable(base) {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Own(t, dir)
	return dir
}

// Own gives path and all below it to the server's user. Symbolic links are
// not followed.
func Own(t testing.TB, path string) {
	t.Helper()
	id := server()
	if id == nil {
		return
	}
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(id.uid), int(id.gid))
	})
	if err != nil {
		t.Fatalf("give %s to the server: %v", path, err)
	}
}

// restrict takes group and others' rights from a copied data directory, which
// PostgreSQL insists on and os.CopyFS does not keep.
func restrict(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(p, 0o700)
		case d.Type().IsRegular():
			return os.Chmod(p, 0o600)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("restrict %s: %v", dir, err)
	}
}

// BinDir is the folder of a major version's server programs: Debian's, or
// those in the test cache ($WALG_TEST_CACHE, by default the place that tools.sh fills).
func BinDir(t testing.TB, major int) string {
	t.Helper()
	debian := filepath.Join("/usr/lib/postgresql", strconv.Itoa(major), "bin")
	if isFile(filepath.Join(debian, "postgres")) {
		return debian
	}
	tree := filepath.Join(cache(), "pg", strconv.Itoa(major))
	if !isFile(filepath.Join(tree, "bin", "postgres")) {
		t.Fatalf("no PostgreSQL %d server in %s or %s/bin: install it with scripts/test/tools.sh",
			major, debian, tree)
	}
	tree, err := reachable(tree)
	if err != nil {
		t.Fatalf("PostgreSQL %d for the server's user: %v", major, err)
	}
	return filepath.Join(tree, "bin")
}

// Tool is the path of a client program (psql, pgbench, pg_controldata ...),
// which the cached servers lack.
func Tool(t testing.TB, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is well formed
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("no %s: install it with apt-get install postgresql", name)
	}
	return path
}

func cache() string {
	if dir := os.Getenv("WALG_TEST_CACHE"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 { // where the user postgres may go, as tools.sh has it
		return "/var/cache/walg-test"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".cache", "walg-test")
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// traversable says whether everyone may pass through path and its parents.
func traversable(path string) bool {
	if server() == nil {
		return true
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for {
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm()&1 == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path = filepath.Dir(path)
	}
}

var mirrored sync.Mutex

// reachable returns a folder with the same files as tree that the server's
// user can reach: tree itself, or where a parent (root's home) bars the way
// hard links to it, made once and kept beside the temporary files.
func reachable(tree string) (string, error) {
	tree, err := filepath.EvalSymlinks(tree)
	if err != nil || traversable(tree) {
		return tree, err
	}
	fi, err := os.Stat(filepath.Join(tree, "bin", "postgres"))
	if err != nil {
		return "", err
	}
	mirrored.Lock()
	defer mirrored.Unlock()
	base := filepath.Join("/tmp", fmt.Sprintf("walg-pgtest-%d", os.Getuid()))
	if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if !mine(base) {
		return "", fmt.Errorf("%s belongs to somebody else", base)
	}
	// A tree that was installed anew has another time.
	mirror := filepath.Join(base, fmt.Sprintf("%s-%d", filepath.Base(tree), fi.ModTime().UnixNano()))
	if isFile(filepath.Join(mirror, "bin", "postgres")) {
		return mirror, nil
	}
	next, err := os.MkdirTemp(base, "new")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(next) // nothing is left of it after the rename
	if err := link(tree, next); err != nil {
		return "", err
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return "", err
	}
	err = os.Rename(next, mirror)
	if isFile(filepath.Join(mirror, "bin", "postgres")) {
		return mirror, nil // ours, or that of another test process
	}
	return mirror, err
}

// link makes dst a copy of the tree src: directories and symbolic links anew,
// files as hard links, or as copies where the file system is another.
func link(src, dst string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil || rel == "." {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir():
			return os.Mkdir(to, 0o755)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		}
		if os.Link(path, to) == nil {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o755)
	})
}

// start runs cmd and calls ended when it has ended. The thread that starts a
// process with a death signal must live as long as the process.
func start(cmd *exec.Cmd, ended func()) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread ends, and with it what others started on it
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // its end is the message; the state stays in cmd
			ended()
		}
	}()
	return <-started
}
