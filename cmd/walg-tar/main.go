// Walg-tar turns a directory tree into a tar stream and back. With --postgres
// the tree is the data directory of a running server, and the stream a base
// backup that restores by itself.
//
// Each command lies in a file of its own: create (create.go, and backup.go for
// --postgres), extract, list and verify.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/tarball"
)

func main() {
	// Buffers are pooled and the rest is small: what the collector is
	// allowed to leave lying is what the promise of 64 MiB has room for.
	debug.SetMemoryLimit(48 << 20)
	cli.Main(cli.Program{
		Name:  "walg-tar",
		About: "Turn a directory tree into a tar stream and back.",
		Commands: []cli.Program{
			{
				Name:     "create",
				Synopsis: "[OPTION]... DIR",
				About: `Write the tree DIR as a tar stream, or with --part-command as several, each to
a command of its own. With --postgres DIR is the data directory of a running
server, which is told of the backup, and what belongs to the running server is
left out.`,
				Setup: create,
			},
			{
				Name:     "extract",
				Synopsis: "[OPTION]... DIR [FILE | -- COMMAND...]",
				About: `Write the tar stream FILE, the output of COMMAND, or standard input as a tree
into the empty directory DIR, durably. Nothing is ever written outside DIR.
--begin, --join and --finish restore a backup of several parts.`,
				Setup: extract,
			},
			{
				Name:     "list",
				Synopsis: "[FILE | -- COMMAND...]",
				About:    "Print a line for each member: mode, size, time, name.",
				Setup:    list,
			},
			{
				Name:     "verify",
				Synopsis: "[FILE | -- COMMAND...]",
				About: `Read a base backup to its end and check the page checksums in it. A bad page
is a line: file, block, checksum expected, checksum found.`,
				Setup: verify,
			},
		},
	})
}

func list(f *cli.Flags) cli.Run {
	streams := f.Input(false)
	return func(ctx context.Context, e *cli.Env) error {
		in, err := streams.Open(ctx, e, e.Operands)
		if err != nil {
			return err
		}
		defer in.Close()
		return tarball.List(ctx, in, e.Stdout)
	}
}

// directory takes DIR from the operands and returns the others.
func directory(e *cli.Env, others int) (dir string, rest []string, err error) {
	if len(e.Operands) == 0 || e.Operands[0] == "" {
		return "", nil, fault.New(fault.Usage, "no DIR")
	}
	dir, rest = e.Operands[0], e.Operands[1:]
	if len(rest) > others {
		return "", nil, fault.New(fault.Usage, "more operands than one DIR: %q", rest)
	}
	return dir, rest, nil
}

// isRoot reports whether owners can be restored.
func isRoot() bool { return os.Geteuid() == 0 }
