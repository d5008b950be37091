package pack

import (
	"archive/tar"
	"io/fs"
	"os/user"
	"strconv"
	"sync"
	"time"

	"walg/lib/dirfd"
)

// appendBuffer is an io.Writer at the end of a slice.
type appendBuffer []byte

func (b *appendBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func appendHeader(to []byte, h *tar.Header) ([]byte, error) {
	b := appendBuffer(to)
	err := tar.NewWriter(&b).WriteHeader(h)
	return b, err
}

// owners knows the names of user and group ids. A system has few of them.
type owners struct {
	mu           sync.Mutex
	users, group map[int]string
}

func newOwners() *owners { return &owners{users: map[int]string{}, group: map[int]string{}} }

func (o *owners) names(uid, gid int) (string, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u, ok := o.users[uid]
	if !ok {
		if found, err := user.LookupId(strconv.Itoa(uid)); err == nil { // an id may well have no name
			u = found.Username
		}
		o.users[uid] = u
	}
	g, ok := o.group[gid]
	if !ok {
		if found, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
			g = found.Name
		}
		o.group[gid] = g
	}
	return u, g
}

func (o *owners) header(name string, i *dirfd.Info, link string) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Linkname: link,
		Mode:     int64(i.Mode.Perm()),
		Uid:      i.UID,
		Gid:      i.GID,
		ModTime:  time.Unix(i.ModTime.Unix(), 0),
	}
	switch {
	case i.IsDir():
		h.Typeflag = tar.TypeDir
	case i.IsSymlink():
		h.Typeflag = tar.TypeSymlink
	default:
		h.Size = i.Size
	}
	if i.Mode&fs.ModeSetuid != 0 {
		h.Mode |= 0o4000
	}
	if i.Mode&fs.ModeSetgid != 0 {
		h.Mode |= 0o2000
	}
	if i.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	h.Uname, h.Gname = o.names(i.UID, i.GID)
	return h
}

// memberName gives a path its name in the archive.
func (h *hooks) memberName(path string, isDir bool) string {
	switch {
	case !isDir || h.Prefix != "":
		return h.Prefix + path
	case path == "":
		return "./"
	}
	return path + "/"
}
