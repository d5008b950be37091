package zstd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"walg/lib/codec/zstd"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
	"walg/lib/fault"
)

const (
	memory    = 256 << 20
	block     = 128 << 10
	part      = 4 << 20 // of what we write
	skippable = "\x53\x2a\x4d\x18\x05\x00\x00\x00notes"
)

func format(level, threads int) decodetest.Format {
	return decodetest.Format{
		Encode:  func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, level, threads) },
		Decode:  func(r io.Reader) decode.Reader { return zstd.NewReader(r, threads, memory) },
		Checked: true,
		Block:   block,
	}
}

func TestFormat(t *testing.T) {
	decodetest.Run(t, format(zstd.Default, 1))
	decodetest.Run(t, format(zstd.Default, 4))
	decodetest.Run(t, format(zstd.Better, 2))
}

func FuzzReader(f *testing.F) { format(zstd.Default, 2).Fuzz(f) }

func read(packed string, threads int) (plain []byte, r decode.Reader, err error) {
	var b bytes.Buffer
	r = zstd.NewReader(strings.NewReader(packed), threads, memory)
	_, err = io.Copy(&b, r)
	return b.Bytes(), r, err
}

func stock(t testing.TB, plain []byte, args ...string) string {
	t.Helper()
	return string(decodetest.Tool(t, plain, append([]string{"zstd", "-q", "-c"}, args...)...))
}

func TestAReadOfNothingReturns(t *testing.T) {
	for _, threads := range []int{1, 2} {
		r := zstd.NewReader(strings.NewReader(stock(t, []byte("text"))), threads, memory)
		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("%d threads: %d, %v", threads, n, err)
		}
		if got, err := io.ReadAll(r); string(got) != "text" || err != nil {
			t.Errorf("%d threads: %q, %v", threads, got, err)
		}
	}
}

func TestTheStockProgramOpensOurs(t *testing.T) {
	for _, n := range []int{0, 1, block - 1, block, block + 1, part - 1, part, part + 1, 3*part + 1000, decodetest.Soak(0, 100<<20)} {
		plain := decodetest.Content(n)
		for _, level := range []int{zstd.Fastest, zstd.Default, zstd.Better, zstd.Best, 22} {
			if level > zstd.Default && n > block+1 && (n != part+1 || level == 22) {
				continue // slow, and the parts are cut in the same way
			}
			packed := format(level, 2).Packed(t, plain)
			if got := decodetest.Tool(t, packed, "zstd", "-q", "-d", "-c"); !bytes.Equal(got, plain) {
				t.Errorf("level %d: zstd -d makes %d bytes of %d", level, len(got), n)
			}
		}
	}
}

// WAL-G's reader, and every other one, must find what it finds in WAL-G's own.
func TestWeWriteOneFrameAsWALGDoes(t *testing.T) {
	for _, n := range []int{0, 1, 100_000, 2*part + 1} {
		for _, level := range []int{zstd.Fastest, zstd.Default, zstd.Better} {
			packed := format(level, 2).Packed(t, decodetest.Content(n))
			const header = "\x28\xb5\x2f\xfd" + // magic
				"\x04" + // a checksum; no size, no dictionary
				"\x68" // a window of 8 MiB
			if !bytes.HasPrefix(packed, []byte(header)) {
				t.Errorf("%d bytes, level %d: begins with % x", n, level, packed[:6])
			}
			name := filepath.Join(t.TempDir(), "ours.zst")
			if err := os.WriteFile(name, packed, 0o600); err != nil {
				t.Fatal(err)
			}
			list := string(decodetest.Tool(t, nil, "zstd", "-lv", name))
			for _, line := range []string{"# Zstandard Frames: 1\n", "Window Size: 8.00 MiB (8388608 B)\n", "Check: XXH64"} {
				if !strings.Contains(list, line) {
					t.Errorf("%d bytes, level %d: zstd -lv does not say %q but %s", n, level, line, list)
				}
			}
		}
	}
}

func TestHigherLevelsCompressBetter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var plain []byte
	for range 10_000 {
		plain = fmt.Appendf(plain, "INSERT INTO account VALUES (%d, 'customer %d', %d);\n", r.IntN(1e6), r.IntN(1000), r.IntN(100))
	}
	last := len(plain)
	for _, level := range []int{zstd.Default, zstd.Better, zstd.Best} {
		n := len(format(level, 1).Packed(t, plain))
		if n >= last {
			t.Errorf("level %d makes %d bytes, the one below %d", level, n, last)
		}
		last = n
	}
}

// A frame proves its end where it is the only one and has a checksum.
func TestWeOpenTheStockPrograms(t *testing.T) {
	small, large := decodetest.Content(200_000), decodetest.Content(2*part+300_000)
	one := stock(t, small)
	unchecked := stock(t, small, "--no-check")
	for _, c := range []struct {
		name   string
		packed string
		plain  []byte
		proven bool
	}{
		{"-1", stock(t, large, "-1"), large, true},
		{"-3", stock(t, large, "-3"), large, true},
		{"-3 -T2", stock(t, large, "-3", "-T2"), large, true},
		{"-9", stock(t, large, "-9"), large, true},
		{"-19", stock(t, small, "-19"), small, true},
		{"--ultra -22", stock(t, small, "--ultra", "-22"), small, true},
		{"--long=27", stock(t, large, "--long=27"), large, true},
		{"--fast=10", stock(t, large, "--fast=10"), large, true},
		{"with its size", stock(t, large, fmt.Sprintf("--stream-size=%d", len(large))), large, true},
		{"of one segment", stock(t, small, fmt.Sprintf("--stream-size=%d", len(small))), small, true},
		{"small blocks", stock(t, small, "--zstd=wlog=10"), small, true},
		{"of one value", stock(t, make([]byte, part)), make([]byte, part), true},
		{"empty", stock(t, nil), nil, true},
		{"--no-check", unchecked, small, false},
		{"two frames", one + stock(t, large), append(bytes.Clone(small), large...), false},
		{"two frames, the first empty", stock(t, nil) + one, small, false},
		{"a checked and an unchecked frame", one + unchecked, append(bytes.Clone(small), small...), false},
		{"an unchecked and a checked frame", unchecked + one, append(bytes.Clone(small), small...), false},
		{"skippable, frame", skippable + one, small, true},
		{"frame, skippable", one + skippable, small, true},
		{"skippable, skippable, frame, skippable", skippable + skippable + one + skippable, small, true},
		{"pzstd, one frame", string(decodetest.Tool(t, small, "pzstd", "-q", "-c", "-p", "2")), small, true},
		{"pzstd, frames", string(decodetest.Tool(t, large, "pzstd", "-q", "-c", "-p", "2", "-1")), large, false},
	} {
		for _, threads := range []int{1, 2} {
			got, r, err := read(c.packed, threads)
			if err != nil || !bytes.Equal(got, c.plain) {
				t.Errorf("%s, %d threads: %d bytes of %d, %v", c.name, threads, len(got), len(c.plain), err)
			}
			if r.Proven() != c.proven {
				t.Errorf("%s, %d threads: proven %v, want %v", c.name, threads, r.Proven(), c.proven)
			}
		}
	}
}

func TestWhatIsNotAWholeStreamIsCorrupt(t *testing.T) {
	small := decodetest.Content(40)
	good, unchecked := stock(t, small), stock(t, small, "--no-check")
	for name, packed := range map[string]string{
		"text":                         "plain text",
		"text after a frame":           good + "plain text",
		"two bytes after a frame":      good + "ab",
		"zeros after a frame":          good + string(make([]byte, 512)),
		"half a frame after a frame":   good + good[:len(good)/2],
		"skippable only":               skippable,
		"half a skippable":             good + skippable[:10],
		"a skippable that is too long": "\x50\x2a\x4d\x18\xff\xff\xff\xffxxx",
		"a reserved bit":               good[:4] + "\x0c" + good[5:],
		"a reserved block":             good[:6] + "\x07\x00\x00",
		"a block that is too long":     good[:6] + "\xfc\xff\xff" + string(make([]byte, 3<<20)),
		"another checksum":             good[:len(good)-1] + string(good[len(good)-1]^1),
		"without the checksum":         good[:len(good)-4],
		"unchecked, cut":               unchecked[:len(unchecked)-1],
		"a size that is not its":       "\x28\xb5\x2f\xfd\x20\x02\x09\x00\x00a",
		"a dictionary":                 "\x28\xb5\x2f\xfd\x21\x07\x01\x09\x00\x00a",
		"lz4":                          "\x04\x22\x4d\x18\x64\x70\xb9\x00\x00\x00\x00\x05\x5d\xcc\x02",
	} {
		for _, threads := range []int{1, 2} {
			if _, r, err := read(packed, threads); fault.Status(err) != fault.Data || r.Proven() {
				t.Errorf("%s, %d threads: status %d (%v), proven %v", name, threads, fault.Status(err), err, r.Proven())
			}
		}
	}
}

func TestEveryTruncationOfTheStockProgramsIsCorrupt(t *testing.T) {
	plain := decodetest.Content(40)
	for name, packed := range map[string]string{
		"checked":     stock(t, plain),
		"unchecked":   stock(t, plain, "--no-check"),
		"one segment": stock(t, plain, "--stream-size=40"),
		"skippable":   skippable + stock(t, plain),
	} {
		for n := range packed {
			if _, r, err := read(packed[:n], 1+n%2); fault.Status(err) != fault.Data || r.Proven() {
				t.Fatalf("%s cut to %d of %d bytes: status %d (%v), proven %v", name, n, len(packed), fault.Status(err), err, r.Proven())
			}
		}
	}
}

func TestAWindowThatIsTooLargeSaysWhatItTakes(t *testing.T) {
	plain := decodetest.Content(200_000)
	empty := "\x01\x00\x00"
	single := func(size uint64) string {
		return "\x28\xb5\x2f\xfd\xe0" + string(binary.LittleEndian.AppendUint64(nil, size)) + empty
	}
	for _, c := range []struct {
		name   string
		packed string
		memory int64
		hint   string // or empty where it fits
	}{
		{"8 MiB in the least", "\x28\xb5\x2f\xfd\x00\x68" + empty, 72 << 20, ""},
		{"8 MiB in a byte less", "\x28\xb5\x2f\xfd\x00\x68" + empty, 72<<20 - 1, "allow it with --memory 72M"},
		{"9 MiB", "\x28\xb5\x2f\xfd\x00\x69" + empty, 72 << 20, "allow it with --memory 73M"},
		{"--long=27", stock(t, plain, "--long=27"), memory, ""},
		{"--long=28", stock(t, plain, "--long=28"), memory, "allow it with --memory 320M"},
		{"after a frame that fits", stock(t, nil) + "\x28\xb5\x2f\xfd\x00\x90" + empty, memory, "allow it with --memory 320M"},
		{"the largest", "\x28\xb5\x2f\xfd\x00\xff" + empty, memory, "allow it with --memory 3932224M"},
		{"one segment of 300 MiB", single(300 << 20), memory, "allow it with --memory 364M"},
		{"one segment without bounds", single(1<<64 - 1), memory, "allow it with --memory"},
	} {
		r := zstd.NewReader(strings.NewReader(c.packed), 2, c.memory)
		_, err := io.Copy(io.Discard, r)
		switch {
		case c.hint == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.hint != "" && (fault.Status(err) != fault.Data || !strings.HasPrefix(fault.Hint(err), c.hint)):
			t.Errorf("%s: status %d (%v), hint %q; want the hint %q", c.name, fault.Status(err), err, fault.Hint(err), c.hint)
		}
	}
}

// Each frame may fit while together they do not: what the ones before took is
// given back.
func TestWindowsThatGrowDoNotAddUp(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as the programs have it
	var packed strings.Builder
	for w := byte(13 << 3); w <= 17<<3; w++ { // 8 to 128 MiB in steps of an eighth of a power
		packed.WriteString("\x28\xb5\x2f\xfd\x00" + string([]byte{w}) + "\x0b\x00\x00a") // a block of one byte
	}
	for _, threads := range []int{1, 2} {
		debug.FreeOSMemory()
		before := held()
		r := zstd.NewReader(strings.NewReader(packed.String()), threads, memory)
		for {
			n, err := r.Read(make([]byte, 10))
			if grown := held() - before; grown > 128<<20+decode.Overhead {
				t.Fatalf("%d threads: holds %d MiB", threads, grown>>20)
			}
			if err == io.EOF {
				break
			}
			if n != 1 || err != nil {
				t.Fatalf("%d threads: %d bytes, %v", threads, n, err)
			}
		}
	}
}

// held is the memory that the heap has from the system, bytes.
func held() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys - m.HeapReleased)
}
