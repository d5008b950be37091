// Package swift is the driver for OpenStack Swift.
//
// What it promises beyond package remote: the server checks the MD5 of every
// object and of every part that is sent. An object that is larger than a part
// is a Static Large Object: its parts are objects of their own, in a second
// container, CONTAINER_segments, which is made when it is missing; its content
// appears when the manifest does. Metadata is kept, and the CRC32C of the whole
// beside it.
//
// Removing a large object removes its parts, and so does replacing one: its
// parts go after the new object is there, and a reader in the middle of the old
// object fails. A process killed in between, two that replace one large object
// at once, and a commit whose answer never came leave parts behind; Unfinished
// shows them. Parts that a manifest may still name are never removed.
//
// What Swift cannot promise:
//
//   - It has no operation that makes an object only if there is none: it looks
//     when the request comes, and the writer whose clock is ahead wins. An object that
//     exists is always refused. Of writers that race for a new one, each
//     looks again when it is done, and all whose object was replaced by then are
//     told so; but two may win that began within the same moment. The
//     object is whole all the same.
//   - A listing may lag behind while a container server is in trouble, and so may
//     the content of an object that was replaced while a disk was away.
//   - Names are 1024 bytes long at most, those of large objects 977.
//   - A client that knows nothing of large objects leaves the parts of those
//     that it removes or replaces: use walg, or Swift's own.
//
// Large objects of other makers are read right. Dynamic ones are listed with no
// bytes, because Swift does so, and Delete removes but their manifest.
//
// Tested against Swift 2.30.1, with its own authentication (version 1) and with
// Keystone 22.0.2 (version 3). Version 2: requests are tested, against no
// real server.
package swift

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/ncw/swift/v2"
	"golang.org/x/sync/errgroup"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// Scheme begins the URLs of this store.
const Scheme = "swift://"

const (
	mib      = 1 << 20
	partSize = 16 * mib
	maxPart  = 5<<30 - mib // Swift's limit is 5 GiB and 2 bytes
	// A large object of more than ten thousand parts cannot be removed by one
	// request. Parts grow, so that these are 8 TiB and more.
	maxParts  = 9000
	piece     = 8 * mib
	parallel  = 4
	batch     = 200  // names of one Delete: the server deletes two at once, and must answer in time
	pageLimit = 1000 // names of one listing
	maxReply  = 32 * mib
)

// Driver is a driver.Driver.
type Driver struct {
	container string
	segments  string // the container of parts
	partSize  int64

	c       *api.Connection
	storage string // the account's URL where a setting gives it
	login   bool   // a token can be had
	auth    chan struct{}
	tokens  int // so many were had; under auth

	known   atomic.Bool // the container exists
	ready   atomic.Bool // the container of parts exists
	ability atomic.Pointer[ability]
}

// Traits returns the numbers of this storage.
func (d *Driver) Traits() driver.Traits {
	return driver.Traits{
		PartSize: d.partSize, MaxPart: maxPart, MaxParts: maxParts, Piece: piece, Parallel: parallel,
		Batch: batch, Meta: true, Endpoint: "OS_AUTH_URL", CA: "OS_CACERT",
	}
}

// URL returns swift://container/key.
func (d *Driver) URL(key string) string { return Scheme + d.container + "/" + key }

// newest makes the server ask all its copies. One that was away for a while has
// an older object, or none.
var newest = api.Headers{"X-Newest": "true"}

// head asks for an object. fs.ErrNotExist is about the object.
func (d *Driver) head(ctx context.Context, key string) (*http.Response, error) {
	resp, err := d.send(ctx, request{method: "HEAD", container: d.container, object: key, header: newest})
	return resp, d.absent(ctx, err)
}

// Stat asks for an object.
func (d *Driver) Stat(ctx context.Context, key string) (driver.Object, error) {
	resp, err := d.head(ctx, key)
	if err != nil {
		return driver.Object{}, err
	}
	return describe(key, resp, resp.ContentLength)
}

// Read asks for a range of an object.
func (d *Driver) Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, driver.Object, error) {
	header := api.Headers{"Range": fmt.Sprintf("bytes=%d-%d", at, at+n-1)}
	if version != "" {
		header["If-Match"] = `"` + version + `"`
	}
	resp, err := d.do(ctx, request{method: "GET", container: d.container, object: key, header: header})
	if errors.Is(err, fs.ErrExist) { // 412: only If-Match was asked
		err = fmt.Errorf("%w: %s", driver.ErrChanged, err)
	}
	if err = d.absent(ctx, err); err != nil {
		return nil, driver.Object{}, err
	}
	size := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if size, err = strconv.ParseInt(total, 10, 64); err != nil {
			err = fmt.Errorf("the server says Content-Range: %s", resp.Header.Get("Content-Range"))
		}
	} else if at > 0 {
		err = errors.New("the server answers with the object and not with the range that was asked for")
	}
	object := driver.Object{}
	if err == nil {
		object, err = describe(key, resp, size)
	}
	if err != nil {
		resp.Body.Close()
		return nil, driver.Object{}, err
	}
	return resp.Body, object, nil
}

// describe reads the headers of an answer. The ETag is the MD5 of the content,
// but for large objects.
func describe(key string, resp *http.Response, size int64) (driver.Object, error) {
	h := resp.Header
	o := driver.Object{Info: store.Info{Key: key, Size: size}, Version: strings.Trim(h.Get("Etag"), `"`)}
	if size < 0 {
		return o, errors.New("the server does not say how large the object is")
	}
	o.ModTime, _ = http.ParseTime(h.Get("Last-Modified")) // whole seconds, rounded up
	if at, ok := timestamp(h.Get("X-Timestamp")); ok {
		o.ModTime = at
	}
	if !isLarge(h) && h.Get("X-Object-Manifest") == "" {
		if sum, err := hex.DecodeString(o.Version); err == nil && len(sum) == md5.Size {
			o.MD5 = sum
		}
	}
	o.Meta, o.CRC32C = readMeta(h)
	return o, nil
}

func isLarge(h http.Header) bool { return strings.EqualFold(h.Get("X-Static-Large-Object"), "true") }

// timestamp reads Swift's own: seconds with a fraction.
func timestamp(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	return time.Unix(seconds, nanos), true
}

// entry is one object of a listing.
type entry struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	Modified string `json:"last_modified"` // UTC without saying so
}

func (e entry) time() time.Time {
	t, _ := time.Parse("2006-01-02T15:04:05.999999", e.Modified)
	return t
}

func (d *Driver) list(ctx context.Context, container, prefix, from string) ([]entry, error) {
	query := url.Values{"format": {"json"}, "limit": {strconv.Itoa(pageLimit)}, "prefix": {prefix}, "marker": {from}}
	var page []entry
	_, err := d.reply(ctx, request{method: "GET", container: container, query: query}, &page)
	return page, err
}

// Page lists the container. Not every server fills its pages: the end is an
// empty one.
func (d *Driver) Page(ctx context.Context, prefix, from string) ([]store.Info, string, error) {
	listed, err := d.list(ctx, d.container, prefix, from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", d.noContainer(err)
	}
	if err != nil || len(listed) == 0 {
		return nil, "", err
	}
	d.known.Store(true)
	page := make([]store.Info, len(listed))
	for i, e := range listed {
		page[i] = store.Info{Key: e.Name, Size: e.Bytes, ModTime: e.time()}
	}
	return page, listed[len(listed)-1].Name, nil
}

// Whole makes an object by one PUT.
func (d *Driver) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	header := writeMeta(o.Meta, crc32.Checksum(data, castagnoli))
	sum := md5.Sum(data)
	header["Etag"] = hex.EncodeToString(sum[:])
	c := creation{d: d, key: key, o: o}
	return c.put(ctx, nil, header, data)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// creation makes one object of the container, whole or by a manifest.
type creation struct {
	d      *Driver
	key    string
	o      driver.Options
	own    string    // what the names of its own parts begin with
	old    *manifest // the large object that it replaces
	doubts bool      // it may be there
}

// put asks first for an object that is not there yet. That is the usual case,
// and else what is there has to be looked at: it may have parts.
func (c *creation) put(ctx context.Context, query url.Values, header api.Headers, data []byte) error {
	header["If-None-Match"] = "*"
	err := c.once(ctx, query, header, data)
	switch {
	case err == nil && c.o.IfAbsent:
		return c.confirm(ctx)
	case c.o.IfAbsent, !errors.Is(err, fs.ErrExist):
		return err
	}
	old, err := c.d.manifest(ctx, c.key)
	if err != nil {
		return err
	}
	// It is ours where the answer to an earlier try was lost.
	if old != nil && (c.own == "" || !old.names(c.own)) {
		c.old = old
	}
	delete(header, "If-None-Match")
	if err := c.once(ctx, query, header, data); err != nil {
		return err
	}
	c.clean(ctx)
	return nil
}

func (c *creation) once(ctx context.Context, query url.Values, header api.Headers, data []byte) error {
	err := c.d.put(ctx, c.d.container, c.key, query, header, data)
	if errors.Is(err, fs.ErrNotExist) {
		err = c.d.noContainer(err)
	}
	c.doubts = c.doubts || !undone(err)
	return err
}

// confirm looks whose the object is that was made if there was none: two that
// begin at the same time are both let in.
func (c *creation) confirm(ctx context.Context) error {
	object, err := c.d.Stat(ctx, c.key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // ours, and removed by somebody
	case err == nil && !maps.Equal(object.Meta, c.o.Meta):
		return fmt.Errorf("%w: another writer was faster", fs.ErrExist)
	}
	return err
}

// cleanTime is how long the removal of a replaced object's parts may take.
const cleanTime = time.Minute

// clean removes the parts of the large object that has been replaced. The new
// one is there: what fails here is no failure of its Put, and Unfinished shows
// what is left.
func (c *creation) clean(ctx context.Context) {
	if c.old == nil || c.old.at == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	// Asked again, because there is no way back from a mistake.
	resp, err := c.d.head(ctx, c.key)
	if err == nil && resp.Header.Get("X-Timestamp") != c.old.at {
		_ = c.d.removeParts(ctx, c.old.parts)
	}
}

func (d *Driver) put(ctx context.Context, container, name string, query url.Values, header api.Headers, data []byte) error {
	header["Content-Type"] = "application/octet-stream"
	resp, err := d.send(ctx, request{method: "PUT", container: container, object: name, query: query, header: header, body: data})
	if err == nil && resp.StatusCode == http.StatusAccepted {
		// So it says that it has a newer one, and has thrown ours away.
		err = &answer{resp.StatusCode, "the server has a newer object of this name: from another writer, or its clocks disagree"}
	}
	return err
}

// manifest is what has to be known of a large object that is replaced or removed.
type manifest struct {
	at    string // its timestamp
	parts []segment
}

type segment struct {
	Name  string `json:"name"` // /container/object
	Large bool   `json:"sub_slo"`
}

// manifest returns the parts of a large object, nil for all others and for none.
func (d *Driver) manifest(ctx context.Context, key string) (*manifest, error) {
	resp, err := d.head(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !isLarge(resp.Header):
		return nil, nil
	}
	m := &manifest{at: resp.Header.Get("X-Timestamp")}
	resp, err = d.reply(ctx, request{method: "GET", container: d.container, object: key, header: newest,
		query: url.Values{"multipart-manifest": {"get"}, "format": {"json"}}}, &m.parts)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("manifest: %w", err)
	case resp.Header.Get("X-Timestamp") != m.at:
		return nil, errors.New("another writer replaces the object")
	}
	return m, nil
}

// names reports whether it names parts below a temporary name.
func (m *manifest) names(below string) bool {
	return m != nil && slices.ContainsFunc(m.parts, func(s segment) bool { return strings.HasPrefix(s.Name, below) })
}

func (d *Driver) removeParts(ctx context.Context, parts []segment) error {
	var plain []string
	for _, p := range parts {
		switch {
		case p.Name == "": // content in the manifest itself
		case p.Large:
			if err := d.removeLarge(ctx, p.Name); err != nil {
				return err
			}
		default:
			plain = append(plain, p.Name)
		}
	}
	return d.remove(ctx, plain)
}

// Delete removes objects, with the parts of large ones. Those take one request
// each, in which the manifest is the last to go: what fails half-way can be
// done again.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	below := "/" + d.container + "/"
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = below + key
	}
	var kept driver.Kept // by name
	var mu sync.Mutex
	var plain, large []string
	group, looking := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, key := range keys {
		group.Go(func() error {
			resp, err := d.head(looking, key)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err // rights are the container's: it is about all
			}
			mu.Lock()
			defer mu.Unlock()
			if isLarge(resp.Header) {
				large = append(large, names[i])
			} else {
				plain = append(plain, names[i])
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, name := range large {
		err := d.removeLarge(ctx, name)
		if err != nil && !errors.As(err, new(*bulkError)) {
			return err
		}
		kept.Add(name, err)
	}
	if err := d.removeEach(ctx, plain, &kept); err != nil {
		return err
	}
	err := kept.Of(names)
	var known driver.Undeleted
	if errors.As(err, &known) {
		for i := range known {
			known[i].Key = strings.TrimPrefix(known[i].Key, below)
		}
	}
	return err
}

// removeLarge removes a large object and its parts; name is /container/object.
func (d *Driver) removeLarge(ctx context.Context, name string) error {
	container, object, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	return d.bulk(ctx, request{method: "DELETE", container: container, object: object,
		query: url.Values{"multipart-manifest": {"delete"}}})
}

// remove removes objects that have no parts, by bulk deletion where the server
// knows it. Names are /container/object; absent ones are no error.
func (d *Driver) remove(ctx context.Context, names []string) error {
	var kept driver.Kept
	if err := d.removeEach(ctx, names, &kept); err != nil {
		return err
	}
	return kept.Of(names)
}

// removeEach notes by name what the server refuses to remove.
func (d *Driver) removeEach(ctx context.Context, names []string, kept *driver.Kept) error {
	can, err := d.abilities(ctx)
	if err != nil {
		return err
	}
	size := 1
	if can.bulk {
		size = batch
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for len(names) > 0 {
		some := names[:min(size, len(names))]
		names = names[len(some):]
		group.Go(func() error {
			if len(some) > 1 {
				err := d.bulkDelete(ctx, some)
				var told *bulkError
				// Where it gave up half-way it does not speak of all.
				if !errors.As(err, &told) || told.done+len(told.causes) != len(some) {
					return err
				}
				for name, cause := range told.causes {
					kept.Add(name, cause)
				}
				return nil
			}
			container, object, _ := strings.Cut(strings.TrimPrefix(some[0], "/"), "/")
			_, err := d.send(ctx, request{method: "DELETE", container: container, object: object})
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case refused(err):
				kept.Add(some[0], err)
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

func (d *Driver) bulkDelete(ctx context.Context, names []string) error {
	var body strings.Builder
	for _, name := range names {
		body.WriteString((&url.URL{Path: name}).EscapedPath() + "\n")
	}
	return d.bulk(ctx, request{method: "POST", query: url.Values{"bulk-delete": {"true"}},
		header: api.Headers{"Content-Type": "text/plain"}, body: []byte(body.String())})
}

// bulk does a request whose answer is 200 whatever happened: the body tells. So
// do does not see when the token has expired.
func (d *Driver) bulk(ctx context.Context, r request) error {
	_, token, err := d.session(ctx)
	if err != nil {
		return err
	}
	status, err := d.bulkOnce(ctx, r)
	if status == http.StatusUnauthorized {
		if err := d.expired(ctx, token); err != nil {
			return err
		}
		_, err = d.bulkOnce(ctx, r)
	}
	return err
}

// bulkError is what the server tells in the body of a success.
type bulkError struct {
	error                   // the first, or of the request as a whole
	causes map[string]error // by name, /container/object
	done   int              // so many are gone
}

func (e *bulkError) Unwrap() error { return e.error }

func (d *Driver) bulkOnce(ctx context.Context, r request) (status int, err error) {
	if r.header == nil {
		r.header = api.Headers{}
	}
	r.header["Accept"] = "application/json"
	var said struct {
		Status  string      `json:"Response Status"`
		Body    string      `json:"Response Body"`
		Errors  [][2]string `json:"Errors"`
		Deleted int         `json:"Number Deleted"`
		Absent  int         `json:"Number Not Found"`
	}
	resp, err := d.reply(ctx, r, &said)
	if err != nil || strings.HasPrefix(said.Status, "200") {
		return 0, err
	}
	judge := func(text string) (int, error) {
		digits, _, _ := strings.Cut(text, " ")
		status, _ := strconv.Atoi(digits) // 0 where an error is told in words
		return status, d.judge(errors.New(text), status, resp.Header)
	}
	told := &bulkError{causes: map[string]error{}, done: said.Deleted + said.Absent}
	for _, e := range said.Errors {
		name, err := url.PathUnescape(e[0])
		if err != nil {
			name = e[0] // which is none of ours
		}
		_, told.causes["/"+strings.TrimLeft(name, "/")] = judge(e[1])
	}
	text := said.Status
	if len(said.Errors) > 0 {
		text = said.Errors[0][1]
	} else if said.Body != "" {
		text += ": " + said.Body
	}
	status, told.error = judge(text)
	return status, told
}
