// Package s3 is the driver of S3 and of what speaks its protocol.
//
// What it promises beyond package remote: each upload request carries a CRC32C
// that the server checks, and so does the object as a whole where the server
// keeps such a sum (Amazon, MinIO); otherwise a small object has it in its
// metadata. The payload is not hashed a second time for the signature, so on
// plain HTTP nothing but that sum guards it: who can change what passes by can
// change the sum. A conditional create is atomic where the server knows
// If-None-Match, as Amazon and MinIO do; on any but Amazon's the object is looked for
// first, for those that do not; versitygw knows it too and does not
// promise it to two writers at the same moment. It takes WALG_S3_SSE too, and
// does not encrypt. MinIO lists unfinished uploads only for the exact key.
// Tested against MinIO and versitygw, not against Amazon.
package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// Driver is a driver.Driver and driver.Unfinished for one bucket.
type Driver struct {
	bucket     string
	config     config
	options    s3.Options
	connecting chan struct{} // holds one token while the client is made
	api        *s3.Client
	cache      *aws.CredentialsCache // nil where the key is in the settings
	guessed    bool                  // nobody told the region
	found      atomic.Bool           // the bucket is there
	denied     atomic.Int32          // refusals in spite of that
}

// New returns the driver of a bucket. No request is sent yet. Bad settings and
// contradictions are errors of status 64.
func New(_ context.Context, bucket string, s *driver.Settings) (*Driver, error) {
	c, err := read(s)
	if err != nil {
		return nil, err
	}
	o, err := options(c)
	if err != nil {
		return nil, err
	}
	if c.endpoint != "" && !c.pathStyle {
		c.traits.Endpoint += " (or AWS_S3_FORCE_PATH_STYLE)"
	}
	return &Driver{bucket: bucket, config: c, options: o, connecting: make(chan struct{}, 1)}, nil
}

// URL returns s3://bucket/key.
func (d *Driver) URL(key string) string { return "s3://" + d.bucket + "/" + key }

// Traits returns the numbers of S3, and those of the settings.
func (d *Driver) Traits() driver.Traits { return d.config.traits }

// sumName is the metadata with the CRC32C of an object that was put whole. The
// dot keeps it apart from any name that a user may give.
const sumName = "walg.crc32c"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns a checksum as S3 writes it.
func encode(sum uint32) *string {
	text := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
	return &text
}

// unsigned leaves the payload out of the signature: its checksum is in it.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func condition(o driver.Options) *string {
	if o.IfAbsent {
		return aws.String("*")
	}
	return nil
}

// lock returns how long a new object must stay.
func (c *config) lock() (mode string, until *time.Time) {
	if c.retention == 0 {
		return "", nil
	}
	return c.retentionMode, aws.Time(time.Now().Add(c.retention))
}

// Whole puts an object by one request.
func (d *Driver) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	api, err := d.client(ctx)
	if err != nil {
		return err
	}
	c := &d.config
	if o.IfAbsent && !c.isAmazon() {
		if err := d.refuseExisting(ctx, key); err != nil {
			return err
		}
	}
	sum := crc32.Checksum(data, castagnoli)
	meta := maps.Clone(o.Meta)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[sumName] = fmt.Sprintf("%08x", sum)
	mode, until := c.lock()
	answer, err := api.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &d.bucket, Key: &key, Body: bytes.NewReader(data), Metadata: meta,
		IfNoneMatch: condition(o), ChecksumCRC32C: encode(sum),
		StorageClass: types.StorageClass(c.storageClass), ServerSideEncryption: types.ServerSideEncryption(c.sse), SSEKMSKeyId: text(c.kmsID),
		SSECustomerAlgorithm: c.customer.algorithm, SSECustomerKey: c.customer.key, SSECustomerKeyMD5: c.customer.md5,
		ObjectLockMode: types.ObjectLockMode(mode), ObjectLockRetainUntilDate: until,
	}, unsigned)
	if err != nil {
		return d.judge(ctx, err)
	}
	d.found.Store(true)
	d.denied.Store(0)
	return tagged(answer.ETag)
}

// refuseExisting looks for the object before a conditional put: not every server
// knows conditions, and who does not know one passes over it.
func (d *Driver) refuseExisting(ctx context.Context, key string) error {
	_, err := d.Stat(ctx, key)
	switch {
	case err == nil:
		return fs.ErrExist
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// upload is a multipart upload.
type upload struct {
	d        *Driver
	api      *s3.Client
	key, id  string
	ifAbsent *string
	full     bool // the server keeps a checksum of the whole

	mu    sync.Mutex
	parts map[int]types.CompletedPart
}

// Begin begins a multipart upload.
func (d *Driver) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	api, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	c := &d.config
	mode, until := c.lock()
	answer, err := api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &d.bucket, Key: &key, Metadata: o.Meta,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumType: types.ChecksumTypeFullObject,
		StorageClass: types.StorageClass(c.storageClass), ServerSideEncryption: types.ServerSideEncryption(c.sse), SSEKMSKeyId: text(c.kmsID),
		SSECustomerAlgorithm: c.customer.algorithm, SSECustomerKey: c.customer.key, SSECustomerKeyMD5: c.customer.md5,
		ObjectLockMode: types.ObjectLockMode(mode), ObjectLockRetainUntilDate: until,
	})
	if err != nil {
		return nil, d.judge(ctx, err)
	}
	if aws.ToString(answer.UploadId) == "" {
		return nil, fmt.Errorf("the storage gave no upload id")
	}
	return &upload{
		d: d, api: api, key: key, id: *answer.UploadId, ifAbsent: condition(o),
		full: answer.ChecksumType == types.ChecksumTypeFullObject, parts: map[int]types.CompletedPart{},
	}, nil
}

func (u *upload) Part(ctx context.Context, n int, _ int64, data []byte) error {
	c := &u.d.config.customer
	sum := encode(crc32.Checksum(data, castagnoli))
	answer, err := u.api.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.d.bucket, Key: &u.key, UploadId: &u.id, PartNumber: aws.Int32(int32(n)), Body: bytes.NewReader(data),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumCRC32C: sum,
		SSECustomerAlgorithm: c.algorithm, SSECustomerKey: c.key, SSECustomerKeyMD5: c.md5,
	}, unsigned)
	if err != nil {
		return u.judge(ctx, err)
	}
	if err := tagged(answer.ETag); err != nil {
		return err
	}
	part := types.CompletedPart{ETag: answer.ETag, PartNumber: aws.Int32(int32(n))}
	if u.full || answer.ChecksumCRC32C != nil {
		part.ChecksumCRC32C = sum
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts[n] = part
	return nil
}

// Commit makes the object. Until a checksum of all is compared the server does
// not show it, where it keeps one.
func (u *upload) Commit(ctx context.Context, n int, whole driver.Sum) error {
	parts := make([]types.CompletedPart, n)
	for i := range parts {
		parts[i] = u.parts[i+1]
	}
	c := &u.d.config.customer
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &u.d.bucket, Key: &u.key, UploadId: &u.id, IfNoneMatch: u.ifAbsent,
		MultipartUpload:      &types.CompletedMultipartUpload{Parts: parts},
		SSECustomerAlgorithm: c.algorithm, SSECustomerKey: c.key, SSECustomerKeyMD5: c.md5,
	}
	if u.full {
		in.ChecksumType, in.ChecksumCRC32C, in.MpuObjectSize = types.ChecksumTypeFullObject, encode(whole.CRC32C), &whole.Size
	}
	answer, err := u.api.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return u.judge(ctx, err)
	}
	// The answer begins before the object is made: it can end without it.
	return tagged(answer.ETag)
}

// Abort removes what was sent. An upload that the storage does not know is gone.
func (u *upload) Abort(ctx context.Context) error {
	return u.d.abort(ctx, u.api, u.key, u.id)
}

// abort ends an upload; one that is not there is no error.
func (d *Driver) abort(ctx context.Context, api *s3.Client, key, id string) error {
	_, err := api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &d.bucket, Key: &key, UploadId: &id})
	if describe(err).code == noSuchUpload {
		return nil
	}
	return d.judge(ctx, err)
}

// Read gets a range.
func (d *Driver) Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, driver.Object, error) {
	api, err := d.client(ctx)
	if err != nil {
		return nil, driver.Object{}, err
	}
	c := &d.config.customer
	answer, err := api.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &d.bucket, Key: &key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", at, at+n-1)), IfMatch: text(version),
		SSECustomerAlgorithm: c.algorithm, SSECustomerKey: c.key, SSECustomerKeyMD5: c.md5,
	})
	if err != nil {
		if describe(err).status == http.StatusPreconditionFailed {
			return nil, driver.Object{}, driver.ErrChanged
		}
		return nil, driver.Object{}, d.judge(ctx, err)
	}
	size, err := total(answer, at)
	if err == nil {
		err = tagged(answer.ETag)
	}
	if err != nil {
		answer.Body.Close()
		return nil, driver.Object{}, err
	}
	o := object(key, size, answer.ETag, answer.LastModified, answer.Metadata)
	d.md5(&o, answer.ServerSideEncryption)
	return answer.Body, o, nil
}

// total returns the size of the object that an answer is a part of.
func total(answer *s3.GetObjectOutput, at int64) (int64, error) {
	span, length := answer.ContentRange, answer.ContentLength
	if span == nil {
		raw, _ := middleware.GetRawResponse(answer.ResultMetadata).(*smithyhttp.Response)
		switch {
		case raw == nil || raw.StatusCode == http.StatusPartialContent || length == nil:
			return 0, fmt.Errorf("the storage does not say how much it sends of how much")
		case at != 0:
			return 0, driver.Permanent(fmt.Errorf("the storage does not know ranges"), "")
		}
		return *length, nil // all of it
	}
	_, after, _ := strings.Cut(*span, "/")
	size, err := strconv.ParseInt(after, 10, 64)
	if err != nil || !strings.HasPrefix(*span, fmt.Sprintf("bytes %d-", at)) {
		return 0, fmt.Errorf("the storage sent the range %q, which is not the one asked for", *span)
	}
	return size, nil
}

// Stat asks for the head of an object.
func (d *Driver) Stat(ctx context.Context, key string) (driver.Object, error) {
	api, err := d.client(ctx)
	if err != nil {
		return driver.Object{}, err
	}
	c := &d.config.customer
	answer, err := api.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &d.bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled,
		SSECustomerAlgorithm: c.algorithm, SSECustomerKey: c.key, SSECustomerKeyMD5: c.md5,
	})
	if err != nil {
		return driver.Object{}, d.judge(ctx, err)
	}
	if err := tagged(answer.ETag); err != nil {
		return driver.Object{}, err
	}
	o := object(key, aws.ToInt64(answer.ContentLength), answer.ETag, answer.LastModified, answer.Metadata)
	d.md5(&o, answer.ServerSideEncryption)
	// A checksum of checksums tells nothing of the whole.
	if answer.ChecksumType == types.ChecksumTypeFullObject || !strings.Contains(aws.ToString(answer.ChecksumCRC32C), "-") {
		if raw, err := base64.StdEncoding.DecodeString(aws.ToString(answer.ChecksumCRC32C)); err == nil && len(raw) == crc32.Size && answer.ChecksumType != types.ChecksumTypeComposite {
			o.CRC32C = aws.Uint32(binary.BigEndian.Uint32(raw))
		}
	}
	return o, nil
}

func object(key string, size int64, etag *string, modified *time.Time, meta map[string]string) driver.Object {
	o := driver.Object{Info: store.Info{Key: key, Size: size, ModTime: aws.ToTime(modified), Meta: meta}, Version: aws.ToString(etag)}
	if sum, err := strconv.ParseUint(meta[sumName], 16, 32); err == nil {
		o.CRC32C = aws.Uint32(uint32(sum))
	}
	delete(meta, sumName)
	return o
}

// md5 takes an ETag for the MD5 that it is on Amazon where the object was put
// by one request and not encrypted with a key of KMS or the customer's. Other
// servers have their own ideas.
func (d *Driver) md5(o *driver.Object, sse types.ServerSideEncryption) {
	if d.config.isAmazon() && d.config.customer.key == nil && (sse == "" || sse == types.ServerSideEncryptionAes256) {
		if sum := etagMD5(o.Version); sum != nil {
			o.MD5 = sum
		}
	}
}
