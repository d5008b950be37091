package gcs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

// Read asks for a range of the object, of one generation where version says so.
func (d *Driver) Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, driver.Object, error) {
	object := d.object(key).ReadCompressed(true) // the bytes as they are stored
	if version != "" {
		generation, err := strconv.ParseInt(version, 10, 64)
		if err != nil {
			return nil, driver.Object{}, fault.New(fault.Usage, "generation %q: %w", version, err)
		}
		object = object.Generation(generation)
	}
	ctx, cancel := d.limit(ctx)
	x := &exchange{}
	r, err := object.NewRangeReader(context.WithValue(ctx, exchangeKey{}, x), at, n)
	if err != nil {
		defer cancel()
		if x.refused != nil && ctx.Err() == nil {
			err = x.refused // the library has thrown it away
		}
		if err = d.explain(ctx, err); version != "" && errors.Is(err, fs.ErrNotExist) {
			err = driver.ErrChanged
		}
		return nil, driver.Object{}, err
	}
	d.seen.Store(true)
	body := &content{d, ctx, cancel, x, r}
	if r.Attrs.Generation <= 0 || r.Attrs.Size < 0 {
		body.Close()
		return nil, driver.Object{}, driver.Permanent(errors.New("the server gives no size or no generation"), d.notGoogle())
	}
	return body, driver.Object{
		Info:    store.Info{Key: key, Size: r.Attrs.Size, ModTime: r.Attrs.LastModified, Meta: unpack(r.Metadata())},
		Version: strconv.FormatInt(r.Attrs.Generation, 10), CRC32C: known(r.Attrs.CRC32C),
	}, nil
}

// content is the body of an answer.
type content struct {
	d      *Driver
	ctx    context.Context
	cancel context.CancelFunc
	x      *exchange
	r      *storage.Reader
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		if c.x.broken != nil {
			err = c.x.broken
		}
		err = c.d.explain(c.ctx, err)
	}
	return n, err
}

func (c *content) Close() error {
	err := c.r.Close()
	c.cancel()
	return err
}

// exchange is one read, in its context: whether the library has sent its request,
// and of the answer what the library does not hand out.
type exchange struct {
	sent    bool
	refused error // an answer of status 404
	broken  error // why the body ended early
}

type exchangeKey struct{}

// single lets the library send one request for a read. It would ask again by
// itself when the body ends early, without end; the store counts and waits.
type single struct{ next http.RoundTripper }

var errSingle = errors.New("the answer ended early")

func (s *single) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return s.next.RoundTrip(req)
	}
	if x.sent {
		return nil, errSingle
	}
	x.sent = true
	resp, err := s.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound {
		x.refused = googleapi.CheckMediaResponse(resp) // with the body
	}
	resp.Body = &witness{resp.Body, x}
	return resp, nil
}

// witness remembers why a body ended.
type witness struct {
	io.ReadCloser
	x *exchange
}

func (w *witness) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		w.x.broken = err
	}
	return n, err
}
