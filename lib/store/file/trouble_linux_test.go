package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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

// wantKept checks that an error of Delete names these keys in this order.
func wantKept(t *testing.T, err error, asked int, want ...string) {
	t.Helper()
	var kept *store.DeleteError
	if !errors.As(err, &kept) {
		t.Fatalf("Delete = %v, want a DeleteError", err)
	}
	var got []string
	for _, u := range kept.Failed {
		got = append(got, u.Key)
		if !strings.HasSuffix(strings.SplitN(u.Err.Error(), ": ", 2)[0], "/"+u.Key) {
			t.Errorf("of %s: %v", u.Key, u.Err)
		}
	}
	if !slices.Equal(got, want) || kept.Of != asked {
		t.Errorf("of %d keys %q stay, want %q of %d", kept.Of, got, want, asked)
	}
}

func TestDeleteGoesOnAfterWhatItMayNot(t *testing.T) {
	s, dir := open(t)
	put(t, s, "mine/a", "mine/b", "theirs/a", "theirs/b", "theirs/sub/c")
	for name, mode := range map[string]os.FileMode{"..": 0o755, ".": 0o777, "mine": 0o777, "theirs": 0o555, "theirs/sub": 0o777} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(filepath.Join(dir, "theirs"), 0o755)
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // as in TestStoreOfAnotherUser
		if os.Geteuid() == 0 {
			unix.SetfsgidRetGid(65534)
			unix.SetfsuidRetUid(65534)
		}
		err := s.Delete(t.Context(), "mine/b", "theirs/b", "absent", "theirs/a", "theirs/sub/c", "mine/a")
		wantKept(t, err, 6, "theirs/b", "theirs/a")
		wantError(t, err, fault.Failed, "delete file://"+dir+"/theirs/b: remove: permission denied (and 1 more of 6 objects)", "check the owner")
		// The same of a leftover.
		err = s.Discard(t.Context(), store.Leftover{Name: "theirs/k" + temp, Key: "theirs/k"})
		if err != nil {
			t.Errorf("Discard of an absent one = %v", err)
		}
	}()
	<-done
	wantTree(t, dir, "theirs/", "theirs/a", "theirs/b", "theirs/sub/")
}

// TestDeleteNamesWhatIsNotDurablyGone: files can be removed from a directory that
// cannot be opened, and so not be made durable.
func TestDeleteNamesWhatIsNotDurablyGone(t *testing.T) {
	s, dir := open(t)
	put(t, s, "blind/a", "blind/sub/b", "blind/sub/c", "blind/stays", "open/d")
	for name, mode := range map[string]os.FileMode{"..": 0o755, ".": 0o777, "blind": 0o333, "blind/sub": 0o777, "open": 0o777} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // as in TestStoreOfAnotherUser
		if os.Geteuid() == 0 {
			unix.SetfsgidRetGid(65534)
			unix.SetfsuidRetUid(65534)
		}
		err := s.Delete(t.Context(), "blind/sub/b", "open/d", "blind/a", "blind/sub/c", "absent")
		wantKept(t, err, 5, "blind/sub/b", "blind/a", "blind/sub/c")
		wantError(t, err, fault.Failed, "open: permission denied (and 2 more of 5 objects)", "check the owner")
	}()
	<-done
	if err := os.Chmod(filepath.Join(dir, "blind"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, "blind/", "blind/stays")
}

const temp = ".tmp.20261122T164420Z-0123456789abcdef"

func TestDeleteGoesOnAfterAReadOnlyPart(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	dir := storetest.Mount(t, "tmpfs", "size=4m")
	s := must(file.New(dir))
	part := filepath.Join(dir, "ro")
	if err := os.Mkdir(part, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", part, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(part, syscall.MNT_DETACH)
	put(t, s, "a", "ro/k", "ro/k2", "z/z")
	if err := os.WriteFile(filepath.Join(part, "k"+temp), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	storetest.ReadOnly(t, part)
	err := s.Delete(t.Context(), "ro/k", "z/z", "ro/k2", "a")
	wantKept(t, err, 4, "ro/k", "ro/k2")
	wantError(t, err, fault.Failed, "read-only file system (and 1 more of 4 objects)", "mounted read-only")
	wantTree(t, dir, "ro/", "ro/k", "ro/k"+temp, "ro/k2")
	err = s.Discard(t.Context(), store.Leftover{Name: "ro/k" + temp, Key: "ro/k"})
	wantError(t, err, fault.Failed, "discard file://"+dir+"/ro/k"+temp+": remove: read-only file system", "mounted read-only")
}

// A put that is killed between link(2) and unlink(2) leaves two names of one
// file, and the object must be none the worse for it.
func TestObjectSharingItsFileWithALeftover(t *testing.T) {
	s, dir := open(t)
	put(t, s, "k")
	if err := os.Link(filepath.Join(dir, "k"), filepath.Join(dir, "k"+temp)); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	// To discard it takes the name away and not the object.
	if err := s.Discard(t.Context(), store.Leftover{Name: "k" + temp, Key: "k"}); err != nil {
		t.Error(err)
	}
	wantTree(t, dir, "k")
	put(t, s, "k")
	var fi syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "k"), &fi); err != nil || fi.Nlink != 1 {
		t.Errorf("the new object has %d links, %v", fi.Nlink, err)
	}
}
