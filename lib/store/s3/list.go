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

// uploadID is between key and id in the name of an unfinished upload.
const uploadID = "?uploadId="

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

// Discard aborts an upload. Parts that are on their way may stay: then it is
// listed again.
func (d *Driver) Discard(ctx context.Context, l store.Leftover) error {
	id, ok := strings.CutPrefix(l.Name, l.Key+uploadID)
	if !ok || id == "" {
		return driver.Permanent(errors.New("not the name of an unfinished upload"), "")
	}
	api, err := d.client(ctx)
	if err != nil {
		return err
	}
	return d.abort(ctx, api, l.Key, id)
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
			found = append(found, store.Leftover{Name: key + uploadID + aws.ToString(u.UploadId), Key: key, Started: started, ModTime: started})
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
