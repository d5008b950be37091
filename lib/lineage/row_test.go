package lineage

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"walg/lib/catalog"
)

// backup is a finished one with a readable sentinel; started 0 is not recorded.
func backup(name, base string, started int) *Backup {
	b := finished(name, 1000, started)
	b.Sentinel = &catalog.Sentinel{DeltaFrom: base}
	return b
}

func inRow(nodes []*Node) string {
	var list []string
	for _, n := range nodes {
		list = append(list, strings.TrimLeft(strings.TrimPrefix(n.Name, "base_00000001"), "0"))
	}
	return strings.Join(list, " ")
}

const of1 = "base_0000000100000000000000"

func TestTheRowIsInTheOrderOfStartTimes(t *testing.T) {
	// Timeline 2 was left again: its name sorts after those that are newer.
	r := NewRow([]*Backup{backup(of1+"30", "", 3), backup("base_000000020000000000000020", "", 2), backup(of1+"10", "", 1), {Name: of1 + "40"}}, at(1000))
	if got := inRow(r.Nodes); got != "10 base_000000020000000000000020 30" {
		t.Error(got)
	}
	if Compare(r.Nodes[0], r.Nodes[1]) >= 0 || Compare(r.Nodes[2], r.Nodes[1]) <= 0 {
		t.Error("Compare does not follow the row")
	}
}

func TestABackupWithoutATimeIsWhereItsNameBelongs(t *testing.T) {
	all := func(*Node) bool { return true }
	bare := backup(of1+"20", "", 0)
	sorted := []*Backup{bare, backup(of1+"10", "", 1), backup(of1+"30", "", 3)}
	r := NewRow(sorted, at(1000))
	if got := inRow(r.Nodes); got != "10 20 30" || r.Contradicts(all) != nil {
		t.Errorf("%s, %v", got, r.Contradicts(all))
	}
	for what, other := range map[string]*Backup{
		"sorts otherwise than its time": backup(of1+"05", "", 5),
		"says nothing":                  backup("custom", "", 5),
	} {
		r := NewRow(append(sorted, other), at(1000))
		if n := r.Contradicts(all); n == nil || n.Name != bare.Name {
			t.Errorf("where the name of another %s its place is known", what)
		}
		if r.Contradicts(func(n *Node) bool { return n.Name != other.Name }) != nil {
			t.Error("a backup that does not count contradicts")
		}
	}
}

func TestWhatIsNotKnownDoesNotLookOld(t *testing.T) {
	unread := finished(of1+"01", 1, 0)
	unread.SentinelErr = errors.New("broken")
	r := NewRow([]*Backup{unread, backup("custom", "", 0), backup(of1+"10", "", 1)}, at(1000))
	if got := inRow(r.Nodes); got != "10 1 custom" || !r.Nodes[0].Aged || r.Nodes[1].Aged || r.Nodes[2].Aged {
		t.Errorf("%s, %+v", got, r.Nodes)
	}
	if got := inRow(r.NewestFulls()); got != "10" {
		t.Errorf("the newest full is %s", got)
	}
}

func TestBrokenBackupsAreKnown(t *testing.T) {
	unread := finished(of1+"30", 1, 3)
	unread.SentinelErr = errors.New("broken")
	r := NewRow([]*Backup{
		backup("full", "", 1), backup("delta", "full", 2), backup("orphan", "gone", 3), backup("child", "orphan", 4),
		backup("x", "y", 5), backup("y", "x", 6), unread, backup("on unread", of1+"30", 7),
	}, at(1000))
	for _, n := range r.Nodes {
		if good := n.Name == "full" || n.Name == "delta"; good != (n.Broken == "") {
			t.Errorf("%s: broken %q", n.Name, n.Broken)
		}
	}
}

func TestClosureAndDependentsAreOpposite(t *testing.T) {
	r := NewRow([]*Backup{backup("f", "", 1), backup("d1", "f", 2), backup("d2", "d1", 3), backup("side", "f", 4), backup("other", "", 5)}, at(1000))
	for _, n := range r.Nodes {
		for dependent := range r.Dependents(n) {
			if _, ok := Closure([]*Node{dependent})[n]; !ok {
				t.Errorf("%s depends on %s and does not need it", dependent.Name, n.Name)
			}
		}
	}
	d1, _ := r.Find("d1", false)
	if got := len(r.Dependents(d1)); got != 2 {
		t.Errorf("%d backups depend on d1, itself among them", got)
	}
	var needing []string
	for _, b := range Needing([]*Backup{backup("f", "", 1), backup("d1", "f", 2), backup("other", "", 3)}, "f") {
		needing = append(needing, b.Name)
	}
	if !slices.Equal(needing, []string{"d1"}) {
		t.Errorf("f is needed by %q", needing)
	}
}

// A delta whose sentinel cannot be read keeps all that it may be based on.
func TestAnUnreadableDeltaMayBeBasedOnAllThatItsNameAllows(t *testing.T) {
	broken := func(name string) *Backup {
		b := finished(name, 1, 9)
		b.SentinelErr = errors.New("broken")
		return b
	}
	delta, odd := broken(of1+"20_D_"+strings.TrimPrefix(of1, "base_")+"10"), broken("odd")
	r := NewRow([]*Backup{backup(of1+"10", "", 1), backup(of1+"11", "", 2), delta, odd}, at(1000))
	for _, n := range r.Nodes {
		want := map[string]int{delta.Name: 1, "odd": 3}[n.Name]
		if len(n.Parents) != want {
			t.Errorf("%s may be based on %d backups, want %d", n.Name, len(n.Parents), want)
		}
	}
}

func TestAStartThatIsToComeTellsNothing(t *testing.T) {
	wrong := backup(of1+"08", "", 5000)
	r := NewRow([]*Backup{backup(of1+"02", "", 1), wrong, backup(of1+"0C", "", 900)}, at(1000))
	if got := inRow(r.Nodes); got != "2 C 8" || r.Nodes[2].Aged {
		t.Errorf("%s, %+v", got, r.Nodes[2])
	}
	if got := inRow(NewRow([]*Backup{wrong}, at(5000-3600)).Nodes); got != "8" || !NewRow([]*Backup{wrong}, at(5000-3600)).Nodes[0].Aged {
		t.Error("a clock that is ahead by an hour is not wrong")
	}
}

// A clock that was wrong once must not make the newest backup the oldest.
func TestTheNewestFullIsAlsoTheOneWithTheNewestWAL(t *testing.T) {
	r := NewRow([]*Backup{backup(of1+"02", "", 50), backup(of1+"08", "", 90), backup(of1+"0C", "", 10)}, at(1000))
	if got := inRow(r.Guarded()); got != "C 8" {
		t.Error(got)
	}
	// Old ones without a time, of a server with a higher timeline: those that are
	// newer must not go for their sake.
	old := backup("base_00000005000000000000006C", "", 0)
	old.ModTime = at(100)
	r = NewRow([]*Backup{old, backup(of1+"02", "", 5000), backup(of1+"08", "", 9000)}, at(10000))
	if got := inRow(r.Guarded()); got != "8 base_00000005000000000000006C" || r.Contradicts(func(*Node) bool { return true }) != r.Nodes[2] {
		t.Error(got)
	}
}

func TestADeltaIsNewerThanWhatItIsBasedOn(t *testing.T) {
	r := NewRow([]*Backup{backup("full", "", 50), backup("delta", "full", 3), backup("child", "delta", 40), backup("next", "", 60)}, at(1000))
	if got := inRow(r.Nodes); got != "full delta child next" {
		t.Error(got)
	}
}

func TestABackupWithoutItsMetadataMayBePermanent(t *testing.T) {
	old, lost := backup(of1+"01", "", 0), backup(of1+"02", "", 0)
	lost.Sentinel.Version = 2
	r := NewRow([]*Backup{old, lost}, at(1000))
	if r.Nodes[0].Keep != "" || r.Nodes[1].Keep == "" {
		t.Errorf("%q, %q", r.Nodes[0].Keep, r.Nodes[1].Keep)
	}
}
