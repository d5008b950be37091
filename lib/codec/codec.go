// Package codec knows the compression methods: name, extension of objects,
// first bytes, reader and writer. What it writes, the stock program of the
// format opens; a reader returns io.EOF only at an end that its format shows.
package codec

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"walg/lib/codec/brotli"
	"walg/lib/codec/gzip"
	"walg/lib/codec/lz4"
	"walg/lib/codec/lzma"
	"walg/lib/codec/xz"
	"walg/lib/codec/zstd"
	"walg/lib/crypt"
	"walg/lib/decode"
	"walg/lib/fault"
)

// Default asks for the level that WAL-G writes with.
const Default = -1

// Options tune a codec.
type Options struct {
	Level   int   // of compression, in the format's own numbers, or Default
	Threads int   // blocks worked on at once, at least 1
	Memory  int64 // bytes that a reader may take in all
}

// Method is one way to compress.
type Method struct {
	Name string // as in WALG_COMPRESSION_METHOD
	Ext  string // of objects, with its dot; empty for none

	least, most int // levels
	writer      func(w io.Writer, o Options) (io.WriteCloser, error)
	reader      func(r io.Reader, o Options) decode.Reader
}

// methods are those that WAL-G writes, and two that are read only.
var methods = []Method{
	{"lz4", ".lz4", 1, 12,
		func(w io.Writer, o Options) (io.WriteCloser, error) {
			return lz4.NewWriter(w, o.level(1), o.Threads), nil
		},
		func(r io.Reader, o Options) decode.Reader { return lz4.NewReader(r, o.Threads) }},
	{"lzma", ".lzma", 0, 9,
		func(w io.Writer, o Options) (io.WriteCloser, error) { return lzma.NewWriter(w, o.level(lzma.Default)) },
		func(r io.Reader, o Options) decode.Reader { return lzma.NewReader(r, o.Memory) }},
	{"brotli", ".br", 0, 11,
		func(w io.Writer, o Options) (io.WriteCloser, error) {
			return brotli.NewWriter(w, o.level(3)), nil
		},
		func(r io.Reader, o Options) decode.Reader { return brotli.NewReader(r) }},
	{"zstd", ".zst", 1, 22,
		func(w io.Writer, o Options) (io.WriteCloser, error) { return zstd.NewWriter(w, o.level(3), o.Threads) },
		func(r io.Reader, o Options) decode.Reader { return zstd.NewReader(r, o.Threads, o.Memory) }},
	{"none", "", 0, 0,
		func(w io.Writer, _ Options) (io.WriteCloser, error) { return plain{w}, nil },
		func(r io.Reader, _ Options) decode.Reader { return plainReader{r} }},
	{"gzip", ".gz", 0, 0, nil,
		func(r io.Reader, _ Options) decode.Reader { return gzip.NewReader(r) }},
	{"xz", ".xz", 0, 0, nil,
		func(r io.Reader, o Options) decode.Reader { return xz.NewReader(r, o.Memory) }},
}

func (o Options) level(usual int) int {
	if o.Level == Default {
		return usual
	}
	return o.Level
}

// ByName returns the method of a name, for reading.
func ByName(name string) (Method, error) {
	for _, m := range methods {
		if m.Name == name {
			return m, nil
		}
	}
	return Method{}, unknown(name, func(Method) bool { return true })
}

// Writing returns the method of a name, for writing.
func Writing(name string) (Method, error) {
	for _, m := range methods {
		if m.Name == name && m.writer != nil {
			return m, nil
		}
	}
	return Method{}, unknown(name, func(m Method) bool { return m.writer != nil })
}

func unknown(name string, listed func(Method) bool) error {
	var known []string
	for _, m := range methods {
		if listed(m) {
			known = append(known, m.Name)
		}
	}
	return fault.New(fault.Usage, "unknown compression method %q: it is one of %s", name, strings.Join(known, ", "))
}

// ZstdLevel returns the level that a value of WALG_ZSTD_LEVEL means: fastest,
// default, better or best, in the numbers of the zstd program. Without a value
// it is Default.
func ZstdLevel(value string) (int, error) {
	levels := map[string]int{"": Default, "fastest": 1, "default": 3, "better": 7, "best": 11}
	level, ok := levels[strings.ToLower(value)]
	if !ok {
		return 0, fault.New(fault.Usage, "setting WALG_ZSTD_LEVEL=%s: it is fastest, default, better or best", value)
	}
	return level, nil
}

// ByExt returns the method that the extension of name shows, if any.
func ByExt(name string) (Method, bool) {
	i := slices.IndexFunc(methods, func(m Method) bool { return m.Ext != "" && strings.HasSuffix(name, m.Ext) })
	if i < 0 {
		return Method{}, false
	}
	return methods[i], true
}

// HeadSize is how many first bytes Detect wants.
const HeadSize = 16

var magics = []struct{ bytes, method string }{
	{"\x04\x22\x4d\x18", "lz4"},
	{"\x02\x21\x4c\x18", "lz4"}, // legacy
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"\xfd7zXZ\x00", "xz"},
	{"\x1f\x8b", "gzip"},
	{"\x5d\x00\x00", "lzma"},
}

const (
	lzoMagic  = "\x89LZO\x00\r\n\x1a\n"
	skippable = "\x2a\x4d\x18" // from the second byte; lz4 and zstd have it both
)

// Detect finds the method by the first bytes of a stream. Data that is none of
// ours is named as what it is, with status 65. Brotli has no magic and is
// never guessed, nor is data that is not compressed.
func Detect(head []byte) (Method, error) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.bytes)) {
			return ByName(m.method)
		}
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == skippable {
		return ByName("lz4")
	}
	if bytes.HasPrefix(head, []byte(lzoMagic)) {
		return Method{}, fault.WithHint(fault.New(fault.Data, "this is lzo data, which is not read here"),
			"run its own program as the stage: --through -- lzop -dc")
	}
	if what := crypt.Detect(head).Name; what != "" {
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
// format and does not close w. A level that the method does not have is status
// 64.
func (m Method) NewWriter(w io.Writer, o Options) (io.WriteCloser, error) {
	if o.Level != Default && m.most > 0 && (o.Level < m.least || o.Level > m.most) {
		return nil, fault.New(fault.Usage, "%s has no level %d: it is %d to %d", m.Name, o.Level, m.least, m.most)
	}
	return m.writer(w, o)
}

// NewReader returns a reader of what was compressed. Corrupt and truncated
// data are errors with status 65; an error of r is passed on unchanged.
func (m Method) NewReader(r io.Reader, o Options) decode.Reader { return m.reader(r, o) }

// Extensions returns the extensions of objects that may hold compressed data,
// in the order in which WAL-G tries them; the last, empty, is for none.
func Extensions() []string {
	return []string{".lz4", ".lzma", ".gz", ".lzo", ".br", ".zst", ""}
}

// plain is the method none.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

type plainReader struct{ io.Reader }

func (plainReader) Proven() bool { return false }
