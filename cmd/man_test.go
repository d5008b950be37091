// Package cmd_test compares what the programs say of themselves with their
// manual pages.
package cmd_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// option is one option as --help and the manual page write it: "-m, --method"
// or "--method".
var (
	helpOption  = regexp.MustCompile(`(?m)^ {2,}((?:-\w, )?--[a-z][a-z0-9-]*)`)
	helpSetting = regexp.MustCompile(`\[\$(\w+)\]`)
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) `)
	pageOption  = regexp.MustCompile(`(?m)^((?:-\w, )?--[a-z][a-z0-9-]*)`)
)

// headings of every program's page, in this order.
var headings = []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "PIPELINE CONTRACT", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "NOTES"}

// help is what one program says on --help, all its commands together.
type help struct {
	commands []string
	options  []string
	settings []string
}

// ask runs program with --help, and each of its commands.
func ask(t *testing.T, program string) help {
	t.Helper()
	all := say(t, program, "--help")
	var h help
	if !strings.HasPrefix(all, "usage: "+filepath.Base(program)+" COMMAND ") {
		h.options = submatches(helpOption, all)
		h.settings = submatches(helpSetting, all)
		return h
	}
	h.commands = submatches(helpCommand, all)
	for _, c := range h.commands {
		text := say(t, program, c, "--help")
		h.options = append(h.options, submatches(helpOption, text)...)
		h.settings = append(h.settings, submatches(helpSetting, text)...)
	}
	return h
}

func say(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func submatches(re *regexp.Regexp, text string) []string {
	var found []string
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// sections splits a page's scdoc source at its first-level headings.
func sections(page string) (names []string, text map[string]string) {
	text = map[string]string{}
	for _, part := range strings.Split("\n"+page, "\n# ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		names = append(names, name)
		text[name] = body
	}
	return names, text
}

// differ reports what is in one list only.
func differ(t *testing.T, what, where string, got []string, elsewhere string, want []string) {
	t.Helper()
	for _, s := range unique(got) {
		if !slices.Contains(want, s) {
			t.Errorf("%s %s is in %s and not in %s", what, s, where, elsewhere)
		}
	}
}

func unique(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

func TestManualsAgreeWithPrograms(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	for _, main := range mains {
		name := filepath.Dir(main)
		t.Run(name, func(t *testing.T) {
			page, err := os.ReadFile(filepath.Join(name, name+".1.scd"))
			if err != nil {
				t.Fatal(err)
			}
			names, text := sections(string(page))
			if !slices.Equal(names, headings) {
				t.Errorf("the page's headings are %q, not %q", names, headings)
			}
			h := ask(t, filepath.Join(bin, name))
			if len(h.options) == 0 {
				t.Fatal("--help names no option")
			}
			documented := submatches(pageOption, strings.ReplaceAll(text["OPTIONS"], "*", ""))
			differ(t, "option", "--help", h.options, "OPTIONS", documented)
			differ(t, "option", "OPTIONS", documented, "--help", h.options)
			for _, setting := range unique(h.settings) {
				if !strings.Contains(text["ENVIRONMENT"], setting) {
					t.Errorf("setting %s is in --help and not in ENVIRONMENT", setting)
				}
			}
			for _, c := range h.commands {
				if !regexp.MustCompile(`(?m)^\*` + name + ` ` + c + `\*`).MatchString(text["SYNOPSIS"]) {
					t.Errorf("command %s is in --help and not in SYNOPSIS", c)
				}
			}
		})
	}
}

// TestScriptsHaveManuals: a script that is a command has a page of its own, and
// each page a script.
func TestScriptsHaveManuals(t *testing.T) {
	var scripts, pages []string
	found, err := filepath.Glob("../scripts/wal*-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if !strings.HasSuffix(name, ".sh") { // what scripts source
			scripts = append(scripts, filepath.Base(name))
		}
	}
	found, err = filepath.Glob("../docs/man/*.1.scd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		pages = append(pages, strings.TrimSuffix(filepath.Base(name), ".1.scd"))
	}
	if !slices.Equal(scripts, pages) {
		t.Errorf("scripts are %q, their pages %q", scripts, pages)
	}
}

// TestManualsTellTheSameStatuses: an exit status means the same everywhere, so
// a page only names those of walg(7).
func TestManualsTellTheSameStatuses(t *testing.T) {
	contract, err := os.ReadFile("../docs/man/walg.7.scd")
	if err != nil {
		t.Fatal(err)
	}
	_, text := sections(string(contract))
	status := regexp.MustCompile(`(?m)^\*(\d+)\*$`)
	known := map[string]bool{}
	for _, s := range submatches(status, text["EXIT STATUS"]) {
		known[s] = true
	}
	if len(known) < 7 {
		t.Fatalf("walg(7) lists only the statuses %v", slices.Sorted(maps.Keys(known)))
	}
	pages, err := filepath.Glob("*/*.1.scd")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manual pages: %v", err)
	}
	for _, name := range pages {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, text := sections(string(page))
		for _, s := range submatches(status, text["EXIT STATUS"]) {
			if !known[s] {
				t.Errorf("%s: status %s is not in walg(7)", name, s)
			}
		}
	}
}
