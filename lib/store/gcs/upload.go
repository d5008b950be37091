package gcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"cloud.google.com/go/storage"
	gax "github.com/googleapis/gax-go/v2"

	"walg/lib/fault"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

// upload is a resumable upload. The library holds one chunk, and sends it again
// where it has to; the session of chunks knows how far it is.
type upload struct {
	d      *Driver
	key    string
	o      driver.Options
	w      *storage.Writer
	cancel context.CancelFunc
	// Of the chunk that is being sent. Only the library's goroutine writes it,
	// and we read it when that has ended.
	failures int
	since    time.Time // the first of them
}

// Begin asks nothing of the server: an upload begins with its first chunk.
func (d *Driver) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	u := &upload{d: d, key: key, o: o}
	ctx, u.cancel = context.WithCancel(ctx)
	u.w = d.writer(ctx, key, o,
		storage.WithPolicy(storage.RetryAlways), // a chunk that arrives twice is taken once
		storage.WithBackoff(gax.Backoff{Initial: firstWait, Max: lastWait, Multiplier: 2}),
		storage.WithErrorFunc(u.again))
	u.w.ChunkSize = int(d.traits.PartSize)
	u.w.ChunkRetryDeadline = d.patient
	u.w.ProgressFunc = func(int64) { u.failures = 0 }
	return u, nil
}

// again reports whether a chunk, or the request that opens the session, is
// sent once more.
func (u *upload) again(err error) bool {
	if err == nil {
		return false // nothing to mend
	}
	if u.failures++; u.failures == 1 {
		u.since = time.Now()
	}
	var token *noToken
	// The library has a limit of time for a chunk, and none for the session.
	return u.failures < u.d.traits.Tries && time.Since(u.since) < u.d.patient && (storage.ShouldRetry(err) || errors.Is(err, wire.ErrStalled) || errors.As(err, &token))
}

// Part hands a chunk to the library. It returns when the one before it is
// with the server, and with what went wrong so far.
func (u *upload) Part(ctx context.Context, _ int, _ int64, data []byte) error {
	ctx, cancel := u.d.limit(ctx)
	defer cancel()
	return u.do(ctx, func() error {
		_, err := u.w.Write(data)
		return err
	})
}

// do runs one call of the Writer, which knows only the upload's own context.
func (u *upload) do(ctx context.Context, call func() error) error {
	stop := context.AfterFunc(ctx, u.cancel)
	defer stop()
	err := u.d.written(ctx, call())
	if err != nil && ctx.Err() == nil && u.failures > 1 {
		return fmt.Errorf("%w (tried %d times)", err, u.failures)
	}
	return err
}

// Commit sends the last chunk and compares what the server says it has. Where
// that differs the object is removed, by its generation, and the status is 65,
// not 1: the store must not take the object for ours and call this a success.
func (u *upload) Commit(ctx context.Context, _ int, whole driver.Sum) error {
	defer u.cancel()
	ctx, cancel := u.d.limit(ctx)
	defer cancel()
	err := u.do(ctx, u.w.Close)
	if errors.Is(err, fs.ErrExist) && u.failures > 1 {
		// What exists may be ours: the first answer was lost, and the last chunk
		// was sent again. The store's mark in the metadata is like no other.
		if o, serr := u.d.Stat(ctx, u.key); serr == nil && len(u.o.Meta) > 0 && maps.Equal(o.Meta, u.o.Meta) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	// A checksum of 0 is none: see known. The server has compared it already.
	got := u.w.Attrs()
	if err := made(got); err != nil {
		return err // and remove nothing: generation 0 may be what was there before
	}
	if got.Size == whole.Size && (got.CRC32C == whole.CRC32C || got.CRC32C == 0) {
		return nil
	}
	removed := "it was removed"
	err = u.d.explain(ctx, u.d.bucket.Object(u.key).Generation(got.Generation).Delete(ctx))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		removed = fmt.Sprintf("generation %d could not be removed: %v", got.Generation, err)
	}
	return fault.New(fault.Data, "the object was damaged on its way: the storage has %d bytes with checksum %08x, not %d with %08x; %s",
		got.Size, got.CRC32C, whole.Size, whole.CRC32C, removed)
}

// Abort ends what is on its way. Nothing can be sent once the context is done,
// so that Close only waits.
func (u *upload) Abort(context.Context) error {
	u.cancel()
	_ = u.w.Close() // says that it was cancelled
	return nil
}
