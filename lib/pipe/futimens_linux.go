package pipe

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens is utimensat with a null path, which acts on the descriptor itself.
// The unix package has no wrapper for that form, and AT_EMPTY_PATH needs a
// newer kernel.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
