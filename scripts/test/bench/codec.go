package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

var sample = flag.Int("sample", 192, "MiB of data files, and at most of WAL, that codec works on")

// A contest is the same work by walg and by the C program, each a line of a
// shell that opens files only; $1 is the file.
type contest struct {
	name   string
	walg   string
	peer   string  // empty where the figure is MB/s
	least  float64 // of the peer's throughput, or MB/s
	bigger float64 // how much larger than the peer's output ours may be, or 0 where that is no figure
	window float64 // MiB, of what is read; 0 for a writer
}

// codecs measures walg-compress and walg-crypt beside the C programs, on a
// cluster's data files and its WAL.
func (b *bench) codecs() {
	contests := b.compressors()
	crypts, done := b.cryptors()
	defer done()
	for _, file := range []string{b.concatenated("data", filepath.Join(b.cluster(), "base")), b.concatenated("wal", filepath.Join(b.work, "archive"))} {
		size, err := os.Stat(file)
		check(err)
		fmt.Printf("== %s, %d MB\n", filepath.Base(file), size.Size()/1e6)
		for _, pair := range slices.Concat(contests, crypts) {
			packed := file + ".packed"
			line := pair[0].peer
			if line == "" {
				line = pair[0].walg
			}
			shell(line, file, packed)
			b.contest(pair[0], file, size.Size())
			b.contest(pair[1], packed, size.Size())
		}
	}
}

// compressors are the methods, there and back. -d gets what the C program
// wrote.
func (b *bench) compressors() (all [][2]contest) {
	for _, m := range []struct {
		method, peer, back string
		least, leastBack   float64
		bigger, window     float64
	}{
		{"lz4", "lz4 -1 -c", "lz4 -dc", 1, 1, 0.03, 4},
		{"zstd", "zstd -3 -q -c", "zstd -q -dc", 1, 1, 0.03, 8},
		{"brotli", "brotli -q 3 -c", "brotli -dc", 1, 0.35, 0, 16},
		{"lzma", "xz --format=lzma -0 -c", "xz --format=lzma -dc", 0.25, 0.45, 0, 8},
	} {
		all = append(all, [2]contest{
			{m.method, "walg-compress -m " + m.method, m.peer, m.least, m.bigger, 0},
			{m.method + " -d", "walg-compress -d -m " + m.method, m.back, m.leastBack, 0, m.window},
		})
	}
	return all
}

// cryptors are OpenPGP and libsodium's secretstream, with keys made for this
// run; done removes them.
func (b *bench) cryptors() (all [][2]contest, done func()) {
	home, err := os.MkdirTemp("", "walg-gpg") // a short path, for the agent's socket
	check(err)
	gpg := "gpg --homedir " + home + " --batch --quiet --no-tty --trust-model always"
	shell(gpg+" --pinentry-mode loopback --passphrase '' --quick-gen-key bench rsa3072 encrypt,sign never", os.DevNull, os.DevNull)
	key := filepath.Join(home, "key.asc")
	shell(gpg+" --armor --export-secret-keys", os.DevNull, key)
	sodium := "WALG_LIBSODIUM_KEY_TRANSFORM=hex WALG_LIBSODIUM_KEY=" + strings.Repeat("5a", 32)
	pgp := "WALG_PGP_KEY_PATH=" + key
	all = [][2]contest{
		{
			{"openpgp", pgp + " walg-crypt", gpg + " --compress-algo none --cipher-algo AES256 -e -r bench", 1.7, 0, 0},
			{"openpgp -d", pgp + " walg-crypt -d", gpg + " -d", 1, 0, 1},
		},
		{
			{"libsodium", sodium + " walg-crypt", "", 500, 0, 0},
			{"libsodium -d", sodium + " walg-crypt -d", "", 500, 0, 1},
		},
	}
	return all, func() {
		check(exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run())
		check(os.RemoveAll(home))
	}
}

// contest runs one, in turns, and prints every run. The output goes into a pipe,
// as it does in use.
func (b *bench) contest(c contest, file string, plain int64) {
	var ours, theirs []result
	one := func(line string) result {
		return run(nil, []string{"sh", "-c", "export LC_ALL=C; " + assigned(line) + ` <"$1"`, "sh", file}, []string{"cat"})
	}
	one(c.walg) // the file is in memory, and the program
	for range *runs {
		if c.peer != "" {
			theirs = append(theirs, one(c.peer))
		}
		ours = append(ours, one(c.walg))
	}
	speed := func(rs []result) float64 {
		var all []float64
		for _, r := range rs {
			all = append(all, r.wall.Seconds())
		}
		return float64(plain) / 1e6 / median(all)
	}
	most := 0.0
	for _, r := range ours {
		most = max(most, r.stages[0])
	}
	fmt.Printf("%s\n    walg %v\n", c.name, ours)
	if c.peer == "" {
		b.least(c.name, speed(ours), c.least, " MB/s")
	} else {
		fmt.Printf("    peer %v\n    walg %.0f MB/s, peer %.0f MB/s\n", theirs, speed(ours), speed(theirs))
		b.least(c.name+" to "+strings.Fields(c.peer)[0], speed(ours)/speed(theirs), c.least, "")
	}
	if c.bigger > 0 {
		a, z := outputSize(c.walg, file), outputSize(c.peer, file)
		b.limit(fmt.Sprintf("%s: size, %d to %d bytes", c.name, a, z), float64(a)/float64(z), 1+c.bigger, "")
	}
	limit := 128.0
	if c.window > 0 {
		limit = c.window + 64
	}
	b.limit(c.name+": resident", most, limit, " MiB")
}

// assigned puts exec before a line's command, behind its assignments.
func assigned(line string) string {
	words := strings.Fields(line)
	i := slices.IndexFunc(words, func(w string) bool { return !strings.Contains(w, "=") })
	if i == 0 {
		return "exec " + line
	}
	return "export " + strings.Join(words[:i], " ") + "; exec " + strings.Join(words[i:], " ")
}

// shell runs a line from one file to another.
func shell(line, from, to string) {
	cmd := exec.Command("sh", "-c", assigned(line)+` <"$1" >"$2"`, "sh", from, to)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		fatal(line, err, said.Bytes())
	}
}

func outputSize(line, from string) int64 {
	to := from + ".out"
	shell(line, from, to)
	fi, err := os.Stat(to)
	check(err)
	check(os.Remove(to))
	return fi.Size()
}

// concatenated makes a file of the files below dir, of at most so many MiB: the
// largest first, of which something of each; of WAL the newest, which is of
// pgbench's load and not of its loading.
func (b *bench) concatenated(name, dir string) string {
	type found struct {
		name string
		size int64
	}
	var files []found
	check(filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			files = append(files, found{name, fi.Size()})
		}
		return err
	}))
	slices.SortFunc(files, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(b.name, a.name))
	})
	whole := filepath.Join(b.work, name)
	out, err := os.Create(whole)
	check(err)
	left := int64(*sample) << 20
	for _, f := range files {
		in, err := os.Open(f.name)
		check(err)
		n, err := io.Copy(out, io.LimitReader(in, min(left, 64<<20))) // something of each large table
		check(err)
		check(in.Close())
		left -= n
	}
	check(out.Close())
	return whole
}
