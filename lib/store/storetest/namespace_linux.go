package storetest

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
)

const namespaceEnv = "STORETEST_NAMESPACE"

// InMountNamespace returns true in a child process that may mount file
// systems, which are gone with it; the test goes on there. In the process that
// was started first it runs that child, reports its failure, and returns
// false. An ordinary user becomes root of a user namespace for it.
func InMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.v", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$")
	cmd.Env = append(os.Environ(), namespaceEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in a mount namespace: %v\n%s", err, out)
	}
	return false
}

// Mount mounts a file system of the type fs (tmpfs, ramfs) on a new directory
// and returns it.
func Mount(t *testing.T, fs, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount(fs, dir, fs, 0, options); err != nil {
		t.Fatalf("mount %s on %s: %v", fs, dir, err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// ReadOnly makes a mounted file system read-only.
func ReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}
