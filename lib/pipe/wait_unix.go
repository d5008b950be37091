//go:build unix

package pipe

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// waitReadable waits until f has data or its end (true), or until wake has its
// end or idle has passed (false). A poll of our own, because the descriptor of
// standard input is shared with other processes and must stay blocking.
func waitReadable(f, wake *os.File, idle time.Duration) (bool, error) {
	fds := []unix.PollFd{
		{Fd: descriptor(f), Events: unix.POLLIN},
		{Fd: descriptor(wake), Events: unix.POLLIN},
	}
	for start := time.Now(); ; {
		timeout := -1
		if idle > 0 {
			timeout = max(0, int((idle-time.Since(start))/time.Millisecond))
		}
		n, err := unix.Poll(fds, timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, os.NewSyscallError("poll", err)
		}
		return n > 0 && fds[0].Revents != 0, nil
	}
}

func descriptor(f *os.File) (n int32) {
	_ = control(f, func(fd int) error {
		n = int32(fd)
		return nil
	})
	return n
}
