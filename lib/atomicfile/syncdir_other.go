//go:build !unix

package atomicfile

// SyncDir does nothing: a directory cannot be opened for it here, and the
// system makes names durable by itself.
func SyncDir(string) error { return nil }
