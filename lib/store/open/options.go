package open

import (
	"sync/atomic"
	"time"

	"walg/lib/store/driver"
	"walg/lib/store/remote"
)

// Flags is what a command line offers to declare options; lib/cli has it.
type Flags interface {
	String(name, letter, setting, value, usage string) *string
	Size(name, letter, setting string, value int64, usage string) *int64
	Int(name, letter, setting string, value, least int64, usage string) *int64
	Duration(name string, value time.Duration, usage string) *time.Duration
	Given(name string) bool
}

// Env is where a program's settings come from, and where its warnings go.
type Env interface {
	Lookup(name string) string
	Warn(format string, args ...any)
}

// Options are the options for the storage, the same for every program.
type Options struct {
	flags          Flags
	prefix, below  *string
	rate, parallel *int64
	stall, timeout *time.Duration
	patience       *time.Duration
	retries        atomic.Int64
}

// Retries returns how many requests have been tried again so far.
func (o *Options) Retries() int { return int(o.retries.Load()) }

// Declare adds the options for the storage to a command line. concurrency is
// the setting that says how many requests to make at once, or empty.
func Declare(f Flags, concurrency string) *Options {
	return &Options{
		flags:    f,
		prefix:   f.String("prefix", "", "WALG_FILE_PREFIX", "", "the storage: an existing directory, or a `url` (s3://bucket/path, file:///dir)"),
		below:    f.String("storage-prefix", "", "WALG_STORAGE_PREFIX", "", "a `path` below the prefix that all keys are relative to"),
		rate:     f.Size("rate", "", "WALG_NETWORK_RATE_LIMIT", 0, "read and write at most so many `bytes` a second; 0 is no limit"),
		parallel: f.Int("parallel", "", concurrency, 0, 0, "make so many requests at once, a `number`; 0 is what suits the storage"),
		stall:    f.Duration("stall", time.Minute, "give a request up that moves less than 4 KiB in this `time`, and try again"),
		timeout:  f.Duration("timeout", 15*time.Minute, "give a request up that takes longer than this `time`, and try again"),
		patience: f.Duration("patience", 5*time.Minute, "try a request again for so long a `time` when the storage fails"),
	}
}

// Settings returns what was said on the command line and in the settings. The
// option --prefix goes before all settings.
func (o *Options) Settings(e Env) Settings {
	s := Settings{
		Prefixes: map[string]string{"--prefix": *o.prefix},
		Below:    *o.below,
		Rate:     *o.rate,
		Remote:   driver.Settings{Get: e.Lookup, Stall: *o.stall},
		Policy: remote.Policy{
			Timeout:  *o.timeout,
			Budget:   *o.patience,
			Parallel: int(*o.parallel),
			Notice: func(err error) {
				o.retries.Add(1)
				e.Warn("trying again: %v", err)
			},
		},
	}
	if !o.flags.Given("prefix") {
		s.Prefixes = map[string]string{}
		for name := range Names {
			s.Prefixes[name] = e.Lookup(name)
		}
	}
	return s
}
