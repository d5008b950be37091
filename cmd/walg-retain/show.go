package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"text/tabwriter"
	"time"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/store"
)

// shown is a backup in JSON: what its objects say, and what they are.
type shown struct {
	Name     string            `json:"backup_name"`
	Finished bool              `json:"finished"`
	Time     time.Time         `json:"time"`
	Objects  int               `json:"objects"`
	Size     int64             `json:"size"`
	Sentinel *catalog.Sentinel `json:"sentinel"`
	Metadata *catalog.Metadata `json:"metadata"`
}

func setupShow(f *cli.Flags) cli.Run {
	asJSON := f.Bool("json", "", "", "as JSON, with all that the sentinel and the metadata say")
	return with(f, 1, 1, func(ctx context.Context, e *cli.Env, st store.Store, name string) error {
		name, err := resolve(ctx, e, st, name)
		if err != nil {
			return err
		}
		b, err := find(ctx, st, name)
		if err != nil {
			return err
		}
		for _, broken := range []error{b.SentinelErr, b.MetadataErr} {
			if broken != nil && !errors.Is(broken, fs.ErrNotExist) {
				e.Warn("%v", broken)
			}
		}
		if *asJSON {
			return json.NewEncoder(e.Stdout).Encode(shown{b.Name, b.Finished, b.ModTime.UTC(), b.Objects, b.Size, b.Sentinel, b.Metadata})
		}
		return show(e.Stdout, b)
	})
}

// find reads all that is known of one backup.
func find(ctx context.Context, st store.Store, name string) (*lineage.Backup, error) {
	var s lineage.Scan
	for _, prefix := range []string{catalog.SentinelKey(name), catalog.Backups + name + "/"} {
		for info, err := range st.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			if backup, _ := catalog.BackupOf(info.Key); backup == name {
				s.Add(info.Key, info.Size, info.ModTime)
			}
		}
	}
	found := s.Backups()
	if len(found) == 0 {
		return nil, fault.New(fault.Absent, "no backup %s in %s", name, store.URL(st, ""))
	}
	b := found[0]
	b.Sentinel, b.SentinelErr = sentinel(ctx, st, name)
	for _, err := range []error{b.SentinelErr, metadata(ctx, st, b)} {
		if !showable(err) {
			return nil, err
		}
	}
	return b, nil
}

// show writes a line for each thing that is known.
func show(out io.Writer, b *lineage.Backup) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("name", "%s", b.Name)
	state := "finished"
	switch {
	case !b.Finished:
		state = "unfinished, or being made"
	case b.Sentinel == nil:
		state = "broken: the sentinel cannot be read"
	}
	line("state", "%s", state)
	if s := b.Sentinel; s != nil {
		if s.Delta() {
			line("based on", "%s (delta %d of %s)", s.DeltaFrom, s.DeltaCount, s.DeltaFullName)
		}
		m := b.Metadata
		if m == nil {
			derived := s.Metadata()
			m = &derived
		}
		if !m.StartTime.IsZero() {
			line("started", "%s", m.StartTime.UTC().Format(time.RFC3339Nano))
			line("finished", "%s", m.FinishTime.UTC().Format(time.RFC3339Nano))
		}
		line("host", "%s", strconv.Quote(m.Hostname))
		line("data directory", "%s", strconv.Quote(m.DataDir))
		line("PostgreSQL", "%d", m.PgVersion)
		line("system identifier", "%d", m.SystemIdentifier)
		line("LSN", "%s to %s", m.StartLSN.LSN(), m.FinishLSN.LSN())
		line("permanent", "%t", m.IsPermanent)
		line("bytes", "%d, of which %d are stored", m.UncompressedSize, m.CompressedSize)
		if s.Spec != nil {
			for _, t := range s.Spec.Tablespaces {
				line("tablespace "+t.OID, "%s", strconv.Quote(t.Location))
			}
		}
		if len(m.UserData) > 0 {
			line("user data", "%s", m.UserData)
		}
	}
	line("objects", "%d, %d bytes", b.Objects, b.Size)
	return w.Flush()
}
