package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
)

// Prefix returns a store of the objects of s whose keys begin with dir and a
// slash; its own keys are without them. Slashes around dir do not matter; an
// empty dir gives s itself. A dir that cannot be the beginning of a key is an
// error of status 64.
func Prefix(s Store, dir string) (Store, error) {
	dir = strings.Trim(dir, "/")
	if dir == "" {
		return s, nil
	}
	if err := ValidPrefix(dir + "/"); err != nil {
		return nil, err
	}
	return &prefixed{s, dir + "/"}, nil
}

type prefixed struct {
	s      Store
	prefix string // ends with a slash
}

// full checks key alone, because the prefix must not make a bad key good: an
// empty one, say.
func (p *prefixed) full(key string) (string, error) {
	if err := ValidKey(key); err != nil {
		return "", err
	}
	return p.prefix + key, nil
}

func (p *prefixed) Put(ctx context.Context, key string, r io.Reader, o PutOptions) error {
	key, err := p.full(key)
	if err != nil {
		return err
	}
	return p.s.Put(ctx, key, r, o)
}

func (p *prefixed) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, Info, error) {
	full, err := p.full(key)
	if err != nil {
		return nil, Info{}, err
	}
	r, info, err := p.s.Get(ctx, full, offset)
	info.Key = key
	return r, info, err
}

func (p *prefixed) Stat(ctx context.Context, key string) (Info, error) {
	full, err := p.full(key)
	if err != nil {
		return Info{}, err
	}
	info, err := p.s.Stat(ctx, full)
	info.Key = key
	return info, err
}

func (p *prefixed) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := ValidPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		for info, err := range p.s.List(ctx, p.prefix+prefix) {
			info.Key = strings.TrimPrefix(info.Key, p.prefix)
			if !yield(info, err) {
				return
			}
		}
	}
}

func (p *prefixed) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if full[i], err = p.full(key); err != nil {
			return err
		}
	}
	err := p.s.Delete(ctx, full...)
	var kept *DeleteError
	if !errors.As(err, &kept) {
		return err
	}
	// The errors in it name the objects as they did; only the keys are ours.
	own := &DeleteError{Failed: make([]Undeleted, len(kept.Failed)), Of: kept.Of}
	for i, u := range kept.Failed {
		own.Failed[i] = Undeleted{strings.TrimPrefix(u.Key, p.prefix), u.Err}
	}
	return own
}

func (p *prefixed) Sync(ctx context.Context, key string) error {
	key, err := p.full(key)
	if err != nil {
		return err
	}
	return Sync(ctx, p.s, key)
}

func (p *prefixed) Leftovers(ctx context.Context, prefix string) iter.Seq2[Leftover, error] {
	return func(yield func(Leftover, error) bool) {
		if err := ValidPrefix(prefix); err != nil {
			yield(Leftover{}, err)
			return
		}
		for l, err := range FindLeftovers(ctx, p.s, p.prefix+prefix) {
			l.Name = strings.TrimPrefix(l.Name, p.prefix)
			l.Key = strings.TrimPrefix(l.Key, p.prefix)
			if !yield(l, err) {
				return
			}
		}
	}
}

func (p *prefixed) Discard(ctx context.Context, l Leftover) error {
	full, err := p.full(l.Key)
	if err != nil {
		return err
	}
	l.Key, l.Name = full, p.prefix+l.Name
	return Discard(ctx, p.s, l)
}

func (p *prefixed) URL(key string) string { return URL(p.s, p.prefix+key) }
