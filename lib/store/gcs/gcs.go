// Package gcs keeps objects in a bucket of Google Cloud Storage,
// gs://bucket/path, by its JSON interface over HTTP (and the XML one to read).
//
// What it promises beyond package remote: each object is sent with its CRC32C,
// which the server compares before the object appears: with the request that
// makes a small object, with the last chunk of a larger one. What the server
// says it has is then compared with what was read from the input. IfAbsent is
// a condition that the server checks when the object appears. All reads of one
// Get are of one generation. Metadata comes back as it was; empty values are
// written as a quote, because reads carry metadata in HTTP headers.
//
// Objects larger than a chunk are sent by a resumable upload, chunk after
// chunk; this is the one place where the vendor's library tries again by
// itself, for as often as GCS_MAX_RETRIES and five times as long as a request
// may stall. What an upload that was given up has sent is no object, shows
// nowhere, cannot be listed, and is dropped by the storage after a week.
//
// What it cannot: a single chunk has no checksum of its own. Where the server
// compares nothing (emulators) and a chunk was damaged, the object is there for
// the moment until we notice and remove it, and what it replaced is gone. In a
// bucket with soft delete or object versions, what is deleted or replaced goes
// on to cost; it does not show here. Universe domains other than
// googleapis.com are not supported.
//
// Tested against fake-gcs-server 1.56.1, which has no authentication and knows
// no encryption keys: those, and what the real service says when it refuses,
// are tested against fakes of ours. Not tested against Google itself.
package gcs

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/wire"
)

// Scheme begins the URLs of this storage.
const Scheme = "gs://"

const (
	mib          = 1 << 20
	chunkStep    = 256 << 10 // chunks are multiples of it
	defaultChunk = 16 * mib
	maxChunk     = 4096 * mib
	piece        = 8 * mib
	parallel     = 4
	tries        = 16
	timeout      = time.Hour
	defaultStall = time.Minute
	chunkStalls  = 5                      // how many stalls long a chunk is tried again
	firstWait    = 100 * time.Millisecond // before it is, doubled each time
	lastWait     = 20 * time.Second
	pageSize     = 1000 // the most that the service gives
	keySize      = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Driver is a driver.Driver.
type Driver struct {
	name    string // of the bucket
	bucket  *storage.BucketHandle
	key     []byte // encryption key of the customer's, or nil
	traits  driver.Traits
	timeout time.Duration // of one request; 0 is no limit
	patient time.Duration // how long a chunk is tried again
	seen    atomic.Bool   // the bucket exists
}

// New returns the driver of one bucket. Nothing is asked of the network: a
// bucket that is missing, and credentials that are no good, show at the first
// request. A file that GOOGLE_APPLICATION_CREDENTIALS names is read here.
func New(ctx context.Context, bucket string, s *driver.Settings) (*Driver, error) {
	return open(ctx, bucket, s, wire.Client)
}

// open is New with a maker of the client below credentials.
func open(ctx context.Context, bucket string, s *driver.Settings, client func(wire.Options) (*http.Client, error)) (*Driver, error) {
	emulator := s.Text("STORAGE_EMULATOR_HOST")
	file := s.Text("GOOGLE_APPLICATION_CREDENTIALS")
	secret := s.Text("GCS_ENCRYPTION_KEY")
	chunk := s.Int("GCS_MAX_CHUNK_SIZE", defaultChunk, 1)
	d := &Driver{name: bucket, timeout: s.Span("GCS_CONTEXT_TIMEOUT", time.Second, timeout)}
	d.traits = driver.Traits{
		PartSize: (chunk + chunkStep - 1) / chunkStep * chunkStep,
		Piece:    piece, Parallel: parallel, Batch: 1, Stream: true, Meta: true,
		Endpoint: "STORAGE_EMULATOR_HOST", CA: "SSL_CERT_FILE",
		Tries: int(s.Int("GCS_MAX_RETRIES", tries, 1)),
	}
	stall := cmp.Or(s.Stall, defaultStall)
	d.patient = chunkStalls * stall
	if err := s.Err(); err != nil {
		return nil, err
	}
	if chunk > maxChunk {
		return nil, fault.New(fault.Usage, "setting GCS_MAX_CHUNK_SIZE=%d: want %d or less", chunk, maxChunk)
	}
	var err error
	if secret != "" {
		if d.key, err = base64.StdEncoding.DecodeString(secret); err != nil || len(d.key) != keySize {
			return nil, fault.New(fault.Usage, "setting GCS_ENCRYPTION_KEY=...: want %d bytes in base64", keySize)
		}
	}
	endpoint, err := endpointOf(emulator)
	if err != nil {
		return nil, err
	}
	hc, err := client(wire.Options{Stall: stall, Parallel: parallel})
	if err != nil {
		return nil, err
	}
	if emulator == "" {
		if hc.Transport, err = sign(hc, stall, file); err != nil {
			return nil, err
		}
	}
	hc.Transport = &single{hc.Transport}
	// Without authentication means: of the library's; ours is in the client.
	service, err := storage.NewClient(ctx, option.WithHTTPClient(hc), option.WithoutAuthentication(),
		option.WithEndpoint(endpoint), storage.WithXMLReads(), storage.WithDisabledClientMetrics())
	if err != nil {
		return nil, fault.New(fault.Usage, "bucket %s: %w", bucket, err)
	}
	service.SetRetry(storage.WithPolicy(storage.RetryNever)) // the store tries again
	d.bucket = service.Bucket(bucket)
	return d, nil
}

// endpointOf returns where the JSON interface is: Google's, or an emulator's,
// which is given as host:port or as a URL of which the path does not count.
func endpointOf(emulator string) (string, error) {
	const path = "/storage/v1/"
	if emulator == "" {
		return "https://storage.googleapis.com" + path, nil
	}
	if !strings.Contains(emulator, "://") {
		emulator = "http://" + emulator
	}
	u, err := url.Parse(emulator)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", fault.New(fault.Usage, "setting STORAGE_EMULATOR_HOST: want host:port or a URL with http:// or https://")
	}
	return u.Scheme + "://" + u.Host + path, nil
}

// Traits returns the numbers of the storage and of the settings.
func (d *Driver) Traits() driver.Traits { return d.traits }

// URL returns gs://bucket/key.
func (d *Driver) URL(key string) string { return Scheme + d.name + "/" + key }

// limit bounds one request.
func (d *Driver) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("not done after %v (GCS_CONTEXT_TIMEOUT)", d.timeout))
}

func (d *Driver) object(key string) *storage.ObjectHandle { return d.bucket.Object(key).Key(d.key) }

// writer begins an upload; nothing is sent before the first Write.
func (d *Driver) writer(ctx context.Context, key string, o driver.Options, retry ...storage.RetryOption) *storage.Writer {
	target := d.object(key).Retryer(retry...)
	if o.IfAbsent {
		target = target.If(storage.Conditions{DoesNotExist: true})
	}
	w := target.NewWriter(ctx)
	w.ContentType = "application/octet-stream" // else the library looks into the data
	w.Metadata = pack(o.Meta)
	return w
}

// Whole sends one request. Where Write fails the request has ended, or ends
// with the context: without Close nothing is committed.
func (d *Driver) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	w := d.writer(ctx, key, o)
	w.ChunkSize = 0
	w.SendCRC32C, w.CRC32C = true, crc32.Checksum(data, castagnoli)
	_, err := w.Write(data)
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = made(w.Attrs())
	}
	return d.written(ctx, err)
}

// made looks whether the answer describes an object. The library takes any
// answer of status 200 for one.
func made(a *storage.ObjectAttrs) error {
	if a.Generation <= 0 {
		return errors.New("the answer has an error in it, or no object")
	}
	return nil
}

// written explains the error of a request that makes an object.
func (d *Driver) written(ctx context.Context, err error) error {
	err = d.explain(ctx, err)
	var gone *absent
	if errors.As(err, &gone) {
		// No object is missing; a session of chunks may be, and can be had anew.
		return fmt.Errorf("the storage has forgotten the upload: %w", gone.err)
	}
	return err
}

// Stat asks for the object's resource.
func (d *Driver) Stat(ctx context.Context, key string) (driver.Object, error) {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	a, err := d.object(key).Attrs(ctx)
	if err != nil {
		return driver.Object{}, d.explain(ctx, err)
	}
	d.seen.Store(true)
	return driver.Object{
		Info:    store.Info{Key: key, Size: a.Size, ModTime: a.Created, Meta: unpack(a.Metadata)},
		Version: strconv.FormatInt(a.Generation, 10), CRC32C: known(a.CRC32C), MD5: a.MD5,
	}, nil
}

// known returns the library's checksum of an object. Where the service has none
// that is 0, which is also the checksum of one object in four billion: that one
// goes unchecked.
func known(sum uint32) *uint32 {
	if sum == 0 {
		return nil
	}
	return &sum
}

// Page asks for as many objects as the service gives at once.
func (d *Driver) Page(ctx context.Context, prefix, from string) ([]store.Info, string, error) {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	q := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	if err := q.SetAttrSelection([]string{"Name", "Size", "Created"}); err != nil {
		return nil, "", err
	}
	var found []*storage.ObjectAttrs
	next, err := iterator.NewPager(d.bucket.Objects(ctx, q), pageSize, from).NextPage(&found)
	if err != nil {
		err = d.cause(ctx, err)
		var gone *absent
		if errors.As(err, &gone) {
			err = d.noBucket(gone.err) // what else
		}
		return nil, "", err
	}
	d.seen.Store(true)
	page := make([]store.Info, len(found))
	for i, a := range found {
		page[i] = store.Info{Key: a.Name, Size: a.Size, ModTime: a.Created}
	}
	return page, next, nil
}

// Delete removes one object after another.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	ctx, cancel := d.limit(ctx)
	defer cancel()
	for _, key := range keys {
		err := d.explain(ctx, d.bucket.Object(key).Delete(ctx))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
