package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"walg/lib/fault"
	"walg/lib/fence"
)

// cage is a target with a neighbourhood that must not change.
type cage struct {
	top, root string
	before    map[string]string
}

func newCage(t testing.TB) *cage {
	c := &cage{top: t.TempDir()}
	c.root = filepath.Join(c.top, "out", "side", "root")
	put(t, c.top, "out/victim", []byte("precious"))
	put(t, c.top, "out/side/dir/victim", []byte("precious"))
	must(t, os.MkdirAll(c.root, 0o755))
	c.before = c.outside(t)
	return c
}

func (c *cage) outside(t testing.TB) map[string]string {
	all := snapshot(t, c.top)
	for p := range all {
		if fence.Below(p, "out/side/root") {
			delete(all, p)
		}
	}
	return all
}

// check proves that nothing changed outside, and that no link leads there.
func (c *cage) check(t testing.TB) {
	t.Helper()
	wantSame(t, c.outside(t), c.before)
	must(t, filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			if real, e := filepath.EvalSymlinks(path); e == nil && !fence.Below(real, c.root) {
				t.Errorf("%s leads to %s", path, real)
			}
		}
		return nil // an unreadable directory is the archive's wish
	}))
}

func TestHostileMembersAreRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, members := range map[string][]tar.Header{
		"parent":                 {regular("../victim", 3)},
		"parent inside":          {regular("a/../../victim", 3)},
		"parent that stays":      {regular("a/../b", 3)},
		"parent at the end":      {folder("a/..")},
		"parent directory":       {folder("..")},
		"parent after slash":     {regular("/../victim", 3)},
		"parent link":            {symlink("../l", "x")},
		"no name":                {{Typeflag: tar.TypeReg, Name: ""}},
		"root as a file":         {{Typeflag: tar.TypeReg, Name: "."}},
		"root as a link":         {symlink(".", "side")},
		"absolute link":          {symlink("l", "/etc")},
		"link up":                {symlink("l", "..")},
		"link up and back":       {symlink("a/l", "../../root/f")},
		"link up from below":     {symlink("a/b/l", "../../../victim")},
		"link up late":           {symlink("s", "."), symlink("a/l", "../s/..")},
		"link without target":    {symlink("l", "x"), {Typeflag: tar.TypeSymlink, Name: "m"}},
		"link target too long":   {symlink("l", strings.Repeat("y/", 2049))},
		"through a link":         {folder("d"), symlink("l", "d"), regular("l/f", 3)},
		"through a link to self": {symlink("l", "."), folder("l/d")},
		"through a file":         {regular("f", 3), regular("f/g", 3)},
		"file over directory":    {folder("d"), regular("d", 3)},
		"link over directory":    {folder("d"), symlink("d", "x")},
		"directory over file":    {regular("d", 3), folder("d")},
		"directory over link":    {folder("e"), symlink("d", "e"), folder("d")},
		"hard link out":          {{Typeflag: tar.TypeLink, Name: "h", Linkname: "../victim"}},
		"hard link absolute":     {{Typeflag: tar.TypeLink, Name: "h", Linkname: "/etc/passwd"}},
		"hard link to nothing":   {{Typeflag: tar.TypeLink, Name: "h", Linkname: "f"}},
		"hard link to directory": {folder("d"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "d"}},
		"hard link to root":      {{Typeflag: tar.TypeLink, Name: "h", Linkname: "."}},
		"hard link to symlink":   {symlink("l", "x"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "l"}},
		"hard link to itself":    {regular("h", 3), {Typeflag: tar.TypeLink, Name: "h", Linkname: "./h"}},
		"hard link through link": {folder("d"), regular("d/f", 3), symlink("l", "d"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "l/f"}},
		"character device":       {{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		"block device":           {{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}},
		"FIFO":                   {{Typeflag: tar.TypeFifo, Name: "p"}},
		"unknown type":           {{Typeflag: 'Z', Name: "z"}},
		"long element":           {regular("d/"+long, 3)},
		"long path":              {regular(strings.Repeat("d/", 2048)+"f", 3)},
		"marker":                 {regular(markerName, 3)},
	} {
		for _, join := range []bool{false, true} {
			c := newCage(t)
			_, err := Extract(ctx, bytes.NewReader(tarOf(t, members...)), Target{Root: c.root, Join: join})
			if fault.Status(err) != fault.Data {
				t.Errorf("%s: %v, status %d", name, err, fault.Status(err))
			} else if last := members[len(members)-1].Name; !strings.Contains(err.Error(), fmt.Sprintf("%.10s", last)) {
				t.Errorf("%s: %v does not name %s", name, err, last)
			}
			c.check(t)
		}
	}
}

func TestNULInNameIsRefused(t *testing.T) {
	if _, err := fence.Clean("a\x00b"); fault.Status(err) != fault.Data {
		t.Error(err)
	}
	b := tarOf(t, regular("é", 0)) // by PAX record
	b = bytes.Replace(b, []byte("path=é\n"), []byte("path=\x00a\n"), 1)
	_, err := Extract(ctx, bytes.NewReader(b), Target{Root: t.TempDir()})
	wantStatus(t, err, 65)
}

func TestExistingLinksAreNotFollowed(t *testing.T) {
	for name, members := range map[string][]tar.Header{
		"file":      {regular("l/f", 3)},
		"directory": {folder("l/d")},
		"itself":    {folder("l")},
		"link":      {symlink("l/s", "x")},
		"hard link": {regular("f", 3), {Typeflag: tar.TypeLink, Name: "l/h", Linkname: "f"}},
		"from":      {{Typeflag: tar.TypeLink, Name: "h", Linkname: "l/victim"}},
	} {
		c := newCage(t)
		must(t, os.Symlink("../../out", filepath.Join(c.root, "m"))) // other links are none of our business
		must(t, os.Remove(filepath.Join(c.root, "m")))
		must(t, os.Symlink("../dir", filepath.Join(c.root, "l")))
		_, err := Extract(ctx, bytes.NewReader(tarOf(t, members...)), Target{Root: c.root, Join: true})
		if fault.Status(err) != fault.Data {
			t.Errorf("%s: %v", name, err)
		}
		wantSame(t, c.outside(t), c.before)
	}
	c := newCage(t)
	must(t, os.Symlink("../dir/victim", filepath.Join(c.root, "f")))
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, regular("f", 3))), Target{Root: c.root, Join: true})
	must(t, err)
	c.check(t)
	if i, err := os.Lstat(filepath.Join(c.root, "f")); err != nil || !i.Mode().IsRegular() {
		t.Errorf("the link was not replaced: %v, %v", i, err)
	}
}

func TestGoodLinksAreKept(t *testing.T) {
	for _, l := range []tar.Header{symlink("l", "f"), symlink("l", "a/../f"), symlink("d/l", "../f"), symlink("d/e/l", "./..//../d/./x"), symlink("d/l", ".."), symlink("l", ".")} {
		out := t.TempDir()
		_, err := Extract(ctx, bytes.NewReader(tarOf(t, l)), Target{Root: out, UnsafeLinks: l.Linkname == "a/../f"})
		must(t, err)
		if got, _ := os.Readlink(filepath.Join(out, l.Name)); got != l.Linkname {
			t.Errorf("%s: %q, want %q", l.Name, got, l.Linkname)
		}
	}
	out := t.TempDir()
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, symlink("l", "/etc"), symlink("m", "../.."))), Target{Root: out, UnsafeLinks: true})
	must(t, err)
	_, err = Extract(ctx, bytes.NewReader(tarOf(t, regular("l/f", 1))), Target{Root: out, UnsafeLinks: true, Join: true})
	wantStatus(t, err, 65, "l/f") // kept, and not followed
}

func TestHardLinksBecomeOneFile(t *testing.T) {
	out := t.TempDir()
	b := tarOf(t, regular("d/f", 5), tar.Header{Typeflag: tar.TypeLink, Name: "e/h", Linkname: "./d/f"}, regular("g", 1), tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "d/f"})
	_, err := Extract(ctx, bytes.NewReader(b), Target{Root: out})
	must(t, err)
	f, err := os.Stat(filepath.Join(out, "d/f"))
	must(t, err)
	for _, name := range []string{"e/h", "g"} {
		if h, err := os.Stat(filepath.Join(out, name)); err != nil || !os.SameFile(f, h) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWALGNamesLandInTheRoot(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	b := tarOf(t, folder("/"), folder("/base"), regular("/base/1/1259", 10), regular("./x", 1), regular(".//y//z", 1), regular("///w", 1), folder("/pg_tblspc"))
	_, err := Extract(ctx, bytes.NewReader(b), Target{Root: out})
	must(t, err)
	for _, name := range []string{"base/1/1259", "x", "y/z", "w", "pg_tblspc"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestOtherWritersHeadersAreRead(t *testing.T) {
	name := strings.Repeat("d/", 100) + strings.Repeat("n", 150)
	for format, h := range map[string]tar.Header{
		"GNU long name":   {Format: tar.FormatGNU, Name: name},
		"PAX name":        {Format: tar.FormatPAX, Name: name},
		"PAX time":        {Format: tar.FormatPAX, Name: "f", ModTime: when},
		"base-256 size":   {Format: tar.FormatGNU, Name: "f", Size: 700},
		"base-256 owner":  {Format: tar.FormatGNU, Name: "f", Uid: 1 << 30},
		"old regular":     {Name: "f", Typeflag: '\x00'},
		"contiguous file": {Name: "f", Typeflag: tar.TypeCont, Size: 3},
	} {
		out := t.TempDir()
		b := tarOf(t, h)
		if format == "base-256 size" {
			b = base256(b)
		}
		_, err := Extract(ctx, bytes.NewReader(b), Target{Root: out})
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		i, err := os.Stat(filepath.Join(out, h.Name))
		if err != nil || i.Size() != h.Size || !h.ModTime.IsZero() && !i.ModTime().Equal(h.ModTime) {
			t.Errorf("%s: %v, %v", format, i, err)
		}
	}
}

// base256 rewrites the size of the first header, which has less than 64 KiB.
func base256(b []byte) []byte {
	var size int
	fmt.Sscanf(string(b[124:135]), "%o", &size)
	copy(b[124:136], []byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(size >> 8), byte(size)})
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestModesTimesAndOwners(t *testing.T) {
	members := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2510, ModTime: when, Uid: 12, Gid: 34},
		{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o6751, ModTime: when, Uid: 12, Gid: 34},
		{Typeflag: tar.TypeDir, Name: "d/e/", Mode: 0o500, ModTime: when.Add(time.Hour)},
		{Typeflag: tar.TypeReg, Name: "d/e/f", Mode: 0o4, ModTime: when},
		{Typeflag: tar.TypeReg, Name: "none", Mode: 0o7, ModTime: when},
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, ModTime: when},
	}
	for _, owner := range []bool{false, true} {
		if owner && os.Geteuid() != 0 {
			continue // only root may
		}
		out := t.TempDir()
		_, err := Extract(ctx, bytes.NewReader(tarOf(t, members...)), Target{Root: out, Owner: owner})
		must(t, err)
		for name, want := range map[string]string{"d": "drwxr-x--x", "d/f": "-rwxr-x--x", "d/e": "dr-x------", "d/e/f": "-------r--", "none": "-------rwx", ".": "drwx--x--x"} {
			if name == "d" {
				want = "dr-x--x---"
			}
			if owner {
				want = map[string]string{"d": "dgr-x--x---", "d/f": "ugrwxr-x--x"}[name] + map[bool]string{true: want}[name != "d" && name != "d/f"]
			}
			i, err := os.Stat(filepath.Join(out, name))
			must(t, err)
			if i.Mode().String() != want || i.ModTime().Unix() != when.Unix() && name != "d/e" {
				t.Errorf("owner %v, %s: %v %v, want %s", owner, name, i.Mode(), i.ModTime(), want)
			}
		}
		if owner {
			if got := snapshot(t, out)["d/f"]; !strings.Contains(got, " 12:34 ") {
				t.Error(got)
			}
		}
		must(t, os.Chmod(filepath.Join(out, "d"), 0o700))
		must(t, os.Chmod(filepath.Join(out, "d/e"), 0o700))
	}
}

func TestManyDirectoriesAreFinishedEarly(t *testing.T) {
	root := t.TempDir()
	f, err := fence.Open(root)
	must(t, err)
	defer f.Close()
	x := newExtractor(Target{Root: root}, f)
	most := 0
	for d := range 50 {
		for _, h := range []tar.Header{folder(fmt.Sprintf("d%d/", d)), folder(fmt.Sprintf("d%d/e/", d)), regular(fmt.Sprintf("d%d/e/f", d), 0)} {
			h.Mode = 0o700
			must(t, x.member(&h, strings.NewReader("")))
		}
		n := 0
		for _, s := range x.pending {
			n += len(s.dirs)
		}
		most = max(most, n-d) // all d are in one directory
	}
	if most > 3 {
		t.Errorf("%d directories more than siblings are pending", most)
	}
	must(t, x.end())
}

func TestNonEmptyTargetIsRefused(t *testing.T) {
	for _, where := range []string{"root", "mount"} {
		root, space := t.TempDir(), t.TempDir()
		put(t, map[string]string{"root": root, "mount": space}[where], "old", nil)
		_, err := Extract(ctx, bytes.NewReader(tarOf(t, regular("f", 1))), Target{Root: root, Mounts: map[string]string{"pg_tblspc/1": space}})
		wantStatus(t, err, 73, "old")
		if fault.Hint(err) == "" {
			t.Error("no hint")
		}
		if _, err := os.Lstat(filepath.Join(root, "pg_tblspc")); err == nil {
			t.Error("something was made in a refused target")
		}
	}
}

func TestJoinReplacesFiles(t *testing.T) {
	root := t.TempDir()
	put(t, root, "d/f", []byte("old and longer"))
	put(t, root, "kept", []byte("kept"))
	must(t, os.Link(filepath.Join(root, "d/f"), filepath.Join(root, "other")))
	must(t, os.Chmod(filepath.Join(root, "d"), 0o500))
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, folder("d"), regular("d/f", 3))), Target{Root: root, Join: true})
	must(t, err)
	for name, want := range map[string]string{"d/f": "xxx", "kept": "kept", "other": "old and longer"} {
		if p, err := os.ReadFile(filepath.Join(root, name)); string(p) != want {
			t.Errorf("%s: %q, %v", name, p, err)
		}
	}
}

func TestLaterMemberReplacesEarlier(t *testing.T) {
	out := t.TempDir()
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, regular("f", 3), regular("f", 5), symlink("f", "g"), regular("f", 4))), Target{Root: out})
	must(t, err)
	if p, err := os.ReadFile(filepath.Join(out, "f")); string(p) != "xxxx" {
		t.Errorf("%q, %v", p, err)
	}
}

func TestMountsAreFilled(t *testing.T) {
	root, space := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "deep", "space")
	b := tarOf(t, folder("./"), folder("pg_tblspc/"), symlink("pg_tblspc/7", "/elsewhere"), folder("pg_tblspc/7/PG_15"), regular("pg_tblspc/7/PG_15/f", 3),
		symlink("pg_tblspc/7/PG_15/l", "../x"), tar.Header{Typeflag: tar.TypeDir, Name: "/pg_tblspc/7", Mode: 0o750, ModTime: when}, regular("pg_tblspc/70", 1))
	_, err := Extract(ctx, bytes.NewReader(b), Target{Root: root, Mounts: map[string]string{"pg_tblspc/7": space}, Sync: true})
	must(t, err)
	if target, err := os.Readlink(filepath.Join(root, "pg_tblspc/7")); err != nil || target != space {
		t.Errorf("%q, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(space, "PG_15/f")); err != nil {
		t.Error(err)
	}
	if i, err := os.Stat(space); err != nil || i.Mode().Perm() != 0o750 || i.ModTime().Unix() != when.Unix() {
		t.Errorf("%v, %v", i, err)
	}
	for name, members := range map[string][]tar.Header{
		"link out of the mount": {symlink("pg_tblspc/7/PG_15/l", "../../x")},
		"file for the mount":    {regular("pg_tblspc/7", 3)},
		"hard link across":      {regular("f", 3), {Typeflag: tar.TypeLink, Name: "pg_tblspc/7/h", Linkname: "f"}},
	} {
		_, err := Extract(ctx, bytes.NewReader(tarOf(t, members...)), Target{Root: root, Mounts: map[string]string{"pg_tblspc/7": space}, Join: true})
		if fault.Status(err) != 65 {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = Extract(ctx, bytes.NewReader(b), Target{Root: root, Mounts: map[string]string{"pg_tblspc/7": t.TempDir()}, Join: true})
	wantStatus(t, err, 73, "pg_tblspc/7")
}

func TestOwnerNeedsRootAndCoversMounts(t *testing.T) {
	root, space := t.TempDir(), filepath.Join(t.TempDir(), "space")
	h := tar.Header{Typeflag: tar.TypeDir, Name: "/pg_tblspc/7/PG_15", Uid: 1234, Gid: 1234}
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, h)), Target{Root: root, Owner: true, Mounts: map[string]string{"pg_tblspc/7": space}})
	if os.Geteuid() != 0 {
		wantStatus(t, err, 1, "pg_tblspc/7")
		return
	}
	must(t, err)
	for path, line := range snapshot(t, space) {
		if !strings.HasSuffix(line, " 1234:1234") {
			t.Errorf("%s: %s", path, line)
		}
	}
}

func TestBadMountsAreUsageErrors(t *testing.T) {
	for _, mounts := range []map[string]string{{"../x": "/y"}, {"": "/y"}, {"x/": "/y"}, {"x": "y"}, {"x": "/y", "z": "/y/"}} {
		_, err := Extract(ctx, bytes.NewReader(tarOf(t)), Target{Root: t.TempDir(), Mounts: mounts})
		wantStatus(t, err, 64)
	}
}

func TestMountLinkChoosesWhereALinkLeads(t *testing.T) {
	root, space := t.TempDir(), filepath.Join(t.TempDir(), "space")
	b := tarOf(t, symlink("pg_tblspc/7", "/old/place"), regular("pg_tblspc/7/f", 3), symlink("l", "f"))
	target := Target{Root: root, MountLink: func(path, to string) (string, error) {
		if path == "pg_tblspc/7" && to == "/old/place" {
			return space, nil
		}
		return "", nil
	}}
	_, err := Extract(ctx, bytes.NewReader(b), target)
	must(t, err)
	if _, err := os.Stat(filepath.Join(space, "f")); err != nil {
		t.Error(err)
	}
	if to, _ := os.Readlink(filepath.Join(root, "pg_tblspc/7")); to != space {
		t.Error(to)
	}
	target.Root = t.TempDir()
	_, err = Extract(ctx, bytes.NewReader(b), target)
	wantStatus(t, err, 73, space) // it is not empty any more
	no := errors.New("no such tablespace")
	target.MountLink = func(string, string) (string, error) { return "", no }
	target.Root = t.TempDir()
	if _, err = Extract(ctx, bytes.NewReader(b), target); !errors.Is(err, no) {
		t.Error(err)
	}
}

func TestEditRewritesWhatItWants(t *testing.T) {
	out := t.TempDir()
	target := Target{Root: out, EditWants: func(p string) bool { return strings.HasPrefix(p, "map") },
		Edit: func(p string, content []byte) ([]byte, error) { return append(content, " edited"...), nil }}
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, regular("map", 2), regular("other", 2))), target)
	must(t, err)
	if p, _ := os.ReadFile(filepath.Join(out, "map")); string(p) != "xx edited" {
		t.Errorf("%q", p)
	}
	if p, _ := os.ReadFile(filepath.Join(out, "other")); string(p) != "xx" {
		t.Errorf("%q", p)
	}
	target.Root = t.TempDir()
	_, err = Extract(ctx, bytes.NewReader(tarOf(t, regular("map", maxHeld+1))), target)
	wantStatus(t, err, 65, "map")
}

func TestLastFilesComeLastOrNever(t *testing.T) {
	control := func(p string) bool { return p == "global/control" }
	good := tarOf(t, folder("global"), regular("global/control", 100), regular("base", 10))
	out := t.TempDir()
	seen := false
	target := Target{Root: out, Last: control, Sync: true, beforeLast: func(paths []string) error {
		_, err := os.Stat(filepath.Join(out, "base"))
		_, absent := os.Stat(filepath.Join(out, "global/control"))
		seen = err == nil && errors.Is(absent, fs.ErrNotExist) && slices.Equal(paths, []string{"global/control"})
		return nil
	}}
	_, err := Extract(ctx, bytes.NewReader(good), target)
	must(t, err)
	i, err := os.Stat(filepath.Join(out, "global/control"))
	if !seen || err != nil || i.Size() != 100 || i.ModTime().Unix() != when.Unix() || i.Mode() != 0o700 {
		t.Errorf("seen %v, %v, %v", seen, i, err)
	}
	if d, _ := os.Stat(filepath.Join(out, "global")); d.ModTime().Unix() != when.Unix() {
		t.Error("the directory lost its time")
	}
	if names, _ := os.ReadDir(filepath.Join(out, "global")); len(names) != 1 {
		t.Errorf("%v", names)
	}
	for name, r := range map[string]io.Reader{
		"truncated": bytes.NewReader(good[:len(good)-1024]),
		"trailer":   io.MultiReader(bytes.NewReader(good), strings.NewReader("x")),
		"died":      io.MultiReader(bytes.NewReader(good), iotest.ErrReader(errDied)),
		"hostile":   bytes.NewReader(tarOf(t, regular("global/control", 100), regular("../x", 1))),
	} {
		target := Target{Root: t.TempDir(), Last: control}
		if _, err := Extract(ctx, r, target); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Lstat(filepath.Join(target.Root, "global/control")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the last file is there (%v)", name, err)
		}
	}
	many := make([]tar.Header, maxLast+1)
	for n := range many {
		many[n] = regular(fmt.Sprint(n), 1)
	}
	_, err = Extract(ctx, bytes.NewReader(tarOf(t, many...)), Target{Root: t.TempDir(), Last: func(string) bool { return true }})
	wantStatus(t, err, 65)
	_, err = Extract(ctx, bytes.NewReader(tarOf(t, regular("f", maxHeld+1))), Target{Root: t.TempDir(), Last: func(string) bool { return true }})
	wantStatus(t, err, 65, "f")
}

func TestUnwritableTargetFails(t *testing.T) {
	if !ordinary(t) {
		return
	}
	root := t.TempDir()
	must(t, os.Chmod(root, 0o500))
	_, err := Extract(ctx, bytes.NewReader(tarOf(t, regular("d/f", 1))), Target{Root: root})
	wantStatus(t, err, 1, "d")
	_, err = Extract(ctx, bytes.NewReader(tarOf(t, regular("f", 1))), Target{Root: filepath.Join(root, "absent")})
	wantStatus(t, err, 1, "absent")
}

func TestCancelEndsTheExtraction(t *testing.T) {
	c, cancel := context.WithCancelCause(ctx)
	cancel(nil)
	if _, err := Extract(c, bytes.NewReader(tarOf(t, regular("f", 1))), Target{Root: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNothingEverLeavesTheRoot(t *testing.T) {
	extracted := 0
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.Custom(func(rt *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "a", "b", ".", "..", ""}), 1, 4).Draw(rt, "elements"), "/")
		})
		member := rapid.Custom(func(rt *rapid.T) tar.Header {
			h := tar.Header{Name: name.Draw(rt, "name"), ModTime: when}
			h.Typeflag = rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink}).Draw(rt, "type")
			switch h.Typeflag {
			case tar.TypeSymlink, tar.TypeLink:
				h.Linkname = name.Draw(rt, "target")
			case tar.TypeReg:
				h.Name, h.Size = strings.TrimRight(h.Name, "/"), 1
			}
			return h
		})
		members := rapid.SliceOfN(member, 1, 10).Draw(rt, "members")
		c := newCage(t)
		target := Target{Root: c.root, Join: rapid.Bool().Draw(rt, "join")}
		if rapid.Bool().Draw(rt, "mount") {
			target.Mounts = map[string]string{"a/b": c.root + "/space"}
		}
		for _, h := range members { // one archive each, so that a refusal does not end the attack
			_, err := Extract(ctx, bytes.NewReader(tarOf(t, h)), target)
			if s := fault.Status(err); s != 0 && s != 1 && s != fault.Data && s != fault.Exists {
				rt.Errorf("status %d: %v", s, err)
			}
			if err == nil {
				extracted++
			}
			target.Join = true
		}
		c.check(t)
		must(t, os.RemoveAll(c.top))
	})
	if extracted == 0 {
		t.Error("everything was refused: nothing was tried")
	}
	t.Log(extracted, "members extracted")
}

func TestTruncationAnywhereIsNoticed(t *testing.T) {
	whole := mixed(t)
	top := t.TempDir()
	for at := 0; at < len(whole); at++ {
		if at%512 > 3 && at%512 != 100 && at%512 != 257 && at%512 != 511 {
			continue
		}
		root := fmt.Sprintf("%s/%d", top, at)
		must(t, os.Mkdir(root, 0o700))
		for name, r := range map[string]io.Reader{"": bytes.NewReader(whole[:at]), "one byte at a time": iotest.OneByteReader(bytes.NewReader(whole[:at])), "data with EOF": iotest.DataErrReader(bytes.NewReader(whole[:at]))} {
			if _, err := Extract(ctx, r, Target{Root: root, Join: true}); fault.Status(err) != fault.Data {
				t.Errorf("cut at %d %s: %v", at, name, err)
			}
		}
		// a producer that says why it stopped is believed before the guess of truncation
		for name, r := range map[string]io.Reader{
			"":                io.MultiReader(bytes.NewReader(whole[:at]), iotest.ErrReader(errDied)),
			"data with error": &errWithData{whole[:at]},
		} {
			if _, err := Extract(ctx, r, Target{Root: root, Join: true}); err != error(errDied) {
				t.Errorf("died at %d %s: %v", at, name, err)
			}
		}
	}
	_, err := Extract(ctx, iotest.HalfReader(bytes.NewReader(whole)), Target{Root: t.TempDir()})
	must(t, err)
}

// errWithData gives its last bytes together with the error.
type errWithData struct{ p []byte }

func (r *errWithData) Read(p []byte) (int, error) {
	n := copy(p, r.p)
	if r.p = r.p[n:]; len(r.p) == 0 {
		return n, errDied
	}
	return n, nil
}

func FuzzExtract(f *testing.F) {
	f.Add(mixed(f))
	for _, members := range [][]tar.Header{
		{regular("../x", 1)}, {symlink("l", ".."), regular("l/f", 1)}, {symlink("s", "."), symlink("a/l", "../s/.."), regular("a/l/x", 1)},
		{folder("d"), symlink("d/l", "../d"), regular("d/l/f", 1)}, {regular("f", 1), {Typeflag: tar.TypeLink, Name: "h", Linkname: "f"}, regular("h", 2)},
		{folder("pg_tblspc"), symlink("pg_tblspc/1", "/"), regular("pg_tblspc/1/f", 1)},
	} {
		f.Add(tarOf(f, members...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := tar.NewReader(bytes.NewReader(b))
		for total := int64(0); ; { // a sparse member of any size costs its author nothing
			h, err := tr.Next()
			if err != nil {
				break
			}
			if total += h.Size; total > 1<<20 || h.Size < 0 {
				return
			}
		}
		for _, target := range []Target{{}, {Join: true, Last: func(p string) bool { return len(p) == 1 }, Mounts: map[string]string{"pg_tblspc/1": ""}}} {
			c := newCage(t)
			target.Root = c.root
			if target.Mounts != nil {
				target.Mounts = map[string]string{"pg_tblspc/1": c.root + "/space"}
			}
			_, err := Extract(ctx, bytes.NewReader(b), target)
			if s := fault.Status(err); s != 0 && s != 1 && s != fault.Data {
				t.Errorf("status %d: %v", s, err)
			}
			c.check(t)
		}
	})
}
