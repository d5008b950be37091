package remote

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

// Get reads an object in pieces, several at once and ahead of the reader. A
// piece whose connection is cut goes on where it was.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	full, err := s.full(key)
	if err != nil {
		return nil, store.Info{}, err
	}
	if offset < 0 {
		return nil, store.Info{}, s.fail("get", key, fault.New(fault.Usage, "negative offset %d", offset))
	}
	r, err := s.open(ctx, full, offset)
	if err != nil {
		return nil, store.Info{}, s.fail("get", key, err)
	}
	r.name = key
	return r, s.info(key, r.object), nil
}

func (s *Store) open(ctx context.Context, key string, offset int64) (*reader, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{s: s, key: key, ctx: ctx, cancel: cancel, at: offset}
	data, err := r.fetch(nil, offset, s.traits.Piece)
	if errors.Is(err, driver.ErrRange) {
		// The empty object has no byte to ask for.
		var object driver.Object
		object, err = s.stat(ctx, key)
		if err == nil && object.Size != offset {
			err = fault.New(fault.Usage, "offset %d is behind the end, %d", offset, object.Size)
		}
		r.object = object
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	if offset > r.object.Size {
		r.Close()
		return nil, fault.New(fault.Usage, "offset %d is behind the end, %d", offset, r.object.Size)
	}
	r.now, r.whole, r.next = data, data, offset+int64(len(data))
	if offset == 0 {
		r.expectSum()
	}
	return r, nil
}

// reader is one Get.
type reader struct {
	s      *Store
	key    string // in the bucket
	name   string // in the store
	ctx    context.Context
	cancel context.CancelFunc
	object driver.Object
	known  bool

	at    int64 // bytes handed out, from the object's beginning
	now   []byte
	whole []byte // the buffer that now is a part of
	next  int64  // where the piece after the last one on its way begins
	ahead []chan piece
	free  [][]byte
	busy  sync.WaitGroup
	err   error

	hash hash.Hash // nil where there is nothing to compare
	late chan described
}

type described struct {
	object driver.Object
	err    error
}

type piece struct {
	data []byte
	err  error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = r.advance()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.now)
	if r.hash != nil {
		r.hash.Write(r.now[:n])
	}
	r.now = r.now[n:]
	r.at += int64(n)
	return n, nil
}

// advance makes sure that there is something in now, or returns the error
// that ends the stream.
func (r *reader) advance() error {
	if r.ctx.Err() != nil {
		return r.s.fail("get", r.name, context.Cause(r.ctx))
	}
	if r.at == r.object.Size {
		return r.verify()
	}
	for r.next < r.object.Size && len(r.ahead) < r.s.traits.Parallel {
		r.begin()
	}
	if len(r.now) > 0 {
		return nil
	}
	if r.whole != nil {
		r.free = append(r.free, r.whole)
	}
	done := <-r.ahead[0]
	r.ahead = r.ahead[1:]
	if done.err != nil {
		return r.s.fail("get", r.name, done.err)
	}
	r.now, r.whole = done.data, done.data
	return nil
}

// begin fetches the next piece in the background.
func (r *reader) begin() {
	at, n := r.next, min(r.s.traits.Piece, r.object.Size-r.next)
	r.next += n
	var buf []byte
	if last := len(r.free) - 1; last >= 0 {
		buf, r.free = r.free[last], r.free[:last]
	}
	result := make(chan piece, 1)
	r.ahead = append(r.ahead, result)
	r.busy.Go(func() {
		data, err := r.fetch(buf, at, n)
		result <- piece{data, err}
	})
}

// fetch reads n bytes from at on, fewer only where the object ends. The very
// first call learns what object it is, alone; later ones insist on the same.
func (r *reader) fetch(buf []byte, at, n int64) ([]byte, error) {
	got := 0
	err := r.s.try(r.ctx, func(ctx context.Context) error {
		body, object, err := r.s.d.Read(ctx, r.key, at+int64(got), n-int64(got), r.object.Version)
		if err != nil {
			return err
		}
		defer body.Close()
		if !r.known {
			r.object, r.known = object, true
		} else if object.Size != r.object.Size {
			return driver.ErrChanged
		}
		if got == 0 {
			size := max(min(n, object.Size-at), 0)
			if int64(cap(buf)) < size {
				buf = make([]byte, size)
			}
			buf = buf[:size]
		}
		m, err := io.ReadFull(body, buf[got:])
		if got += m; err == io.EOF || err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("the connection was cut after %d of %d bytes", got, len(buf))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return buf, nil
}

// expectSum finds what the content must add up to. Some storages tell only
// when asked for the object as a whole: they are, while it is read.
func (r *reader) expectSum() {
	switch {
	case r.object.CRC32C != nil:
		r.hash = crc32.New(castagnoli)
	case r.object.MD5 != nil:
		r.hash = md5.New() // against damage, not against people
	case r.object.Size > r.s.traits.Piece && r.s.traits.Meta:
		r.hash = crc32.New(castagnoli)
		r.late = make(chan described, 1)
		r.busy.Go(func() {
			object, err := r.s.stat(r.ctx, r.key)
			if errors.Is(err, fs.ErrNotExist) || err == nil && object.Version != r.object.Version {
				object, err = driver.Object{}, nil // of what we read nobody knows any more
			}
			r.late <- described{object, err}
		})
	}
}

// verify compares the sum of what was read. It returns io.EOF where all is well.
func (r *reader) verify() error {
	if r.hash == nil {
		return io.EOF
	}
	want := r.object
	if r.late != nil {
		late := <-r.late
		if late.err != nil {
			return r.s.fail("get", r.name, fmt.Errorf("checksum: %w", late.err))
		}
		want = driver.Object{CRC32C: late.object.CRC32C}
	}
	var stored []byte
	switch {
	case want.CRC32C != nil:
		stored = binary.BigEndian.AppendUint32(nil, *want.CRC32C)
	case want.MD5 != nil:
		stored = want.MD5
	default:
		return io.EOF
	}
	if sum := r.hash.Sum(nil); !bytes.Equal(sum, stored) {
		return r.s.fail("get", r.name, fault.New(fault.Data,
			"the content is damaged: its checksum is %x, and %x was stored", sum, stored))
	}
	return io.EOF
}

// Close ends what is on its way.
func (r *reader) Close() error {
	r.cancel()
	r.busy.Wait()
	if keeper, ok := r.s.d.(driver.Releaser); ok && r.object.Version != "" {
		keeper.Release(r.object.Version)
		r.object.Version = ""
	}
	return nil
}

// Stat returns what is known of an object.
func (s *Store) Stat(ctx context.Context, key string) (store.Info, error) {
	full, err := s.full(key)
	if err != nil {
		return store.Info{}, err
	}
	object, err := s.stat(ctx, full)
	if err != nil {
		return store.Info{}, s.fail("stat", key, err)
	}
	return s.info(key, object), nil
}

func (s *Store) stat(ctx context.Context, key string) (object driver.Object, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		object, err = s.d.Stat(ctx, key)
		return err
	})
	return object, err
}
