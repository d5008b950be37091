package session_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"walg/lib/postgres"
	"walg/lib/postgres/pgtest"
)

// copyByRules copies a live data directory as a backup does, the contents of
// tablespaces in place of their links. It returns the paths left out.
func copyByRules(t *testing.T, r *postgres.Rules, src, dst, rel string) (skipped []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(src, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // dropped meanwhile
	} else if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(rel, e.Name())
		from, to := filepath.Join(src, path), filepath.Join(dst, path)
		fi, err := os.Lstat(from)
		if err != nil {
			continue // dropped meanwhile
		}
		class := r.Classify(filepath.ToSlash(path), fi)
		if class == postgres.Skip || class == postgres.Defer {
			skipped = append(skipped, path)
			continue
		}
		if fi, err = os.Stat(from); err != nil { // follows links to tablespaces
			continue
		}
		switch {
		case fi.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			if class == postgres.Keep {
				skipped = append(skipped, copyByRules(t, r, src, dst, path)...)
			}
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	return skipped
}

func TestBackupByTheRulesRestores(t *testing.T) {
	for _, major := range []int{10, 15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Major: major, Checksums: true})
			archive := c.Mkdir("archive")
			c.Stop("fast")
			c.Configure(map[string]string{"archive_mode": "on", "archive_command": "cp %p " + archive + "/%f"})
			c.Start()
			c.MustExec("create tablespace elsewhere location '" + c.Mkdir("elsewhere") + "'")
			c.MustExec("create table kept tablespace elsewhere as select generate_series(1, 1000) a",
				"create unlogged table un as select generate_series(1, 1000) a",
				"create unlogged table un2 tablespace elsewhere as select 1 a", "checkpoint")
			temp := c.Connect("postgres")
			if _, err := temp.Exec(t.Context(), "create temp table tt as select generate_series(1, 1000) a"); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{} // the file of each table that must not be copied
			for _, table := range []string{"un", "un2"} {
				files[table] = c.SQL("postgres", "select pg_relation_filepath('"+table+"')")
			}
			var file string
			if err := temp.QueryRow(t.Context(), "select pg_relation_filepath('tt')").Scan(&file); err != nil {
				t.Fatal(err)
			}
			files["tt"] = file

			s := open(t, c)
			control, err := s.CheckDir(t.Context(), c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			started, err := s.Start(t.Context(), "x", true)
			if err != nil {
				t.Fatal(err)
			}
			c.MustExec("insert into kept values (1001)")
			dst := filepath.Join(pgtest.Dir(t), "data")
			if err := os.Mkdir(dst, 0o700); err != nil {
				t.Fatal(err)
			}
			left := copyByRules(t, postgres.NewRules(c.DataDir, major, control.CatalogVersion), c.DataDir, dst, "")
			for table, file := range files {
				if !strings.Contains("\n"+strings.Join(left, "\n")+"\n", "\n"+file+"\n") {
					t.Errorf("%s of table %s was copied", file, table)
				}
				if _, err := os.Stat(filepath.Join(dst, file+"_init")); err != nil && table != "tt" {
					t.Errorf("init fork of %s: %v", table, err)
				}
			}
			control, err = postgres.ReadControl(t.Context(), c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			stopped, err := s.Stop(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.WaitArchived(t.Context(), c.DataDir, started, stopped); err != nil {
				t.Fatal(err)
			}

			// Restore with the tablespace at another place.
			for name, data := range map[string][]byte{"backup_label": stopped.Label, "global/pg_control": control.Raw} {
				if err := os.WriteFile(filepath.Join(dst, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			restored := pgtest.New(t, pgtest.Options{Major: major, DataDir: dst, Stopped: true})
			link(t, restored, filepath.Join(dst, "pg_tblspc"))
			restore := fmt.Sprintf("restore_command = 'cp %s/%%f %%p'\n", archive)
			if major >= 12 {
				restored.Append("postgresql.conf", restore)
				restored.Append("recovery.signal", "")
			} else {
				restored.Append("recovery.conf", restore)
			}
			restored.Append("postgresql.conf", "archive_mode = off\n")
			pgtest.Own(t, dst)
			restored.Start()
			restored.WaitFor("select pg_is_in_recovery()", "f")
			if got := restored.SQL("postgres", "select count(*), max(a) from kept; select count(*) from un; select count(*) from un2"); got != "1001|1001\n0\n0" {
				t.Errorf("restored %q", got)
			}
		})
	}
}

// link moves restored tablespaces out of the data directory and links them.
func link(t *testing.T, c *pgtest.Cluster, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target := filepath.Join(c.Mkdir("spaces"), e.Name())
		err := os.Rename(filepath.Join(dir, e.Name()), target)
		if err == nil {
			err = os.Symlink(target, filepath.Join(dir, e.Name()))
		}
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, target)
	}
}
