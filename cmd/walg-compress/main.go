// Walg-compress compresses its input to its output, or with -d the other way.
//
// What it writes, lz4, xz, brotli and zstd open; an output is complete only
// where the input's producer has finished, and where the format of compressed
// data shows its end.
package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"walg/lib/cli"
	"walg/lib/codec"
	"walg/lib/fault"
	"walg/lib/pipe"
)

func main() {
	cli.Main(cli.Program{
		Name:     "walg-compress",
		Synopsis: "[OPTION]... [FILE | -- COMMAND...]",
		About: `Compress FILE, the output of COMMAND, or standard input to standard output;
with -d decompress. -d takes the method from -m, then from FILE's extension,
then from the first bytes.`,
		Setup: setup,
	})
}

// maxThreads bounds memory, 8 MiB a thread; storage is slower than four.
const maxThreads = 4

func setup(f *cli.Flags) cli.Run {
	decompress := f.Bool("decompress", "d", "", "decompress")
	method := f.String("method", "m", "WALG_COMPRESSION_METHOD", "lz4", "compress with this `method`: lz4, lzma, brotli, zstd or none")
	level := f.Int("level", "l", "", codec.Default, 0, "compression level, the `n` of the method's own program; without it as WAL-G")
	threads := f.Int("threads", "T", "", int64(min(runtime.GOMAXPROCS(0), maxThreads)), 1, "work on `n` blocks at once")
	memory := f.Size("memory", "", "", 256<<20, "with -d refuse what takes more than so many `bytes` to read; k, M and G are powers of 1024")
	size := f.Int("size", "", "", -1, 0, "fail unless the output has exactly `n` bytes; nothing appears under -o")
	ext := f.Bool("ext", "", "", "print the extension of objects that the method makes, and exit")
	streams := f.Input(false).Output(f).Through(f)

	return func(ctx context.Context, e *cli.Env) error {
		o := codec.Options{Level: int(*level), Threads: int(*threads), Memory: *memory}
		if *decompress && !f.Given("threads") {
			o.Threads = min(o.Threads, 2) // decoding is faster than what comes after it; more only burn time
		}
		given := ""
		if !*decompress || f.Given("method") {
			given = *method // WALG_COMPRESSION_METHOD is about new objects only
		}
		if *ext {
			m, err := codec.Writing(*method)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Stdout, m.Ext)
			return err
		}
		return streams.Filter(ctx, e, func(out *pipe.Output, in *pipe.Input) error {
			var err error
			if *decompress {
				err = expand(out, in, given, o)
			} else {
				if !f.Given("level") && given == "zstd" {
					o.Level, err = codec.ZstdLevel(e.Setting("WALG_ZSTD_LEVEL"))
				}
				if err == nil {
					err = compress(out, in, given, o)
				}
			}
			if err == nil && *size >= 0 && out.Bytes() != *size {
				err = fault.New(fault.Data, "%d bytes where %d were expected", out.Bytes(), *size)
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", map[bool]string{false: "compress", true: "decompress"}[*decompress], in.Name(), err)
			}
			return nil
		})
	}
}

func compress(out *pipe.Output, in *pipe.Input, name string, o codec.Options) error {
	m, err := codec.Writing(name)
	if err != nil {
		return err
	}
	out.Follow(in)
	if err := in.Await(); err != nil {
		return err
	}
	w, err := m.NewWriter(out, o)
	if err != nil {
		return err
	}
	if direct, ok := w.(io.ReaderFrom); ok {
		_, err = direct.ReadFrom(in)
	} else {
		_, err = pipe.Copy(w, in)
	}
	if err != nil {
		return err
	}
	return w.Close()
}

func expand(out *pipe.Output, in *pipe.Input, name string, o codec.Options) error {
	m, src, err := choose(in, name)
	if err != nil {
		return err
	}
	r := m.NewReader(src, o)
	out.FollowEnd(in, r.Proven)
	_, err = io.Copy(out, r)
	return err
}

// choose finds the method: the one that was named, that of the file's
// extension, or that of the first bytes, which src still delivers.
func choose(in *pipe.Input, name string) (m codec.Method, src io.Reader, err error) {
	if name != "" {
		m, err = codec.ByName(name)
		return m, in, err
	}
	if m, ok := codec.ByExt(in.Name()); ok {
		m, err = codec.ByName(m.Name)
		return m, in, err
	}
	head, src, err := pipe.Peek(in, codec.HeadSize)
	if err != nil {
		return m, src, err
	}
	m, err = codec.Detect(head)
	return m, src, err
}
