//go:build linux

package test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"walg/lib/postgres/pgtest"
)

// goldenSite is a site without a server, for restores from an archive that
// WAL-G wrote.
func goldenSite(t testing.TB, archive string) *site {
	t.Helper()
	dir := pgtest.Dir(t)
	stored := filepath.Join(dir, "store")
	goldenStore(t, archive, stored)
	pgtest.Own(t, stored)
	settings := []string{"WALG_FILE_PREFIX=" + stored}
	if keys := filepath.Join("../../testdata/golden", archive, "keys"); exists(keys) {
		readable := filepath.Join(dir, "keys")
		if err := os.CopyFS(readable, os.DirFS(keys)); err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, readable)
		for _, setting := range goldenKeys[archive] {
			settings = append(settings, strings.ReplaceAll(setting, "KEYS", readable))
		}
	}
	return &site{
		Cluster:  &pgtest.Cluster{Major: 15, Dir: dir, BinDir: pgtest.BinDir(t, 15), SocketDir: dir, Port: 5432, User: "pgtest"},
		t:        t,
		store:    stored,
		settings: settings,
	}
}

// goldenKeys are the settings of the encrypted archives, whose keys are in the
// folder KEYS.
var goldenKeys = map[string][]string{
	"pgp":       {"WALG_PGP_KEY_PATH=KEYS/priv.gpg"},
	"pgp_pass":  {"WALG_PGP_KEY_PATH=KEYS/priv.gpg", "WALG_PGP_KEY_PASSPHRASE=s3cr3t phrase"},
	"libsodium": {"WALG_LIBSODIUM_KEY_PATH=KEYS/key.hex", "WALG_LIBSODIUM_KEY_TRANSFORM=hex"},
}

// goldenStore copies an archive's store to dir, and expands the objects that
// are kept compressed to save room.
func goldenStore(t testing.TB, archive, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../testdata/golden", archive, "store"))); err != nil {
		t.Fatal(err)
	}
	packed, err := filepath.Glob(dir + "/basebackups_005/*/tar_partitions/*.xz")
	if err != nil {
		t.Fatal(err)
	}
	if len(packed) > 0 {
		if out, err := exec.Command("unxz", packed...).CombinedOutput(); err != nil {
			t.Fatalf("unxz: %v\n%s", err, out)
		}
	}
}

func goldenLines(t testing.TB, archive, name string) []string {
	t.Helper()
	text := string(read(t, filepath.Join("../../testdata/golden", archive, name)))
	return strings.Split(strings.TrimSpace(text), "\n")
}

// What WAL-G wrote comes back as WAL-G restored it, file by file; and with its
// WAL replayed, as it was in the database, value by value.
func TestGoldenArchivesRestoreToTheSameTreeAndContent(t *testing.T) {
	for _, archive := range []string{
		"lz4_full", "multi_tar", "tablespace", "brotli", "lzma", "zstd", "pgp", "pgp_pass", "libsodium",
	} {
		t.Run(archive, func(t *testing.T) {
			together(t)
			s := goldenSite(t, archive)
			dir := s.place()
			elsewhere := filepath.Join(pgtest.Dir(t), "ts1")
			_, msg, status := s.run(`walg-backup-fetch "$DIR" -T /srv/pg/ts1="$NEW"`, "DIR="+dir, "NEW="+elsewhere)
			if warned := strings.Contains(msg, "no tablespace in /srv/pg/ts1"); status != 0 || warned != (archive != "tablespace") {
				t.Fatalf("status %d\n%s", status, msg)
			}
			want := goldenLines(t, archive, "expected.tree")
			if archive == "tablespace" {
				linksTo(t, dir, elsewhere)
				want = elsewhereTree(t, want, dir, elsewhere)
				sameLines(t, "the tablespace", shapes(tree(t, elsewhere)), []string{
					"d 700 .", "d 700 ./PG_15_202209061", "d 700 ./PG_15_202209061/5",
					"f 600 0 ./PG_15_202209061/5/16425", "f 600 73728 ./PG_15_202209061/5/16422", "f 600 8192 ./PG_15_202209061/5/16426",
				})
			}
			slices.Sort(want)
			sameLines(t, "the tree", tree(t, dir), want)

			c := s.recovery(dir, nil)
			c.Start()
			c.WaitFor("select pg_is_in_recovery()", "f")
			asked := goldenLines(t, archive, "expected.content")
			slices.Sort(asked)
			sameLines(t, "the content", content(t, c, asked, elsewhere), asked)
			clean(t, s, c)
		})
	}
}

// elsewhereTree is an expected tree as it is with the tablespace in another
// place: its link and its map name that.
func elsewhereTree(t testing.TB, want []string, dir, elsewhere string) []string {
	t.Helper()
	var changed []string
	for _, line := range want {
		switch {
		case strings.HasSuffix(line, " -> /srv/pg/ts1"):
			line = strings.Replace(line, "/srv/pg/ts1", elsewhere, 1)
		case strings.HasSuffix(line, " ./tablespace_map"):
			text := read(t, filepath.Join(dir, "tablespace_map"))
			line = fmt.Sprintf("f 600 %d %x ./tablespace_map", len(text), md5.Sum(text))
		}
		changed = append(changed, line)
	}
	return changed
}

// shapes are the lines of a tree without checksums.
func shapes(lines []string) []string {
	sum := regexp.MustCompile(`^(f \d+ \d+) [0-9a-f]{32} `)
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = sum.ReplaceAllString(line, "$1 ")
	}
	slices.Sort(out)
	return out
}

// content answers the questions that an expected.content asks: a checksum of
// pg_dumpall without its random lines, and rows and checksums of tables. The
// tablespace that is in elsewhere was in /srv/pg/ts1.
func content(t testing.TB, c *pgtest.Cluster, asked []string, elsewhere string) []string {
	t.Helper()
	var lines []string
	for _, line := range asked {
		name, _, _ := strings.Cut(line, " ")
		switch name {
		case "pg_dumpall_md5":
			lines = append(lines, fmt.Sprintf("%s %x", name, md5.Sum(bytes.ReplaceAll(dump(t, c), []byte(elsewhere), []byte("/srv/pg/ts1")))))
		case "marker", "in_ts":
			rows := c.SQL("postgres", "select md5(string_agg(r::text, '|' order by id)), count(*) from "+name+" r") // they have a column t
			rows = strings.Replace(rows, "|", " ", 1)
			if strings.Count(line, " ") == 1 { // without the number of rows
				rows, _, _ = strings.Cut(rows, " ")
			}
			lines = append(lines, name+" "+rows)
		default:
			rows := c.SQL("postgres", "select count(*), md5(string_agg(t::text, '|' order by t::text)) from "+name+" t")
			lines = append(lines, name+" "+strings.Replace(rows, "|", " ", 1))
		}
	}
	return lines
}

func dump(t testing.TB, c *pgtest.Cluster) []byte {
	t.Helper()
	cmd := exec.Command(pgtest.Tool(t, "pg_dumpall"))
	cmd.Env = append(os.Environ(), c.Env()...)
	var msg bytes.Buffer
	cmd.Stderr = &msg
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dumpall: %v\n%s", err, &msg)
	}
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*\n`).ReplaceAll(out, nil)
}
