// Package store is where walg keeps objects: whole byte streams under flat
// keys, on a disk or in a bucket. It holds the interface, the contract that
// every backend keeps, and the wrappers that add a prefix or a rate limit.
// The backends are in the packages below it; storetest checks each sentence of
// the contract on each of them.
//
// A store knows nothing of backups, compression or encryption, and keeps no
// state of its own: two processes may use the same place at the same time.
package store

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"

	"walg/lib/fault"
)

// What a store says of an absent or an existing object, as in package fs.
// Errors wrap them; ask with errors.Is.
var (
	ErrNotExist = fs.ErrNotExist
	ErrExist    = fs.ErrExist
)

// A Store holds objects. All methods may be called from several goroutines,
// and check their keys with ValidKey before anything else. An error names the
// operation, the object once and the cause.
type Store interface {
	// Put makes one object of everything that r returns up to io.EOF.
	//
	// The object appears at once and whole, or not at all: while Put runs,
	// Get, Stat and List show the previous object or none. Any error of r other
	// than io.EOF, and a context that is done, abort the Put: the previous
	// object is untouched, no new one appears, and the error wraps the cause.
	// When Put returns nil the object is durable, and Get, Stat and List show
	// it. A process killed inside Put leaves the previous object, none, or the
	// whole new one.
	//
	// One ambiguity no storage can remove: where the answer to the final
	// commit itself is an error or never comes, the whole new object may be
	// there though Put failed. It is never a part of one.
	//
	// With IfAbsent, Put fails with ErrExist where the object exists, and of
	// any number of writers of one key exactly one succeeds. It may fail so
	// before it reads r.
	//
	// Put does not close r. A Read that is in progress is not interrupted when
	// the context is done; Put returns after it.
	Put(ctx context.Context, key string, r io.Reader, o PutOptions) error

	// Get returns the object from offset on, and what is known of the object
	// as a whole. The reader returns io.EOF only after the last byte of the
	// object: when the storage ends early it returns another error. The data is
	// that of one Put even where the object is replaced meanwhile. Get of
	// an absent object fails with ErrNotExist, at Get, not at the first Read.
	// An offset equal to the size gives an empty reader, a larger or a
	// negative one is an error. The caller closes the reader. When the
	// context is done the next Read fails.
	Get(ctx context.Context, key string, offset int64) (io.ReadCloser, Info, error)

	// Stat returns what is known of an object, with its metadata, or
	// ErrNotExist.
	Stat(ctx context.Context, key string) (Info, error)

	// List returns the objects whose keys begin with prefix, which is a
	// string and not a directory, in byte order of the keys; the empty prefix
	// lists all. Meta is left out. Unfinished objects are not listed, nor names
	// that are no valid keys. The loop may be left at any time. An error is
	// the last thing that is yielded; a prefix that matches nothing is none.
	// Memory does not grow with the number of objects, except with the number
	// of names in one directory where the storage has directories. An object
	// that is put or deleted meanwhile may or may not be seen.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes objects, any number of them. An absent one is not an
	// error. When Delete returns nil all are gone, durably.
	//
	// Delete tries every key although others are refused. Where some are
	// refused, or not known to be gone, the error is or wraps a *DeleteError
	// that has them; all others are gone. A storage that does not answer, and
	// a context that is done, end it early: then the keys that were not tried
	// are among them. It can be called again. An invalid key is an error of
	// another kind, before anything is deleted.
	Delete(ctx context.Context, keys ...string) error
}

// Info is what a store knows of an object.
type Info struct {
	Key     string
	Size    int64             // bytes
	ModTime time.Time         // when it was put, by the storage's clock
	Meta    map[string]string // as given to Put, where the storage keeps it
}

// PutOptions are the choices of one Put. The zero value replaces an existing
// object and records no metadata.
type PutOptions struct {
	IfAbsent bool              // fail with ErrExist instead of replacing
	Meta     map[string]string // see ValidMeta
}

// Durable is implemented by stores where an object can exist before it is
// safe from a power cut, because its writer was killed in between. Where it
// is missing, to exist is to be durable.
type Durable interface {
	// Sync returns nil once the existing object and its name are durable, and
	// ErrNotExist if there is none.
	Sync(ctx context.Context, key string) error
}

// A Leftover is what a killed Put left behind, or a running one has written so
// far. It is no object: only Leftovers shows it.
type Leftover struct {
	Name    string    // of the leftover itself
	Key     string    // the object that it was to become
	Size    int64     // bytes
	Started time.Time // when its Put began
	ModTime time.Time // when it last grew
}

// Leftovers is implemented by stores where a killed Put leaves something that
// takes up space.
type Leftovers interface {
	// Leftovers returns the leftovers whose names begin with prefix, sorted by
	// name in byte order.
	Leftovers(ctx context.Context, prefix string) iter.Seq2[Leftover, error]

	// Discard removes a leftover that Leftovers has returned. An absent one is
	// not an error. What is no leftover is refused with status 64 and stays,
	// objects above all, and so is one that only time removes. The Put of a
	// leftover that still runs is broken by it: the caller knows that there is
	// none.
	Discard(ctx context.Context, l Leftover) error
}

// An Undeleted object is there still, or may be.
type Undeleted struct {
	Key string
	Err error // operation, object, cause
}

// A DeleteError says which objects a Delete has not removed.
type DeleteError struct {
	Failed []Undeleted // in the order of the keys that Delete got, each once; never empty
	Of     int         // how many keys Delete got
}

// Error names the first object and counts the others.
func (e *DeleteError) Error() string {
	text := e.Failed[0].Err.Error()
	if n := len(e.Failed) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more of %d objects)", n, e.Of)
	}
	return text
}

// Unwrap returns the first object's error alone, because that is the one that
// Error tells: status and hint have to be about the same one. Who wants to
// know more looks at Failed.
func (e *DeleteError) Unwrap() error { return e.Failed[0].Err }

// Locator is implemented by stores that can name their objects to the user.
type Locator interface {
	// URL returns the absolute name of the object, without credentials.
	URL(key string) string
}

// Sync makes the object durable where s is Durable, and otherwise checks that
// it exists.
func Sync(ctx context.Context, s Store, key string) error {
	if d, ok := s.(Durable); ok {
		return d.Sync(ctx, key)
	}
	_, err := s.Stat(ctx, key)
	return err
}

// FindLeftovers returns the leftovers of s, none where it has none to show.
func FindLeftovers(ctx context.Context, s Store, prefix string) iter.Seq2[Leftover, error] {
	if l, ok := s.(Leftovers); ok {
		return l.Leftovers(ctx, prefix)
	}
	return func(func(Leftover, error) bool) {}
}

// Discard removes a leftover that FindLeftovers has returned, see Leftovers.
func Discard(ctx context.Context, s Store, l Leftover) error {
	if d, ok := s.(Leftovers); ok {
		return d.Discard(ctx, l)
	}
	return fault.New(fault.Usage, "discard %s: this store has no leftovers", l.Name)
}

// URL returns the absolute name of the object, or its key where s has no URLs.
func URL(s Store, key string) string {
	if l, ok := s.(Locator); ok {
		return l.URL(key)
	}
	return key
}
