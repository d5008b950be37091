package sftp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// handle is a file that is open for one reader of the store: all pieces come
// from it, even when its name leads to another one by now.
type handle struct {
	key      string
	size     int64
	modified time.Time

	mu   sync.Mutex
	c    *conn
	file *sftp.File
}

// Read opens the file and keeps it open until Release, under a version of its
// own. It asks for the bytes when they are read.
func (d *Driver) Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, driver.Object, error) {
	h, version, err := d.handle(ctx, key, at, version)
	if err != nil {
		return nil, driver.Object{}, err
	}
	c, f, err := h.open(ctx, d)
	if err != nil {
		return nil, driver.Object{}, err
	}
	o := object(key, h.size, h.modified)
	o.Version = version
	return &body{ctx, c, f, at, min(at+n, h.size)}, o, nil
}

// handle finds the handle of a version, or opens a new one.
func (d *Driver) handle(ctx context.Context, key string, at int64, version string) (*handle, string, error) {
	if version != "" {
		d.mu.Lock()
		defer d.mu.Unlock()
		h := d.files[version]
		if h == nil || h.key != key {
			return nil, "", driver.ErrChanged
		}
		return h, version, nil
	}
	c, err := d.conn(ctx)
	if err != nil {
		return nil, "", err
	}
	h := &handle{key: key}
	if err := h.reopen(ctx, d, c); err != nil {
		return nil, "", err
	}
	if at >= h.size {
		h.close(ctx)
		return nil, "", driver.ErrRange
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	version = strconv.FormatUint(d.last, 10)
	d.files[version] = h
	return h, version, nil
}

// open returns the file, on a new connection where the old one broke. It must
// be the same then, as far as size and time tell.
func (h *handle) open(ctx context.Context, d *Driver) (*conn, *sftp.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.c.broken() {
		return h.c, h.file, nil
	}
	c, err := d.conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	again := &handle{key: h.key}
	if err := again.reopen(ctx, d, c); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = driver.ErrChanged
		}
		return nil, nil, err
	}
	if again.size != h.size || !again.modified.Equal(h.modified) {
		again.close(ctx)
		return nil, nil, driver.ErrChanged
	}
	h.c, h.file = again.c, again.file
	return h.c, h.file, nil
}

// reopen looks before it opens, because opening a FIFO waits, and then at what
// is open: another file may have come in its place.
func (h *handle) reopen(ctx context.Context, d *Driver, c *conn) error {
	if _, err := d.look(ctx, c, h.key); err != nil {
		return err
	}
	var err error
	h.c = c
	h.file, err = ask(ctx, c, func() (*sftp.File, error) { return c.sftp.Open("/" + h.key) })
	if err != nil {
		return d.absent(ctx, c, err)
	}
	fi, err := ask(ctx, c, h.file.Stat)
	if err != nil {
		h.close(ctx)
		return err
	}
	h.size, h.modified = fi.Size(), fi.ModTime()
	return nil
}

func (h *handle) close(ctx context.Context) {
	_ = h.c.call(ctx, h.file.Close) // nothing was written through it
}

// Release closes the file of a version.
func (d *Driver) Release(version string) {
	d.mu.Lock()
	h := d.files[version]
	delete(d.files, version)
	d.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), tidyTime)
	defer cancel()
	h.close(ctx)
}

// body is a range of an open file.
type body struct {
	ctx     context.Context
	c       *conn
	f       *sftp.File
	at, end int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.at >= b.end {
		return 0, io.EOF
	}
	n, err := b.c.readAt(b.ctx, b.f, p[:min(int64(len(p)), chunk, b.end-b.at)], b.at)
	b.at += int64(n)
	return n, err
}

// Close leaves the file open, for the next piece.
func (b *body) Close() error { return nil }

// readAt fills p. A file that ends before is an error of status 65.
func (c *conn) readAt(ctx context.Context, f *sftp.File, p []byte, at int64) (n int, err error) {
	err = c.call(ctx, func() (err error) {
		if n, err = f.ReadAt(p, at); err != io.EOF {
			return err
		}
		// The end of the file, or of the channel: the library has one word for
		// both.
		fi, err := f.Stat()
		if err == nil && fi.Size() > at+int64(n) {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	if err == nil && n < len(p) {
		err = fault.New(fault.Data, "the file ends early, at %d", at+int64(n))
	}
	return n, err
}
