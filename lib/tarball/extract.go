package tarball

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"walg/lib/fault"
)

// The bounds of what an archive may ask for.
const (
	maxName    = 255     // bytes in one element of a path
	maxPath    = 4096    // bytes in a path or link target
	maxHeld    = 1 << 20 // bytes in a file for Last or Edit
	maxLast    = 16      // files held back
	maxPending = 1 << 16 // directories of one parent whose mode and time are still to be set
)

// Target is where an archive goes. Root and Mounts are directories that are
// made, with mode 0700, where they are absent.
type Target struct {
	Root   string
	Mounts map[string]string // place in the tree to absolute directory; the link is made before any member
	Join   bool              // the target may hold files; they are replaced. Else it and the mounts must be empty

	// Last chooses files that are held back in memory (16, 1 MiB each) and
	// written, each under a temporary name and then renamed, after everything
	// else is there, and with Sync durable. On any error they are not written.
	Last func(path string) bool
	// Edit rewrites the files, up to 1 MiB, that EditWants chooses.
	EditWants func(path string) bool
	Edit      func(path string, content []byte) ([]byte, error)
	// MountLink says for a symlink member to which directory it shall lead, to
	// make it a mount; "" leaves it an ordinary symlink. Places in Mounts are not asked for.
	MountLink func(path, target string) (dir string, err error)

	Owner       bool // give files the archive's user and group id, and setuid, setgid and sticky bits
	Sync        bool // make everything durable at the end
	UnsafeLinks bool // keep symlinks that lead out of the tree

	beforeLast func(paths []string) error // everything else is durable now
}

// Extract writes an archive below t.Root and never elsewhere: no symbolic link
// below the root is followed. What it refuses in an archive has status 65, a
// target that is not empty 73. A leading "/" or "./" of a name is dropped.
// After an error what was written stays, without the files of Last.
func Extract(ctx context.Context, r io.Reader, t Target) (Totals, error) {
	x := &extractor{Target: t, buf: make([]byte, chunkSize)}
	defer x.close()
	if err := x.vet(); err != nil {
		return x.tot, err
	}
	if err := x.begin(); err != nil {
		return x.tot, err
	}
	if err := Read(ctx, r, x.member); err != nil {
		return x.tot, err
	}
	return x.tot, x.end()
}

type extractor struct {
	Target
	root     *dir
	mounts   []mount
	cur      *dir // the directory of the last member, to open the next one there
	curPath  string
	pending  []siblings
	rootMeta *meta // waits for the end
	held     []heldFile
	buf      []byte
	tot      Totals
}

type mount struct {
	path string
	dir  *dir
}

// place is a name in an open directory. top is the root or mount that holds it
// and path leads there from it.
type place struct {
	top, dir   *dir
	path, name string
}

// meta is what a file gets besides contents.
type meta struct {
	mode     fs.FileMode
	mtime    time.Time
	uid, gid int
	owner    bool
}

// siblings are the directories below one parent whose modes and times wait for
// their contents.
type siblings struct {
	parent string
	dirs   []pendingDir
}

type pendingDir struct {
	path string
	meta meta
}

type heldFile struct {
	path    string
	meta    meta
	content []byte
}

// bad is an archive that we refuse.
func bad(name, format string, args ...any) error {
	return fault.New(fault.Data, "member %q: "+format, append([]any{name}, args...)...)
}

// failed is the target system's error; its status is 1 also where it is, say,
// fs.ErrNotExist, which would read as "no such object".
func failed(op, path string, err error) error {
	return fault.New(fault.Failed, "%s %s: %w", op, path, err)
}

func (x *extractor) where(path string) string { return filepath.Join(x.Root, path) }

func (x *extractor) close() {
	x.leave()
	for _, m := range x.mounts {
		m.dir.close()
	}
	if x.root != nil {
		x.root.close()
	}
}

// leave forgets the current directory.
func (x *extractor) leave() {
	if x.cur != nil {
		x.cur.close()
		x.cur = nil
	}
}

// begin opens root and mounts. Write errors of a file system are reported to
// descriptors that were open when they came up, so these stay open.
func (x *extractor) begin() (err error) {
	if x.root == nil {
		if x.root, err = openTop(x.Root); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(x.Mounts)) {
		if err := x.mount(path, x.Mounts[path]); err != nil {
			return err
		}
	}
	return nil
}

// vet refuses a target before anything is made.
func (x *extractor) vet() error {
	used := map[string]string{}
	for path, dir := range x.Mounts {
		if p, err := clean(path); err != nil || p != path || p == "" {
			return fault.New(fault.Usage, "mount %q: not a relative path", path)
		}
		if !filepath.IsAbs(dir) {
			return fault.New(fault.Usage, "mount %s: %q is not an absolute path", path, dir)
		}
		if other, ok := used[filepath.Clean(dir)]; ok {
			return fault.New(fault.Usage, "mount %s: %s is taken by %s", path, dir, other)
		}
		used[filepath.Clean(dir)] = path
	}
	if x.Join {
		return nil
	}
	if err := checkEmpty(x.Root); err != nil {
		return err
	}
	for _, dir := range x.Mounts {
		if err := checkEmpty(dir); err != nil {
			return err
		}
	}
	return nil
}

// openTop opens a directory that the operator named, making it where it is absent.
func openTop(path string) (*dir, error) {
	err := os.MkdirAll(path, 0o700)
	if err == nil {
		var d *dir
		if d, err = openDir(path); err == nil {
			return d, nil
		}
	}
	return nil, failed("extract to", path, err)
}

// checkEmpty refuses a directory that holds anything.
func checkEmpty(path string) error {
	d, err := openDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	found := ""
	if err == nil {
		err = d.list(make([]byte, 4096), func(name []byte, _ bool) {
			if string(name) != lastTemp { // of a restore that ended before it had begun
				found = string(name)
			}
		})
		d.close()
	}
	if err != nil {
		return failed("extract to", path, err)
	}
	if found != "" {
		err := fault.New(fault.Exists, "extract to %s: the directory is not empty, it holds %q", path, found)
		return fault.WithHint(err, "choose an empty or absent directory, or remove what is in this one")
	}
	return nil
}

// mount opens target and links to it from path.
func (x *extractor) mount(path, target string) error {
	at, err := x.enter(path)
	if err != nil {
		return err
	}
	if err := at.symlink(target, base(path)); errors.Is(err, fs.ErrExist) {
		if old, e := at.readlink(base(path)); e != nil || old != target {
			return fault.New(fault.Exists, "link %s to %s: something else is there", x.where(path), target)
		}
	} else if err != nil {
		return failed("link", x.where(path), err)
	}
	d, err := openTop(target)
	if err != nil {
		return err
	}
	x.mounts = append(x.mounts, mount{path, d})
	return nil
}

func (x *extractor) isMount(path string) bool {
	return slices.ContainsFunc(x.mounts, func(m mount) bool { return m.path == path })
}

// clean gives a member's name as a path inside the package, "" for the root.
func clean(name string) (string, error) {
	path := strings.TrimSuffix(strings.TrimPrefix(name, "/"), "/")
	if !fs.ValidPath(path) || path == "." || len(path) > maxName {
		var keep []string
		for e := range strings.SplitSeq(name, "/") {
			switch {
			case e == "" || e == ".":
				continue
			case e == "..":
				return "", bad(name, "leads out of the target")
			case len(e) > maxName:
				return "", bad(name[:80], "an element of %d bytes", len(e))
			}
			keep = append(keep, e)
		}
		path = strings.Join(keep, "/")
	}
	switch {
	case name == "":
		return "", bad(name, "has no name")
	case len(name) > maxPath:
		return "", bad(name[:80], "a name of %d bytes", len(name))
	case strings.IndexByte(name, 0) >= 0:
		return "", bad(name, "has a NUL in its name")
	case path != "" && !filepath.IsLocal(path): // what else another system takes for a way out
		return "", bad(name, "is not a local name")
	}
	return path, nil
}

// locate returns the root or mount in which path lies, and the path from there.
func (x *extractor) locate(path string) (top *dir, rest string) {
	top, rest = x.root, path
	for _, m := range x.mounts {
		if below(path, m.path) && len(path)-len(m.path) <= len(rest) { // the innermost
			top, rest = m.dir, strings.TrimPrefix(path[len(m.path):], "/")
		}
	}
	return top, rest
}

// enter opens the directory of path, making it where it is absent; it stays
// open until the next call.
func (x *extractor) enter(member string) (*dir, error) {
	path := parent(member)
	if x.cur != nil && x.curPath == path {
		return x.cur, nil
	}
	if err := x.settle(path); err != nil {
		return nil, err
	}
	d, err := x.open(path, member, true)
	if err != nil {
		return nil, err
	}
	x.leave()
	x.cur, x.curPath = d, path
	return d, nil
}

// open opens a directory element by element, from the current one where path
// lies in it, on behalf of a member. It follows no link and makes what is
// absent if it shall.
func (x *extractor) open(path, member string, create bool) (*dir, error) {
	from, rest := x.locate(path)
	if x.cur != nil && x.curPath != "" && below(path, x.curPath) && len(path)-len(x.curPath) <= len(rest) {
		from, rest = x.cur, strings.TrimPrefix(path[len(x.curPath):], "/")
	}
	d, err := from.openDir(".")
	if err != nil {
		return nil, failed("open", x.where(path), err)
	}
	for rest != "" {
		name, after, _ := strings.Cut(rest, "/")
		next, err := d.openDir(name)
		if create && errors.Is(err, fs.ErrNotExist) {
			if err = d.mkdir(name); err == nil || errors.Is(err, fs.ErrExist) { // another process may join too
				next, err = d.openDir(name)
			}
		}
		d.close()
		if err != nil && gone(err) && !errors.Is(err, fs.ErrNotExist) {
			return nil, bad(member, "runs through %q, which is not a directory", name)
		}
		if err != nil {
			return nil, failed("open", x.where(path), err)
		}
		d, rest = next, after
	}
	return d, nil
}

func (x *extractor) member(h *tar.Header, content io.Reader) error {
	path, err := clean(h.Name)
	if err != nil {
		return err
	}
	m := meta{mode: h.FileInfo().Mode() &^ fs.ModeType, mtime: h.ModTime, uid: h.Uid, gid: h.Gid, owner: x.Owner}
	if !x.Owner {
		m.mode = m.mode.Perm() // a setuid file of another owner is another thing
	}
	if h.Typeflag != tar.TypeDir && (path == "" || x.isMount(path)) {
		if path != "" && h.Typeflag == tar.TypeSymlink {
			return nil // the mount's own link is there
		}
		return bad(h.Name, "is the place of a directory")
	}
	if strings.EqualFold(path, markerName) { // it would tell the next restore where to write
		return bad(h.Name, "is the mark of an unfinished restore")
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(h, path, m, content)
	case tar.TypeDir:
		return x.directory(h, path, m)
	case tar.TypeSymlink:
		return x.symlink(h, path, m)
	case tar.TypeLink:
		return x.hardLink(h, path)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return bad(h.Name, "is a device or FIFO")
	}
	return bad(h.Name, "is of the unknown type %q", h.Typeflag)
}

func (x *extractor) file(h *tar.Header, path string, m meta, content io.Reader) error {
	last, edit := x.Last != nil && x.Last(path), x.EditWants != nil && x.EditWants(path)
	x.tot.Files++
	if !last && !edit {
		d, err := x.enter(path)
		if err != nil {
			return err
		}
		return x.write(d, path, m, content, h.Size)
	}
	if h.Size > maxHeld {
		return bad(h.Name, "%d bytes, too large to hold in memory", h.Size)
	}
	p, err := io.ReadAll(content)
	if err != nil {
		return bad(h.Name, "%w", err)
	}
	if edit {
		if p, err = x.Edit(path, p); err != nil {
			return err
		}
	}
	if !last {
		d, err := x.enter(path)
		if err != nil {
			return err
		}
		return x.write(d, path, m, strings.NewReader(string(p)), int64(len(p)))
	}
	x.held = slices.DeleteFunc(x.held, func(o heldFile) bool { return o.path == path }) // a later member replaces an earlier
	if len(x.held) == maxLast {
		return bad(h.Name, "more than %d files to hold back", maxLast)
	}
	x.held = append(x.held, heldFile{path, m, p})
	return nil
}

// free makes a name free for a new file or link. A directory stays.
func (x *extractor) free(d *dir, path string) error {
	i, err := d.lstat(base(path))
	if err == nil && i.IsDir() {
		return bad(path, "is a directory here")
	}
	if err == nil {
		err = d.remove(base(path))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("replace", x.where(path), err)
	}
	return nil
}

func (x *extractor) write(d *dir, path string, m meta, content io.Reader, size int64) error {
	name := base(path)
	f, err := d.create(name)
	if errors.Is(err, fs.ErrExist) {
		if err := x.free(d, path); err != nil {
			return err
		}
		f, err = d.create(name)
	}
	if err != nil {
		return failed("create", x.where(path), err)
	}
	for off := int64(0); off < size; {
		p := x.buf[:min(int64(len(x.buf)), size-off)]
		if _, err := io.ReadFull(content, p); err != nil {
			f.close() // unfinished anyway
			return bad(path, "%w", err)
		}
		if _, err := f.Write(p); err != nil {
			f.close()
			return failed("write", x.where(path), err)
		}
		off += int64(len(p))
	}
	if err := d.finish(f, name, m, x.Sync && !syncsAll); err != nil {
		return failed("write", x.where(path), err)
	}
	x.tot.Bytes += size
	return nil
}

func (x *extractor) directory(h *tar.Header, path string, m meta) error {
	x.tot.Dirs++
	if path == "" {
		x.rootMeta = &m
		return nil
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	if !x.isMount(path) {
		err = d.mkdir(base(path))
		if errors.Is(err, fs.ErrExist) {
			err = x.reuse(d, path)
		} else if err != nil {
			err = failed("make", x.where(path), err)
		}
	}
	if err == nil && x.Owner && x.isMount(parent(path)) {
		err = x.adopt(d, path, m)
	}
	if err != nil {
		return err
	}
	return x.suspend(path, m)
}

// adopt gives a mount that root made the owner of a directory in it. An archive
// has not always a member for the mount itself.
func (x *extractor) adopt(d *dir, path string, m meta) error {
	i, err := d.lstat(".")
	if err == nil && i.uid == 0 && m.uid != 0 {
		err = d.apply(meta{mode: i.mode, mtime: i.mtime, uid: m.uid, gid: m.gid, owner: true})
	}
	if err != nil {
		return failed("set owner of", x.where(parent(path)), err)
	}
	return nil
}

// reuse lets us write into a directory that is there already, whatever its
// mode: an interrupted restore may have finished it.
func (x *extractor) reuse(d *dir, path string) error {
	i, err := d.lstat(base(path))
	if err != nil {
		return failed("stat", x.where(path), err)
	}
	if !i.IsDir() {
		return bad(path, "is something else than a directory here")
	}
	if i.mode&0o700 == 0o700 {
		return nil
	}
	sub, err := d.openDir(base(path))
	if err == nil {
		err = sub.apply(meta{mode: i.mode | 0o700, mtime: i.mtime})
		sub.close()
	}
	if err != nil {
		return failed("make writable", x.where(path), err)
	}
	return nil
}

// suspend keeps a directory's mode and time until its contents are there. What
// is pending forms a chain: the parent of each siblings lies in the one before.
func (x *extractor) suspend(path string, m meta) error {
	if n := len(x.pending); n == 0 || x.pending[n-1].parent != parent(path) {
		x.pending = append(x.pending, siblings{parent: parent(path)})
	}
	s := &x.pending[len(x.pending)-1]
	s.dirs = append(s.dirs, pendingDir{path, m})
	if len(s.dirs) >= maxPending {
		return x.release()
	}
	return nil
}

// settle finishes the directories whose contents must be complete now that a
// member comes in the directory path, outside their parents.
func (x *extractor) settle(path string) error {
	for n := len(x.pending); n > 0 && !below(path, x.pending[n-1].parent); n-- {
		if err := x.release(); err != nil {
			return err
		}
	}
	return nil
}

// release finishes the last siblings. A directory named twice keeps what was said last.
func (x *extractor) release() error {
	n := len(x.pending) - 1
	s := x.pending[n]
	x.pending = x.pending[:n]
	for _, p := range s.dirs {
		d, err := x.open(p.path, p.path, false)
		if err != nil {
			return err
		}
		err = d.apply(p.meta)
		d.close()
		if err != nil {
			return failed("set mode of", x.where(p.path), err)
		}
	}
	return nil
}

// stays reports whether a symlink at path cannot lead out of its root or mount,
// whatever links lie on its way: it goes up only at its beginning, where the
// directories are real ones, and not too far.
func (x *extractor) stays(path, target string) bool {
	if filepath.IsAbs(target) || filepath.VolumeName(target) != "" || strings.HasPrefix(target, "/") {
		return false
	}
	_, rest := x.locate(path)
	up, down := 0, false
	for e := range strings.SplitSeq(filepath.ToSlash(target), "/") {
		switch e {
		case "", ".":
		case "..":
			if up++; down {
				return false
			}
		default:
			down = true
		}
	}
	return up <= strings.Count(rest, "/")
}

func (x *extractor) symlink(h *tar.Header, path string, m meta) error {
	target := h.Linkname
	if target == "" || len(target) > maxPath || strings.IndexByte(target, 0) >= 0 {
		return bad(h.Name, "a link without a proper target")
	}
	x.tot.Links++
	if x.MountLink != nil {
		dir, err := x.MountLink(path, target)
		if err != nil {
			return err
		}
		if dir != "" {
			return x.mountLate(path, dir)
		}
	}
	if !x.UnsafeLinks && !x.stays(path, target) {
		return bad(h.Name, "links to %q, which may lead out of the target", target)
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	err = d.symlink(target, base(path))
	if errors.Is(err, fs.ErrExist) {
		if err := x.free(d, path); err != nil {
			return err
		}
		err = d.symlink(target, base(path))
	}
	if err == nil {
		err = d.applyLink(base(path), m)
	}
	if err != nil {
		return failed("link", x.where(path), err)
	}
	return nil
}

// mountLate mounts what MountLink chose.
func (x *extractor) mountLate(path, dir string) error {
	if x.Mounts == nil {
		x.Mounts = map[string]string{}
	} else {
		x.Mounts = maps.Clone(x.Mounts) // the caller's
	}
	x.Mounts[path] = dir
	if err := (&extractor{Target: Target{Join: true, Mounts: x.Mounts}}).vet(); err != nil {
		return err
	}
	if !x.Join {
		if err := checkEmpty(dir); err != nil {
			return err
		}
	}
	return x.mount(path, dir)
}

func (x *extractor) hardLink(h *tar.Header, path string) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return bad(h.Name, "links to %q, which is not in the target", h.Linkname)
	}
	d, err := x.enter(path)
	if err != nil {
		return err
	}
	from, err := x.open(parent(target), path, false)
	if err == nil {
		defer from.close()
		var i info
		if i, err = from.lstat(base(target)); err == nil && !i.mode.IsRegular() {
			err = fs.ErrNotExist
		}
	}
	if errors.Is(err, fs.ErrNotExist) || target == "" || target == path {
		return bad(h.Name, "links to %q, which is not a file extracted before", h.Linkname)
	}
	if err != nil {
		return err
	}
	oldTop, oldPath := x.locate(target)
	newTop, newPath := x.locate(path)
	if oldTop != newTop {
		return bad(h.Name, "links to %q across file systems", h.Linkname)
	}
	old, at := place{oldTop, from, oldPath, base(target)}, place{newTop, d, newPath, base(path)}
	x.tot.Links++
	if err = link(old, at); errors.Is(err, fs.ErrExist) {
		if err := x.free(d, path); err != nil {
			return err
		}
		err = link(old, at)
	}
	if err != nil {
		return failed("link", x.where(path), err)
	}
	return nil
}

// end finishes the directories, makes all durable, and then writes the files
// that were held back.
func (x *extractor) end() error {
	var paths []string
	for _, o := range x.held {
		if _, err := x.enter(o.path); err != nil { // its directory must be durable before
			return err
		}
		paths = append(paths, o.path)
	}
	for len(x.pending) > 0 {
		if err := x.release(); err != nil {
			return err
		}
	}
	if x.rootMeta != nil {
		if err := x.root.apply(*x.rootMeta); err != nil {
			return failed("set mode of", x.Root, err)
		}
	}
	if x.Sync {
		if err := x.root.syncAll(); err != nil {
			return failed("sync", x.Root, err)
		}
		for _, m := range x.mounts {
			if err := m.dir.syncAll(); err != nil {
				return failed("sync", x.where(m.path), err)
			}
		}
	}
	if x.beforeLast != nil {
		if err := x.beforeLast(paths); err != nil {
			return err
		}
	}
	for _, o := range x.held {
		d, err := x.enter(o.path)
		if err == nil {
			err = d.replace(base(o.path), o.content, o.meta)
		}
		if err != nil {
			return failed("write", x.where(o.path), err)
		}
		x.tot.Bytes += int64(len(o.content))
	}
	return nil
}

// lastTemp is the name that a file has until it is durable.
const lastTemp = ".walg-last"

// replace makes a file appear under its name whole and durable, or not at all,
// and keeps the directory's time.
func (d *dir) replace(name string, content []byte, m meta) error {
	before, err := d.lstat(".")
	if err != nil {
		return err
	}
	if err := d.remove(lastTemp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was interrupted
		return err
	}
	f, err := d.create(lastTemp)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if e := d.finish(f, lastTemp, m, true); err == nil {
		err = e
	}
	if err == nil {
		err = d.rename(lastTemp, name)
	}
	if err != nil {
		d.remove(lastTemp) // best effort: err says more
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	d.apply(meta{mode: before.mode, mtime: before.mtime}) // only for looks
	return nil
}
