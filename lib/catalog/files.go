package catalog

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"
	"unicode/utf8"
)

// File is what files_metadata.json says of one member.
type File struct {
	IsIncremented bool // the member holds changed pages only
	IsSkipped     bool // unchanged since the parent, and in no part
	MTime         time.Time
	CorruptBlocks *CorruptBlocks
}

// CorruptBlocks are the pages of a file whose checksums were found wrong.
type CorruptBlocks struct {
	CorruptBlocksCount int
	SomeCorruptBlocks  []uint32 // the first 10 as a rule
}

// Relation is a table or an index.
type Relation struct {
	OID         uint32 `json:"oid"`
	RelFileNode uint32 `json:"relfilenode"`
}

// Spool is what FilesWriter writes the names of members to and reads them
// from, once, in another order: an empty temporary file.
type Spool interface {
	io.Writer
	io.ReaderAt
}

// FilesWriter writes files_metadata.json as a stream. Its memory does not grow
// with the number of files (but for 24 bytes for each 32 KiB of their names),
// parts or relations: names of members wait in the spool until all files are
// written, because the sets of the parts come after them.
//
// Call File for each member, in any order; then Database for each database;
// then Close. It is not safe for concurrent use. After an error every call
// returns that error.
type FilesWriter struct {
	w     *bufio.Writer
	spool Spool
	stage stage
	err   error

	files, databases int
	any              bool // a key of the whole object is written

	spooled  int64
	buffered int
	parts    map[string]*set
	order    []*set
}

type stage int

const (
	inFiles stage = iota
	inDatabases
	closed
)

// set is the names of one part: blocks that are in the spool, and the last
// ones, which are not. A name is its length as a varint, and its bytes.
type set struct {
	part   string
	blocks []block
	buf    []byte
}

type block struct{ offset, size int64 }

const (
	spoolBlock  = 32 << 10 // of one part's names, before they go to the spool
	spoolMemory = 1 << 20  // of all parts' names, before they all do
)

// NewFilesWriter returns a writer of one JSON object to w. It does not close w.
func NewFilesWriter(w io.Writer, spool Spool) *FilesWriter {
	return &FilesWriter{w: bufio.NewWriterSize(w, 64<<10), spool: spool, parts: map[string]*set{}}
}

// File records one member, under exactly its name in the tar, and the name of
// the part that it is in: part_001.tar.lz4, say. A skipped file is in no part.
// A name that is not UTF-8 cannot be said in JSON, and is an error.
func (f *FilesWriter) File(name, part string, file File) error {
	if f.err != nil {
		return f.err
	}
	switch {
	case f.stage != inFiles:
		return f.fail(errors.New("a file after the databases"))
	case !utf8.ValidString(name):
		return f.fail(fmt.Errorf("file %q: the name is not UTF-8 and cannot be recorded", name))
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return f.fail(err)
	}
	if f.files++; f.files == 1 {
		f.open("Files")
	} else {
		f.w.WriteByte(',')
	}
	f.w.Write(quoted)
	f.w.WriteString(`:{"IsIncremented":`)
	f.w.WriteString(strconv.FormatBool(file.IsIncremented))
	f.w.WriteString(`,"IsSkipped":`)
	f.w.WriteString(strconv.FormatBool(file.IsSkipped))
	f.w.WriteString(`,"MTime":"`)
	f.w.Write(file.MTime.UTC().AppendFormat(nil, time.RFC3339Nano))
	f.w.WriteString(`"`)
	if file.CorruptBlocks != nil {
		f.w.WriteString(`,"CorruptBlocks":`)
		f.json(file.CorruptBlocks)
	}
	_, err = f.w.WriteString(`,"UpdatesCount":0}`)
	if err == nil && part != "" {
		err = f.member(part, name)
	}
	return f.fail(err)
}

// Member records that a part has a member which is not among the files:
// backup_label and tablespace_map are such.
func (f *FilesWriter) Member(name, part string) error {
	if f.err == nil && f.stage != inFiles {
		f.err = errors.New("files_metadata.json: a member after the databases")
	}
	if f.err != nil {
		return f.err
	}
	return f.fail(f.member(part, name))
}

// open begins an object under a key of the whole one.
func (f *FilesWriter) open(key string) {
	if f.any {
		f.w.WriteByte(',')
	} else {
		f.w.WriteByte('{')
	}
	f.any = true
	f.w.WriteString(`"` + key + `":{`)
}

// json writes v. Its types cannot fail to be marshalled.
func (f *FilesWriter) json(v any) {
	p, err := json.Marshal(v)
	if err != nil {
		f.err = err
	}
	f.w.Write(p)
}

func (f *FilesWriter) fail(err error) error {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("files_metadata.json: %w", err)
	}
	return f.err
}

func (f *FilesWriter) member(part, name string) error {
	s := f.parts[part]
	if s == nil {
		s = &set{part: part}
		f.parts[part], f.order = s, append(f.order, s)
	}
	before := len(s.buf)
	s.buf = append(binary.AppendUvarint(s.buf, uint64(len(name))), name...)
	f.buffered += len(s.buf) - before
	if len(s.buf) >= spoolBlock {
		return f.flush(s)
	}
	if f.buffered >= spoolMemory {
		// Many parts with little each: those that are finished, and will not
		// grow to a block any more.
		for _, s := range f.order {
			if err := f.flush(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *FilesWriter) flush(s *set) error {
	if len(s.buf) == 0 {
		return nil
	}
	if _, err := f.spool.Write(s.buf); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.blocks = append(s.blocks, block{f.spooled, int64(len(s.buf))})
	f.spooled += int64(len(s.buf))
	f.buffered -= len(s.buf)
	s.buf = nil
	return nil
}

// sets ends the files and writes the sets.
func (f *FilesWriter) sets() error {
	f.stage = inDatabases
	if f.files > 0 {
		f.w.WriteByte('}')
	}
	for i, s := range f.order {
		if i == 0 {
			f.open("TarFileSets")
		} else {
			f.w.WriteByte(',')
		}
		f.json(s.part)
		f.w.WriteString(":[")
		first := true
		for name, err := range f.names(s) {
			if err != nil {
				return err
			}
			if !first {
				f.w.WriteByte(',')
			}
			first = false
			f.json(name)
		}
		f.w.WriteByte(']')
	}
	if len(f.order) > 0 {
		f.w.WriteByte('}')
	}
	return nil
}

func (f *FilesWriter) names(s *set) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		blocks := append(s.blocks, block{size: int64(len(s.buf))})
		for i, b := range blocks {
			p := s.buf
			if i < len(s.blocks) {
				p = make([]byte, b.size)
				// At its very end ReadAt may give all bytes and io.EOF.
				if n, err := f.spool.ReadAt(p, b.offset); n < len(p) {
					yield("", fmt.Errorf("spool: %w", err))
					return
				}
			}
			for len(p) > 0 {
				n, used := binary.Uvarint(p)
				if used <= 0 || n > uint64(len(p)-used) {
					yield("", errors.New("spool: not what was written there"))
					return
				}
				if !yield(string(p[used:used+int(n)]), nil) {
					return
				}
				p = p[used+int(n):]
			}
		}
	}
}

// Database records the relations of one database by "schema.name". It can be
// called after the last File.
func (f *FilesWriter) Database(name string, oid uint32, relations iter.Seq2[string, Relation]) error {
	if f.err != nil {
		return f.err
	}
	if f.stage == closed {
		return f.fail(errors.New("a database after the end"))
	}
	if f.stage == inFiles {
		if err := f.sets(); err != nil {
			return f.fail(err)
		}
	}
	if f.databases++; f.databases == 1 {
		f.open("DatabasesByNames")
	} else {
		f.w.WriteByte(',')
	}
	f.json(name)
	f.w.WriteString(`:{"oid":` + strconv.FormatUint(uint64(oid), 10) + `,"tables_new":{`)
	first := true
	for relation, r := range relations {
		if !first {
			f.w.WriteByte(',')
		}
		first = false
		f.json(relation)
		f.w.WriteByte(':')
		f.json(r)
	}
	_, err := f.w.WriteString("}}")
	return f.fail(err)
}

// Close ends the JSON object and writes what is buffered.
func (f *FilesWriter) Close() error {
	if f.err != nil || f.stage == closed {
		return f.err
	}
	if f.stage == inFiles {
		if err := f.sets(); err != nil {
			return f.fail(err)
		}
	}
	f.stage = closed
	if f.databases > 0 {
		f.w.WriteByte('}')
	}
	if !f.any {
		f.w.WriteByte('{')
	}
	f.w.WriteByte('}')
	return f.fail(f.w.Flush())
}
