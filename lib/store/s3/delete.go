package s3

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// listings is how many keys are asked for their versions at once.
const listings = 8

// Delete removes objects; with S3_ENABLE_VERSIONING all their versions.
func (d *Driver) Delete(ctx context.Context, keys []string) error {
	api, err := d.client(ctx)
	if err != nil {
		return err
	}
	if d.config.versioning {
		return d.deleteVersions(ctx, api, keys)
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		ids[i].Key = &keys[i]
	}
	var kept driver.Kept
	if err := d.delete(ctx, api, ids, &kept); err != nil {
		return err
	}
	return kept.Of(keys)
}

// delete does one request, and notes what the storage refuses of it.
func (d *Driver) delete(ctx context.Context, api *s3.Client, ids []types.ObjectIdentifier, kept *driver.Kept) error {
	answer, err := api.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &d.bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return d.judge(ctx, err)
	}
	for _, e := range answer.Errors {
		code, message := aws.ToString(e.Code), aws.ToString(e.Message)
		if code == "NoSuchKey" || code == "NoSuchVersion" {
			continue
		}
		// The refusal of one object has no status of its own.
		refusal := &smithy.GenericAPIError{Code: code, Message: message}
		err := describe(refusal).err
		switch {
		case code == "AccessDenied" || code == "InvalidRequest":
			err = driver.Permanent(err, "may this key delete there, and is the object locked?")
		case retried[code] || code == "SlowDown":
		default:
			err = driver.Permanent(err, fault.Hint(d.judge(ctx, refusal)))
		}
		kept.Add(aws.ToString(e.Key), err)
	}
	return nil
}

// deleteVersions removes all versions of objects, and then the markers that
// hide them. A marker goes only when nothing is left below it: a version that
// may not go, because it is locked, would come to life again. Where there is no
// marker, and only an older version is locked, that one is seen afterwards.
func (d *Driver) deleteVersions(ctx context.Context, api *s3.Client, keys []string) error {
	var kept driver.Kept
	first := sweep{d: d, api: api, kept: &kept}
	if err := first.run(ctx, keys); err != nil {
		return err
	}
	var bare []string
	for _, key := range first.marked {
		if !kept.Has(key) {
			bare = append(bare, key)
		}
	}
	second := sweep{d: d, api: api, kept: &kept, markers: true}
	if err := second.run(ctx, bare); err != nil {
		return err
	}
	return kept.Of(keys)
}

// A sweep goes once through all that there is of some keys, and removes either
// versions or markers. It holds no more than a page for each of the listings
// at work, and a request.
type sweep struct {
	d       *Driver
	api     *s3.Client
	kept    *driver.Kept
	markers bool

	mu      sync.Mutex
	pending []types.ObjectIdentifier // to be removed by the next request
	marked  []string                 // keys with markers, where versions are removed
}

func (s *sweep) run(outer context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(outer)
	group.SetLimit(listings)
	for _, key := range keys {
		group.Go(func() error { return s.key(ctx, key) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(s.pending) == 0 {
		return nil
	}
	return s.d.delete(outer, s.api, s.pending, s.kept)
}

// remove removes as many as fill a request; the rest waits for others.
func (s *sweep) remove(ctx context.Context, ids []types.ObjectIdentifier) error {
	s.mu.Lock()
	s.pending = append(s.pending, ids...)
	var full [][]types.ObjectIdentifier
	size := s.d.config.traits.Batch
	for len(s.pending) >= size {
		full = append(full, slices.Clone(s.pending[:size]))
		s.pending = slices.Delete(s.pending, 0, size)
	}
	s.mu.Unlock()
	for _, some := range full {
		if err := s.d.delete(ctx, s.api, some, s.kept); err != nil {
			return err
		}
	}
	return nil
}

var errNewVersion = errors.New("another version came while the object was deleted")

// key lists one key and removes what it finds.
func (s *sweep) key(ctx context.Context, key string) error {
	in := &s3.ListObjectVersionsInput{Bucket: &s.d.bucket, Prefix: &key}
	marked := false
	for {
		answer, err := s.api.ListObjectVersions(ctx, in)
		if err != nil {
			return s.d.judge(ctx, err)
		}
		if err := listing(answer.IsTruncated); err != nil {
			return err
		}
		var versions, markers []types.ObjectIdentifier
		for _, v := range answer.Versions {
			if aws.ToString(v.Key) == key {
				versions = append(versions, types.ObjectIdentifier{Key: &key, VersionId: v.VersionId})
			}
		}
		for _, m := range answer.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				markers = append(markers, types.ObjectIdentifier{Key: &key, VersionId: m.VersionId})
			}
		}
		if marked = marked || len(markers) > 0; s.markers {
			if len(versions) > 0 {
				s.kept.Add(key, errNewVersion)
				return nil
			}
			versions = markers
		}
		if err := s.remove(ctx, versions); err != nil {
			return err
		}
		// The key itself comes before those that it begins.
		if !aws.ToBool(answer.IsTruncated) || aws.ToString(answer.NextKeyMarker) > key {
			break
		}
		in.KeyMarker, in.VersionIdMarker = answer.NextKeyMarker, answer.NextVersionIdMarker
	}
	if marked && !s.markers {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.marked = append(s.marked, key)
	}
	return nil
}
