package store

import (
	"context"
	"io"
	"iter"

	"walg/lib/rate"
)

// Rate returns s with the data of all its Puts and Gets together limited to
// bytes per second; 0 or less is no limit, and gives s itself.
func Rate(s Store, bytes int64) Store {
	if bytes <= 0 {
		return s
	}
	return &rated{s, rate.New(bytes)}
}

type rated struct {
	Store
	l *rate.Limiter
}

func (s *rated) Put(ctx context.Context, key string, r io.Reader, o PutOptions) error {
	return s.Store.Put(ctx, key, s.l.Reader(ctx, r), o)
}

func (s *rated) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, Info, error) {
	rc, info, err := s.Store.Get(ctx, key, offset)
	if err != nil {
		return nil, info, err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.l.Reader(ctx, rc), rc}, info, nil
}

func (s *rated) Sync(ctx context.Context, key string) error { return Sync(ctx, s.Store, key) }

func (s *rated) Leftovers(ctx context.Context, prefix string) iter.Seq2[Leftover, error] {
	return FindLeftovers(ctx, s.Store, prefix)
}

func (s *rated) Discard(ctx context.Context, l Leftover) error { return Discard(ctx, s.Store, l) }

func (s *rated) URL(key string) string { return URL(s.Store, key) }
