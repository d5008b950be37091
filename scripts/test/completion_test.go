//go:build linux

package test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// installedCompletions lays the files out as make install does.
func installedCompletions(t *testing.T) (bashdir, zshdir string) {
	t.Helper()
	dir := folder(t)
	bashdir, zshdir = filepath.Join(dir, "bash-completion/completions"), filepath.Join(dir, "zsh/site-functions")
	write(t, filepath.Join(bashdir, "walg-retain"), read(t, "../completion/walg.bash"))
	write(t, filepath.Join(zshdir, "_walg"), read(t, "../completion/_walg"))
	return bashdir, zshdir
}

func TestBashCompletesOptionsCommandsAndBackups(t *testing.T) {
	bashdir, _ := installedCompletions(t)
	dir := store(t)
	fill(t, dir)
	backups := append(backupNames(t, dir), "LATEST")
	for line, want := range map[string][]string{
		"walg-retain l":                      {"list", "leftovers"},
		"walg-retain show ":                  backups,
		"/usr/bin/walg-retain chain LAT":     {"LATEST"},
		"walg-retain delete ":                {"retain", "before", "target", "everything", "garbage"},
		"walg-retain delete --confirm ":      {"retain", "before", "target", "everything", "garbage"},
		"walg-retain delete retain F":        {"FULL", "FIND_FULL"},
		"walg-retain delete before ":         append([]string{"FIND_FULL"}, backups...),
		"walg-retain delete before FIND_F":   {"FIND_FULL"},
		"walg-retain delete --conf":          {"--confirm"},
		"walg-retain mark --imp":             {"--impermanent"},
		"walg-retain list --conf":            nil,
		"walg-delete target FIND_FULL ":      backups,
		"walg-delete --grace 1h gar":         {"garbage"},
		"walg-delete retain 3 --after LAT":   {"LATEST"},
		"walg-backup-mark -i LAT":            {"LATEST"},
		"walg-backup-fetch /dir LAT":         {"LATEST"},
		"walg-backup-fetch LAT":              nil, // a directory: the shell's own
		"wal-g del":                          {"delete"},
		"wal-g delete garbage ":              {"ARCHIVES", "BACKUPS"},
		"wal-g delete target LAT":            {"LATEST"},
		"wal-g backup-list --pre":            {"--pretty", "--prefix"},
		"walg-tar cr":                        {"create"},
		"walg-tar extract --fin":             {"--finish"},
		"walg-compress -m z":                 {"zstd"},
		"walg-compress --thr":                {"--threads", "--through"},
		"walg-crypt -m lib":                  {"libsodium"},
		"walg-put --if-":                     {"--if-absent"},
		"walg-get --try":                     {"--try-ext"},
		"walg-get some/k":                    nil,
		"walg-retain delete everything FORC": {"FORCE"},
	} {
		words := strings.Split(line, " ")
		for i := range words {
			words[i] = quote(words[i])
		}
		out, msg, status := bash(t, fmt.Sprintf(`. "$DIR/walg-retain"
			complete -p %s | grep -q -e "-F _walg " || exit 1
			COMP_WORDS=(%s) COMP_CWORD=%d; _walg; printf '%%s\n' "${COMPREPLY[@]}"`,
			quote(filepath.Base(strings.Fields(line)[0])), strings.Join(words, " "), len(words)-1),
			"WALG_FILE_PREFIX="+dir, "DIR="+bashdir)
		if got := strings.Fields(out); status != 0 || msg != "" || !slices.Equal(got, want) {
			t.Errorf("%q: status %d, %q, want %q\n%s", line, status, got, want, msg)
		}
	}
	// A storage that cannot be asked proposes no backup, and says nothing.
	if out, msg, _ := bash(t, `. "$DIR/walg-retain"; COMP_WORDS=(walg-retain show '') COMP_CWORD=2; _walg; echo "${COMPREPLY[@]}"`,
		"DIR="+bashdir); out != "LATEST\n" || msg != "" {
		t.Errorf("without a storage: %q, %q", out, msg)
	}
}

// In zsh the keys are typed into an interactive shell on a terminal.
func TestZshCompletesCommandsAndBackups(t *testing.T) {
	_, zshdir := installedCompletions(t)
	dir := store(t)
	fill(t, dir)
	out, msg, status := execute(t, []string{"WALG_FILE_PREFIX=" + dir, "DIR=" + zshdir, "TERM=dumb", "HOME=" + folder(t)}, "zsh", "-f", "-c", `
		zmodload zsh/zpty
		zpty z zsh -f -i
		zpty -w z 'PS1= PS2=; unsetopt beep; fpath=($DIR $fpath); autoload -U compinit && compinit -u -D; echo rea''dy'
		zpty -r z out '*ready*'
		zpty -w -n z $'wal-g delete before FIN\t'
		zpty -r z out '*FIND_FULL *' && echo words
		zpty -w -n z $'base_00000001000000000000000E\t'
		zpty -r z out '*0E_D_00000001000000000000000C *' && echo backups
		zpty -w -n z $'\C-uwalg-retain delete --confi\t'
		zpty -r z out '*--confirm *' && echo options
		zpty -d z`)
	if status != 0 || out != "words\nbackups\noptions\n" {
		t.Errorf("status %d\n%s%s", status, out, msg)
	}
}
