package pack

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// breakFile makes each later read of the file that is open from path fail.
func breakFile(path string, _ io.ReaderAt) error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err != nil || to != path { // the list's own is closed again
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(l))
		if err != nil {
			return err
		}
		return unix.Dup3(int(root.Fd()), fd, unix.O_CLOEXEC)
	}
	return errors.New("not open: " + path)
}
