package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/wal"
)

// Control is what walg needs of global/pg_control, the file that says what
// cluster a data directory is (src/include/catalog/pg_control.h).
type Control struct {
	SystemID       uint64
	Version        uint32 // pg_control_version: 1002 (PostgreSQL 10) to 1800 (18)
	CatalogVersion uint32
	State          State
	Redo           wal.LSN // where replay of the last checkpoint starts
	Timeline       uint32  // of the last checkpoint
	BlockSize      uint32  // of relation files
	SegmentBlocks  uint32  // blocks in one file of a relation
	WALSegmentSize uint64
	Checksums      bool   // data page checksums are on
	Raw            []byte // the whole file as it was read, which was not torn
}

// State is the DBState of a cluster.
type State uint32

// The states that matter here.
const (
	StateShutDown         State = 1 // shut down cleanly
	StateShutDownRecovery State = 2 // a standby, shut down cleanly
	StateProduction       State = 6
)

// A control struct has been 280 to 300 bytes long since version 10. The file
// is 8 KiB, filled up with zeros.
const (
	controlMin, controlMax = 200, 512
	controlFileSize        = 8192
	nonceSize              = 32 // the mock authentication nonce before the CRC
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// anchor is the constant 1234567.0 by which PostgreSQL recognises a foreign
// floating-point format. It lies just before the sizes that were compiled in.
var anchor = []byte{0, 0, 0, 0, 0x87, 0xD6, 0x32, 0x41}

var errControlTorn = errors.New("no valid checksum: torn, corrupt, or of a machine with another byte order")

// ParseControl reads the content of pg_control. It accepts any version whose
// checksum is right and whose sizes make sense.
func ParseControl(data []byte) (Control, error) {
	size := controlSize(data)
	if size == 0 {
		return Control{}, errControlTorn
	}
	le := binary.LittleEndian
	c := Control{
		SystemID:       le.Uint64(data),
		Version:        le.Uint32(data[8:]),
		CatalogVersion: le.Uint32(data[12:]),
		State:          State(le.Uint32(data[16:])),
		Raw:            data,
	}
	checkpoint := 40
	if c.Version < 1100 { // one more pointer, to the previous checkpoint
		checkpoint = 48
	}
	c.Redo, c.Timeline = wal.LSN(le.Uint64(data[checkpoint:])), le.Uint32(data[checkpoint+8:])

	// After the anchor: block size, blocks in a relation file, WAL block size,
	// WAL segment size, four more sizes, one or two bools padded to 4 bytes,
	// the version of data checksums.
	i := bytes.LastIndex(data[:size], anchor)
	end := size - nonceSize // the checksum version ends where the nonce starts,
	if c.Version >= 1800 {
		end -= 4 // or one bool earlier; its three bytes of padding are before the CRC
	}
	if i < 0 || i+48 != end {
		return Control{}, fmt.Errorf("unknown layout (pg_control version %d)", c.Version)
	}
	c.BlockSize, c.SegmentBlocks = le.Uint32(data[i+8:]), le.Uint32(data[i+12:])
	c.WALSegmentSize = uint64(le.Uint32(data[i+20:]))
	c.Checksums = le.Uint32(data[i+44:]) != 0
	if !wal.ValidSegmentSize(c.WALSegmentSize) || !validBlockSize(c.BlockSize) || c.SegmentBlocks == 0 {
		return Control{}, fmt.Errorf("senseless sizes: block %d, blocks in a file %d, WAL segment %d",
			c.BlockSize, c.SegmentBlocks, c.WALSegmentSize)
	}
	return c, nil
}

func validBlockSize(n uint32) bool { return n >= 1024 && n <= 32768 && n&(n-1) == 0 }

// controlSize finds the end of the struct, where the CRC-32C of all before
// lies, or 0. The length depends on the version, and a torn read has none.
func controlSize(data []byte) int {
	for n := controlMin; n <= controlMax && n+4 <= len(data); n += 4 {
		if crc32.Checksum(data[:n], castagnoli) == binary.LittleEndian.Uint32(data[n:]) {
			return n
		}
	}
	return 0
}

// A live server rewrites pg_control in place, in one write of a few
// microseconds; a read that falls into it is torn and tried again.
const (
	controlTries = 20
	controlPause = 10 * time.Millisecond
)

// ReadControl reads global/pg_control of a data directory, live or not. A
// directory without one, or with one that stays unreadable, is not a cluster
// that can be backed up.
func ReadControl(ctx context.Context, dir string) (Control, error) {
	path := filepath.Join(dir, "global", "pg_control")
	return readControl(ctx, path, func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, controlFileSize))
	})
}

func readControl(ctx context.Context, path string, read func() ([]byte, error)) (Control, error) {
	var last error
	for try := range controlTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return Control{}, fmt.Errorf("read %s: %w", path, ctx.Err())
			case <-time.After(controlPause):
			}
		}
		data, err := read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return Control{}, fault.WithHint(fault.New(fault.Usage, "read %s: %v", path, fs.ErrNotExist), "is this a PostgreSQL data directory?")
		case errors.Is(err, fs.ErrPermission):
			return Control{}, fault.WithHint(fault.New(fault.Usage, "read %s: %v", path, fs.ErrPermission), "run as the server's user, or as root")
		case err != nil:
			return Control{}, fmt.Errorf("read %s: %w", path, err)
		}
		c, err := ParseControl(data)
		if err == nil {
			return c, nil
		}
		last = err
	}
	return Control{}, fault.New(fault.Data, "read %s: %w", path, last)
}

// ReadMajor reads PG_VERSION of a data directory: 15 for PostgreSQL 15.
func ReadMajor(dir string) (int, error) {
	path := filepath.Join(dir, "PG_VERSION")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || major < 10 || major > 99 {
		return 0, fault.New(fault.Usage, "read %s: %.20q is not a supported version (10 or later)", path, data)
	}
	return major, nil
}
