package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/postgres"
	"walg/lib/tarball"
)

// verification is one run of verify.
type verification struct {
	e       *cli.Env
	members int
	bad     int // pages with a checksum that is wrong
	unset   int // pages without any, as in a cluster that has none
	control *postgres.Control
}

func verify(f *cli.Flags) cli.Run {
	streams := f.Input(false)
	return func(ctx context.Context, e *cli.Env) error {
		in, err := streams.Open(ctx, e, e.Operands)
		if err != nil {
			return err
		}
		defer in.Close()
		v := &verification{e: e}
		if err := tarball.Read(ctx, in, v.member); err != nil {
			return err
		}
		return v.judge()
	}
}

const chunk = 1 << 20 // a multiple of the page size

// member checks the pages of one file.
func (v *verification) member(h *tar.Header, content io.Reader) error {
	v.members++
	path := postgres.Member(h.Name)
	if path == controlFile {
		data, err := io.ReadAll(io.LimitReader(content, chunk))
		if err != nil {
			return err
		}
		control, err := postgres.ParseControl(data)
		if err != nil {
			return fault.New(fault.Data, "%s: %w", h.Name, err)
		}
		v.control = &control
		return nil
	}
	if _, ok := postgres.ParseRelation(path); !ok {
		return nil
	}
	buf := make([]byte, min(chunk, max(h.Size, 1)))
	for off := int64(0); ; {
		n, err := io.ReadFull(content, buf)
		for _, page := range postgres.VerifyPages(path, off, buf[:n]) {
			if page.Found == 0 {
				v.unset++
				continue
			}
			v.bad++
			if _, err := fmt.Fprintf(v.e.Stdout, "%s block %d: expected %04x, found %04x\n", page.Path, page.Block, page.Expected, page.Found); err != nil {
				return err
			}
		}
		off += int64(n)
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && off == h.Size {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// judge weighs the bad pages once pg_control, the last member, has said
// whether the cluster has checksums.
func (v *verification) judge() error {
	switch {
	case v.members == 0:
		return fault.New(fault.Data, "an empty archive")
	case v.control != nil && !v.control.Checksums:
		v.e.Warn("the cluster has no page checksums; only the archive itself was checked")
		return nil
	case v.control != nil:
		v.bad += v.unset // a page must have one
	}
	if v.bad > 0 {
		return fault.WithHint(fault.New(fault.Data, "%d pages with a wrong checksum", v.bad),
			"a page that was being written during the backup may be repaired by WAL; restore and run pg_checksums")
	}
	return nil
}
