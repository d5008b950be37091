package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
		w := bufio.NewWriter(e.Stdout)
		defer w.Flush() // what has been removed is told, whatever comes; errors show below
		enc := json.NewEncoder(w)
		var young, stay int
		for l, err := range store.FindLeftovers(ctx, st, prefix) {
			if err != nil {
				return err
			}
			if *confirm {
				if time.Since(l.ModTime) < *grace {
					young++
					continue
				}
				if err := store.Discard(ctx, st, l); err != nil {
					if ctx.Err() != nil {
						return err
					}
					e.Warn("%s stays: %v", l.Name, err)
					stay++
					continue
				}
			}
			if *asJSON {
				err = enc.Encode(leftover{l.Name, l.Key, l.Size, l.Started, l.ModTime.UTC()})
			} else {
				_, err = fmt.Fprintln(w, l.Name)
			}
			if err != nil {
				return err
			}
		}
		if young > 0 {
			e.Say(fmt.Sprintf("%d stay: they are not older than %v", young, *grace))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if stay > 0 {
			return fault.New(fault.Failed, "leftovers: %d stay, see above", stay)
		}
		return nil
	})
}
