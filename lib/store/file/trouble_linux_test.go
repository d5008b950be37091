package file_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/file"
	"walg/lib/store/storetest"
)

func TestFullFileSystem(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	dir := storetest.Mount(t, "tmpfs", "size=4m")
	s := must(file.New(dir))
	put(t, s, "d/old")
	for _, key := range []string{"d/old", "e/f/new"} {
		err := s.Put(t.Context(), key, storetest.Content(key, 8<<20), store.PutOptions{})
		wantError(t, err, fault.Failed, "put file://"+dir+"/"+key+": write: no space left on device", "make room")
	}
	wantTree(t, dir, "d/", "d/old")
	put(t, s, "d/new") // what the failed ones held is free again
}

func TestFileSystemWithoutInodes(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	s := must(file.New(storetest.Mount(t, "tmpfs", "size=4m,nr_inodes=3")))
	put(t, s, "a", "b")
	wantError(t, s.Put(t.Context(), "c", strings.NewReader("x"), store.PutOptions{}), fault.Failed, "no space left", "inodes")
}

func TestReadOnlyFileSystem(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	dir := storetest.Mount(t, "tmpfs", "size=4m")
	s := must(file.New(dir))
	put(t, s, "d/k")
	storetest.ReadOnly(t, dir)
	o := store.PutOptions{}
	wantError(t, s.Put(t.Context(), "d/k", strings.NewReader("x"), o), fault.Failed, "read-only file system", "mounted read-only")
	wantError(t, s.Put(t.Context(), "new/k", strings.NewReader("x"), o), fault.Failed, "read-only file system", "mounted read-only")
	wantError(t, s.Delete(t.Context(), "d/k"), fault.Failed, "read-only file system", "mounted read-only")
	if _, err := s.Stat(t.Context(), "d/k"); err != nil {
		t.Error(err)
	}
}

func TestFileSystemWithoutAttributes(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	s := must(file.New(storetest.Mount(t, "ramfs", "")))
	o := store.PutOptions{Meta: map[string]string{"sha256": "ab"}, IfAbsent: true}
	if err := s.Put(t.Context(), "k", strings.NewReader("x"), o); err != nil {
		t.Fatal(err)
	}
	if info, err := s.Stat(t.Context(), "k"); err != nil || info.Size != 1 || info.Meta != nil {
		t.Errorf("Stat = %+v, %v", info, err)
	}
}

func TestStoreOfAnotherUser(t *testing.T) {
	s, dir := open(t)
	put(t, s, "secret/k", "k")
	for _, err := range []error{
		os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o555), os.Chmod(filepath.Join(dir, "secret"), 0), os.Chmod(filepath.Join(dir, "k"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(dir, 0o755)
	defer os.Chmod(filepath.Join(dir, "secret"), 0o755)
	done := make(chan bool)
	go func() {
		defer close(done)
		// Root may do anything. The thread with another user's rights is never
		// unlocked, and so ends with this function.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			unix.SetfsgidRetGid(65534)
			unix.SetfsuidRetUid(65534)
		}
		_, _, err := s.Get(t.Context(), "k", 0)
		wantError(t, err, fault.Failed, "get file://"+dir+"/k: open: permission denied", "this program runs as uid")
		_, err = s.Stat(t.Context(), "secret/k")
		wantError(t, err, fault.Failed, "permission denied", "check the owner")
		err = s.Put(t.Context(), "new", strings.NewReader("x"), store.PutOptions{})
		wantError(t, err, fault.Failed, "permission denied", "check the owner")
		for _, e := range s.List(t.Context(), "") {
			err = e
		}
		wantError(t, err, fault.Failed, "list file://"+dir+"/secret: open: permission denied", "check the owner")
		wantError(t, s.Delete(t.Context(), "k"), fault.Failed, "permission denied", "check the owner")
	}()
	<-done
}

// A put that is killed between link(2) and unlink(2) leaves two names of one
// file, and the object must be none the worse for it.
func TestObjectSharingItsFileWithALeftover(t *testing.T) {
	s, dir := open(t)
	put(t, s, "k")
	if err := os.Link(filepath.Join(dir, "k"), filepath.Join(dir, "k.tmp.20261122T164420Z-0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	put(t, s, "k")
	var fi syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "k"), &fi); err != nil || fi.Nlink != 1 {
		t.Errorf("the new object has %d links, %v", fi.Nlink, err)
	}
}
