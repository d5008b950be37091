package rate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestAFlowKeepsToItsRate(t *testing.T) {
	const rate, n = 1_000_000, 400_000
	data := bytes.Repeat([]byte("0123456789"), n/10)
	start := time.Now()
	got, err := io.ReadAll(New(rate).Reader(context.Background(), bytes.NewReader(data)))
	took := time.Since(start)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// A burst may pass at once. There is no upper bound to test: the machine
	// may be busy.
	if least := time.Second*n/rate - burst; took < least {
		t.Errorf("%d bytes at %d a second took %v, less than %v", n, rate, took, least)
	}
}

func TestUsersShareOneRate(t *testing.T) {
	const rate, n, users = 1_000_000, 100_000, 4
	l := New(rate)
	start := time.Now()
	var all sync.WaitGroup
	for range users {
		all.Go(func() {
			io.Copy(io.Discard, l.Reader(context.Background(), bytes.NewReader(make([]byte, n))))
		})
	}
	all.Wait()
	if took, least := time.Since(start), time.Second*n*users/rate-burst; took < least {
		t.Errorf("%d users took %v, less than %v", users, took, least)
	}
}

// After a pause not all of what was not used passes at once.
func TestAPauseIsNotSavedUp(t *testing.T) {
	l := New(1000)
	l.next = time.Now().Add(-time.Hour)
	if err := l.Wait(context.Background(), 50); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	l.Wait(context.Background(), 200)
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("250 bytes at 1000 a second passed in %v after a pause", took)
	}
}

func TestReadsAreSmallWhereTheRateIsLow(t *testing.T) {
	for rate, most := range map[int64]int{1: 1, 1000: 100, 1 << 40: maxChunk} {
		l := New(rate)
		l.next = time.Now().Add(-time.Hour)
		n, err := l.Reader(context.Background(), bytes.NewReader(make([]byte, 2<<20))).Read(make([]byte, 2<<20))
		if n != most || err != nil {
			t.Errorf("rate %d: %d bytes at once, %v; want %d", rate, n, err, most)
		}
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	l := New(1)
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if err := l.Wait(ctx, 1<<20); err != why {
		t.Errorf("Wait returns %v", err)
	}
	r := New(1).Reader(ctx, bytes.NewReader([]byte("ab")))
	if n, err := r.Read(make([]byte, 2)); n != 1 || err != why {
		t.Errorf("Read returns %d, %v", n, err)
	}
}

func TestErrorsAndEndsPassUnchanged(t *testing.T) {
	broken := errors.New("broken")
	r := New(1<<30).Reader(context.Background(), io.MultiReader(bytes.NewReader([]byte("ab")), iotest.ErrReader(broken)))
	if got, err := io.ReadAll(r); string(got) != "ab" || err != broken {
		t.Errorf("%q, %v", got, err)
	}
	// An error that comes with data is not hidden by the end of the context.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := New(1)
	l.next = time.Now().Add(time.Hour)
	r = l.Reader(ctx, iotest.DataErrReader(io.MultiReader(bytes.NewReader([]byte("a")), iotest.ErrReader(broken))))
	if n, err := r.Read(make([]byte, 1)); n != 1 || err != broken {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := iotest.TestReader(New(1<<30).Reader(context.Background(), bytes.NewReader([]byte("content"))), []byte("content")); err != nil {
		t.Error(err)
	}
}
