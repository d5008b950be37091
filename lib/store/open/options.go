package open

// Flags is what a command line offers to declare options; lib/cli has it.
type Flags interface {
	String(name, letter, setting, value, usage string) *string
	Size(name, letter, setting string, value int64, usage string) *int64
	Given(name string) bool
}

// Options are the options for the storage, the same for every program.
type Options struct {
	flags         Flags
	prefix, below *string
	rate          *int64
}

// Declare adds the options for the storage to a command line.
func Declare(f Flags) *Options {
	return &Options{
		flags:  f,
		prefix: f.String("prefix", "", "WALG_FILE_PREFIX", "", "the storage: an existing directory, or the `url` of one (file:///dir)"),
		below:  f.String("storage-prefix", "", "WALG_STORAGE_PREFIX", "", "a `path` below the prefix that all keys are relative to"),
		rate:   f.Size("rate", "", "WALG_NETWORK_RATE_LIMIT", 0, "read and write at most so many `bytes` a second; 0 is no limit"),
	}
}

// Settings returns what was said on the command line and in the settings, which
// setting looks up. The option --prefix goes before all settings.
func (o *Options) Settings(setting func(name string) string) Settings {
	s := Settings{Prefixes: map[string]string{"WALG_FILE_PREFIX": *o.prefix}, Below: *o.below, Rate: *o.rate}
	if !o.flags.Given("prefix") {
		for _, name := range Names {
			s.Prefixes[name] = setting(name)
		}
	}
	return s
}
