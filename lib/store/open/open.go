// Package open finds the store that a command line and its settings mean.
package open

import (
	"path/filepath"
	"slices"
	"strings"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/file"
)

// Settings are what the environment and the flags say of the storage. They
// are given in: this package reads no environment.
type Settings struct {
	// Prefixes holds the value of each setting that can name the prefix, by
	// the setting's name. An empty value is as good as none.
	Prefixes map[string]string
	// Below is a path inserted after the prefix (WALG_STORAGE_PREFIX).
	Below string
	// Rate limits the data of all objects together, in bytes per second; 0 is
	// no limit.
	Rate int64
}

// Names are the settings that can name the prefix, WAL-G's first. A command
// looks each of them up and puts it into Settings.Prefixes.
var Names = []string{
	"WALG_FILE_PREFIX", "WALG_S3_PREFIX", "WALE_S3_PREFIX", "WALG_GS_PREFIX",
	"WALG_AZ_PREFIX", "WALG_SWIFT_PREFIX", "WALG_SSH_PREFIX",
}

// schemes are the URLs of storages that walg is going to know.
var schemes = []string{"s3", "gs", "azure", "swift", "ssh", "sftp"}

// Prefix opens the store of the configured prefix. None, more than one, one
// that does not exist and one of an unknown kind are errors of status 64.
func Prefix(s Settings) (store.Store, error) {
	var set []string
	for name, value := range s.Prefixes {
		if value != "" {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	switch len(set) {
	case 0:
		return nil, fault.WithHint(fault.New(fault.Usage, "no storage is configured"),
			"set WALG_FILE_PREFIX, or name the object by an absolute URL (file:///...)")
	case 1:
	default:
		return nil, fault.WithHint(fault.New(fault.Usage, "more than one storage is configured: %s", strings.Join(set, ", ")),
			"unset all but one of them")
	}
	name, value := set[0], s.Prefixes[set[0]]
	if name != "WALG_FILE_PREFIX" {
		return nil, fault.New(fault.Usage, "%s: this storage is not supported by this build yet", name)
	}
	scheme, _, isURL := strings.Cut(value, "://")
	if isURL && scheme != "file" {
		return nil, fault.New(fault.Usage, "WALG_FILE_PREFIX %s: want a path or file:///path", Redact(value))
	}
	base, err := file.New(value)
	if err != nil {
		return nil, err
	}
	below, err := store.Prefix(base, s.Below)
	if err != nil {
		return nil, err
	}
	return store.Rate(below, s.Rate), nil
}

// Object opens the store of one KEY of the command line and returns the key
// in it. A KEY with a scheme is absolute: the prefix is then the directory
// that the object is in, and what is configured does not matter. All others
// are relative to the configured prefix.
func Object(s Settings, key string) (store.Store, string, error) {
	return find(s, key, store.ValidKey)
}

// Under is Object for a prefix to list, which may be empty and may end in the
// middle of a name.
func Under(s Settings, prefix string) (store.Store, string, error) {
	return find(s, prefix, store.ValidPrefix)
}

func find(s Settings, key string, valid func(string) error) (store.Store, string, error) {
	if !Absolute(key) {
		if err := valid(key); err != nil {
			return nil, "", err
		}
		st, err := Prefix(s)
		return st, key, err
	}
	switch scheme, _, _ := strings.Cut(key, "://"); {
	case slices.Contains(schemes, scheme):
		return nil, "", fault.New(fault.Usage, "%s: this storage is not supported by this build yet", Redact(key))
	case scheme != "file":
		return nil, "", fault.New(fault.Usage, "%s: unknown scheme %q", Redact(key), scheme)
	}
	path, err := file.Path(key)
	if err != nil {
		return nil, "", err
	}
	if err := valid(strings.TrimPrefix(path, "/")); err != nil {
		return nil, "", err
	}
	slash := strings.LastIndex(path, "/")
	base, err := file.New(filepath.FromSlash(path[:slash+1]))
	if err != nil {
		return nil, "", err
	}
	return store.Rate(base, s.Rate), path[slash+1:], nil
}

// Absolute reports whether a KEY is a URL, and not relative to the configured
// prefix.
func Absolute(key string) bool { return strings.Contains(key, "://") }

// Redact takes user info and query out of a URL, for messages.
func Redact(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	rest, _, _ = strings.Cut(rest, "?")
	host, path, slash := strings.Cut(rest, "/")
	if at := strings.LastIndex(host, "@"); at >= 0 {
		host = host[at+1:]
	}
	if slash {
		path = "/" + path
	}
	return scheme + "://" + host + path
}
