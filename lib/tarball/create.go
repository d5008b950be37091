package tarball

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"
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

// Writer writes one archive. After an error it writes nothing more, so that a
// failed archive never gets its end.
type Writer struct {
	w        io.Writer
	buf      *bufio.Writer
	part     int
	owners   *owners
	uid, gid int      // of File's members
	chunks   [][]byte // of stream
	err      error
}

func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, buf: bufio.NewWriterSize(w, direct), part: 1, owners: newOwners(), uid: max(os.Getuid(), 0), gid: max(os.Getgid(), 0)}
}

// Tree archives a tree. Several may follow each other.
func (w *Writer) Tree(ctx context.Context, src Source) (Totals, error) {
	return w.tree(ctx, &walk{hooks: &hooks{Source: src}})
}

// Own gives File's members the owner of a directory.
func (w *Writer) Own(path string) error {
	d, err := openDir(path)
	if err != nil {
		return failed("read", path, err)
	}
	defer d.close()
	i, err := d.stat(".")
	if err != nil {
		return failed("read", path, err)
	}
	w.uid, w.gid = i.uid, i.gid
	return nil
}

// File adds one regular file with the owner that Own or the last Tree's root
// says, else of the process. Its name is taken as it is.
func (w *Writer) File(name string, mode fs.FileMode, mtime time.Time, content []byte) error {
	if w.err != nil {
		return w.err
	}
	i := info{mode: mode &^ fs.ModeType, size: int64(len(content)), mtime: mtime, uid: w.uid, gid: w.gid}
	h, err := appendHeader(nil, w.owners.header(name, &i, ""))
	if err != nil {
		w.err = fmt.Errorf("archive %s: %w", name, err)
		return w.err
	}
	w.write(h)
	w.write(content)
	w.write(padding(i.size))
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

// appendBuffer is an io.Writer at the end of a slice.
type appendBuffer []byte

func (b *appendBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func appendHeader(to []byte, h *tar.Header) ([]byte, error) {
	b := appendBuffer(to)
	err := tar.NewWriter(&b).WriteHeader(h)
	return b, err
}

// owners knows the names of user and group ids. A system has few of them.
type owners struct {
	mu           sync.Mutex
	users, group map[int]string
}

func newOwners() *owners { return &owners{users: map[int]string{}, group: map[int]string{}} }

func (o *owners) names(uid, gid int) (string, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u, ok := o.users[uid]
	if !ok {
		if found, err := user.LookupId(strconv.Itoa(uid)); err == nil { // an id may well have no name
			u = found.Username
		}
		o.users[uid] = u
	}
	g, ok := o.group[gid]
	if !ok {
		if found, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
			g = found.Name
		}
		o.group[gid] = g
	}
	return u, g
}

func (o *owners) header(name string, i *info, link string) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Linkname: link,
		Mode:     int64(i.mode.Perm()),
		Uid:      i.uid,
		Gid:      i.gid,
		ModTime:  time.Unix(i.mtime.Unix(), 0),
	}
	switch {
	case i.IsDir():
		h.Typeflag = tar.TypeDir
	case i.mode&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
	default:
		h.Size = i.size
	}
	if i.mode&fs.ModeSetuid != 0 {
		h.Mode |= 0o4000
	}
	if i.mode&fs.ModeSetgid != 0 {
		h.Mode |= 0o2000
	}
	if i.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	h.Uname, h.Gname = o.names(i.uid, i.gid)
	return h
}

// memberName gives a path its name in the archive.
func (h *hooks) memberName(path string, isDir bool) string {
	switch {
	case !isDir || h.Prefix != "":
		return h.Prefix + path
	case path == "":
		return "./"
	}
	return path + "/"
}

// batch is a run of entries that a worker turns into archive bytes. It stops at
// an entry that does not fit; that one and the rest are streamed.
type batch struct {
	entries []entry
	size    int64 // what the entries will need
	dirs    int
	bytes   []byte
	members []Member
	rest    []entry
	err     error
	done    chan struct{} // capacity 1
}

func (b *batch) reset() {
	for i := range b.entries {
		b.entries[i].parent.release()
	}
	clear(b.entries)
	*b = batch{entries: b.entries[:0], bytes: b.bytes[:0], members: b.members[:0], done: b.done}
}

// add takes an entry and reports whether the batch is full with it.
func (b *batch) add(e *entry) bool {
	if n := len(b.entries); n == 0 || b.entries[n-1].parent != e.parent {
		b.dirs++
	}
	b.entries = append(b.entries, *e)
	e.parent.retain()
	b.size += 2 * blockSize
	if e.info.mode.IsRegular() {
		b.size += e.info.size
	}
	return b.size > batchSize-smallFile || len(b.entries) == batchFiles || b.dirs == batchDirs
}

// tree walks, reads ahead and writes, each in its own goroutines, in order.
func (w *Writer) tree(parent context.Context, walk *walk) (tot Totals, err error) {
	if w.err != nil {
		return tot, w.err
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	free, order, work := make(chan *batch, inFlight), make(chan *batch, inFlight), make(chan *batch, inFlight)
	for range inFlight {
		free <- &batch{done: make(chan struct{}, 1)}
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	var walkErr error // valid when order is closed
	wait.Go(func() {
		defer close(order)
		defer close(work)
		walkErr = walk.batches(ctx, free, func(b *batch) { order <- b; work <- b }) // neither blocks: each holds all batches
	})
	for range workers {
		wait.Go(func() {
			for b := range work {
				if ctx.Err() == nil {
					w.fill(walk.hooks, b)
				}
				b.done <- struct{}{}
			}
		})
	}
	for b := range order {
		<-b.done
		if w.err == nil && parent.Err() == nil {
			w.err = w.emit(parent, walk.hooks, b, &tot)
		}
		if w.err != nil {
			cancel()
		}
		b.reset()
		free <- b
	}
	if w.err == nil {
		w.err = walkErr
	}
	if parent.Err() != nil && (w.err == nil || errors.Is(w.err, parent.Err())) {
		w.err = context.Cause(parent)
	}
	tot.Walked, tot.Parts = walk.walked, 1
	return tot, w.err
}

// batches walks the tree in batches taken from free.
func (w *walk) batches(ctx context.Context, free <-chan *batch, send func(*batch)) error {
	var b *batch
	w.visit = func(e *entry) error {
		if b == nil {
			select {
			case b = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if b.add(e) {
			send(b)
			b = nil
		}
		return nil
	}
	err := w.run()
	if b != nil {
		send(b)
	}
	return err
}

// open opens a regular file; ok is false where it has vanished meanwhile.
func (h *hooks) open(e *entry) (f file, i info, ok bool, err error) {
	f, i, err = e.parent.open(base(e.path))
	if err == nil && !i.mode.IsRegular() {
		f.close() // only read from
		err = fs.ErrNotExist
	}
	switch {
	case err == nil:
		return f, i, true, nil
	case errors.Is(err, fs.ErrNotExist) || gone(err):
		h.warn("%s vanished: left out", h.where(e.path))
		return f, i, false, nil
	}
	return f, i, false, fmt.Errorf("open %s: %w", h.where(e.path), err)
}

// shrunk is the live tree rule for a file that had fewer bytes than its header says.
func (h *hooks) shrunk(path string, missing int64) error {
	if !h.Live {
		return fmt.Errorf("read %s: the file shrank by %d bytes while it was read", h.where(path), missing)
	}
	h.warn("%s shrank by %d bytes while it was read: padded with zeros", h.where(path), missing)
	return nil
}

// readFull returns fewer bytes than p holds only at the end of the file.
func readFull(f io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(f, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, err
}

// fill prepares the bytes of a batch.
func (w *Writer) fill(h *hooks, b *batch) {
	if b.bytes == nil {
		b.bytes = make([]byte, 0, batchSize)
	}
	for n := range b.entries {
		e := &b.entries[n]
		fits, err := w.small(h, b, e)
		if err != nil {
			b.err = err
			return
		}
		if !fits {
			b.rest = b.entries[n:]
			return
		}
	}
}

// small appends one member to the batch, or reports that it does not fit.
func (w *Writer) small(h *hooks, b *batch, e *entry) (fits bool, err error) {
	room := int64(cap(b.bytes)-len(b.bytes)) - headerRoom - 2*int64(len(e.path)+len(e.link))
	regular := e.info.mode.IsRegular()
	if room < 0 || regular && e.info.size > min(room, smallFile) {
		return false, nil
	}
	var f file
	if regular {
		var ok bool
		if f, e.info, ok, err = h.open(e); err != nil || !ok {
			return true, err
		}
		defer f.close()         // only read from
		if e.info.size > room { // it has grown
			return false, nil
		}
	}
	name := h.memberName(e.path, e.info.IsDir())
	header := w.owners.header(name, &e.info, e.link)
	if b.bytes, err = appendHeader(b.bytes, header); err != nil {
		return true, fmt.Errorf("archive %s: %w", h.where(e.path), err)
	}
	if regular {
		p := b.bytes[len(b.bytes) : len(b.bytes)+int(e.info.size)]
		got, err := readFull(f, p)
		if err != nil {
			return true, fmt.Errorf("read %s: %w", h.where(e.path), err)
		}
		if err := h.inspect(e.path, 0, p[:got], f); err != nil {
			return true, err
		}
		if got < len(p) {
			clear(p[got:])
			if err := h.shrunk(e.path, int64(len(p)-got)); err != nil {
				return true, err
			}
		}
		b.bytes = append(b.bytes[:len(b.bytes)+len(p)], padding(e.info.size)...)
	}
	b.members = append(b.members, Member{Name: name, Part: w.part, Size: header.Size, ModTime: e.info.mtime, Dir: e.info.IsDir(), Link: e.link != ""})
	return true, nil
}

func (t *Totals) count(m Member) {
	switch {
	case m.Dir:
		t.Dirs++
	case m.Link:
		t.Links++
	default:
		t.Files++
		t.Bytes += m.Size
	}
}

// emit writes a batch.
func (w *Writer) emit(ctx context.Context, h *hooks, b *batch, tot *Totals) error {
	if len(b.entries) > 0 && b.entries[0].parent == nil {
		w.uid, w.gid = b.entries[0].info.uid, b.entries[0].info.gid
	}
	if w.write(b.bytes); w.err != nil {
		return w.err
	}
	for _, m := range b.members {
		tot.count(m)
	}
	h.members(b.members)
	if b.err != nil {
		return b.err
	}
	for n := range b.rest {
		if err := w.stream(ctx, h, &b.rest[n], tot); err != nil {
			return err
		}
	}
	return nil
}

// stream writes one member whose contents need not fit into memory.
func (w *Writer) stream(ctx context.Context, h *hooks, e *entry, tot *Totals) error {
	regular := e.info.mode.IsRegular()
	var f file
	if regular {
		var ok bool
		var err error
		if f, e.info, ok, err = h.open(e); err != nil || !ok {
			return err
		}
		defer f.close() // only read from
	}
	name := h.memberName(e.path, e.info.IsDir())
	header, err := appendHeader(nil, w.owners.header(name, &e.info, e.link))
	if err != nil {
		return fmt.Errorf("archive %s: %w", h.where(e.path), err)
	}
	w.write(header)
	m := Member{Name: name, Part: w.part, ModTime: e.info.mtime, Dir: e.info.IsDir(), Link: e.link != ""}
	if regular {
		m.Size = e.info.size
		if err := w.contents(ctx, h, e, f); err != nil {
			return err
		}
		w.write(padding(m.Size))
	}
	if w.err != nil {
		return w.err
	}
	tot.count(m)
	h.members([]Member{m})
	return nil
}

// contents copies a file in chunks, reading ahead of the writer.
func (w *Writer) contents(ctx context.Context, h *hooks, e *entry, f file) error {
	if w.chunks == nil {
		for range streamAhead {
			w.chunks = append(w.chunks, make([]byte, chunkSize))
		}
	}
	type chunk struct {
		p   []byte
		err error
	}
	free, full := make(chan []byte, streamAhead), make(chan chunk, streamAhead)
	for _, c := range w.chunks {
		free <- c
	}
	size := e.info.size
	read := func() {
		defer close(full)
		for off := int64(0); off < size; off += chunkSize {
			p, ok := <-free
			if !ok {
				return
			}
			p = p[:min(chunkSize, size-off)]
			n, err := readFull(f, p)
			if err != nil {
				err = fmt.Errorf("read %s: %w", h.where(e.path), err)
			} else {
				err = h.inspect(e.path, off, p[:n], f)
			}
			full <- chunk{p[:n], err}
			if err != nil || n < len(p) {
				return
			}
		}
	}
	if size > chunkSize {
		go read()
	} else {
		read()
	}
	left, err := size, error(nil)
	for c := range full {
		if err != nil {
			continue // until the reader has noticed
		}
		if err = cmp.Or(c.err, ctx.Err()); err == nil {
			w.write(c.p)
			left, err = left-int64(len(c.p)), w.err
		}
		if err != nil {
			close(free)
			continue
		}
		free <- c.p[:chunkSize]
	}
	if err == nil && left > 0 {
		err = h.shrunk(e.path, left)
	}
	for ; err == nil && left > 0; left -= min(left, int64(len(zeros))) {
		w.write(zeros[:min(left, int64(len(zeros)))])
		err = cmp.Or(w.err, ctx.Err())
	}
	return err
}
