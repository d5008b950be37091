//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// raise sends sig to this program and gives it a moment to arrive.
func raise(sig syscall.Signal) {
	if syscall.Kill(os.Getpid(), sig) == nil {
		time.Sleep(100 * time.Millisecond)
	}
}

// onStatusSignal calls f at every SIGUSR1.
func onStatusSignal(f func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		for range c {
			f()
		}
	}()
}
