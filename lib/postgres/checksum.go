package postgres

import (
	"bytes"
	"encoding/binary"

	"walg/lib/wal"
)

// The checksum of a page is 32 interleaved 32-bit hashes, each over every 32nd
// word, folded together (src/include/storage/checksum_impl.h).
const (
	lanes = 32
	prime = 16777619 // of FNV-1
)

// Each lane starts elsewhere, or equal words in different columns would cancel.
var laneStart = [lanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

func mix(sum, word uint32) uint32 {
	sum ^= word
	return sum*prime ^ sum>>17
}

// Checksum computes the checksum of a page with a block number counted from
// the start of the relation, as if the page's own checksum field were zero.
// The page's length is a multiple of 128. The result is never zero.
func Checksum(page []byte, block uint32) uint16 {
	start := laneStart
	start[2] ^= uint32(pageChecksum(page)) // takes the field out of the third word again
	var fold uint32
	// Eight lanes at a time stay in registers, and eight multiplications are
	// under way at once; the page stays in the first-level cache.
	for group := 0; group < lanes; group += 8 {
		s := start[group : group+8 : group+8]
		s0, s1, s2, s3, s4, s5, s6, s7 := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
		for rest := page[4*group:]; len(rest) >= 32; rest = rest[min(4*lanes, len(rest)):] {
			row := (*[32]byte)(rest)
			a, b := binary.LittleEndian.Uint64(row[0:]), binary.LittleEndian.Uint64(row[8:])
			c, d := binary.LittleEndian.Uint64(row[16:]), binary.LittleEndian.Uint64(row[24:])
			s0, s1 = mix(s0, uint32(a)), mix(s1, uint32(a>>32))
			s2, s3 = mix(s2, uint32(b)), mix(s3, uint32(b>>32))
			s4, s5 = mix(s4, uint32(c)), mix(s5, uint32(c>>32))
			s6, s7 = mix(s6, uint32(d)), mix(s7, uint32(d>>32))
		}
		for _, sum := range [8]uint32{s0, s1, s2, s3, s4, s5, s6, s7} {
			fold ^= mix(mix(sum, 0), 0)
		}
	}
	return uint16((fold^block)%65535 + 1)
}

// The header of a page: LSN in two halves at 0, checksum at 8, flags at 10,
// lower at 12, upper at 14 (src/include/storage/bufpage.h).
func pageChecksum(page []byte) uint16 { return binary.LittleEndian.Uint16(page[8:]) }

func pageLSN(page []byte) wal.LSN {
	return wal.LSN(binary.LittleEndian.Uint32(page))<<32 | wal.LSN(binary.LittleEndian.Uint32(page[4:]))
}

var zeros [32768]byte

// validPage says whether a page is one that a server would read: its checksum
// is right, or it is new and all zero. Otherwise it returns the checksum that
// was expected.
func validPage(page []byte, block uint32) (expected uint16, ok bool) {
	if page[14]|page[15] == 0 && bytes.Equal(page, zeros[:len(page)]) {
		return 0, true
	}
	expected = Checksum(page, block)
	return expected, expected == pageChecksum(page)
}
