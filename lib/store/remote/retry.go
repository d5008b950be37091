package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"walg/lib/store/driver"
)

// try does f until it succeeds, until trying again cannot help, or until the
// policy's patience is at its end. f's context ends with the time for one try.
func (s *Store) try(ctx context.Context, f func(context.Context) error) error {
	begun := time.Now()
	delay := s.policy.MinDelay
	for n := 1; ; n++ {
		err := s.once(ctx, f)
		if err == nil || !driver.Mendable(err) || ctx.Err() != nil {
			return err
		}
		// Half of the delay is chance, so that many who failed together do not
		// come back together.
		wait := delay/2 + rand.N(delay/2+1)
		var later *driver.Later
		if errors.As(err, &later) {
			wait = max(wait, later.After)
		}
		if n == s.policy.Tries || time.Since(begun)+wait > s.policy.Budget {
			return fmt.Errorf("%w (tried %d times in %v)", err, n, time.Since(begun).Round(time.Millisecond))
		}
		s.policy.Notice(err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		delay = min(2*delay, s.policy.MaxDelay)
	}
}

// once does f within the time for one try.
func (s *Store) once(ctx context.Context, f func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	timeout := fmt.Errorf("not done after %v", s.policy.Timeout)
	one, cancel := context.WithTimeoutCause(ctx, s.policy.Timeout, timeout)
	defer cancel()
	err := f(one)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case one.Err() != nil:
		return timeout
	}
	return driver.Explain(err, s.traits)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
