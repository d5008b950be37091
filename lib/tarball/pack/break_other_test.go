//go:build !linux

package pack

import "io"

// breakFile makes each later read of f fail.
func breakFile(_ string, f io.ReaderAt) error { return f.(io.Closer).Close() }
