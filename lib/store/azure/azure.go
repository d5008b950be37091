// Package azure keeps objects as block blobs in a container of Azure Blob
// Storage, azure://container/path.
//
// What it promises beyond package remote: each request that carries content
// carries its CRC64 too (MD5 where AZURE_BLOB_STORE_API_VERSION is older than
// that), which the server compares before it answers. The CRC32C of the whole
// is kept in the blob's metadata, under a name that no user's metadata has.
// IfAbsent is a condition that the server checks. Names of user metadata, which
// Azure wants to be identifiers, are escaped where they have a "-" or "_", and
// empty values are replaced; both come back as they were. Blobs with snapshots
// are not deleted, because the snapshots would have to go too.
//
// What it cannot: blocks that an upload has sent and not committed cannot be
// removed. Azure drops them a week after the last of them, or when the blob is
// written again. They are no object and show in no listing but Unfinished,
// which does not see those of a key that has an object already. For the same
// reason two uploads of one key in parts can disturb each other: where another
// writer commits first, our blocks are gone, and Commit fails with no object
// of ours made. No object is ever made of the blocks of two. Of a Commit's
// block list Azure has no checksum from us.
//
// Some accounts sort names otherwise than we do (hierarchical namespace: "/"
// comes before all). Page sorts what it gets; where that is not enough, package
// remote sees it and List fails. Azure may not keep names that have a backslash,
// or an element that ends in a dot.
//
// Tested against Azurite 3.37.0, with key, SAS token and client secret. Not
// tested against Azure itself, nor with a hierarchical namespace.
package azure

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

// Scheme begins the URLs of this storage.
const Scheme = "azure://"

const mib = 1 << 20

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	// Azure's CRC64 has this polynomial, reversed.
	azureCRC64 = crc64.MakeTable(0x9a6c9329ac4bc9b5)
)

// Driver is a driver.Driver, with driver.Unfinished.
type Driver struct {
	container *container.Client
	name      string // of the container
	traits    driver.Traits
	useMD5    bool
	timeout   time.Duration // of one request
	denied    string        // what to look at where access is denied
}

// New returns the driver of one container. Nothing is asked of the network: a
// container that is missing shows at the first request.
func New(ctx context.Context, bucket string, s *driver.Settings) (*Driver, error) {
	c, err := read(bucket, s)
	if err != nil {
		return nil, err
	}
	d := &Driver{name: bucket, useMD5: c.version != "" && c.version < crc64Since, timeout: c.timeout}
	d.traits = driver.Traits{
		PartSize: c.buffer, MaxPart: c.maxBlock, MaxParts: 50000, Piece: 8 * mib, Parallel: c.buffers,
		Batch: 1, Meta: true, Endpoint: c.endpointFrom, CA: "SSL_CERT_FILE",
	}
	d.container, d.denied, err = connect(bucket, c)
	return d, err
}

// Traits returns the numbers of Azure and of the settings.
func (d *Driver) Traits() driver.Traits { return d.traits }

// URL returns azure://container/key.
func (d *Driver) URL(key string) string { return Scheme + d.name + "/" + key }

func (d *Driver) blob(key string) *blockblob.Client { return d.container.NewBlockBlobClient(key) }

func body(data []byte) io.ReadSeekCloser { return streaming.NopCloser(bytes.NewReader(data)) }

// checksum lets the server verify what it receives.
func (d *Driver) checksum(data []byte) blob.TransferValidationType {
	if d.useMD5 {
		sum := md5.Sum(data) // against damage, not against people
		return blob.TransferValidationTypeMD5(sum[:])
	}
	return blob.TransferValidationTypeCRC64(crc64.Checksum(data, azureCRC64))
}

// absent is the condition that there is no blob.
func absent(o driver.Options) *blob.AccessConditions {
	if !o.IfAbsent {
		return nil
	}
	anything := azcore.ETagAny
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &anything}}
}

// Whole is Put Blob.
func (d *Driver) Whole(ctx context.Context, key string, data []byte, o driver.Options) error {
	_, err := d.blob(key).Upload(ctx, body(data), &blockblob.UploadOptions{
		Metadata: pack(o.Meta, crc32.Checksum(data, castagnoli)), AccessConditions: absent(o), TransactionalValidation: d.checksum(data),
	})
	return d.written(ctx, err, o)
}

// Begin asks nothing of the server: an upload begins with its first block.
func (d *Driver) Begin(_ context.Context, key string, o driver.Options) (driver.Upload, error) {
	u := &upload{d: d, key: key, o: o}
	copy(u.id[:], idMark)
	binary.BigEndian.PutUint64(u.id[idTime:], uint64(time.Now().UnixNano()))
	rand.Read(u.id[idRandom:idNumber])
	return u, nil
}

type upload struct {
	d   *Driver
	key string
	o   driver.Options
	id  blockID // but for the number
}

// blockID is what Azure knows a block by, before base64. It is as long as the
// IDs of Microsoft's own uploads, because Azure refuses a block whose ID is
// not as long as those of blocks that somebody's killed upload has left. It
// begins with our mark and the time of Begin, and goes on with what no other
// upload has, so that blocks of two uploads are never taken for one another.
type blockID [64]byte

const (
	idMark   = "walg"
	idTime   = 4
	idRandom = idTime + 8
	idNumber = idRandom + 16
)

func (id blockID) number(n int) string {
	binary.BigEndian.PutUint32(id[idNumber:], uint32(n))
	return base64.StdEncoding.EncodeToString(id[:])
}

// origin returns what blocks of one upload have in common, and when that began:
// "" and zero where it was none of ours.
func origin(block string) (upload string, started time.Time) {
	id, err := base64.StdEncoding.DecodeString(block)
	if err != nil || len(id) != len(blockID{}) || !bytes.HasPrefix(id, []byte(idMark)) {
		return "", time.Time{}
	}
	return string(id[:idNumber]), time.Unix(0, int64(binary.BigEndian.Uint64(id[idTime:]))).UTC()
}

// Part is Put Block.
func (u *upload) Part(ctx context.Context, n int, _ int64, data []byte) error {
	o := &blockblob.StageBlockOptions{TransactionalValidation: u.d.checksum(data)}
	_, err := u.d.blob(u.key).StageBlock(ctx, u.id.number(n), body(data), o)
	return u.d.explain(ctx, err)
}

// Commit is Put Block List.
func (u *upload) Commit(ctx context.Context, n int, whole driver.Sum) error {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = u.id.number(i + 1)
	}
	o := &blockblob.CommitBlockListOptions{Metadata: pack(u.o.Meta, whole.CRC32C), AccessConditions: absent(u.o)}
	_, err := u.d.blob(u.key).CommitBlockList(ctx, ids, o)
	if !bloberror.HasCode(err, bloberror.InvalidBlockList) {
		return u.d.written(ctx, err, u.o)
	}
	// Its judgement is not kept: to Azure the request was wrong.
	lost := u.d.explain(ctx, err)
	if ctx.Err() != nil {
		return lost
	}
	if u.o.IfAbsent {
		// Whoever made Azure drop our blocks may have made the object.
		if _, serr := u.d.Stat(ctx, u.key); serr == nil {
			return fmt.Errorf("%w: %v", fs.ErrExist, lost)
		}
	}
	return fault.New(fault.Failed, "another writer of this object was faster, and Azure dropped what we had sent: %v", lost)
}

// Abort leaves the blocks: there is no request that removes them.
func (u *upload) Abort(context.Context) error { return nil }

// Read is Get Blob with a range.
func (d *Driver) Read(ctx context.Context, key string, at, n int64, version string) (io.ReadCloser, driver.Object, error) {
	o := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: at, Count: n}}
	if version != "" {
		tag := azcore.ETag(version)
		o.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &tag}}
	}
	r, err := d.blob(key).DownloadStream(ctx, o)
	if bloberror.HasCode(err, bloberror.ConditionNotMet) {
		return nil, driver.Object{}, driver.ErrChanged
	}
	if err != nil {
		return nil, driver.Object{}, d.explain(ctx, err)
	}
	object, err := d.describe(key, deref(r.ContentLength), r.LastModified, r.ETag, r.Metadata, r.BlobContentMD5)
	if _, total, ranged := strings.Cut(deref(r.ContentRange), "/"); err == nil && (ranged || at > 0) {
		if object.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			err = fmt.Errorf("we ask for a range, and the server says Content-Range %q", deref(r.ContentRange))
		}
	}
	if err != nil {
		r.Body.Close()
		return nil, driver.Object{}, err
	}
	return &content{d, ctx, r.Body}, object, nil
}

// content is the body of an answer.
type content struct {
	d   *Driver
	ctx context.Context
	io.ReadCloser
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = c.d.explain(c.ctx, err)
	}
	return n, err
}

// Stat is Get Blob Properties.
func (d *Driver) Stat(ctx context.Context, key string) (driver.Object, error) {
	r, err := d.blob(key).GetProperties(ctx, nil)
	if err != nil {
		return driver.Object{}, d.explain(ctx, err)
	}
	return d.describe(key, deref(r.ContentLength), r.LastModified, r.ETag, r.Metadata, r.ContentMD5)
}

// folderMark is the metadata of what is a directory where the account has a
// hierarchical namespace.
const folderMark = "hdi_isfolder"

func (d *Driver) describe(key string, size int64, modified *time.Time, tag *azcore.ETag, meta map[string]*string, md5 []byte) (driver.Object, error) {
	o := driver.Object{Info: store.Info{Key: key, Size: size, ModTime: deref(modified)}, Version: string(deref(tag)), MD5: md5}
	o.Meta, o.CRC32C = unpack(meta)
	if o.Meta[folderMark] == "true" {
		return o, fmt.Errorf("%w: it is a directory", fs.ErrNotExist)
	}
	if o.Version == "" {
		return o, d.stranger(errors.New("the answer has no ETag"))
	}
	return o, nil
}

// Delete is Delete Blob. Azure has batches too, which not all accounts have.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	for _, key := range keys {
		_, err := d.blob(key).Delete(ctx, nil)
		if err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
			return d.explain(ctx, err)
		}
	}
	return nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
