package cli

import (
	"strings"
	"testing"
	"time"
)

func TestHumanNumbersAreShort(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 60: "1024.0 PiB",
	} {
		if got := human(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

func TestTheMeterSaysBytesRateTimeAndWhatIsLeft(t *testing.T) {
	m := meter{begin: time.Now().Add(-10 * time.Second)}
	if got := m.line(); got != "starting" {
		t.Errorf("before there is a count: %q", got)
	}
	m.count = func() (int64, int64) { return 20 << 20, -1 }
	if got := m.line(); got != "20.0 MiB, 2.0 MiB/s, 10s" {
		t.Errorf("without a total: %q", got)
	}
	m.count = func() (int64, int64) { return 10 << 20, 40 << 20 }
	if got := m.line(); !strings.HasSuffix(got, "10s, 40.0 MiB in all, 30s left") {
		t.Errorf("with a total: %q", got)
	}
	m.count = func() (int64, int64) { return 0, 40 << 20 }
	if got := m.line(); strings.Contains(got, "left") {
		t.Errorf("before the first byte: %q", got)
	}
	m.count = func() (int64, int64) { return 50 << 20, 40 << 20 } // a file that grew
	if got := m.line(); !strings.HasSuffix(got, "40.0 MiB in all, 0s left") {
		t.Errorf("beyond the total: %q", got)
	}
}
