//go:build unix && !linux

package child

import (
	"os/exec"
	"syscall"
)

// group puts cmd into a process group of its own. Only Linux can make it die
// with us.
func group(cmd *exec.Cmd, _ bool) (release func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return func() {}
}

func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
