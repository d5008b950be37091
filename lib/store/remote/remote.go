// Package remote makes a store of a driver, which speaks the protocol of one
// storage behind a network and does no more than that: one attempt at one
// request. What all such storages need is here: parts that are sent side by
// side and again, ranged reads that go on after a cut, retries under a budget,
// deadlines, and the check that what was read is whole.
package remote

import (
	"cmp"
	"time"

	"walg/lib/store/driver"
)

// Policy says how patient a store is. Zero values are the defaults.
type Policy struct {
	Tries    int           // of each request; 15
	Budget   time.Duration // a request is not begun again so long after its first try; 5 minutes
	Timeout  time.Duration // of one try; 15 minutes
	MinDelay time.Duration // before the second try, doubled each time; 100 ms
	MaxDelay time.Duration // 20 s
	Parallel int           // requests at once for one object; the driver's
	Notice   func(error)   // told of each failure after which a wait begins
}

// Store is a store.Store over a driver.
type Store struct {
	d      driver.Driver
	traits driver.Traits
	root   string
	policy Policy
	spare  chan []byte
}

// New returns the store of the objects whose names begin with root, which is
// empty or, as a rule, ends with a slash. Keys of the store are without it.
func New(d driver.Driver, root string, p Policy) *Store {
	t := d.Traits()
	p.Tries = cmp.Or(t.Tries, p.Tries, 15)
	p.Budget = cmp.Or(p.Budget, 5*time.Minute)
	p.Timeout = cmp.Or(p.Timeout, 15*time.Minute)
	p.MinDelay = cmp.Or(t.MinDelay, p.MinDelay, 100*time.Millisecond)
	p.MaxDelay = max(cmp.Or(t.MaxDelay, p.MaxDelay, 20*time.Second), p.MinDelay)
	t.Parallel = max(cmp.Or(p.Parallel, t.Parallel), 1)
	if p.Notice == nil {
		p.Notice = func(error) {}
	}
	return &Store{d, t, root, p, make(chan []byte, 1)}
}
