package sftp

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/remote"
)

func (p place) files(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if at := strings.LastIndex(name, "/"); at > 0 {
			must(t, os.MkdirAll(p.file(name[:at]), 0o755))
		}
		must(t, os.WriteFile(p.file(name), []byte(name), 0o644))
	}
}

func pages(t *testing.T, d *Driver, prefix string, forget bool) (keys []string, n int) {
	t.Helper()
	for from := ""; ; n++ {
		page, next, err := d.Page(t.Context(), prefix, from)
		must(t, err)
		for _, info := range page {
			keys = append(keys, strings.TrimPrefix("/"+info.Key, d.root+"/"))
		}
		if forget {
			clear(d.walks)
		}
		if next == "" {
			return keys, n + 1
		}
		from = next
	}
}

// The pages join without a gap, also where the walk between them is lost.
func TestPagesJoin(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	var want []string
	for i := range 1200 {
		want = append(want, fmt.Sprintf([]string{"a/b/%d", "a/b-%d", "a/b.d/%d", "a%d", "c/%d/x"}[i%5], i))
	}
	p.files(t, want...)
	slices.Sort(want)
	d := p.open(t)
	for _, forget := range []bool{false, true} {
		for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "c/"} {
			var wanted []string
			for _, key := range want {
				if strings.HasPrefix(key, prefix) {
					wanted = append(wanted, key)
				}
			}
			got, n := pages(t, d, p.key(prefix), forget)
			if !slices.Equal(got, wanted) || n != 1+len(wanted)/pageSize {
				t.Errorf("prefix %q: %d keys in %d pages, want %d", prefix, len(got), n, len(wanted))
			}
		}
	}
	// A list that was left alone half way is kept, but not many of them.
	for i := range 3 * maxWalks {
		_, next, err := d.Page(t.Context(), p.key(""), "")
		must(t, err)
		if must(t, err); next == "" || len(d.walks) > maxWalks {
			t.Fatalf("%d walks after %d, next %q", len(d.walks), i, next)
		}
		d.walks[walkID{fmt.Sprint(i), ""}] = d.walks[walkID{p.key(""), next}]
		delete(d.walks, walkID{p.key(""), next})
	}
}

func TestLinksAreFollowed(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.files(t, "real/k", "other/l")
	must(t, os.Symlink("real/k", p.file("file")))
	must(t, os.Symlink("other", p.file("dir")))
	must(t, os.Symlink("nowhere", p.file("dangling")))
	d := p.open(t)
	got, _ := pages(t, d, p.key(""), false)
	if want := []string{"dir/l", "file", "other/l", "real/k"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	if o, err := d.Stat(t.Context(), p.key("file")); err != nil || o.Size != 6 {
		t.Errorf("Stat = %+v, %v", o, err)
	}
	must(t, os.Symlink("..", p.file("real/loop")))
	_, _, err := d.Page(t.Context(), p.key(""), "")
	wantError(t, err, fault.Usage, "/real: symbolic link loop leads back to "+p.Root, "")
}

func TestTemporaryFilesAreLeftovers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	const temp = "d/k.tmp.20261122T164420Z-0123456789abcdef"
	p.files(t, "d/k", temp, "d/l.tmp.20261122T164420Z-0123456789abcdef", "e/k.tmp.1")
	s := remote.New(p.open(t), p.key(""), remote.Policy{})
	var keys, left []string
	for info, err := range s.List(t.Context(), "") {
		must(t, err)
		keys = append(keys, info.Key)
	}
	for l, err := range s.Leftovers(t.Context(), "d/k") {
		must(t, err)
		left = append(left, l.Name+" "+l.Key)
		if l.Size != int64(len(temp)) || l.Started.Year() != 2026 || l.ModTime.IsZero() {
			t.Errorf("leftover %+v", l)
		}
	}
	if !slices.Equal(keys, []string{"d/k", "e/k.tmp.1"}) || !slices.Equal(left, []string{temp + " d/k"}) {
		t.Errorf("listed %q, leftovers %q", keys, left)
	}
}

func TestOnlyTemporaryFilesAreDiscarded(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	const tail = ".tmp.20261122T164420Z-0123456789abcdef"
	p.files(t, "d/k", "d/k"+tail, "closed/k"+tail, "e/k.tmp.1")
	must(t, os.MkdirAll(p.file("deep/er"), 0o777))
	for _, dir := range []string{"d", "deep", "deep/er"} {
		must(t, os.Chmod(p.file(dir), 0o777))
	}
	p.files(t, "deep/er/x"+tail)
	s := p.store(p.open(t))
	for _, l := range []store.Leftover{
		{Name: "d/k", Key: "d/k"}, {Name: "e/k.tmp.1", Key: "e/k"}, {Name: "d/k" + tail, Key: "d/other"}, {Name: "d/../d/k" + tail, Key: "d/k"},
	} {
		wantError(t, s.Discard(t.Context(), l), fault.Usage, "not the name of a temporary file", "")
	}
	for range 2 { // an absent one is no error
		for _, name := range []string{"d/k", "deep/er/x"} {
			must(t, s.Discard(t.Context(), store.Leftover{Name: name + tail, Key: name}))
		}
	}
	must(t, os.Chmod(p.file("closed"), 0o555))
	wantError(t, s.Discard(t.Context(), store.Leftover{Name: "closed/k" + tail, Key: "closed/k"}), fault.Usage, "permission denied", "")
	p.wantTree(t, "closed/", "closed/k"+tail, "d/", "d/k", "e/", "e/k.tmp.1")
}

func TestDeleteGoesOnAfterWhatItMayNot(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.files(t, "closed/a", "closed/b", "d/a", "d/b", "z")
	must(t, os.Chmod(p.file("closed"), 0o555)) // root's
	must(t, os.Chmod(p.file("d"), 0o777))
	err := p.store(p.open(t)).Delete(t.Context(), "d/b", "closed/b", "z", "absent", "closed/a", "d/a")
	wantError(t, err, fault.Usage, "closed/b: permission denied (and 1 more of 6 objects)", "may not do that on the server")
	var kept *store.DeleteError
	if !errors.As(err, &kept) || len(kept.Failed) != 2 || kept.Failed[0].Key != "closed/b" || kept.Failed[1].Key != "closed/a" {
		t.Errorf("Delete = %#v", err)
	}
	p.wantTree(t, "closed/", "closed/a", "closed/b")
}

func TestEmptyDirectoriesGo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	s := p.store(d)
	for _, key := range []string{"a/b/c/k", "a/b/l", "m"} {
		must(t, s.Put(t.Context(), key, strings.NewReader("x"), store.PutOptions{}))
	}
	must(t, s.Delete(t.Context(), "a/b/c/k"))
	p.wantTree(t, "a/", "a/b/", "a/b/l", "m")
	// What a deletion left that was cut between file and directory.
	must(t, os.MkdirAll(p.file("x/y"), 0o777))
	must(t, os.Chmod(p.file("x"), 0o777))
	must(t, os.Chmod(p.file("x/y"), 0o777))
	must(t, os.Chown(p.file("x/y"), -1, -1))
	must(t, s.Delete(t.Context(), "a/b/l", "m", "x/y/gone"))
	p.wantTree(t)
}
