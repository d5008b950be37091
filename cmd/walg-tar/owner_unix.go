//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// chownLike has chown give the owner of like.
func chownLike(like fs.FileInfo, chown func(uid, gid int) error) error {
	st := like.Sys().(*syscall.Stat_t)
	return chown(int(st.Uid), int(st.Gid))
}
