package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// result is one run of a pipeline.
type result struct {
	wall   time.Duration
	cpu    time.Duration
	stages []float64 // peak resident memory of each, MiB
}

func (r result) ms() float64 { return float64(r.wall) / 1e6 }

func (r result) rss() (sum float64) {
	for _, m := range r.stages {
		sum += m
	}
	return sum
}

func (r result) String() string {
	return fmt.Sprintf("%.2f s (cpu %.2f s, resident %.0f MiB)", r.wall.Seconds(), r.cpu.Seconds(), r.stages)
}

// target is where a pipeline's output goes, and what must be durable then.
type target struct {
	file          string
	sync, syncAll bool
}

// run runs a pipeline, each stage joined to the next by an anonymous pipe, and
// measures it from the first start to the last exit and the sync.
func run(t *target, stages ...[]string) result {
	var cmds []*exec.Cmd
	var in *os.File
	var out *os.File
	begin := time.Now()
	for i, argv := range stages {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stderr = os.Stderr
		if in != nil {
			cmd.Stdin = in
		}
		var next *os.File
		if i < len(stages)-1 {
			r, w, err := os.Pipe()
			check(err)
			cmd.Stdout, next = w, r
		} else if t != nil && t.file != "" {
			f, err := os.Create(t.file)
			check(err)
			cmd.Stdout, out = f, f
		}
		check(cmd.Start())
		if in != nil {
			in.Close()
		}
		if w, ok := cmd.Stdout.(*os.File); ok && next != nil {
			w.Close()
		}
		in = next
		cmds = append(cmds, cmd)
	}
	var r result
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			log.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
		}
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		r.stages = append(r.stages, float64(usage.Maxrss)/1024)
		r.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	if out != nil {
		if t.sync {
			check(out.Sync())
		}
		check(out.Close())
	}
	if t != nil && t.syncAll {
		unix.Sync()
	}
	r.wall = time.Since(begin)
	return r
}

// durableWrite returns the milliseconds that the least durable write takes.
func durableWrite(name string, content []byte) float64 {
	begin := time.Now()
	f, err := os.Create(name + ".tmp")
	check(err)
	_, err = f.Write(content)
	check(err)
	check(f.Sync())
	check(f.Close())
	check(os.Rename(name+".tmp", name))
	dir, err := os.Open(filepath.Dir(name))
	check(err)
	check(dir.Sync())
	check(dir.Close())
	return float64(time.Since(begin)) / 1e6
}

// settle removes what earlier runs left and lets the disk come to rest, so that
// each run begins alike.
func settle(names ...string) {
	for _, name := range names {
		check(os.RemoveAll(name))
	}
	unix.Sync()
}

// pair is the runs of a pipeline and of its peer, in turns.
type pair struct{ peer, walg []result }

func (p *pair) add(peer, walg result) { p.peer, p.walg = append(p.peer, peer), append(p.walg, walg) }

func (p *pair) print(peer string) {
	fmt.Printf("%s\n", peer)
	for _, r := range p.peer {
		fmt.Printf("    %s\n", r)
	}
	fmt.Println("  and walg")
	for _, r := range p.walg {
		fmt.Printf("    %s\n", r)
	}
}

// ratio is the ratio of the medians of wall time.
func (p *pair) ratio() float64 {
	wall := func(rs []result) (all []float64) {
		for _, r := range rs {
			all = append(all, r.wall.Seconds())
		}
		return all
	}
	return median(wall(p.walg)) / median(wall(p.peer))
}

// rss is the largest sum of the stages' peaks.
func (p *pair) rss() (most float64) {
	for _, r := range p.walg {
		most = max(most, r.rss())
	}
	return most
}
