package xz_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"walg/lib/codec/xz"
	"walg/lib/decode"
	"walg/lib/decode/decodetest"
)

// TestMain is also the process of which the memory is measured: it reads a
// stream and prints what the kernel says that it took.
func TestMain(m *testing.M) {
	if os.Getenv("WALG_TEST_WORK") == "" {
		os.Exit(m.Run())
	}
	_, err := io.Copy(io.Discard, xz.NewReader(os.Stdin, memory))
	if err == nil {
		var status []byte
		status, err = os.ReadFile("/proc/self/status")
		os.Stdout.Write(status)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestAProcessThatReadsTakesTheWindowAndTheOverheadAtMost(t *testing.T) {
	content := decodetest.Content(1 << 20)
	for _, options := range [][]string{
		{"--lzma2=preset=0,dict=1MiB"},
		{"--lzma2=preset=0,dict=64MiB"},
		{"--lzma2=preset=0,dict=64MiB", "--block-size=70MiB"},
	} {
		var mib int
		if _, err := fmt.Sscanf(options[0], "--lzma2=preset=0,dict=%dMiB", &mib); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WALG_TEST_WORK=read")
		cmd.Stdin = bytes.NewReader(stock(t, bytes.Repeat(content, decodetest.Soak(mib+10, 500)), options...))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(out)
		if found == nil {
			t.Fatalf("no VmHWM in %s", out)
		}
		took, _ := strconv.Atoi(string(found[1]))
		took >>= 10
		t.Logf("%v: %d MiB", options, took)
		if took >= mib+decode.Overhead>>20 || took < mib {
			t.Errorf("%v: %d MiB", options, took)
		}
	}
}
