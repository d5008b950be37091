package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fill(t testing.TB, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(p)), 0o700))
		must(t, os.WriteFile(filepath.Join(root, p), []byte(p), 0o600))
	}
}

// paths walks a range.
func paths(t testing.TB, tree Tree, from, to string) (all []string, walked int64) {
	t.Helper()
	walked, err := tree.Walk(from, to, func(e *Entry) error {
		all = append(all, e.Path)
		return nil
	})
	must(t, err)
	return all, walked
}

func TestRangesTogetherAreTheWholeWalk(t *testing.T) {
	top, round := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		root := filepath.Join(top, fmt.Sprint(round))
		must(t, os.Mkdir(root, 0o700))
		fill(t, root, rapid.SliceOfNDistinct(rapid.StringMatching(`(a[-0]?|b)(/c0?(/[ab-])?)?/f[12]`), 0, 20, rapid.ID[string]).Draw(rt, "paths")...)
		tree := Tree{Root: root}
		whole, size := paths(t, tree, "", "")
		if !slices.IsSorted(whole) {
			rt.Errorf("not in byte order: %q", whole)
		}
		cuts := rapid.SliceOfN(rapid.SampledFrom(whole), 0, 4).Draw(rt, "cuts")
		cuts = slices.DeleteFunc(cuts, func(p string) bool { return p == "" }) // the root begins the first range anyway
		slices.Sort(cuts)
		cuts = append(slices.Compact(cuts), "")
		var together []string
		var sum int64
		from := ""
		for _, to := range cuts {
			part, n := paths(t, tree, from, to)
			together, sum, from = append(together, part...), sum+n, to
		}
		if !slices.Equal(together, whole) || sum != size {
			rt.Errorf("cut at %q: %q with %d bytes, want %q with %d", cuts, together, sum, whole, size)
		}
	})
}

func TestVisitorsErrorEndsTheWalk(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "a", "b")
	stop, n := errors.New("enough"), 0
	_, err := (&Tree{Root: root}).Walk("", "", func(*Entry) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestRetainedEntryCanBeOpenedAfterItsVisit(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "d/f", "e/f")
	var kept []Entry
	_, err := (&Tree{Root: root}).Walk("", "", func(e *Entry) error {
		if e.Info.IsRegular() {
			e.Retain()
			kept = append(kept, *e)
		}
		return nil
	})
	must(t, err)
	if len(kept) != 2 || kept[0].Beside(&kept[1]) || !kept[0].Beside(&kept[0]) {
		t.Fatalf("%+v", kept)
	}
	must(t, os.Rename(filepath.Join(root, "d"), filepath.Join(root, "moved"))) // its directory is open
	for _, e := range kept {
		f, i, err := e.Open()
		must(t, err)
		if p := make([]byte, 9); i.Size != 3 {
			t.Errorf("%s: %d bytes", e.Path, i.Size)
		} else if n, _ := f.Read(p); string(p[:n]) != e.Path {
			t.Errorf("%s: %q", e.Path, p[:n])
		}
		f.Close()
		e.Release()
	}
}

func TestMountThatIsNotInTheTreeIsAnError(t *testing.T) {
	tree := Tree{Root: t.TempDir(), Mounts: []Mount{{Path: "absent/7", Dir: t.TempDir()}}}
	if _, err := tree.Walk("", "", func(*Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), "absent/7") {
		t.Error(err)
	}
}
