package postgres

import (
	"strconv"
	"strings"
)

// Fork is one of the files that make up a relation.
type Fork int

// The forks of a relation. An init fork is what an unlogged relation is reset
// to after a crash.
const (
	MainFork Fork = iota
	FreeSpaceFork
	VisibilityFork
	InitFork
)

var forkNames = map[string]Fork{"fsm": FreeSpaceFork, "vm": VisibilityFork, "init": InitFork}

// Relation is what the path of a relation file says
// (src/common/relpath.c, src/backend/storage/file/reinit.c).
type Relation struct {
	Node    uint32 // relfilenode, the number in the file's name
	Fork    Fork
	Segment uint32 // number of the file: 16384.2 starts with block 2 * 131072
	Temp    bool   // of one session, t<backend>_<node>
}

// ParseRelation recognises the path of a relation file, from the data
// directory and with slashes: in global/, base/OID/ and
// pg_tblspc/OID/PG_*/OID/.
func ParseRelation(path string) (Relation, bool) {
	dir, name, ok := cutLast(path)
	if !ok || !relationDir(dir) {
		return Relation{}, false
	}
	return parseRelationName(name)
}

func parseRelationName(name string) (Relation, bool) {
	var r Relation
	if rest, ok := strings.CutPrefix(name, "t"); ok {
		backend, rest, ok := strings.Cut(rest, "_")
		if !ok || !isDigits(backend) {
			return r, false
		}
		r.Temp, name = true, rest
	}
	name, segment, hasSegment := strings.Cut(name, ".")
	if hasSegment {
		n, ok := parseNumber(segment)
		if !ok || n == 0 {
			return r, false
		}
		r.Segment = n
	}
	name, fork, hasFork := strings.Cut(name, "_")
	if hasFork {
		if r.Fork = forkNames[fork]; r.Fork == MainFork {
			return r, false // no such fork
		}
	}
	var isNumber bool
	r.Node, isNumber = parseNumber(name)
	return r, isNumber && r.Node != 0
}

// relationDir says whether relations lie in dir.
func relationDir(dir string) bool {
	if dir == "global" {
		return true
	}
	if db, ok := strings.CutPrefix(dir, "base/"); ok {
		return isDigits(db)
	}
	version, db, ok := cutTablespace(dir)
	return ok && version != "" && isDigits(db)
}

// cutTablespace cuts pg_tblspc/OID/VERSION/REST into VERSION and REST, either
// of which may be empty; ok is false where path is not below pg_tblspc/OID.
func cutTablespace(path string) (version, rest string, ok bool) {
	path, ok = strings.CutPrefix(path, "pg_tblspc/")
	if !ok {
		return "", "", false
	}
	oid, path, _ := strings.Cut(path, "/")
	version, rest, _ = strings.Cut(path, "/")
	return version, rest, isDigits(oid)
}

func cutLast(path string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// parseNumber reads a decimal number without sign or leading zero.
func parseNumber(s string) (uint32, bool) {
	if !isDigits(s) || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}
