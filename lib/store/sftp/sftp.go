// Package sftp keeps objects as files below one directory of an SSH server, in
// the layout of package file: the key is the path, and a file that is being
// written has a temporary name beside its target.
//
// What the package promises beyond package remote: the directory is never
// created, so that a disk that is not mounted does not look like an empty
// store; directories between it and an object are made by a put and removed by
// a deletion when the last object has left them. Files are 0644 and directories
// 0755, less the server's umask. Links are followed, as in package file. Nobody
// but the server with a known host key gets a password or a byte of data,
// unless SSH_STRICT_HOST_KEY is false. All requests share one connection, which
// is made at the first of them and again after it broke. A server that was
// restarted in the middle of an upload is found out where it lost what it had
// taken.
//
// What depends on the server's extensions, all of which OpenSSH has: without
// posix-rename@openssh.com an existing object is replaced only where the plain
// rename does that, and refused with status 64 otherwise; without
// hardlink@openssh.com (or on a file system without links) a conditional put
// looks first and then renames, which is atomic only where rename refuses an
// existing name; without fsync@openssh.com nothing is known to survive a power
// cut of the server.
//
// What it cannot: SFTP has no checksums. Data are protected on their way by
// SSH, and the size is compared before the object gets its name; what the
// server's disk makes of them later nobody sees. Metadata is not kept. Times
// have whole seconds: a reader that lost its connection takes an object that was
// replaced by one of the same size and the same second for its own. A name may
// be 217 bytes long on the usual file systems.
//
// Tested against OpenSSH 9.2 on Linux.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"walg/lib/store"
	"walg/lib/store/driver"
)

const (
	mib       = 1 << 20
	partSize  = 8 * mib
	parallel  = 4
	batch     = 100
	endpoint  = "WALG_SSH_PREFIX"
	tidyTime  = 2 * time.Second
	deletions = 8 // of one batch at once: each is a round trip
)

// Address is what a URL says of the place.
type Address struct {
	User, Host, Port string // User and Port may be empty
	Root             string // the directory of the prefix, absolute; "/" has all
}

// Driver is a driver.Driver, with driver.Releaser and driver.Unfinished. The
// name of an object is its path on the server without the first slash.
type Driver struct {
	login *login
	root  string // clean
	stall time.Duration

	gate chan struct{} // held by who looks at or changes line
	line *conn

	mu    sync.Mutex
	files map[string]*handle // by version
	last  uint64             // version
	walks map[walkID]*walk   // those that a next Page may go on with
}

// New reads the settings and the files that they name. It does not connect.
func New(_ context.Context, a Address, s *driver.Settings) (*Driver, error) {
	l, err := newLogin(a, s)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		login: l, root: path.Clean("/" + a.Root), stall: s.Stall,
		gate: make(chan struct{}, 1), files: map[string]*handle{}, walks: map[walkID]*walk{},
	}
	if d.stall <= 0 {
		d.stall = defaultStall
	}
	return d, nil
}

// Traits are those of OpenSSH: a request moves 32 KiB, and 2 MiB may be on
// their way.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{PartSize: partSize, Piece: partSize, Parallel: parallel, Batch: batch, Endpoint: endpoint}
}

// URL returns ssh://, host, port where it is not the usual one, and path.
func (d *Driver) URL(key string) string {
	host := d.login.host
	if d.login.port != defaultPort {
		host = net.JoinHostPort(host, d.login.port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "ssh://" + host + "/" + key
}

// Stat returns size and time of a file.
func (d *Driver) Stat(ctx context.Context, key string) (driver.Object, error) {
	c, err := d.conn(ctx)
	if err != nil {
		return driver.Object{}, err
	}
	fi, err := d.look(ctx, c, key)
	if err != nil {
		return driver.Object{}, err
	}
	return object(key, fi.Size(), fi.ModTime()), nil
}

func object(key string, size int64, modified time.Time) driver.Object {
	return driver.Object{Info: store.Info{Key: key, Size: size, ModTime: modified}}
}

// look finds the regular file of an object.
func (d *Driver) look(ctx context.Context, c *conn, key string) (fs.FileInfo, error) {
	fi, err := c.stat(ctx, "/"+key)
	switch {
	case err == nil && fi.IsDir():
		err = fs.ErrNotExist // no object of its own
	case err == nil && !fi.Mode().IsRegular():
		err = driver.Permanent(errors.New("not a regular file"), "")
	}
	return fi, d.absent(ctx, c, err)
}

// absent looks, where nothing was found, whether the whole store is missing.
func (d *Driver) absent(ctx context.Context, c *conn, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if gone := d.present(ctx, c); gone != nil {
			return gone
		}
	}
	return err
}

// present returns an error of status 64 unless the root is a directory.
func (d *Driver) present(ctx context.Context, c *conn) error {
	if d.root == "/" {
		return nil
	}
	fi, err := c.stat(ctx, d.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return driver.Permanent(fmt.Errorf("no directory %s on the server", d.root),
			"is the disk mounted there? "+endpoint+" must name an existing directory; it is never created")
	case err == nil && !fi.IsDir():
		return driver.Permanent(fmt.Errorf("%s is not a directory on the server", d.root), endpoint+" must name one")
	}
	return err
}

// Delete removes files, then the directories that became empty. Those of absent
// files are looked at too: an earlier try may have been cut in between.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	c, err := d.conn(ctx)
	if err != nil {
		return err
	}
	var kept driver.Kept
	var group errgroup.Group
	group.SetLimit(deletions)
	for _, key := range keys {
		group.Go(func() error {
			err := d.absent(ctx, c, c.remove(ctx, "/"+key))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case c.broken() || ctx.Err() != nil:
				return err // no answer of the server's
			}
			kept.Add(key, err)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, key := range keys {
		if !kept.Has(key) {
			dirs[path.Dir("/"+key)] = true
		}
	}
	stay := map[string]bool{}
	for dir := range dirs {
		if dir, err = d.prune(ctx, c, dir); err != nil {
			return err
		}
		stay[dir] = true
	}
	for dir := range stay {
		if err := c.syncDir(ctx, dir); err != nil {
			return err
		}
	}
	return kept.Of(keys)
}

// remove removes a file. Of a directory it says that there is none.
func (c *conn) remove(ctx context.Context, name string) error {
	err := c.call(ctx, func() error { return c.sftp.Remove(name) })
	if refused(err) {
		if fi, look := c.lstat(ctx, name); look == nil && fi.IsDir() {
			return fs.ErrNotExist
		}
	}
	return err
}

// prune removes dir and those above it as long as they are empty and below the
// root, and returns the first that stays.
func (d *Driver) prune(ctx context.Context, c *conn, dir string) (string, error) {
	for ; dir != d.root && dir != "/"; dir = path.Dir(dir) {
		err := c.call(ctx, func() error { return c.sftp.RemoveDirectory(dir) })
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist): // another was faster
		case c.broken() || ctx.Err() != nil:
			return dir, err
		default:
			return dir, nil // it is not empty, as a rule
		}
	}
	return dir, nil
}

// makeDirs makes the missing directories from the root, which exists, down to
// dir, each durable before the next, and returns them.
func (d *Driver) makeDirs(ctx context.Context, c *conn, dir string) (made []string, err error) {
	if dir == d.root || dir == "/" {
		return nil, nil
	}
	parent := path.Dir(dir)
	mkdir := func() error { return c.call(ctx, func() error { return c.sftp.Mkdir(dir) }) }
	if err = mkdir(); errors.Is(err, fs.ErrNotExist) {
		if made, err = d.makeDirs(ctx, c, parent); err != nil {
			return made, err
		}
		err = mkdir()
	}
	switch {
	case err == nil:
		made = append(made, dir)
		if err := c.limitMode(ctx, dir); err != nil {
			return made, err
		}
		return made, c.syncDir(ctx, parent)
	case !refused(err):
		return made, err
	}
	// Refused, as a rule because it is there.
	switch fi, look := c.stat(ctx, dir); {
	case look != nil && !errors.Is(look, fs.ErrNotExist):
		return made, look
	case look != nil:
		return made, c.reason(ctx, parent, err)
	case !fi.IsDir():
		return made, errNested
	}
	return made, nil
}

// limitMode takes rights from a new directory that the server gave it beyond
// 0755.
func (c *conn) limitMode(ctx context.Context, dir string) error {
	fi, err := c.stat(ctx, dir)
	if err == nil && fi.Mode().Perm()&^0o755 != 0 {
		err = c.call(ctx, func() error { return c.sftp.Chmod(dir, fi.Mode().Perm()&0o755) })
	}
	if c.broken() || ctx.Err() != nil {
		return err
	}
	return nil // one that knows no modes is not the worse for it
}

// stat follows links.
func (c *conn) stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return ask(ctx, c, func() (fs.FileInfo, error) { return c.sftp.Stat(name) })
}

// lstat does not.
func (c *conn) lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	return ask(ctx, c, func() (fs.FileInfo, error) { return c.sftp.Lstat(name) })
}

// syncDir makes the names in a directory durable, where the server can open one
// as a file, as OpenSSH on Unix can. Elsewhere nothing more can be done.
func (c *conn) syncDir(ctx context.Context, dir string) error {
	if _, ok := c.sftp.HasExtension(extSync); !ok {
		return nil
	}
	err := c.call(ctx, func() error {
		f, err := c.sftp.Open(dir)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close() // nothing was written through it
		return err
	})
	if err != nil && (c.broken() || ctx.Err() != nil) {
		return err
	}
	return nil
}

// Whole makes an object by one attempt at an upload. Where the answer to the
// last request does not come, nobody else knows the name of the temporary file:
// so it is asked once, on a new connection, what has become of it.
func (d *Driver) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	u, err := d.begin(ctx, key, o)
	if err != nil {
		return err
	}
	if err = u.write(ctx, 0, data); err == nil {
		err = u.commit(ctx, int64(len(data)))
		if err != nil && u.landing && ctx.Err() == nil {
			err = u.commit(ctx, int64(len(data)))
		}
	}
	if err != nil {
		u.tidy(ctx)
	}
	return err
}
