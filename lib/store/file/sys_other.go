//go:build !linux

package file

import (
	"errors"
	"os"
)

// errQuota is an error that nothing returns.
var errQuota = errors.New("quota exceeded")

func startWriteback(*os.File, int64, int64) {}

func readAhead(*os.File) {}

func renameNew(string, string) error { return errors.ErrUnsupported }

func setMeta(*os.File, map[string]string) error { return nil }

func getMeta(*os.File) (map[string]string, error) { return nil, nil }
