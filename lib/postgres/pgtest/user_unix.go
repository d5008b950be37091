//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
)

const (
	sigSmart     = syscall.SIGTERM
	sigFast      = syscall.SIGINT
	sigImmediate = syscall.SIGQUIT
)

type identity struct{ uid, gid uint32 }

// server is the user that servers run as when the test is root, else nil.
var server = sync.OnceValue(func() *identity {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &identity{uint32(uid), uint32(gid)}
		}
	}
	return &identity{65534, 65534}
})

// become makes cmd run as the server's user and end with the test process.
func become(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if id := server(); id != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid}
	}
	dieWithParent(cmd.SysProcAttr)
}

func mine(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}
