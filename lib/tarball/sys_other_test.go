//go:build !linux || portable

package tarball

import "io"

// breakFile makes each later read of f fail.
func breakFile(f io.ReaderAt) error { return f.(file).Close() }
