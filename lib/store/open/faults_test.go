//go:build linux

package open

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/faulttest"
	"walg/lib/store/servertest"
)

// The matrix of faults: every storage, on its real server, against every fault
// and operation. A fault stands either in a proxy that speaks HTTP and breaks
// chosen requests (faulttest), or in one that breaks connections (Toxiproxy).
// A fault that passes must not be noticed; one that stays must end with status
// 1 within the patience that was set, and one that trying again cannot mend
// with status 64 and a hint, soon. Whatever happens, an object is the old one,
// the new one or absent; a read that ends early is an error; nothing hangs; and
// each case proves that its fault fired.

const (
	patience  = 1500 * time.Millisecond // of the policy
	longer    = 15 * time.Second        // of the policy where the fault passes: nothing waits for its end
	caseLimit = 40 * time.Second        // of the context: reaching it is a failure
	hangLimit = 45 * time.Second        // of what does not even heed its context
	storm     = 15 * time.Second        // a fault that stays is reported within it, on a busy machine too
	refusal   = 5 * time.Second         // and one that cannot be mended, or not soon, within this
	atOnce    = 1000                    // cases, of which the backends' gates let a few run
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a case is waiting, so that many more of them can run than there are
	// CPUs. How many is for the gates to say.
	if err := flag.Set("test.parallel", fmt.Sprint(atOnce)); err != nil {
		panic(err)
	}
	// Nor may a proxy of the environment stand between.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		os.Unsetenv(name)
		os.Unsetenv(strings.ToLower(name))
	}
	// No test may ask a name server of the outside; this one knows no name.
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go answerNoSuchName(theirs)
		return ours, nil
	}}
	servertest.Main(m)
}

var questions atomic.Int64 // to that name server

// answerNoSuchName answers one question of the DNS, with RCODE 3 (RFC 1035,
// 4.1.1), in the form for streams.
func answerNoSuchName(conn net.Conn) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		return
	}
	end := 12 // of the header; names are labels with their lengths
	for end < len(message) && message[end] != 0 {
		end += 1 + int(message[end])
	}
	end += 5 // the last length, type and class
	if end > len(message) {
		return
	}
	questions.Add(1)
	message = message[:end]
	message[2], message[3] = 0x81, 0x83
	clear(message[6:12]) // no records
	binary.BigEndian.PutUint16(size[:], uint16(end))
	conn.Write(append(size[:], message...)) // who asked may have gone
}

// An ailment is a fault that may pass or stay.
type ailment struct {
	name  string
	do    func(b *backend, o operation) faulttest.Action // nil where it makes no sense
	times int                                            // that it fires before it passes
	cause string
	stall bool // it is the watch that ends it
	after bool // the server has done what it was asked
	apart time.Duration
}

// either picks an action by direction: what is read is broken on its way back.
func either(write, read faulttest.Action) func(*backend, operation) faulttest.Action {
	return func(_ *backend, o operation) faulttest.Action {
		if o.writes {
			return write
		}
		return read
	}
}

func always(a faulttest.Action) func(*backend, operation) faulttest.Action { return either(a, a) }

func says(name string) func(*backend, operation) faulttest.Action {
	return func(b *backend, _ operation) faulttest.Action { return b.bodies[name]().action() }
}

var ailments = []ailment{
	{name: "reset", do: either(faulttest.ResetRequest(), faulttest.ResetReply()), times: 2, cause: `reset|EOF|broken pipe|cut after|closed network connection`},
	{name: "stall", do: either(faulttest.Stall(), faulttest.StallReply()), times: 1, cause: `stalled`, stall: true},
	{name: "trickle", do: either(faulttest.TrickleRequest(), faulttest.TrickleReply()), times: 1, cause: `stalled`, stall: true},
	{name: "truncated", do: always(faulttest.CutReply()), times: 1, cause: `EOF|cut after|malformed|closed`, after: true},
	{name: "short", times: 1, cause: `EOF|cut after|unexpected end|malformed|syntax|answer`, after: true,
		do: func(b *backend, o operation) faulttest.Action {
			if o.writes {
				return nil // what a storage says to a write is no more than yes, but see error in 200
			}
			return faulttest.ShortReply()
		}},
	{name: "500", do: says("500"), times: 3, cause: `500|internal`},
	{name: "503", do: says("503"), times: 3, cause: `503|slow|busy|unavailable`},
	{name: "429", do: says("429"), times: 1, cause: `429|too many|busy|rate`, apart: time.Second},
	{name: "lost", do: always(faulttest.LoseReply()), times: 1, cause: `reset|EOF|broken pipe|closed network connection`, after: true},
	{name: "error in 200", times: 1, cause: `internal|try again|error|EOF`,
		do: func(b *backend, o operation) faulttest.Action {
			if body := b.bodies["200 "+o.target]; body != nil {
				return body().action()
			}
			return nil
		}},
	{name: "error in 200 though done", times: 1, cause: `internal|try again|error|EOF`, after: true,
		do: func(b *backend, o operation) faulttest.Action {
			if body := b.bodies["200 "+o.target]; body != nil && o.target == "commit" {
				a := body()
				return faulttest.AnswerAfter(a.status, a.body, a.headers...)
			}
			return nil
		}},
}

// eachBackend runs f for all storages that speak HTTP, or for all.
func eachBackend(t *testing.T, all bool, f func(t *testing.T, b *backend)) {
	for _, b := range backends {
		if b.kind == nil && !all {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f(t, b)
		})
	}
}

// aim breaks the requests of an operation, and returns what tells how often.
func (c *bench) aim(o operation, times int, do faulttest.Action) (fired func() int) {
	return c.proxy.Break(faulttest.Fault{
		Match: func(r *http.Request) bool { return c.b.kind(r) == o.target },
		Skip:  o.skip, Times: times, Do: do,
	})
}

// timing returns the stall of a case and its longest delay between tries. What
// is heavy to send is sent less often.
func (b *backend) timing(o operation, stall bool) (time.Duration, time.Duration) {
	delay := 50 * time.Millisecond
	if o.heavy {
		delay = 200 * time.Millisecond
	}
	if stall {
		return b.stalled, delay
	}
	return b.stall, delay
}

func eachAilment(t *testing.T, b *backend, f func(t *testing.T, a ailment, o operation, do faulttest.Action)) {
	for _, a := range ailments {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			for _, o := range operations {
				do := a.do(b, o)
				if do == nil {
					continue
				}
				t.Run(o.name, func(t *testing.T) {
					t.Parallel()
					f(t, a, o, do)
				})
			}
		})
	}
}

func TestAFaultThatPassesIsOvercome(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		eachAilment(t, b, func(t *testing.T, a ailment, o operation, do faulttest.Action) {
			c := newBench(t, b, false)
			o.prepare(c)
			c.patience = longer
			fired := c.aim(o, a.times, do)
			if b.help != nil {
				c.proxy.Break(b.help(a, o))
			}
			took, err := c.run(o, c.store(b.timing(o, a.stall)))
			want := []int{fault.OK}
			if statuses, ok := b.passing[a.name+"/"+o.name]; ok {
				want = statuses
			}
			c.judge(o, err, took, b.limit(), want, a.cause, "")
			if fired() != a.times {
				t.Errorf("the fault fired %d times, want %d: %v", fired(), a.times, c.proxy.Records())
			}
			o.check(c, err == nil, err != nil)
			if a.apart > 0 && !o.heavy {
				c.waited(o, a.apart)
			}
		})
	})
}

// waited checks that the request after the broken one came no sooner than the
// storage asked.
func (c *bench) waited(o operation, apart time.Duration) {
	c.Helper()
	var broken *faulttest.Record
	for _, r := range c.proxy.Records() {
		switch {
		case r.Broken:
			broken = &r
		case broken != nil && r.Method == broken.Method && path(r.Target) == path(broken.Target):
			if wait := r.At.Sub(broken.At); wait < apart {
				c.Errorf("it came again after %v, want %v", wait, apart)
			}
			return
		}
	}
	c.Errorf("the broken request did not come again: %v", c.proxy.Records())
}

// path is a target without its query: of that the order may change.
func path(target string) string {
	before, _, _ := strings.Cut(target, "?")
	return before
}

func TestAFaultThatStaysIsStatus1(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		eachAilment(t, b, func(t *testing.T, a ailment, o operation, do faulttest.Action) {
			c := newBench(t, b, false)
			o.prepare(c)
			fired := c.aim(o, 0, do)
			want := []int{fault.Failed}
			if a.after && o.deed && o.verb == "put" && b.metadata {
				want = []int{fault.OK} // it finds its own object
			}
			if statuses, ok := b.staying[a.name+"/"+o.name]; ok {
				want = statuses
			}
			took, err := c.run(o, c.store(b.timing(o, a.stall)))
			c.judge(o, err, took, b.limit(), want, a.cause, "")
			if fired() == 0 {
				t.Errorf("the fault never fired: %v", c.proxy.Records())
			}
			o.check(c, err == nil || a.after && o.deed, err != nil)
		})
	})
}

func TestAStorageThatSaysLaterThanOurPatienceIsNotAwaited(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		for _, o := range verbs {
			t.Run(o.name, func(t *testing.T) {
				t.Parallel()
				c := newBench(t, b, false)
				o.prepare(c)
				busy := b.bodies["429"]()
				busy.headers = append(busy.headers, "Retry-After", "3600") // the later header counts
				fired := c.aim(o, 0, busy.action())
				took, err := c.run(o, c.store(b.timing(o, false)))
				c.judge(o, err, took, refusal, []int{fault.Failed}, `429|too many|busy|rate`, "")
				if fired() == 0 {
					t.Error("the fault never fired")
				}
				o.check(c, false, true)
			})
		}
	})
}
