package pack

import (
	"io"
	"io/fs"
	"sync"

	"walg/lib/tree"
)

// hooks calls a Source's functions, one at a time.
type hooks struct {
	Source
	tree tree.Tree
	mu   sync.Mutex
}

func newHooks(src Source) *hooks {
	h := &hooks{Source: src}
	h.tree = tree.Tree{Root: src.Root, Mounts: src.Mounts, Warn: h.warn}
	if src.Filter != nil {
		h.tree.Filter = h.filter
	}
	return h
}

func (h *hooks) warn(format string, args ...any) {
	if h.Warn != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.Warn(format, args...)
	}
}

func (h *hooks) filter(path string, fi fs.FileInfo) tree.Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Filter(path, fi)
}

func (h *hooks) members(all []Member) {
	if h.Member != nil && len(all) > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, m := range all {
			h.Member(m)
		}
	}
}

func (h *hooks) inspect(path string, off int64, p []byte, f io.ReaderAt) error {
	if h.Inspect == nil || len(p) == 0 {
		return nil
	}
	return h.Inspect(path, off, p, f)
}
