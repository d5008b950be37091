package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const postgres = "/usr/lib/postgresql/15/bin"

// cluster makes a stopped cluster with pgbench data, and WAL of real load in
// its archive.
func (b *bench) cluster() string {
	if b.pgdata != "" {
		return b.pgdata
	}
	dir, err := os.MkdirTemp("", "walg-pg") // a short path, for the socket
	check(err)
	b.pgdata = filepath.Join(b.work, "pgdata")
	check(os.Mkdir(b.pgdata, 0o700))
	archive := filepath.Join(b.work, "archive")
	check(os.Mkdir(archive, 0o700))
	for _, d := range []string{b.work, dir} {
		check(os.Chmod(d, 0o755))
	}
	server := asServer(dir, b.pgdata, archive)
	server("initdb", "-D", b.pgdata, "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-k")
	config := fmt.Sprintf("listen_addresses=''\nunix_socket_directories='%s'\nshared_buffers=512MB\nmax_wal_size=4GB\nfsync=off\n"+
		"archive_mode=on\narchive_command='cp %%p %s/%%f'\n", dir, archive)
	f, err := os.OpenFile(filepath.Join(b.pgdata, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	check(err)
	_, err = f.WriteString(config)
	check(err)
	check(f.Close())
	server("pg_ctl", "-D", b.pgdata, "-l", filepath.Join(dir, "log"), "-w", "start")
	scale := strconv.Itoa(max(1, *big/15))
	server("pgbench", "-h", dir, "-U", "postgres", "-i", "-q", "-s", scale, "postgres")
	server("pgbench", "-h", dir, "-U", "postgres", "-T", "10", "-c", "4", "postgres")
	server("pg_ctl", "-D", b.pgdata, "-m", "fast", "-w", "stop")
	check(os.RemoveAll(dir))
	return b.pgdata
}

// asServer returns a function that runs PostgreSQL's programs as somebody whom
// PostgreSQL does not refuse, who owns dirs.
func asServer(dirs ...string) func(name string, arg ...string) {
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		check(err)
		uid, _ := strconv.Atoi(u.Uid) // numbers, on every Unix
		gid, _ := strconv.Atoi(u.Gid)
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		for _, d := range dirs {
			check(os.Chown(d, uid, gid))
		}
	}
	return func(name string, arg ...string) {
		cmd := exec.Command(filepath.Join(postgres, name), arg...)
		cmd.SysProcAttr = attr
		cmd.Dir = "/"
		log, err := os.CreateTemp("", "walg-bench-log")
		check(err)
		cmd.Stdout, cmd.Stderr = log, log // no pipe, which the server would keep open
		if err := cmd.Run(); err != nil {
			said, _ := os.ReadFile(log.Name())
			fatal(name, err, said)
		}
		check(os.Remove(log.Name()))
	}
}

func fatal(name string, err error, said []byte) {
	log.Fatalf("%s: %v\n%s", name, err, said)
}

// segment is a WAL segment of the pgbench load, full of what an archive gets.
func (b *bench) segment() string {
	b.cluster()
	names, err := filepath.Glob(filepath.Join(b.work, "archive", strings.Repeat("?", 24)))
	check(err)
	if len(names) < 2 {
		log.Fatal("the load made no WAL")
	}
	return names[len(names)-2]
}
