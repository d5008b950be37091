package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"walg/lib/store/servertest"
)

var object = flag.Int("object", 1024, "MiB of the object that store moves")

// aws is Debian's: another one of that name may come first in PATH.
const aws = "/usr/bin/aws"

// A mover is a program that moves a stream to or from the bucket. Shells stand
// before them to open files only, and are replaced by them.
type mover struct {
	name string
	line string // of a shell; $1 is the object's key, $2 the file
	runs []result
	load []time.Duration // CPU time of the server in each run
}

// storage measures walg-put and walg-get beside the AWS command line and
// rclone: the same random bytes, which nothing can compress, to and from one
// MinIO on the same machine.
func (b *bench) storage() {
	server, err := servertest.Start("minio")
	check(err)
	defer server.Close() // nothing is asked of it any more
	alike(server.Env)
	file := filepath.Join(b.work, "random")
	f, err := os.Create(file)
	check(err)
	_, err = io.CopyN(f, rand.Reader, int64(*object)<<20)
	check(err)
	check(f.Close())

	puts := []*mover{
		{name: "walg-put", line: `exec walg-put "$1" <"$2"`},
		{name: "aws s3 cp", line: `exec ` + aws + ` --endpoint-url "$AWS_ENDPOINT" s3 cp --only-show-errors - "s3://walg/$1" <"$2"`},
		{name: "rclone rcat", line: `exec rclone --config /dev/null rcat ":s3:walg/$1" <"$2"`},
	}
	gets := []*mover{
		{name: "walg-get", line: `exec walg-get "$1"`},
		{name: "aws s3 cp", line: `exec ` + aws + ` --endpoint-url "$AWS_ENDPOINT" s3 cp --only-show-errors "s3://walg/$1" -`},
		{name: "rclone cat", line: `exec rclone --config /dev/null cat ":s3:walg/$1"`},
	}
	for range *runs {
		for _, m := range puts {
			m.run(server, "put", file)
			same("put", file)
			drop("put")
		}
	}
	first := mover{line: puts[0].line}
	first.run(server, "get", file)
	for range 3 * *runs { // short runs, which a busy machine disturbs more
		for _, m := range gets {
			m.run(server, "get", file)
		}
	}
	report(fmt.Sprintf("put %d MiB", *object), puts)
	report(fmt.Sprintf("get %d MiB", *object), gets)
	better, which := puts[1], puts[1].name
	if puts[2].wall() < better.wall() {
		better, which = puts[2], puts[2].name
	}
	b.limit("walg-put to "+which+", the better of the two", puts[0].wall()/better.wall(), 0.6, "")
	b.limit("walg-put: resident memory", puts[0].rss(), 200, " MiB")
	b.limit("walg-get to rclone cat", gets[0].wall()/gets[2].wall(), 1.0, "")
	b.limit("walg-get to aws s3 cp", gets[0].wall()/gets[1].wall(), 0.6, "")
	b.limit("walg-get: resident memory", gets[0].rss(), 200, " MiB")
	b.sizes()
}

// alike gives all three programs the same server and credentials, and nothing
// of this machine's or this user's settings. How many requests each makes at
// once is its own default. An address instead of a name means path style to
// the AWS command line.
func alike(server map[string]string) {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		for _, prefix := range []string{"AWS_", "WALG_", "WALE_", "S3_", "RCLONE_", "SSL_CERT_", "HTTP_", "HTTPS_", "ALL_"} {
			if strings.HasPrefix(strings.ToUpper(name), prefix) && name != "WALG_TEST_CACHE" {
				check(os.Unsetenv(name))
			}
		}
	}
	for name, value := range server {
		check(os.Setenv(name, value))
	}
	for name, value := range map[string]string{
		"WALG_S3_PREFIX":              "s3://walg",
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED":   "true",
		"RCLONE_LOG_LEVEL":            "ERROR",
		"RCLONE_S3_PROVIDER":          "Minio",
		"RCLONE_S3_ENV_AUTH":          "true",
		"RCLONE_S3_ENDPOINT":          server["AWS_ENDPOINT"],
		"RCLONE_S3_REGION":            server["AWS_REGION"],
		"RCLONE_S3_FORCE_PATH_STYLE":  "true",
	} {
		check(os.Setenv(name, value))
	}
}

// run moves the object once, with the file in the page cache and the disk at
// rest.
func (m *mover) run(server *servertest.Server, key, file string) {
	warm(file)
	settle()
	before := busy(server.PIDs)
	m.runs = append(m.runs, run(nil, []string{"sh", "-c", m.line, "sh", key, file}))
	m.load = append(m.load, busy(server.PIDs)-before)
}

// drop removes an object, so that no run has to replace one.
func drop(key string) {
	out, err := exec.Command("rclone", "--config", os.DevNull, "deletefile", ":s3:walg/"+key).CombinedOutput()
	if err != nil {
		fatal("rclone deletefile", err, out)
	}
}

// same checks that what was put is what is in the file.
func same(key, file string) {
	out, err := exec.Command("sh", "-c", `walg-get "$1" | cmp - "$2"`, "sh", key, file).CombinedOutput()
	if err != nil {
		fatal("compare the object with its file", err, out)
	}
}

// warm reads a file, so that it comes from memory next time.
func warm(file string) {
	f, err := os.Open(file)
	check(err)
	_, err = io.Copy(io.Discard, f)
	check(errors.Join(err, f.Close()))
}

// busy returns the CPU time that processes have used so far.
func busy(pids []int) (sum time.Duration) {
	const tick = time.Second / 100 // USER_HZ, the same on all machines that Go runs on
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		check(err)
		// The name, in parentheses, may have spaces. User and system time are
		// the fields 14 and 15 of proc(5); this begins with the third.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			check(err)
			sum += time.Duration(ticks) * tick
		}
	}
	return sum
}

// wall is the median of the runs, in seconds.
func (m *mover) wall() float64 {
	var all []float64
	for _, r := range m.runs {
		all = append(all, r.wall.Seconds())
	}
	return median(all)
}

// rss is the largest of the runs.
func (m *mover) rss() (most float64) {
	for _, r := range m.runs {
		most = max(most, r.rss())
	}
	return most
}

func report(what string, movers []*mover) {
	for _, m := range movers {
		fmt.Printf("%s: %s\n", what, m.name)
		for i, r := range m.runs {
			fmt.Printf("    %s, server's cpu %.2f s\n", r, m.load[i].Seconds())
		}
	}
	for _, m := range movers {
		var load []float64
		for _, d := range m.load {
			load = append(load, d.Seconds())
		}
		rate := float64(*object) / cmp.Or(m.wall(), 1)
		fmt.Printf("%s: %-12s median %6.2f s, %5.0f MiB/s, at most %4.0f MiB resident, server's cpu %5.2f s\n",
			what, m.name, m.wall(), rate, m.rss(), median(load))
	}
}

// sizes prints how large the programs are.
func (b *bench) sizes() {
	for _, name := range []string{"walg-tar", "walg-compress", "walg-crypt", "walg-put", "walg-get", "walg-retain"} {
		path, err := exec.LookPath(name)
		check(err)
		fi, err := os.Stat(path)
		check(err)
		fmt.Printf("%-14s %5.1f MiB\n", name, float64(fi.Size())/(1<<20))
	}
}
