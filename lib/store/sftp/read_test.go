package sftp

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/storetest"
)

func TestGetSurvivesCuts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	x, q := p.newProxy(t)
	const size = 40 * mib
	f, err := os.Create(p.file("k"))
	must(t, err)
	_, err = io.Copy(f, storetest.Content("k", size))
	must(t, err)
	must(t, f.Close())
	d := q.open(t)
	x.after(nil, bytes(3*mib, 20*mib))
	r, info, err := q.store(d).Get(t.Context(), "k", 0)
	if must(t, err); info.Size != size {
		t.Errorf("size %d", info.Size)
	}
	same(t, r, storetest.Content("k", size))
	if x.wasCut() != 2 {
		t.Errorf("%d cuts", x.wasCut())
	}
	must(t, r.Close())
	if len(d.files) != 0 {
		t.Errorf("%d files are still open", len(d.files))
	}
}

// An open file is read to its end, whatever becomes of its name. Over a new
// connection only the same one is.
func TestReadOfAReplacedFile(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	old := time.Now().Add(-time.Hour)
	for name, change := range map[string]func() error{
		"same":    func() error { return nil },
		"size":    func() error { return os.WriteFile(p.file("k"), []byte("other text"), 0o666) },
		"time":    func() error { return os.WriteFile(p.file("k"), []byte("newdata"), 0o666) },
		"removed": func() error { return nil },
	} {
		must(t, os.WriteFile(p.file("k"), []byte("content"), 0o666))
		must(t, os.Chtimes(p.file("k"), old, old))
		body, o, err := d.Read(t.Context(), p.key("k"), 0, 3, "")
		must(t, err)
		if got, err := io.ReadAll(body); string(got) != "con" || err != nil || o.Size != 7 || o.Version == "" {
			t.Errorf("%s: read %q of %+v, %v", name, got, o, err)
		}
		must(t, os.Remove(p.file("k")))
		if name != "removed" {
			must(t, os.WriteFile(p.file("k"), []byte("content"), 0o666))
			must(t, os.Chtimes(p.file("k"), old, old))
		}
		must(t, change())
		body, _, err = d.Read(t.Context(), p.key("k"), 3, 100, o.Version)
		must(t, err)
		if got, err := io.ReadAll(body); string(got) != "tent" || err != nil {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		d.line.fail(errors.New("cut"))
		body, _, err = d.Read(t.Context(), p.key("k"), 3, 100, o.Version)
		if name != "same" {
			if !errors.Is(err, driver.ErrChanged) {
				t.Errorf("%s: Read = %v", name, err)
			}
		} else if got, rerr := io.ReadAll(body); string(got) != "tent" || err != nil || rerr != nil {
			t.Errorf("%s: read %q, %v, %v", name, got, err, rerr)
		}
		d.Release(o.Version)
		if _, _, err = d.Read(t.Context(), p.key("k"), 0, 1, o.Version); !errors.Is(err, driver.ErrChanged) {
			t.Errorf("Read after Release = %v", err)
		}
		d.Release(o.Version)
	}
}

func TestReadBehindTheEnd(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	must(t, os.WriteFile(p.file("k"), []byte("data"), 0o666))
	for _, at := range []int64{4, 5} {
		if _, _, err := d.Read(t.Context(), p.key("k"), at, 1, ""); !errors.Is(err, driver.ErrRange) {
			t.Errorf("Read from %d = %v", at, err)
		}
	}
	if len(d.files) != 0 {
		t.Errorf("%d files are open", len(d.files))
	}
	// A file that becomes shorter meanwhile is damaged, and not at its end.
	body, _, err := d.Read(t.Context(), p.key("k"), 0, 4, "")
	must(t, err)
	must(t, os.Truncate(p.file("k"), 1))
	_, err = io.ReadAll(body)
	wantError(t, err, fault.Data, "the file ends early, at 1", "")
}

func TestTroubleOnTheServer(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	d := p.open(t)
	s := p.store(d)
	put := func(key string) error { return s.Put(t.Context(), key, strings.NewReader("x"), store.PutOptions{}) }
	must(t, put("d/k"))
	must(t, os.Mkdir(p.file("closed"), 0o700)) // root's
	must(t, os.WriteFile(p.file("secret"), []byte("x"), 0o600))
	must(t, exec.Command("mkfifo", p.file("fifo")).Run())
	must(t, os.Symlink("nowhere", p.file("dangling")))
	stat := func(key string) error { _, err := s.Stat(t.Context(), key); return err }
	get := func(key string) error {
		r, _, err := s.Get(t.Context(), key, 0)
		if err == nil {
			r.Close()
		}
		return err
	}
	list := func(prefix string) (err error) {
		for _, e := range s.List(t.Context(), prefix) {
			err = e
		}
		return err
	}
	const denied = "the user walg-sftp may not do that on the server"
	for name, test := range map[string]struct {
		err         error
		status      int
		words, hint string
	}{
		"put below an object":      {put("d/k/l"), fault.Usage, "an object has the name of one of its directories", ""},
		"put deep below an object": {put("d/k/l/m/n"), fault.Usage, "an object has the name of one of its directories", ""},
		"put on a directory":       {put("d"), fault.Usage, "a directory of objects has this name", ""},
		"put if absent on one": {s.Put(t.Context(), "d", strings.NewReader("x"), store.PutOptions{IfAbsent: true}),
			fault.Usage, "a directory of objects has this name", ""},
		"name too long":         {put(strings.Repeat("n", 230)), fault.Usage, "the server answers ", "is the name too long?"},
		"put in a closed one":   {put("closed/k"), fault.Usage, "permission denied", denied},
		"get of a secret":       {get("secret"), fault.Usage, "permission denied", denied},
		"stat in a closed one":  {stat("closed/k"), fault.Usage, "permission denied", denied},
		"list of a closed one":  {list(""), fault.Usage, "/closed: permission denied", denied},
		"delete in one":         {s.Delete(t.Context(), "closed/k"), fault.Usage, "permission denied", denied},
		"get of a FIFO":         {get("fifo"), fault.Usage, "not a regular file", ""},
		"get of a directory":    {get("d"), fault.Absent, "file does not exist", ""},
		"get of a dangling one": {get("dangling"), fault.Absent, "file does not exist", ""},
		"delete of a directory": {s.Delete(t.Context(), "d"), fault.OK, "", ""},
	} {
		if test.status == fault.OK {
			if test.err != nil {
				t.Errorf("%s: %v", name, test.err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantError(t, test.err, test.status, test.words, test.hint) })
	}
	p.wantTree(t, "closed/", "d/", "d/k", "dangling", "fifo", "secret")
}

// A store whose root has gone away is not an empty store.
func TestRootThatIsMissing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	check := func(words string) {
		s := p.store(p.open(t))
		_, statErr := s.Stat(t.Context(), "d/k")
		_, _, getErr := s.Get(t.Context(), "d/k", 0)
		var listErr error
		for _, err := range s.List(t.Context(), "") {
			listErr = err
		}
		for op, err := range map[string]error{
			"stat": statErr, "get": getErr, "list": listErr,
			"put":    s.Put(t.Context(), "d/k", strings.NewReader("x"), store.PutOptions{}),
			"delete": s.Delete(t.Context(), "d/k"),
		} {
			t.Run(op, func(t *testing.T) { wantError(t, err, fault.Usage, words, "WALG_SSH_PREFIX") })
		}
	}
	p.Root += "/missing"
	check("no directory " + p.Root + " on the server")
	if _, err := os.Stat(p.Root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the root was made: %v", err)
	}
	must(t, os.WriteFile(p.Root, nil, 0o666))
	check(p.Root + " is not a directory")
}
