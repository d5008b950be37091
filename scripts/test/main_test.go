//go:build linux

// Package test runs the programs and scripts as their users do: under a plain
// shell without pipefail, against a file store and real servers. Each test
// claims one sentence of the contract.
package test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seed is what all random choices start from: WALG_SEED, or a new one.
var seed uint64

// base is the folder of everything that the tests make. Other users may pass
// through it, so that programs can run as them.
var base string

// roles are programs that tests put into pipelines beside the real ones: the
// test binary plays each under its name.
var roles = map[string]func(args []string) (status int){}

// limit bounds each command that a test runs.
const limit = 2 * time.Minute

func TestMain(m *testing.M) {
	if play := roles[filepath.Base(os.Args[0])]; play != nil {
		os.Exit(play(os.Args[1:]))
	}
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	if err := setup(); err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	before := nullDevice()
	status = m.Run()
	if after := nullDevice(); after != before {
		return 1, fmt.Errorf("the tests changed %s: %s before, %s after", os.DevNull, before, after)
	}
	return status, nil
}

// setup draws the seed, cleans the environment of settings, and puts the
// programs and scripts first in PATH, as an installation has them: side by
// side.
func setup() (err error) {
	seed = rand.Uint64N(1 << 32)
	if text := os.Getenv("WALG_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("WALG_SEED: %w", err)
		}
	}
	fmt.Printf("seed: WALG_SEED=%d repeats this run\n", seed)

	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		for _, prefix := range []string{"WALG_", "WALE_", "PG", "AWS_", "S3_", "GCS_", "AZURE_"} {
			if strings.HasPrefix(name, prefix) && name != "WALG_SOAK" && name != "WALG_TEST_CACHE" {
				os.Unsetenv(name)
			}
		}
	}
	os.Setenv("LC_ALL", "C")
	os.Setenv("TZ", "UTC")
	syscall.Umask(0o022)

	if base, err = os.MkdirTemp("", "walg-e2e-"); err != nil {
		return err
	}
	bin := filepath.Join(base, "bin")
	for _, dir := range []string{base, bin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	if err := build(bin); err != nil {
		return err
	}
	if err := install(bin); err != nil {
		return err
	}
	return os.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}

// build makes the programs, with counters where coverage is wanted.
func build(bin string) error {
	args := []string{"build", "-buildvcs=false", "-o", bin + "/"}
	if os.Getenv("GOCOVERDIR") != "" {
		args = append(args, "-cover", "-coverpkg=walg/...")
	}
	cmd := exec.Command("go", append(args, "walg/cmd/...")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

// install copies the scripts, and the test binary once with a name for each
// role.
func install(bin string) error {
	scripts, err := filepath.Glob("../*")
	if err != nil {
		return err
	}
	for _, name := range scripts {
		if fi, err := os.Stat(name); err != nil || fi.IsDir() {
			continue
		}
		if err := copyFile(filepath.Join(bin, filepath.Base(name)), name, 0o755); err != nil {
			return err
		}
	}
	if len(roles) == 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := copyFile(filepath.Join(bin, "roles"), self, 0o755); err != nil {
		return err
	}
	for name := range roles {
		if err := os.Symlink("roles", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, mode)
}

// nullDevice describes /dev/null, which no program may change.
func nullDevice() string {
	var st syscall.Stat_t
	if err := syscall.Stat(os.DevNull, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("mode %o, owner %d:%d, modified %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
}

// sh runs a script as archive_command is run: by a plain shell that knows no
// pipefail. env is added to the environment. The status of a program that died
// of a signal is 128 and the signal.
func sh(t testing.TB, script string, env ...string) (stdout, stderr string, status int) {
	t.Helper()
	return execute(t, env, "/bin/dash", "-c", script)
}

// bash is sh with the other shell.
func bash(t testing.TB, script string, env ...string) (stdout, stderr string, status int) {
	t.Helper()
	return execute(t, env, "bash", "-c", script)
}

// execute runs a command with a time limit and standard input from /dev/null.
func execute(t testing.TB, env []string, argv ...string) (stdout, stderr string, status int) {
	t.Helper()
	before := nullDevice()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second // for what a background process holds open
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(limit, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%s: still running after %v; standard error:\n%s", argv, limit, &msg)
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v; standard error:\n%s", argv, err, &msg)
	}
	if after := nullDevice(); after != before {
		t.Fatalf("%s changed %s: %s before, %s after", argv, os.DevNull, before, after)
	}
	return out.String(), msg.String(), exitStatus(cmd.ProcessState)
}

// exitStatus is what a shell says of a program's end.
func exitStatus(s *os.ProcessState) int {
	if ws := s.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// rounds returns how often a random test repeats: sample in make test, soak
// with WALG_SOAK set.
func rounds(sample, soak int) int {
	if os.Getenv("WALG_SOAK") != "" {
		return soak
	}
	return sample
}

// random returns the random choices of one test, which depend on the seed and
// on the test's name only.
func random(t testing.TB) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, t.Name())
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// folder makes an empty folder that other users may enter, and removes it with
// the test.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// store makes an empty file store. Its commands get it by the setting
// "WALG_FILE_PREFIX="+dir, so that tests can run side by side.
func store(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(folder(t), "store")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshot describes a tree exactly: a line for each name with its type, mode,
// size and SHA-256, in byte order.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case fi.Mode().IsRegular():
			fmt.Fprintf(&b, "%s %v %d %s\n", rel, fi.Mode(), fi.Size(), digest(t, path))
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %v -> %s\n", rel, fi.Mode(), to)
		default:
			fmt.Fprintf(&b, "%s %v\n", rel, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// digest returns the SHA-256 of a file.
func digest(t testing.TB, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// write makes a file with its directories.
func write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// read returns a file's content.
func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// asRoot fails a test that cannot show its point otherwise: skipped is not
// passed.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
}
