package retain_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"walg/lib/catalog"
	"walg/lib/fault"
	"walg/lib/lineage"
	"walg/lib/retain"
	"walg/lib/retain/policy"
)

var update = flag.Bool("update", false, "write the golden plans anew")

var noon = time.Date(2019, 12, 10, 12, 0, 0, 0, time.UTC)

// one is a backup of the catalogue that the plans are made for: hours after
// noon, the last two digits of its segment, those of its parent's or empty.
type one struct {
	hour         int
	seg, base    string
	userData     string
	isUnfinished bool
}

// documented is a catalogue that all of the examples in WAL-G's documentation
// make sense for.
var documented = []one{
	{hour: 0, seg: "C0"},
	{hour: 12, seg: "C1", base: "C0"},
	{hour: 24, seg: "C2", isUnfinished: true},
	{hour: 48, seg: "C4"},
	{hour: 49, seg: "C9", base: "C4"},
	{hour: 50, seg: "CA", base: "C9", userData: `{"y":4,"x":[3]}`},
	{hour: 72, seg: "D0"},
	{hour: 73, seg: "D1", base: "D0"},
	{hour: 96, seg: "D5", userData: `7`},
	{hour: 120, seg: "E0"},
}

const zeros = "0000000100000000000000"

func (o one) name() string {
	if o.base == "" {
		return "base_" + zeros + o.seg
	}
	return "base_" + zeros + o.seg + "_D_" + zeros + o.base
}

func build(all []one, permanent ...string) (backups []*lineage.Backup) {
	names := map[string]string{}
	for _, o := range all {
		names[o.seg] = o.name()
		start := noon.Add(time.Duration(o.hour) * time.Hour)
		b := &lineage.Backup{Name: o.name(), ModTime: start.Add(time.Minute)}
		backups = append(backups, b)
		if o.isUnfinished {
			continue
		}
		n, err := strconv.ParseUint(o.seg, 16, 8)
		if err != nil {
			panic(err)
		}
		lsn := catalog.Number(n<<24 + 0x28)
		b.Finished = true
		b.Sentinel = &catalog.Sentinel{LSN: lsn, FinishLSN: lsn + 100, DeltaFrom: names[o.base], SystemIdentifier: 7}
		b.Metadata = &catalog.Metadata{
			StartTime: start, FinishTime: start.Add(time.Minute), StartLSN: lsn, FinishLSN: lsn + 100,
			SystemIdentifier: 7, IsPermanent: slices.Contains(permanent, o.seg), UserData: json.RawMessage(o.userData),
		}
	}
	return backups
}

func parsed(t testing.TB, words, after, userData string) policy.Policy {
	t.Helper()
	p, err := policy.Parse(strings.Fields(words), after, userData)
	if err != nil {
		t.Fatal(err)
	}
	p.Now, p.Grace, p.SegmentSize = noon.Add(1000*time.Hour), time.Hour, retain.DefaultSegmentSize
	return p
}

func short(text string) string { return strings.ReplaceAll(text, zeros, "") }

// printed is a plan in words, with the WAL from B0 to EF that it removes.
func printed(plan *retain.Plan, err error) string {
	if err != nil {
		return short(fmt.Sprintf("refused with status %d: %v\nhint: %s\n", fault.Status(err), err, fault.Hint(err)))
	}
	var b strings.Builder
	for _, n := range plan.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	for _, v := range plan.Verdicts {
		verb := "delete"
		if v.Keep {
			verb = "keep"
		}
		fmt.Fprintf(&b, "%-6s %s: %s\n", verb, v.Backup.Name, v.Reason)
	}
	for i, round := range plan.Rounds() {
		fmt.Fprintf(&b, "sentinels %d: %s\n", i+1, strings.Join(round, " "))
	}
	from, last := "", ""
	for n := 0xB0; n <= 0xF0; n++ {
		seg := fmt.Sprintf("%02X", n)
		remove, _ := plan.Object("wal_005/"+zeros+seg+".lz4", time.Time{})
		switch {
		case remove && from == "":
			from = seg
		case !remove && from != "":
			fmt.Fprintf(&b, "delete WAL %s to %s\n", from, last)
			from = ""
		}
		last = seg
	}
	return short(b.String())
}

// TestPlansOfTheDocumentedExamples: the golden plans are of every example that
// WAL-G's documentation gives for delete, in its order, and of some more.
func TestPlansOfTheDocumentedExamples(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct{ words, after, userData, permanent string }{
		{words: "everything"},
		{words: "everything", permanent: "D0"},
		{words: "everything FORCE", permanent: "D0"},
		{words: "retain 5"},
		{words: "retain 3"},
		{words: "retain 5", permanent: "C0"},
		{words: "retain FULL 3"},
		{words: "retain FULL 3", permanent: "C0"},
		{words: "retain FULL 3", permanent: "C1"},
		{words: "retain FULL 5"},
		{words: "retain FULL 6"},
		{words: "retain FIND_FULL 5"},
		{words: "retain 5", after: "2019-12-12T12:12:12"},
		{words: "retain 3", after: "2019-12-12T12:01:00"},
		{words: "retain 2", after: "2019-12-12T13:00:00"},
		{words: "retain FIND_FULL 2", after: "2019-12-12T13:00:00+00:00"},
		{words: "retain FULL 1", after: "base_" + zeros + "C4"},
		{words: "retain FULL 1", after: "2020-01-01T00:00:00Z"},
		{words: "before base_" + zeros + "D0"},
		{words: "before base_" + zeros + "D1"},
		{words: "before base_" + zeros + "D"},
		{words: "before base_000010000123123123"},
		{words: "before FIND_FULL base_" + zeros + "CA"},
		{words: "before 2019-12-13T12:00:00+02:00"},
		{words: "before 2019-12-20T00:00:00Z"},
		{words: "before 2219-12-20T00:00:00Z"},
		{words: "target base_" + zeros + "C4"},
		{words: "target base_" + zeros + "C9_D_" + zeros + "C4"},
		{words: "target FIND_FULL base_" + zeros + "C9_D_" + zeros + "C4"},
		{words: "target base_" + zeros + "C4", permanent: "CA"},
		{words: "target LATEST"},
		{words: "target", userData: `{ "x": [3], "y": 4 }`},
		{words: "target", userData: `8`},
		{words: "garbage"},
		{words: "garbage ARCHIVES", permanent: "C0 C1"},
		{words: "garbage BACKUPS", permanent: "C0 C1"},
		{words: "garbage", permanent: "C0"},
	} {
		fmt.Fprintf(&out, "$ delete %s", short(c.words))
		if c.after != "" {
			fmt.Fprintf(&out, " --after %s", short(c.after))
		}
		if c.userData != "" {
			fmt.Fprintf(&out, " --target-user-data '%s'", c.userData)
		}
		if c.permanent != "" {
			fmt.Fprintf(&out, " # permanent: %s", c.permanent)
		}
		plan, err := retain.Make(build(documented, strings.Fields(c.permanent)...), parsed(t, c.words, c.after, c.userData))
		fmt.Fprintf(&out, "\n%s\n", printed(plan, err))
	}
	const golden = "testdata/plans.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, old := strings.Split(out.String(), "$ "), strings.Split(string(want), "$ ")
	if len(got) != len(old) {
		t.Errorf("%d plans, want %d", len(got), len(old))
	}
	for i := range min(len(got), len(old)) {
		if got[i] != old[i] {
			t.Errorf("the plan is\n%s\nwant\n%s", got[i], old[i])
		}
	}
}

// After pg_upgrade, or initdb and a restored dump, timelines begin anew, and
// backups of old may have neither times nor an identifier.
func TestOldBackupsWithoutTimesDoNotOutliveNewOnes(t *testing.T) {
	old := &lineage.Backup{Name: "base_00000005000000000000006C", Finished: true, ModTime: noon.Add(-time.Hour), Sentinel: &catalog.Sentinel{LSN: 1}}
	_, err := retain.Make(append(build(documented), old), parsed(t, "retain FULL 1", "", ""))
	if fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "base_00000005000000000000006C has no recorded start time") {
		t.Errorf("%v", err)
	}
}

func TestWALOfAClusterThatBeganAnewStays(t *testing.T) {
	p := parsed(t, "retain FULL 1", "", "")
	b := &lineage.Backup{Name: "base_00000005000000000000006C", Finished: true, ModTime: noon,
		Sentinel: &catalog.Sentinel{LSN: 0x6C << 24}, Metadata: &catalog.Metadata{StartTime: noon, FinishTime: noon}}
	plan, err := retain.Make([]*lineage.Backup{b}, p)
	if err != nil {
		t.Fatal(err)
	}
	for put, want := range map[time.Duration]bool{-time.Minute: true, time.Minute: false} {
		for key, want := range map[string]bool{"wal_005/" + zeros + "70.lz4": want, "wal_005/00000005000000000000006B.lz4": true, "wal_005/00000005000000000000006C.lz4": false} {
			if remove, _ := plan.Object(key, noon.Add(put)); remove != want {
				t.Errorf("%s, put %v after the backup: remove %v", key, put, remove)
			}
		}
	}
}

// A standby may follow its primary to another timeline while it is backed up.
func TestAPermanentBackupKeepsItsWALOnTheNextTimelineToo(t *testing.T) {
	backups := build(documented, "C0")
	backups[0].Metadata.FinishLSN = 0xC2<<24 + 100
	later := build([]one{{hour: 200, seg: "F0"}})[0]
	later.Name = strings.Replace(later.Name, "base_00000001", "base_00000003", 1)
	plan, err := retain.Make(append(backups, later), parsed(t, "retain FULL 1", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{
		"0000000100000000000000C1": false, "0000000100000000000000C3": true, "0000000200000000000000C1": false, "0000000200000000000000C2": false,
		"0000000200000000000000C3": true, "0000000200000000000000BF": true,
	} {
		if remove, _ := plan.Object("wal_005/"+key, noon); remove != want {
			t.Errorf("%s: remove %v", key, remove)
		}
	}
}

// A delta goes with its full backup in the row, whatever its host's clock said.
func TestADeltaOfAWrongClockIsNotOlderThanItsFull(t *testing.T) {
	backups := build(documented)
	backups[7].Metadata.StartTime = noon.Add(-time.Hour) // D1, of D0
	plan, err := retain.Make(backups, parsed(t, "retain FULL 3", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range plan.Verdicts {
		if strings.HasPrefix(v.Backup.Name, "base_"+zeros+"D1") && !v.Keep {
			t.Errorf("%+v", v)
		}
	}
}
