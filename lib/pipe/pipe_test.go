//go:build linux

package pipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"walg/lib/fault"
)

// The test binary plays the programs around a pipe: a role and its arguments
// come in the environment.
func TestMain(m *testing.M) {
	role, arg, _ := strings.Cut(os.Getenv("PIPE_TEST_ROLE"), " ")
	n, _ := strconv.Atoi(arg)
	switch role {
	case "":
		os.Exit(m.Run())
	case "good": // a walg writer of n bytes
		out := Claim(os.Stdout)
		must(out.Write(make([]byte, n)))
		out.Stamp(0)
	case "tainted":
		out := Claim(os.Stdout)
		out.Taint()
		must(out.Write(make([]byte, n)))
		out.Stamp(0)
	case "fails": // a walg writer that fails with status n
		out := Claim(os.Stdout)
		must(out.Write([]byte("half")))
		out.Stamp(n)
		os.Exit(n)
	case "dies": // a walg writer killed after n bytes
		out := Claim(os.Stdout)
		must(out.Write(make([]byte, n)))
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "lies": // stamps more than it wrote
		out := Claim(os.Stdout)
		must(out.Write(make([]byte, n)))
		out.n.Add(1)
		out.Stamp(0)
	case "foreign":
		must(os.Stdout.Write(make([]byte, n)))
	case "stalls":
		out := Claim(os.Stdout)
		must(out.Write([]byte("x")))
		io.Copy(io.Discard, os.Stdin) // until the test closes it
	}
	os.Exit(0)
}

func must(_ int, err error) {
	if err != nil {
		panic(err)
	}
}

// writers starts the roles one after another on the write end of one pipe, as
// { a; b; } does, and returns the read end as an input.
func writers(t *testing.T, p Policy, roles ...string) *Input {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer w.Close()
		for _, role := range roles {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "PIPE_TEST_ROLE="+role)
			cmd.Stdout = w
			cmd.Stderr = os.Stderr
			cmd.Run() // its failure is the test's subject
		}
	}()
	in, err := newInput(context.Background(), r, "standard input", p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func TestEOFCountsOnlyWhereItsWriterEarnedIt(t *testing.T) {
	commits := Policy{Commits: true}
	trusts := Policy{Commits: true, Trust: true}
	filters := Policy{}
	for _, c := range []struct {
		policy  Policy
		writers string // comma separated
		status  int
		tainted bool
	}{
		{commits, "good 0", 0, false},
		{commits, "good 1", 0, false},
		{commits, "good 3000000", 0, false},
		{commits, "fails 66", 66, false},
		{commits, "fails 65", 65, false},
		{commits, "fails 1", 1, false},
		{commits, "fails 125", 125, false},
		{commits, "fails 126", 76, false},
		{commits, "dies 0", 76, false},
		{commits, "dies 100000", 76, false},
		{commits, "lies 10", 76, false},
		{commits, "good 5,good 5", 76, false},
		{commits, "good 5,good 0", 76, false},
		{commits, "good 5,foreign 5", 76, false},
		{commits, "foreign 5,good 5", 76, true},
		{commits, "foreign 5", 76, true},
		{commits, "foreign 0", 76, true},
		{commits, "tainted 5", 76, true},
		{trusts, "foreign 5", 0, false},
		{trusts, "tainted 5", 0, false},
		{trusts, "dies 5", 76, false},
		{trusts, "good 5,good 5", 76, false},
		{trusts, "fails 1", 1, false},
		{filters, "foreign 5", 0, true},
		{filters, "tainted 5", 0, true},
		{filters, "dies 5", 76, false},
		{filters, "good 5", 0, false},
	} {
		t.Run(fmt.Sprintf("%+v/%s", c.policy, c.writers), func(t *testing.T) {
			in := writers(t, c.policy, strings.Split(c.writers, ",")...)
			_, err := io.Copy(io.Discard, struct{ io.Reader }{in})
			if got := fault.Status(err); got != c.status {
				t.Errorf("status %d (%v), want %d", got, err, c.status)
			}
			if in.Tainted() != c.tainted {
				t.Errorf("tainted %v, want %v", in.Tainted(), c.tainted)
			}
			if _, again := in.Read(make([]byte, 1)); (again == io.EOF) != (err == nil) || again == nil {
				t.Errorf("a second read returns %v after %v", again, err)
			}
		})
	}
}

func TestAForeignPipeIsRefusedAtItsFirstByte(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // it stays open: the refusal does not wait for the end
	in, err := newInput(context.Background(), r, "standard input", Policy{Commits: true, Hint: "do this"})
	if err != nil {
		t.Fatal(err)
	}
	must(w.Write([]byte("first")))
	n, err := in.Read(make([]byte, 100))
	if n != 0 || fault.Status(err) != fault.Unearned || fault.Hint(err) != "do this" {
		t.Errorf("read %d bytes, %v, hint %q", n, err, fault.Hint(err))
	}
}

// A filter may write a header before it reads anything.
func TestTaintIsKnownBeforeTheFirstByteIsWritten(t *testing.T) {
	in := writers(t, Policy{}, "foreign 5")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	out := Stdout(Claim(w), false)
	out.Follow(in)
	if err := in.Await(); err != nil {
		t.Fatal(err)
	}
	must(out.Write([]byte("header")))
	if m, err := readMarks(r); err != nil || !m.tainted {
		t.Errorf("after the header the pipe's marks are %+v, %v", m, err)
	}
	if data, err := io.ReadAll(in); err != nil || len(data) != 5 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestOnlyAnonymousPipesAreMarked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	fifo := filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, fifo, os.DevNull} {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := f.Stat()
		out := Claim(f)
		out.Taint()
		if err := out.Stamp(0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		Claim(f).Stamp(3)
		after, _ := f.Stat()
		if before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) {
			t.Errorf("%s was marked: %v %v, before %v %v", name, after.Mode(), after.ModTime(), before.Mode(), before.ModTime())
		}
		f.Close()
	}
}

func TestMarksNeverSetUserOrGroupID(t *testing.T) {
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	out := Claim(w)
	out.Taint()
	Claim(w)
	var st syscall.Stat_t
	if err := syscall.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o1611 {
		t.Errorf("mode %o, want 1611: walg, mixed, tainted and nothing else", st.Mode&0o7777)
	}
}

func TestFilesAndNullAreBelieved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, []byte("data"), 0o600)
	for name, want := range map[string]string{file: "data", os.DevNull: ""} {
		in, err := Open(context.Background(), name, Policy{Commits: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		in.Close()
	}
	if _, err := Open(context.Background(), t.TempDir(), Policy{}); fault.Status(err) != fault.Usage {
		t.Errorf("a directory as input: %v", err)
	}
	if _, err := Open(context.Background(), file+"x", Policy{}); fault.Status(err) != fault.Absent {
		t.Errorf("an absent file as input: %v", err)
	}
}

func TestAWaitingReadEnds(t *testing.T) {
	r, w, _ := os.Pipe()
	defer w.Close()
	in, err := newInput(context.Background(), r, "standard input", Policy{Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "no data for") {
		t.Errorf("idle input: %v", err)
	}
	r, w2, _ := os.Pipe()
	defer w2.Close()
	ctx, cancel := context.WithCancel(context.Background())
	in, err = newInput(ctx, r, "standard input", Policy{})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled input: %v", err)
	}
}

func produce(t *testing.T, p Policy, argv ...string) ([]byte, *Input, error) {
	t.Helper()
	if p.Linger == 0 {
		p.Linger = time.Second
	}
	in, err := Command(context.Background(), argv, p)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	got, err := io.ReadAll(in)
	return got, in, err
}

func TestACommandsEndCountsOnlyWithStatusZero(t *testing.T) {
	for _, c := range []struct {
		line    string
		status  int
		message string
	}{
		{"echo whole", 0, ""},
		{"cat", 0, ""}, // its input is /dev/null
		{"echo half; exit 1", 76, "exit status 1"},
		{"echo half; exit 64", 64, ""},
		{"echo half; exit 65", 65, ""},
		{"echo half; exit 66", 66, ""},
		{"echo half; exit 73", 73, ""},
		{"echo half; exit 76", 76, ""},
		{"echo half; exit 77", 76, ""},
		{"echo half; kill -9 $$", 76, "killed"},
		{"echo half; echo 'first words' >&2; echo 'last words' >&2; exit 2", 76, ": last words"},
		{"echo half; (sleep 60 & echo $!)", 76, "still open"},
	} {
		t.Run(c.line, func(t *testing.T) {
			linger := time.Second
			if c.message == "still open" {
				linger = 50 * time.Millisecond
			}
			got, _, err := produce(t, Policy{Commits: true, Linger: linger}, "sh", "-c", c.line)
			if fault.Status(err) != c.status {
				t.Errorf("status %d (%v), want %d", fault.Status(err), err, c.status)
			}
			if err != nil && !strings.Contains(err.Error(), c.message) {
				t.Errorf("%q does not say %q", err, c.message)
			}
			if c.message == "still open" { // end the process that this test left
				pid, _ := strconv.Atoi(strings.Fields(string(got))[1])
				syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
	if _, _, err := produce(t, Policy{}, "/no/such/program"); fault.Status(err) != fault.Usage {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestTaintInsideACommandIsSeen(t *testing.T) {
	t.Setenv("PIPE_TEST_ROLE", "tainted 5")
	if _, _, err := produce(t, Policy{Commits: true}, os.Args[0]); fault.Status(err) != fault.Unearned {
		t.Errorf("a tainted command: %v", err)
	}
	if _, _, err := produce(t, Policy{Commits: true}, "bash", "-o", "pipefail", "-c", os.Args[0]); err != nil {
		t.Errorf("a command that reports its pipes: %v", err)
	}
}

func TestAPipelineInsideAShellIsWarnedOf(t *testing.T) {
	for line, want := range map[string]bool{
		"sh -c false|true":                      true,
		"/bin/sh -ec a||b|c":                    true,
		"bash -o pipefail -c a|b":               false,
		"bash -c set\u00a0-o\u00a0pipefail;a|b": false,
		"sh -c a||b":                            false,
		"sh -c true":                            false,
		"sh -e -c a|b":                          true,
		"sh -c":                                 false,
		"sh script a|b":                         false,
		"busybox sh -c a|b":                     true,
		"sudo -u db sh -c a|b":                  true,
		"docker exec db sh -c a|b":              true,
		"ssh db a|b":                            true,
		"ssh db a||b":                           false,
		"ssh db bash\u00a0-o\u00a0pipefail\u00a0-c\u00a0'a|b'": false,
		"su db -c a|b": true,
		"psql -c a|b":  false,
	} {
		argv := strings.Split(line, " ")
		var said string
		warnPipes(argv, Policy{Warn: func(m string) { said = m }})
		if (said != "") != want {
			t.Errorf("%s: warned %q, want a warning: %v", line, said, want)
		}
	}
}

func TestClosingTheInputKillsTheCommandsGroup(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	in, err := Command(context.Background(), []string{"sh", "-c", "sleep 60 & echo $! > " + pidfile + "; echo ready; wait"}, Policy{Linger: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	in.Close()
	text, _ := os.ReadFile(pidfile)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	for deadline := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("grandchild %d lives on", pid)
		}
	}
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func through(t *testing.T, in *Input, argv ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := Through(context.Background(), &out, in, argv, Policy{Linger: time.Second})
	return out.String(), err
}

func TestThroughEndsTheCommandsInputOnlyWhereOursWasEarned(t *testing.T) {
	out, err := through(t, writers(t, Policy{}, "good 3000000"), "wc", "-c")
	if strings.TrimSpace(out) != "3000000" || err != nil {
		t.Errorf("good input: %q, %v", out, err)
	}
	for role, status := range map[string]int{"dies 100000": 76, "fails 66": 66, "fails 1": 1} {
		done := filepath.Join(t.TempDir(), "done")
		_, err := through(t, writers(t, Policy{}, role), "sh", "-c", "cat >/dev/null; touch "+done)
		if fault.Status(err) != status {
			t.Errorf("%s: %v, want status %d", role, err, status)
		}
		if _, err := os.Stat(done); err == nil {
			t.Errorf("%s: COMMAND saw an end of file", role)
		}
	}
}

func TestThroughFailsWithItsCommand(t *testing.T) {
	for line, want := range map[string]struct {
		status  int
		message string
	}{
		"cat; exit 3":                    {1, "exit status 3"},
		"cat; exit 65":                   {65, "exit status 65"},
		"head -c 10":                     {1, "before it had read all"},
		"head -c 10; echo no >&2; false": {1, ": no"},
		"kill -9 $$":                     {1, "killed"},
	} {
		_, err := through(t, writers(t, Policy{}, "good 3000000"), "sh", "-c", line)
		if fault.Status(err) != want.status || !strings.Contains(err.Error(), want.message) {
			t.Errorf("%s: %v, want %+v", line, err, want)
		}
	}
}

func TestThroughFailsWhereLittleInputStaysUnread(t *testing.T) {
	for _, line := range []string{"true", "head -c 1"} {
		_, err := through(t, writers(t, Policy{}, "good 100000"), "sh", "-c", line)
		if fault.Status(err) != fault.Failed || !strings.Contains(err.Error(), "before it had read all") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestThroughSeesAKilledGrandchildThatItsCommandReports(t *testing.T) {
	_, err := through(t, writers(t, Policy{}, "good 3000000"), "bash", "-o", "pipefail", "-c", "sh -c 'head -c 1000; kill -9 $$' | cat")
	if err == nil {
		t.Error("a killed grandchild went unseen")
	}
}

func TestAConsumerIsKilledUnlessAllWasWritten(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	argv := []string{"sh", "-c", "cat >/dev/null; touch " + done}
	c, err := Consume(context.Background(), argv, []string{"X=y"}, Policy{Linger: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	must(c.Write([]byte("half")))
	broken := errors.New("broken")
	if err := c.Close(broken); err != broken {
		t.Errorf("Close returns %v", err)
	}
	if _, err := os.Stat(done); err == nil {
		t.Error("the consumer saw an end of file")
	}
	c, err = Consume(context.Background(), argv, nil, Policy{Linger: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	must(c.Write([]byte("whole")))
	if err := c.Close(nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(done); err != nil {
		t.Error("the consumer did not see its end of file")
	}
}

func TestOutputFileAppearsWithCommitOnly(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out")
	std := &End{f: os.Stdout}
	for _, old := range []string{"", "old"} {
		if old != "" {
			os.WriteFile(name, []byte(old), 0o640)
		}
		out, err := Create(name, std, false)
		if err != nil {
			t.Fatal(err)
		}
		must(out.Write([]byte("new")))
		out.Abort()
		if got, _ := os.ReadFile(name); string(got) != old {
			t.Errorf("after Abort: %q, want %q", got, old)
		}
		out, _ = Create(name, std, false)
		must(out.Write([]byte("new")))
		if got, _ := os.ReadFile(name); string(got) != old {
			t.Errorf("before Commit: %q, want %q", got, old)
		}
		if err := out.Commit(); err != nil {
			t.Fatal(err)
		}
		out.Abort() // does nothing any more
		if got, _ := os.ReadFile(name); string(got) != "new" {
			t.Errorf("after Commit: %q", got)
		}
		fi, _ := os.Stat(name)
		if want := map[string]os.FileMode{"": 0o600, "old": 0o640}[old]; fi.Mode() != want {
			t.Errorf("mode %o, want %o", fi.Mode(), want)
		}
		os.Remove(name)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOutputIsWrittenInPlaceWhereItIsNoPlainFile(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	os.WriteFile(target, []byte("old and longer"), 0o600)
	os.Symlink(target, link)
	out, err := Create(link, &End{f: os.Stdout}, false)
	if err != nil {
		t.Fatal(err)
	}
	must(out.Write([]byte("new")))
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(link); to != target {
		t.Error("the link was replaced")
	}
	if got, _ := os.ReadFile(target); string(got) != "new" {
		t.Errorf("target holds %q", got)
	}
	if out, err = Create(os.DevNull, &End{f: os.Stdout}, false); err != nil {
		t.Fatal(err)
	}
	must(out.Write([]byte("x")))
	if fi, _ := os.Stat(os.DevNull); fi.Mode()&os.ModeCharDevice == 0 {
		t.Fatal("/dev/null was replaced")
	}
	if _, err := Create(dir, &End{f: os.Stdout}, false); fault.Status(err) != fault.Usage {
		t.Errorf("a directory as output: %v", err)
	}
}

func TestBinaryDataIsNotForTerminals(t *testing.T) {
	for data, want := range map[string]bool{
		"plain text\n": false, "Grüße\n": false, "\x04\x22\x4d\x18": true, "a\x00b": true, "\xff\xfe\xfd\xfc": true, "": false,
	} {
		if binary([]byte(data)) != want {
			t.Errorf("%q: binary %v", data, !want)
		}
	}
	out := &Output{end: &End{f: os.Stdout}, terminal: true}
	if _, err := out.Write([]byte{0}); fault.Status(err) != fault.Usage {
		t.Errorf("binary to a terminal: %v", err)
	}
}
