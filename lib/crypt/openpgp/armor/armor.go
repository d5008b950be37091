// Package armor reads the ASCII armor of OpenPGP (RFC 9580 section 6.2). It
// believes an end only at the END line, and a checksum that is there must
// match.
package armor

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"

	"walg/lib/decode"
)

// Begin begins every armored block.
const Begin = "-----BEGIN PGP "

const (
	end  = "-----END PGP "
	tail = "-----"

	maxKind      = 40
	checksumLine = 5 // "=" and the checksum in base64
)

var strict = base64.StdEncoding.Strict()

// Reader reads one block after another. Its errors are final: status 65 for
// the text's fault, and errors of the input as they were.
type Reader struct {
	in     *decode.Input
	line   []byte // read and not yet used; nil for none
	ended  bool   // the line that was read last had no end
	kind   string
	text   []byte // base64 that is no whole group yet
	buf    []byte // of rest
	rest   []byte // decoded, not yet read
	padded bool   // the base64 has ended
	sum    crc24
	err    error
}

// NewReader returns a reader of the blocks in a text.
func NewReader(in *decode.Input) *Reader { return &Reader{in: in, err: io.EOF} }

// next returns the next line without space at its end.
func (r *Reader) next() ([]byte, error) {
	if line := r.line; line != nil {
		r.line = nil
		return line, nil
	}
	line, err := r.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, r.in.Corrupt("armor: a line of more than %d bytes", len(line))
	case err == io.EOF && len(line) == 0:
		return nil, io.EOF
	case err != nil && err != io.EOF:
		return nil, r.in.Fault(err)
	}
	r.ended = err == io.EOF
	return bytes.TrimRight(line, " \t\r\n"), nil
}

// Next finds the next block and returns what it holds, such as "MESSAGE". Text
// before it is passed over. io.EOF says that there is none.
func (r *Reader) Next() (kind string, err error) {
	for {
		line, err := r.next()
		if err != nil {
			return "", err
		}
		if kind, ok := between(line, Begin); ok {
			*r = Reader{in: r.in, kind: kind, sum: crcStart, buf: r.buf}
			return kind, r.headers()
		}
	}
}

// Message is for a text that must be one block and nothing else.
func (r *Reader) Message() (kind string, err error) {
	head, err := r.in.Peek(len(Begin))
	if string(head) != Begin {
		if err == nil || err == io.EOF {
			err = r.in.Corrupt("armor: no BEGIN line")
		}
		return "", err
	}
	kind, err = r.Next()
	if err == io.EOF {
		err = r.in.Corrupt("armor: no BEGIN line")
	}
	return kind, err
}

// between returns the words between begin and the dashes: capital letters.
func between(line []byte, begin string) (string, bool) {
	words, ok := bytes.CutPrefix(line, []byte(begin))
	if ok {
		words, ok = bytes.CutSuffix(words, []byte(tail))
	}
	other := func(c rune) bool { return c != ' ' && (c < 'A' || c > 'Z') }
	return string(words), ok && len(words) <= maxKind && !bytes.ContainsFunc(words, other)
}

// headers passes over the headers and the empty line after them. Where that was
// lost, as in a variable, what has no colon is no header.
func (r *Reader) headers() error {
	for {
		line, err := r.next()
		if err == io.EOF {
			return r.in.Corrupt("truncated")
		}
		if err != nil || len(line) == 0 {
			return err
		}
		if bytes.IndexByte(line, ':') < 0 {
			r.line = line
			return nil
		}
	}
}

// Read returns the bytes of the block; io.EOF comes at its END line.
func (r *Reader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.err != nil {
				break
			}
			r.err = r.decode()
		}
		k := copy(p[n:], r.rest)
		r.rest = r.rest[k:]
		n += k
	}
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

// decode decodes a line.
func (r *Reader) decode() error {
	line, err := r.next()
	switch {
	case err == io.EOF:
		return r.in.Corrupt("truncated")
	case err != nil:
		return err
	case bytes.HasPrefix(line, []byte(end)):
		return r.finish(line)
	case len(line) == checksumLine && line[0] == '=' && len(r.text) == 0:
		return r.checksum(line[1:])
	case r.padded && len(line) > 0:
		return r.in.Corrupt("armor: more base64 after its end")
	}
	r.text = append(r.text, line...)
	whole := len(r.text) / 4 * 4
	if n := strict.DecodedLen(whole); cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	n, err := strict.Decode(r.buf[:cap(r.buf)], r.text[:whole])
	if err != nil {
		return r.in.Corrupt("armor: %w", err)
	}
	r.padded = n < whole/4*3
	r.text = append(r.text[:0], r.text[whole:]...)
	r.rest = r.buf[:n]
	r.sum.write(r.rest)
	return nil
}

// checksum compares the checksum, and finishes.
func (r *Reader) checksum(text []byte) error {
	var sum [3]byte
	if _, err := strict.Decode(sum[:], text); err != nil {
		return r.in.Corrupt("armor: checksum: %w", err)
	}
	if got := crc24(sum[0])<<16 | crc24(sum[1])<<8 | crc24(sum[2]); got != r.sum {
		return r.in.Corrupt("armor: the checksum does not match")
	}
	line, err := r.next()
	if err == io.EOF {
		return r.in.Corrupt("truncated")
	}
	if err != nil {
		return err
	}
	return r.finish(line)
}

func (r *Reader) finish(line []byte) error {
	kind, ok := between(line, end)
	switch {
	case len(r.text) > 0:
		return r.in.Corrupt("armor: incomplete base64")
	case !ok && r.ended:
		return r.in.Corrupt("truncated")
	case !ok || kind != r.kind:
		return r.in.Corrupt("armor: %q where -----END PGP %s----- was expected", line[:min(len(line), 80)], r.kind)
	}
	return io.EOF
}

// Rest fails where anything but blank lines follows the block, or where the
// END line itself was cut.
func (r *Reader) Rest() error {
	if r.ended {
		return r.in.Corrupt("truncated")
	}
	for {
		line, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(line) > 0 {
			return r.in.Corrupt("something else after the message")
		}
	}
}

// crc24 is the checksum of armor (RFC 9580 section 6.1).
type crc24 uint32

const (
	crcStart = 0xb704ce
	crcPoly  = 0x864cfb
)

var crcTable = func() (table [256]crc24) {
	for i := range table {
		c := crc24(i) << 16
		for range 8 {
			c <<= 1
			if c&(1<<24) != 0 {
				c ^= 1<<24 | crcPoly
			}
		}
		table[i] = c
	}
	return table
}()

func (c *crc24) write(p []byte) {
	sum := *c
	for _, b := range p {
		sum = sum<<8&0xffff00 ^ crcTable[byte(sum>>16)^b]
	}
	*c = sum
}
