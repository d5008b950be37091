//go:build linux

package open

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/faulttest"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
)

// What one case of the matrix needs: its store, its operation, and the checks.

const (
	smallSize = 64 << 10
	getSize   = 9 << 20 // more than a piece, which is 8 MiB everywhere
)

// noise is what all content is cut from.
var noise = func() []byte {
	b := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func oldContent(n int) []byte { return noise[:n] }
func newContent(n int) []byte { return noise[12345 : 12345+n] }

// A bench is one case: a store that goes through proxies, one that does not, and
// a place of its own.
type bench struct {
	*testing.T
	b      *backend
	root   string // of this case
	env    map[string]string
	proxy  *faulttest.Proxy  // nil for ssh
	tcp    *servertest.Proxy // nil unless asked for
	clean  store.Store       // straight to the server
	opened store.Store       // through the proxies

	patience time.Duration

	mu      sync.Mutex
	notices []string // the failures that were tried again
	heal    func()   // called at the first of them
}

// address is the host:port of the server.
func (b *backend) address(t testing.TB) (env map[string]string, address string) {
	env = servertest.Get(t, b.server).Env
	return env, b.upstream(env)
}

// at returns the settings for the server at another address.
func (b *backend) at(t testing.TB, address string) map[string]string {
	env, direct := b.address(t)
	env = maps.Clone(env)
	maps.Copy(env, b.settings)
	for name, value := range env {
		env[name] = strings.ReplaceAll(value, direct, address)
	}
	if b.name == "ssh" {
		sshAt(t, env, direct, address)
	}
	return env
}

func (b *backend) open(t testing.TB, env map[string]string, below string, stall time.Duration, p remote.Policy) store.Store {
	t.Helper()
	s, err := Prefix(t.Context(), Settings{
		Prefixes: map[string]string{b.prefix: env[b.prefix]},
		Below:    below,
		Remote:   driver.Settings{Get: func(name string) string { return env[name] }, Stall: stall},
		Policy:   p,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until the server takes objects: MinIO says that it is ready a
// moment before.
func (b *backend) await(t testing.TB) {
	b.started.Do(func() {
		_, direct := b.address(t)
		s := b.open(t, b.at(t, direct), "faults-started", 0, remote.Policy{})
		for end := time.Now().Add(caseLimit); ; time.Sleep(20 * time.Millisecond) {
			err := s.Put(t.Context(), "started", strings.NewReader("yes"), store.PutOptions{})
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	})
}

// newBench makes a case. With tcp there is Toxiproxy before the other proxy.
func newBench(t *testing.T, b *backend, tcp bool) *bench {
	t.Helper()
	_, direct := b.address(t)
	b.await(t)
	b.gate <- struct{}{}
	t.Cleanup(func() { <-b.gate })
	c := &bench{T: t, b: b, patience: patience, root: fmt.Sprintf("faults/%016x", rand.Uint64())}
	c.clean = b.open(t, b.at(t, direct), c.root, 0, remote.Policy{Budget: caseLimit})
	to := direct
	if b.kind != nil {
		c.proxy = faulttest.New(t, "http://"+direct)
		if b.ownHost {
			c.proxy.UseServersHost()
		}
		to = c.proxy.Addr()
	}
	if tcp {
		c.tcp = servertest.NewProxy(t, to)
		to = c.tcp.Addr()
	}
	c.env = b.at(t, to)
	return c
}

// store opens the store that goes through the proxies.
func (c *bench) store(stall, delay time.Duration) store.Store {
	c.opened = c.b.open(c, c.env, c.root, stall, remote.Policy{
		Tries: 1000, Budget: c.patience, Timeout: caseLimit, MinDelay: delay / 20, MaxDelay: delay, Notice: c.notice,
	})
	return c.opened
}

func (c *bench) notice(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notices = append(c.notices, err.Error())
	if c.heal != nil {
		c.heal()
		c.heal = nil
	}
}

// noticed returns how many of the failures that were tried again are of a cause.
func (c *bench) noticed(cause string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, notice := range c.notices {
		if regexp.MustCompile(cause).MatchString(notice) {
			n++
		}
	}
	return n
}

// An operation is what the user wants, and the request in it that is broken.
type operation struct {
	name   string
	verb   string // how messages begin
	target string // kind of request
	skip   int    // so many of them pass first
	heavy  bool   // it is large
	writes bool
	deed   bool // the target's success is that of the operation

	prepare func(c *bench)
	do      func(ctx context.Context, c *bench, s store.Store) error
	object  string // in messages
	// check looks whether what is there now fits: the operation is done, or not
	// done at all, or one of both where nobody can know.
	check func(c *bench, done, undone bool)
}

const key = "some/object"

func putOperation(name, target string, large, replace bool) operation {
	size := func(c *bench) int {
		if large {
			return c.b.large
		}
		return smallSize
	}
	return operation{
		name: name, verb: "put", target: target, heavy: large, writes: true, deed: target != "part",
		prepare: func(c *bench) {
			if replace {
				c.must(c.clean.Put(c.Context(), key, bytes.NewReader(oldContent(smallSize)), store.PutOptions{}))
			}
		},
		do: func(ctx context.Context, c *bench, s store.Store) error {
			return s.Put(ctx, key, bytes.NewReader(newContent(size(c))), store.PutOptions{IfAbsent: !replace, Meta: map[string]string{"a": "b"}})
		},
		object: key,
		check: func(c *bench, done, undone bool) {
			got, err := read(c.Context(), c.clean, key)
			switch {
			case done && err == nil && bytes.Equal(got, newContent(size(c))):
			case undone && replace && err == nil && bytes.Equal(got, oldContent(smallSize)):
			case undone && !replace && errors.Is(err, fs.ErrNotExist):
			default:
				c.Errorf("afterwards there is an object of %d bytes (old: %v, new: %v), %v; done %v, undone %v",
					len(got), bytes.Equal(got, oldContent(smallSize)), bytes.Equal(got, newContent(size(c))), err, done, undone)
			}
			c.listed(map[string]bool{key: err == nil})
		},
	}
}

// readsAt is where the objects that are only read are, the same for all cases.
const readsAt = "faults-read"

var readObjects = map[string]int{"list/1": smallSize, "list/2": 1, "list/3": 0, "large": getSize}

func (c *bench) prepareReads() {
	c.b.shared.Do(func() {
		_, direct := c.b.address(c)
		s := c.b.open(c, c.b.at(c, direct), readsAt, 0, remote.Policy{})
		c.b.failed = "another case could not put them"
		for name, size := range readObjects {
			c.must(s.Put(c.Context(), name, bytes.NewReader(newContent(size)), store.PutOptions{}))
		}
		c.b.failed = ""
	})
	if c.b.failed != "" {
		c.Fatal("objects to read: ", c.b.failed)
	}
	c.root = readsAt
	_, direct := c.b.address(c)
	c.clean = c.b.open(c, c.b.at(c, direct), c.root, 0, remote.Policy{})
}

func getOperation(name, object string, skip int) operation {
	size := readObjects[object]
	return operation{
		name: name, verb: "get", target: "get", skip: skip, heavy: size == getSize,
		prepare: (*bench).prepareReads,
		do: func(ctx context.Context, c *bench, s store.Store) error {
			got, err := read(ctx, s, object)
			switch {
			case err == nil && !bytes.Equal(got, newContent(size)):
				c.Errorf("%d bytes came, and no error; the object has %d", len(got), size)
			case err != nil && !bytes.HasPrefix(newContent(size), got):
				c.Errorf("before %v came %d wrong bytes", err, len(got))
			case err != nil && len(got) == size && size > 0:
				c.Errorf("the whole object came, and %v", err)
			}
			return err
		},
		object: object,
		check:  func(*bench, bool, bool) {},
	}
}

var listOperation = operation{
	name: "list", verb: "list", target: "list",
	prepare: (*bench).prepareReads,
	do: func(ctx context.Context, c *bench, s store.Store) error {
		var got []string
		for info, err := range s.List(ctx, "list/") {
			if err != nil {
				return err
			}
			got = append(got, info.Key)
		}
		if want := []string{"list/1", "list/2", "list/3"}; !slices.Equal(got, want) {
			c.Errorf("the list is %q and has no error, want %q", got, want)
		}
		return nil
	},
	object: "list/",
	check:  func(*bench, bool, bool) {},
}

var deleteOperation = operation{
	name: "delete", verb: "delete", target: "delete", writes: true, deed: true,
	prepare: func(c *bench) {
		for _, name := range []string{"a", "b", "kept"} {
			c.must(c.clean.Put(c.Context(), name, strings.NewReader(name), store.PutOptions{}))
		}
	},
	do:     func(ctx context.Context, c *bench, s store.Store) error { return s.Delete(ctx, "a", "b") },
	object: "", // one of two
	check: func(c *bench, done, undone bool) {
		there := map[string]bool{}
		for _, name := range []string{"a", "b", "kept"} {
			_, err := c.clean.Stat(c.Context(), name)
			if there[name] = err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
				c.Error(err)
			}
		}
		switch {
		case !there["kept"]:
			c.Errorf("an object is gone that nobody deleted")
		case done && !undone && (there["a"] || there["b"]):
			c.Errorf("deleted, and there are %v", there)
		case undone && !done && !(there["a"] && there["b"]):
			c.Errorf("nothing was deleted, and there are %v", there)
		}
		c.listed(there)
	},
}

// listed checks that List shows what is there and nothing else.
func (c *bench) listed(there map[string]bool) {
	c.Helper()
	if c.b.lags {
		return
	}
	for info, err := range c.clean.List(c.Context(), "") {
		c.must(err)
		if !there[info.Key] {
			c.Errorf("List shows %s, which is not there", info.Key)
		}
		delete(there, info.Key)
	}
	for name, is := range there {
		if is {
			c.Errorf("List does not show %s, which is there", name)
		}
	}
}

var (
	putNew    = putOperation("put", "put", false, false)
	putOld    = putOperation("put over an old one", "put", false, true)
	putLarge  = putOperation("put in parts", "part", true, true)
	commitNew = putOperation("commit", "commit", true, false)
	commitOld = putOperation("commit over an old one", "commit", true, true)
	get       = getOperation("get", "list/1", 0)
	getLarge  = getOperation("get the second piece", "large", 1)
)

// The four verbs, by one request each; and all requests that matter.
var (
	verbs      = []operation{putOld, get, listOperation, deleteOperation}
	operations = []operation{putNew, putOld, putLarge, commitNew, commitOld, get, getLarge, listOperation, deleteOperation}
)

func (c *bench) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func read(ctx context.Context, s store.Store, key string) ([]byte, error) {
	r, _, err := s.Get(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// run does the operation under the limits of time, and says how long it took.
func (c *bench) run(o operation, s store.Store) (time.Duration, error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), caseLimit)
	defer cancel()
	begun := time.Now()
	done := make(chan error, 1)
	go func() { done <- o.do(ctx, c, s) }()
	select {
	case err := <-done:
		if ctx.Err() != nil {
			c.Errorf("%v took until the context ended: %v", o.name, err)
		}
		return time.Since(begun), err
	case <-time.After(hangLimit):
		c.Fatalf("%s hangs", o.name)
		return 0, nil
	}
}

// judge checks status, message and hint.
func (c *bench) judge(o operation, err error, took, limit time.Duration, want []int, cause, hint string) {
	c.Helper()
	status := fault.Status(err)
	c.Logf("RESULT|%s|%s|%d|%v|%v", c.b.name, strings.TrimPrefix(c.Name(), "Test"), status, took.Round(time.Millisecond), err)
	if !slices.Contains(want, status) {
		c.Errorf("status %d, want %v: %v", status, want, err)
	}
	if took > limit {
		c.Errorf("it took %v", took)
	}
	if err == nil {
		return
	}
	text := err.Error()
	if begin := o.verb + " " + store.URL(c.opened, o.object); !strings.HasPrefix(text, begin) {
		c.Errorf("message %q, want it to begin with %q", text, begin)
	}
	if !regexp.MustCompile("(?i)" + cause).MatchString(text) {
		c.Errorf("message %q, want the cause %q in it", text, cause)
	}
	if strings.ContainsAny(text, "\r\n") || len(text) > 500 {
		c.Errorf("message %q is no short line", text)
	}
	if secret := c.env[c.b.secret]; secret != "" && strings.Contains(text+fault.Hint(err), secret) {
		c.Errorf("message %q shows a secret", text)
	}
	if !regexp.MustCompile("(?i)"+hint).MatchString(fault.Hint(err)) || hint == "" && fault.Hint(err) != "" {
		c.Errorf("hint %q, want %q in it; the error is %v", fault.Hint(err), hint, err)
	}
}
