package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/pipe"
	"walg/lib/rate"
	"walg/lib/tarball/pack"
)

// creation is one run of create.
type creation struct {
	e        *cli.Env
	dir      string
	state    string // directory for what a backup of several parts consists of, or empty
	ext      string
	partSize int64
	jobs     int
	command  string // of each part, or empty for one stream
	policy   pipe.Policy
	limit    *rate.Limiter
	read     atomic.Int64
	backup   string // its name, with --postgres
}

func create(f *cli.Flags) cli.Run {
	postgres := f.Bool("postgres", "", "", "back up a running server; PGHOST and libpq's other settings say how to reach it")
	state := f.String("state", "", "", "", "write the backup's name and its JSON objects into `dir`, needs --postgres and --part-command")
	ext := f.String("ext", "", "", "", "end the names of parts in this `extension`, which --part-command makes")
	command := f.String("part-command", "", "", "", "give each part to the standard input of this shell `command`, with WALG_PART, WALG_BACKUP_NAME and WALG_STATE in its environment")
	partSize := f.Size("part-size", "", "WALG_TAR_SIZE_THRESHOLD", 1<<30-1, "end a part after the file with which it has more `bytes` than this")
	jobs := f.Int("jobs", "j", "WALG_UPLOAD_DISK_CONCURRENCY", 1, 1, "write `n` parts at once")
	limit := f.Size("rate", "", "WALG_DISK_RATE_LIMIT", 0, "read at most this many `bytes` a second")
	server := backupFlags(f)
	streams := f.OutputOnly()

	return func(ctx context.Context, e *cli.Env) error {
		dir, _, err := directory(e, 0)
		if err != nil {
			return err
		}
		switch {
		case e.Command != nil:
			return fault.New(fault.Usage, "create takes no COMMAND")
		case *state != "" && (!*postgres || *command == ""):
			return fault.New(fault.Usage, "--state needs --postgres and --part-command")
		}
		c := &creation{
			e: e, dir: filepath.Clean(dir), state: *state, ext: *ext, command: *command,
			partSize: *partSize, jobs: int(*jobs), policy: streams.Policy(e),
		}
		if *limit > 0 {
			c.limit = rate.New(*limit)
		}
		e.Count(func() (int64, int64) { return c.read.Load(), -1 })
		if *postgres {
			return c.postgres(ctx, server, streams)
		}
		src := c.source(ctx, nil)
		if c.command != "" {
			_, err = pack.Split(ctx, src, c.split(ctx))
			return err
		}
		return c.stream(streams, func(w *pack.Writer) error {
			_, err := w.Tree(ctx, src)
			return err
		})
	}
}

// source is the plain tree. inspect sees each chunk after it is counted.
func (c *creation) source(ctx context.Context, inspect func(path string, off int64, p []byte, f io.ReaderAt) error) pack.Source {
	return pack.Source{
		Root: c.dir,
		Warn: c.e.Warn,
		Inspect: func(path string, off int64, p []byte, f io.ReaderAt) error {
			c.read.Add(int64(len(p)))
			if c.limit != nil {
				if err := c.limit.Wait(ctx, len(p)); err != nil {
					return err
				}
			}
			if inspect == nil {
				return nil
			}
			return inspect(path, off, p, f)
		},
	}
}

// stream writes one archive to the output.
func (c *creation) stream(streams *cli.Streams, fill func(*pack.Writer) error) error {
	out, err := streams.Create(c.e)
	if err != nil {
		return err
	}
	defer out.Abort()
	w := pack.NewWriter(out)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Commit()
}

// split says how the tree becomes parts.
func (c *creation) split(ctx context.Context) pack.SplitOptions {
	return pack.SplitOptions{Size: c.partSize, Jobs: c.jobs, Open: func(n int) (pack.Part, error) {
		return c.part(ctx, catalog.PartName(n, c.ext))
	}}
}

// part starts the command of one part.
func (c *creation) part(ctx context.Context, name string) (pack.Part, error) {
	env := []string{"WALG_PART=" + name, "WALG_BACKUP_NAME=" + c.backup, "WALG_STATE=" + c.state}
	return pipe.Consume(ctx, []string{"sh", "-c", c.command}, env, c.policy)
}

// writeState puts one file into the state directory.
func (c *creation) writeState(name string, content []byte) error {
	if err := os.WriteFile(filepath.Join(c.state, name), content, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
