package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
)

func TestTheNumbersFollowSysexits(t *testing.T) {
	for got, want := range map[int]int{
		OK: 0, Failed: 1, Usage: 64, Data: 65, Absent: 66, Exists: 73, Unearned: 76,
	} {
		if got != want {
			t.Errorf("status %d, want %d: other versions read these numbers from pipes", got, want)
		}
	}
}

func TestStatusIsTheOutermostThatIsKnown(t *testing.T) {
	plain := errors.New("plain")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{plain, 1},
		{New(Data, "corrupt"), 65},
		{fmt.Errorf("read x: %w", New(Data, "corrupt")), 65},
		{New(Usage, "setting: %w", New(Data, "corrupt")), 64},
		{fs.ErrNotExist, 66},
		{fs.ErrExist, 73},
		{fmt.Errorf("get k: %w", fs.ErrNotExist), 66},
		{fmt.Errorf("put k: %w", fs.ErrExist), 73},
		{&os.PathError{Op: "open", Path: "f", Err: os.ErrNotExist}, 66},
		{New(Failed, "put k: %w", fs.ErrNotExist), 1},
		{New(42, "upstream"), 42},
		{errors.Join(plain, New(Unearned, "ended")), 76},
	} {
		if got := Status(c.err); got != c.want {
			t.Errorf("%v: status %d, want %d", c.err, got, c.want)
		}
	}
}

func TestAHintKeepsStatusTextAndCause(t *testing.T) {
	cause := errors.New("cause")
	err := WithHint(New(Exists, "put k: %w", cause), "try %s", "this")
	if Status(err) != Exists || err.Error() != "put k: cause" || !errors.Is(err, cause) || Hint(err) != "try this" {
		t.Errorf("status %d, text %q, hint %q", Status(err), err, Hint(err))
	}
	if got := Status(WithHint(fs.ErrNotExist, "look")); got != Absent {
		t.Errorf("a hint on a sentinel: status %d", got)
	}
}

func TestHintIsTheOutermostThatSaysSomething(t *testing.T) {
	inner := WithHint(New(Data, "corrupt"), "inner")
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("plain"), ""},
		{New(Data, "corrupt"), ""},
		{inner, "inner"},
		{fmt.Errorf("decode: %w", inner), "inner"},
		{New(Usage, "decode: %w", inner), "inner"},
		{WithHint(inner, "outer"), "outer"},
		{fmt.Errorf("a: %w", New(Failed, "b: %w", fmt.Errorf("c: %w", inner))), "inner"},
	} {
		if got := Hint(c.err); got != c.want {
			t.Errorf("%v: hint %q, want %q", c.err, got, c.want)
		}
	}
}
