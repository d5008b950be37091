package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

// names are those of one directory. It may have a million, so they are packed
// into chunks, without a header for each of them.
type names struct {
	chunks [][]byte
	where  []uint32 // chunk, and offset in it, 16 bits each
}

const (
	chunkBits = 16
	maxName   = 1 << 10 // bytes; systems have 255
)

var errTooMany = errors.New("the names in this directory take up more than 4 GiB, or one of them more than 1 KiB")

func (n *names) add(name string) error {
	last := len(n.chunks) - 1
	if last < 0 || len(n.chunks[last])+2+len(name) > cap(n.chunks[last]) {
		n.chunks = append(n.chunks, make([]byte, 0, 1<<chunkBits))
		last++
	}
	if last >= 1<<(32-chunkBits) || len(name) > maxName {
		return errTooMany
	}
	n.where = append(n.where, uint32(last<<chunkBits|len(n.chunks[last])))
	c := binary.LittleEndian.AppendUint16(n.chunks[last], uint16(len(name)))
	n.chunks[last] = append(c, name...)
	return nil
}

func (n *names) at(where uint32) []byte {
	c := n.chunks[where>>chunkBits][where&(1<<chunkBits-1):]
	return c[2 : 2+binary.LittleEndian.Uint16(c)]
}

func (n *names) sort() {
	slices.SortFunc(n.where, func(a, b uint32) int { return bytes.Compare(n.at(a), n.at(b)) })
}
