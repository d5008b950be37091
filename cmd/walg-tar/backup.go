package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"walg/lib/catalog"
	"walg/lib/cli"
	"walg/lib/fault"
	"walg/lib/postgres"
	"walg/lib/postgres/session"
	"walg/lib/tarball"
	"walg/lib/tarball/pack"
	"walg/lib/tree"
	"walg/lib/wal"
)

// serverOptions are the options of create that --postgres needs.
type serverOptions struct {
	label, checksums, checkpoint, userData *string
	permanent, full, bare, verify          *bool
	connect, archived                      *time.Duration
}

func backupFlags(f *cli.Flags) serverOptions {
	o := serverOptions{
		label:      f.String("label", "", "", "walg", "label of the backup, a `text`"),
		checksums:  f.String("checksums", "", "", "fail", "what a wrong page checksum does, a `mode`: fail, record or off"),
		verify:     f.Bool("verify", "", "", "the same as --checksums record"),
		checkpoint: f.String("checkpoint", "", "", "fast", "how the checkpoint at the start is made, a `mode`: fast or spread"),
		connect:    f.Duration("connect-timeout", 30*time.Second, "deadline for connecting and for each short query, a `time`"),
		archived:   f.Duration("archive-timeout", time.Hour, "deadline for the archiving of the backup's WAL at its end, a `time`; 0 waits for ever"),
		userData:   f.String("add-user-data", "", "WALG_SENTINEL_USER_DATA", "", "keep this `json` with the backup"),
		permanent:  f.Bool("permanent", "p", "", "keep the backup when old ones are deleted"),
		full:       f.Bool("full", "", "", "take a full backup, as this version always does"),
		bare:       f.Bool("without-files-metadata", "", "WALG_WITHOUT_FILES_METADATA", "leave out the list of files"),
	}
	return o
}

// base is a base backup that is being taken.
type base struct {
	*creation
	o       serverOptions
	conn    *session.Session
	server  session.Server
	started session.Started
	stopped session.Stopped
	spaces  []session.Tablespace
	control postgres.Control // as it is archived
	mu      sync.Mutex
	bad     *postgres.BadPages // under mu
	source  pack.Source
	totals  tarball.Totals
}

// postgres takes a base backup: as parts with their objects in the state
// directory, or as one stream that restores by itself.
func (c *creation) postgres(ctx context.Context, o serverOptions, streams *cli.Streams) error {
	mode, err := checksumMode(c.e, o)
	if err != nil {
		return err
	}
	if *o.userData != "" && !json.Valid([]byte(*o.userData)) {
		return fault.New(fault.Usage, "user data is not JSON: %s", *o.userData)
	}
	if *o.checkpoint != "fast" && *o.checkpoint != "spread" {
		return fault.New(fault.Usage, "--checkpoint %s: it is fast or spread", *o.checkpoint)
	}
	conn, err := session.Open(ctx, session.Options{
		Timeout: *o.connect,
		Notice:  func(format string, args ...any) { c.e.Warn(format, args...) },
	})
	if err != nil {
		return err
	}
	defer conn.Close() // before the stop, this ends the backup on the server too
	b := &base{creation: c, o: o, conn: conn, server: conn.Server()}
	if err := b.start(ctx, mode); err != nil {
		return err
	}
	if c.command == "" {
		return c.stream(streams, func(w *pack.Writer) error { return b.asStream(ctx, w) })
	}
	return b.asParts(ctx)
}

// checksumMode settles --checksums and WAL-G's setting, which records.
func checksumMode(e *cli.Env, o serverOptions) (string, error) {
	mode := *o.checksums
	if value := e.Setting("WALG_VERIFY_PAGE_CHECKSUMS"); value != "" && mode == "fail" {
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return "", fault.New(fault.Usage, "setting WALG_VERIFY_PAGE_CHECKSUMS=%s: not true or false", value)
		}
		mode = map[bool]string{true: "record", false: "off"}[yes]
	}
	if *o.verify {
		mode = "record"
	}
	switch mode {
	case "fail", "record", "off":
		return mode, nil
	}
	return "", fault.New(fault.Usage, "--checksums %s: it is fail, record or off", mode)
}

// start starts the backup on the server and prepares the walk.
func (b *base) start(ctx context.Context, checksums string) error {
	control, err := b.conn.CheckDir(ctx, b.dir)
	if err != nil {
		return err
	}
	if b.started, err = b.conn.Start(ctx, *b.o.label, *b.o.checkpoint == "fast"); err != nil {
		return err
	}
	if b.spaces, err = b.conn.Tablespaces(ctx); err != nil {
		return err
	}
	b.backup = catalog.FullName(b.started.Segment.String())
	inspector := &postgres.Inspector{
		Control: control,
		Start:   b.started.LSN,
		Newest:  func() (wal.LSN, error) { return b.conn.CurrentLSN(ctx) },
	}
	switch checksums {
	case "record":
		b.bad = &postgres.BadPages{}
		inspector.Bad = func(page postgres.BadPage) error {
			b.e.Warn("%v", page.Err())
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.bad.Add(page)
		}
	case "off":
		inspector.Control.Checksums = false
	}
	b.source = b.creation.source(ctx, inspector.Inspect)
	b.source.Live = true
	rules := postgres.NewRules(b.dir, b.server.Major(), b.server.CatalogVersion)
	b.source.Filter = func(path string, fi fs.FileInfo) tree.Verdict {
		return map[postgres.Class]tree.Verdict{
			postgres.Keep: tree.Keep, postgres.Skip: tree.Skip,
			postgres.Hollow: tree.Hollow, postgres.Defer: tree.Defer,
		}[rules.Classify(path, fi)]
	}
	for _, s := range b.spaces {
		if !s.InPlace {
			b.source.Mounts = append(b.source.Mounts, tree.Mount{Path: link(s), Dir: s.Location, Link: b.state == ""})
		}
	}
	return nil
}

func link(s session.Tablespace) string { return fmt.Sprintf("pg_tblspc/%d", s.OID) }

const controlFile = "global/pg_control"

// stop reads pg_control, after all other files and before the end, as a
// backup from a standby needs it, and stops the backup.
func (b *base) stop(ctx context.Context) (err error) {
	if b.control, err = postgres.ReadControl(ctx, b.dir); err != nil {
		return err
	}
	b.stopped, err = b.conn.Stop(ctx)
	return err
}

// wait waits until the backup can be restored.
func (b *base) wait(ctx context.Context) error {
	if *b.o.archived > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, *b.o.archived)
		defer cancel()
	}
	return b.conn.WaitArchived(ctx, b.dir, b.started, b.stopped)
}

// asStream writes one archive: the tree, the labels, and pg_control last.
func (b *base) asStream(ctx context.Context, w *pack.Writer) error {
	if _, err := w.Tree(ctx, b.source); err != nil {
		return err
	}
	if err := b.stop(ctx); err != nil {
		return err
	}
	if err := b.labels(w, len(b.stopped.TablespaceMap) > 0); err != nil {
		return err
	}
	if err := w.File(controlFile, 0o600, time.Now(), b.control.Raw); err != nil {
		return err
	}
	return b.wait(ctx)
}

func (b *base) labels(w *pack.Writer, withMap bool) error {
	if err := w.File("backup_label", 0o600, time.Unix(0, 0), b.stopped.Label); err != nil {
		return err
	}
	if !withMap {
		return nil
	}
	return w.File("tablespace_map", 0o600, time.Unix(0, 0), b.stopped.TablespaceMap)
}

// asParts writes the backup as WAL-G lays it out, with the objects that
// describe it in the state directory, the sentinel last.
func (b *base) asParts(ctx context.Context) error {
	b.source.Prefix = "/"
	if b.state != "" {
		if err := os.MkdirAll(filepath.Join(b.state, "parts"), 0o700); err != nil {
			return fmt.Errorf("write state: %w", err)
		}
		if err := b.writeState("name", []byte(b.backup+"\n")); err != nil {
			return err
		}
	}
	files, err := b.openFiles()
	if err != nil {
		return err
	}
	defer files.discard()
	b.source.Member = func(m pack.Member) {
		files.add(m, catalog.PartName(m.Part, b.ext))
	}
	if b.totals, err = pack.Split(ctx, b.source, b.split(ctx)); err != nil {
		return err
	}
	if err := b.stop(ctx); err != nil {
		return err
	}
	err = b.extraPart(ctx, catalog.ControlPart(b.ext), func(w *pack.Writer) error {
		return w.File("/"+controlFile, 0o600, time.Now(), b.control.Raw)
	})
	if err != nil {
		return err
	}
	label := catalog.LabelPart(b.ext)
	if err := b.extraPart(ctx, label, func(w *pack.Writer) error { return b.labels(w, true) }); err != nil {
		return err
	}
	if err := b.wait(ctx); err != nil {
		return err
	}
	if err := files.finish(ctx, label); err != nil {
		return err
	}
	if b.state == "" {
		return nil
	}
	return b.describe()
}

// extraPart writes a small part of its own.
func (b *base) extraPart(ctx context.Context, name string, fill func(*pack.Writer) error) error {
	p, err := b.part(ctx, name)
	if err == nil {
		w := pack.NewWriter(p)
		if err = w.Own(b.dir); err == nil { // the server's, also where root archives
			err = fill(w)
		}
		if err == nil {
			err = w.Close()
		}
		err = p.Close(err)
	}
	if err != nil {
		return fmt.Errorf("part %s: %w", name, err)
	}
	return nil
}

// describe writes metadata and sentinel.
func (b *base) describe() error {
	compressed, err := receipts(filepath.Join(b.state, "parts"))
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	s := catalog.Sentinel{
		LSN:                   catalog.Number(b.started.LSN),
		FinishLSN:             catalog.Number(b.stopped.LSN),
		PgVersion:             b.server.Version,
		SystemIdentifier:      catalog.Number(b.server.SystemID),
		UncompressedSize:      b.totals.Bytes + int64(len(b.control.Raw)+len(b.stopped.Label)+len(b.stopped.TablespaceMap)),
		CompressedSize:        compressed,
		DataCatalogSize:       b.totals.Walked,
		UserData:              json.RawMessage(*b.o.userData),
		FilesMetadataDisabled: *b.o.bare,
		StartTime:             b.started.Time,
		FinishTime:            time.Now(),
		Hostname:              host,
		DataDir:               b.dataDir(),
		IsPermanent:           *b.o.permanent,
	}
	if len(b.source.Mounts) > 0 {
		s.Spec = &catalog.Spec{BasePrefix: s.DataDir}
		for _, m := range b.source.Mounts {
			s.Spec.Tablespaces = append(s.Spec.Tablespaces, catalog.Tablespace{OID: path.Base(m.Path), Location: m.Dir, Link: m.Path})
		}
	}
	metadata, err := s.Metadata().Encode()
	if err != nil {
		return err
	}
	if err := b.writeState("metadata.json", metadata); err != nil {
		return err
	}
	sentinel, err := s.Encode()
	if err != nil {
		return err
	}
	return b.writeState("sentinel.json", sentinel)
}

// dataDir is the data directory as the server names it, or as we were told.
func (b *base) dataDir() string {
	if b.server.DataDir != "" {
		return b.server.DataDir
	}
	if abs, err := filepath.Abs(b.dir); err == nil {
		return abs
	}
	return b.dir
}

// receipts sums the bytes that the parts' puts say they stored.
func receipts(dir string) (sum int64, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		var r struct{ Bytes int64 }
		if err := json.Unmarshal(text, &r); err != nil {
			return 0, fmt.Errorf("receipt %s: %w", name, err)
		}
		sum += r.Bytes
	}
	return sum, nil
}
