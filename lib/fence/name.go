package fence

import (
	"io/fs"
	"path/filepath"
	"strings"

	"walg/lib/fault"
)

// The bounds of names.
const (
	maxName = 255  // bytes in one element of a path
	MaxPath = 4096 // bytes in a path or link target
)

// Bad is the error for a member of an archive that is refused.
func Bad(name, format string, args ...any) error {
	return fault.New(fault.Data, "member %q: "+format, append([]any{name}, args...)...)
}

// Clean gives a member's name as a path inside the tree. A "/" or "./" at its
// beginning is dropped.
func Clean(name string) (string, error) {
	path := strings.TrimSuffix(strings.TrimPrefix(name, "/"), "/")
	if !fs.ValidPath(path) || path == "." || len(path) > maxName {
		var keep []string
		for e := range strings.SplitSeq(name, "/") {
			switch {
			case e == "" || e == ".":
				continue
			case e == "..":
				return "", Bad(name, "leads out of the target")
			case len(e) > maxName:
				return "", Bad(name[:80], "an element of %d bytes", len(e))
			}
			keep = append(keep, e)
		}
		path = strings.Join(keep, "/")
	}
	switch {
	case name == "":
		return "", Bad(name, "has no name")
	case len(name) > MaxPath:
		return "", Bad(name[:80], "a name of %d bytes", len(name))
	case strings.IndexByte(name, 0) >= 0:
		return "", Bad(name, "has a NUL in its name")
	case path != "" && !filepath.IsLocal(path): // what else another system takes for a way out
		return "", Bad(name, "is not a local name")
	}
	return path, nil
}

// Below reports whether path is dir or lies in it.
func Below(path, dir string) bool {
	return dir == "" || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}
