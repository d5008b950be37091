package main

import (
	"io"
	"strings"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
)

// parseMeta reads the values of --meta.
func parseMeta(list []string) (map[string]string, error) {
	meta := map[string]string{}
	for _, m := range list {
		name, value, ok := strings.Cut(m, "=")
		if _, twice := meta[name]; twice || !ok {
			return nil, fault.New(fault.Usage, "--meta %s: want NAME=VALUE, each name once", m)
		}
		meta[name] = value
	}
	return meta, store.ValidMeta(meta)
}

// receipt is what is known of an object when it is stored.
type receipt struct {
	Key      string    `json:"key"` // as it was given
	URL      string    `json:"url"`
	Bytes    int64     `json:"bytes"`
	SHA256   string    `json:"sha256"` // of these bytes
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Attempts int       `json:"attempts"` // 1, and one for each request that was sent again
}

// notEmpty is a reader that fails where there is nothing to read: hardly ever
// is that what was meant.
type notEmpty struct {
	r    io.Reader
	name string
	any  bool
}

func (n *notEmpty) Read(p []byte) (int, error) {
	got, err := n.r.Read(p)
	n.any = n.any || got > 0
	if err == io.EOF && !n.any {
		err = fault.WithHint(fault.New(fault.Data, "%s is empty", n.name), "where that is meant, say --allow-empty")
	}
	return got, err
}
