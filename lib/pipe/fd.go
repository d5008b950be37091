package pipe

import (
	"os"

	"golang.org/x/term"
)

// control runs do with f's descriptor. os.File.Fd would switch the descriptor
// to blocking mode, which is shared with other processes.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) (yes bool) {
	_ = control(f, func(fd int) error {
		yes = term.IsTerminal(fd)
		return nil
	})
	return yes
}
