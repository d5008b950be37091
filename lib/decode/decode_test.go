package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/fault"
)

func TestAnErrorOfTheInputIsNotTheDatas(t *testing.T) {
	outage := errors.New("outage")
	in := NewInput(iotest.ErrReader(outage), "zip", 16)
	_, err := in.ReadByte()
	if got := in.Fault(fmt.Errorf("bad block: %w", err)); got != outage {
		t.Errorf("%v", got)
	}
}

func TestEverythingElseIsTheDatas(t *testing.T) {
	in := NewInput(strings.NewReader(""), "zip", 16)
	for _, c := range []struct {
		err  error
		want string
	}{
		{io.EOF, "zip: truncated"},
		{io.ErrUnexpectedEOF, "zip: truncated"},
		{fmt.Errorf("block 3: %w", io.ErrUnexpectedEOF), "zip: truncated"},
		{errors.New("bad block"), "zip: bad block"},
	} {
		if err := in.Fault(c.err); fault.Status(err) != fault.Data || err.Error() != c.want {
			t.Errorf("%v: %v, want %q", c.err, err, c.want)
		}
	}
	if err := in.Fault(nil); err != nil {
		t.Errorf("nil: %v", err)
	}
}

func TestAWindowThatDoesNotFitSaysHowMuchWould(t *testing.T) {
	in := NewInput(bytes.NewReader(nil), "zip", 16)
	const mib = 1 << 20
	for _, c := range []struct {
		window, memory int64
		hint           string
	}{
		{8 * mib, 256 * mib, ""},
		{192 * mib, 256 * mib, ""},
		{192*mib + 1, 256 * mib, "--memory 257M"},
		{512 * mib, 256 * mib, "--memory 576M"},
		{1, 0, "--memory 65M"},
		{1<<63 - 1, 256 * mib, "--memory "},
	} {
		err := in.Fits(c.window, c.memory)
		if (err == nil) != (c.hint == "") || err != nil && (fault.Status(err) != fault.Data || !strings.Contains(fault.Hint(err), c.hint)) {
			t.Errorf("a window of %d in %d: %v, %q", c.window, c.memory, err, fault.Hint(err))
		}
	}
}
