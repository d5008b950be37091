// Walg-retain is the catalogue of the backups in a storage: which there are,
// what each needs to be restored, what a policy keeps of them, whether their WAL
// is whole, and what killed programs left behind.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/lineage/listing"
	"walg/lib/store"
	"walg/lib/store/open"
)

func main() {
	cli.Main(cli.Program{
		Name:  "walg-retain",
		About: "Show the backups and the WAL of the configured storage, and remove what is not to be\nkept.",
		Warns: true,
		// A listing of a million names is as much as is ever held.
		Memory: 64 << 20,
		Commands: []cli.Program{
			{Name: "list", Synopsis: "[OPTION]...", About: "List the backups, oldest first, as wal-g backup-list does.", Setup: setupList},
			{Name: "show", Synopsis: "[OPTION]... NAME", About: "Show what is known of one backup, or of LATEST.", Setup: setupShow},
			{Name: "chain", Synopsis: "[OPTION]... NAME", About: "Print the names of the backups that a restore of NAME, or of LATEST, needs, the\nfull one first.", Setup: command(chain)},
			{Name: "parts", Synopsis: "[OPTION]... NAME", About: "Print the keys of the parts of the backup NAME, or of LATEST, pg_control last,\nwhere all are there.", Setup: command(parts)},
			{Name: "status", Synopsis: "[OPTION]...", About: "Show what a monitor asks of an archive.", Setup: setupStatus},
			{Name: "mark", Synopsis: "[OPTION]... NAME", About: "Mark a backup, and what it is based on, as permanent: delete keeps it.", Setup: setupMark},
			{Name: "delete", Synopsis: "[OPTION]... WHAT", About: "Show what a policy removes, and with --confirm remove it. WHAT is one of\n  retain [FULL|FIND_FULL] NUMBER   before [FIND_FULL] NAME|TIME   target [FIND_FULL] NAME\n  everything [FORCE]               garbage [ARCHIVES|BACKUPS]", Setup: setupDelete},
			{Name: "leftovers", Synopsis: "[OPTION]... [PREFIX]", About: "List what killed uploads left behind under keys that begin with PREFIX, and what\nrunning ones have written so far.", Setup: setupLeftovers},
			{Name: "wal-show", Synopsis: "[OPTION]...", About: "Show the timelines of the archived WAL, and what of them is missing.", Setup: setupWALShow},
			{Name: "wal-verify", Synopsis: "[OPTION]... CHECK...", About: "Check the archived WAL: integrity, that none is missing from the oldest backup on;\ntimeline, that no other server has gone on archiving here.", Setup: setupWALVerify},
		},
	})
}

// work is what a command does in a store. operand is NAME or PREFIX.
type work func(ctx context.Context, e *cli.Env, st store.Store, operand string) error

// with gives a command the options for the storage, and its operand.
func with(f *cli.Flags, least, most int, do work) cli.Run {
	storage := open.Declare(f, "")
	return func(ctx context.Context, e *cli.Env) error {
		switch n := len(e.Operands); {
		case e.Command != nil:
			return fault.New(fault.Usage, "no COMMAND is run here")
		case n < least:
			return fault.New(fault.Usage, "no NAME of a backup is given")
		case n > most:
			return fault.New(fault.Usage, "%q is one operand too many", e.Operands[most])
		}
		operand := append(e.Operands, "")[0]
		st, err := open.Prefix(ctx, storage.Settings(e))
		if err != nil {
			return err
		}
		return do(ctx, e, st, operand)
	}
}

// command is a command without options of its own.
func command(do work) func(*cli.Flags) cli.Run {
	return func(f *cli.Flags) cli.Run { return with(f, 1, 1, do) }
}

func setupList(f *cli.Flags) cli.Run {
	asJSON := f.Bool("json", "", "", "as JSON, in one line")
	detail := f.Bool("detail", "", "", "with times, host, LSNs and whether it is permanent")
	pretty := f.Bool("pretty", "", "", "in a box, or as indented JSON")
	return with(f, 0, 0, func(ctx context.Context, e *cli.Env, st store.Store, _ string) error {
		backups, err := scan(ctx, st)
		if err != nil {
			return err
		}
		finished := 0
		for _, b := range backups {
			if b.Finished {
				finished++
				continue
			}
			e.Warn("backup %s: no sentinel; it is unfinished, or being made (%d objects, %d bytes)", b.Name, b.Objects, b.Size)
		}
		if *detail {
			if err := readAll(ctx, e, st, backups, metadata); err != nil {
				return err
			}
		}
		if finished == 0 && !*asJSON {
			e.Warn("no backups are there")
			return nil
		}
		return listing.Write(e.Stdout, backups, listing.Format{JSON: *asJSON, Detail: *detail, Pretty: *pretty})
	})
}

func chain(ctx context.Context, e *cli.Env, st store.Store, name string) error {
	name, err := resolve(ctx, e, st, name)
	if err != nil {
		return err
	}
	names, err := lineage.Chain(name, func(backup string) (*catalog.Sentinel, error) { return sentinel(ctx, st, backup) })
	if err != nil {
		return err
	}
	return lines(e.Stdout, names)
}

func lines(out io.Writer, list []string) error {
	w := bufio.NewWriter(out)
	for _, line := range list {
		fmt.Fprintln(w, line)
	}
	return w.Flush()
}
