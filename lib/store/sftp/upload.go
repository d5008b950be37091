package sftp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

const (
	// chunk is how much is read or written between two looks at the context:
	// what may be on its way in one SSH channel.
	chunk = 2 * mib
	// syncEvery is how much of an upload is written before it is made durable,
	// and so how much is read back after a lost connection.
	syncEvery = 256 * mib
	// mkdirTries bounds how often a deletion may take an empty directory away
	// between our making it and our creating a file there.
	mkdirTries = 100
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// upload is a temporary file beside its target.
type upload struct {
	d          *Driver
	path, temp string
	ifAbsent   bool
	made       []string // directories, for it

	mu      sync.Mutex
	c       *conn // that file is open on
	file    *sftp.File
	loose   []piece // taken by the server, and not durable yet
	looseIn int64   // bytes of them

	// Of Commit, which is not called twice at once.
	landing bool // the target may be ours already
	linked  bool // it is: with IfAbsent, temp has both names
}

// piece is a range of an upload that the server has taken.
type piece struct {
	at, n int64
	sum   uint32
}

// Begin creates the temporary file.
func (d *Driver) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	u, err := d.begin(ctx, key, o)
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (d *Driver) begin(ctx context.Context, key string, o driver.Options) (_ *upload, err error) {
	c, err := d.conn(ctx)
	if err != nil {
		return nil, err
	}
	u := &upload{d: d, path: "/" + key, ifAbsent: o.IfAbsent, c: c}
	dir, name := path.Split(u.path)
	dir = path.Clean(dir)
	for range mkdirTries {
		var random [8]byte
		rand.Read(random[:]) // never fails
		u.temp = path.Join(dir, store.TempName(name, time.Now(), binary.BigEndian.Uint64(random[:])))
		u.file, err = ask(ctx, c, func() (*sftp.File, error) {
			return c.sftp.OpenFile(u.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		})
		if err == nil {
			return u, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			if err = d.present(ctx, c); err == nil {
				var made []string
				made, err = d.makeDirs(ctx, c, dir)
				u.made = append(u.made, made...)
			}
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				err = errors.New("the directory is removed again and again")
				continue
			}
		}
		break
	}
	if c.broken() {
		u.tidy(ctx) // the answer may have been a yes
		return nil, err
	}
	u.removeMade(ctx, c)
	return nil, c.reason(ctx, dir, err)
}

// Part writes a part at its place. What is there already of it is the same.
func (u *upload) Part(ctx context.Context, _ int, at int64, data []byte) error {
	return u.write(ctx, at, data)
}

func (u *upload) write(ctx context.Context, at int64, data []byte) error {
	c, f, err := u.open(ctx)
	if err != nil {
		return err
	}
	for done := 0; done < len(data); done += chunk {
		some := data[done:min(done+chunk, len(data))]
		err := c.call(ctx, func() error {
			_, err := f.WriteAt(some, at+int64(done))
			return err
		})
		if err != nil {
			return c.reason(ctx, path.Dir(u.temp), err)
		}
	}
	p := piece{at, int64(len(data)), crc32.Checksum(data, castagnoli)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.c != c {
		return c.lost() // and what was read back did not have this piece yet
	}
	u.loose = append(u.loose, p)
	if u.looseIn += p.n; u.looseIn < syncEvery {
		return nil
	}
	return u.sync(ctx)
}

// open returns the temporary file, on a new connection where the old one broke.
// Then the server may have been restarted too, and have lost what was not
// durable: that is read back.
func (u *upload) open(ctx context.Context) (*conn, *sftp.File, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.file != nil && !u.c.broken() {
		return u.c, u.file, nil
	}
	c, err := u.d.conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := ask(ctx, c, func() (*sftp.File, error) { return c.sftp.OpenFile(u.temp, os.O_RDWR) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &fault.Error{Status: fault.Failed, Err: errTempGone}
	}
	if err != nil {
		return nil, nil, err
	}
	buf := make([]byte, chunk)
	for _, p := range u.loose {
		if err := p.verify(ctx, c, f, buf); err != nil {
			f.Close() // best effort, as the connection may have broken again
			return nil, nil, err
		}
	}
	u.c, u.file = c, f
	return c, f, nil
}

// verify reads a piece back.
func (p piece) verify(ctx context.Context, c *conn, f *sftp.File, buf []byte) error {
	sum := uint32(0)
	for done := int64(0); done < p.n; done += chunk {
		some := buf[:min(chunk, p.n-done)]
		if _, err := c.readAt(ctx, f, some, p.at+done); fault.Status(err) == fault.Data {
			return p.lost()
		} else if err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, some)
	}
	if sum != p.sum {
		return p.lost()
	}
	return nil
}

func (p piece) lost() error {
	return fault.WithHint(fault.New(fault.Failed, "the server lost what it had taken, at %d", p.at),
		"was it restarted meanwhile? put the object again")
}

// sync makes what was written durable. A refusal is final: what the kernel
// could not write it may have dropped, and would not say so again.
// mu is held: the server does nothing else meanwhile either.
func (u *upload) sync(ctx context.Context) error {
	if _, ok := u.c.sftp.HasExtension(extSync); ok {
		err := u.c.call(ctx, u.file.Sync)
		switch {
		case refused(err):
			return &fault.Error{Status: fault.Failed, Err: fmt.Errorf("fsync: %w", u.c.reason(ctx, path.Dir(u.temp), err)),
				Hint: "the disk of the server may be full or broken"}
		case err != nil:
			return fmt.Errorf("fsync: %w", err)
		}
	}
	u.loose, u.looseIn = u.loose[:0], 0
	return nil
}

// Commit gives the file its name.
func (u *upload) Commit(ctx context.Context, _ int, whole driver.Sum) error {
	return u.commit(ctx, whole.Size)
}

func (u *upload) commit(ctx context.Context, size int64) error {
	if u.landing {
		landed, err := u.landed(ctx, size)
		if err != nil {
			return err
		}
		if landed {
			return u.settle(ctx)
		}
		u.landing = false
	}
	c, f, err := u.open(ctx)
	if err != nil {
		return err
	}
	if err := u.finish(ctx, c, f, size); err != nil {
		return err
	}
	u.landing = true
	if err := u.land(ctx, c); err != nil {
		if !c.broken() && ctx.Err() == nil {
			u.landing = false // it was refused
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = errTempGone
		}
		return err
	}
	return u.settle(ctx)
}

// finish makes the temporary file whole, durable and closed.
func (u *upload) finish(ctx context.Context, c *conn, f *sftp.File, size int64) error {
	fi, err := ask(ctx, c, f.Stat)
	if err != nil {
		return err
	}
	if fi.Size() != size {
		return fault.New(fault.Data, "the server has %d bytes of %d", fi.Size(), size)
	}
	if mode := fi.Mode().Perm(); mode&^0o644 != 0 {
		// One that knows no modes is not the worse for it.
		if err := c.call(ctx, func() error { return f.Chmod(mode & 0o644) }); err != nil && (c.broken() || ctx.Err() != nil) {
			return err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.sync(ctx); err != nil {
		return err
	}
	u.file = nil
	// Some network file systems say only now that they could not write.
	if err := c.call(ctx, f.Close); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// land is the moment at which the object appears.
func (u *upload) land(ctx context.Context, c *conn) error {
	rename := c.sftp.Rename
	if _, ok := c.sftp.HasExtension(extRename); ok && !u.ifAbsent {
		rename = c.sftp.PosixRename
	}
	if _, ok := c.sftp.HasExtension(extLink); ok && u.ifAbsent {
		// Twice, because the one that was in the way may be gone now.
		for range 2 {
			err := c.call(ctx, func() error { return c.sftp.Link(u.temp, u.path) })
			if err == nil {
				u.linked = true
				return nil
			}
			if c.broken() || ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := u.taken(ctx, c); err != nil {
				return err
			}
		}
		// A file system without links.
	} else if u.ifAbsent {
		if err := u.taken(ctx, c); err != nil {
			return err
		}
	}
	err := c.call(ctx, func() error { return rename(u.temp, u.path) })
	if !refused(err) {
		return err
	}
	switch taken := u.taken(ctx, c); {
	case taken == nil:
		return c.reason(ctx, path.Dir(u.path), err)
	case u.ifAbsent || !errors.Is(taken, fs.ErrExist):
		return taken
	}
	if _, ok := c.sftp.HasExtension(extRename); !ok {
		return driver.Permanent(err, "the server cannot replace an object (it has no "+extRename+")")
	}
	return err
}

// taken returns fs.ErrExist where the name of the object is taken, and why not
// even a replacement is possible where that is by a directory.
func (u *upload) taken(ctx context.Context, c *conn) error {
	fi, err := c.lstat(ctx, u.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.IsDir():
		return errDirectory
	}
	return fs.ErrExist
}

// landed finds out whether an earlier Commit, whose answer did not come, gave
// the object its name.
func (u *upload) landed(ctx context.Context, size int64) (bool, error) {
	c, err := u.d.conn(ctx)
	if err != nil {
		return false, err
	}
	temp, tempErr := c.lstat(ctx, u.temp)
	if tempErr != nil && !errors.Is(tempErr, fs.ErrNotExist) {
		return false, tempErr
	}
	target, err := c.lstat(ctx, u.path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	case tempErr != nil && err == nil && target.Size() == size:
		return true, nil // nobody else takes temporary files away so soon
	case tempErr != nil:
		return false, &fault.Error{Status: fault.Failed, Err: errTempGone}
	case err != nil || !u.ifAbsent || target.Size() != size:
		return false, nil
	case !u.linked:
		u.linked, err = u.same(ctx, c, temp.ModTime())
		return u.linked, err
	}
	return true, nil
}

// same reports whether temp and path are two names of one file. SFTP has no
// inode numbers, but what happens to one shows in the other: temp gets a
// time of last access that no other file has.
func (u *upload) same(ctx context.Context, c *conn, modified time.Time) (bool, error) {
	accessed := uint32(mathrand.Int32N(1 << 30))
	err := c.call(ctx, func() error { return c.sftp.Chtimes(u.temp, time.Unix(int64(accessed), 0), modified) })
	if err != nil {
		return false, err
	}
	fi, err := c.lstat(ctx, u.path)
	if err != nil {
		return false, err
	}
	stat, ok := fi.Sys().(*sftp.FileStat)
	return ok && stat.Atime == accessed, nil
}

// settle does what is left when the object is there: a second name is taken
// away, and the first made durable.
func (u *upload) settle(ctx context.Context) error {
	c, err := u.d.conn(ctx)
	if err != nil {
		return err
	}
	if u.linked {
		// If it stays, it is a leftover, and no reason to report a failure.
		if err := c.remove(ctx, u.temp); err != nil && (c.broken() || ctx.Err() != nil) {
			return err
		}
	}
	return c.syncDir(ctx, path.Dir(u.path))
}

// tidy is Abort with a context of its own. What it leaves is no object, and
// Unfinished shows it.
func (u *upload) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	_ = u.Abort(ctx)
}

// Abort removes the temporary file and the directories that were made for it.
func (u *upload) Abort(ctx context.Context) error {
	c, err := u.d.conn(ctx)
	if err != nil {
		return err
	}
	u.mu.Lock()
	f := u.file
	if u.c != c {
		f = nil // it went with its connection
	}
	u.file = nil
	u.mu.Unlock()
	if f != nil {
		_ = c.call(ctx, f.Close) // nobody wants what is in it
	}
	err = c.remove(ctx, u.temp)
	u.removeMade(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeMade is best effort: an empty directory is nothing.
func (u *upload) removeMade(ctx context.Context, c *conn) {
	for _, dir := range slices.Backward(u.made) {
		if c.call(ctx, func() error { return c.sftp.RemoveDirectory(dir) }) != nil {
			return
		}
	}
}
