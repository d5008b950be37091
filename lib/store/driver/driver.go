// Package driver is what the protocols of storages behind a network have in
// common: what a driver of one must do, how it tells what an error means, and
// how it reads its settings. Package remote makes a store of a driver.
package driver

import (
	"context"
	"io"
	"iter"
	"time"

	"walg/lib/store"
)

// A Driver is the protocol of one storage, bound to one bucket or container.
// Its methods may be called from several goroutines. Each is one attempt: it
// does not try again, and ends early when ctx is done. Keys are the full names
// of objects in the bucket; they are checked already.
//
// Errors are bare causes: the store adds operation and object. They wrap
//
//   - fs.ErrNotExist where the object (not the bucket) is absent,
//   - fs.ErrExist where IfAbsent finds one,
//   - ErrRange, ErrChanged as Read says,
//   - *fault.Error where trying again cannot help: fault.Usage, with a hint
//     that names the setting to look at; fault.Failed where this one upload or
//     stream cannot go on, and another may,
//   - *Later where the storage says how long to wait.
//
// Everything else is tried again. Judge turns an HTTP status into one of these.
type Driver interface {
	// Whole makes an object of data by one request, or of several that end
	// with one that commits.
	Whole(ctx context.Context, key string, data []byte, o Options) error

	// Begin starts an upload in parts. ctx lives until the upload has ended.
	// Nothing of it shows in Read, Stat and Page until Commit.
	Begin(ctx context.Context, key string, o Options) (Upload, error)

	// Read returns the bytes [at, at+n) of an object, fewer where the object
	// ends before, and what is known of it as a whole. n is positive. at behind
	// the last byte is ErrRange (at equal to the size may be, or give no
	// bytes). Where version is not empty the object must be the one that an
	// earlier Read returned with it, else ErrChanged. The reader may end early
	// with or without an error: the store counts.
	Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, Object, error)

	// Stat returns what is known of an object.
	Stat(ctx context.Context, key string) (Object, error)

	// Page returns some of the objects whose keys begin with prefix, in byte
	// order, without Meta: the first of them where from is empty, else those
	// that follow the page which returned from as next. An empty next says that
	// there are no more. A page may be empty. Names that are no valid keys may
	// be among them.
	Page(ctx context.Context, prefix, from string) (page []store.Info, next string, err error)

	// Delete removes at most Traits.Batch objects. Absent ones are no error.
	// Where it is known which ones stay the error is Undeleted, and the others
	// are gone, durably. After any other error all may be there still.
	Delete(ctx context.Context, keys []string) error

	// URL returns the absolute name of an object, without credentials.
	URL(key string) string

	Traits() Traits
}

// Upload is one upload in parts.
type Upload interface {
	// Part sends the part number n, counted from 1, whose bytes belong at
	// the offset at. Several are sent at once, and one is sent again after an
	// error. Not so with Traits.Stream: then they come one by one in order, and
	// an error ends the upload.
	Part(ctx context.Context, n int, at int64, data []byte) error

	// Commit makes the object of the parts 1 to n. It is called again after an
	// error, unless Traits.Stream.
	Commit(ctx context.Context, n int, whole Sum) error

	// Abort ends the upload, after a failed Commit too, and removes what was
	// sent. ctx is not the one of Begin.
	Abort(ctx context.Context) error
}

// Sum describes the content of an object.
type Sum struct {
	Size   int64  // bytes
	CRC32C uint32 // Castagnoli
}

// Object is what a storage says of an object.
type Object struct {
	store.Info
	// Version changes when the object is replaced: an ETag or generation.
	Version string
	// Checksums of the whole content, where the storage keeps one.
	CRC32C *uint32
	MD5    []byte // 16 bytes or none
}

// Options of an upload.
type Options struct {
	IfAbsent bool
	Meta     map[string]string // see store.ValidMeta; with our mark
}

// Traits are the numbers of a storage, some of them from its settings.
type Traits struct {
	PartSize int64 // of the first parts, and the largest object that Whole gets
	MaxPart  int64 // no part is larger; 0 is no limit
	MaxParts int   // 0 is no limit
	Piece    int64 // bytes of one Read
	Parallel int   // requests at once for one object, and deletions
	Batch    int   // keys of one Delete
	Stream   bool  // see Upload.Part
	Meta     bool  // metadata is kept
	// Settings to name in hints.
	Endpoint, CA string
	// Tries and delays that the storage's settings ask for; zero is the
	// policy's.
	Tries              int
	MinDelay, MaxDelay time.Duration
}

// Releaser is implemented by drivers whose Read keeps something open for a
// version.
type Releaser interface {
	Release(version string)
}

// Unfinished is implemented by drivers that can show what killed uploads have
// left. Names and keys are full names in the bucket.
type Unfinished interface {
	Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error]

	// Discard removes one of them. An absent one is no error. What Unfinished
	// would not show is refused for good, and so is what cannot be removed.
	Discard(ctx context.Context, l store.Leftover) error
}
