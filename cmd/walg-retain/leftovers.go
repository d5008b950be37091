package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/store"
)

// leftover is one in JSON.
type leftover struct {
	Name     string    `json:"name"`
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Started  time.Time `json:"started"`
	Modified time.Time `json:"mtime"`
}

func setupLeftovers(f *cli.Flags) cli.Run {
	asJSON := f.Bool("json", "", "", "one JSON object a line, with the key, the size and times")
	confirm := f.Bool("confirm", "", "", "remove those that are older than --grace, and list them")
	grace := f.Duration("grace", 24*time.Hour, "what has grown within this `time` may belong to a running upload, and stays")
	return with(f, 0, 1, func(ctx context.Context, e *cli.Env, st store.Store, prefix string) error {
		if *grace < 0 {
			return fault.New(fault.Usage, "--grace %v: less than nothing", *grace)
		}
		found := store.FindLeftovers(ctx, st, prefix)
		if *confirm {
			found = discarded(ctx, e, st, found, *grace)
		}
		w := bufio.NewWriter(e.Stdout)
		err := list(w, found, *asJSON)
		// What has been removed is told, whatever came then.
		return cmp.Or(w.Flush(), err)
	})
}

func list(w io.Writer, leftovers iter.Seq2[store.Leftover, error], asJSON bool) error {
	enc := json.NewEncoder(w)
	for l, err := range leftovers {
		switch {
		case err != nil:
		case asJSON:
			err = enc.Encode(leftover{l.Name, l.Key, l.Size, l.Started, l.ModTime.UTC()})
		default:
			_, err = fmt.Fprintln(w, l.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// discarded removes the leftovers that are older than grace, and returns them.
// What the storage refuses is told, and the rest goes on; then the last thing is
// an error.
func discarded(ctx context.Context, e *cli.Env, st store.Store, found iter.Seq2[store.Leftover, error], grace time.Duration) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		young, stay := 0, 0
		for l, err := range found {
			if err == nil && time.Since(l.ModTime) < grace {
				young++
				continue
			}
			if err == nil {
				err = store.Discard(ctx, st, l)
				if refused(err) {
					e.Warn("%s stays: %v", l.Name, err)
					stay++
					continue
				}
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
		if young > 0 {
			e.Say(fmt.Sprintf("%d stay: they are not older than %v", young, grace))
		}
		if stay > 0 {
			yield(store.Leftover{}, fault.New(fault.Failed, "leftovers: %d stay, see above", stay))
		}
	}
}
