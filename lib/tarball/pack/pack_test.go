package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walg/lib/dirfd"
	"walg/lib/tarball/tartest"
	"walg/lib/tarball/unpack"
	"walg/lib/tree"
)

func TestRoundTripKeepsEverything(t *testing.T) {
	root := sampleTree(t)
	for _, prefix := range []string{"", "/"} {
		out := filepath.Join(t.TempDir(), "out")
		tot, err := unpack.Extract(ctx, bytes.NewReader(archive(t, Source{Root: root, Prefix: prefix})), unpack.Target{Root: out, Owner: os.Geteuid() == 0, Sync: prefix == ""})
		must(t, err)
		t.Cleanup(func() { os.Chmod(filepath.Join(out, "dir"), 0o755) })
		want := snapshot(t, root)
		if os.Geteuid() != 0 { // setuid goes with the owner
			want["a0"] = strings.Replace(want["a0"], "urwx", "-rwx", 1)
		}
		wantSame(t, snapshot(t, out), want)
		if tot.Files+tot.Dirs+tot.Links != int64(len(want)) {
			t.Errorf("%+v of %d", tot, len(want))
		}
	}
}

func TestGNUTarReadsOurs(t *testing.T) {
	root, out := sampleTree(t), t.TempDir()
	must(t, os.Chmod(filepath.Join(root, "dir"), 0o755)) // tar closes it at dir-b, before dir/x comes
	cmd := exec.Command("tar", "-xpf", "-", "-C", out)
	cmd.Stdin = bytes.NewReader(archive(t, Source{Root: root}))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, msg)
	}
	must(t, os.Chtimes(filepath.Join(out, "dir"), when, when)) // for the same reason
	wantSame(t, snapshot(t, out), snapshot(t, root))
}

func TestWeReadOtherTars(t *testing.T) {
	root := sampleTree(t)
	for _, format := range []string{"gnu", "posix", "oldgnu"} {
		t.Run(format, func(t *testing.T) {
			b, err := exec.Command("tar", "--format", format, "-C", root, "-cf", "-", ".").Output()
			must(t, err)
			out := filepath.Join(t.TempDir(), "out")
			_, err = unpack.Extract(ctx, bytes.NewReader(b), unpack.Target{Root: out, Owner: os.Geteuid() == 0})
			must(t, err)
			t.Cleanup(func() { os.Chmod(filepath.Join(out, "dir"), 0o755) })
			want := snapshot(t, root)
			if os.Geteuid() != 0 {
				want["a0"] = strings.Replace(want["a0"], "urwx", "-rwx", 1)
			}
			wantSame(t, snapshot(t, out), want)
			a, err := os.Stat(filepath.Join(out, "a"))
			must(t, err)
			if format == "posix" && !a.ModTime().Equal(when) {
				t.Errorf("time %v, want %v", a.ModTime(), when)
			}
		})
	}
}

func TestFormatIsUSTARWherePossible(t *testing.T) {
	root := t.TempDir()
	put(t, root, "d/f", []byte("hello"))
	b := archive(t, Source{Root: root, Prefix: "/"})
	if len(b) != 3*512+512+1024 {
		t.Errorf("%d bytes: want the headers of /, /d and /d/f, one block and two zero blocks", len(b))
	}
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if h.Format != tar.FormatUSTAR || h.Uid != os.Getuid() || h.Gid != os.Getgid() && runtime.GOOS == "linux" {
			t.Errorf("%s: %v, owner %d:%d", h.Name, h.Format, h.Uid, h.Gid)
		}
		if os.Getuid() == 0 && (h.Uname != "root" || h.Gname != "root") {
			t.Errorf("%s: owner %q:%q", h.Name, h.Uname, h.Gname)
		}
	}
}

func TestPAXCarriesWhatUSTARCannot(t *testing.T) {
	for _, i := range []dirfd.Info{{Size: 9 << 30}, {UID: 3_000_000}, {ModTime: time.Unix(-1, 0)}} {
		b, err := appendHeader(nil, newOwners().header("x", &i, ""))
		must(t, err)
		h, err := tar.NewReader(bytes.NewReader(b)).Next()
		must(t, err)
		if h.Format != tar.FormatPAX || h.Size != i.Size || h.Uid != i.UID || !i.ModTime.IsZero() && !h.ModTime.Equal(i.ModTime) {
			t.Errorf("%+v became %+v", i, h)
		}
	}
}

func TestNamesFollowThePrefix(t *testing.T) {
	root := t.TempDir()
	for _, n := range []string{"a", "dir/x", "dir-b/y", "dir.c"} {
		put(t, root, n, nil)
	}
	for prefix, want := range map[string]string{
		"":  "./ a dir/ dir-b/ dir-b/y dir.c dir/x",
		"/": "/ /a /dir /dir-b /dir-b/y /dir.c /dir/x",
	} {
		if got := strings.Join(memberNames(t, archive(t, Source{Root: root, Prefix: prefix})), " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestWalkIsInByteOrderOfFullPaths(t *testing.T) {
	top := t.TempDir()
	var n int
	rapid.Check(t, func(rt *rapid.T) {
		n++
		root := filepath.Join(top, fmt.Sprint(n))
		must(t, os.Mkdir(root, 0o755))
		element := rapid.StringOfN(rapid.SampledFrom([]rune("a-.0b~é\x01")), 1, 3, -1).Filter(func(s string) bool { return s != "." && s != ".." })
		paths := []string{""}
		for _, elements := range rapid.SliceOfN(rapid.SliceOfN(element, 1, 4), 0, 25).Draw(rt, "paths") {
			path := filepath.Join(elements...)
			if os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755) != nil {
				continue // through a file
			}
			if f, err := os.OpenFile(filepath.Join(root, path), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
				f.Close()
			}
		}
		must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if path != root {
				paths = append(paths, path[len(root)+1:])
			}
			return err
		}))
		slices.Sort(paths)
		var got []string
		for _, name := range memberNames(t, archive(t, Source{Root: root, Prefix: "/"})) {
			got = append(got, name[1:])
		}
		if !slices.Equal(got, paths) {
			rt.Fatalf("%q, want %q", got, paths)
		}
	})
}

func TestFilterVerdicts(t *testing.T) {
	root := t.TempDir()
	elsewhere := t.TempDir()
	must(t, os.Chmod(elsewhere, 0o711))
	for _, n := range []string{"keep/f", "skip/f", "skip-not/f", "skipped", "hollow/f", "hollow/d/f", "defer"} {
		put(t, root, n, []byte(n))
	}
	must(t, os.Symlink(elsewhere, filepath.Join(root, "hollow-link")))
	put(t, elsewhere, "f", nil)
	asked := map[string]bool{}
	src := Source{Root: root, Filter: func(path string, fi fs.FileInfo) tree.Verdict {
		asked[path] = true
		if fi.Name() != filepath.Base(path) {
			t.Errorf("%s is called %s", path, fi.Name())
		}
		switch path {
		case "skip", "skipped":
			return tree.Skip
		case "hollow", "hollow-link":
			return tree.Hollow
		case "defer":
			return tree.Defer
		}
		return tree.Keep
	}}
	b := archive(t, src)
	if got := strings.Join(memberNames(t, b), " "); got != "./ hollow/ hollow-link/ keep/ keep/f skip-not/ skip-not/f" {
		t.Error(got)
	}
	if asked["skip/f"] || asked["hollow/f"] {
		t.Error("asked for what a skipped directory holds")
	}
	tr := tar.NewReader(bytes.NewReader(b))
	for h, err := tr.Next(); err == nil; h, err = tr.Next() {
		if h.Name == "hollow-link/" && h.Mode != 0o711 {
			t.Errorf("mode %o, want that of the target", h.Mode)
		}
	}
	src.Filter = func(path string, _ fs.FileInfo) tree.Verdict {
		if path == "x" {
			return tree.Hollow
		}
		return tree.Keep
	}
	must(t, os.Symlink("skipped", filepath.Join(root, "x")))
	if _, err := NewWriter(io.Discard).Tree(ctx, src); err == nil || !strings.Contains(err.Error(), "x") {
		t.Errorf("a link to a file became a directory: %v", err)
	}
}

func TestMountsAreWalkedInTheirPlace(t *testing.T) {
	root, space := t.TempDir(), t.TempDir()
	put(t, root, "pg_tblspc/", nil)
	put(t, root, "pg_tblspc0", nil)
	put(t, space, "PG_15/f", []byte("x"))
	must(t, os.Symlink(space, filepath.Join(root, "pg_tblspc/7")))
	must(t, os.Symlink("/nowhere", filepath.Join(root, "pg_tblspc/70")))
	src := Source{Root: root, Mounts: []tree.Mount{{Path: "pg_tblspc/7", Dir: space}}}
	if got := strings.Join(memberNames(t, archive(t, src)), " "); got != "./ pg_tblspc/ pg_tblspc/7/PG_15/ pg_tblspc/7/PG_15/f pg_tblspc/70 pg_tblspc0" {
		t.Error(got)
	}
	src.Mounts[0].Link = true
	b := archive(t, src)
	if got := strings.Join(memberNames(t, b), " "); got != "./ pg_tblspc/ pg_tblspc/7 pg_tblspc/7/PG_15/ pg_tblspc/7/PG_15/f pg_tblspc/70 pg_tblspc0" {
		t.Error(got)
	}
	tr := tar.NewReader(bytes.NewReader(b))
	for h, err := tr.Next(); err == nil; h, err = tr.Next() {
		if h.Name == "pg_tblspc/7" && (h.Typeflag != tar.TypeSymlink || h.Linkname != space) {
			t.Errorf("%+v", h)
		}
	}
	src.Mounts[0].Path = "pg_tblspc/absent/7"
	if _, err := NewWriter(io.Discard).Tree(ctx, src); err == nil || !strings.Contains(err.Error(), "pg_tblspc/absent/7") {
		t.Errorf("a mount that was never met: %v", err)
	}
}

func TestMembersAreReported(t *testing.T) {
	root := t.TempDir()
	put(t, root, "d/f", []byte("hello"))
	put(t, root, "big", make([]byte, chunkSize+1))
	must(t, os.Symlink("d", filepath.Join(root, "l")))
	var got []string
	var b bytes.Buffer
	w := NewWriter(&b)
	tot, err := w.Tree(ctx, Source{Root: root, Prefix: "/", Member: func(m Member) {
		got = append(got, fmt.Sprintf("%s %d %d %v %v", m.Name, m.Part, m.Size, m.Dir, m.Link))
		if m.Name == "/d/f" && !m.ModTime.Equal(when) {
			t.Errorf("time %v, want %v", m.ModTime, when)
		}
	}})
	must(t, err)
	want := "/ 1 0 true false,/big 1 1048577 false false,/d 1 0 true false,/d/f 1 5 false false,/l 1 0 false true"
	if s := strings.Join(got, ","); s != want {
		t.Errorf("%s, want %s", s, want)
	}
	if tot.Files != 2 || tot.Dirs != 2 || tot.Links != 1 || tot.Bytes != 1048582 || tot.Walked < tot.Bytes {
		t.Errorf("%+v", tot)
	}
}

func TestFileAddsAMember(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	must(t, w.File("backup_label", 0o600, time.Unix(0, 0), []byte("START")))
	must(t, w.File("tablespace_map", 0o600, time.Unix(0, 0), nil))
	must(t, w.Close())
	if b.Len() != 5*512 {
		t.Errorf("%d bytes", b.Len())
	}
	out := t.TempDir()
	_, err := unpack.Extract(ctx, &b, unpack.Target{Root: out})
	must(t, err)
	if p, err := os.ReadFile(filepath.Join(out, "backup_label")); err != nil || string(p) != "START" {
		t.Errorf("%q, %v", p, err)
	}
}

func TestFilesThatAreNoneAreLeftOut(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", nil)
	l, err := net.Listen("unix", filepath.Join(root, "socket"))
	must(t, err)
	defer l.Close()
	must(t, mkfifo(filepath.Join(root, "fifo")))
	var warned warnings
	b := archive(t, Source{Root: root, Warn: warned.warn})
	if got := strings.Join(memberNames(t, b), " "); got != "./ f" {
		t.Error(got)
	}
	if !warned.mentions("fifo", "FIFO") || !warned.mentions("socket") || len(warned.all) != 2 {
		t.Errorf("warnings %q", warned.all)
	}
}

// The live tree rules. The hooks change a file at an exact moment: Filter runs
// between lstat and open, Inspect between two chunks.

func TestVanishedFileIsLeftOut(t *testing.T) {
	for _, live := range []bool{true, false} {
		root := t.TempDir()
		for _, n := range []string{"a", "b", "c", "dir/f", "z"} {
			put(t, root, n, []byte(n))
		}
		var warned warnings
		b := archive(t, Source{Root: root, Live: live, Warn: warned.warn, Filter: func(path string, fi fs.FileInfo) tree.Verdict {
			switch path {
			case "a": // after the listing, before lstat
				must(t, os.Remove(filepath.Join(root, "b")))
			case "c": // after lstat, before open
				must(t, os.Remove(filepath.Join(root, "c")))
			case "dir":
				must(t, os.RemoveAll(filepath.Join(root, "dir")))
			}
			return tree.Keep
		}})
		if got := strings.Join(memberNames(t, b), " "); got != "./ a dir/ z" {
			t.Error(got)
		}
		if len(warned.all) != 3 || !warned.mentions("/b", "vanished") || !warned.mentions("/c", "vanished") || !warned.mentions("/dir", "vanished") {
			t.Errorf("warnings %q", warned.all)
		}
	}
}

func TestFileReplacedByFIFOIsLeftOut(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", []byte("x"))
	put(t, root, "g", []byte("x"))
	b := archive(t, Source{Root: root, Filter: func(path string, fi fs.FileInfo) tree.Verdict {
		must(t, os.Remove(filepath.Join(root, path)))
		if path == "f" {
			must(t, mkfifo(filepath.Join(root, path)))
		} else {
			must(t, os.Symlink("/etc/passwd", filepath.Join(root, path)))
		}
		return tree.Keep
	}})
	if got := strings.Join(memberNames(t, b), " "); got != "./" {
		t.Error(got)
	}
}

func TestGrownFileIsCut(t *testing.T) {
	root := t.TempDir()
	put(t, root, "big", bytes.Repeat([]byte("a"), 3*chunkSize+5))
	put(t, root, "small", []byte("before"))
	grow := func(path, s string) {
		f, err := os.OpenFile(filepath.Join(root, path), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(s)
		must(t, err)
		must(t, f.Close())
	}
	b := archive(t, Source{Root: root,
		Filter: func(path string, fi fs.FileInfo) tree.Verdict {
			if path == "small" { // what it has when it is opened is what counts
				grow("small", " and after")
			}
			return tree.Keep
		},
		Inspect: func(path string, off int64, p []byte, _ io.ReaderAt) error {
			if path == "big" && off == 0 {
				grow("big", "more")
			}
			return nil
		}})
	out := t.TempDir()
	_, err := unpack.Extract(ctx, bytes.NewReader(b), unpack.Target{Root: out})
	must(t, err)
	if p, _ := os.ReadFile(filepath.Join(out, "big")); len(p) != 3*chunkSize+5 {
		t.Errorf("big has %d bytes", len(p))
	}
	if p, _ := os.ReadFile(filepath.Join(out, "small")); string(p) != "before and after" {
		t.Errorf("small is %q", p)
	}
}

func TestSmallFileThatOutgrowsItsBatchIsStreamed(t *testing.T) {
	root := t.TempDir()
	put(t, root, "a", []byte("x"))
	put(t, root, "b", []byte("y"))
	b := archive(t, Source{Root: root, Filter: func(path string, fi fs.FileInfo) tree.Verdict {
		if path == "a" {
			must(t, os.Truncate(filepath.Join(root, "a"), 2*chunkSize))
		}
		return tree.Keep
	}})
	if got := strings.Join(memberNames(t, b), " "); got != "./ a b" || len(b) != 3*512+2*chunkSize+512+1024 {
		t.Errorf("%s, %d bytes", got, len(b))
	}
}

func TestShrunkFileIsPaddedOrAnError(t *testing.T) {
	content := bytes.Repeat([]byte("a"), 3*chunkSize+5)
	for cut := range []int{0, 1, 5} {
		root := t.TempDir()
		src := Source{Root: root, Inspect: func(path string, off int64, p []byte, _ io.ReaderAt) error {
			if off == 0 {
				must(t, os.Truncate(filepath.Join(root, path), int64(chunkSize+cut)))
			}
			return nil
		}}
		put(t, root, "f", content)
		w := NewWriter(io.Discard)
		_, err := w.Tree(ctx, src)
		wantStatus(t, err, 1, "/f", "shrank")
		if err := w.Close(); err == nil {
			t.Error("a failed archive got its end")
		}

		var warned warnings
		src.Live, src.Warn = true, warned.warn
		put(t, root, "f", content)
		out := t.TempDir()
		_, err = unpack.Extract(ctx, bytes.NewReader(archive(t, src)), unpack.Target{Root: out})
		must(t, err)
		p, _ := os.ReadFile(filepath.Join(out, "f"))
		want := append(content[:chunkSize:chunkSize], make([]byte, 2*chunkSize+5)...)
		// read ahead of the truncation is allowed to have seen more, but here Inspect holds it up
		copy(want[chunkSize:], content[:cut])
		if !bytes.Equal(p, want) {
			t.Errorf("cut at %d: %d bytes, not what was there and zeros", cut, len(p))
		}
		if !warned.mentions("/f", "shrank") {
			t.Errorf("warnings %q", warned.all)
		}
	}
}

func TestReadErrorFails(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", make([]byte, 2*chunkSize))
	for _, live := range []bool{true, false} {
		w := NewWriter(io.Discard)
		_, err := w.Tree(ctx, Source{Root: root, Live: live, Inspect: func(_ string, _ int64, _ []byte, f io.ReaderAt) error {
			return breakFile(filepath.Join(root, "f"), f)
		}})
		wantStatus(t, err, 1, "read "+root+"/f")
	}
}

func TestInspectErrorFails(t *testing.T) {
	for _, size := range []int{10, smallFile + 1, 3 * chunkSize} {
		root := t.TempDir()
		put(t, root, "f", make([]byte, size))
		no := errors.New("page 3 is torn")
		_, err := NewWriter(io.Discard).Tree(ctx, Source{Root: root, Inspect: func(string, int64, []byte, io.ReaderAt) error { return no }})
		if !errors.Is(err, no) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestInspectSeesAndChangesEachChunk(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", bytes.Repeat([]byte("a"), 2*chunkSize+10))
	put(t, root, "g", bytes.Repeat([]byte("a"), 10))
	put(t, root, "none", nil)
	var seen atomic.Int64
	b := archive(t, Source{Root: root, Inspect: func(path string, off int64, p []byte, f io.ReaderAt) error {
		if off%chunkSize != 0 || path == "none" {
			t.Errorf("%s at %d", path, off)
		}
		again := make([]byte, len(p))
		if n, err := f.ReadAt(again, off); n != len(p) || err != nil || !bytes.Equal(again, p) {
			t.Errorf("reading %s again: %d, %v", path, n, err)
		}
		if n, err := f.ReadAt(again, off+1<<30); n != 0 || err != io.EOF {
			t.Errorf("reading beyond the end: %d, %v", n, err)
		}
		seen.Add(int64(len(p)))
		copy(p, "B")
		return nil
	}})
	if seen.Load() != 2*chunkSize+20 {
		t.Errorf("saw %d bytes", seen.Load())
	}
	if n := bytes.Count(b, []byte("Baaaaaaaaa")); n != 4 {
		t.Errorf("%d chunks changed", n)
	}
}

func TestUnreadableFileOrDirectoryFails(t *testing.T) {
	if !ordinary(t) {
		return
	}
	for _, name := range []string{"f", "big", "d/"} {
		root := t.TempDir()
		put(t, root, "before", nil)
		put(t, root, name, make([]byte, map[bool]int{true: chunkSize}[name == "big"]))
		must(t, os.Chmod(filepath.Join(root, name), 0))
		_, err := NewWriter(io.Discard).Tree(ctx, Source{Root: root, Live: true})
		wantStatus(t, err, 1, filepath.Join(root, name))
		if !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		must(t, os.Chmod(filepath.Join(root, name), 0o700))
	}
}

func TestAbsentRootFails(t *testing.T) {
	root := filepath.Join(t.TempDir(), "absent")
	_, err := NewWriter(io.Discard).Tree(ctx, Source{Root: root})
	wantStatus(t, err, 66, root)
}

func TestWriteErrorEndsTheArchive(t *testing.T) {
	root := sampleTree(t)
	whole := len(archive(t, Source{Root: root}))
	for n := 0; n < whole; n += whole/37 + 1 {
		w := NewWriter(&tartest.ShortWriter{N: n})
		_, err := w.Tree(ctx, Source{Root: root})
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, tartest.ErrFull) || !errors.Is(w.Close(), tartest.ErrFull) {
			t.Fatalf("after %d bytes: %v, then %v", n, err, w.Close())
		}
	}
}

func TestCancelEndsTheArchive(t *testing.T) {
	root := sampleTree(t)
	stop := errors.New("stopped")
	for _, after := range []int{1, 2, 300, 600} {
		c, cancel := context.WithCancelCause(ctx)
		n := 0
		w := NewWriter(io.Discard)
		_, err := w.Tree(c, Source{Root: root, Member: func(Member) {
			if n++; n == after {
				cancel(stop)
			}
		}})
		if !errors.Is(err, stop) || w.Close() == nil {
			t.Errorf("after %d: %v", after, err)
		}
	}
}

func TestMemoryDoesNotGrowWithTheNumberOfFiles(t *testing.T) {
	root := t.TempDir()
	const files = 20_000
	put(t, root, "content", []byte("content"))
	for d := range 20 {
		must(t, os.Mkdir(filepath.Join(root, fmt.Sprint(d)), 0o755))
		for n := range files / 20 {
			must(t, os.Link(filepath.Join(root, "content"), filepath.Join(root, fmt.Sprint(d), fmt.Sprintf("file-%d", n)))) // quicker to make
		}
	}
	var walked atomic.Int64
	var written, most int64
	var base, heap runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	_, err := NewWriter(io.Discard).Tree(ctx, Source{Root: root,
		Filter: func(string, fs.FileInfo) tree.Verdict { walked.Add(1); return tree.Keep },
		Member: func(Member) {
			written++
			most = max(most, walked.Load()-written)
			if written%(files/4) == 0 {
				runtime.GC()
				runtime.ReadMemStats(&heap)
				if grown := int64(heap.HeapAlloc) - int64(base.HeapAlloc); grown > 2*inFlight*batchSize {
					t.Errorf("after %d files %d bytes in use", written, grown)
				}
			}
		}})
	must(t, err)
	if written < files || most > (inFlight+1)*batchFiles {
		t.Errorf("%d files, up to %d on their way", written, most)
	}
}
