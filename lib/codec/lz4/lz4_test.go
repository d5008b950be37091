package lz4_test

import (
	"io"
	"testing"

	"walg/lib/codec/lz4"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
)

func format(level, threads int) decodetest.Format {
	return decodetest.Format{
		Encode:  func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w, level, threads), nil },
		Decode:  func(r io.Reader) decode.Reader { return lz4.NewReader(r, threads) },
		Checked: true,
		Block:   1 << 20,
	}
}

func TestFormat(t *testing.T) {
	decodetest.Run(t, format(1, 1))
	decodetest.Run(t, format(1, 4))
	decodetest.Run(t, format(9, 2))
}

func FuzzReader(f *testing.F) { format(1, 2).Fuzz(f) }
