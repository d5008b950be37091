//go:build unix

package tartest

import (
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
)

func Mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

func ownerOf(i fs.FileInfo) string {
	st := i.Sys().(*syscall.Stat_t)
	return fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
}

// otherUser makes a command of root run as an ordinary user.
func otherUser(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
