// Package script_test runs what the programs promise: the testscripts beside
// each main, and what scripts cannot say.
package script_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(status)
}

// builtEnv says to a child of these tests that the programs are in PATH.
const builtEnv = "SCRIPT_TEST_BUILT"

// run puts all programs in front of PATH and runs the tests.
func run(m *testing.M) (int, error) {
	if os.Getenv(builtEnv) != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "walg-script")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // tests become other users
		return 0, err
	}
	args := []string{"build", "-o", dir + string(filepath.Separator), "walg/cmd/..."}
	if os.Getenv("GOCOVERDIR") != "" {
		args = append([]string{"build", "-cover", "-coverpkg=walg/..."}, args[1:]...)
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %v\n%s", err, out)
	}
	if err := errors.Join(os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH")), os.Setenv(builtEnv, "yes")); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// TestScripts runs the scripts of each program, each with an empty store as
// WALG_FILE_PREFIX. The command "status N PROGRAM ARGUMENT..." checks an exit
// status.
func TestScripts(t *testing.T) {
	dirs, err := filepath.Glob("../*/testdata")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: dir,
				Setup: func(env *testscript.Env) error {
					store := filepath.Join(env.WorkDir, "store")
					env.Setenv("WALG_FILE_PREFIX", store)
					golden, err := filepath.Abs("../../testdata/golden")
					if err != nil {
						return err
					}
					env.Setenv("GOLDEN", golden)
					if dir := os.Getenv("GOCOVERDIR"); dir != "" {
						env.Setenv("GOCOVERDIR", dir)
					}
					return os.Mkdir(store, 0o755)
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
			})
		})
	}
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: status N program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("status %d, want %d", got, want)
	}
}
