package pipe

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pipefsMagic is what fstatfs says of an anonymous pipe (linux/magic.h). A
// named FIFO lies in an ordinary file system, whose inode is not ours to mark.
const pipefsMagic = 0x50495045

// isPipe reports whether f is an anonymous pipe. Nothing may be marked before
// it says so: as root, on /dev/null, fchmod would change the machine.
func isPipe(f *os.File) bool {
	ok := false
	_ = control(f, func(fd int) error {
		var st unix.Stat_t
		var fs unix.Statfs_t
		ok = unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO &&
			unix.Fstatfs(fd, &fs) == nil && fs.Type == pipefsMagic
		return nil
	})
	return ok
}

func readMarks(f *os.File) (m marks, err error) {
	err = control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		m = marks{
			walg:    st.Mode&bitWalg != 0,
			mixed:   st.Mode&bitMixed != 0,
			tainted: st.Mode&bitTaint != 0,
			sec:     int64(st.Mtim.Sec),
			nsec:    int64(st.Mtim.Nsec),
		}
		return nil
	})
	return m, err
}

// addBits adds permission bits to an anonymous pipe. Never setuid or setgid.
func addBits(f *os.File, bits uint32) error {
	return control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		return unix.Fchmod(fd, st.Mode&0o1777|bits)
	})
}

// setTime sets the modification time of an anonymous pipe and leaves its
// access time alone.
func setTime(f *os.File, sec int64) error {
	return control(f, func(fd int) error {
		ts := [2]unix.Timespec{
			{Nsec: unix.UTIME_OMIT},
			{Sec: sec, Nsec: stampNano},
		}
		return futimens(fd, &ts)
	})
}

// grow makes a pipe hold 1 MiB, so that stages wait for each other less. An
// unprivileged user may be over the limit for pipes; the default then stays.
func grow(f *os.File) {
	_ = control(f, func(fd int) error {
		size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
		if err == nil && size < BufferSize {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, BufferSize)
		}
		return nil
	})
}

// watchUnread returns a function that tells how many bytes of a pipe that we
// wrote nobody has read, after we have closed it. Where the pipe cannot be
// opened again (/proc is not mounted) it tells 0.
func watchUnread(w *os.File) func() int {
	r := -1
	_ = control(w, func(fd int) (err error) {
		r, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	return func() int {
		if r < 0 {
			return 0
		}
		defer unix.Close(r)
		n, err := unix.IoctlGetInt(r, unix.TIOCINQ) // by its other name FIONREAD
		if err != nil {
			return 0
		}
		return n
	}
}
