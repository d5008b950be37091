//go:build unix

package file

import (
	"os"
	"syscall"
)

// syncRead makes a file durable that is open for reading.
func syncRead(f *os.File) error { return f.Sync() }

// removeDir removes an empty directory, and nothing else: os.Remove would take
// a symbolic link that stands for a directory.
func removeDir(dir string) error { return syscall.Rmdir(dir) }
