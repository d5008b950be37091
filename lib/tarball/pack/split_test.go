package pack

import (
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
	"sync"
	"testing"

	"pgregory.net/rapid"

	"walg/lib/tarball"
	"walg/lib/tarball/unpack"
	"walg/lib/tree"
)

// memParts keeps parts in memory.
type memParts struct {
	mu    sync.Mutex
	parts map[int]*memPart
	open  int
	most  int
}

type memPart struct {
	bytes.Buffer
	all    *memParts
	closes int
	err    error
}

func (m *memParts) Open(n int) (Part, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parts == nil {
		m.parts = map[int]*memPart{}
	}
	if m.parts[n] != nil {
		return nil, fmt.Errorf("part %d opened twice", n)
	}
	m.open++
	m.most = max(m.most, m.open)
	m.parts[n] = &memPart{all: m}
	return m.parts[n], nil
}

func (p *memPart) Close(err error) error {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	p.closes++
	p.err = err
	p.all.open--
	return nil
}

// wantParts is the rule: a part ends after the member with which it exceeds size.
func wantParts(names []string, sizes map[string]int64, size int64) [][]string {
	parts := [][]string{nil}
	var n int64
	for _, name := range names {
		if size > 0 && n > size {
			parts = append(parts, nil)
			n = 0
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], name)
		n += sizes[name]
	}
	return parts
}

func TestSplitPartsEndAfterTheMemberThatExceedsSize(t *testing.T) {
	top := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		root := filepath.Join(top, fmt.Sprint(round))
		must(t, os.Mkdir(root, 0o755))
		sizes := map[string]int64{}
		for _, p := range rapid.SliceOfNDistinct(rapid.StringMatching(`(a-?|b)(/c0?(/[ab-])?)?/f[12]`), 0, 30, rapid.ID[string]).Draw(rt, "paths") {
			sizes["/"+p] = rapid.Int64Range(0, 9).Draw(rt, "size")
			put(t, root, p, make([]byte, sizes["/"+p]))
		}
		skip := rapid.SampledFrom([]string{"", "a", "b/c"}).Draw(rt, "hollow")
		src := Source{Root: root, Prefix: "/", Filter: func(path string, _ fs.FileInfo) tree.Verdict {
			if path == skip {
				return tree.Hollow
			}
			return tree.Keep
		}}
		size, jobs := rapid.Int64Range(0, 20).Draw(rt, "part size"), rapid.IntRange(1, 4).Draw(rt, "jobs")
		want := wantParts(memberNames(t, archive(t, src)), sizes, size)
		m := &memParts{}
		src.Member = func(got Member) {
			if !slices.Contains(want[got.Part-1], got.Name) {
				rt.Errorf("%s reported in part %d", got.Name, got.Part)
			}
		}
		tot, err := Split(ctx, src, SplitOptions{Size: size, Jobs: jobs, Open: m.Open})
		must(t, err)
		if len(m.parts) != len(want) || tot.Parts != len(want) || m.most > jobs {
			rt.Fatalf("%d parts, total says %d, want %d; %d at once", len(m.parts), tot.Parts, len(want), m.most)
		}
		for n, names := range want {
			p := m.parts[n+1]
			if p.closes != 1 || p.err != nil {
				rt.Errorf("part %d closed %d times, %v", n+1, p.closes, p.err)
			}
			if got := memberNames(t, p.Bytes()); !slices.Equal(got, names) {
				rt.Errorf("part %d: %q, want %q", n+1, got, names)
			}
		}
	})
}

func TestSplitPartsTogetherAreTheTree(t *testing.T) {
	root := sampleTree(t)
	m := &memParts{}
	tot, err := Split(ctx, Source{Root: root}, SplitOptions{Size: 600_000, Jobs: 3, Open: m.Open})
	must(t, err)
	out := filepath.Join(t.TempDir(), "out")
	var again tarball.Totals
	for n := range len(m.parts) {
		got, err := unpack.Extract(ctx, m.parts[len(m.parts)-n], unpack.Target{Root: out, Join: true, Owner: os.Geteuid() == 0})
		must(t, err)
		again.Add(got)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(out, "dir"), 0o755) })
	if tot.Files != again.Files || tot.Bytes != again.Bytes || len(m.parts) < 3 {
		t.Errorf("%+v in %d parts became %+v", tot, len(m.parts), again)
	}
	got, want := snapshot(t, out), snapshot(t, root)
	if len(got) != len(want) {
		t.Errorf("%d paths, want %d", len(got), len(want))
	}
	for p, line := range want {
		if line[0] == '-' && got[p] != line && p != "a0" { // directories of several parts keep no time
			t.Errorf("%s: %q, want %q", p, got[p], line)
		}
	}
}

func TestSplitWarnsOnce(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", nil)
	must(t, os.Symlink("/dev/null", filepath.Join(root, "l")))
	put(t, root, "gone", nil)
	var warned warnings
	_, err := Split(ctx, Source{Root: root, Warn: warned.warn, Filter: func(path string, fi fs.FileInfo) tree.Verdict {
		if path == "f" {
			os.Remove(filepath.Join(root, "gone"))
		}
		return tree.Keep
	}}, SplitOptions{Jobs: 2, Open: (&memParts{}).Open})
	must(t, err)
	if len(warned.all) > 1 {
		t.Errorf("warnings %q", warned.all)
	}
}

func TestSplitFailureGivesUpAllParts(t *testing.T) {
	root := sampleTree(t)
	no := errors.New("no more")
	for name, open := range map[string]func(*memParts) func(int) (Part, error){
		"open": func(m *memParts) func(int) (Part, error) {
			return func(n int) (Part, error) {
				if n == 2 {
					return nil, no
				}
				return m.Open(n)
			}
		},
		"write": func(m *memParts) func(int) (Part, error) {
			return func(n int) (Part, error) {
				p, err := m.Open(n)
				if n == 2 {
					return failingPart{p, no, nil}, err
				}
				return p, err
			}
		},
		"close": func(m *memParts) func(int) (Part, error) {
			return func(n int) (Part, error) {
				p, err := m.Open(n)
				if n == 2 {
					return failingPart{p, nil, no}, err
				}
				return p, err
			}
		},
	} {
		m := &memParts{}
		_, err := Split(ctx, Source{Root: root}, SplitOptions{Size: 100_000, Jobs: 2, Open: open(m)})
		if !errors.Is(err, no) || !strings.Contains(err.Error(), "part 2") {
			t.Errorf("%s: %v", name, err)
		}
		for n, p := range m.parts {
			if p.closes != 1 {
				t.Errorf("%s: part %d closed %d times", name, n, p.closes)
			}
			if n == 2 && name == "write" && !errors.Is(p.err, no) {
				t.Errorf("%s: part 2 was closed with %v", name, p.err)
			}
		}
	}
}

type failingPart struct {
	Part
	write, close error
}

func (p failingPart) Write(b []byte) (int, error) {
	if p.write != nil {
		return 0, p.write
	}
	return p.Part.Write(b)
}

func (p failingPart) Close(err error) error {
	if e := p.Part.Close(err); e != nil {
		return e
	}
	return p.close
}

func TestSplitReadErrorGivesUpItsPart(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", make([]byte, 10))
	no := errors.New("torn")
	m := &memParts{}
	_, err := Split(ctx, Source{Root: root, Inspect: func(string, int64, []byte, io.ReaderAt) error { return no }}, SplitOptions{Open: m.Open})
	if !errors.Is(err, no) || !errors.Is(m.parts[1].err, no) {
		t.Errorf("%v, part %v", err, m.parts[1].err)
	}
}

func TestSplitCancelled(t *testing.T) {
	root := sampleTree(t)
	c, cancel := context.WithCancelCause(ctx)
	stop := errors.New("stopped")
	m := &memParts{}
	n := 0
	_, err := Split(c, Source{Root: root, Member: func(Member) {
		if n++; n == 20 {
			cancel(stop)
		}
	}}, SplitOptions{Size: 1000, Jobs: 2, Open: m.Open})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	for n, p := range m.parts {
		if p.closes != 1 {
			t.Errorf("part %d closed %d times", n, p.closes)
		}
	}
}

func TestSplitOfAnAbsentRootFails(t *testing.T) {
	m := &memParts{}
	_, err := Split(ctx, Source{Root: filepath.Join(t.TempDir(), "absent")}, SplitOptions{Open: m.Open})
	wantStatus(t, err, 66, "absent")
	if len(m.parts) != 0 {
		t.Error("a part was begun")
	}
}
