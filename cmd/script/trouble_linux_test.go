package script_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"walg/lib/store/storetest"
)

// fails runs cmd and checks its exit status and what it says.
func fails(t *testing.T, cmd *exec.Cmd, status int, says string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status || !regexp.MustCompile(says).Match(stderr.Bytes()) {
		t.Errorf("%v: %v, want status %d and %q; it said\n%s", cmd.Args, err, status, says, &stderr)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("the store holds %v, %v", names, err)
	}
}

func TestPutToAFullStore(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	dir := storetest.Mount(t, "tmpfs", "size=2m")
	fails(t, putCommand(t, dir, "", "d/k", "--", "head", "-c", "8000000", "/dev/zero"), 1,
		`^walg-put: put file://`+dir+`/d/k: write: no space left on device\nwalg-put: hint: .*make room`)
	empty(t, dir)
	if err := putCommand(t, dir, "", "d/k", "--", "head", "-c", "1000000", "/dev/zero").Run(); err != nil {
		t.Errorf("there is room for less: %v", err)
	}
}

func TestPutToAReadOnlyStore(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	dir := storetest.Mount(t, "tmpfs", "size=2m")
	storetest.ReadOnly(t, dir)
	fails(t, putCommand(t, dir, "", "k", "--", "echo", "x"), 1, `put file://`+dir+`/k: open: read-only file system\n.*hint: .*mounted read-only`)
	fails(t, putCommand(t, dir, "", "d/k", "--", "echo", "x"), 1, `read-only file system`)
}

func TestStoreOfAnotherUser(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	get := exec.Command("walg-get", "secret")
	get.Env = append(os.Environ(), "WALG_FILE_PREFIX="+dir)
	put := putCommand(t, dir, "", "k", "--", "echo", "x")
	if os.Getuid() == 0 { // root may do anything
		nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		get.SysProcAttr, put.SysProcAttr = nobody, nobody
	}
	fails(t, get, 1, `get file://`+dir+`/secret: open: permission denied\n.*hint: .*runs as uid \d+`)
	fails(t, put, 1, `put file://`+dir+`/k: open: permission denied`)
}
