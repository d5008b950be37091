// Package codec knows the compression methods: name, extension of objects,
// first bytes, reader and writer. What it writes, the stock program of the
// format opens; a reader returns io.EOF only at an end that its format shows.
package codec

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"walg/lib/crypt"
	"walg/lib/fault"
)

// Options tune a codec. Zero values are the defaults.
type Options struct {
	Level   int // of compression, in the format's own numbers
	Threads int // blocks worked on at once, at least 1
}

// Method is one way to compress.
type Method struct {
	Name string // as in WALG_COMPRESSION_METHOD
	Ext  string // of objects, with its dot; empty for none

	writer func(w io.Writer, o Options) (io.WriteCloser, error)
	reader func(r io.Reader, o Options) Reader
}

// Reader decompresses a stream.
type Reader interface {
	io.Reader
	// Proven reports at io.EOF whether the data itself proved its end: the
	// whole stream was one frame with a checksum.
	Proven() bool
}

var methods = []Method{
	{"lz4", ".lz4", newLZ4Writer, newLZ4Reader},
	{"lzma", ".lzma", nil, nil},
	{"brotli", ".br", nil, nil},
	{"zstd", ".zst", nil, nil},
	{"none", "", newPlainWriter, newPlainReader},
}

// ByName returns the method of a name. A method that WAL-G has and this
// program lacks is an error of its own.
func ByName(name string) (Method, error) {
	var known []string
	for _, m := range methods {
		switch {
		case m.Name == name && m.writer == nil:
			return m, fault.WithHint(fault.New(fault.Usage, "compression method %s is not supported by this version", name),
				"use lz4 or none, or run its own program as the stage: --through -- COMMAND")
		case m.Name == name:
			return m, nil
		case m.writer != nil:
			known = append(known, m.Name)
		}
	}
	return Method{}, fault.New(fault.Usage, "unknown compression method %q: it is one of %s", name, strings.Join(known, ", "))
}

// ByExt returns the method that the extension of name shows, if any.
func ByExt(name string) (Method, bool) {
	for _, m := range methods {
		if m.Ext != "" && strings.HasSuffix(name, m.Ext) {
			return m, true
		}
	}
	return Method{}, false
}

// HeadSize is how many first bytes Detect wants.
const HeadSize = 16

var magics = []struct {
	bytes  string
	name   string
	method string
}{
	{"\x04\x22\x4d\x18", "lz4", "lz4"},
	{"\x02\x21\x4c\x18", "lz4 legacy", "lz4"},
	{"\x28\xb5\x2f\xfd", "zstd", "zstd"},
	{"\xfd7zXZ\x00", "xz", ""},
	{"\x1f\x8b", "gzip", ""},
	{"\x5d\x00\x00", "lzma", "lzma"},
	{"\x89LZO\x00\r\n\x1a\n", "lzo", ""},
}

// Detect finds the method by the first bytes of a stream. Data that is none of
// ours is named as what it is, with status 65. Brotli has no magic and is
// never guessed, nor is data that is not compressed.
func Detect(head []byte) (Method, error) {
	for _, m := range magics {
		if !bytes.HasPrefix(head, []byte(m.bytes)) {
			continue
		}
		if m.method == "" {
			return Method{}, fault.WithHint(fault.New(fault.Data, "this is %s data", m.name),
				"run its own program as the stage: --through -- COMMAND")
		}
		method, err := ByName(m.method)
		if err != nil {
			err = fault.WithHint(fault.New(fault.Data, "this is %s data: %w", m.name, err), "%s", fault.Hint(err))
		}
		return method, err
	}
	if isSkippable(head) {
		return ByName("lz4")
	}
	if what := crypt.Detect(head); what != "" {
		return Method{}, fault.WithHint(fault.New(fault.Data, "this is %s data, not compressed data", what),
			"decrypt it first: walg-crypt -d")
	}
	if len(head) == 0 {
		return Method{}, fault.New(fault.Data, "empty input, which no compression method writes")
	}
	return Method{}, fault.WithHint(fault.New(fault.Data, "no compression method known by its first bytes"),
		"name it with -m; -m none passes data through")
}

// NewWriter returns a writer that compresses into w. Its Close finishes the
// format and does not close w.
func (m Method) NewWriter(w io.Writer, o Options) (io.WriteCloser, error) {
	return m.writer(w, o)
}

// NewReader returns a reader of what was compressed. Corrupt and truncated
// data are errors with status 65; an error of r is passed on unchanged.
func (m Method) NewReader(r io.Reader, o Options) Reader { return m.reader(r, o) }

// Extensions returns the extensions of objects that may hold compressed data,
// in the order in which WAL-G tries them; the last, empty, is for none.
func Extensions() []string {
	return []string{".lz4", ".lzma", ".gz", ".lzo", ".br", ".zst", ""}
}

// plain is the method none.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

func newPlainWriter(w io.Writer, _ Options) (io.WriteCloser, error) { return plain{w}, nil }

type plainReader struct{ io.Reader }

func (plainReader) Proven() bool { return false }

func newPlainReader(r io.Reader, _ Options) Reader { return plainReader{r} }

func corrupt(format string, args ...any) error {
	return fault.New(fault.Data, "%w", fmt.Errorf(format, args...))
}
