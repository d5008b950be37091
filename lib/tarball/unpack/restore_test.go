package unpack

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"walg/lib/dirfd"
	"walg/lib/fault"
)

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// joinPart extracts one part of the restore in dir.
func joinPart(t *testing.T, dir string, b []byte) error {
	t.Helper()
	mounts, err := Mounts(dir)
	must(t, err)
	_, err = Extract(ctx, bytes.NewReader(b), Target{Root: dir, Mounts: mounts, Join: true})
	return err
}

func TestRestoreOfParts(t *testing.T) {
	dir, space := filepath.Join(t.TempDir(), "new", "data"), filepath.Join(t.TempDir(), "space")
	mounts := map[string]string{"pg_tblspc/7": space}
	must(t, Begin(dir, "base_1", mounts))
	if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", i, err)
	}
	if to, _ := os.Readlink(filepath.Join(dir, "pg_tblspc/7")); to != space || !exists(space, ".") {
		t.Errorf("link to %q", to)
	}
	must(t, joinPart(t, dir, tarOf(t, folder("/"), regular("/base/1", 5))))
	must(t, joinPart(t, dir, tarOf(t, regular("/pg_tblspc/7/f", 5), folder("/pg_tblspc"))))
	control := tarOf(t, regular("/global/pg_control", 9))
	if exists(dir, "global/pg_control") || !exists(dir, markerName) {
		t.Error("complete before its end")
	}
	_, err := Finish(ctx, dir, bytes.NewReader(control), Target{})
	must(t, err)
	if !exists(dir, "global/pg_control") || exists(dir, markerName) || exists(dir, dirfd.TempName) || exists(dir, "global/"+dirfd.TempName) || !exists(space, "f") {
		t.Error("not complete at its end")
	}
	_, err = Finish(ctx, dir, bytes.NewReader(control), Target{})
	wantStatus(t, err, 64, dir)
	wantStatus(t, Begin(dir, "base_1", mounts), 73, dir)
}

func TestInterruptedRestoreGoesOn(t *testing.T) {
	dir, space := t.TempDir(), t.TempDir()
	mounts := map[string]string{"pg_tblspc/7": space}
	part := tarOf(t, regular("base/1", 5), regular("pg_tblspc/7/f", 700), regular("base/2", 5))
	control := tarOf(t, regular("global/pg_control", 9))
	must(t, Begin(dir, "base_1", mounts))
	wantStatus(t, joinPart(t, dir, part[:2000]), 65)
	must(t, Begin(dir, "base_1", mounts))
	must(t, joinPart(t, dir, part))
	for name, r := range map[string]*bytes.Reader{"truncated": bytes.NewReader(control[:1024]), "empty": bytes.NewReader(tarOf(t))} {
		_, err := Finish(ctx, dir, r, Target{})
		wantStatus(t, err, 65)
		if exists(dir, "global/pg_control") || !exists(dir, markerName) {
			t.Errorf("%s: the restore was finished", name)
		}
	}
	_, err := Finish(ctx, dir, iotest.ErrReader(errDied), Target{})
	if err != error(errDied) || !exists(dir, markerName) {
		t.Error(err)
	}
	must(t, Begin(dir, "base_1", mounts))
	must(t, joinPart(t, dir, part))
	_, err = Finish(ctx, dir, bytes.NewReader(control), Target{})
	must(t, err)
	if !exists(dir, "global/pg_control") || exists(dir, markerName) {
		t.Error("not finished")
	}
}

// TestRestoreBegunAgainIsIncompleteFirst is the loss of power after pg_control
// was written and before the marker was removed.
func TestRestoreBegunAgainIsIncompleteFirst(t *testing.T) {
	dir := t.TempDir()
	must(t, Begin(dir, "base_1", nil))
	_, err := Finish(ctx, dir, bytes.NewReader(tarOf(t, regular("global/pg_control", 9), regular("base/1", 1))), Target{
		Last: func(p string) bool { return p == "global/pg_control" }})
	must(t, err)
	p := []byte(`{"name":"base_1","last":["global/pg_control"]}`)
	must(t, os.WriteFile(filepath.Join(dir, markerName), p, 0o600))
	must(t, Begin(dir, "base_1", nil))
	if exists(dir, "global/pg_control") || !exists(dir, "base/1") {
		t.Error("the last file is still there, or another is not")
	}
}

func TestFinishMarksWhatItIsAboutToWrite(t *testing.T) {
	dir := t.TempDir()
	must(t, Begin(dir, "base_1", nil))
	put(t, dir, "global/pg_control/in the way", nil) // the rename will fail
	_, err := Finish(ctx, dir, bytes.NewReader(tarOf(t, regular("global/pg_control", 9))), Target{})
	wantStatus(t, err, 1, "pg_control")
	if m, err := readMarker(dir); err != nil || len(m.Last) != 1 || m.Last[0] != "global/pg_control" {
		t.Errorf("%+v, %v", m, err)
	}
	if exists(dir, "global/"+dirfd.TempName) {
		t.Error("a temporary file is left")
	}
}

func TestBeginRefusesWhatIsNotItsOwn(t *testing.T) {
	full := t.TempDir()
	put(t, full, "PG_VERSION", nil)
	wantStatus(t, Begin(full, "base_1", nil), 73, full, "PG_VERSION")
	dir := t.TempDir()
	err := Begin(dir, "base_1", map[string]string{"pg_tblspc/7": full})
	wantStatus(t, err, 73, full)
	if fault.Hint(err) == "" || exists(dir, markerName) || exists(dir, "pg_tblspc") {
		t.Error("something was made in a refused target, or no hint")
	}
	must(t, Begin(dir, "base_1", nil))
	wantStatus(t, Begin(dir, "base_2", nil), 73, "base_1")
	wantStatus(t, Begin(dir, "base_1", map[string]string{"pg_tblspc/7": t.TempDir()}), 73, "other tablespace")
	must(t, os.WriteFile(filepath.Join(dir, markerName), []byte("junk"), 0o600))
	wantStatus(t, Begin(dir, "base_1", nil), 73, markerName)
	wantStatus(t, Begin(t.TempDir(), "base_1", map[string]string{"../x": "/y"}), 64)
	if _, err := Mounts(t.TempDir()); fault.Status(err) != 64 {
		t.Error(err)
	}
}

func TestForgedMarkerDoesNotReachOutside(t *testing.T) {
	top := t.TempDir()
	put(t, top, "victim", nil)
	dir := filepath.Join(top, "dir")
	put(t, dir, markerName, []byte(`{"name":"base_1","last":["../victim"]}`))
	wantStatus(t, Begin(dir, "base_1", nil), 65)
	if !exists(top, "victim") {
		t.Error("a file outside was removed")
	}
}

func TestBeginThatDiedBeforeItsMarkerCanBeRepeated(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, dirfd.TempName, []byte(`{"na`))
	must(t, Begin(dir, "base_1", nil))
	if p, err := os.ReadFile(filepath.Join(dir, markerName)); err != nil || !strings.Contains(string(p), `"base_1"`) {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, dirfd.TempName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
