// Bench measures speed and memory of the pipelines beside tar and lz4: the same
// work, in turns, in one run, every run printed. Load on the machine shows in
// the spread; compare medians and ratios, not runs of different days.
//
//	go run ./scripts/test/bench [-runs N] [-big MiB] [-small N] [-many N] [-object MiB] [-sample MiB] [part...]
//
// The parts are big, small, many, wal, start, store and codec; without any all
// but store and codec are run. It needs bin/ (make build), tar, lz4 and, for
// big, wal and codec, PostgreSQL 15; store needs MinIO, aws and rclone, codec
// lz4, zstd, brotli, xz and gpg, all of tools.sh.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

var (
	runs  = flag.Int("runs", 5, "runs of each pipeline")
	big   = flag.Int("big", 1500, "MiB of pgbench data")
	small = flag.Int("small", 300_000, "small files")
	many  = flag.Int("many", 1_000_000, "files for the memory figure")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	parts := flag.Args()
	if len(parts) == 0 {
		parts = []string{"start", "wal", "big", "small", "many"}
	}
	bin, err := filepath.Abs("bin")
	check(err)
	scripts, err := filepath.Abs("scripts")
	check(err)
	check(os.Setenv("PATH", bin+":"+scripts+":"+os.Getenv("PATH")))
	work, err := os.MkdirTemp("", "walg-bench")
	check(err)
	defer os.RemoveAll(work)
	b := &bench{work: work, store: filepath.Join(work, "store")}
	check(os.Mkdir(b.store, 0o755))
	check(os.Setenv("WALG_FILE_PREFIX", b.store))
	for _, part := range parts {
		switch part {
		case "start":
			b.start()
		case "wal":
			b.wal()
		case "big":
			b.trees("PGDATA", b.cluster(), 1.0, 1.0)
		case "small":
			b.trees(fmt.Sprintf("%d small files", *small), b.files(*small), 1.2, 2.0)
		case "many":
			b.memory()
		case "store":
			b.storage()
		case "codec":
			b.codecs()
		default:
			log.Fatalf("no part %q", part)
		}
	}
	if b.missed {
		fmt.Println("some figures are beyond their limits")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// bench is one run of this program.
type bench struct {
	work, store string
	pgdata      string
	missed      bool
}

// limit prints a figure beside its limit.
func (b *bench) limit(what string, figure, limit float64, unit string) {
	verdict := "ok"
	if figure > limit {
		verdict = "BEYOND"
		b.missed = true
	}
	fmt.Printf("%-58s %8.2f%s  limit %.2f%s  %s\n", what, figure, unit, limit, unit, verdict)
}

// least is limit for a figure that must not be smaller.
func (b *bench) least(what string, figure, least float64, unit string) {
	verdict := "ok"
	if figure < least {
		verdict = "BELOW"
		b.missed = true
	}
	fmt.Printf("%-58s %8.2f%s  at least %.2f%s  %s\n", what, figure, unit, least, unit, verdict)
}

// start measures how long each program takes to come up.
func (b *bench) start() {
	for name, limit := range map[string]float64{
		"walg-tar": 5, "walg-compress": 5, "walg-crypt": 5, "walg-put": 15, "walg-get": 15, "walg-retain": 15,
	} {
		var all []float64
		for range 20 {
			all = append(all, run(nil, []string{name, "--version"}).ms())
		}
		b.limit(name+" --version", median(all), limit, " ms")
	}
}

// wal measures the archiving of one segment beside the least that durability
// costs: write, fsync, rename, fsync of the directory.
func (b *bench) wal() {
	segment := b.segment()
	content, err := os.ReadFile(segment)
	check(err)
	settle() // the cluster's own writing is not what is measured
	var push, floor, extra []float64
	for i := range 4 * *runs {
		name := filepath.Join(b.work, fmt.Sprintf("%024X", i+1))
		check(os.Link(segment, name))
		f := durableWrite(filepath.Join(b.store, "probe"), content)
		p := run(nil, []string{"walg-wal-push", name}).ms()
		push, floor, extra = append(push, p), append(floor, f), append(extra, p-f)
		check(os.Remove(name))
	}
	fmt.Printf("walg-wal-push of %d bytes, ms: %.1f\n", len(content), push)
	fmt.Printf("write, fsync, rename, fsync of them, ms: %.1f\n", floor)
	fmt.Printf("medians: %.1f ms and %.1f ms\n", median(push), median(floor))
	b.limit("walg-wal-push beyond write, fsync, rename, fsync", median(extra), 20, " ms")
}

// trees measures backup and restore of a tree.
func (b *bench) trees(what, dir string, createLimit, extractLimit float64) {
	archive := filepath.Join(b.work, "peer.tar.lz4")
	var create, extract pair
	// Each run extracts into a directory of its own, and all go at the end:
	// a file system is slow for a while after many files were removed.
	out := filepath.Join(b.work, "out")
	check(os.Mkdir(out, 0o755))
	for i := range *runs {
		peerOut, walgOut := filepath.Join(out, fmt.Sprint("peer", i)), filepath.Join(out, fmt.Sprint("walg", i))
		settle(archive, filepath.Join(b.store, "bench"))
		create.add(
			run(&target{file: archive, sync: true}, []string{"tar", "c", "-C", dir, "."}, []string{"lz4", "-1"}),
			run(nil, []string{"walg-tar", "create", dir}, []string{"walg-compress"}, []string{"walg-put", "bench/tree.tar.lz4"}))
		settle()
		check(os.Mkdir(peerOut, 0o755))
		extract.add(
			run(&target{syncAll: true}, []string{"lz4", "-dc", archive}, []string{"tar", "x", "-C", peerOut}),
			run(nil, []string{"walg-get", "bench/tree.tar.lz4"}, []string{"walg-compress", "-d"}, []string{"walg-tar", "extract", walgOut}))
	}
	create.print(what + ": tar | lz4 -1, sync")
	b.limit(what+": walg-tar | walg-compress | walg-put to tar | lz4", create.ratio(), createLimit, "")
	b.limit(what+": resident memory of all processes", create.rss(), 256, " MiB")
	extract.print(what + ": lz4 -d | tar x, sync")
	b.limit(what+": walg-get | walg-compress | walg-tar to lz4 | tar", extract.ratio(), extractLimit, "")
	b.limit(what+": resident memory of all processes", extract.rss(), 256, " MiB")
	settle(out)
}

// memory measures walg-tar with very many files.
func (b *bench) memory() {
	dir := b.files(*many)
	what := fmt.Sprintf("%d files", *many)
	r := run(nil, []string{"walg-tar", "create", dir}, []string{"walg-compress"}, []string{"walg-put", "bench/many.tar.lz4"})
	fmt.Printf("%s: create %s\n", what, r)
	b.limit(what+": walg-tar create, resident", r.stages[0], 64, " MiB")
	b.limit(what+": all processes, resident", r.rss(), 256, " MiB")
	out := filepath.Join(b.work, "many")
	r = run(nil, []string{"walg-get", "bench/many.tar.lz4"}, []string{"walg-compress", "-d"}, []string{"walg-tar", "extract", out})
	fmt.Printf("%s: extract %s\n", what, r)
	b.limit(what+": walg-tar extract, resident", r.stages[2], 64, " MiB")
	b.limit(what+": all processes, resident", r.rss(), 256, " MiB")
	settle(out, dir)
}

func median(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// files makes a tree of n small files, at most 100,000 in a directory.
func (b *bench) files(n int) string {
	dir := filepath.Join(b.work, "files"+strconv.Itoa(n))
	content := make([]byte, 2048)
	for i := range content {
		content[i] = byte(i*i>>4 ^ i)
	}
	const per = 50_000
	for i := range n {
		sub := filepath.Join(dir, strconv.Itoa(i/per))
		if i%per == 0 {
			check(os.MkdirAll(sub, 0o755))
		}
		content[0], content[1], content[2] = byte(i), byte(i>>8), byte(i>>16)
		check(os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%07d", i)), content[:512+i%1536], 0o644))
	}
	return dir
}
