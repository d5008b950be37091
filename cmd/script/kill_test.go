package script_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"walg/lib/store"
	"walg/lib/store/file"
	"walg/lib/store/storetest"
)

// rounds is how often what depends on chance is done, with WALG_SOAK set as
// often as it takes to be sure.
func rounds() int {
	if os.Getenv("WALG_SOAK") != "" {
		return 200
	}
	return 20
}

// putCommand is walg-put to a store, reading from a file where in is a name.
func putCommand(t *testing.T, dir, in string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("walg-put", args...)
	cmd.Env = append(os.Environ(), "WALG_FILE_PREFIX="+dir)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if in != "" {
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		cmd.Stdin = f
	}
	return cmd
}

func TestKilledPutLeavesNothingOrAll(t *testing.T) {
	const size = 24 << 20
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	want, err := io.ReadAll(storetest.Content("new", size))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, want, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := []byte("the old object")
	reset := func(there bool) {
		if err := s.Delete(t.Context(), "d/k"); err != nil {
			t.Fatal(err)
		}
		if there {
			if err := s.Put(t.Context(), "d/k", bytes.NewReader(old), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	begun := time.Now()
	if err := putCommand(t, dir, data, "d/k").Run(); err != nil {
		t.Fatal(err)
	}
	within := time.Since(begun) * 5 / 4
	before, after, killed := 0, 0, 0
	for i := range rounds() {
		replace := i%2 == 0
		reset(replace)
		args := []string{"d/k"}
		if !replace {
			args = append(args, "--if-absent")
		}
		if storetest.KillAtRandom(t, putCommand(t, dir, data, args...), within) {
			killed++
		}
		got, err := os.ReadFile(filepath.Join(dir, "d", "k"))
		switch {
		case err == nil && bytes.Equal(got, want):
			after++
		case replace && err == nil && bytes.Equal(got, old), !replace && errors.Is(err, fs.ErrNotExist):
			before++
		default:
			t.Fatalf("a killed walg-put left %d bytes, %v", len(got), err)
		}
		for info, err := range s.List(t.Context(), "") {
			if err != nil || info.Key != "d/k" {
				t.Fatalf("in the store: %+v, %v", info, err)
			}
		}
	}
	leftovers := 0
	for l, err := range s.Leftovers(t.Context(), "") {
		if err != nil || l.Key != "d/k" || l.Size > size {
			t.Errorf("leftover %+v, %v", l, err)
		}
		leftovers++
	}
	if before == 0 || killed == 0 {
		t.Error("no walg-put was killed before it was done; the test proves nothing")
	}
	if leftovers > killed {
		t.Errorf("%d leftovers of %d killed", leftovers, killed)
	}
	t.Logf("%d killed; %d times the object was not there yet, %d times it was; %d leftovers", killed, before, after, leftovers)
}

func TestStoppedPutCleansUp(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		dir := t.TempDir()
		cmd := putCommand(t, dir, "", "--trust-eof", "d/k")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		for {
			if names, _ := filepath.Glob(filepath.Join(dir, "d", "k.tmp.*")); len(names) > 0 {
				break
			}
			time.Sleep(time.Millisecond) // until it has begun, for as long as the test may run
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != sig {
			t.Errorf("after %v: %v", sig, err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("after %v the store holds %v, %v", sig, names, err)
		}
	}
}
