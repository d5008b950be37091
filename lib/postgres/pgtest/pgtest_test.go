package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestClusterStartsStopsAndSurvivesKill(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		c := New(t, Options{Major: major, Checksums: true, Config: map[string]string{"work_mem": "3MB"}})
		if got := c.SQL("postgres", "select current_setting('server_version_num')::int / 10000; show work_mem; show data_checksums"); got != strings.Join([]string{strconv.Itoa(major), "3MB", "on"}, "\n") {
			t.Fatalf("got %q", got)
		}
		c.MustExec("create table t as select generate_series(1, 100) a")
		c.Kill()
		if c.Running() {
			t.Fatal("runs after kill")
		}
		c.Start()
		if got := c.SQL("postgres", "select count(*), max(a) from t"); got != "100|100" {
			t.Fatalf("after a crash: %q", got)
		}
		c.Stop("fast")
		if _, err := c.TrySQL("postgres", "select 1"); err == nil {
			t.Fatal("a stopped server answers")
		}
		c.Stop("fast")
	})
}

func TestStandbyFollowsAndPromotes(t *testing.T) {
	for _, major := range []int{Majors[0], Majors[len(Majors)-1]} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			c := New(t, Options{Major: major})
			s := c.Standby(nil)
			c.MustExec("create table t as select 7 a")
			s.WaitFor("select a from t", "7")
			s.Promote()
			s.MustExec("insert into t values (8)")
		})
	}
}

func TestPgbenchWorksWithEveryVersion(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		c := New(t, Options{Major: major})
		c.PgbenchInit(1)
		if out, err := c.Pgbench("-t", "10").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

func TestBrokenClusterIsAnErrorWithItsLog(t *testing.T) {
	c := New(t, Options{Stopped: true})
	if err := os.Remove(filepath.Join(c.DataDir, "global", "pg_control")); err != nil {
		t.Fatal(err)
	}
	err := c.TryStart()
	if err == nil || !strings.Contains(err.Error(), "pg_control") {
		t.Fatalf("got %v", err)
	}
}
