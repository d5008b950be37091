package storetest

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"
)

// KillAtRandom starts cmd, waits for the first line of its standard output
// where that is not set, and kills it with SIGKILL after a random part of
// within, unless it ends before. It returns whether cmd was killed; a cmd that
// ended by itself with another status than 0 is a failure of the test.
func KillAtRandom(t testing.TB, cmd *exec.Cmd, within time.Duration) bool {
	t.Helper()
	var line *bufio.Reader
	if cmd.Stdout == nil {
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		line = bufio.NewReader(out)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line != nil {
		// An error here is the end of cmd, which Wait explains.
		line.ReadString('\n')
	}
	kill := time.AfterFunc(rand.N(within), func() { cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && exit.ExitCode() == -1:
		return true
	}
	t.Fatalf("%s: %v", cmd, err)
	return false
}
