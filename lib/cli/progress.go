package cli

import (
	"fmt"
	"os"
	"sync"
	"time"

	"walg/lib/pipe"
)

// meter shows how far the work is: each second with --progress, and at every
// SIGUSR1.
type meter struct {
	mu    sync.Mutex
	count func() (done, total int64) // total -1 where nobody knows
	begin time.Time
	quit  chan struct{} // nil where nothing is drawn
}

const interval = time.Second

// listen answers SIGUSR1, which would otherwise end the program.
func (m *meter) listen(e *Env) {
	m.begin = time.Now()
	onStatusSignal(func() { e.Say(m.line()) })
}

// show draws a line each second from now on.
func (m *meter) show(e *Env) {
	m.quit = make(chan struct{})
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.draw(e)
			case <-m.quit:
				return
			}
		}
	}()
}

// stop ends the drawing with one last line.
func (m *meter) stop(e *Env) {
	if m.quit == nil {
		return
	}
	close(m.quit)
	m.draw(e)
	if pipe.IsTerminal(os.Stderr) {
		fmt.Fprintln(os.Stderr)
	}
}

// draw rewrites the line on a terminal and adds one elsewhere.
func (m *meter) draw(e *Env) {
	if pipe.IsTerminal(os.Stderr) {
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s: %s\r", e.Name, m.line())
		return
	}
	e.Say(m.line())
}

// Count tells the program's progress from now on: bytes done, and bytes in all
// or -1. f must be safe to call at any time.
func (e *Env) Count(f func() (done, total int64)) {
	e.meter.mu.Lock()
	defer e.meter.mu.Unlock()
	e.meter.count = f
}

func (m *meter) line() string {
	m.mu.Lock()
	count := m.count
	m.mu.Unlock()
	if count == nil {
		return "starting"
	}
	done, total := count()
	elapsed := time.Since(m.begin)
	rate := float64(done) / max(elapsed.Seconds(), 1e-3)
	line := fmt.Sprintf("%s, %s/s, %s", human(float64(done)), human(rate), elapsed.Round(time.Second))
	if total >= 0 && rate > 0 {
		left := time.Duration(float64(max(total-done, 0)) / rate * float64(time.Second))
		line += fmt.Sprintf(", %s in all, %s left", human(float64(total)), left.Round(time.Second))
	}
	return line
}

// Human returns a number of bytes as people read it.
func Human(n int64) string { return human(float64(n)) }

func human(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}
