// Package open finds the store that a command line and its settings mean.
package open

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/file"
	"walg/lib/store/remote"
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
	// Remote is for the storages behind a network, whose own settings it can
	// ask for; and how patient to be with them.
	Remote driver.Settings
	Policy remote.Policy
}

// Names are the settings that can name the prefix, and the scheme of each.
var Names = map[string]string{
	"WALG_FILE_PREFIX": "file", "WALG_S3_PREFIX": "s3", "WALE_S3_PREFIX": "s3", "WALG_GS_PREFIX": "gs",
	"WALG_AZ_PREFIX": "azure", "WALG_SWIFT_PREFIX": "swift", "WALG_SSH_PREFIX": "ssh",
}

// Prefix opens the store of the configured prefix. None, more than one, one
// that does not exist and one of an unknown kind are errors of status 64.
func Prefix(ctx context.Context, s Settings) (store.Store, error) {
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
			"set WALG_S3_PREFIX, WALG_FILE_PREFIX or another of them, or name the object by an absolute URL (s3://bucket/key, file:///...)")
	case 1:
	default:
		return nil, fault.WithHint(fault.New(fault.Usage, "more than one storage is configured: %s", strings.Join(set, ", ")),
			"unset all but one of them")
	}
	name, value := set[0], s.Prefixes[set[0]]
	base, err := prefix(ctx, s, name, value)
	if err != nil {
		return nil, err
	}
	below, err := store.Prefix(base, s.Below)
	if err != nil {
		return nil, err
	}
	return store.Rate(below, s.Rate), nil
}

// prefix opens the store of the objects below a URL, which the setting name
// holds; with the empty name it can be of any storage.
func prefix(ctx context.Context, s Settings, name, value string) (store.Store, error) {
	scheme, rest, isURL := strings.Cut(value, "://")
	if !isURL {
		scheme = "file"
	}
	scheme = canonical(scheme)
	if want := Names[name]; want != "" && scheme != want {
		example := want + "://bucket/path"
		if want == "file" {
			example = "a path or file:///path"
		}
		return nil, fault.New(fault.Usage, "%s %s: want %s", name, Redact(value), example)
	}
	if scheme == "file" {
		return file.New(value)
	}
	where, err := parse(scheme, rest)
	if err != nil {
		return nil, err
	}
	root := strings.Trim(where.path, "/")
	if scheme == "gs" && !s.Remote.Bool("GCS_NORMALIZE_PREFIX", true) {
		root = strings.TrimSuffix(where.path, "/") // WAL-E's archives may begin with a slash
	}
	if root != "" {
		root += "/"
	}
	return connect(ctx, s, where, root)
}

// Object opens the store of one KEY of the command line and returns the key
// in it. A KEY with a scheme is absolute: the prefix is then the directory or
// bucket that the object is in, and what prefix is configured does not matter.
// All others are relative to the configured prefix.
func Object(ctx context.Context, s Settings, key string) (store.Store, string, error) {
	return find(ctx, s, key, store.ValidKey)
}

// Under is Object for a prefix to list, which may be empty and may end in the
// middle of a name.
func Under(ctx context.Context, s Settings, prefix string) (store.Store, string, error) {
	return find(ctx, s, prefix, store.ValidPrefix)
}

func find(ctx context.Context, s Settings, key string, valid func(string) error) (store.Store, string, error) {
	if !Absolute(key) {
		if err := valid(key); err != nil {
			return nil, "", err
		}
		st, err := Prefix(ctx, s)
		return st, key, err
	}
	scheme, rest, _ := strings.Cut(key, "://")
	scheme = canonical(scheme)
	if scheme == "file" {
		return findFile(s, key, valid)
	}
	where, err := parse(scheme, rest)
	if err != nil {
		return nil, "", err
	}
	if err := valid(where.path); err != nil {
		return nil, "", err
	}
	base, err := connect(ctx, s, where, "")
	if err != nil {
		return nil, "", err
	}
	return store.Rate(base, s.Rate), where.path, nil
}

func findFile(s Settings, key string, valid func(string) error) (store.Store, string, error) {
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
