package sftp

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/storetest"
)

// SFTP has no word for a full disk; the driver asks how much room there is. The
// server sees the mount because it is started by the child process, too.
func TestFullDisk(t *testing.T) {
	if !storetest.InMountNamespace(t) {
		return
	}
	p := newPlace(t)
	must(t, syscall.Mount("tmpfs", p.Root, "tmpfs", 0, "size=8m,nr_inodes=4,mode=777"))
	defer func() { must(t, syscall.Unmount(p.Root, syscall.MNT_DETACH)) }()
	d := p.open(t)
	must(t, d.Whole(t.Context(), p.key("k"), []byte("old"), driver.Options{}))
	for _, o := range []driver.Options{{}, {IfAbsent: true}} {
		key := map[bool]string{false: "k", true: "new"}[o.IfAbsent]
		wantError(t, d.Whole(t.Context(), p.key(key), make([]byte, 9*mib), o), fault.Failed, "no space left on the server", "make room")
	}
	p.wantTree(t, "k")
	for _, key := range []string{"l", "m"} {
		must(t, d.Whole(t.Context(), p.key(key), nil, driver.Options{}))
	}
	// No inode is left, for a file or a directory.
	wantError(t, d.Whole(t.Context(), p.key("n"), nil, driver.Options{}), fault.Failed, "no space left on the server", "inodes")
	wantError(t, d.Whole(t.Context(), p.key("d/n"), nil, driver.Options{}), fault.Failed, "no space left on the server", "inodes")
	must(t, d.Delete(t.Context(), []string{p.key("l"), p.key("m")}))
	must(t, p.store(d).Put(t.Context(), "d/n", strings.NewReader("x"), store.PutOptions{}))
	if got, err := os.ReadFile(p.file("k")); string(got) != "old" {
		t.Errorf("the old object is %q, %v", got, err)
	}
}
