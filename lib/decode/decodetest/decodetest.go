// Package decodetest is the suite that each format passes, compressed or
// encrypted: what its reader promises about good, cut and damaged streams.
package decodetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/decode"
	"walg/lib/fault"
)

// Format is one format under test.
type Format struct {
	Encode func(w io.Writer) (io.WriteCloser, error)
	Decode func(r io.Reader) decode.Reader
	// Checked says that the format has a checksum: damage never passes, and a
	// good stream is proven.
	Checked bool
	// Block is the step of the format; contents are cut around it.
	Block int
}

// Run runs the suite.
func Run(t *testing.T, f Format) {
	t.Run("what was encoded comes back", f.comesBack)
	t.Run("the reader takes any pieces", f.takesPieces)
	t.Run("every truncation is status 65", f.truncated)
	t.Run("a bit flip is status 65 or changes nothing", f.flipped)
	t.Run("what follows the end is status 65", f.followed)
	t.Run("errors of the input pass unchanged", f.inputFails)
	t.Run("errors of the target pass unchanged", f.targetFails)
}

// Content is n bytes, half of them compressible. The same n gives the same.
func Content(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	p := make([]byte, 0, n+512)
	for len(p) < n {
		var chunk [512]byte
		if r.IntN(2) == 0 {
			for i := range chunk {
				chunk[i] = byte(r.Uint32())
			}
		} else {
			copy(chunk[:], strings.Repeat(fmt.Sprintf("row %d of the table;", r.IntN(100)), 32))
		}
		p = append(p, chunk[:]...)
	}
	return p[:n]
}

// Rand is a source of random numbers that starts from WALG_SEED, which it
// prints, or from a new seed.
func Rand(t testing.TB) *rand.Rand {
	seed, err := strconv.ParseUint(os.Getenv("WALG_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64() >> 32
	}
	t.Logf("seed: WALG_SEED=%d repeats this", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Soak is the full count of a random test under WALG_SOAK, else the sample.
func Soak(sample, full int) int {
	if os.Getenv("WALG_SOAK") != "" {
		return full
	}
	return sample
}

// Tool runs a stock program on input and returns its output.
func Tool(t testing.TB, input []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, &msg)
	}
	return out.Bytes()
}

// Packed is plain, encoded.
func (f Format) Packed(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := f.Encode(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(plain)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ways are how a reader can be read.
var ways = []func(w io.Writer, r io.Reader) (int64, error){
	io.Copy, // by WriteTo, where there is one
	func(w io.Writer, r io.Reader) (int64, error) {
		return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{r})
	},
	func(w io.Writer, r io.Reader) (int64, error) {
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 997))
	},
}

// unpack decodes in one of the ways. It fails where an error does not stay, or
// where something is proven in spite of one.
func (f Format) unpack(t testing.TB, way int, packed io.Reader) (plain []byte, proven bool, err error) {
	t.Helper()
	r := f.Decode(packed)
	var b bytes.Buffer
	if _, err = ways[way%len(ways)](&b, r); err != nil {
		if _, again := r.Read(make([]byte, 1)); again == nil || again == io.EOF {
			t.Errorf("after %v a read returns %v", err, again)
		}
		if r.Proven() {
			t.Errorf("proven with %v", err)
		}
	}
	return b.Bytes(), r.Proven(), err
}

func (f Format) comesBack(t *testing.T) {
	for _, n := range []int{0, 1, 100, f.Block - 1, f.Block, f.Block + 1, 3*f.Block + 7} {
		plain := Content(n)
		packed := f.Packed(t, plain)
		for way := range ways {
			got, proven, err := f.unpack(t, way, bytes.NewReader(packed))
			if err != nil || !bytes.Equal(got, plain) || proven != f.Checked {
				t.Errorf("%d bytes, way %d: equal %v, proven %v, %v", n, way, bytes.Equal(got, plain), proven, err)
			}
		}
	}
}

func (f Format) takesPieces(t *testing.T) {
	plain := Content(50_000)
	packed := f.Packed(t, plain)
	for name, piece := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with error": iotest.DataErrReader,
	} {
		for way := range ways {
			got, proven, err := f.unpack(t, way, piece(bytes.NewReader(packed)))
			if err != nil || !bytes.Equal(got, plain) || proven != f.Checked {
				t.Errorf("%s, way %d: equal %v, proven %v, %v", name, way, bytes.Equal(got, plain), proven, err)
			}
		}
	}
}

func (f Format) truncated(t *testing.T) {
	for _, n := range []int{0, 4096} {
		packed := f.Packed(t, Content(n))
		for cut := range packed {
			_, _, err := f.unpack(t, cut, bytes.NewReader(packed[:cut]))
			if fault.Status(err) != fault.Data {
				t.Fatalf("%d bytes cut to %d of %d: status %d (%v)", n, cut, len(packed), fault.Status(err), err)
			}
		}
	}
}

// flipped flips one bit of a stream of one block, and of a longer one.
// Without a checksum damage may pass; it must neither crash nor take memory.
func (f Format) flipped(t *testing.T) {
	r := Rand(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	passed, refused := 0, 0
	for _, c := range []struct{ size, sample, full int }{{4096, 900, 9000}, {2*f.Block + 100, 20, 1000}} {
		plain := Content(c.size)
		packed := f.Packed(t, plain)
		for i := range Soak(c.sample, c.full) {
			bit := r.IntN(len(packed) * 8)
			packed[bit/8] ^= 1 << (bit % 8)
			target := &comparison{want: plain, same: true}
			reader := f.Decode(bytes.NewReader(packed))
			_, err := ways[i%len(ways)](target, reader)
			packed[bit/8] ^= 1 << (bit % 8)
			same := target.same && len(target.want) == 0
			switch {
			case errors.Is(err, errEnough) && !f.Checked:
			case err != nil && fault.Status(err) != fault.Data:
				t.Fatalf("bit %d of %d bytes: status %d (%v)", bit, len(packed), fault.Status(err), err)
			case err == nil && f.Checked && !same:
				t.Fatalf("bit %d of %d bytes passed, and the content differs", bit, len(packed))
			case err == nil:
				passed++
				continue
			}
			refused++
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 512<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	t.Logf("%d flips were refused, %d passed", refused, passed)
	if refused == 0 {
		t.Error("no flip was refused")
	}
}

var errEnough = errors.New("more than enough output")

// comparison compares what is written with what is wanted, and takes no more
// than many times that.
type comparison struct {
	want []byte
	n    int
	same bool
}

func (c *comparison) Write(p []byte) (int, error) {
	if c.n += len(p); c.n > 64<<20 {
		return 0, errEnough
	}
	if len(p) > len(c.want) || !bytes.Equal(p, c.want[:len(p)]) {
		c.same = false
	} else {
		c.want = c.want[len(p):]
	}
	return len(p), nil
}

func (f Format) followed(t *testing.T) {
	packed := f.Packed(t, Content(1000))
	for _, more := range []string{"\x00", "plain text", strings.Repeat("\x00", 512)} {
		if _, _, err := f.unpack(t, 0, strings.NewReader(string(packed)+more)); fault.Status(err) != fault.Data {
			t.Errorf("%q after the end: status %d (%v)", more[:1], fault.Status(err), err)
		}
	}
}

func (f Format) inputFails(t *testing.T) {
	outage := errors.New("outage")
	packed := f.Packed(t, Content(f.Block+5000))
	for i, at := range []int{0, 1, 4, 10, 100, len(packed) / 2, len(packed) - 5, len(packed) - 1, len(packed)} {
		broken := io.MultiReader(bytes.NewReader(packed[:at]), iotest.ErrReader(outage))
		if _, _, err := f.unpack(t, i, broken); !errors.Is(err, outage) || fault.Status(err) != fault.Failed {
			t.Errorf("an outage after %d of %d bytes: status %d (%v)", at, len(packed), fault.Status(err), err)
		}
	}
}

// tight is a writer with room for n bytes.
type tight struct {
	room int
	err  error
}

func (w *tight) Write(p []byte) (int, error) {
	if len(p) > w.room {
		n := w.room
		w.room = 0
		return n, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

func (f Format) targetFails(t *testing.T) {
	full := errors.New("no room")
	plain := Content(2*f.Block + 100)
	packed := f.Packed(t, plain)
	for _, room := range []int{0, 1, 5, 100, len(packed) / 2, len(packed) - 1} {
		w, err := f.Encode(&tight{room, full})
		if err == nil {
			_, err = io.Copy(w, bytes.NewReader(plain))
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}
		if !errors.Is(err, full) || fault.Status(err) != fault.Failed {
			t.Errorf("encode, room for %d of %d: %v", room, len(packed), err)
		}
		r := f.Decode(bytes.NewReader(packed))
		if _, err := io.Copy(&tight{min(room, len(plain)-1), full}, r); !errors.Is(err, full) || fault.Status(err) != fault.Failed {
			t.Errorf("decode, room for %d of %d: %v", room, len(plain), err)
		}
	}
}

// Fuzz decodes whatever comes: the reader ends with status 65 or with a
// stream, never in another way. Good streams seed it.
func (f Format) Fuzz(fz *testing.F) {
	for _, n := range []int{0, 1, 1000, 70_000} {
		fz.Add(f.Packed(fz, Content(n)))
	}
	fz.Fuzz(func(t *testing.T, packed []byte) {
		r := f.Decode(bytes.NewReader(packed))
		_, err := io.Copy(io.Discard, io.LimitReader(r, 64<<20))
		if err != nil && fault.Status(err) != fault.Data {
			t.Fatalf("status %d: %v", fault.Status(err), err)
		}
		if err != nil && r.Proven() {
			t.Fatalf("proven with %v", err)
		}
	})
}
