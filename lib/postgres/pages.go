package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"walg/lib/fault"
	"walg/lib/wal"
)

// BadPage is a page whose checksum is not the one that its content and place
// ask for.
type BadPage struct {
	Path     string // of the file, from the data directory
	Block    uint32 // in this file, from 0
	Expected uint16 // computed from the page
	Found    uint16 // stored in the page
}

// Err is the page as a failure.
func (b BadPage) Err() error {
	return fault.New(fault.Data, "verify %s: block %d: page checksum expected %04x, found %04x", b.Path, b.Block, b.Expected, b.Found)
}

// VerifyPages checks the pages in p, a piece of the archive member at path,
// which starts at offset off of the member: a multiple of the default page
// size. A file that is not a relation's has no pages, and a piece of a page at
// the end is not checked. Use it where the file itself is out of reach; only
// pg_control tells whether the cluster has checksums at all.
func VerifyPages(path string, off int64, p []byte) []BadPage {
	var bad []BadPage
	eachBadPage(Member(path), off, p, DefaultBlockSize, DefaultSegmentBlocks, func(b BadPage, _ uint32, _ []byte) error {
		bad = append(bad, b)
		return nil
	})
	return bad
}

func eachBadPage(path string, off int64, p []byte, size, segmentBlocks uint32, found func(b BadPage, absolute uint32, page []byte) error) error {
	rel, ok := ParseRelation(path)
	if !ok {
		return nil
	}
	block := uint32(off / int64(size))
	for ; len(p) >= int(size); p, block = p[size:], block+1 {
		page := p[:size]
		absolute := rel.Segment*segmentBlocks + block
		if expected, ok := validPage(page, absolute); !ok {
			if err := found(BadPage{path, block, expected, pageChecksum(page)}, absolute, page); err != nil {
				return err
			}
		}
	}
	return nil
}

// Inspector checks the pages of a live data directory on their way into a
// backup. The zero value checks nothing; Control.Checksums turns it on.
type Inspector struct {
	Control Control
	Start   wal.LSN // of the backup: WAL from here on repairs what it touched

	// Newest gives an LSN that no page can pass yet; nil trusts every page's
	// LSN. It is asked only about a page that claims to be newer than Start
	// and has a wrong checksum.
	Newest func() (wal.LSN, error)

	// Bad hears of each bad page, one at a time; its error fails the archive.
	// nil fails with BadPage.Err.
	Bad func(BadPage) error

	mu     sync.Mutex
	paused time.Duration
}

// A page that is read while the server writes it looks bad for microseconds.
// The total of all pauses is bounded, or a disk full of bad pages would take
// days.
const (
	rereads   = 4
	pause     = 5 * time.Millisecond
	maxPaused = 5 * time.Second
)

// Inspect checks a piece of a file at path (from the data directory) before it
// is archived. Pieces start at multiples of the page size. Where a page is bad
// it is read again from f: a page that changed is being written, its new bytes
// replace those in p and WAL will repair the rest; so will it a page whose LSN
// is newer than Start. It may be called for different files at once.
func (i *Inspector) Inspect(path string, off int64, p []byte, f io.ReaderAt) error {
	if !i.Control.Checksums {
		return nil
	}
	size := i.Control.BlockSize
	return eachBadPage(path, off, p, size, i.Control.SegmentBlocks, func(b BadPage, absolute uint32, page []byte) error {
		fine, err := i.reread(page, absolute, f, int64(b.Block)*int64(size))
		if err != nil {
			return fmt.Errorf("read %s again at block %d: %w", path, b.Block, err)
		}
		if fine {
			return nil
		}
		newer, err := i.newer(pageLSN(page))
		if err != nil || newer {
			return err
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.Bad == nil {
			return b.Err()
		}
		return i.Bad(b)
	})
}

// reread reports whether the page is valid after all, or changes under our
// eyes, or is gone because its file was truncated.
func (i *Inspector) reread(page []byte, block uint32, f io.ReaderAt, off int64) (fine bool, err error) {
	again := make([]byte, len(page))
	for range rereads {
		n, err := f.ReadAt(again, off)
		if n < len(again) {
			if errors.Is(err, io.EOF) {
				return true, nil
			}
			return false, err
		}
		if !bytes.Equal(again, page) {
			copy(page, again)
			fine = true
		}
		if _, ok := validPage(page, block); ok {
			return true, nil
		}
		i.wait()
	}
	return fine, nil
}

func (i *Inspector) wait() {
	i.mu.Lock()
	spent := i.paused >= maxPaused
	if !spent {
		i.paused += pause
	}
	i.mu.Unlock()
	if !spent {
		time.Sleep(pause)
	}
}

// newer says whether WAL of this backup repairs a page with this LSN. An LSN
// that lies in the future is part of the damage.
func (i *Inspector) newer(l wal.LSN) (bool, error) {
	if l < i.Start {
		return false, nil
	}
	if i.Newest == nil {
		return true, nil
	}
	newest, err := i.Newest()
	if err != nil {
		return false, err
	}
	return l <= newest, nil
}

// BadPages records bad pages instead of failing, in bounded memory. Its method
// Add serves as Inspector.Bad.
type BadPages struct {
	Total int                 // pages
	Files map[string]*BadFile // by path, at most 1000 of them
}

// BadFile is what WAL-G writes into files_metadata.json: a count and the first
// ten block numbers in the file.
type BadFile struct {
	Count  int
	Blocks []uint32
}

const (
	maxBadFiles  = 1000
	maxBadBlocks = 10
)

// Add records a bad page; it never fails.
func (r *BadPages) Add(b BadPage) error {
	r.Total++
	if r.Files == nil {
		r.Files = make(map[string]*BadFile)
	}
	f := r.Files[b.Path]
	if f == nil {
		if len(r.Files) == maxBadFiles {
			return nil
		}
		f = &BadFile{}
		r.Files[b.Path] = f
	}
	f.Count++
	if len(f.Blocks) < maxBadBlocks {
		f.Blocks = append(f.Blocks, b.Block)
	}
	return nil
}
