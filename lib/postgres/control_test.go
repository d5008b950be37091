package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"walg/lib/fault"
	"walg/lib/postgres/pgtest"
	"walg/lib/wal"
)

// goldenControls is what the servers said of testdata/pg_control.N, the
// beginnings of real files of each version, all with checksums on.
var goldenControls = map[int]Control{
	10: {SystemID: 7711063285169269279, Version: 1002, CatalogVersion: 201707211, Redo: 0x1836670},
	11: {SystemID: 7711063288443296310, Version: 1100, CatalogVersion: 201809051, Redo: 0x1866dd8},
	12: {SystemID: 7711063291713489485, Version: 1201, CatalogVersion: 201909212, Redo: 0x1867b30},
	13: {SystemID: 7711063294962014924, Version: 1300, CatalogVersion: 202007201, Redo: 0x1813ef8},
	14: {SystemID: 7711063297727621883, Version: 1300, CatalogVersion: 202107181, Redo: 0x1943240},
	15: {SystemID: 7711063300895488786, Version: 1300, CatalogVersion: 202209061, Redo: 0x1741580},
	16: {SystemID: 7711063303773813545, Version: 1300, CatalogVersion: 202307071, Redo: 0x1721050},
	17: {SystemID: 7711063306375162705, Version: 1700, CatalogVersion: 202406281, Redo: 0x1721950},
	18: {SystemID: 7711063310037535816, Version: 1800, CatalogVersion: 202506291, Redo: 0x174b300},
}

func goldenControl(t testing.TB, major int) []byte {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("testdata/pg_control.%d", major))
	if err != nil {
		t.Fatal(err)
	}
	return append(data, make([]byte, controlFileSize-len(data))...)
}

func TestGoldenControls(t *testing.T) {
	for major, want := range goldenControls {
		got, err := ParseControl(goldenControl(t, major))
		if err != nil {
			t.Errorf("%d: %v", major, err)
			continue
		}
		want.State, want.Timeline, want.Checksums = StateShutDown, 1, true
		want.BlockSize, want.SegmentBlocks, want.WALSegmentSize = DefaultBlockSize, DefaultSegmentBlocks, 16<<20
		want.Raw = got.Raw
		if !reflect.DeepEqual(got, want) || len(got.Raw) != controlFileSize {
			got.Raw, want.Raw = nil, nil
			t.Errorf("%d: read %+v, want %+v", major, got, want)
		}
	}
}

func TestControlOfStoppedClustersOfEveryVersion(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		for _, checksums := range []bool{false, true} {
			c := pgtest.New(t, pgtest.Options{Major: major, Checksums: checksums})
			want := c.SQL("postgres", "select system_identifier, pg_control_version, catalog_version_no from pg_control_system()")
			c.Stop("fast")
			got, err := ReadControl(t.Context(), c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprintf("%d|%d|%d", got.SystemID, got.Version, got.CatalogVersion); text != want {
				t.Errorf("read %s, the server says %s", text, want)
			}
			if got.State != StateShutDown || got.Checksums != checksums || got.BlockSize != DefaultBlockSize ||
				got.SegmentBlocks != DefaultSegmentBlocks || got.WALSegmentSize != 16<<20 || got.Timeline != 1 || got.Redo == 0 {
				t.Errorf("read %+v", struct {
					State
					Checksums               bool
					Block, Blocks, Timeline uint32
					Segment                 uint64
				}{got.State, got.Checksums, got.BlockSize, got.SegmentBlocks, got.Timeline, got.WALSegmentSize})
			}
		}
	})
}

func TestControlAgreesWithPgControldata(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Checksums: true, InitArgs: []string{"--wal-segsize=4"}, Stopped: true})
	out, err := exec.Command(filepath.Join(c.BinDir, "pg_controldata"), "-D", c.DataDir).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadControl(t.Context(), c.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Database system identifier":           strconv.FormatUint(got.SystemID, 10),
		"pg_control version number":            fmt.Sprint(got.Version),
		"Catalog version number":               fmt.Sprint(got.CatalogVersion),
		"Latest checkpoint's REDO location":    got.Redo.String(),
		"Latest checkpoint's TimeLineID":       fmt.Sprint(got.Timeline),
		"Database block size":                  fmt.Sprint(got.BlockSize),
		"Blocks per segment of large relation": fmt.Sprint(got.SegmentBlocks),
		"Bytes per WAL segment":                fmt.Sprint(got.WALSegmentSize),
		"Data page checksum version":           "1",
	} {
		if !regexp.MustCompile(`(?m)^` + name + `: +` + regexp.QuoteMeta(value) + `$`).Match(out) {
			t.Errorf("%s is read as %s:\n%s", name, value, out)
		}
	}
}

func TestTornControlIsReadAgain(t *testing.T) {
	whole := goldenControl(t, 15)
	torn := append([]byte(nil), whole...)
	torn[40]++
	reads := 0
	c, err := readControl(t.Context(), "pg_control", func() ([]byte, error) {
		if reads++; reads < controlTries {
			return torn, nil
		}
		return whole, nil
	})
	if err != nil || c.SystemID == 0 || reads != controlTries {
		t.Errorf("%v after %d reads", err, reads)
	}
	_, err = readControl(t.Context(), "pg_control", func() ([]byte, error) { return torn, nil })
	if fault.Status(err) != fault.Data || !errors.Is(err, errControlTorn) {
		t.Errorf("corrupt: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = readControl(ctx, "pg_control", func() ([]byte, error) { return torn, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestControlOfALiveServerIsNeverTorn(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			if _, err := c.TrySQL("postgres", "create table if not exists t (a int); checkpoint"); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for reads := 0; ; reads++ {
		if _, err := ReadControl(t.Context(), c.DataDir); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestEveryFlippedBitOfControlIsNoticed(t *testing.T) {
	whole := goldenControl(t, 15)
	n := controlSize(whole)
	for i := range (n + 4) * 8 {
		bad := append([]byte(nil), whole...)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := ParseControl(bad); err == nil {
			t.Fatalf("bit %d may be wrong", i)
		}
	}
	for i := range n + 4 {
		if _, err := ParseControl(whole[:i]); err == nil {
			t.Fatalf("%d bytes are enough", i)
		}
	}
}

func TestControlThatIsWholeButSenselessIsRefused(t *testing.T) {
	// seal gives data a right checksum again.
	seal := func(data []byte) []byte {
		n := controlSize(goldenControl(t, 15))
		binary.LittleEndian.PutUint32(data[n:], crc32.Checksum(data[:n], castagnoli))
		return data
	}
	base := goldenControl(t, 15)
	anchorAt := strings.Index(string(base), string(anchor))
	for name, at := range map[string]int{"anchor": anchorAt + 4, "block size": anchorAt + 8, "segment size": anchorAt + 20} {
		data := append([]byte(nil), base...)
		data[at] ^= 3
		if _, err := ParseControl(seal(data)); err == nil || errors.Is(err, errControlTorn) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseControl(make([]byte, controlFileSize)); err == nil {
		t.Error("zeros are taken")
	}
}

func TestDirectoryWithoutControlIsUsage(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadControl(t.Context(), dir)
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), dir) || fault.Hint(err) == "" {
		t.Errorf("%v", err)
	}
	if runtime.GOOS != "windows" && os.Getuid() != 0 {
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
		_, err := ReadControl(t.Context(), dir)
		if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), fs.ErrPermission.Error()) {
			t.Errorf("%v", err)
		}
		os.Chmod(dir, 0o700)
	}
}

func TestUnknownMajorIsRefused(t *testing.T) {
	for text, want := range map[string]int{"15\n": 15, "10": 10, "18\n": 18, "9.6\n": 0, "": 0, "x": 0, "-1": 0, "15.1": 0} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadMajor(dir); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q became %d, %v", text, got, err)
		}
	}
	if _, err := ReadMajor(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzControl(f *testing.F) {
	for _, major := range []int{10, 15, 18} {
		data := goldenControl(f, major)
		f.Add(data[:controlMax], uint16(controlSize(data)))
	}
	f.Fuzz(func(t *testing.T, data []byte, end uint16) {
		ParseControl(data)
		// A right checksum must not lead the parser out of its bounds.
		n := int(end)
		if n < controlMin || n > controlMax || n%4 != 0 || n+4 > len(data) {
			return
		}
		data = bytes.Clone(data)
		binary.LittleEndian.PutUint32(data[n:], crc32.Checksum(data[:n], castagnoli))
		c, err := ParseControl(data)
		if err == nil && (!wal.ValidSegmentSize(c.WALSegmentSize) || !validBlockSize(c.BlockSize) || c.SegmentBlocks == 0) {
			t.Errorf("read %+v", c)
		}
	})
}
