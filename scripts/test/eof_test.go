//go:build linux

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run runs the pipeline and checks that the object is whole or that the
// store is as it was. It returns the broken stage's status and what was said.
func (p *pipeline) run(t *testing.T, c *cargo, dir string, broken int, env ...string) (status, stage int, said string) {
	t.Helper()
	const key = "backups/new/tree.tar.lz4"
	before := snapshot(t, dir)
	scratch := open(t, folder(t))
	env = append(env, "WALG_FILE_PREFIX="+dir, "D="+c.dir, "K="+key, "S="+filepath.Join(scratch, "status"))
	_, said, status = p.user.sh(t, p.script(broken), env...)
	p.undo()
	stage = -1
	if broken >= 0 {
		text, err := os.ReadFile(filepath.Join(scratch, "status"))
		if err == nil {
			stage, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err != nil {
			t.Fatalf("%s: the stage's status: %v\n%s", p.script(broken), err, said)
		}
	}
	complain := func(what string) {
		t.Errorf("%s\n%s: status %d, the stage's %d\n%s", what, p.script(broken), status, stage, said)
	}
	object := filepath.Join(dir, key)
	if _, err := os.Stat(object); err == nil {
		got, msg, _ := sh(t, `lz4 -d -c "$F" | sha256sum`, "F="+object)
		if got != c.tar+"  -\n" {
			complain("the object is torn: " + msg)
		}
		if status != 0 && !(broken == 3 && stage > 128) {
			complain("there is an object")
		}
		if err := os.Remove(object); err != nil {
			t.Fatal(err)
		}
	} else if status == 0 {
		complain("there is no object")
	}
	after := snapshot(t, dir)
	if stage == 128+9 && broken == 3 || status == 0 {
		rest, left := withoutLeftovers(after)
		was, _ := withoutLeftovers(before)
		if rest != was || len(left) > 1 {
			complain(fmt.Sprintf("the store has changed:\n%swas\n%s", after, before))
		}
		if err := os.RemoveAll(filepath.Join(dir, "backups")); err != nil {
			t.Fatal(err)
		}
	} else if after != before {
		complain(fmt.Sprintf("the store has changed:\n%swas\n%s", after, before))
	}
	return status, stage, said
}

// stocked makes a store that everybody may write to, with an object in it.
func stocked(t testing.TB) string {
	t.Helper()
	dir := open(t, store(t))
	write(t, filepath.Join(dir, "other", "object"), []byte("old"))
	return dir
}

// The heart of the contract: whatever becomes of a stage, walg-put succeeds
// and the object is whole, or it fails and the store is as it was.
func TestABrokenStageNeverMakesAnObject(t *testing.T) {
	r := random(t)
	cargos := []*cargo{newCargo(t, r, 1), newCargo(t, r, 300_000), newCargo(t, r, 6<<20)}
	for k, name := range []string{"walg-tar", "walg-compress", "walg-crypt", "walg-put"} {
		for _, fault := range slices.Sorted(maps.Keys(breakdowns)) {
			t.Run(name+" "+fault, func(t *testing.T) {
				r := random(t)
				dir := stocked(t)
				fired, whole := 0, 0
				ways := breakdowns[fault]
				want := rounds(6, 200)
				round := 0
				for ; fired < want && round < 5*want; round++ {
					c := cargos[min(r.IntN(6), len(cargos)-1)]
					p := newPipeline()
					happened := ways[round%len(ways)](t, r, c, p, k)
					status, stage, said := p.run(t, c, dir, k)
					switch {
					case happened(stage, said):
						fired++
					case status != 0:
						t.Errorf("%s: nothing broke, and the status is %d\n%s", p.script(k), status, said)
					}
					if status == 0 {
						whole++
					}
				}
				t.Logf("%d rounds, in which the fault fired %d times and the object was made %d times", round, fired, whole)
				if fired < want {
					t.Errorf("the fault did not fire %d times", want)
				}
			})
		}
	}
}

func TestAWholePipelineIsNeverRefused(t *testing.T) {
	r := random(t)
	cargos := []*cargo{newCargo(t, r, 1), newCargo(t, r, 300_000), newCargo(t, r, 6<<20)}
	dir := stocked(t)
	for round := range rounds(15, 500) {
		p := newPipeline()
		if round%3 == 0 {
			p.user = nobody()
		}
		c := cargos[r.IntN(len(cargos))]
		if k := r.IntN(5); k < 4 { // slow, at times
			p.stages[k] = fmt.Sprintf("stalls-at %d %s", r.Int64N(c.out[k]), p.stages[k])
		}
		if status, _, said := p.run(t, c, dir, -1); status != 0 {
			t.Errorf("%s: status %d\n%s", p.script(-1), status, said)
		}
	}
}

// freight is a file to store, its compressed form, and a place for what
// scripts make on the way.
func freight(t testing.TB) (env []string, plain, packed string) {
	t.Helper()
	dir := folder(t)
	plain, packed = filepath.Join(dir, "file"), filepath.Join(dir, "file.lz4")
	r := random(t)
	content := make([]byte, 300_000)
	for i := range content[:len(content)/2] {
		content[i] = byte(r.Uint32())
	}
	write(t, plain, content)
	if _, msg, status := sh(t, `walg-compress "$F" -o "$Z"; chmod 644 "$Z"`, "F="+plain, "Z="+packed); status != 0 {
		t.Fatal(msg)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"F=" + plain, "Z=" + packed, "W=" + open(t, work), "DIES=" + dies}, plain, packed
}

// dies is a COMMAND that kills the filter that reads it, after all data and
// before the end.
const dies = `cat "$F"; kill -9 $PPID; exec sleep 60`

// A writer is a script that ends in "walg-put k", in which somebody writes.
type writer struct {
	script string
	status int
	says   string // a part of standard error
	stores string // "plain", "packed", "any" or "" for nothing
}

// Who writes into the pipe decides: only walg programs can say that they have
// finished, one to a pipe.
func writers(t *testing.T, shell func(testing.TB, string, ...string) (string, string, int), cases []writer) {
	t.Helper()
	env, plain, packed := freight(t)
	want := map[string]string{"plain": digest(t, plain), "packed": digest(t, packed)}
	for _, c := range cases {
		t.Run(c.script, func(t *testing.T) {
			dir := stocked(t)
			before := snapshot(t, dir)
			_, said, status := shell(t, c.script, append(env, "WALG_FILE_PREFIX="+dir)...)
			if status != c.status || !strings.Contains(said, c.says) {
				t.Errorf("status %d, want %d and %q\n%s", status, c.status, c.says, said)
			}
			if c.stores == "" {
				if after := snapshot(t, dir); after != before {
					t.Errorf("the store has changed:\n%swas\n%s", after, before)
				}
				return
			}
			if got := digest(t, filepath.Join(dir, "k")); c.stores != "any" && got != want[c.stores] {
				t.Errorf("the object is not the %s file\n%s", c.stores, said)
			}
		})
	}
}

const (
	cannotSay = "comes from a program that cannot say whether it finished"
	tooMany   = "was written by more than one walg program"
	tooEarly  = "before its producer had finished"
)

func TestOnlyAWalgWriterEarnsTheEnd(t *testing.T) {
	writers(t, sh, []writer{
		{`walg-compress "$F" | walg-put k`, 0, "", "packed"},
		{`walg-compress <"$F" | walg-crypt | walg-put k`, 0, "", "packed"},
		{`walg-put k <"$F"`, 0, "", "plain"},

		// Programs that know nothing of it.
		{`cat "$F" | walg-put k`, 76, cannotSay, ""},
		{`cat "$F" | walg-put k --trust-eof`, 0, "", "plain"},
		{`cat "$F" | WALG_TRUST_EOF=true walg-put k`, 0, "", "plain"},
		{`cat "$F" | WALG_TRUST_EOF=false walg-put k`, 76, cannotSay, ""},
		{`cat "$F" | WALG_TRUST_EOF=true walg-put k --trust-eof=false`, 76, cannotSay, ""},
		{`tee "$W/copy" <"$F" | walg-put k`, 76, cannotSay, ""},
		{`walg-compress "$F" | tee "$W/copy" | walg-put k`, 76, cannotSay, ""},
		{`walg-compress "$F" | tee "$W/copy" | walg-put k --trust-eof`, 0, "", "packed"},
		{`walg-compress "$F" | pv -q | walg-put k`, 76, cannotSay, ""},
		{`walg-compress "$F" | walg-crypt --through -- pv -q | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" | walg-crypt --through -- tee "$W/copy" | walg-put k`, 0, "", "packed"},
		{`dd if="$F" bs=64k 2>/dev/null | walg-put k`, 76, cannotSay, ""},
		{`printf hello | walg-put k`, 76, cannotSay, ""},
		{`echo hello | walg-put k --trust-eof`, 0, "", "any"},
		// The taint goes with the data, whoever passes it on.
		{`cat "$F" | walg-crypt | walg-put k`, 76, cannotSay, ""},
		{`cat "$F" | walg-compress | walg-crypt | walg-put k`, 76, cannotSay, ""},
		{`cat "$F" | walg-compress | walg-crypt | walg-put k --trust-eof`, 0, "", "packed"},
		{`cat "$F" | walg-crypt --through -- pv -q | walg-put k`, 76, cannotSay, ""},
		{`walg-put k -- sh -c 'cat "$F" | walg-crypt'`, 76, cannotSay, ""},
		{`walg-put k -- bash -o pipefail -c 'cat "$F" | walg-crypt'`, 0, "", "plain"},

		// Here-documents: the shell writes the pipe.
		{"walg-put k <<EOF\nhello\nEOF", 76, cannotSay, ""},
		{"walg-put k --trust-eof <<EOF\nhello\nEOF", 0, "", "any"},
		{"walg-crypt <<EOF | walg-put k\n$(head -c 200000 /dev/zero | tr '\\0' x)\nEOF", 76, cannotSay, ""},

		// More than one writer.
		{`{ walg-compress "$F"; walg-compress "$F"; } | walg-put k`, 76, tooMany, ""},
		{`{ walg-compress "$F"; walg-compress "$F"; } | walg-put k --trust-eof`, 76, tooMany, ""},
		{`{ walg-compress "$F"; walg-crypt /dev/null; } | walg-put k`, 76, "", ""},
		{`{ walg-compress "$F"; cat "$F"; } | walg-put k`, 76, "", ""},
		{`{ walg-compress "$F"; cat "$F"; } | walg-put k --trust-eof`, 76, tooEarly, ""},
		{`{ walg-compress "$F"; echo; } | walg-put k`, 76, "", ""},
		{`{ echo; walg-compress "$F"; } | walg-put k`, 76, "", ""},
		{`{ walg-compress "$F"; :; } | walg-put k`, 0, "", "packed"},
		{`{ walg-compress "$F" && walg-compress "$F"; } | walg-crypt | walg-put k`, 76, tooMany, ""},

		// What no pipe can show, as the manual says, and what to write instead.
		{`{ walg-compress "$F"; false; } | walg-put k`, 0, "", "packed"},
		{`{ walg-compress "$F"; no-such-program; } 2>/dev/null | walg-put k`, 0, "", "packed"},
		{`walg-put k -- sh -ec 'walg-compress "$F"; false'`, 76, "exit status 1", ""},
		{`walg-put k -- sh -ec 'walg-compress "$F"; no-such-program'`, 76, "exit status 127", ""},

		// Writers that others start.
		{`echo "$F" | xargs walg-compress | walg-put k`, 0, "", "packed"},
		{`echo "$F" | xargs cat | walg-put k`, 76, cannotSay, ""},
		{`echo "$F $F" | xargs -n 1 walg-compress | walg-put k`, 76, tooMany, ""},
		{`echo "$F $F" | xargs -n 1 -P 2 walg-compress | walg-put k`, 76, tooMany, ""},
		{`echo "$F" | xargs sh -c 'exec walg-crypt -- sh -c "$DIES"' | walg-put k`, 76, tooEarly, ""},
		{`env walg-compress "$F" | walg-put k`, 0, "", "packed"},
		{`sh -c 'exec walg-compress "$F"' | walg-put k`, 0, "", "packed"},
		{`(walg-compress "$F") | (walg-put k)`, 0, "", "packed"},
		{`nice walg-compress "$F" | walg-put k`, 0, "", "packed"},
		{`setsid -w walg-compress "$F" | walg-put k`, 0, "", "packed"},

		// Writers in the background.
		{`{ walg-compress "$F" & } | walg-put k`, 0, "", "packed"},
		{`{ walg-compress "$F" & wait; } | walg-put k`, 0, "", "packed"},
		{`{ walg-compress "$F" & walg-compress "$F" & wait; } | walg-put k`, 76, tooMany, ""},
		{`{ walg-compress "$F" & cat "$F"; wait; } | walg-put k`, 76, "", ""},
		{`{ walg-crypt -- sh -c "$DIES" & } | walg-put k`, 76, tooEarly, ""},
		{`{ walg-compress "$F"; sleep 0.3 & } | walg-put k`, 0, "", "packed"},

		// The nested form, where a parent sees each exit.
		{`walg-put k -- walg-crypt -- walg-compress "$F"`, 0, "", "packed"},
		{`walg-put k -- walg-crypt -- walg-compress -- cat "$F"`, 0, "", "packed"},
		{`walg-put k -- cat "$F"`, 0, "", "plain"},
		{`walg-put k -- walg-crypt -- cat "$F" "$W/absent"`, 76, "exit status 1", ""},
		{`walg-put k -- walg-crypt -- walg-crypt -- sh -c "$DIES"`, 76, "signal: killed", ""},

		// Names for the same pipe.
		{`walg-compress "$F" | walg-crypt /dev/stdin | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" | walg-crypt /dev/fd/0 | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" | walg-crypt /proc/self/fd/0 | walg-put k`, 0, "", "packed"},
		{`cat "$F" | walg-crypt /dev/stdin | walg-put k`, 76, cannotSay, ""},
		{`walg-crypt -- sh -c "$DIES" | walg-crypt /dev/stdin | walg-put k`, 76, tooEarly, ""},
		{`walg-compress "$F" -o /dev/stdout | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" -o /dev/stdout | walg-crypt -o /dev/fd/1 | walg-put k`, 0, "", "packed"},
		{`mkfifo "$W/fifo"; walg-compress "$F" >"$W/fifo" & walg-put k <"$W/fifo"`, 76, cannotSay, ""},
		{`mkfifo "$W/fifo"; walg-compress "$F" -o "$W/fifo" & walg-put k <"$W/fifo"`, 76, cannotSay, ""},
		{`mkfifo "$W/fifo"; walg-compress "$F" >"$W/fifo" & walg-put k --trust-eof <"$W/fifo"`, 0, "", "packed"},

		// Half of it is never whole.
		{`walg-compress "$F" | head -c 1000 | walg-put k`, 76, cannotSay, ""},
		{`walg-crypt -- sh -c "$DIES" | walg-put k`, 76, tooEarly, ""},
		{`walg-crypt -- sh -c "$DIES" | walg-put k --trust-eof`, 76, tooEarly, ""},
		{`walg-crypt -- sh -c "$DIES" | walg-crypt | walg-put k --trust-eof`, 76, "", ""},
		{`walg-compress "$W/absent" | walg-put k --trust-eof`, 66, "", ""},
	})
}

func TestBashWritersAreToldApartToo(t *testing.T) {
	writers(t, bash, []writer{
		{`walg-put k < <(walg-compress "$F")`, 0, "", "packed"},
		{`walg-put k < <(cat "$F")`, 76, cannotSay, ""},
		{`walg-put k < <(walg-crypt -- sh -c "$DIES")`, 76, tooEarly, ""},
		{`walg-crypt <(walg-compress "$F") | walg-put k`, 0, "", "packed"},
		{`walg-crypt <(cat "$F") | walg-put k`, 76, cannotSay, ""},
		{`walg-crypt <(walg-crypt -- sh -c "$DIES") | walg-put k`, 76, tooEarly, ""},
		{`walg-crypt <(walg-compress "$W/absent") | walg-put k`, 66, "", ""},
		{`walg-compress "$F" > >(walg-put k); wait $!`, 0, "", "packed"},
		{`walg-compress "$F" | walg-crypt /dev/stdin | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" |& walg-put k`, 0, "", "packed"},
		{`set -o pipefail; walg-compress "$W/absent" | walg-crypt | walg-put k`, 66, "", ""},
		{`coproc walg-compress "$F"; walg-put k <&"${COPROC[0]}"`, 0, "", "packed"},
		{"walg-put k --trust-eof <<EOF\nhello\nEOF", 0, "", "any"},
		// A here-string is a pipe or a file, as the shell likes.
		{`walg-put k <<<hello; s=$?; [ $s = 76 ] || { [ $s = 0 ] && walg-get k | grep -qx hello && rm "$WALG_FILE_PREFIX/k"; }`, 0, "", ""},
	})
}

// A pipe belongs to who made it, and only its owner may stamp it.
func TestAWriterUnderAnotherUserIsForeign(t *testing.T) {
	asRoot(t)
	writers(t, sh, []writer{
		{`su nobody -s /bin/sh -c 'walg-compress "$F"' | walg-put k`, 76, cannotSay, ""},
		{`su nobody -s /bin/sh -c 'walg-compress "$F"' | walg-put k --trust-eof`, 0, "", "packed"},
		{`runuser -u nobody -- walg-compress "$F" | walg-put k`, 76, cannotSay, ""},
		{`runuser -u nobody -- walg-compress "$F" | walg-put k --trust-eof`, 0, "", "packed"},
		{`setpriv --reuid=65534 --clear-groups walg-compress "$F" | walg-crypt | walg-put k`, 76, cannotSay, ""},
		{`walg-put k -- su nobody -s /bin/sh -c 'walg-compress "$F"'`, 0, "", "packed"},
		{`walg-put k -- runuser -u nobody -- walg-compress "$F"`, 0, "", "packed"},
		{`walg-put k -- runuser -u nobody -- walg-crypt -- sh -c "$DIES"`, 76, "exit status 137", ""},
		{`walg-put k -- su nobody -s /bin/sh -c 'walg-crypt -- sh -c "$DIES"'`, 76, "exit status 137", ""},
		{`walg-put k -- su nobody -s /bin/sh -c 'walg-compress "$W/absent"'`, 66, "exit status 66", ""},
		// Within one user nothing is foreign.
		{`su nobody -s /bin/sh -c 'walg-compress "$F" | walg-put k'`, 0, "", "packed"},
		{`runuser -u nobody -- sh -c 'walg-compress "$F" | walg-crypt | walg-put k'`, 0, "", "packed"},
		{`runuser -u nobody -- sh -c 'walg-crypt -- sh -c "$DIES" | walg-put k'`, 76, tooEarly, ""},
	})
}

// The last status of a pipeline is its first cause, however many stages are
// between.
func TestAStatusCrossesThePipeline(t *testing.T) {
	env, _, _ := freight(t)
	dir := stocked(t)
	packed := filepath.Join(dir, "good.lz4")
	c := newCargo(t, random(t), 300_000)
	if _, msg, status := sh(t, `walg-tar create "$D" | walg-compress | walg-put good.lz4`, "D="+c.dir, "WALG_FILE_PREFIX="+dir); status != 0 {
		t.Fatal(msg)
	}
	closed := store(t)
	write(t, filepath.Join(closed, "secret.lz4"), read(t, packed))
	if err := os.Chmod(filepath.Join(closed, "secret.lz4"), 0); err != nil {
		t.Fatal(err)
	}
	env = append(env, "Z="+packed, "WALG_FILE_PREFIX="+dir, "CLOSED="+closed)
	bent := read(t, packed)
	bent[len(bent)/2] ^= 1
	write(t, filepath.Join(dir, "bent.lz4"), bent)
	for _, c := range []struct {
		first  string
		status int
		says   string
	}{
		{`walg-get good.lz4`, 0, ""},
		{`walg-get absent.lz4`, 66, "/absent.lz4: "},
		{`WALG_FILE_PREFIX=$CLOSED walg-get secret.lz4`, 1, "permission denied"},
		{`walg-get bent.lz4 | walg-compress -d -m lz4 | walg-compress`, 65, "lz4"},
		{`walg-get --no-such-flag good.lz4`, 64, "--no-such-flag"},
		{`WALG_FILE_PREFIX="$W/not-there" walg-get good.lz4`, 64, "not-there"},
		{`walg-get -- true`, 64, "COMMAND"},
		{`F=$Z walg-crypt -- sh -c "$DIES"`, 76, tooEarly},
		{`walg-crypt -- sh -c 'cat "$Z"; exit 3'`, 76, "exit status 3"},
		{`walg-crypt -- sh -c 'cat "$Z"; exit 65'`, 65, "exit status 65"},
	} {
		for _, last := range []string{
			`walg-crypt -d | walg-compress -d -m lz4 | walg-crypt | walg-put k`,
			`walg-crypt -d | walg-compress -d | walg-put k`,
			`walg-crypt -d | walg-compress -d -m lz4 -o "$W/out"`,
			`walg-crypt -d | walg-crypt --through -- cat | walg-crypt -o "$W/out"`,
			`walg-crypt -d | walg-compress -d -m lz4 | walg-tar list`,
			`walg-crypt -d | walg-compress -d -m lz4 | walg-tar extract "$W/tree"`,
		} {
			t.Run(c.first+" | "+last, func(t *testing.T) {
				work := strings.TrimPrefix(env[2], "W=")
				before := snapshot(t, dir)
				_, said, status := nobody().sh(t, c.first+" | "+last, env...)
				if status != c.status || !strings.Contains(said, c.says) {
					t.Errorf("status %d, want %d and %q\n%s", status, c.status, c.says, said)
				}
				if c.status != 0 {
					if got := snapshot(t, dir); got != before {
						t.Errorf("the store has changed:\n%swas\n%s", got, before)
					}
					if names := listing(t, work); names != "" && names != "tree" {
						t.Errorf("there are %q", names)
					}
				}
				for _, name := range []string{filepath.Join(dir, "k"), filepath.Join(work, "out"), filepath.Join(work, "tree")} {
					if err := os.RemoveAll(name); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// listing returns the names in a directory.
func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// program starts one program with a pipe from us, and with one to us for its
// messages. The test ends what it did not end.
type program struct {
	*exec.Cmd
	stdin  *os.File // our end
	stdout *os.File
	log    string // file of its standard error
	ended  chan struct{}
}

func startProgram(t testing.TB, env []string, argv ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(argv[0], argv[1:]...), log: filepath.Join(folder(t), "log"), ended: make(chan struct{})}
	p.Env = append(os.Environ(), env...)
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.Stderr = log
	in, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.stdin, p.stdout, p.Stdout = in, ours, out, theirs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	theirs.Close()
	go func() {
		p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		ours.Close()
		out.Close()
		<-p.ended
	})
	return p
}

// said returns what it has written to standard error so far.
func (p *program) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// status waits for the end.
func (p *program) status(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		t.Fatalf("%v does not end\n%s", p.Cmd, p.said())
	}
	return exitStatus(p.ProcessState)
}

// The refusal comes while the producer is still at work, not after an hour.
func TestAForeignPipeIsRefusedAtItsFirstByte(t *testing.T) {
	dir := stocked(t)
	before := snapshot(t, dir)
	env := []string{"WALG_FILE_PREFIX=" + dir}
	p := startProgram(t, env, "walg-put", "backups/k", "--if-absent")
	if _, err := p.stdin.WriteString("f"); err != nil {
		t.Fatal(err)
	}
	if status := p.status(t); status != 76 { // our end is still open
		t.Errorf("status %d\n%s", status, p.said())
	}
	for _, want := range []string{
		"walg-put: put file://" + dir + "/backups/k: standard input " + cannotSay + "\n",
		"walg-put: hint: ", "walg-put backups/k --if-absent -- COMMAND", "walg-put ... -- walg-crypt -- walg-compress FILE", "--trust-eof",
	} {
		if !strings.Contains(p.said(), want) {
			t.Errorf("no %q in\n%s", want, p.said())
		}
	}
	// The taint that a filter passes on, too.
	status := filepath.Join(folder(t), "status")
	p = startProgram(t, append(env, "S="+status), "dash", "-c", `walg-crypt | walg-crypt | { walg-put k; echo $? >"$S.tmp"; mv "$S.tmp" "$S"; }`)
	if _, err := p.stdin.WriteString("f"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "walg-put refuses", func() bool { return exists(status) })
	if got := string(read(t, status)); got != "76\n" {
		t.Errorf("status %s", got)
	}
	p.stdin.Close()
	p.status(t)
	if after := snapshot(t, dir); after != before {
		t.Errorf("the store has changed:\n%swas\n%s", after, before)
	}
}

func TestASocketIsForeign(t *testing.T) {
	dir := stocked(t)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	for _, args := range [][]string{{"k"}, {"k", "--trust-eof"}} {
		cmd := exec.Command("walg-put", args...)
		cmd.Env = append(os.Environ(), "WALG_FILE_PREFIX="+dir)
		cmd.Stdin = theirs
		ours.WriteString("data")
		if len(args) > 1 {
			syscall.Shutdown(pair[0], syscall.SHUT_WR)
		}
		out, _ := cmd.CombinedOutput()
		if want := map[int]int{1: 76, 2: 0}[len(args)]; cmd.ProcessState.ExitCode() != want {
			t.Errorf("%v: %v, want status %d\n%s", args, cmd.ProcessState, want, out)
		}
	}
}

func TestEmptyInputMustBeMeant(t *testing.T) {
	for _, c := range []struct {
		script string
		status int
		says   string
	}{
		{`walg-put k </dev/null`, 65, "hint: where that is meant, say --allow-empty"},
		{`walg-put k --allow-empty </dev/null`, 0, ""},
		{`walg-crypt /dev/null | walg-put k`, 65, "standard input is empty"},
		{`walg-crypt /dev/null | walg-put k --allow-empty`, 0, ""},
		{`walg-put k -- true`, 65, "is empty"},
		{`walg-put k --allow-empty -- true`, 0, ""},
		{`walg-put k --allow-empty -- false`, 76, "exit status 1"},
		{`: | walg-put k`, 76, cannotSay},
		{`: | walg-put k --allow-empty`, 76, cannotSay},
		{`: | walg-put k --trust-eof`, 65, "standard input is empty"},
		{`: | walg-put k --trust-eof --allow-empty`, 0, ""},
		{`no-such-program | walg-put k --allow-empty`, 76, cannotSay},
		{`: >"$W/empty"; walg-put k <"$W/empty"`, 65, "standard input is empty"},
		{`walg-get absent | walg-put k --allow-empty`, 66, ""},
	} {
		t.Run(c.script, func(t *testing.T) {
			dir := stocked(t)
			_, said, status := sh(t, c.script, "WALG_FILE_PREFIX="+dir, "W="+folder(t))
			if status != c.status || !strings.Contains(said, c.says) {
				t.Errorf("status %d, want %d and %q\n%s", status, c.status, c.says, said)
			}
			fi, err := os.Stat(filepath.Join(dir, "k"))
			if (err == nil) != (c.status == 0) || err == nil && fi.Size() != 0 {
				t.Errorf("the object: %v, %v", fi, err)
			}
		})
	}
}

// cut returns the script's outcome with the first n bytes of a file as input,
// through a foreign pipe.
func cut(t *testing.T, file string, n int, script string, env ...string) (said string, status int) {
	t.Helper()
	_, said, status = sh(t, `head -c "$N" "$Z" | `+script, append(env, "Z="+file, fmt.Sprintf("N=%d", n))...)
	return said, status
}

func TestADecoderEarnsTheEndThatItsFormatProves(t *testing.T) {
	env, plain, packed := freight(t)
	work := strings.TrimPrefix(env[2], "W=")
	for name, argument := range map[string]string{"legacy": "-l", "unchecked": "--no-frame-crc", "linked": "-BD"} {
		if _, msg, status := sh(t, "lz4 -q -c "+argument+` "$F" >"$W/`+name+`.lz4"`, env...); status != 0 {
			t.Fatal(msg)
		}
	}
	one := read(t, packed)
	write(t, filepath.Join(work, "two.lz4"), slices.Concat(one, one))
	write(t, filepath.Join(work, "noted.lz4"), slices.Concat([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00hi"), one))
	write(t, filepath.Join(work, "tail.lz4"), slices.Concat(one, []byte("tail")))
	for _, c := range []struct {
		script string
		status int
		says   string
	}{
		{`cat "$Z" | walg-compress -d | walg-put k`, 0, ""},
		{`cat "$Z" | walg-compress -d -m lz4 | walg-crypt | walg-put k`, 0, ""},
		{`cat "$Z" | walg-crypt -d | walg-compress -d | walg-put k`, 0, ""},
		{`cat "$W/linked.lz4" | walg-compress -d | walg-put k`, 0, ""},
		{`cat "$W/noted.lz4" | walg-compress -d | walg-put k`, 0, ""},
		{`lz4 -c "$F" | walg-compress -d | walg-put k`, 0, ""},
		{`walg-put k -- sh -c 'cat "$Z" | walg-compress -d'`, 0, ""},

		{`cat "$W/unchecked.lz4" | walg-compress -d | walg-put k`, 76, cannotSay},
		{`cat "$W/legacy.lz4" | walg-compress -d | walg-put k`, 76, cannotSay},
		{`cat "$W/two.lz4" | walg-compress -d | walg-put k`, 76, cannotSay},
		{`cat "$Z" "$Z" | walg-compress -d | walg-put k`, 76, cannotSay},
		{`cat "$Z" | walg-compress -d -m none | walg-put k`, 76, cannotSay},
		{`cat "$Z" | walg-crypt -d | walg-put k`, 76, cannotSay},
		{`cat "$Z" | walg-compress | walg-put k`, 76, cannotSay},
		{`cat "$Z" | walg-compress -d --through -- lz4 -d -c | walg-put k`, 76, cannotSay},
		{`cat "$W/tail.lz4" | walg-compress -d | walg-put k`, 65, "lz4"},
		{`cat "$F" | walg-compress -d | walg-put k`, 65, "no compression method known"},
		{`cat "$F" | walg-compress -d -m lz4 | walg-put k`, 65, "not an lz4 frame"},

		// A walg writer that died or was not alone is not made good by a format.
		{`{ walg-crypt "$Z"; walg-crypt /dev/null; } | walg-compress -d | walg-put k`, 76, tooMany},
		{`walg-crypt -- sh -c 'cat "$Z"; kill -9 $PPID; exec sleep 60' | walg-compress -d | walg-put k`, 76, tooEarly},
		{`walg-crypt -- sh -c 'cat "$Z"; exit 1' | walg-compress -d | walg-put k`, 76, "exit status 1"},
		{`walg-compress -d -- sh -c 'cat "$Z"; exit 1' | walg-put k`, 76, "exit status 1"},
		// Nor is what else is wrong with it.
		{`cat "$Z" | walg-compress -d --size 5 | walg-put k`, 65, "bytes where 5 were expected"},
	} {
		t.Run(c.script, func(t *testing.T) {
			dir := stocked(t)
			before := snapshot(t, dir)
			_, said, status := sh(t, c.script, append(env, "WALG_FILE_PREFIX="+dir)...)
			if status != c.status || !strings.Contains(said, c.says) {
				t.Errorf("status %d, want %d and %q\n%s", status, c.status, c.says, said)
			}
			if c.status != 0 {
				if after := snapshot(t, dir); after != before {
					t.Errorf("the store has changed:\n%swas\n%s", after, before)
				}
			} else if digest(t, filepath.Join(dir, "k")) != digest(t, plain) {
				t.Error("the object is not the file")
			}
		})
	}
}

func TestATruncatedFrameIsNeverStored(t *testing.T) {
	_, plain, packed := freight(t)
	dir := stocked(t)
	before := snapshot(t, dir)
	size := len(read(t, packed))
	// Every 1 KiB, and the places around the end.
	for _, n := range append(everyKiB(size), size-9, size-8, size-5, size-4, size-1) {
		said, status := cut(t, packed, n, "walg-compress -d | walg-put k", "WALG_FILE_PREFIX="+dir)
		if status != 65 || !strings.Contains(said, "walg-compress: decompress standard input: lz4: truncated") && n > 4 {
			t.Errorf("%d of %d bytes: status %d\n%s", n, size, status, said)
		}
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the store has changed:\n%swas\n%s", after, before)
	}
	if said, status := cut(t, packed, size, "walg-compress -d | walg-put k", "WALG_FILE_PREFIX="+dir); status != 0 {
		t.Errorf("all of it: status %d\n%s", status, said)
	}
	if digest(t, filepath.Join(dir, "k")) != digest(t, plain) {
		t.Error("the object is not the file")
	}
}

// everyKiB returns the multiples of 1 KiB below size; in make test only as many
// as take a second.
func everyKiB(size int) (at []int) {
	step := rounds(max(1, size>>10/30), 1) << 10
	for n := 0; n < size; n += step {
		at = append(at, n)
	}
	return at
}

// What is told to stop leaves nothing, and dies of what it was told, so that
// its parent sees the truth.
func TestASignalEndsAProgramInOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		argv []string // its COMMAND brings some data and then nothing
	}{
		{"walg-put", []string{"walg-put", "backups/k", "--receipt", "$W/receipt"}},
		{"walg-put --if-absent", []string{"walg-put", "--if-absent", "backups/k"}},
		{"walg-crypt -o", []string{"walg-crypt", "-o", "$W/out"}},
		{"walg-compress -o", []string{"walg-compress", "-o", "$W/out"}},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("%s %v", c.name, sig), func(t *testing.T) {
				dir, work := stocked(t), folder(t)
				write(t, filepath.Join(work, "file"), []byte("old"))
				before, old := snapshot(t, dir), snapshot(t, work)
				var argv []string
				for _, arg := range c.argv {
					argv = append(argv, strings.ReplaceAll(arg, "$W", work))
				}
				script := `echo $$; head -c 100000 /dev/zero; exec sleep 600`
				env := []string{"WALG_FILE_PREFIX=" + dir}
				p := startProgram(t, env, append(argv, "--", "sh", "-c", script)...)
				var command []int
				eventually(t, "data arrives", func() bool {
					command = children(t, p.Process.Pid)
					return len(command) == 1 && consumed(p.Process.Pid) >= 100_000
				})
				p.Process.Signal(sig)
				if status := p.status(t); status != 128+int(sig) {
					t.Errorf("status %d\n%s", status, p.said())
				}
				eventually(t, "COMMAND ends", func() bool { return !alive(command[0]) })
				if sig == syscall.SIGKILL {
					rest, _ := withoutLeftovers(snapshot(t, dir))
					if was, _ := withoutLeftovers(before); rest != was {
						t.Errorf("the store has changed:\n%swas\n%s", rest, was)
					}
					return
				}
				if after := snapshot(t, dir); after != before {
					t.Errorf("the store has changed:\n%swas\n%s", after, before)
				}
				if after := snapshot(t, work); after != old {
					t.Errorf("the folder has changed:\n%swas\n%s", after, old)
				}
			})
		}
	}
}

// children returns a process's children.
func children(t testing.TB, pid int) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may be gone
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// A stage that is told to stop is a stage that died, to those after it.
func TestASignalInThePipelineStopsItsEnd(t *testing.T) {
	for _, sig := range []string{"TERM", "INT", "HUP", "KILL"} {
		dir := stocked(t)
		before := snapshot(t, dir)
		_, said, status := sh(t, `walg-crypt -- sh -c 'head -c 100000 /dev/zero; kill -$SIG $PPID; exec sleep 60' | walg-crypt | walg-put k`,
			"SIG="+sig, "WALG_FILE_PREFIX="+dir)
		if status != 76 || !strings.Contains(said, tooEarly) {
			t.Errorf("SIG%s: status %d\n%s", sig, status, said)
		}
		if after := snapshot(t, dir); after != before {
			t.Errorf("SIG%s: the store has changed:\n%swas\n%s", sig, after, before)
		}
	}
}

// nohup and the background jobs of plain shells: these signals stay ignored.
func TestASignalThatIsIgnoredStaysIgnored(t *testing.T) {
	for _, sig := range []string{"HUP", "INT"} {
		dir := stocked(t)
		_, said, status := sh(t, `trap "" $SIG; walg-put k -- sh -c 'kill -$SIG $PPID; echo data'`, "SIG="+sig, "WALG_FILE_PREFIX="+dir)
		if status != 0 || string(read(t, filepath.Join(dir, "k"))) != "data\n" {
			t.Errorf("SIG%s: status %d\n%s", sig, status, said)
		}
	}
}

// A write to a reader that has stalled cannot be interrupted; the signal still
// ends the program.
func TestASignalEndsAProgramWhoseReaderStalls(t *testing.T) {
	c := newCargo(t, random(t), 4<<20)
	p := startProgram(t, nil, "walg-tar", "create", c.dir)
	before := -1
	eventually(t, "nothing more fits into the pipe", func() bool {
		n, err := unix.IoctlGetInt(int(p.stdout.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		still := n > 0 && n == before
		before = n
		return still
	})
	began := time.Now()
	p.Process.Signal(syscall.SIGTERM)
	if status := p.status(t); status != 128+15 || time.Since(began) > time.Minute {
		t.Errorf("status %d after %v\n%s", status, time.Since(began), p.said())
	}
}

// A reader that has seen enough is no failure to speak of: the writer dies of
// SIGPIPE, and says nothing.
func TestAWriterDiesOfSIGPIPE(t *testing.T) {
	c := newCargo(t, random(t), 4<<20)
	dir := stocked(t)
	write(t, filepath.Join(dir, "large"), make([]byte, 4<<20))
	for _, writer := range []string{`walg-tar create "$D"`, `walg-crypt /dev/zero --force`, `walg-crypt -- cat "$P/large"`, `walg-get large`} {
		_, said, status := sh(t, `{ `+writer+`; echo $? >"$S"; } | head -c 10 >/dev/null; exit $(cat "$S")`,
			"D="+c.dir, "P="+dir, "WALG_FILE_PREFIX="+dir, "S="+filepath.Join(folder(t), "status"))
		if status != 128+13 || said != "" {
			t.Errorf("%s: status %d, %q", writer, status, said)
		}
	}
}

// Nothing but an anonymous pipe is marked. As root a mistake here would change
// the machine: each call of sh looks at /dev/null as well.
func TestOnlyPipesAreMarked(t *testing.T) {
	env, _, _ := freight(t)
	c := newCargo(t, random(t), 1000)
	dir := stocked(t)
	work := strings.TrimPrefix(env[2], "W=")
	write(t, filepath.Join(dir, "k"), []byte("data"))
	env = append(env, "D="+c.dir, "WALG_FILE_PREFIX="+dir)
	for _, program := range []struct {
		line   string
		status int
	}{
		{`walg-compress "$F"`, 0}, {`walg-crypt "$F"`, 0}, {`walg-compress -d "$Z"`, 0}, {`walg-tar create "$D"`, 0}, {`walg-get k`, 0},
		{`walg-get -l`, 0}, {`walg-compress --help`, 0}, {`walg-tar list --help`, 0},
		{`walg-get absent`, 66}, {`walg-compress --no-such-flag`, 64}, {`walg-compress -d "$F"`, 65},
		{`cat "$F" | walg-crypt`, 0}, {`{ walg-crypt "$F"; walg-crypt "$F"; }`, 0},
		{`walg-crypt --through "$F" -- cat`, 0}, {`walg-crypt -- cat "$F"`, 0},
	} {
		for _, to := range []string{`>/dev/null`, `>>"$W/file"`, `>"$W/fifo"`, `| { cat; } >/dev/null`} {
			script := program.line + " " + to
			if strings.Contains(to, "fifo") {
				script = `mkfifo "$W/fifo"; cat "$W/fifo" >/dev/null & ` + script + `; s=$?; wait; exit $s`
			}
			_, said, status := sh(t, script, env...)
			if status != program.status && !strings.HasPrefix(to, "|") {
				t.Errorf("%s: status %d, want %d\n%s", script, status, program.status, said)
			}
			for _, name := range []string{"file", "fifo"} {
				fi, err := os.Lstat(filepath.Join(work, name))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if fi.Mode().Perm() != 0o644 || fi.Mode()&fs.ModeSticky != 0 || fi.ModTime().Nanosecond() == 574147 || time.Since(fi.ModTime()) > time.Hour {
					t.Errorf("%s: the %s has mode %v and time %v", script, name, fi.Mode(), fi.ModTime())
				}
				os.Remove(filepath.Join(work, name))
			}
		}
	}
	for _, line := range []string{`walg-compress "$F" -o /dev/null`, `walg-get k -o /dev/null`, `walg-tar create "$D" -o /dev/null`, `walg-get absent -o /dev/null`} {
		if _, said, status := sh(t, line, env...); status != 0 && !strings.Contains(line, "absent") {
			t.Errorf("%s: status %d\n%s", line, status, said)
		}
	}
}

// Whenever walg-put dies, the object is absent or whole. What it leaves has a
// name that says what it is, is listed as such, and is in nobody's way.
func TestAKilledPutLeavesWhatCanBeRecognised(t *testing.T) {
	r := random(t)
	c := newCargo(t, r, 6<<20)
	dir := stocked(t)
	fired, leftovers, objects := 0, 0, 0
	want := rounds(10, 200)
	for round := 0; fired < want && round < 5*want; round++ {
		p := newPipeline()
		p.stages[3] = strings.Replace(p.stages[3], "--if-absent ", []string{"", "--if-absent "}[r.IntN(2)], 1)
		script := p.stages[3]
		ways := breakdowns["is killed"]
		happened := ways[r.IntN(len(ways))](t, r, c, p, 3)
		before := snapshot(t, dir)
		_, was := withoutLeftovers(before)
		_, said, status := sh(t, p.script(-1), "WALG_FILE_PREFIX="+dir, "D="+c.dir, "K=backups/tree.tar.lz4")
		if happened(status, said) {
			fired++
		}
		rest, left := withoutLeftovers(snapshot(t, dir))
		if len(left) > len(was)+1 {
			t.Errorf("one put left %d files", len(left)-len(was))
		}
		leftovers = len(left)
		object := filepath.Join(dir, "backups", "tree.tar.lz4")
		if exists(object) {
			objects++
			got, msg, _ := sh(t, `lz4 -d -c "$F" | sha256sum`, "F="+object)
			if got != c.tar+"  -\n" {
				t.Errorf("%s: status %d, and the object is torn: %s", p.script(-1), status, msg)
			}
		} else if status == 0 {
			t.Errorf("%s: status 0 and no object", p.script(-1))
		}
		if strings.Count(rest, "\n") != map[bool]int{false: 1, true: 2}[exists(object)] {
			t.Errorf("the store holds what nobody put there:\n%s", rest)
		}
		// walg-get -l does not know them, walg-retain leftovers does.
		listed, msg, _ := sh(t, `walg-get -l`, "WALG_FILE_PREFIX="+dir)
		if strings.Contains(listed, ".tmp.") || strings.Count(listed, "\n") != strings.Count(rest, "\n") {
			t.Errorf("walg-get -l lists\n%s%s", listed, msg)
		}
		found, msg, status := sh(t, `walg-retain leftovers`, "WALG_FILE_PREFIX="+dir)
		if status != 0 || strings.Count(found, "\n") != len(left) {
			t.Errorf("walg-retain leftovers: status %d, %d files and it lists\n%s%s", status, len(left), found, msg)
		}
		for _, name := range left {
			if !strings.Contains(found, name) {
				t.Errorf("walg-retain leftovers does not list %s:\n%s", name, found)
			}
		}
		if exists(object) {
			if err := os.Remove(object); err != nil {
				t.Fatal(err)
			}
		}
		if round%5 > 0 {
			continue
		}
		// The next put is not in their way either.
		p.stages[3] = script
		if _, said, status := sh(t, p.script(-1), "WALG_FILE_PREFIX="+dir, "D="+c.dir, "K=backups/tree.tar.lz4"); status != 0 {
			t.Errorf("a put after a killed one: status %d\n%s", status, said)
		}
		os.Remove(object)
	}
	t.Logf("the fault fired %d times; %d leftovers, %d whole objects", fired, leftovers, objects)
	if fired < want || leftovers == 0 {
		t.Error("the fault did not fire often enough")
	}
}

func TestATruncatedArchiveIsNeverTakenForAWholeOne(t *testing.T) {
	c := newCargo(t, random(t), 40_000)
	dir := folder(t)
	archive := filepath.Join(dir, "tar")
	if _, msg, status := sh(t, `walg-tar create "$D" -o "$T"; chmod 644 "$T"`, "D="+c.dir, "T="+archive); status != 0 {
		t.Fatal(msg)
	}
	size := len(read(t, archive))
	for _, n := range append(everyKiB(size-1024), size-1024, size-513, size-512, size-1) {
		for _, reader := range []string{`walg-tar extract "$X"`, `walg-tar list`} {
			target := filepath.Join(dir, "tree")
			said, status := cut(t, archive, n, reader, "X="+target)
			if status != 65 {
				t.Errorf("%s: %d of %d bytes: status %d\n%s", reader, n, size, status, said)
			}
			if err := os.RemoveAll(target); err != nil {
				t.Fatal(err)
			}
		}
	}
	target := filepath.Join(dir, "tree")
	if said, status := cut(t, archive, size, `walg-tar extract "$X"`, "X="+target); status != 0 {
		t.Errorf("all of it, from a foreign pipe: status %d\n%s", status, said)
	}
	if got, want := snapshot(t, target), snapshot(t, c.dir); got != want {
		t.Errorf("the tree is\n%swant\n%s", got, want)
	}
}
