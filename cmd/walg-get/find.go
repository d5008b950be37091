package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"walg/lib/fault"
	"walg/lib/store"
)

// extensions of all methods that WAL-G has had, in the order in which one is
// preferred where an object is there under several; last the bare name.
var extensions = []string{".lz4", ".lzma", ".br", ".zst", ".gz", ".lzo", ""}

// find returns the extension under which the object exists. It asks for all at
// once: for the segment after the last one, which PostgreSQL asks for at the
// end of each recovery, all answers are no.
func find(ctx context.Context, st store.Store, key string) (string, error) {
	errs := make([]error, len(extensions))
	var asked sync.WaitGroup
	for i, ext := range extensions {
		asked.Go(func() { _, errs[i] = st.Stat(ctx, key+ext) })
	}
	asked.Wait()
	var trouble error
	for i, err := range errs {
		if err == nil {
			return extensions[i], nil
		}
		// One that may be there and cannot be seen must not pass for absent.
		if !errors.Is(err, fs.ErrNotExist) && trouble == nil {
			trouble = err
		}
	}
	if trouble != nil {
		return "", trouble
	}
	return "", fault.New(fault.Absent, "get %s: no such object, under any extension", store.URL(st, key))
}

// parseRange reads "a-b" or "a-", and returns the first byte and the one after
// the last. An empty span is the whole object.
func parseRange(span string) (first, end int64, err error) {
	if span == "" {
		return 0, math.MaxInt64, nil
	}
	from, to, ok := strings.Cut(span, "-")
	a, aerr := strconv.ParseUint(from, 10, 62)
	b, berr := uint64(math.MaxInt64-1), error(nil)
	if to != "" {
		b, berr = strconv.ParseUint(to, 10, 62)
	}
	if !ok || aerr != nil || berr != nil || b < a {
		return 0, 0, fault.New(fault.Usage, "--range %s: want A-B or A-, bytes counted from 0", span)
	}
	return int64(a), int64(b) + 1, nil
}

// entry is an object in JSON.
type entry struct {
	Key   string            `json:"key"`
	URL   string            `json:"url,omitempty"`
	Size  int64             `json:"size"`
	MTime time.Time         `json:"mtime"`
	Meta  map[string]string `json:"meta,omitempty"`
}

// stat writes what is known of one object, which the user calls given.
func stat(ctx context.Context, out io.Writer, st store.Store, key, given string) error {
	info, err := st.Stat(ctx, key)
	if err != nil {
		return err
	}
	return lines(out).Encode(entry{given, store.URL(st, key), info.Size, info.ModTime.UTC(), info.Meta})
}

func lines(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// list writes keys in such a form that each can be given to walg-get again:
// relative to the prefix of the storage, or where PREFIX is a URL as URLs.
func list(ctx context.Context, out io.Writer, st store.Store, prefix string, absolute, asJSON bool) error {
	w := bufio.NewWriterSize(out, 64<<10)
	enc := lines(w)
	for info, err := range st.List(ctx, prefix) {
		if err != nil {
			return err
		}
		key := info.Key
		if absolute {
			key = store.URL(st, key)
		}
		if asJSON {
			err = enc.Encode(entry{Key: key, Size: info.Size, MTime: info.ModTime.UTC()})
		} else {
			_, err = w.WriteString(key + "\n")
		}
		if err != nil {
			return err
		}
	}
	return w.Flush()
}
