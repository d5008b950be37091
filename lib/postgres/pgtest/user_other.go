//go:build !unix

package pgtest

import (
	"os"
	"os/exec"
)

// Without signals every stop is a crash.
var sigSmart, sigFast, sigImmediate = os.Kill, os.Kill, os.Kill

type identity struct{ uid, gid uint32 }

func server() *identity { return nil }

func become(*exec.Cmd) {}

func mine(string) bool { return true }
