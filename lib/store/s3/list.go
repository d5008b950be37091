package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

var errNoMore = errors.New("the storage says that there is more, and not where")

// Page lists up to a thousand objects.
func (d *Driver) Page(ctx context.Context, prefix, from string) (page []store.Info, next string, err error) {
	api, err := d.client(ctx)
	if err != nil {
		return nil, "", err
	}
	// MinIO refuses a prefix that ends in the name of this or the upper directory,
	// with which a name may yet begin.
	want := prefix
	if slash := strings.LastIndex(prefix, "/") + 1; prefix[slash:] == "." || prefix[slash:] == ".." {
		prefix = prefix[:slash]
	}
	var contents []types.Object
	var encoding types.EncodingType
	if d.config.listV1 {
		answer, err := api.ListObjects(ctx, &s3.ListObjectsInput{
			Bucket: &d.bucket, Prefix: &prefix, Marker: text(from), EncodingType: types.EncodingTypeUrl,
		})
		if err != nil {
			return nil, "", d.judge(ctx, err)
		}
		if err := listing(answer.IsTruncated); err != nil {
			return nil, "", err
		}
		contents, encoding = answer.Contents, answer.EncodingType
		if aws.ToBool(answer.IsTruncated) {
			if len(contents) == 0 {
				return nil, "", errNoMore
			}
			next, err = decode(aws.ToString(contents[len(contents)-1].Key), encoding)
			if err != nil {
				return nil, "", err
			}
		}
	} else {
		answer, err := api.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
			Bucket: &d.bucket, Prefix: &prefix, ContinuationToken: text(from), EncodingType: types.EncodingTypeUrl,
		})
		if err != nil {
			return nil, "", d.judge(ctx, err)
		}
		if err := listing(answer.IsTruncated); err != nil {
			return nil, "", err
		}
		contents, encoding = answer.Contents, answer.EncodingType
		if aws.ToBool(answer.IsTruncated) {
			if next = aws.ToString(answer.NextContinuationToken); next == "" {
				return nil, "", errNoMore
			}
		}
	}
	d.found.Store(true)
	for _, o := range contents {
		key, err := decode(aws.ToString(o.Key), encoding)
		if err != nil {
			return nil, "", err
		}
		if !strings.HasPrefix(key, want) {
			continue
		}
		page = append(page, store.Info{Key: key, Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified)})
	}
	return page, next, nil
}

// listing wants what each listing says, also an empty one: whatever else answers
// with success must not look like an empty archive.
func listing(truncated *bool) error {
	if truncated == nil {
		return errors.New("the answer is not a listing: it is not that of an S3 server")
	}
	return nil
}

// decode reads a key as the storage wrote it: XML cannot hold all of them.
func decode(key string, encoding types.EncodingType) (string, error) {
	if encoding != types.EncodingTypeUrl {
		return key, nil
	}
	plain, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("the storage lists %q, which is not encoded as it says: %w", key, err)
	}
	return plain, nil
}

// Delete removes objects; with S3_ENABLE_VERSIONING all their versions.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	api, err := d.client(ctx)
	if err != nil {
		return err
	}
	if !d.config.versioning {
		ids := make([]types.ObjectIdentifier, len(keys))
		for i := range keys {
			ids[i].Key = &keys[i]
		}
		return d.delete(ctx, api, ids)
	}
	for _, key := range keys {
		if err := d.deleteVersions(ctx, api, key); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) delete(ctx context.Context, api *s3.Client, ids []types.ObjectIdentifier) error {
	answer, err := api.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &d.bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return d.judge(ctx, err)
	}
	var first error
	failed := 0
	for _, e := range answer.Errors {
		code, message := aws.ToString(e.Code), aws.ToString(e.Message)
		if code == "NoSuchKey" || code == "NoSuchVersion" {
			continue
		}
		if failed++; first != nil {
			continue
		}
		// The refusal of one object has no status of its own.
		refusal := &smithy.GenericAPIError{Code: code, Message: message}
		first = describe(refusal).err
		if len(ids) > 1 {
			first = prefixed(aws.ToString(e.Key), first)
		}
		switch {
		case code == "AccessDenied" || code == "InvalidRequest":
			first = driver.Permanent(first, "may this key delete there, and is the object locked?")
		case retried[code] || code == "SlowDown":
		default:
			first = driver.Permanent(first, fault.Hint(d.judge(ctx, refusal)))
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more of %d)", first, failed-1, len(ids))
	}
	return first
}

// deleteVersions removes all versions of one object, and the markers that hide
// them.
func (d *Driver) deleteVersions(ctx context.Context, api *s3.Client, key string) error {
	in := &s3.ListObjectVersionsInput{Bucket: &d.bucket, Prefix: &key}
	for {
		answer, err := api.ListObjectVersions(ctx, in)
		if err != nil {
			return d.judge(ctx, err)
		}
		if err := listing(answer.IsTruncated); err != nil {
			return err
		}
		var ids []types.ObjectIdentifier
		for _, v := range answer.Versions {
			if aws.ToString(v.Key) == key {
				ids = append(ids, types.ObjectIdentifier{Key: &key, VersionId: v.VersionId})
			}
		}
		for _, m := range answer.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				ids = append(ids, types.ObjectIdentifier{Key: &key, VersionId: m.VersionId})
			}
		}
		for some := range slices.Chunk(ids, d.config.traits.Batch) {
			if err := d.delete(ctx, api, some); err != nil {
				return err
			}
		}
		// The key itself comes before those that it begins.
		if !aws.ToBool(answer.IsTruncated) || aws.ToString(answer.NextKeyMarker) > key {
			return nil
		}
		in.KeyMarker, in.VersionIdMarker = answer.NextKeyMarker, answer.NextVersionIdMarker
	}
}

// Unfinished lists uploads that were neither finished nor aborted. Their size
// would cost a request each, and is left out. They are held in memory to be
// sorted by name: S3 sorts by key, where "a" is before "a-b".
func (d *Driver) Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		found, err := d.uploads(ctx, prefix)
		if err != nil {
			yield(store.Leftover{}, err)
			return
		}
		slices.SortFunc(found, func(a, b store.Leftover) int { return strings.Compare(a.Name, b.Name) })
		for _, l := range found {
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (d *Driver) uploads(ctx context.Context, prefix string) (found []store.Leftover, err error) {
	api, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	in := &s3.ListMultipartUploadsInput{Bucket: &d.bucket, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
	for {
		answer, err := api.ListMultipartUploads(ctx, in)
		if err != nil {
			return nil, d.judge(ctx, err)
		}
		if err := listing(answer.IsTruncated); err != nil {
			return nil, err
		}
		for _, u := range answer.Uploads {
			key, err := decode(aws.ToString(u.Key), answer.EncodingType)
			if err != nil {
				return nil, err
			}
			started := aws.ToTime(u.Initiated)
			found = append(found, store.Leftover{Name: key + "?uploadId=" + aws.ToString(u.UploadId), Key: key, Started: started, ModTime: started})
		}
		if !aws.ToBool(answer.IsTruncated) {
			return found, nil
		}
		marker, err := decode(aws.ToString(answer.NextKeyMarker), answer.EncodingType)
		if err != nil {
			return nil, err
		}
		in.KeyMarker, in.UploadIdMarker = &marker, answer.NextUploadIdMarker
	}
}
