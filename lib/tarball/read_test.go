package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/tarball/tartest"
)

var ctx = context.Background()

var (
	must       = tartest.Must
	wantStatus = tartest.WantStatus
	tarOf      = tartest.TarOf
	regular    = tartest.Regular
	mixed      = tartest.Mixed
	errDied    = tartest.ErrDied
)

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
	if err := List(ctx, bytes.NewReader(b), &tartest.ShortWriter{N: 10}); !errors.Is(err, tartest.ErrFull) {
		t.Error(err)
	}
}
