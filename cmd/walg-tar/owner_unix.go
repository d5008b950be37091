//go:build unix

package main

import (
	"os"
	"syscall"
)

// chownLike gives name the owner of like, both below root.
func chownLike(root *os.Root, like, name string) error {
	fi, err := root.Lstat(like)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return root.Lchown(name, int(st.Uid), int(st.Gid))
}
