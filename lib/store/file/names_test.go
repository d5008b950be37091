package file

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestNamesAreKeptAndSorted(t *testing.T) {
	var n names
	var want []string
	for i := range 20_000 {
		name := fmt.Sprint(rand.N(1_000_000), strings.Repeat("é", i%100), "/")
		want = append(want, name)
		if err := n.add(name); err != nil {
			t.Fatal(err)
		}
	}
	n.sort()
	slices.Sort(want)
	for i, where := range n.where {
		if got := string(n.at(where)); got != want[i] {
			t.Fatalf("name %d is %q, want %q", i, got, want[i])
		}
	}
	if len(n.where) != len(want) {
		t.Errorf("%d names, want %d", len(n.where), len(want))
	}
	if err := n.add(strings.Repeat("x", maxName+1)); err != errTooMany {
		t.Errorf("a name that is too long: %v", err)
	}
	if err := n.add(strings.Repeat("x", maxName)); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

func TestAMillionNamesTakeFewBytesMoreThanTheirText(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := &names{}
	for i := range 1_000_000 {
		if err := n.add(fmt.Sprintf("%024X.lz4", i)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(n)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 40<<20 {
		t.Errorf("a million names of 28 bytes take %d bytes", used)
	}
}
