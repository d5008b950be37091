// Walg-get writes one object to standard output, or says which there are.
//
// What it writes is complete: when the storage ends early, or the object is
// damaged, the program fails, and its reader knows.
package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/pipe"
	"walg/lib/store"
	"walg/lib/store/open"
)

func main() {
	cli.Main(cli.Program{
		Name:     "walg-get",
		Synopsis: "[OPTION]... KEY | -l [PREFIX]",
		About: `Write the object KEY, relative to the configured prefix or a URL, to standard
output. With -l list the objects whose keys begin with PREFIX.`,
		Setup: setup,
		Warns: true,
	})
}

// A job is one run of the program.
type job struct {
	list, json, name, tryExt, stat, force *bool
	span, file                            *string
	storage                               *open.Options
}

func setup(f *cli.Flags) cli.Run {
	j := &job{
		file:    f.String("output", "o", "", "", "write to `file`, which appears whole and durable or not at all"),
		span:    f.String("range", "", "", "", "only the bytes `a-b` of the object, counted from 0, b included; a- is all from a on"),
		list:    f.Bool("list", "l", "", "list the objects whose keys begin with PREFIX, one key a line"),
		json:    f.Bool("json", "", "", "with -l one JSON object a line, with size and time"),
		stat:    f.Bool("stat", "", "", "write what is known of the object, as JSON, instead of its data"),
		name:    f.Bool("name", "", "", "write the key of the object, if it exists, instead of its data"),
		tryExt:  f.Bool("try-ext", "", "", "look for KEY under each extension of a compression method, and as it is"),
		force:   f.Bool("force", "f", "", "write binary data to a terminal"),
		storage: open.Declare(f, ""),
	}
	return j.run
}

func (j *job) run(ctx context.Context, e *cli.Env) error {
	work, err := j.work(ctx, e)
	if err != nil {
		return err
	}
	out, err := e.Create(*j.file, *j.force)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := work(ctx, e, out); err != nil {
		return err
	}
	return out.Commit()
}

// work says what the options ask for, and opens the store for it.
func (j *job) work(ctx context.Context, e *cli.Env) (func(context.Context, *cli.Env, *pipe.Output) error, error) {
	modes := slices.DeleteFunc([]bool{*j.list, *j.name, *j.stat, *j.span != ""}, func(on bool) bool { return !on })
	switch {
	case e.Command != nil:
		return nil, fault.New(fault.Usage, "no COMMAND is run here")
	case len(modes) > 1:
		return nil, fault.New(fault.Usage, "-l, --name, --stat and --range exclude each other")
	case *j.json && !*j.list:
		return nil, fault.New(fault.Usage, "--json goes with -l")
	case *j.tryExt && *j.list:
		return nil, fault.New(fault.Usage, "--try-ext goes with a KEY")
	case *j.list && len(e.Operands) > 1, !*j.list && len(e.Operands) != 1:
		return nil, fault.New(fault.Usage, "want one KEY, or -l and at most one PREFIX")
	}
	first, last, err := parseRange(*j.span)
	if err != nil {
		return nil, err
	}
	settings := j.storage.Settings(e)
	if *j.list {
		prefix := ""
		if len(e.Operands) == 1 {
			prefix = e.Operands[0]
		}
		st, in, err := open.Under(ctx, settings, prefix)
		return func(ctx context.Context, _ *cli.Env, out *pipe.Output) error {
			return list(ctx, out, st, in, open.Absolute(prefix), *j.json)
		}, err
	}
	st, key, err := open.Object(ctx, settings, e.Operands[0])
	return func(ctx context.Context, e *cli.Env, out *pipe.Output) error {
		key, given := key, e.Operands[0]
		if *j.tryExt {
			ext, err := find(ctx, st, key)
			if err != nil {
				return err
			}
			key, given = key+ext, given+ext
		}
		switch {
		case *j.name:
			if _, err := st.Stat(ctx, key); err != nil {
				return err
			}
			_, err := fmt.Fprintln(out, given)
			return err
		case *j.stat:
			return stat(ctx, out, st, key, given)
		}
		return get(ctx, e, out, st, key, first, last)
	}, err
}

func get(ctx context.Context, e *cli.Env, out *pipe.Output, st store.Store, key string, first, last int64) error {
	r, info, err := st.Get(ctx, key, first)
	if err != nil {
		return err
	}
	defer r.Close()
	var src io.Reader = r
	if last < info.Size {
		src = io.LimitReader(r, last-first)
	}
	size := min(info.Size, last) - first
	e.Count(func() (int64, int64) { return out.Bytes(), size })
	_, err = pipe.Copy(out, src)
	return err
}
