package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"walg/lib/fault"
)

// environment makes a lookup of fixed settings.
func environment(kv ...string) func(string) string {
	return func(name string) string {
		for _, s := range kv {
			if n, value, _ := strings.Cut(s, "="); n == name {
				return value
			}
		}
		return ""
	}
}

func TestOptionsAndOperandsComeInAnyOrder(t *testing.T) {
	for _, args := range []string{
		"--confirm -n 5 one two", "one --confirm two -n 5", "one two -n5 --confirm", "one -n=5 two --confirm=true",
	} {
		f := newFlags("test", environment())
		confirm := f.Bool("confirm", "", "", "do it")
		n := f.Int("number", "n", "", 1, 1, "number")
		operands, command, err := f.parse(strings.Fields(args))
		if err != nil || !slices.Equal(operands, []string{"one", "two"}) || command != nil || !*confirm || *n != 5 {
			t.Errorf("%s: %q, %q, %v, confirm %v, n %d", args, operands, command, err, *confirm, *n)
		}
	}
}

func TestWhatFollowsTwoDashesIsTheCommand(t *testing.T) {
	for _, c := range []struct {
		args              string
		operands, command []string
		status            int
	}{
		{"KEY -- cmd -n x", []string{"KEY"}, []string{"cmd", "-n", "x"}, 0},
		{"-- cmd", nil, []string{"cmd"}, 0},
		{"--confirm KEY -- cmd -- more", []string{"KEY"}, []string{"cmd", "--", "more"}, 0},
		{"KEY", []string{"KEY"}, nil, 0},
		{"", nil, nil, 0},
		{"KEY --", nil, nil, 64},
		{"--", nil, nil, 64},
	} {
		f := newFlags("test", environment())
		f.Bool("confirm", "", "", "do it")
		operands, command, err := f.parse(strings.Fields(c.args))
		if fault.Status(err) != c.status || err == nil && (!slices.Equal(operands, c.operands) || !slices.Equal(command, c.command)) {
			t.Errorf("%q: %q, %q, %v", c.args, operands, command, err)
		}
	}
}

// declare declares one option of each type, each with a setting.
func declare(f *Flags) (text *string, yes *bool, n, bytes *int64, span *time.Duration) {
	text = f.String("text", "", "WALG_COMPRESSION_METHOD", "lz4", "a `word`")
	yes = f.Bool("yes", "y", "WALG_TRUST_EOF", "agree")
	n = f.Int("number", "", "WALG_UPLOAD_DISK_CONCURRENCY", 1, 1, "`n` of them")
	bytes = f.Size("size", "", "WALG_DISK_RATE_LIMIT", 0, "this many `bytes`")
	span = f.Duration("time", time.Minute, "wait this `time`")
	return
}

func TestTheOptionWinsOverTheSettingAndTheSettingOverTheDefault(t *testing.T) {
	f := newFlags("test", environment())
	text, yes, n, bytes, span := declare(f)
	if _, _, err := f.parse(nil); err != nil || *text != "lz4" || *yes || *n != 1 || *bytes != 0 || *span != time.Minute {
		t.Errorf("defaults: %q %v %d %d %v, %v", *text, *yes, *n, *bytes, *span, err)
	}
	if f.Changed("text") || f.Given("text") {
		t.Error("a default counts as given")
	}
	env := environment("WALG_COMPRESSION_METHOD=none", "WALG_TRUST_EOF=true", "WALG_UPLOAD_DISK_CONCURRENCY=7", "WALG_DISK_RATE_LIMIT=2k")
	f = newFlags("test", env)
	text, yes, n, bytes, _ = declare(f)
	if _, _, err := f.parse(nil); err != nil || *text != "none" || !*yes || *n != 7 || *bytes != 2048 {
		t.Errorf("settings: %q %v %d %d, %v", *text, *yes, *n, *bytes, err)
	}
	if !f.Changed("text") || f.Given("text") {
		t.Errorf("a setting: changed %v, given %v", f.Changed("text"), f.Given("text"))
	}
	f = newFlags("test", env)
	text, yes, n, bytes, span = declare(f)
	args := strings.Fields("--text zstd --yes=false --number 3 --size 1M --time 5s")
	if _, _, err := f.parse(args); err != nil || *text != "zstd" || *yes || *n != 3 || *bytes != 1<<20 || *span != 5*time.Second {
		t.Errorf("options: %q %v %d %d %v, %v", *text, *yes, *n, *bytes, *span, err)
	}
	if !f.Given("text") {
		t.Error("an option does not count as given")
	}
}

func TestAValueThatDoesNotParseIsStatus64UnderTheNameOfItsUser(t *testing.T) {
	for setting, bad := range map[string][]string{
		"WALG_TRUST_EOF":               {"maybe", "2", "yes please"},
		"WALG_UPLOAD_DISK_CONCURRENCY": {"many", "0", "-1", "1.5", "99999999999999999999", "1k"},
		"WALG_DISK_RATE_LIMIT":         {"fast", "-1", "1.5M", "1T", "1kk", "k", "99999999999G"},
	} {
		for _, value := range bad {
			f := newFlags("test", environment(setting+"="+value))
			declare(f)
			_, _, err := f.parse(nil)
			if fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), "setting "+setting+"="+value+": ") {
				t.Errorf("%s=%s: %v", setting, value, err)
			}
		}
	}
	for _, args := range []string{
		"--number many", "--number 0", "--size x", "--time soon", "--yes=perhaps", "--no-such", "-z", "--number", "--text",
	} {
		f := newFlags("test", environment())
		declare(f)
		if _, _, err := f.parse(strings.Fields(args)); fault.Status(err) != fault.Usage {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestTheFirstBadSettingIsReported(t *testing.T) {
	f := newFlags("test", environment("WALG_UPLOAD_DISK_CONCURRENCY=x", "WALG_DISK_RATE_LIMIT=y"))
	declare(f)
	if _, _, err := f.parse(nil); err == nil || !strings.Contains(err.Error(), "WALG_UPLOAD_DISK_CONCURRENCY=x: not a whole number") {
		t.Errorf("%v", err)
	}
}

func TestSizesUnderstandPowersOf1024(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "1k": 1 << 10, "1K": 1 << 10, "3M": 3 << 20, "2G": 2 << 30, "1073741823": 1<<30 - 1,
	} {
		var z size
		if err := z.Set(text); err != nil || z.value != want {
			t.Errorf("%q: %d, %v; want %d", text, z.value, err, want)
		}
	}
}

func TestASettingWithoutAClassIsAMistakeOfOurs(t *testing.T) {
	defer func() {
		if said := recover(); said == nil {
			t.Error("an option took its default from a setting that has no class")
		}
	}()
	newFlags("test", environment()).String("x", "", "WALG_NO_SUCH", "", "x")
}

func TestHelpShowsEachOptionItsSettingAndItsDefault(t *testing.T) {
	f := newFlags("test", environment("WALG_DISK_RATE_LIMIT=5"))
	declare(f)
	help := f.help()
	for _, want := range []string{
		"      --text WORD", "a word [$WALG_COMPRESSION_METHOD] (default lz4)",
		"  -y, --yes", "agree [$WALG_TRUST_EOF]\n",
		"      --number N", "[$WALG_UPLOAD_DISK_CONCURRENCY] (default 1)",
		"      --size BYTES", "this many bytes [$WALG_DISK_RATE_LIMIT]\n",
		"      --time TIME", "wait this time (default 1m0s)",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in\n%s", want, help)
		}
	}
	for _, arg := range []string{"--help", "-h"} {
		f := newFlags("test", environment())
		if _, _, err := f.parse([]string{arg}); err != nil && !errors.Is(err, pflag.ErrHelp) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
