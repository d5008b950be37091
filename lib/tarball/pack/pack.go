// Package pack turns a directory tree into a tar stream, or into several parts.
// It promises that members come in the byte order of their full paths, and that
// memory does not grow with the number or size of files. It knows nothing of
// what the files mean: callers say what to leave out and look into the rest.
//
// Headers are USTAR, with PAX records only where USTAR cannot hold a value;
// the end is two zero blocks without padding to 10 KiB (POSIX.1-2017, pax).
package pack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"walg/lib/dirfd"
	"walg/lib/fault"
	"walg/lib/tarball"
	"walg/lib/tree"
)

// The bounds of memory: for each Writer inFlight batches, and streamAhead
// chunks of the large file that is being written.
const (
	blockSize   = 512
	chunkSize   = 1 << 20   // unit of reading a large file, and of Inspect
	streamAhead = 3         // chunks
	batchSize   = 512 << 10 // bytes of archive that a batch holds ready
	batchFiles  = 128       // entries in a batch
	batchDirs   = 16        // directories that a batch keeps open
	smallFile   = 256 << 10 // a larger file is not read ahead of its turn
	headerRoom  = 4 << 10   // a header and its PAX records, without the name
	inFlight    = 8         // batches
	workers     = 4         // goroutines that read small files ahead
	direct      = 64 << 10  // writes of this size pass the output buffer
)

// Source is a tree.Tree to archive. Its functions are called one at a time,
// except Inspect, and must not keep what they are given longer than the call.
type Source struct {
	Root   string
	Prefix string // before each member name. With one, directories have no slash at their end
	// Filter judges everything below the root but mount points; nil keeps all.
	// path is relative and slash separated. Split asks more than once.
	Filter func(path string, fi fs.FileInfo) tree.Verdict
	// Inspect sees each chunk of a regular file in file order before it is
	// written and may change it; off is a multiple of 1 MiB and f reads the file
	// again. An error fails the archive. Called concurrently for different files.
	Inspect func(path string, off int64, p []byte, f io.ReaderAt) error
	Mounts  []tree.Mount
	Live    bool                             // a file that shrinks is padded with zeros and not an error
	Member  func(Member)                     // after each member is wholly written
	Warn    func(format string, args ...any) // what was left out or padded
}

// Member is one archived file, directory or link.
type Member struct {
	Name    string // as in the archive
	Part    int    // from 1
	Size    int64
	ModTime time.Time // nanoseconds
	Dir     bool
	Link    bool // symbolic
}

// Writer writes one archive. After an error it writes nothing more, so that a
// failed archive never gets its end.
type Writer struct {
	buf      *bufio.Writer
	part     int
	owners   *owners
	uid, gid int      // of File's members
	chunks   [][]byte // of stream
	err      error
}

func NewWriter(w io.Writer) *Writer {
	return &Writer{buf: bufio.NewWriterSize(w, direct), part: 1, owners: newOwners(), uid: max(os.Getuid(), 0), gid: max(os.Getgid(), 0)}
}

// Tree archives a tree. Several may follow each other.
func (w *Writer) Tree(ctx context.Context, src Source) (tarball.Totals, error) {
	return w.tree(ctx, newHooks(src), "", "")
}

// Own gives File's members the owner of a directory.
func (w *Writer) Own(path string) error {
	d, err := dirfd.OpenDir(path)
	if err != nil {
		return fault.New(fault.Failed, "read %s: %w", path, err)
	}
	defer d.Close()
	i, err := d.Stat(".")
	if err != nil {
		return fault.New(fault.Failed, "read %s: %w", path, err)
	}
	w.uid, w.gid = i.UID, i.GID
	return nil
}

// File adds one regular file with the owner that Own or the last Tree's root
// says, else of the process. Its name is taken as it is.
func (w *Writer) File(name string, mode fs.FileMode, mtime time.Time, content []byte) error {
	if w.err != nil {
		return w.err
	}
	i := dirfd.Info{Mode: mode &^ fs.ModeType, Size: int64(len(content)), ModTime: mtime, UID: w.uid, GID: w.gid}
	h, err := appendHeader(nil, w.owners.header(name, &i, ""))
	if err != nil {
		w.err = fmt.Errorf("archive %s: %w", name, err)
		return w.err
	}
	w.write(h)
	w.write(content)
	w.write(padding(i.Size))
	return w.err
}

// Close writes the end of the archive. It does not close the underlying writer.
func (w *Writer) Close() error {
	w.write(zeros[:2*blockSize])
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	return w.err
}

func (w *Writer) write(p []byte) {
	if w.err == nil && len(p) >= direct {
		w.err = w.buf.Flush()
	}
	if w.err == nil {
		_, w.err = w.buf.Write(p) // without a copy where p is large and the buffer empty
	}
}

var zeros [64 << 10]byte

func padding(size int64) []byte { return zeros[:-size&(blockSize-1)] }
