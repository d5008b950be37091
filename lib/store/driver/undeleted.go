package driver

import (
	"fmt"
	"sync"

	"walg/lib/store"
)

// Undeleted is the error of a Delete that knows which keys may be there still:
// some of those that it was given, each once and with its own bare cause. It is
// never empty.
type Undeleted []store.Undeleted

func (u Undeleted) Error() string { return u[0].Key + ": " + u[0].Err.Error() }

// Unwrap returns the first cause, which is the one that Error tells.
func (u Undeleted) Unwrap() error { return u[0].Err }

// Kept gathers what one Delete could not remove. The zero value is ready, and
// several goroutines may use it.
type Kept struct {
	mu     sync.Mutex
	causes map[string]error
}

// Add notes why key stays, unless another cause is known. nil is none.
func (k *Kept) Add(key string, err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.causes == nil {
		k.causes = map[string]error{}
	}
	if k.causes[key] == nil {
		k.causes[key] = err
	}
}

// Has reports whether key stays.
func (k *Kept) Has(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.causes[key] != nil
}

// Of returns what there is of keys, those that Delete was given: nil for none.
// Where the storage named another, nobody knows what it meant: then the error
// is about all.
func (k *Kept) Of(keys []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var known Undeleted
	seen := map[string]bool{}
	for _, key := range keys {
		if err := k.causes[key]; err != nil && !seen[key] {
			seen[key] = true
			known = append(known, store.Undeleted{Key: key, Err: err})
		}
	}
	for key, err := range k.causes {
		if !seen[key] {
			return fmt.Errorf("the storage speaks of %q, for which it was not asked: %w", key, err)
		}
	}
	if len(known) == 0 {
		return nil // and not an Undeleted without keys
	}
	return known
}
