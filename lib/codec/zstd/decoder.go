package zstd

import (
	"runtime/debug"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// A decoder with a window up to this is kept for the next reader, because
	// to make one costs more than to read a small stream.
	keptWindow = 8 << 20

	// What the windows of decoders gone by may hold before it is given back:
	// windows that grow from frame to frame would add up.
	maxGarbage = 32 << 20
)

// decoder is one of the library's that takes windows up to a size.
type decoder struct {
	*zstd.Decoder
	window int64 // bytes
	ahead  int   // blocks
}

// idle are decoders that no reader uses.
var idle sync.Pool

// prepare makes z a decoder with room for a window.
func (r *reader) prepare(window int64) error {
	if err := r.src.Fits(window, r.memory); err != nil {
		return err
	}
	if r.z == nil {
		r.z, _ = idle.Get().(*decoder)
	}
	if r.z != nil && r.z.window >= window && r.z.ahead == r.ahead {
		return nil
	}
	if r.z != nil {
		r.garbage += r.z.window
		r.z = nil
	}
	if r.garbage > maxGarbage {
		debug.FreeOSMemory()
		r.garbage = 0
	}
	z, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(r.ahead),
		zstd.WithDecoderLowmem(false), // with true it makes more garbage than it saves
		zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		return r.src.Fault(err)
	}
	r.z = &decoder{z, window, r.ahead}
	return nil
}

// release gives the decoder up.
func (r *reader) release() {
	if r.z != nil && r.z.window <= keptWindow && r.z.Reset(nil) == nil {
		idle.Put(r.z)
	}
	r.z = nil
}
