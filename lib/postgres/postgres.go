// Package postgres knows what walg must know about the files of PostgreSQL 10 to
// 18: what a base backup leaves out, page checksums, pg_control, and the names
// of LSNs and WAL files.
//
// It reads data directories and never writes them. It knows no archive format,
// no store and no server; the conversation with one is lib/postgres/session.
package postgres

import (
	"path"
	"strings"
)

// Defaults of a PostgreSQL build; the real values are in pg_control.
const (
	DefaultBlockSize     = 8192
	DefaultSegmentBlocks = 131072 // blocks in one file of a relation: 1 GiB
)

// Member turns the name of an archive member ("/base/1/1259", "./base/1/",
// "base/1/1259") into a path from the data directory, "." for the directory
// itself.
func Member(name string) string {
	if p := strings.TrimPrefix(path.Clean("/"+name), "/"); p != "" {
		return p
	}
	return "."
}
