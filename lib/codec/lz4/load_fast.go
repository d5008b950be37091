//go:build amd64 || arm64

package lz4

import "unsafe"

// load32 and load64 read little-endian numbers at b[i:] without a bounds check,
// which would halve the speed of the compressor. The caller answers for i.

func load32(b []byte, i int) uint32 {
	return *(*uint32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func load64(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}
