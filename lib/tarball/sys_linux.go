//go:build linux && !portable

package tarball

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dir is an open directory and file an open regular file. They are bare
// descriptors, not os.File: a tree has hundreds of thousands of files, and for
// each os.File would add an epoll_ctl, a finalizer and a path lookup from the
// root. Names given to their methods are single path elements and are never
// followed when they are symbolic links. Errors are bare; callers add the path.
type dir struct {
	fd    int
	atime atomic.Bool // O_NOATIME is not permitted here (not our files)
}

type file struct{ fd int }

// retry repeats a call that a signal interrupted, which FUSE and NFS allow.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func openat(fd int, name string, flags int, perm uint32) (n int, err error) {
	err = retry(func() error { n, err = unix.Openat(fd, name, flags|unix.O_CLOEXEC, perm); return err })
	return n, err
}

// openDir opens a directory that the operator named; links are followed.
func openDir(path string) (*dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &dir{fd: fd}, nil
}

func (d *dir) close() { unix.Close(d.fd) } // nothing was written through it

func (d *dir) openDir(name string) (*dir, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	sub := &dir{fd: fd}
	sub.atime.Store(d.atime.Load())
	return sub, nil
}

// list calls add with each name in the directory, in no order, and whether it
// is a directory. It can be called once.
func (d *dir) list(buf []byte, add func(name []byte, isDir bool)) error {
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.Getdents(d.fd, buf); return err })
		if err != nil || n == 0 {
			return err
		}
		for p := buf[:n]; len(p) > 0; {
			length := binary.NativeEndian.Uint16(p[16:])
			kind, name := p[18], p[19:length]
			p = p[length:]
			name = name[:bytes.IndexByte(name, 0)]
			if string(name) == "." || string(name) == ".." {
				continue
			}
			isDir := kind == unix.DT_DIR
			if kind == unix.DT_UNKNOWN { // a file system without types in its directories
				i, err := d.lstat(string(name))
				isDir = err == nil && i.IsDir() // one that vanished is met again by the walk
			}
			add(name, isDir)
		}
	}
}

func (d *dir) lstat(name string) (info, error) { return d.fstatat(name, unix.AT_SYMLINK_NOFOLLOW) }

// stat follows links.
func (d *dir) stat(name string) (info, error) { return d.fstatat(name, 0) }

func (d *dir) fstatat(name string, flags int) (info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(d.fd, name, &st, flags) }); err != nil {
		return info{}, err
	}
	return newInfo(&st), nil
}

func newInfo(st *unix.Stat_t) info {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	default:
		mode |= fs.ModeDevice
	}
	if st.Mode&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if st.Mode&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if st.Mode&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return info{mode: mode, size: st.Size, mtime: time.Unix(st.Mtim.Unix()), uid: int(st.Uid), gid: int(st.Gid)}
}

func (d *dir) readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, buf)
	return string(buf[:max(n, 0)]), err
}

// open opens a file for reading, without waiting where a FIFO has taken its place.
func (d *dir) open(name string) (f file, i info, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := -1, error(unix.EPERM)
	if !d.atime.Load() {
		fd, err = openat(d.fd, name, flags|unix.O_NOATIME, 0)
	}
	if err == unix.EPERM {
		d.atime.Store(true)
		fd, err = openat(d.fd, name, flags, 0)
	}
	if err != nil {
		return file{}, info{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return file{}, info{}, err
	}
	return file{fd}, newInfo(&st), nil
}

// gone reports whether err means that the name has vanished or is no longer
// the kind of file that it was.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO)
}

func (f file) close() error { return unix.Close(f.fd) }

func (f file) Read(p []byte) (n int, err error) {
	err = retry(func() (err error) { n, err = unix.Read(f.fd, p); return err })
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f file) ReadAt(p []byte, off int64) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		err = retry(func() (err error) { n, err = unix.Pread(f.fd, p[done:], off+int64(done)); return err })
		if err == nil && n == 0 {
			err = io.EOF
		}
		done += max(n, 0)
	}
	return done, err
}

func (f file) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		var n int
		err := retry(func() (err error) { n, err = unix.Write(f.fd, p[done:]); return err })
		if err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// create makes a new file that only its owner can open until finish.
func (d *dir) create(name string) (file, error) {
	fd, err := openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	return file{fd}, err
}

// finish gives the file its owner, mode and time, and closes it. Durable means
// fsync too.
func (d *dir) finish(f file, name string, m meta, durable bool) error {
	err := setMeta(f.fd, m)
	if err == nil && durable {
		err = unix.Fsync(f.fd)
	}
	if e := unix.Close(f.fd); err == nil {
		err = e
	}
	return err
}

// apply gives the directory itself its owner, mode and time.
func (d *dir) apply(m meta) error { return setMeta(d.fd, m) }

// setMeta never sees a descriptor that we were given: only what create and
// openDir opened below the target.
func setMeta(fd int, m meta) error {
	if m.owner { // before the mode, since it clears the setuid bit
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, sysMode(m.mode)); err != nil {
		return err
	}
	ts, err := timespecs(m.mtime)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// timespecs leaves the access time alone.
func timespecs(mtime time.Time) ([2]unix.Timespec, error) {
	ts, err := unix.TimeToTimespec(mtime)
	return [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, err
}

func sysMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

func (d *dir) mkdir(name string) error           { return unix.Mkdirat(d.fd, name, 0o700) }
func (d *dir) remove(name string) error          { return unix.Unlinkat(d.fd, name, 0) }
func (d *dir) rename(from, to string) error      { return unix.Renameat(d.fd, from, d.fd, to) }
func (d *dir) symlink(target, name string) error { return unix.Symlinkat(target, d.fd, name) }

func (d *dir) applyLink(name string, m meta) error {
	if m.owner {
		if err := unix.Fchownat(d.fd, name, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	ts, err := timespecs(m.mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(d.fd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func link(from, to place) error {
	return unix.Linkat(from.dir.fd, from.name, to.dir.fd, to.name, 0)
}

// sync makes the names in the directory durable.
func (d *dir) sync() error { return unix.Fsync(d.fd) }

// syncAll makes everything on the directory's file system durable. The
// directory must have been opened before the first write: syncfs(2) reports
// the write errors that came up since then.
func (d *dir) syncAll() error { return unix.Syncfs(d.fd) }

// syncsAll says that syncAll works, so that files need no fsync of their own.
const syncsAll = true
