// Package rate spreads a flow of bytes over time.
package rate

import (
	"context"
	"io"
	"sync"
	"time"
)

// A Limiter spreads bytes over time: not more than rate bytes in each second
// since it was first used, all users of it together, and a tenth of a second's
// worth at once after a pause.
type Limiter struct {
	rate float64 // bytes per second

	mu   sync.Mutex
	next time.Time // when all bytes admitted so far are paid for
}

const (
	burst    = 100 * time.Millisecond
	maxChunk = 1 << 20 // largest read that is paid for at once
)

// New returns a limiter; rate is in bytes per second and positive.
func New(rate int64) *Limiter { return &Limiter{rate: float64(rate)} }

// Wait takes n bytes and returns when they may pass, or the context's cause
// when it is done.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	l.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-burst); l.next.Before(earliest) {
		l.next = earliest
	}
	l.next = l.next.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	wait := l.next.Sub(now)
	l.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Reader returns a reader of r that keeps to the limit. It reads little at a
// time when the limit is low, so that the flow is even.
func (l *Limiter) Reader(ctx context.Context, r io.Reader) io.Reader {
	chunk := int(min(max(l.rate*burst.Seconds(), 1), maxChunk))
	return &limited{ctx, r, l, chunk}
}

type limited struct {
	ctx   context.Context
	r     io.Reader
	l     *Limiter
	chunk int
}

func (r *limited) Read(p []byte) (int, error) {
	n, err := r.r.Read(p[:min(len(p), r.chunk)])
	if n > 0 {
		if wait := r.l.Wait(r.ctx, n); wait != nil && (err == nil || err == io.EOF) {
			err = wait
		}
	}
	return n, err
}
