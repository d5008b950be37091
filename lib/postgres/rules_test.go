package postgres

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a directory tree: names that end in / are directories, a -> b is
// a symbolic link, all others are empty files.
func tree(t testing.TB, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		path := filepath.Join(root, filepath.FromSlash(strings.TrimSuffix(link, "/")))
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(target, path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o700)
		default:
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func classify(t testing.TB, r *Rules, root, path string) Class {
	t.Helper()
	fi, err := os.Lstat(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return r.Classify(path, fi)
}

func TestRules(t *testing.T) {
	cases := map[Class][]string{
		Keep: {
			"PG_VERSION", "postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "current_logfiles", "recovery.signal", "backup_label.old",
			"base/", "base/5/", "base/5/PG_VERSION", "base/5/pg_filenode.map", "base/5/1259", "base/5/1259_fsm", "base/5/1259.1", "base/5/1259_vm.2",
			"base/5/20000_init", // unlogged: the fork that it is reset to
			"base/6/20000",      // an ordinary relation, unlogged is the one in database 5
			"global/1262", "global/pg_filenode.map", "log/", "log/postgresql.log", "pg_xact/0000", "pg_logical/mappings/x",
			"pg_tblspc/", "pg_tblspc/16421/", "pg_tblspc/16421/PG_15_202209061/", "pg_tblspc/16421/PG_15_202209061/5/16422",
			"pg_tblspc/16421/PG_15_202209061/5/30000_init",
			// Names that mean something elsewhere only.
			"base/postmaster.pid", "mine/backup_label", "mine/pg_wal/", "mine/pg_wal/x", "mine/pgsql_tmp/", "mine/t1_2", "mine/pg_internal.init", "mine/pg_control",
			"mine/global/pg_control", "t1_2", "pgsql_tmp1", "base/5/pgsql_tmp1.0", "base/5/pg_control", "log/pg_stat_tmp/", "global/global/",
			"base/5/t1_x", "base/5/t_5", "base/5/tx_5", "base/5/1259_foo", "base/5/1259.x", "mine/PG_14_202107181/", "standby.signal.bak", "base/5/0",
			"postmaster.pid.old", "pg_tblspc/notes", "pg_tblspc/notes.d/x/y",
		},
		Hollow: {"pg_wal/", "pg_replslot/", "pg_dynshmem/", "pg_notify/", "pg_serial -> /dev", "pg_snapshots/", "pg_stat_tmp -> /tmp", "pg_subtrans/"},
		Skip: {
			"postmaster.pid", "postmaster.opts", "backup_label", "tablespace_map", "backup_manifest", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
			"recovery.conf", "standby.signal", ".walg-restore",
			"base/pgsql_tmp/", "base/pgsql_tmp12/", "pg_tblspc/16421/PG_15_202209061/pgsql_tmp/",
			"global/pg_internal.init", "base/5/pg_internal.init", "base/5/pg_internal.init.123", "pg_tblspc/16421/PG_15_202209061/5/pg_internal.init",
			"base/5/t3_16400", "base/5/t3_16400_fsm", "base/5/t12_16400.1", "pg_tblspc/16421/PG_15_202209061/5/t3_4", "base/5/t3_16401_init",
			"base/5/20000", "base/5/20000.1", "base/5/20000_fsm", "base/5/20000_vm.3", "pg_tblspc/16421/PG_15_202209061/5/30000",
			"pg_tblspc/16421/PG_14_202107181/", "pg_tblspc/16421/PG_15_202209062/", "pg_tblspc/16421/lost+found/", "pg_tblspc/16421/file",
			"pg_tblspc/16421/PG_14_202107181/5/1",
		},
		Defer: {"global/pg_control"},
	}
	root := tree(t, slices.Concat(cases[Keep], cases[Hollow], cases[Skip], cases[Defer])...)
	r := NewRules(root, 15, 202209061)
	for class, names := range cases {
		for _, name := range names {
			path, _, _ := strings.Cut(strings.TrimSuffix(name, "/"), " -> ")
			if got := classify(t, r, root, path); got != class {
				t.Errorf("%s: class %d, want %d", path, got, class)
			}
		}
	}
	if got := classify(t, r, root, "."); got != Keep {
		t.Errorf("the data directory itself: %d", got)
	}
}

func TestFilesWithNamesOfDirectoriesAreKept(t *testing.T) {
	root := tree(t, "pg_wal", "postmaster.pid/", "base/5/16400/")
	r := NewRules(root, 15, 1)
	for _, path := range []string{"pg_wal", "postmaster.pid", "base/5/16400"} {
		if got := classify(t, r, root, path); got != Keep {
			t.Errorf("%s: %d", path, got)
		}
	}
}

func TestUnloggedRelationsBeyondTheCacheAreFound(t *testing.T) {
	root := tree(t, "base/5/1_init", "base/5/2_init", "base/5/3_init", "base/5/4")
	nodes, overflow := initForks(filepath.Join(root, "base", "5"), 2)
	if len(nodes) != 2 || !overflow {
		t.Fatalf("%v, %v", nodes, overflow)
	}
	r := NewRules(root, 15, 1)
	r.dir, r.unlogged, r.overflow = "base/5", nodes, overflow
	for node, want := range map[uint32]bool{1: true, 2: true, 3: true, 4: false} {
		if got := r.isUnlogged("base/5", node); got != want {
			t.Errorf("%d: %v", node, got)
		}
	}
	if r.isUnlogged("base/gone", 1) {
		t.Error("a directory that vanished has unlogged relations")
	}
}

func TestRelationNames(t *testing.T) {
	for path, want := range map[string]Relation{
		"global/1262":                     {Node: 1262},
		"base/5/1259":                     {Node: 1259},
		"base/5/1259.12":                  {Node: 1259, Segment: 12},
		"base/5/1259_fsm":                 {Node: 1259, Fork: FreeSpaceFork},
		"base/5/1259_vm.1":                {Node: 1259, Fork: VisibilityFork, Segment: 1},
		"base/5/4294967295_init":          {Node: 4294967295, Fork: InitFork},
		"base/5/t3_16400_fsm.2":           {Node: 16400, Fork: FreeSpaceFork, Segment: 2, Temp: true},
		"pg_tblspc/1/PG_15_202209061/5/9": {Node: 9},
	} {
		if got, ok := ParseRelation(path); !ok || got != want {
			t.Errorf("%s became %+v, %v", path, got, ok)
		}
	}
	for _, path := range []string{
		"1259", "/base/5/1259", "base/1259", "base/x/1259", "base/5/x/1259", "base/5/", "base/5/01259", "base/5/0", "base/5/4294967296",
		"base/5/1259.0", "base/5/1259.", "base/5/1259.01", "base/5/1259_", "base/5/1259_main", "base/5/1259_fsm_vm", "base/5/t_1", "base/5/t1_", "base/5/tt1_1",
		"base/5/1259.1_fsm", "base/5/ 1", "base/5/+1", "global/5/1", "pg_tblspc/1/2", "pg_tblspc/1/PG_15/2", "pg_tblspc/x/PG_15/5/2", "pg_tblspc/1//5/2", "pg_wal/1259", "",
	} {
		if got, ok := ParseRelation(path); ok {
			t.Errorf("%q is taken for %+v", path, got)
		}
	}
}

func TestMemberNamesBecomePaths(t *testing.T) {
	for name, want := range map[string]string{
		"/": ".", "./": ".", "": ".", ".": ".", "/base/1/1259": "base/1/1259", "./base/1/": "base/1", "base/1/1259": "base/1/1259", "//base//1": "base/1", "../../etc": "etc",
	} {
		if got := Member(name); got != want {
			t.Errorf("%q became %q", name, got)
		}
	}
}

func BenchmarkRules(b *testing.B) {
	root := tree(b, "base/5/1_init")
	r := NewRules(root, 15, 1)
	fi := fakeFile{}
	for i := range b.N {
		r.Classify(fmt.Sprintf("base/5/%d", i%100000+2), fi)
	}
}

func FuzzRelationsHaveTheNumberOfTheirName(f *testing.F) {
	f.Add("16384_fsm.1")
	f.Fuzz(func(t *testing.T, s string) {
		if r, ok := ParseRelation("base/1/" + s); ok && !strings.Contains(s, fmt.Sprint(r.Node)) {
			t.Errorf("%q has number %d", s, r.Node)
		}
	})
}

type fakeFile struct{ fs.FileInfo }

func (fakeFile) IsDir() bool       { return false }
func (fakeFile) Mode() fs.FileMode { return 0 }
