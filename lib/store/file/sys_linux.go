package file

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const errQuota = unix.EDQUOT

// startWriteback asks the kernel to write a range now, and does not wait. It is
// advice: what went wrong shows at fsync.
func startWriteback(f *os.File, offset, length int64) {
	unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// readAhead says that f is read from here to the end. Advice too.
func readAhead(f *os.File) {
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
}

// renameNew is a rename that fails with EEXIST where the new name is taken.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	return err
}

const attrPrefix = "user.walg."

func setMeta(f *os.File, meta map[string]string) error {
	for name, value := range meta {
		err := unix.Fsetxattr(int(f.Fd()), attrPrefix+name, []byte(value), 0)
		if errors.Is(err, unix.ENOTSUP) {
			return nil // this file system keeps none
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func getMeta(f *os.File) (map[string]string, error) {
	names, err := attr(func(p []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), p) })
	if err != nil {
		return nil, err
	}
	var meta map[string]string
	for _, name := range strings.Split(string(names), "\x00") {
		short, ours := strings.CutPrefix(name, attrPrefix)
		if !ours {
			continue
		}
		value, err := attr(func(p []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, p) })
		if err != nil {
			return nil, err
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[short] = string(value)
	}
	return meta, nil
}

// attr calls get with a buffer that is large enough; the kernel's limit is
// 64 KiB.
func attr(get func([]byte) (int, error)) ([]byte, error) {
	for _, size := range []int{4 << 10, 64 << 10} {
		p := make([]byte, size)
		n, err := get(p)
		switch {
		case errors.Is(err, unix.ERANGE):
			continue
		case errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return p[:n], nil
	}
	return nil, unix.ERANGE
}
