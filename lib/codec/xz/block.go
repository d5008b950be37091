package xz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"slices"
)

const (
	flagFilters      = 0x03 // their number, less one
	flagCompressed   = 0x40 // its size follows
	flagUncompressed = 0x80
	filterLZMA2      = 0x21
	largest          = 40 // code of a dictionary, for 4 GiB - 1
)

// check is a kind of checksum of blocks.
type check struct {
	size int
	new  func() hash.Hash
	turn bool // Go's order of bytes is not that of the format
}

// checks are those that xz writes, by number.
var checks = map[byte]check{
	0x0: {},
	0x1: {4, func() hash.Hash { return crc32.NewIEEE() }, true},
	0x4: {8, func() hash.Hash { return crc64.New(crc64.MakeTable(crc64.ECMA)) }, true},
	0xa: {sha256.Size, sha256.New, false},
}

// block is one block: what its header says, and how far we are.
type block struct {
	header       int64 // bytes
	compressed   int64 // as the header says, or unknown
	uncompressed int64
	dictionary   int64
	hash         hash.Hash // or nil
	decoded      int64     // bytes
}

const unknown = -1

// open reads the header of a block, which begins with its size.
func (x *reader) open(size byte) error {
	head, err := x.src.Peek((int(size) + 1) * align)
	if err != nil {
		return x.src.Fault(err)
	}
	fields := head[:len(head)-crc32.Size]
	if crc32.ChecksumIEEE(fields) != binary.LittleEndian.Uint32(head[len(fields):]) {
		return x.src.Corrupt("the header of a block is damaged")
	}
	b, err := x.parse(fields[1:])
	if err != nil {
		return err
	}
	b.header = int64(len(head))
	window := b.dictionary
	if b.uncompressed != unknown {
		window = min(window, b.uncompressed)
	}
	if err := x.src.Fits(window, x.memory); err != nil {
		return err
	}
	if x.check.size > 0 {
		b.hash = x.check.new()
	}
	x.chunks.begin(int(window))
	x.block = b
	_, err = x.src.Discard(len(head))
	return x.src.Fault(err)
}

// parse reads the fields of a block's header.
func (x *reader) parse(fields []byte) (*block, error) {
	wrong := x.src.Corrupt("the header of a block makes no sense")
	b := &block{compressed: unknown, uncompressed: unknown}
	flags, rest := fields[0], bytes.NewReader(fields[1:])
	if flags&^(flagFilters|flagCompressed|flagUncompressed) != 0 {
		return nil, x.unread("a block with flags %x", flags)
	}
	var err error
	if flags&flagCompressed != 0 {
		if b.compressed, err = number(rest); err != nil || b.compressed == 0 {
			return nil, wrong
		}
	}
	if flags&flagUncompressed != 0 {
		if b.uncompressed, err = number(rest); err != nil {
			return nil, wrong
		}
	}
	filter, err := number(rest)
	if err != nil {
		return nil, wrong
	}
	if filter != filterLZMA2 || flags&flagFilters != 0 {
		return nil, x.unread("a block with %d filters, first %#x", 1+flags&flagFilters, filter)
	}
	if size, err := number(rest); err != nil || size != 1 {
		return nil, wrong
	}
	code, err := rest.ReadByte()
	if err != nil || code > largest {
		return nil, wrong
	}
	b.dictionary = int64(2|code&1) << (code/2 + 11)
	if code == largest {
		b.dictionary = 1<<32 - 1
	}
	for rest.Len() > 0 {
		if zero, _ := rest.ReadByte(); zero != 0 {
			return nil, x.unread("a block with unknown fields")
		}
	}
	return b, nil
}

// content decodes a step of a block. After the last it compares the sizes and
// the checksum, and notes the block for the index.
func (x *reader) content() ([]byte, error) {
	b := x.block
	out, err := x.chunks.next()
	if err == nil {
		b.decoded += int64(len(out))
		if b.hash != nil {
			b.hash.Write(out)
		}
		if b.uncompressed != unknown && b.decoded > b.uncompressed {
			return nil, x.src.Corrupt("a block is longer than its header says")
		}
		return out, nil
	}
	if err != io.EOF {
		return nil, err
	}
	taken := x.chunks.taken
	if b.compressed != unknown && taken != b.compressed || b.uncompressed != unknown && b.decoded != b.uncompressed {
		return nil, x.src.Corrupt("a block has not the size that its header says")
	}
	padding := int(-taken & (align - 1))
	tail, err := x.src.Peek(padding + x.check.size)
	if err != nil {
		return nil, x.src.Fault(err)
	}
	sum := make([]byte, padding, padding+sha256.Size)
	if b.hash != nil {
		sum = b.hash.Sum(sum)
		if x.check.turn {
			slices.Reverse(sum[padding:])
		}
	}
	if !bytes.Equal(sum, tail) {
		return nil, x.src.Corrupt("wrong checksum of a block")
	}
	x.index.add(b.header+taken+int64(x.check.size), b.decoded)
	x.block = nil
	_, err = x.src.Discard(len(tail))
	return nil, x.src.Fault(err)
}
