//go:build !unix

package child

import "os/exec"

// There are no process groups here; only the command itself can be ended.

func group(*exec.Cmd, bool) (release func()) { return func() {} }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
