package xz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"

	"walg/lib/decode"
)

const (
	indexIndicator = 0 // where a block has its size
	numberSize     = 9 // bytes of the longest number, 63 bits
)

// records is a list of the sizes of blocks, of which only a digest is kept.
type records struct {
	count  int64
	digest hash.Hash
}

func newRecords() records { return records{digest: sha256.New()} }

func (r *records) add(size, decoded int64) {
	r.count++
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(size))
	binary.LittleEndian.PutUint64(b[8:], uint64(decoded))
	r.digest.Write(b[:])
}

// index compares the list at the end of a stream with the blocks that came.
type index struct {
	records
	size int64 // bytes of the list, once it is read
}

func newIndex() *index { return &index{records: newRecords()} }

// read reads the list.
func (x *index) read(src *decode.Input) error {
	t := &tally{src: src}
	wrong := func(err error) error {
		if err == errNumber {
			err = errIndex
		}
		return src.Fault(err)
	}
	if _, err := t.ReadByte(); err != nil {
		return wrong(err)
	}
	count, err := number(t)
	if err != nil {
		return wrong(err)
	}
	if count != x.count {
		return wrong(errIndex)
	}
	listed := newRecords()
	for range count {
		size, err := number(t)
		if err != nil {
			return wrong(err)
		}
		decoded, err := number(t)
		if err != nil {
			return wrong(err)
		}
		listed.add(size, decoded)
	}
	for t.n%align != 0 {
		zero, err := t.ReadByte()
		if err != nil {
			return wrong(err)
		}
		if zero != 0 {
			return wrong(errIndex)
		}
	}
	sum, err := src.Peek(crc32.Size)
	if err != nil {
		return wrong(err)
	}
	if binary.LittleEndian.Uint32(sum) != t.sum || !bytes.Equal(listed.digest.Sum(nil), x.digest.Sum(nil)) {
		return wrong(errIndex)
	}
	x.size = t.n + crc32.Size
	_, err = src.Discard(crc32.Size)
	return wrong(err)
}

// tally reads bytes and counts them, with their checksum.
type tally struct {
	src *decode.Input
	n   int64
	sum uint32
}

func (t *tally) ReadByte() (byte, error) {
	b, err := t.src.ReadByte()
	if err == nil {
		t.n++
		t.sum = crc32.Update(t.sum, crc32.IEEETable, []byte{b})
	}
	return b, err
}

var (
	errNumber = errors.New("no number")
	errIndex  = errors.New("the index is not that of the blocks")
)

// number reads a number, seven bits a byte, the lowest first.
func number(r io.ByteReader) (int64, error) {
	var n int64
	for i := range numberSize {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			if b == 0 && i > 0 {
				break // written longer than it is
			}
			return n, nil
		}
	}
	return 0, errNumber
}
