//go:build linux && !portable

package dirfd

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

// Dir is an open directory. It and File are bare descriptors, not os.File: a
// tree has hundreds of thousands of files, and for each os.File would add an
// epoll_ctl, a finalizer and a path lookup from the root.
type Dir struct {
	fd    int
	atime atomic.Bool // O_NOATIME is not permitted here (not our files)
}

// File is an open regular file.
type File struct{ fd int }

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

// OpenDir opens a directory of any path; links are followed.
func OpenDir(path string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{fd: fd}, nil
}

func (d *Dir) Close() { unix.Close(d.fd) } // nothing was written through it

// OpenDir opens a directory in this one.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	sub := &Dir{fd: fd}
	sub.atime.Store(d.atime.Load())
	return sub, nil
}

// List calls add with each name in the directory, in no order, and whether it
// is a directory. It can be called once.
func (d *Dir) List(buf []byte, add func(name []byte, isDir bool)) error {
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
				i, err := d.Lstat(string(name))
				isDir = err == nil && i.IsDir() // one that vanished is met again by the walk
			}
			add(name, isDir)
		}
	}
}

func (d *Dir) Lstat(name string) (Info, error) { return d.fstatat(name, unix.AT_SYMLINK_NOFOLLOW) }

// Stat follows links.
func (d *Dir) Stat(name string) (Info, error) { return d.fstatat(name, 0) }

func (d *Dir) fstatat(name string, flags int) (Info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(d.fd, name, &st, flags) }); err != nil {
		return Info{}, err
	}
	return newInfo(&st), nil
}

func newInfo(st *unix.Stat_t) Info {
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
	return Info{Mode: mode, Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()), UID: int(st.Uid), GID: int(st.Gid)}
}

func (d *Dir) Readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, buf)
	return string(buf[:max(n, 0)]), err
}

// Open opens a file for reading, without waiting where a FIFO has taken its place.
func (d *Dir) Open(name string) (f File, i Info, err error) {
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
		return File{}, Info{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return File{}, Info{}, err
	}
	return File{fd}, newInfo(&st), nil
}

// Gone reports whether err means that the name has vanished or is no longer
// the kind of file that it was.
func Gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO)
}

func (f File) Close() error { return unix.Close(f.fd) }

func (f File) Read(p []byte) (n int, err error) {
	err = retry(func() (err error) { n, err = unix.Read(f.fd, p); return err })
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f File) ReadAt(p []byte, off int64) (done int, err error) {
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

func (f File) Write(p []byte) (int, error) {
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

// StartWriteback asks the system to write a range to disk now, without waiting.
// It is advice: what went wrong shows at the sync.
func (f File) StartWriteback(off, n int64) {
	_ = unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Create makes a new file that only its owner can open until Finish.
func (d *Dir) Create(name string) (File, error) {
	fd, err := openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	return File{fd}, err
}

// Finish gives the file its owner, mode and time, and closes it. Durable means
// fsync too.
func (d *Dir) Finish(f File, name string, m Meta, durable bool) error {
	err := setMeta(f.fd, m)
	if err == nil && durable {
		err = unix.Fsync(f.fd)
	}
	if e := unix.Close(f.fd); err == nil {
		err = e
	}
	return err
}

// Apply gives the directory itself its owner, mode and time.
func (d *Dir) Apply(m Meta) error { return setMeta(d.fd, m) }

// setMeta never sees a descriptor that we were given: only what Create and
// OpenDir opened.
func setMeta(fd int, m Meta) error {
	if m.Owner { // before the mode, since it clears the setuid bit
		if err := unix.Fchown(fd, m.UID, m.GID); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, sysMode(m.Mode)); err != nil {
		return err
	}
	ts, err := timespecs(m.ModTime)
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

func (d *Dir) Mkdir(name string) error           { return unix.Mkdirat(d.fd, name, 0o700) }
func (d *Dir) Remove(name string) error          { return unix.Unlinkat(d.fd, name, 0) }
func (d *Dir) rename(from, to string) error      { return unix.Renameat(d.fd, from, d.fd, to) }
func (d *Dir) Symlink(target, name string) error { return unix.Symlinkat(target, d.fd, name) }

// ApplyLink gives a symbolic link its owner and time.
func (d *Dir) ApplyLink(name string, m Meta) error {
	if m.Owner {
		if err := unix.Fchownat(d.fd, name, m.UID, m.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	ts, err := timespecs(m.ModTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(d.fd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// Link makes a hard link. Both places must have the same Top.
func Link(from, to Place) error {
	return unix.Linkat(from.Dir.fd, from.Name, to.Dir.fd, to.Name, 0)
}

// Sync makes the names in the directory durable.
func (d *Dir) Sync() error { return unix.Fsync(d.fd) }

// SyncAll makes everything on the directory's file system durable. The
// directory must have been opened before the first write: syncfs(2) reports
// the write errors that came up since then.
func (d *Dir) SyncAll() error { return unix.Syncfs(d.fd) }

// SyncsAll says that SyncAll works, so that files need no fsync of their own.
const SyncsAll = true
