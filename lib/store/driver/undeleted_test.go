package driver

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"walg/lib/fault"
	"walg/lib/store"
)

func TestWhatStaysIsInTheOrderOfTheKeysAndOnce(t *testing.T) {
	var k Kept
	if err := k.Of([]string{"a"}); err != nil {
		t.Errorf("nothing stays: %v", err)
	}
	first := Permanent(errors.New("locked"), "wait")
	k.Add("a", first)
	k.Add("c", errors.New("busy"))
	k.Add("a", errors.New("another"))
	k.Add("b", nil)
	if !k.Has("a") || k.Has("b") {
		t.Errorf("a stays: %v, b stays: %v", k.Has("a"), k.Has("b"))
	}
	var known Undeleted
	if err := k.Of([]string{"c", "b", "a", "c"}); !errors.As(err, &known) || fault.Status(err) != fault.Failed {
		t.Fatalf("%v", err)
	}
	if len(known) != 2 || known[0].Key != "c" || !slices.Contains(known, store.Undeleted{Key: "a", Err: first}) {
		t.Errorf("%v", known)
	}
}

// An answer about a key that nobody asked for says nothing of those that were.
func TestAnAnswerAboutAnotherKeyIsAboutAll(t *testing.T) {
	var k Kept
	k.Add("a", errors.New("busy"))
	k.Add("x", Permanent(errors.New("locked"), ""))
	err := k.Of([]string{"a", "b"})
	if errors.As(err, new(Undeleted)) || fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("%v", err)
	}
}
