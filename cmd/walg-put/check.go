package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
)

// checkTime is how long the clean-up after a check may take.
const checkTime = 30 * time.Second

// check proves that the storage does all that archiving needs, with one small
// object of its own, and writes what works. It returns the first failure.
func check(ctx context.Context, out io.Writer, st store.Store) (failed error) {
	key := "walg-check-" + strings.ToLower(rand.Text())
	text := []byte("walg-put --check wrote this and may be deleted\n")
	put := func(ifAbsent bool) error {
		return st.Put(ctx, key, bytes.NewReader(text), store.PutOptions{IfAbsent: ifAbsent})
	}
	gone := false
	defer func() {
		if !gone {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
			defer cancel()
			_ = st.Delete(clean, key) // the failure is told already
		}
	}()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"connect", func() error {
			if _, err := st.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}},
		{"write", func() error { return put(true) }},
		{"conditional write", func() error {
			if err := put(true); !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("put %s: want a refusal because it exists, got: %w", store.URL(st, key), orNothing(err))
			}
			return nil
		}},
		{"overwrite", func() error { return put(false) }},
		{"read back", func() error { return readBack(ctx, st, key, text) }},
		{"list", func() error { return listed(ctx, st, key) }},
		{"delete", func() error {
			err := st.Delete(ctx, key)
			gone = err == nil
			return err
		}},
		{"clean-up", func() error {
			if _, err := st.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("stat %s: want that it is gone, got: %w", store.URL(st, key), orNothing(err))
			}
			return nil
		}},
	} {
		err := step.do()
		word := "ok"
		if err != nil {
			word = "failed"
		}
		if _, werr := fmt.Fprintf(out, "%-18s %s\n", step.name, word); werr != nil {
			return werr
		}
		// Where nothing can be written, nothing else can be proven.
		if err != nil && (step.name == "connect" || step.name == "write") {
			return err
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

func orNothing(err error) error {
	if err == nil {
		return errors.New("success")
	}
	return err
}

func readBack(ctx context.Context, st store.Store, key string, want []byte) error {
	r, _, err := st.Get(ctx, key, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, want) {
		err = fault.New(fault.Data, "get %s: other bytes than were put", store.URL(st, key))
	}
	return err
}

func listed(ctx context.Context, st store.Store, key string) error {
	for info, err := range st.List(ctx, key) {
		if err != nil || info.Key == key {
			return err
		}
	}
	return fmt.Errorf("list %s: the object that was just put is not listed", store.URL(st, key))
}
