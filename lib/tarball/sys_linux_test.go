//go:build linux && !portable

package tarball

import (
	"io"

	"golang.org/x/sys/unix"
)

// breakFile makes each later read of f fail.
func breakFile(f io.ReaderAt) error {
	d, err := openDir("/")
	if err != nil {
		return err
	}
	defer d.close()
	return unix.Dup3(d.fd, f.(file).fd, unix.O_CLOEXEC)
}
