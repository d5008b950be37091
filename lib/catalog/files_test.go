package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// document is files_metadata.json, read in the plain way.
type document struct {
	Files            map[string]map[string]any
	TarFileSets      map[string][]string
	DatabasesByNames map[string]struct {
		OID    uint32              `json:"oid"`
		Tables map[string]Relation `json:"tables_new"`
	}
}

func spool(t testing.TB) *os.File {
	f, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func relations(m map[string]Relation) iter.Seq2[string, Relation] {
	return func(yield func(string, Relation) bool) {
		for name, r := range m {
			if !yield(name, r) {
				return
			}
		}
	}
}

func TestFilesMetadataOfWALGIsWrittenAgain(t *testing.T) {
	for _, name := range goldenFiles(t, "*/store/basebackups_005/base_*/files_metadata.json") {
		var want, got document
		if err := json.Unmarshal(read(t, name), &want); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := NewFilesWriter(&out, spool(t))
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		part := map[string]string{}
		for p, names := range want.TarFileSets {
			for _, n := range names {
				part[n] = p
			}
		}
		for member, f := range want.Files {
			at, err := time.Parse(time.RFC3339Nano, f["MTime"].(string))
			check(err)
			check(w.File(member, part[member], File{IsIncremented: f["IsIncremented"].(bool), IsSkipped: f["IsSkipped"].(bool), MTime: at}))
			delete(part, member)
		}
		for member, p := range part {
			check(w.Member(member, p))
		}
		for database, d := range want.DatabasesByNames {
			check(w.Database(database, d.OID, relations(d.Tables)))
		}
		check(w.Close())
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for _, d := range []document{want, got} {
			for _, names := range d.TarFileSets {
				slices.Sort(names)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: not the same", name)
		}
		if !keysInOrder(out.String(), `{"Files":{"/`, `},"TarFileSets":{"`, `]},"DatabasesByNames":{"`) {
			t.Errorf("%s: wrong order of keys", name)
		}
	}
}

func keysInOrder(text string, parts ...string) bool {
	for _, p := range parts {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return true
}

func TestEmptyKeysAreLeftOut(t *testing.T) {
	type steps = func(w *FilesWriter) error
	none := func(func(string, Relation) bool) {}
	for want, run := range map[string]steps{
		`{}`:                          func(w *FilesWriter) error { return nil },
		`{"TarFileSets":{"p":["m"]}}`: func(w *FilesWriter) error { return w.Member("m", "p") },
		`{"DatabasesByNames":{"d":{"oid":5,"tables_new":{}}}}`: func(w *FilesWriter) error { return w.Database("d", 5, none) },
		`{"Files":{"/a\"\n":{"IsIncremented":true,"IsSkipped":false,"MTime":"2026-11-22T16:44:26.18216271Z",` +
			`"CorruptBlocks":{"CorruptBlocksCount":2,"SomeCorruptBlocks":[3,4]},"UpdatesCount":0}}}`: func(w *FilesWriter) error {
			at := time.Date(2026, 11, 22, 17, 44, 26, 182162710, time.FixedZone("", 3600))
			return w.File("/a\"\n", "", File{IsIncremented: true, MTime: at, CorruptBlocks: &CorruptBlocks{2, []uint32{3, 4}}})
		},
		`{"TarFileSets":{"p":["m","n"],"q":["o"]},"DatabasesByNames":{"d":{"oid":1,"tables_new":{"s.r":{"oid":2,"relfilenode":3}}},"e":{"oid":4,"tables_new":{}}}}`: func(w *FilesWriter) error {
			return errors.Join(w.Member("m", "p"), w.Member("o", "q"), w.Member("n", "p"),
				w.Database("d", 1, relations(map[string]Relation{"s.r": {2, 3}})), w.Database("e", 4, none))
		},
	} {
		var out bytes.Buffer
		w := NewFilesWriter(&out, spool(t))
		if err := errors.Join(run(w), w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
		if out.String() != want {
			t.Errorf(" got %s\nwant %s", &out, want)
		}
	}
}

func TestMembersStayInTheirPartAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.IntRange(1, 50).Draw(rt, "parts")
		n := rapid.IntRange(0, 3000).Draw(rt, "members")
		long := rapid.IntRange(0, 2000).Draw(rt, "length")
		seed := rapid.IntRange(1, 1000).Draw(rt, "seed")
		want := map[string][]string{}
		var out bytes.Buffer
		w := NewFilesWriter(&out, spool(t))
		for i := range n {
			part := PartName(i*seed%parts+1, "")
			name := fmt.Sprintf("/%d/%s", i, strings.Repeat("x", i*seed%(long+1)))
			want[part] = append(want[part], name)
			if err := w.Member(name, part); err != nil {
				rt.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		var got document
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			rt.Fatal(err)
		}
		if len(want)+len(got.TarFileSets) > 0 && !reflect.DeepEqual(got.TarFileSets, want) {
			rt.Fatal("members are in other parts, or in another order")
		}
	})
}

func TestMemoryDoesNotGrowWithTheNumberOfFiles(t *testing.T) {
	const n, limit = 1_000_000, 4 << 20
	w := NewFilesWriter(io.Discard, spool(t))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		// Two parts at a time grow, 2000 in all.
		if err := w.File(fmt.Sprintf("/base/16384/%d", i), PartName(i/1000*2+i%2, ".lz4"), File{MTime: time.Unix(int64(i), 5)}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > limit {
		t.Errorf("%d files hold %d bytes of memory, want at most %d", n, grown, limit)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsOfTheWriterAndTheSpoolStay(t *testing.T) {
	full := errors.New("disk full")
	for name, w := range map[string]*FilesWriter{
		"output": NewFilesWriter(failing{full}, spool(t)),
		"spool":  NewFilesWriter(io.Discard, failing{full}),
	} {
		var err error
		for i := 0; i < 1_000_000 && err == nil; i++ {
			err = w.File(fmt.Sprint("/", i), "p", File{})
		}
		if !errors.Is(err, full) || !errors.Is(w.Close(), full) || !errors.Is(w.Database("d", 1, nil), full) {
			t.Errorf("%s: %v, then %v", name, err, w.Close())
		}
	}
	gone := spool(t)
	w := NewFilesWriter(io.Discard, gone)
	for i := range 10000 {
		if err := w.Member(fmt.Sprint("/", i), "p"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(gone.Name(), 10); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "spool") {
		t.Errorf("Close with a cut spool: %v", err)
	}
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error)         { return 0, f.error }
func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.error }

func TestWrongOrderAndNamesAreRefused(t *testing.T) {
	for name, run := range map[string]func(w *FilesWriter) error{
		"file after database":   func(w *FilesWriter) error { w.Database("d", 1, relations(nil)); return w.File("/a", "p", File{}) },
		"member after database": func(w *FilesWriter) error { w.Database("d", 1, relations(nil)); return w.Member("/a", "p") },
		"file after close":      func(w *FilesWriter) error { w.Close(); return w.File("/a", "p", File{}) },
		"database after close":  func(w *FilesWriter) error { w.Close(); return w.Database("d", 1, relations(nil)) },
		"name that is no UTF-8": func(w *FilesWriter) error { return w.File("/a\xff", "p", File{}) },
	} {
		if err := run(NewFilesWriter(io.Discard, spool(t))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
