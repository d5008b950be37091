package azure

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"walg/lib/store"
	"walg/lib/store/driver"
)

// list is List Blobs, one page from marker on.
func (d *Driver) list(ctx context.Context, prefix, marker string, include container.ListBlobsInclude) ([]*container.BlobItem, string, error) {
	o := &container.ListBlobsFlatOptions{Include: include}
	if prefix != "" {
		o.Prefix = &prefix
	}
	if marker != "" {
		o.Marker = &marker
	}
	page, err := d.container.NewListBlobsFlatPager(o).NextPage(ctx)
	if err != nil {
		return nil, "", d.explain(ctx, err)
	}
	if page.Segment == nil {
		return nil, "", d.stranger(errors.New("the answer is no listing"))
	}
	return page.Segment.BlobItems, deref(page.NextMarker), nil
}

// Page is List Blobs.
func (d *Driver) Page(ctx context.Context, prefix, from string) ([]store.Info, string, error) {
	items, next, err := d.list(ctx, prefix, from, container.ListBlobsInclude{})
	if err != nil {
		return nil, "", err
	}
	page := make([]store.Info, 0, len(items))
	for _, item := range items {
		if item.Name == nil || item.Properties == nil || deref(item.Properties.ResourceType) == "directory" {
			continue
		}
		p := item.Properties
		page = append(page, store.Info{Key: *item.Name, Size: deref(p.ContentLength), ModTime: deref(p.LastModified)})
	}
	slices.SortFunc(page, func(a, b store.Info) int { return cmp.Compare(a.Key, b.Key) })
	return page, next, nil
}

// Unfinished shows the uploads to keys that have no object. All of one key have
// its name, which Delete does not remove. Those of other programs count as one
// upload, whose times are not known and zero.
func (d *Driver) Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		for marker := ""; ; {
			items, next, err := d.list(ctx, prefix, marker, container.ListBlobsInclude{UncommittedBlobs: true})
			if err != nil {
				yield(store.Leftover{}, err)
				return
			}
			slices.SortFunc(items, func(a, b *container.BlobItem) int { return cmp.Compare(deref(a.Name), deref(b.Name)) })
			for _, item := range items {
				// Blocks that do not count yet have no bytes.
				if item.Name == nil || item.Properties == nil || deref(item.Properties.ContentLength) > 0 {
					continue
				}
				uploads, err := d.uploads(ctx, *item.Name)
				if err != nil {
					yield(store.Leftover{}, err)
					return
				}
				for _, l := range uploads {
					if !yield(l, nil) {
						return
					}
				}
			}
			if marker = next; marker == "" {
				return
			}
		}
	}
}

// Discard finds the upload absent, or refuses: Azure removes blocks that were
// not committed after a week, or when the blob is written, and on no request.
func (d *Driver) Discard(ctx context.Context, l store.Leftover) error {
	if l.Name != l.Key {
		return driver.Permanent(errors.New("not the name of an unfinished upload"), "")
	}
	found, err := d.uploads(ctx, l.Key)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(found, func(f store.Leftover) bool { return f.Started.Equal(l.Started) }) {
		return nil
	}
	return driver.Permanent(errors.New("on Azure nobody can remove blocks that were not committed; they expire by themselves a week after the last of them was sent"), "")
}

// uploads adds up the blocks of each upload to a key, the oldest first. There
// are none where they are gone meanwhile, or where the object has no blocks.
func (d *Driver) uploads(ctx context.Context, key string) ([]store.Leftover, error) {
	r, err := d.blob(key).GetBlockList(ctx, blockblob.BlockListTypeUncommitted, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.InvalidBlobType) {
		return nil, nil
	}
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	found := map[string]store.Leftover{}
	for _, block := range r.UncommittedBlocks {
		upload, started := origin(deref(block.Name))
		// Azure does not say when a block was sent.
		size := found[upload].Size + deref(block.Size)
		found[upload] = store.Leftover{Name: key, Key: key, Size: size, Started: started, ModTime: started}
	}
	oldest := func(a, b store.Leftover) int { return a.Started.Compare(b.Started) }
	return slices.SortedFunc(maps.Values(found), oldest), nil
}
