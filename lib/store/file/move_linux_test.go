package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRenameNewRefusesATakenName(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := renameNew(from, to); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(from, []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := renameNew(from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("renameNew = %v, want fs.ErrExist", err)
	}
	if p, err := os.ReadFile(to); err != nil || string(p) != "new" {
		t.Errorf("%q, %v", p, err)
	}
}
