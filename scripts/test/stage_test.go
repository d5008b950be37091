//go:build linux

package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	// fails-at N PROGRAM ARGUMENT... is one that gives up.
	roles["fails-at"] = func(args []string) int {
		if status := onByte(args, (*os.Process).Kill); status != 128+9 {
			return status
		}
		return 1
	}
}

// A form is a way to get a tree into an object in which COMMANDs take part,
// with a place that a fault can break. %s stands for what breaks it, the empty
// string for nothing.
type form struct {
	name   string
	script string
	out    int // how much passes the place, as an index of cargo.out
}

// forms all end in an object or in a failure, as the plain pipeline does.
// $SSH runs a command on a host.
var forms = []form{
	{"nested, tar", `walg-put --if-absent "$K" -- walg-crypt -- walg-compress -- %s walg-tar create "$D"`, 0},
	{"nested, compress", `walg-put --if-absent "$K" -- walg-crypt -- %s walg-compress -- walg-tar create "$D"`, 1},
	{"nested, crypt", `walg-put --if-absent "$K" -- %s walg-crypt -- walg-compress -- walg-tar create "$D"`, 2},
	{"nested under a pipe", `walg-crypt -- walg-compress -- %s walg-tar create "$D" | walg-put --if-absent "$K"`, 0},
	{"a pipe nested", `walg-put --if-absent "$K" -- sh -c '%s walg-tar create "$D" | walg-compress | walg-crypt'`, 0},
	{"a pipe nested, its middle", `walg-put --if-absent "$K" -- sh -c 'walg-tar create "$D" | %s walg-compress | walg-crypt'`, 1},
	{"a pipe nested, its end", `walg-put --if-absent "$K" -- sh -c 'walg-tar create "$D" | walg-compress | %s walg-crypt'`, 2},

	{"bash reports its pipes", `walg-put --if-absent "$K" -- bash -o pipefail -c 'walg-tar create "$D" | walg-compress | %s cat | cat'`, 2},
	{"bash, foreign only", `walg-compress -- bash -o pipefail -c '%s cat "$T" | cat' | walg-put --if-absent "$K"`, 0},
	{"bash, foreign end", `walg-compress -- bash -o pipefail -c 'walg-tar create "$D" | cat | %s cat' | walg-put --if-absent "$K"`, 0},

	{"ssh", `walg-put --if-absent "$K" -- $SSH "walg-compress -- %s walg-tar create '$D'"`, 0},
	{"ssh, a pipe there", `walg-put --if-absent "$K" -- $SSH "bash -o pipefail -c '%s walg-tar create $D | walg-compress | walg-crypt'"`, 0},
	{"ssh, the middle of a pipe there", `walg-put --if-absent "$K" -- $SSH "bash -o pipefail -c 'walg-tar create $D | %s walg-compress | walg-crypt'"`, 1},
	{"ssh, foreign there", `walg-compress -- $SSH "%s walg-tar create '$D'" | walg-put --if-absent "$K"`, 0},
	{"ssh, bash there", `walg-compress -- $SSH "bash -o pipefail -c 'cd $D && walg-tar create . | %s cat | cat'" | walg-put --if-absent "$K"`, 0},
	{"ssh itself", `walg-put --if-absent "$K" -- walg-compress -- %s $SSH "walg-tar create '$D'"`, 0},

	{"through, upstream", `walg-tar create "$D" | %s walg-compress | walg-crypt --through -- cat | walg-put --if-absent "$K"`, 1},
	{"through, COMMAND", `walg-tar create "$D" | walg-compress | walg-crypt --through -- %s cat | walg-put --if-absent "$K"`, 2},
	{"through, the filter", `walg-tar create "$D" | walg-compress | %s walg-crypt --through -- cat | walg-put --if-absent "$K"`, 2},
	{"through a walg filter", `walg-tar create "$D" | walg-compress --through -- %s walg-compress | walg-put --if-absent "$K"`, 1},
	{"through bash", `walg-tar create "$D" | walg-compress | walg-crypt --through -- bash -o pipefail -c '%s cat | cat' | walg-put --if-absent "$K"`, 2},
	{"through bash, its middle", `walg-tar create "$D" | walg-compress | walg-crypt --through -- bash -o pipefail -c 'cat | %s cat | cat' | walg-put --if-absent "$K"`, 2},
	{"through ssh", `walg-tar create "$D" | walg-compress | walg-crypt --through -- $SSH "%s cat" | walg-put --if-absent "$K"`, 2},
}

// spoilers break a place: they run the program there until it dies, or there
// is none to run.
var spoilers = []func(r *rand.Rand, c *cargo, out int) string{
	func(r *rand.Rand, c *cargo, out int) string { return fmt.Sprintf("kills-at %d", r.Int64N(c.out[out])) },
	func(r *rand.Rand, c *cargo, out int) string { return fmt.Sprintf("fails-at %d", r.Int64N(c.out[out])) },
	func(r *rand.Rand, c *cargo, out int) string {
		return fmt.Sprintf("kills-after %v", time.Duration(r.Int64N(int64(c.took))))
	},
	func(*rand.Rand, *cargo, int) string { return "no-such-program" },
}

// A COMMAND's data is whole or the store is as it was, whatever becomes of the
// COMMAND or of a grandchild that it reports.
func TestABrokenCommandNeverMakesAnObject(t *testing.T) {
	r := random(t)
	cargos := []*cargo{newCargo(t, r, 300_000), newCargo(t, r, 6<<20)}
	archives := []string{filepath.Join(folder(t), "tar"), filepath.Join(folder(t), "tar")}
	for i, c := range cargos {
		if _, msg, status := sh(t, `walg-tar create "$D" -o "$T"`, "D="+c.dir, "T="+archives[i]); status != 0 {
			t.Fatal(msg)
		}
	}
	ssh := sshServer(t)
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			r := random(t)
			dir := stocked(t)
			send := func(breaks string) (status int) {
				t.Helper()
				i := r.IntN(len(cargos))
				if breaks == "" {
					i = 1
				}
				script := strings.Replace(f.script, "%s ", breaks, 1)
				status, said := deliver(t, cargos[i], dir, script, "SSH="+ssh, "T="+archives[i])
				if status > 125 {
					t.Errorf("%s: status %d\n%s", script, status, said)
				}
				if breaks == "" && status != 0 {
					t.Fatalf("nothing is broken: %s: status %d\n%s", script, status, said)
				}
				return status
			}
			send("")
			fired, round := 0, 0
			want := rounds(4, 200)
			for ; fired < want && round < 5*want; round++ {
				c := cargos[0]
				if send(spoilers[round%len(spoilers)](r, c, f.out)+" ") != 0 {
					fired++
				}
			}
			t.Logf("%d rounds, in which the fault fired %d times", round, fired)
			if fired < want {
				t.Errorf("the fault did not fire %d times", want)
			}
		})
	}
}

// deliver runs a script that puts a tree into an object, and checks that the
// object is whole or the store is as it was.
func deliver(t *testing.T, c *cargo, dir, script string, env ...string) (status int, said string) {
	t.Helper()
	before := snapshot(t, dir)
	_, said, status = sh(t, script, append(env, "WALG_FILE_PREFIX="+dir, "D="+c.dir, "K=backups/new/tree.tar.lz4")...)
	object := filepath.Join(dir, "backups", "new", "tree.tar.lz4")
	if status != 0 {
		if after := snapshot(t, dir); after != before {
			t.Errorf("%s: status %d, and the store has changed:\n%swas\n%s%s", script, status, after, before, said)
		}
	} else if got, msg, _ := sh(t, `lz4 -d -c "$F" | sha256sum`, "F="+object); got != c.tar+"  -\n" {
		t.Errorf("%s: the object is torn: %s\n%s", script, msg, said)
	}
	if err := os.RemoveAll(filepath.Join(dir, "backups")); err != nil {
		t.Fatal(err)
	}
	return status, said
}

// sshServer starts a server on the loopback that lets us in as ourselves with
// a key made for the test, and returns the command that goes there.
func sshServer(t testing.TB) (command string) {
	t.Helper()
	dir := folder(t)
	for _, key := range []string{"host", "key"} {
		if _, msg, status := execute(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)); status != 0 {
			t.Fatal(msg)
		}
	}
	me, err := osuser.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // without it sshd does not start
			t.Fatal(err)
		}
	}
	sshd, err := exec.LookPath("sshd") // it insists on its full path
	if err != nil {
		t.Fatalf("%v: install it with scripts/test/tools.sh", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	config := fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %s/host
AuthorizedKeysFile %[2]s/key.pub
PidFile none
UsePAM no
UseDNS no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv PATH=%[3]s HOME=%[2]s LC_ALL=C GOCOVERDIR=%[4]s
`, port, dir, os.Getenv("PATH"), os.Getenv("GOCOVERDIR"))
	write(t, filepath.Join(dir, "config"), []byte(config))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "config"))
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, "sshd listens", func() bool {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	command = fmt.Sprintf("ssh -F /dev/null -i %s/key -p %d -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"+
		" -o LogLevel=ERROR -o BatchMode=yes -o IdentitiesOnly=yes %s@127.0.0.1", dir, port, me.Username)
	if _, msg, status := sh(t, command+" true"); status != 0 {
		t.Fatalf("ssh to ourselves: status %d\n%s%s", status, msg, read(t, filepath.Join(dir, "log")))
	}
	return command
}

// What a plain shell does not report nobody can see; so it is said, and the
// manual names what to write instead.
func TestAPipeInsideAPlainShellIsWarnedOf(t *testing.T) {
	const warning = "warning: only the last program of a pipeline inside sh -c reports its failure; " +
		"use bash -o pipefail -c, or end it in a walg filter that reads its own producer with --\n"
	for script, warned := range map[string]string{
		`walg-put k -- sh -c 'cat "$F" | cat'`:                                                      "walg-put",
		`walg-put k -- sh -c 'false | cat "$F"'`:                                                    "walg-put", // stored all the same
		`walg-compress -- sh -c 'cat "$F" | cat' | walg-put k`:                                      "walg-compress",
		`walg-compress "$F" | walg-crypt --through -- sh -c 'cat | cat' | walg-put k`:               "walg-crypt",
		`walg-put k -- bash -o pipefail -c 'cat "$F" | cat'`:                                        "",
		`walg-put k -- bash -c 'set -o pipefail; cat "$F" | cat'`:                                   "",
		`walg-put k -- sh -c 'cat "$F" || cat "$F"'`:                                                "",
		`walg-put k -- sh -c 'cat "$F"'`:                                                            "",
		`walg-put k -- cat "$F"`:                                                                    "",
		`walg-compress "$F" | walg-crypt --through -- bash -o pipefail -c 'cat | cat' | walg-put k`: "",
	} {
		env, _, _ := freight(t)
		dir := stocked(t)
		_, said, status := sh(t, script, append(env, "WALG_FILE_PREFIX="+dir)...)
		want := ""
		if warned != "" {
			want = warned + ": " + warning
		}
		if status != 0 || said != want || !exists(filepath.Join(dir, "k")) {
			t.Errorf("%s: status %d, %q, want %q", script, status, said, want)
		}
	}
}

func TestACommandsEndIsJudgedByItsStatus(t *testing.T) {
	writers(t, sh, []writer{
		{`walg-put k -- sh -c 'cat "$F"; exit 0'`, 0, "", "plain"},
		{`walg-put k -- sh -c 'cat "$F"; echo why >&2; exit 1'`, 76, "k: sh ended with exit status 1: why\n", ""},
		{`walg-put k -- sh -c 'cat "$F"; exit 64'`, 64, "sh ended with exit status 64", ""},
		{`walg-put k -- sh -c 'cat "$F"; exit 65'`, 65, "sh ended with exit status 65", ""},
		{`walg-put k -- sh -c 'cat "$F"; exit 66'`, 66, "sh ended with exit status 66", ""},
		{`walg-put k -- sh -c 'cat "$F"; exit 73'`, 73, "sh ended with exit status 73", ""},
		{`walg-put k -- sh -c 'cat "$F"; exit 74'`, 76, "sh ended with exit status 74", ""},
		{`walg-put k -- sh -c 'cat "$F"; kill -9 $$'`, 76, "sh ended with signal: killed", ""},
		{`walg-put k -- no-such-program`, 64, "run no-such-program: ", ""},
		{`walg-put k -- "$W"`, 64, "run ", ""},
		{`walg-put k --`, 64, "no COMMAND after --", ""},
		{`walg-put k --linger 1m -- sh -c 'cat "$F"; sleep 0.3 &'`, 0, "", "plain"},
		{`walg-put k --linger 100ms -- sh -c 'cat "$F"; sleep 60 & echo $! >"$W/pid"'; s=$?; kill "$(cat "$W/pid")"; exit $s`, 76, "its output is still open", ""},
		// Its standard input is nothing, whatever ours is.
		{`echo data | walg-put k -- cat`, 65, "is empty", ""},
		{`echo data | walg-put k -- sh -c 'cat "$F" -'`, 0, "", "plain"},

		{`walg-compress "$F" | walg-crypt --through -- cat | walg-put k`, 0, "", "packed"},
		{`walg-compress "$F" | walg-crypt --through -- sh -c 'cat; echo why >&2; exit 1' | walg-put k`, 1, "sh ended with exit status 1: why\n", ""},
		{`walg-compress "$F" | walg-crypt --through -- sh -c 'cat; exit 65' | walg-put k`, 65, "sh ended with exit status 65", ""},
		{`walg-compress "$F" | walg-crypt --through -- sh -c 'cat; kill -9 $$' | walg-put k`, 1, "sh ended with signal: killed", ""},
		{`cat "$F" "$F" "$F" "$F" "$F" "$F" | walg-crypt --through -- head -c 10 | walg-put k --trust-eof`, 1, "exited before it had read all of its input", ""},
		{`walg-compress "$F" | walg-crypt --through -- no-such-program | walg-put k`, 64, "run no-such-program: ", ""},
		{`walg-compress "$F" | walg-crypt --through | walg-put k`, 64, "--through needs -- COMMAND", ""},
		// COMMAND sees the end of its input only where it was earned.
		{`walg-crypt -- sh -c "$DIES" | walg-crypt --through -- sh -c 'cat >/dev/null; echo all >"$W/end"' | walg-put k; s=$?; [ ! -e "$W/end" ] || s=1; exit $s`, 76, tooEarly, ""},
		{`walg-compress "$W/absent" | walg-crypt --through -- sh -c 'cat >/dev/null; echo all >"$W/end"' | walg-put k; s=$?; [ ! -e "$W/end" ] || s=1; exit $s`, 66, "", ""},
	})
}

// A filter that is killed outright takes its COMMAND along.
func TestACommandDiesWithItsFilter(t *testing.T) {
	for _, argv := range [][]string{
		{"walg-put", "k", "--", "sh", "-c", "echo data; exec sleep 600"},
		{"walg-crypt", "-o", "/dev/null", "--", "sh", "-c", "echo data; exec sleep 600"},
		{"walg-crypt", "--through", "-o", "/dev/null", "--", "sleep", "600"},
	} {
		p := startProgram(t, []string{"WALG_FILE_PREFIX=" + stocked(t)}, argv...)
		var pids []int
		eventually(t, "COMMAND runs", func() bool {
			pids = children(t, p.Process.Pid)
			return len(pids) == 1
		})
		p.Process.Kill()
		p.status(t)
		eventually(t, "COMMAND ends", func() bool { return !alive(pids[0]) })
	}
}

// Each part has a pipeline of its own. When one breaks, or walg-tar itself,
// the archive fails, and each part that is there is whole.
func TestABrokenPartFailsTheArchive(t *testing.T) {
	r := random(t)
	c := newCargo(t, r, 6<<20)
	const good = `walg-compress | walg-crypt | walg-put "parts/$WALG_PART"`
	run := func(tar, part string) (status int) {
		t.Helper()
		dir := stocked(t)
		_, said, status := sh(t, tar+` walg-tar create "$D" --part-size 500k --jobs 2 --ext .lz4 --part-command "$PART"`,
			"WALG_FILE_PREFIX="+dir, "D="+c.dir, "PART="+part)
		// What the parts hold is seen by extracting them all.
		tree := filepath.Join(folder(t), "tree")
		_, msg, bad := sh(t, `set -e; mkdir "$X"; cd "$P"; for part in parts/*.lz4; do [ -e "$part" ] || continue; lz4 -d -q -c "$part" | tar -x -C "$X"; done`,
			"P="+dir, "X="+tree)
		if bad != 0 {
			t.Errorf("%s %s: status %d, and a part is torn: %s\n%s", tar, part, status, msg, said)
		}
		if status == 0 && snapshot(t, tree) != snapshot(t, c.dir) {
			t.Errorf("%s %s: status 0, and the parts do not hold the tree\n%s", tar, part, said)
		}
		if part != good && status > 125 {
			t.Errorf("%s: status %d\n%s", part, status, said)
		}
		return status
	}
	if status := run("", good); status != 0 {
		t.Fatalf("nothing is broken: status %d", status)
	}
	fired, round := 0, 0
	want := rounds(6, 200)
	for ; fired < want && round < 5*want; round++ {
		breaks := spoilers[round%len(spoilers)](r, c, 1)
		tar, part := "", good
		stages := strings.Split(good, " | ")
		if k := r.IntN(len(stages) + 1); k < len(stages) {
			stages[k] = breaks + " " + stages[k]
			part = strings.Join(stages, " | ")
		} else {
			tar = breaks
		}
		if run(tar, part) != 0 {
			fired++
		}
	}
	t.Logf("%d rounds, in which the fault fired %d times", round, fired)
	if fired < want {
		t.Errorf("the fault did not fire %d times", want)
	}
}
