package file

import (
	"os"
	"syscall"
)

// syncRead opens the file again, because only a file that is open for writing
// can be flushed here.
func syncRead(f *os.File) error {
	w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Sync()
}

// removeDir removes an empty directory, and nothing else.
func removeDir(dir string) error {
	p, err := syscall.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	return syscall.RemoveDirectory(p)
}
