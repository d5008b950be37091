package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"walg/lib/fault"
	"walg/lib/postgres/pgtest"
	"walg/lib/wal"
)

// plainChecksum is the algorithm as PostgreSQL describes it, word by word.
func plainChecksum(page []byte, block uint32) uint16 {
	page = bytes.Clone(page)
	page[8], page[9] = 0, 0
	sums := laneStart
	for i := 0; i < len(page); i += 4 {
		sums[i/4%lanes] = mix(sums[i/4%lanes], binary.LittleEndian.Uint32(page[i:]))
	}
	var fold uint32
	for _, sum := range sums {
		fold ^= mix(mix(sum, 0), 0)
	}
	return uint16((fold^block)%65535 + 1)
}

func TestChecksumIsThePlainOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1024 << rapid.IntRange(0, 5).Draw(t, "log2 of KiB")
		page := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(rapid.Uint8().Draw(t, "seed"))}).Read(page)
		block := rapid.Uint32().Draw(t, "block")
		before := bytes.Clone(page)
		if got, want := Checksum(page, block), plainChecksum(page, block); got != want {
			t.Fatalf("%04x, want %04x", got, want)
		}
		if !bytes.Equal(page, before) {
			t.Fatal("the page was changed")
		}
	})
}

// eachRelationFile reads the relation files below a data directory.
func eachRelationFile(t *testing.T, dir string, visit func(path string, data []byte)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if _, ok := ParseRelation(path); !ok {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil {
			visit(path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPagesOfEveryVersionAreValid(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		c := pgtest.New(t, pgtest.Options{Major: major, Checksums: true})
		c.PgbenchInit(1)
		c.MustExec("create unlogged table u (a int primary key)", "vacuum")
		c.Stop("fast")
		pages, forks := 0, map[Fork]int{}
		eachRelationFile(t, c.DataDir, func(path string, data []byte) {
			if bad := VerifyPages(path, 0, data); bad != nil {
				t.Errorf("%s: %v", path, bad[0].Err())
			}
			rel, _ := ParseRelation(path)
			forks[rel.Fork]++
			pages += len(data) / DefaultBlockSize
		})
		if pages < 2000 || len(forks) != 4 {
			t.Errorf("only %d pages in forks %v", pages, forks)
		}
	})
}

func TestGoldenPages(t *testing.T) {
	// Blocks 0 and 1 of a pg_class of PostgreSQL 15 with checksums on.
	data, err := os.ReadFile("testdata/base_5_1259")
	if err != nil {
		t.Fatal(err)
	}
	if bad := VerifyPages("base/5/1259", 0, data); bad != nil || len(data) != 2*DefaultBlockSize {
		t.Errorf("%v, %d bytes", bad, len(data))
	}
	// The same pages elsewhere are wrong pages.
	for _, path := range []string{"base/5/1259.1", "/base/5/1259.1"} {
		if bad := VerifyPages(path, 0, data); len(bad) != 2 || bad[1].Block != 1 || bad[1].Path != "base/5/1259.1" {
			t.Errorf("%s: %v", path, bad)
		}
	}
	if bad := VerifyPages("base/5/1259", 1<<20, data); len(bad) != 2 || bad[0].Block != 128 {
		t.Errorf("moved by 1 MiB: %v", bad)
	}
	for _, path := range []string{"base/5/PG_VERSION", "pg_xact/0000", "global/pg_control", "base/5/pg_filenode.map"} {
		if bad := VerifyPages(path, 1<<20, data); bad != nil {
			t.Errorf("%s has pages: %v", path, bad)
		}
	}
}

// page makes a valid page.
func page(block uint32, lsn wal.LSN, fill byte) []byte {
	p := bytes.Repeat([]byte{fill}, DefaultBlockSize)
	binary.LittleEndian.PutUint32(p, uint32(lsn>>32))
	binary.LittleEndian.PutUint32(p[4:], uint32(lsn))
	binary.LittleEndian.PutUint16(p[8:], Checksum(p, block))
	return p
}

func TestFlippedBitsOfAPageAreNoticed(t *testing.T) {
	// 16 bits of checksum miss one change in 65535, so not every bit is tried.
	p := page(3, 1<<40, 'x')
	for i := 0; i < len(p)*8; i += 61 {
		p[i/8] ^= 1 << (i % 8)
		if _, ok := validPage(p, 3); ok {
			t.Fatalf("bit %d may be wrong", i)
		}
		p[i/8] ^= 1 << (i % 8)
	}
}

func TestNewPagesAreValidOnlyWhenAllZero(t *testing.T) {
	p := make([]byte, DefaultBlockSize)
	if _, ok := validPage(p, 9); !ok {
		t.Error("a new page is refused")
	}
	p[8000] = 1
	if _, ok := validPage(p, 9); ok {
		t.Error("a page of zeros and a one is taken")
	}
}

const relation = "base/5/16384.2"

// inspect passes a page as block 7 of the relation, while the disk holds disk.
func inspect(i *Inspector, p []byte, disk io.ReaderAt) error {
	return i.Inspect(relation, 7*DefaultBlockSize, p, disk)
}

func newInspector() *Inspector {
	return &Inspector{
		Control: Control{Checksums: true, BlockSize: DefaultBlockSize, SegmentBlocks: DefaultSegmentBlocks},
		Start:   1000,
		Newest:  func() (wal.LSN, error) { return 2000, nil },
	}
}

const block = 2*DefaultSegmentBlocks + 7

// disk answers ReadAt with one page after the other; the last stays.
type disk struct {
	mu    sync.Mutex
	pages [][]byte
	reads int
	err   error
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off != 7*DefaultBlockSize {
		return 0, fmt.Errorf("read at %d", off)
	}
	if d.err != nil {
		return 0, d.err
	}
	n := copy(p, d.pages[min(d.reads, len(d.pages)-1)])
	d.reads++
	return n, nil
}

func bad(lsn wal.LSN) []byte {
	p := page(block, lsn, 'x')
	p[5000]++
	return p
}

func TestGoodPagesAreNotReadAgain(t *testing.T) {
	d := &disk{}
	for _, p := range [][]byte{page(block, 5, 'x'), make([]byte, DefaultBlockSize), page(block, 5, 'x')[:100]} {
		if err := inspect(newInspector(), p, d); err != nil || d.reads > 0 {
			t.Errorf("%v, %d reads", err, d.reads)
		}
	}
}

func TestBadPageFails(t *testing.T) {
	d := &disk{pages: [][]byte{bad(5)}}
	err := inspect(newInspector(), bad(5), d)
	want := fmt.Sprintf("verify %s: block 7: page checksum expected %04x, found %04x", relation, Checksum(bad(5), block), pageChecksum(bad(5)))
	if fault.Status(err) != fault.Data || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if d.reads < 2 {
		t.Errorf("%d reads", d.reads)
	}
}

func TestPageThatChangesTakesItsNewBytes(t *testing.T) {
	good := page(block, 6, 'y')
	p := bad(5)
	d := &disk{pages: [][]byte{bad(5), good}}
	if err := inspect(newInspector(), p, d); err != nil || !bytes.Equal(p, good) || d.reads != 2 {
		t.Errorf("%v, %d reads", err, d.reads)
	}
	// Still torn at the last look, but it moved: WAL has it.
	other := bad(5)
	other[1]++
	p = bad(5)
	if err := inspect(newInspector(), p, &disk{pages: [][]byte{bad(5), other}}); err != nil || !bytes.Equal(p, other) {
		t.Errorf("%v", err)
	}
}

func TestTruncatedFileIsNoBadPage(t *testing.T) {
	if err := inspect(newInspector(), bad(5), &disk{err: io.EOF}); err != nil {
		t.Error(err)
	}
	cause := errors.New("I/O error")
	if err := inspect(newInspector(), bad(5), &disk{err: cause}); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestOnlyPlausibleNewerLSNExcusesAPage(t *testing.T) {
	for lsn, ok := range map[wal.LSN]bool{999: false, 1000: true, 2000: true, 2001: false, 1 << 60: false} {
		err := inspect(newInspector(), bad(lsn), &disk{pages: [][]byte{bad(lsn)}})
		if (err == nil) != ok {
			t.Errorf("LSN %s: %v", lsn, err)
		}
	}
	i := newInspector()
	i.Newest = nil
	if err := inspect(i, bad(1<<60), &disk{pages: [][]byte{bad(1 << 60)}}); err != nil {
		t.Error(err)
	}
	cause := errors.New("lost")
	i.Newest = func() (wal.LSN, error) { return 0, cause }
	if err := inspect(i, bad(1<<60), &disk{pages: [][]byte{bad(1 << 60)}}); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestChecksumsThatAreOffAreNotChecked(t *testing.T) {
	i := newInspector()
	i.Control.Checksums = false
	if err := inspect(i, bad(5), nil); err != nil {
		t.Error(err)
	}
	if err := new(Inspector).Inspect(relation, 0, bad(5), nil); err != nil {
		t.Error(err)
	}
}

func TestBadPagesAreRecordedInBoundedMemory(t *testing.T) {
	var r BadPages
	i := newInspector()
	i.Bad = r.Add
	i.paused = maxPaused // no waiting in this test
	chunk := bytes.Repeat(bad(5), 128)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			if err := i.Inspect(fmt.Sprintf("base/5/%d", n+1), 1<<20, bytes.Clone(chunk), bytes.NewReader(bytes.Repeat(bad(5), 256))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r.Total != 4*128 || len(r.Files) != 4 {
		t.Fatalf("%d in %d files", r.Total, len(r.Files))
	}
	f := r.Files["base/5/1"]
	if f.Count != 128 || len(f.Blocks) != maxBadBlocks || f.Blocks[0] != 128 {
		t.Errorf("%+v", f)
	}
	for n := range 2 * maxBadFiles {
		r.Add(BadPage{Path: fmt.Sprint(n)})
	}
	if len(r.Files) != maxBadFiles || r.Total != 4*128+2*maxBadFiles {
		t.Errorf("%d in %d files", r.Total, len(r.Files))
	}
}

func TestPausesAreBounded(t *testing.T) {
	i := newInspector()
	i.paused = maxPaused - pause
	for range 1000 {
		i.wait()
	}
	if i.paused != maxPaused {
		t.Errorf("waited %v", i.paused)
	}
}

func TestLiveClusterUnderLoadHasNoBadPages(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Checksums: true, Config: map[string]string{"shared_buffers": "1MB", "bgwriter_delay": "10ms"}})
	c.PgbenchInit(2)
	load := c.Pgbench("-c", "2", "-T", "30", "-n")
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	defer load.Wait()
	defer load.Process.Kill()
	control, err := ReadControl(t.Context(), c.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	start, err := wal.ParseLSN(c.SQL("postgres", "select pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	i := &Inspector{Control: control, Start: start}
	for range 5 {
		eachRelationFile(t, c.DataDir, func(path string, data []byte) {
			f, err := os.Open(filepath.Join(c.DataDir, path))
			if err != nil {
				return // dropped meanwhile
			}
			defer f.Close()
			if err := i.Inspect(path, 0, data, f); err != nil {
				t.Error(err)
			}
		})
	}
}

func BenchmarkChecksum(b *testing.B) {
	p := page(1, 1, 'x')
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if Checksum(p, 1) != pageChecksum(p) {
			b.Fatal("wrong")
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	var chunk []byte
	for n := range uint32(128) {
		chunk = append(chunk, page(n, 1, byte(n))...)
	}
	i := newInspector()
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if err := i.Inspect("base/5/16384", 0, chunk, nil); err != nil {
			b.Fatal(err)
		}
	}
}
