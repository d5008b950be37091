package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/fault"
)

var errDied = fault.New(fault.Unearned, "the producer died")

// mixed is an archive with each kind of header block.
func mixed(t testing.TB) []byte {
	return tarOf(t, folder("./"), regular("empty", 0), regular("f", 700), regular("g", 512), symlink("l", "f"),
		tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "f"},
		tar.Header{Format: tar.FormatGNU, Name: strings.Repeat("long/", 30) + "f", Size: 5},
		tar.Header{Format: tar.FormatPAX, Name: strings.Repeat("pax/", 80) + "é", Size: 5, ModTime: when}, regular("z", 1500))
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

func TestWhatFollowsTheEnd(t *testing.T) {
	whole := mixed(t)
	none := func(*tar.Header, io.Reader) error { return nil }
	must(t, Read(ctx, io.MultiReader(bytes.NewReader(whole), bytes.NewReader(make([]byte, 1<<20+1))), none))
	for _, after := range []int{0, 1, 511, 512, 100_000} {
		junk := append(make([]byte, after), 'x')
		wantStatus(t, Read(ctx, io.MultiReader(bytes.NewReader(whole), bytes.NewReader(junk)), none), 65, "follow")
		err := Read(ctx, io.MultiReader(bytes.NewReader(whole), bytes.NewReader(junk[:after]), iotest.ErrReader(errDied)), none)
		if err != error(errDied) {
			t.Errorf("%d bytes after the end: %v", after, err)
		}
	}
	must(t, Read(ctx, bytes.NewReader(make([]byte, 1024)), none)) // an empty archive
	for _, n := range []int{512, 513, 1023} {
		wantStatus(t, Read(ctx, bytes.NewReader(make([]byte, n)), none), 65)
	}
	wantStatus(t, Read(ctx, strings.NewReader(""), none), 65, "empty")
	wantStatus(t, Read(ctx, strings.NewReader(strings.Repeat("not a tar ", 1000)), none), 65, "not a tar archive")
}

func TestDamagedHeaderIsRefused(t *testing.T) {
	b := tarOf(t, regular("a", 10), regular("b", 10))
	b[1024+3] ^= 1
	wantStatus(t, Read(ctx, bytes.NewReader(b), func(*tar.Header, io.Reader) error { return nil }), 65, "1536")
	copy(b[1024:], make([]byte, 512)) // one zero block, then data
	wantStatus(t, Read(ctx, bytes.NewReader(b), func(*tar.Header, io.Reader) error { return nil }), 65)
}

func TestReadGivesContents(t *testing.T) {
	var got []string
	err := Read(ctx, bytes.NewReader(tarOf(t, regular("a", 3), regular("skipped", 70_000), regular("b", 2))), func(h *tar.Header, r io.Reader) error {
		if h.Name == "skipped" {
			return nil
		}
		p, err := io.ReadAll(r)
		got = append(got, h.Name+string(p))
		return err
	})
	if err != nil || strings.Join(got, " ") != "axxx bxx" {
		t.Errorf("%q, %v", got, err)
	}
	no := errors.New("no")
	if err := Read(ctx, bytes.NewReader(tarOf(t, regular("a", 3))), func(*tar.Header, io.Reader) error { return no }); err != no {
		t.Error(err)
	}
}

func TestReaderThatMakesNoProgress(t *testing.T) {
	err := Read(ctx, stuck{}, nil)
	if err != io.ErrNoProgress {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestList(t *testing.T) {
	at := time.Date(2026, 11, 22, 15, 55, 7, 0, time.UTC)
	b := tarOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1777, ModTime: at},
		tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o4640, Size: 1234, ModTime: at},
		tar.Header{Typeflag: tar.TypeReg, Name: "new\nline\x1b[1m\\é", Mode: 0o2755, ModTime: at},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "d/f", Mode: 0o777, ModTime: at},
		tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "d/f", Mode: 0o600, ModTime: at},
		tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o600, ModTime: at})
	var out strings.Builder
	must(t, List(ctx, bytes.NewReader(b), &out))
	want := `drwxrwxrwt            0 2026-11-22T15:55:07Z d/
-rwSr-----         1234 2026-11-22T15:55:07Z d/f
-rwxr-sr-x            0 2026-11-22T15:55:07Z new\012line\033[1m\\é
lrwxrwxrwx            0 2026-11-22T15:55:07Z l -> d/f
hrw-------            0 2026-11-22T15:55:07Z h link to d/f
?rw-------            0 2026-11-22T15:55:07Z p
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	wantStatus(t, List(ctx, bytes.NewReader(b[:len(b)-1]), io.Discard), 65)
	if err := List(ctx, bytes.NewReader(b), &shortWriter{10}); !errors.Is(err, errFull) {
		t.Error(err)
	}
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
