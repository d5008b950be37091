package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/pipe"
	"walg/lib/tarball/unpack"
)

// extraction is one run of extract.
type extraction struct {
	e       *cli.Env
	dir     string
	mapping []string // OLD=NEW
	target  unpack.Target

	mu     sync.Mutex
	mounts map[string]string // of tablespaces: place in the tree to directory
}

func extract(f *cli.Flags) cli.Run {
	begin := f.String("begin", "", "", "", "prepare DIR for the backup of this `name`; the input is its sentinel")
	join := f.Bool("join", "", "", "extract one part of several into the DIR of --begin")
	finish := f.Bool("finish", "", "", "extract the last part, pg_control, into the DIR of --begin when all else is there and durable")
	mapping := f.Strings("tablespace-mapping", "T", "put the tablespace of directory OLD into NEW, as `old=new`; may be repeated")
	spec := f.String("restore-spec", "", "", "", "take the places of tablespaces from this JSON `file`, as WAL-G writes it")
	unsafe := f.Bool("unsafe-links", "", "", "keep symbolic links that lead out of DIR")
	streams := f.Input(false)

	return func(ctx context.Context, e *cli.Env) error {
		dir, rest, err := directory(e, 1)
		if err != nil {
			return err
		}
		if n := count(*begin != "", *join, *finish); n > 1 {
			return fault.New(fault.Usage, "--begin, --join and --finish exclude each other")
		}
		x := &extraction{e: e, dir: dir, mapping: *mapping, mounts: map[string]string{}}
		for _, m := range x.mapping {
			if from, to, ok := strings.Cut(m, "="); !ok || from == "" || !filepath.IsAbs(to) {
				return fault.New(fault.Usage, "--tablespace-mapping %s: not OLD=NEW with an absolute NEW", m)
			}
		}
		in, err := streams.Open(ctx, e, rest)
		if err != nil {
			return err
		}
		defer in.Close()
		x.target = unpack.Target{
			Root:        dir,
			Last:        func(path string) bool { return path == controlFile },
			EditWants:   func(path string) bool { return path == "tablespace_map" },
			Edit:        x.editMap,
			MountLink:   x.tablespaceLink,
			Owner:       isRoot(),
			Sync:        true,
			UnsafeLinks: *unsafe,
		}
		switch {
		case *begin != "":
			return x.begin(*begin, *spec, in)
		case *join:
			return x.join(ctx, in)
		case *finish:
			return x.finish(ctx, in)
		}
		if _, err = unpack.Extract(ctx, in, x.target); err == nil {
			err = x.own(x.mounts)
		}
		return err
	}
}

func count(conditions ...bool) (n int) {
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

// begin prepares the directory and makes the links of tablespaces, as the
// sentinel's Spec, the file in its place, or the mapping says.
func (x *extraction) begin(name, specFile string, in *pipe.Input) error {
	sentinel, err := catalog.ReadSentinel(name, in)
	if err != nil {
		return err
	}
	if sentinel.Delta() {
		return fault.WithHint(fault.New(fault.Usage, "restore %s: delta backups are not supported by this version", name),
			"restore it with WAL-G")
	}
	places := sentinel.Spec
	if specFile != "" {
		text, err := os.ReadFile(specFile)
		if err != nil {
			return err
		}
		places = &catalog.Spec{}
		if err := places.UnmarshalJSON(text); err != nil {
			return fault.New(fault.Data, "restore spec %s: %w", specFile, err)
		}
	}
	known := map[string]bool{}
	if places != nil {
		for _, t := range places.Tablespaces {
			known[filepath.Clean(t.Location)] = true
			x.mounts[t.Link] = t.Location
			if to, ok := x.mapped(t.Location); ok {
				x.mounts[t.Link] = to
			}
		}
	}
	for _, m := range x.mapping {
		if from, _, _ := strings.Cut(m, "="); !known[filepath.Clean(from)] {
			x.e.Warn("--tablespace-mapping %s: the backup has no tablespace in %s", m, from)
		}
	}
	return unpack.Begin(x.dir, name, x.mounts)
}

func (x *extraction) join(ctx context.Context, in *pipe.Input) (err error) {
	if x.mounts, err = unpack.Mounts(x.dir); err != nil {
		return err
	}
	x.target.Mounts, x.target.Join, x.target.Sync = x.mounts, true, false
	_, err = unpack.Extract(ctx, in, x.target)
	return err
}

// finish checks that what it makes startable is a backup: without its label a
// server would recover from the wrong place and lose data in silence.
func (x *extraction) finish(ctx context.Context, in *pipe.Input) error {
	label := filepath.Join(x.dir, "backup_label")
	if _, err := os.Lstat(label); err != nil {
		return fault.WithHint(fault.New(fault.Data, "finish %s: no backup_label: the restore is not complete", x.dir),
			"restore backup_label.tar with --join first")
	}
	mounts, err := unpack.Mounts(x.dir)
	if err != nil {
		return err
	}
	if err := x.own(mounts, "backup_label", "tablespace_map"); err != nil {
		return err
	}
	_, err = unpack.Finish(ctx, x.dir, in, x.target)
	return err
}

// mapped returns the new place of a tablespace's directory.
func (x *extraction) mapped(dir string) (string, bool) {
	for _, m := range x.mapping {
		if from, to, _ := strings.Cut(m, "="); filepath.Clean(from) == filepath.Clean(dir) {
			return filepath.Clean(to), true
		}
	}
	return "", false
}

var tablespace = regexp.MustCompile(`^pg_tblspc/([0-9]+)$`)

// tablespaceLink decides about a link at the place of a tablespace in a stream:
// it leads out of the tree, so only the user can approve it.
func (x *extraction) tablespaceLink(path, to string) (string, error) {
	if !tablespace.MatchString(path) {
		return "", nil
	}
	dir, ok := x.mapped(to)
	if !ok {
		return "", fault.WithHint(fault.New(fault.Usage, "extract %s: the tablespace lies in %s, outside of the target", path, to),
			"say where it shall be: --tablespace-mapping %s=NEW; NEW may be the same", to)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mounts[path] = dir
	return dir, nil
}

// editMap puts the new places into tablespace_map, from which the server makes
// its links when it recovers. A line is an OID, a space and a path in which a
// backslash guards what would end it.
func (x *extraction) editMap(_ string, content []byte) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out bytes.Buffer
	for line := range bytes.Lines(content) {
		oid, _, ok := bytes.Cut(line, []byte(" "))
		dir := x.mounts["pg_tblspc/"+string(oid)]
		if !ok || dir == "" {
			out.Write(line)
			continue
		}
		quoted := strings.NewReplacer(`\`, `\\`, "\n", "\\\n", "\r", "\\\r").Replace(dir)
		fmt.Fprintf(&out, "%s %s\n", oid, quoted)
	}
	return out.Bytes(), nil
}

// own gives what no member of an archive says the owner of, the directories of
// tablespaces, and files that WAL-G stores as root's, to whom PG_VERSION
// belongs: the server cannot read them otherwise.
func (x *extraction) own(mounts map[string]string, names ...string) error {
	if !isRoot() {
		return nil
	}
	root, err := os.OpenRoot(x.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	like, err := root.Lstat("PG_VERSION")
	if os.IsNotExist(err) {
		return nil // no data directory
	}
	for _, name := range names {
		if err == nil {
			err = chownLike(like, func(uid, gid int) error { return root.Lchown(name, uid, gid) })
		}
		if os.IsNotExist(err) {
			err = nil
		}
	}
	for _, dir := range mounts {
		if err == nil {
			err = chownLike(like, func(uid, gid int) error { return os.Lchown(dir, uid, gid) })
		}
	}
	if err != nil {
		return fmt.Errorf("restore owner: %w", err)
	}
	return nil
}
