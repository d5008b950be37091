// Walg-put stores one stream as one object, whole or not at all.
//
// The object is there only after the input's producer has finished; after
// exit status 0 it is durable. A stream of which nobody can say whether it is
// complete is refused at its first byte.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"walg/lib/atomicfile"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/open"
)

func main() {
	cli.Main(cli.Program{
		Name:     "walg-put",
		Synopsis: "[OPTION]... KEY [-- COMMAND...] | --check",
		About: `Store standard input, or the output of COMMAND, as the object KEY, relative to
the configured prefix or a URL. The object appears when the input is complete.`,
		Setup: setup,
		Warns: true,
	})
}

// A job is one run of the program.
type job struct {
	ifAbsent, allowEmpty, sync, check *bool
	meta                              *[]string
	receipt                           *string
	storage                           *open.Options
	streams                           *cli.Streams
}

func setup(f *cli.Flags) cli.Run {
	j := &job{
		ifAbsent:   f.Bool("if-absent", "", "", "fail with status 73 where the object exists, instead of replacing it"),
		allowEmpty: f.Bool("allow-empty", "", "", "take an empty input for an object of no bytes"),
		meta:       f.Strings("meta", "", "record `name=value` with the object; may be given several times"),
		receipt:    f.String("receipt", "", "", "", "when the object is stored, write what it is to this `file`, as JSON"),
		sync:       f.Bool("sync", "", "", "store nothing; make the existing object durable, and compare what --meta recorded"),
		check:      f.Bool("check", "", "", "without KEY: write, read, list and delete an object of its own, and say what works"),
		storage:    open.Declare(f, "WALG_UPLOAD_CONCURRENCY"),
		streams:    f.Input(true),
	}
	return j.run
}

func (j *job) run(ctx context.Context, e *cli.Env) error {
	stores := !*j.check && !*j.sync
	if !stores && (*j.ifAbsent || *j.allowEmpty || *j.receipt != "" || e.Command != nil || *j.check && (*j.sync || *j.meta != nil)) {
		return fault.New(fault.Usage, "--sync goes with --meta only, and --check with neither")
	}
	settings := j.storage.Settings(e)
	if *j.check {
		if len(e.Operands) != 0 {
			return fault.New(fault.Usage, "--check takes no KEY: it makes an object of its own under the prefix")
		}
		st, err := open.Prefix(ctx, settings)
		if err != nil {
			return err
		}
		return check(ctx, e.Stdout, st)
	}
	if len(e.Operands) != 1 {
		return fault.New(fault.Usage, "want one KEY, not %d", len(e.Operands))
	}
	meta, err := parseMeta(*j.meta)
	if err != nil {
		return err
	}
	st, key, err := open.Object(ctx, settings, e.Operands[0])
	if err != nil {
		return err
	}
	if *j.sync {
		return sync(ctx, st, key, meta)
	}
	return j.put(ctx, e, st, key, meta)
}

func (j *job) put(ctx context.Context, e *cli.Env, st store.Store, key string, meta map[string]string) error {
	// Begun now, so that a FILE that cannot be written is known before an
	// hour of uploading, and not after it.
	var file *atomicfile.File
	if *j.receipt != "" {
		var err error
		file, err = atomicfile.Create(*j.receipt)
		if err != nil {
			return err
		}
		defer file.Abort()
	}
	in, err := j.streams.Open(ctx, e, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	var r io.Reader = in
	if !*j.allowEmpty {
		r = &notEmpty{r: in, name: in.Name()}
	}
	sum := sha256.New()
	if file != nil {
		r = io.TeeReader(r, sum)
	}
	started := time.Now()
	if err := st.Put(ctx, key, r, store.PutOptions{IfAbsent: *j.ifAbsent, Meta: meta}); err != nil || file == nil {
		return err
	}
	p, err := json.Marshal(receipt{
		e.Operands[0], store.URL(st, key), in.Bytes(), hex.EncodeToString(sum.Sum(nil)), started.UTC(), time.Now().UTC(), 1 + j.storage.Retries(),
	})
	if err == nil {
		_, err = file.File().Write(append(p, '\n'))
	}
	if err == nil {
		err = file.Commit()
	}
	if err != nil {
		return fmt.Errorf("stored %s, but not its receipt: %w", store.URL(st, key), err)
	}
	return nil
}
