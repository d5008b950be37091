package policy

import (
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
)

func TestPoliciesAreReadAndSaidAgain(t *testing.T) {
	for _, words := range []string{
		"retain 5", "retain FULL 5", "retain FIND_FULL 5", "before base_X", "before FIND_FULL LATEST", "before 2019-12-12T12:12:12Z",
		"everything", "everything FORCE", "target base_X", "target FIND_FULL base_X", "garbage", "garbage ARCHIVES", "garbage BACKUPS",
	} {
		p, err := Parse(strings.Fields(words), "", "")
		if err != nil || p.String() != words {
			t.Errorf("%q became %q, %v", words, p, err)
		}
	}
	p, err := Parse([]string{"retain", "5"}, "2019-12-12T12:12:12", "")
	if err != nil || p.After == nil || !p.After.UTC || !p.After.Time.Equal(time.Date(2019, 12, 12, 12, 12, 12, 0, time.UTC)) {
		t.Errorf("%+v, %v", p.After, err)
	}
	if p, err := Parse([]string{"target"}, "", `{"x":[3]}`); err != nil || string(p.UserData) != `{"x":[3]}` {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	for _, c := range [][3]string{
		{""}, {"old"}, {"retain"}, {"retain 0"}, {"retain -1"}, {"retain x"}, {"retain FORCE 1"}, {"retain 1 2"}, {"before"}, {"before FULL x"},
		{"before a/b"}, {"before 2019-12-12"}, {"everything x"}, {"everything FULL"}, {"target"}, {"garbage x"}, {"target x", "", "1"},
		{"target", "", "{"}, {"retain 1", "", "1"}, {"before x", "y"}, {"retain 1", "../x"}, {"target LATEST", "x"},
	} {
		if p, err := Parse(strings.Fields(c[0]), c[1], c[2]); fault.Status(err) != fault.Usage {
			t.Errorf("%q became %q, %v", c, p, err)
		}
	}
}
