//go:build linux

package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	objects "walg/lib/store"
)

// The programs that break a stage of a pipeline. Each runs the real filter
// with its own standard input and output, of which it touches neither, and
// exits as a shell does.
func init() {
	roles["kills-at"] = func(args []string) int { return onByte(args, (*os.Process).Kill) }
	roles["kills-after"] = killsAfter
	roles["stalls-at"] = func(args []string) int {
		return onByte(args, func(p *os.Process) error {
			p.Signal(syscall.SIGSTOP)
			time.Sleep(stall)
			return p.Signal(syscall.SIGCONT)
		})
	}
	roles["input-breaks-at"] = inputBreaksAt
}

const (
	idle  = 40 * time.Millisecond  // what a filter waits for its input
	stall = 400 * time.Millisecond // how long that is kept from it
)

// onByte is N PROGRAM ARGUMENT...: act on the program once it has written N
// bytes. It runs in small steps and is looked at while it stands, so that the
// byte is about the one that was asked for.
func onByte(args []string, act func(*os.Process) error) int {
	target, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		panic(err)
	}
	cmd, ended := launch(nil, args[1:])
	runtime.LockOSThread()
	// Where we may, we come before the program, which is fast.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, -20)
	step := syscall.NsecToTimespec(int64(20 * time.Microsecond))
	for acted := false; !acted; syscall.Nanosleep(&step, nil) {
		select {
		case <-ended:
			return exitStatus(cmd.ProcessState)
		default:
		}
		cmd.Process.Signal(syscall.SIGSTOP)
		if !stands(cmd.Process.Pid) {
			continue
		}
		if written(cmd.Process.Pid) >= target {
			act(cmd.Process)
			acted = true
		}
		cmd.Process.Signal(syscall.SIGCONT)
	}
	<-ended
	return exitStatus(cmd.ProcessState)
}

// killsAfter is DURATION PROGRAM ARGUMENT...
func killsAfter(args []string) int {
	after, err := time.ParseDuration(args[0])
	if err != nil {
		panic(err)
	}
	cmd, ended := launch(nil, args[1:])
	select {
	case <-ended:
	case <-time.After(after):
		cmd.Process.Kill()
		<-ended
	}
	return exitStatus(cmd.ProcessState)
}

// inputBreaksAt is N PROGRAM ARGUMENT...: its standard input is a file of
// random bytes that ends after N of them in EIO. The kernel has such a file:
// the memory of a process, here of a mapping that is longer than its file.
func inputBreaksAt(args []string) int {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	page := os.Getpagesize()
	size := (n/page + 1) * page
	fd, err := unix.MemfdCreate("content", 0)
	if err != nil {
		panic(err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		panic(err)
	}
	room, err := unix.Mmap(fd, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	chacha := rand.NewChaCha8([32]byte{})
	chacha.Read(room[:size]) // there is nothing behind the last page
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		panic(err)
	}
	if _, err := mem.Seek(int64(uintptr(unsafe.Pointer(&room[size-n]))), 0); err != nil {
		panic(err)
	}
	cmd, ended := launch(mem, args[1:])
	<-ended
	return exitStatus(cmd.ProcessState)
}

// launch starts a program that dies with us.
func launch(stdin *os.File, argv []string) (cmd *exec.Cmd, ended <-chan struct{}) {
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	over := make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // PDEATHSIG belongs to the thread
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(over)
		}
	}()
	if err := <-started; err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(127)
	}
	return cmd, over
}

// stands waits until a process that was told to stop has done so; false says
// that it ended.
func stands(pid int) bool {
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		switch {
		case err != nil, len(rest) == 0, rest[0] == 'Z', rest[0] == 'X':
			return false
		case rest[0] == 'T':
			return true
		}
	}
}

// written returns how many bytes a process has written, wherever to.
func written(pid int) int64 { return ioCount(pid, "wchar: ") }

func ioCount(pid int, name string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)) // it may be gone
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, name); ok {
			bytes, _ := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			return bytes
		}
	}
	return 0
}

// cargo is a tree to send through the pipeline, and what is known of a good run.
type cargo struct {
	dir   string
	files []string
	tar   string        // SHA-256 of the archive
	out   [4]int64      // bytes that each stage writes
	took  time.Duration // by all of it
}

// newCargo makes a tree of about size bytes.
func newCargo(t testing.TB, r *rand.Rand, size int) *cargo {
	t.Helper()
	c := &cargo{dir: filepath.Join(folder(t), "tree")}
	chacha := rand.NewChaCha8([32]byte{byte(r.Uint32())})
	for i := 0; size > 0; i++ {
		content := make([]byte, r.IntN(size+1)+1)
		chacha.Read(content[:len(content)/2]) // the other half compresses
		size -= len(content)
		name := filepath.Join(c.dir, fmt.Sprintf("d%d", r.IntN(3)), fmt.Sprintf("f%d", i))
		write(t, name, content)
		c.files = append(c.files, name)
	}
	at := folder(t)
	began := time.Now()
	_, msg, status := sh(t, `walg-tar create "$D" -o "$A/tar" && walg-compress "$A/tar" -o "$A/lz4"`, "D="+c.dir, "A="+at)
	c.took = time.Since(began)
	if status != 0 {
		t.Fatalf("status %d: %s", status, msg)
	}
	c.tar = digest(t, filepath.Join(at, "tar"))
	sizes := map[string]int64{}
	for _, name := range []string{"tar", "lz4"} {
		fi, err := os.Stat(filepath.Join(at, name))
		if err != nil {
			t.Fatal(err)
		}
		sizes[name] = fi.Size()
	}
	c.out = [4]int64{sizes["tar"], sizes["lz4"], sizes["lz4"], sizes["lz4"]}
	return c
}

// user is who runs a pipeline: root, or somebody who may be refused a file.
type user struct{ prefix []string }

// nobody is the user for what root cannot show. Whoever is not root is nobody
// already.
func nobody() user {
	if os.Geteuid() != 0 {
		return user{}
	}
	return user{[]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}}
}

// namespace is where mounts are nobody else's.
func namespace() user {
	if os.Geteuid() != 0 {
		return user{[]string{"unshare", "-rm"}}
	}
	return user{[]string{"unshare", "-m"}}
}

func (u user) sh(t testing.TB, script string, env ...string) (stdout, stderr string, status int) {
	t.Helper()
	return execute(t, env, append(slices.Clone(u.prefix), "/bin/dash", "-c", script)...)
}

// open lets every user write into a folder of the test.
func open(t testing.TB, dir string) string {
	t.Helper()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pipeline is walg's pipeline with at most one broken stage. Scripts find the
// tree in $D, the key in $K, and leave the broken stage's status in $S.
type pipeline struct {
	stages [4]string
	before string // what the script does first
	user   user
	undo   func()
}

func newPipeline() *pipeline {
	return &pipeline{
		stages: [4]string{`walg-tar create "$D"`, `walg-compress`, `walg-crypt`, `walg-put --if-absent "$K"`},
		undo:   func() {},
	}
}

func (p *pipeline) script(broken int) string {
	stages := slices.Clone(p.stages[:])
	if broken >= 0 {
		stages[broken] = "{ " + stages[broken] + `; s=$?; echo $s >"$S"; exit $s; }`
	}
	return p.before + strings.Join(stages, " | ")
}

// breakdown is one way to break stage k. It returns whether the fault fired,
// going by the stage's status and by what was said.
type breakdown func(t *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) (fired func(status int, said string) bool)

// breakdowns has, for each fault, its ways.
var breakdowns = map[string][]breakdown{
	"exits 1":       {exitsOne, exitsOneForeign},
	"is killed":     {killedAtByte, killedAtByte, killedAtMoment},
	"never started": {neverStarted},
	"cannot read":   {cannotRead},
}

// exitsOne: walg-tar meets a file that it may not read, and the other stages
// an input that stalls for longer than they were told to wait.
func exitsOne(t *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	if k == 0 {
		closed := c.files[r.IntN(len(c.files))]
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		p.undo = func() { os.Chmod(closed, 0o644) }
		p.user = nobody()
		return func(status int, said string) bool { return status == 1 && strings.Contains(said, "permission denied") }
	}
	p.stages[k-1] = fmt.Sprintf("stalls-at %d %s", r.Int64N(c.out[k-1]), p.stages[k-1])
	p.stages[k] += fmt.Sprintf(" --idle-input %v", idle)
	return func(status int, said string) bool { return status == 1 && strings.Contains(said, "no data for") }
}

// exitsOneForeign: the stage is no walg program, passes a part on and fails.
func exitsOneForeign(t *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	if k == 3 {
		return exitsOne(t, r, c, p, k)
	}
	part := fmt.Sprintf("head -c %d; exit 1", r.Int64N(c.out[max(k-1, 0)]))
	if k == 0 {
		part = p.stages[0] + " | " + part
	}
	p.stages[k] = "sh -c '" + part + "'"
	return func(status int, _ string) bool { return status == 1 }
}

func killedAtByte(_ *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	p.stages[k] = fmt.Sprintf("kills-at %d %s", r.Int64N(c.out[k]), p.stages[k])
	return func(status int, _ string) bool { return status == 128+9 }
}

func killedAtMoment(_ *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	p.stages[k] = fmt.Sprintf("kills-after %v %s", time.Duration(r.Int64N(int64(c.took))), p.stages[k])
	return func(status int, _ string) bool { return status == 128+9 }
}

// neverStarted: there is no such program, or it is not executable.
func neverStarted(t *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	program, rest, _ := strings.Cut(p.stages[k], " ")
	want := 127
	if r.IntN(2) == 0 {
		want = 126
		dir := folder(t)
		write(t, filepath.Join(dir, program), []byte("#!/bin/sh\n")) // mode 0644
		program = filepath.Join(dir, program)
	} else {
		program += "-that-is-not-there"
	}
	p.stages[k] = program + " " + rest
	return func(status int, _ string) bool { return status == want }
}

// cannotRead: walg-tar meets a file that opens and says EINVAL when it is
// read, and the other stages an input that breaks off in EIO.
func cannotRead(t *testing.T, r *rand.Rand, c *cargo, p *pipeline, k int) func(int, string) bool {
	if k == 0 {
		p.user = namespace()
		p.before = "mount --bind /sys/class/net/lo/speed '" + c.files[r.IntN(len(c.files))] + "' && "
		return func(status int, said string) bool { return status == 1 && strings.Contains(said, "invalid argument") }
	}
	p.stages[k] = fmt.Sprintf("input-breaks-at %d %s", r.Int64N(c.out[k-1]), p.stages[k])
	return func(status int, said string) bool {
		return status == 1 && strings.Contains(said, "input/output error")
	}
}

// withoutLeftovers takes from a snapshot what a killed walg-put may leave:
// temporary files, by their names, and directories.
func withoutLeftovers(snapshot string) (rest string, leftovers []string) {
	var b strings.Builder
	for line := range strings.Lines(snapshot) {
		name, kind, _ := strings.Cut(line, " ")
		if _, _, temporary := objects.ParseTemp(filepath.Base(name)); temporary {
			leftovers = append(leftovers, name)
		} else if !strings.HasPrefix(kind, "d") {
			b.WriteString(line)
		}
	}
	return b.String(), leftovers
}
