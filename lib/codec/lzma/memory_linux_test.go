package lzma_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"walg/lib/codec/lzma"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
)

// TestMain is also the process of which the memory is measured.
func TestMain(m *testing.M) {
	if work := os.Getenv("WALG_TEST_WORK"); work != "" {
		if err := child(work); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child reads or, at a level, writes a stream, and prints what the kernel says
// it took.
func child(work string) error {
	if level, err := strconv.Atoi(work); err == nil {
		w, err := lzma.NewWriter(io.Discard, level)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, os.Stdin); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	} else if _, err := io.Copy(io.Discard, lzma.NewReader(os.Stdin, 1<<30)); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	os.Stdout.Write(status)
	return err
}

// peak runs a child and returns the most memory that it had, in MiB.
func peak(t *testing.T, work string, input io.Reader) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WALG_TEST_WORK="+work)
	cmd.Stdin = input
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no VmHWM in %s", out)
	}
	kib, _ := strconv.Atoi(string(found[1]))
	return kib >> 10
}

// long is n MiB that the reader of a window of 64 MiB has to keep.
func long(n int) io.Reader {
	r := decodetest.Content(1 << 20)
	var all []io.Reader
	for range n {
		all = append(all, bytes.NewReader(r))
	}
	return io.MultiReader(all...)
}

func TestAProcessThatWritesTakesLessThan128MiB(t *testing.T) {
	for level := 0; level < 10; level += decodetest.Soak(9, 1) {
		took := peak(t, strconv.Itoa(level), long(decodetest.Soak(30, 300)))
		t.Logf("level %d: %d MiB", level, took)
		if took >= 128 {
			t.Errorf("level %d: %d MiB", level, took)
		}
	}
}

func TestAProcessThatReadsTakesTheWindowAndTheOverheadAtMost(t *testing.T) {
	var b bytes.Buffer
	w, err := lzma.NewWriter(&b, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, long(decodetest.Soak(80, 500))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, mib := range []int{8, 17, 64} {
		packed := b.Bytes()
		binary.LittleEndian.PutUint32(packed[1:], uint32(mib<<20))
		took := peak(t, "read", bytes.NewReader(packed))
		t.Logf("window of %d MiB: %d MiB", mib, took)
		if took >= mib+decode.Overhead>>20 || took < mib {
			t.Errorf("window of %d MiB: %d MiB", mib, took)
		}
	}
}
