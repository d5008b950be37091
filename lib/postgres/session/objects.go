package session

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"path/filepath"
)

// Tablespace is a user's tablespace. Location is the directory that
// pg_tblspc/OID links to; InPlace is one that is a directory there itself (15
// and later, for tests).
type Tablespace struct {
	OID      uint32
	Location string
	InPlace  bool
}

// Tablespaces lists the tablespaces by OID, without the two that lie in the
// data directory. Ask after Start: one that is made later is in the WAL.
func (s *Session) Tablespaces(ctx context.Context) ([]Tablespace, error) {
	const what = "list tablespaces"
	var list []Tablespace
	s.mu.Lock()
	defer s.mu.Unlock()
	// 1663 and 1664 are pg_default and pg_global.
	rows := s.conn.ExecParams(ctx, `select oid, encode(convert_to(pg_tablespace_location(oid), getdatabaseencoding()), 'hex')
		from pg_tablespace where oid not in (1663, 1664) order by oid`, nil, nil, nil, nil)
	n := numbers{}
	for rows.NextRow() {
		v := rows.Values()
		location, err := hex.DecodeString(string(v[1]))
		if err != nil && n.err == nil {
			n.err = err
		}
		list = append(list, Tablespace{
			OID:      uint32(n.int(string(v[0]))),
			Location: string(location),
			InPlace:  !filepath.IsAbs(string(location)),
		})
	}
	if _, err := rows.Close(); err != nil {
		return nil, queryError(what, cancelled(ctx, err))
	}
	if n.err != nil {
		return nil, fmt.Errorf("%s: %w", what, n.err)
	}
	return list, nil
}

// Name is one entry of WAL-G's DatabasesByNames: a table, index, sequence or
// anything else that has a file.
type Name struct {
	Database    string
	DatabaseOID uint32
	Relation    string // schema.name, nothing quoted
	OID         uint32
	Filenode    uint32
}

type database struct {
	name string
	oid  uint32
}

// Names goes through the relations of all databases, one database after the
// other, each over a connection of its own. Nothing is kept in memory. A
// database that does not take connections, or not from this user, is left out
// with a notice; an error ends the sequence.
func (s *Session) Names(ctx context.Context) iter.Seq2[Name, error] {
	return func(yield func(Name, error) bool) {
		databases, err := s.databases(ctx)
		if err != nil {
			yield(Name{}, err)
			return
		}
		for _, db := range databases {
			if more, err := s.relations(ctx, db, yield); err != nil {
				yield(Name{}, err)
				return
			} else if !more {
				return
			}
		}
	}
}

func (s *Session) databases(ctx context.Context) ([]database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []database
	rows := s.conn.ExecParams(ctx, "select datname, oid from pg_database where datallowconn order by oid", nil, nil, nil, nil)
	n := numbers{}
	for rows.NextRow() {
		v := rows.Values()
		list = append(list, database{string(v[0]), uint32(n.int(string(v[1])))})
	}
	if _, err := rows.Close(); err != nil {
		return nil, queryError("list databases", cancelled(ctx, err))
	}
	return list, n.err
}

func (s *Session) relations(ctx context.Context, db database, yield func(Name, error) bool) (more bool, err error) {
	config := s.config.Copy()
	config.Database = db.name
	conn, err := connect(ctx, config, s.o.Timeout)
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		s.o.Notice("database %s is left out of the list of names: %v", db.name, err)
		return true, nil
	}
	defer conn.Close(ctx)
	rows := conn.ExecParams(ctx, `select nspname || '.' || relname, c.oid, pg_relation_filenode(c.oid)
		from pg_class c join pg_namespace n on n.oid = relnamespace
		where pg_relation_filenode(c.oid) is not null`, nil, nil, nil, nil)
	n := numbers{}
	for rows.NextRow() {
		v := rows.Values()
		name := Name{db.name, db.oid, string(v[0]), uint32(n.int(string(v[1]))), 0}
		if v[2] != nil { // dropped meanwhile
			name.Filenode = uint32(n.int(string(v[2])))
		}
		if !yield(name, nil) {
			return false, nil // closing the connection ends the query
		}
	}
	if _, err := rows.Close(); err != nil {
		return false, queryError("list relations of database "+db.name, cancelled(ctx, err))
	}
	return true, n.err
}
