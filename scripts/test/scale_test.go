//go:build linux

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"walg/lib/store/s3list"
)

// The archive of years: so many segments, and so many full backups evenly among
// them.
const (
	manySegments = 1_000_000
	manyBackups  = 1_000
)

func manySegment(i int) string { return "wal_005/" + wal24(1, i+1) + ".lz4" }

// manyObjects calls put for each object of all backups.
func manyObjects(t testing.TB, put func(key string, content []byte)) {
	t.Helper()
	for i := range manyBackups {
		n := (i + 1) * (manySegments / manyBackups)
		lsn := n<<24 + 0x28
		start := time.Unix(1_700_000_000+int64(i)*3600, 0).UTC().Format(time.RFC3339)
		below := "basebackups_005/base_" + wal24(1, n)
		put(below+sentinelEnd, []byte(encoded(t, map[string]any{"LSN": lsn, "FinishLSN": lsn + 100, "PgVersion": 150018, "SystemIdentifier": 7})))
		put(below+"/metadata.json", []byte(encoded(t, map[string]any{
			"start_time": start, "finish_time": start, "start_lsn": lsn, "finish_lsn": lsn + 100, "pg_version": 150018, "system_identifier": 7})))
		put(below+"/files_metadata.json", []byte("{}"))
		put(below+"/tar_partitions/part_001.tar.lz4", []byte("x"))
	}
}

// costs runs walg-retain, and fails the test where it takes longer or more than
// that.
func costs(t *testing.T, env []string, limit time.Duration, mib int64, args ...string) string {
	t.Helper()
	// Linux counts what this test holds as the memory of a program that it
	// starts; time holds next to nothing.
	record := filepath.Join(folder(t), "KiB")
	cmd := exec.Command("time", append([]string{"-f", "%M", "-o", record, "walg-retain"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, &msg)
	}
	took := time.Since(begin)
	used, err := strconv.ParseInt(strings.TrimSpace(string(read(t, record))), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	used >>= 10
	t.Logf("%s: %.1f s, of which %.1f s of CPU time, %d MiB", strings.Join(args, " "), took.Seconds(),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), used)
	if took > limit || used > mib {
		t.Errorf("%q took %v and %d MiB, the limits are %v and %d MiB", args, took, used, limit, mib)
	}
	return out.String()
}

// planMany makes the plans that keep 100 backups, and lists all.
func planMany(t *testing.T, env []string) {
	t.Helper()
	var plan struct {
		Total  struct{ Backups, Objects int }
		Delete []json.RawMessage
	}
	out := costs(t, env, 20*time.Second, 128, "delete", "retain", "FULL", "100", "--json")
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	// What is before the segment of the oldest that stays, and four objects of
	// each backup before it.
	if want := 901*(manySegments/manyBackups) - 1 + 4*900; plan.Total.Backups != 900 || plan.Total.Objects != want {
		t.Errorf("the plan removes %+v, want 900 backups, %d objects", plan.Total, want)
	}
	if n := strings.Count(costs(t, env, 2*time.Second, 128, "list"), "\n"); n != manyBackups+1 {
		t.Errorf("the list has %d lines", n)
	}
	costs(t, env, 20*time.Second, 128, "list", "--detail", "--json")
}

func TestAMillionSegmentsOnADisk(t *testing.T) {
	base := "/dev/shm" // a disk takes a minute for the making
	var room syscall.Statfs_t
	if err := syscall.Statfs(base, &room); err != nil || room.Ffree < 2*manySegments {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "walg-million")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "wal_005"), 0o755); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for w := range 4 {
		group.Go(func() error {
			for i := w; i < manySegments; i += 4 {
				fd, err := syscall.Open(filepath.Join(dir, manySegment(i)), syscall.O_CREAT|syscall.O_WRONLY, 0o644)
				if err != nil {
					return fmt.Errorf("%s: %w", manySegment(i), err)
				}
				syscall.Close(fd)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	manyObjects(t, func(key string, content []byte) { write(t, filepath.Join(dir, key), content) })
	env := []string{"WALG_FILE_PREFIX=" + dir}
	planMany(t, env)
	costs(t, env, 5*time.Minute, 128, "delete", "retain", "FULL", "100", "--confirm")
	if keys := keysBelow(t, dir); len(keys) != manySegments-901*(manySegments/manyBackups)+1+4*100 {
		t.Errorf("%d objects stay", len(keys))
	}
}

func TestAMillionSegmentsInAListingOfS3(t *testing.T) {
	fake := s3list.New(t, s3list.Synthetic{Count: manySegments, Key: manySegment, Size: 1 << 20, ModTime: time.Unix(1_700_000_000, 0)})
	manyObjects(t, fake.Put)
	var env []string
	for name, value := range fake.Env() {
		env = append(env, name+"="+value)
	}
	planMany(t, env)
	costs(t, env, 5*time.Minute, 128, "delete", "retain", "FULL", "100", "--confirm")
	if n := fake.Len(); n != manySegments-901*(manySegments/manyBackups)+1+4*100 {
		t.Errorf("%d objects stay", n)
	}
	if n := fake.Count("DeleteObjects"); n > 910 {
		t.Errorf("%d requests remove a million objects, a thousand at a time", n)
	}
}
