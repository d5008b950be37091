package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"walg/lib/catalog"
	"walg/lib/tarball/pack"
)

// fileList writes files_metadata.json into the state directory, or nothing.
type fileList struct {
	b          *base
	out, spool *os.File
	w          *catalog.FilesWriter
	err        error
}

func (b *base) openFiles() (*fileList, error) {
	l := &fileList{b: b}
	if b.state == "" || *b.o.bare {
		return l, nil
	}
	var err error
	if l.out, err = os.OpenFile(filepath.Join(b.state, "files_metadata.json"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		l.spool, err = os.OpenFile(filepath.Join(b.state, "files.spool"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		l.discard()
		return nil, fmt.Errorf("write state: %w", err)
	}
	l.w = catalog.NewFilesWriter(l.out, l.spool)
	return l, nil
}

func (l *fileList) add(m pack.Member, part string) {
	if l.w == nil || l.err != nil {
		return
	}
	l.err = l.w.File(m.Name, part, catalog.File{MTime: m.ModTime, CorruptBlocks: l.b.corrupt(m.Name)})
}

// corrupt returns the bad pages of a member, nil as a rule.
func (b *base) corrupt(member string) *catalog.CorruptBlocks {
	if b.bad == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.bad.Files[strings.TrimPrefix(member, "/")]; f != nil {
		return &catalog.CorruptBlocks{CorruptBlocksCount: f.Count, SomeCorruptBlocks: f.Blocks}
	}
	return nil
}

// finish adds the label's part and the names of relations, and ends the list.
func (l *fileList) finish(ctx context.Context, label string) error {
	if l.w == nil || l.err != nil {
		return l.err
	}
	for _, name := range []string{"tablespace_map", "backup_label"} {
		if err := l.w.Member(name, label); err != nil {
			return err
		}
	}
	if off, err := strconv.ParseBool(l.b.e.Setting("WALG_DISABLE_PARTIAL_RESTORE")); err != nil || !off {
		if err := l.names(ctx); err != nil {
			return err
		}
	}
	if err := l.w.Close(); err != nil {
		return err
	}
	return l.out.Close()
}

// names writes the relations, one database after the other.
func (l *fileList) names(ctx context.Context) error {
	next, stop := iter.Pull2(l.b.conn.Names(ctx))
	defer stop()
	name, err, more := next()
	for more && err == nil {
		database := name
		werr := l.w.Database(database.Database, database.DatabaseOID, func(yield func(string, catalog.Relation) bool) {
			for more && err == nil && name.DatabaseOID == database.DatabaseOID {
				if !yield(name.Relation, catalog.Relation{OID: name.OID, RelFileNode: name.Filenode}) {
					return
				}
				name, err, more = next()
			}
		})
		if werr != nil {
			return werr
		}
	}
	return err
}

func (l *fileList) discard() {
	for _, f := range []*os.File{l.out, l.spool} {
		if f != nil {
			f.Close() // of the list, finish has judged the closing
		}
	}
}
