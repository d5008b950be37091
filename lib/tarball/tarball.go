// Package tarball reads tar streams. It promises that an archive cut short
// anywhere is noticed. Package pack makes archives of a directory tree, and
// package unpack a tree of archives; neither knows what the files mean.
package tarball

// Totals counts what was archived or extracted.
type Totals struct {
	Files, Dirs, Links int64
	Bytes              int64 // of file contents
	Walked             int64 // sum of the stat sizes of all that the walk met, directories and what was left out too
	Parts              int
}

// Add adds the totals of another part.
func (t *Totals) Add(o Totals) {
	t.Files += o.Files
	t.Dirs += o.Dirs
	t.Links += o.Links
	t.Bytes += o.Bytes
	t.Walked += o.Walked
	t.Parts += o.Parts
}
