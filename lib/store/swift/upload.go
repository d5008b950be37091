package swift

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	api "github.com/ncw/swift/v2"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
)

// maxName is the length of the longest name that Swift takes, in bytes, and
// maxLarge that of a large object: its parts have longer names.
const (
	maxName  = 1024
	maxLarge = maxName - len(".tmp.20060102T150405Z-0123456789abcdef/m0000000")
)

// Begin makes sure of the container of parts. The parts of one upload have the
// names TEMPORARY/00000001 and so on, TEMPORARY being a name by store.TempName:
// it says the object, the time, and that nobody else has it.
func (d *Driver) Begin(ctx context.Context, key string, o driver.Options) (driver.Upload, error) {
	if len(key) > maxLarge {
		return nil, fault.New(fault.Usage, "the name is %d bytes long, the limit for large objects is %d", len(key), maxLarge)
	}
	if err := d.makeReady(ctx); err != nil {
		return nil, err
	}
	if _, err := d.abilities(ctx); err != nil {
		return nil, err
	}
	name := store.TempName(key, time.Now(), rand.Uint64())
	return &upload{name: name, parts: map[int]part{}, creation: creation{d: d, key: key, o: o, own: "/" + d.segments + "/" + name + "/"}}, nil
}

// makeReady makes the container of parts where there is none, under the storage
// policy of the other.
func (d *Driver) makeReady(ctx context.Context) error {
	if d.ready.Load() {
		return nil
	}
	_, err := d.look(ctx, d.segments)
	if errors.Is(err, fs.ErrNotExist) {
		var resp *http.Response
		resp, err = d.look(ctx, d.container)
		if errors.Is(err, fs.ErrNotExist) {
			return d.noContainer(err)
		}
		header := api.Headers{}
		if err == nil && resp.Header.Get("X-Storage-Policy") != "" {
			header["X-Storage-Policy"] = resp.Header.Get("X-Storage-Policy")
		}
		_, err = d.send(ctx, request{method: "PUT", container: d.segments, header: header})
		if refused(err) {
			err = driver.Permanent(fmt.Errorf("make container %s: %w", d.segments, err),
				"large objects need a container "+d.segments+": make it, for the user of OS_USERNAME to read and write")
		}
	} else if refused(err) {
		err = nil // who may not look may still write; the first part will tell
	}
	if err == nil {
		d.ready.Store(true)
	}
	return err
}

// upload is a large object in the making.
type upload struct {
	creation
	name string // temporary, of the parts together

	mu    sync.Mutex
	parts map[int]part // by number; without an ETag while it is not known to have arrived
	subs  []string     // sub-manifests
}

// part is an entry of a manifest, as it is sent.
type part struct {
	Path string `json:"path"`
	ETag string `json:"etag"`
	Size int64  `json:"size_bytes"`
}

// Part puts one part; the server compares its MD5.
func (u *upload) Part(ctx context.Context, n int, _ int64, data []byte) error {
	name := fmt.Sprintf("%s/%08d", u.name, n)
	sum := md5.Sum(data)
	etag := hex.EncodeToString(sum[:])
	u.note(n, part{Path: "/" + u.d.segments + "/" + name}) // it may arrive though the answer does not
	if err := u.putPart(ctx, name, nil, api.Headers{"Etag": etag}, data); err != nil {
		return err
	}
	u.note(n, part{"/" + u.d.segments + "/" + name, etag, int64(len(data))})
	return nil
}

func (u *upload) note(n int, p part) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts[n] = p
}

// putPart puts a part or a manifest of parts. A container that is gone is made
// anew for the next try.
func (u *upload) putPart(ctx context.Context, name string, query url.Values, header api.Headers, data []byte) error {
	err := u.d.put(ctx, u.d.segments, name, query, header, data)
	if errors.Is(err, fs.ErrNotExist) {
		u.d.ready.Store(false)
		return cmp.Or(u.d.makeReady(ctx), fmt.Errorf("no container %s", u.d.segments))
	}
	return err
}

// Commit puts the manifest, over sub-manifests where the parts are too many for
// one. The server looks at each part, and compares sizes and MD5s.
func (u *upload) Commit(ctx context.Context, n int, whole driver.Sum) error {
	list := make([]part, n)
	for i := range list {
		p := u.parts[i+1]
		if p.ETag == "" {
			return fault.New(fault.Usage, "part %d has not arrived", i+1)
		}
		list[i] = p
	}
	can, err := u.d.abilities(ctx)
	if err != nil {
		return err
	}
	for level := 1; len(list) > can.segments; level++ {
		if list, err = u.nest(ctx, list, can.segments, level); err != nil {
			return err
		}
	}
	body, sum, size := manifestOf(list)
	if size != whole.Size {
		return fault.New(fault.Data, "the parts have %d bytes together, the object %d", size, whole.Size)
	}
	header := writeMeta(u.o.Meta, whole.CRC32C)
	header["Etag"] = sum
	return u.creation.put(ctx, putManifest, header, body)
}

var putManifest = url.Values{"multipart-manifest": {"put"}}

// nest puts sub-manifests of so many parts each, and returns the list of them.
func (u *upload) nest(ctx context.Context, list []part, size, level int) ([]part, error) {
	var above []part
	for len(list) > 0 {
		some := list[:min(size, len(list))]
		list = list[len(some):]
		name := fmt.Sprintf("%s/m%d%06d", u.name, level, len(above)+1)
		u.subs = append(u.subs, "/"+u.d.segments+"/"+name)
		body, sum, total := manifestOf(some)
		if err := u.putPart(ctx, name, putManifest, api.Headers{"Etag": sum}, body); err != nil {
			return nil, fmt.Errorf("manifest of parts: %w", err)
		}
		above = append(above, part{"/" + u.d.segments + "/" + name, sum, total})
	}
	return above, nil
}

// manifestOf returns a manifest, the ETag of what it stands for, and the size
// of that.
func manifestOf(list []part) (body []byte, etag string, size int64) {
	sum := md5.New()
	for _, p := range list {
		sum.Write([]byte(p.ETag))
		size += p.Size
	}
	body, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings and numbers
	}
	return body, hex.EncodeToString(sum.Sum(nil)), size
}

// Abort removes the parts, unless a manifest may name them: then they are left,
// for Unfinished to show if none does.
func (u *upload) Abort(ctx context.Context) error {
	if u.doubts {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	names := u.subs
	for _, p := range u.parts {
		names = append(names, p.Path)
	}
	return u.d.remove(ctx, names)
}

// Unfinished lists the container of parts: those of one upload are a leftover
// unless the object's manifest names them.
func (d *Driver) Unfinished(ctx context.Context, prefix string) iter.Seq2[store.Leftover, error] {
	return func(yield func(store.Leftover, error) bool) {
		var now store.Leftover
		finish := func() bool {
			if now.Name == "" {
				return true
			}
			used, err := d.used(ctx, now)
			if err != nil {
				yield(store.Leftover{}, err)
				return false
			}
			return used || yield(now, nil)
		}
		for from := ""; ; {
			page, err := d.list(ctx, d.segments, prefix, from)
			switch {
			case errors.Is(err, fs.ErrNotExist): // no large object was ever put
				return
			case err != nil:
				yield(store.Leftover{}, err)
				return
			case len(page) == 0:
				finish()
				return
			}
			for _, e := range page {
				slash := strings.LastIndexByte(e.Name, '/')
				name := e.Name[:max(slash, 0)]
				key, started, ours := store.ParseTemp(name)
				if !ours {
					continue
				}
				if name != now.Name {
					if !finish() {
						return
					}
					now = store.Leftover{Name: name, Key: key, Started: started}
				}
				if !strings.HasPrefix(e.Name[slash+1:], "m") { // not the bytes of the parts again
					now.Size += e.Bytes
				}
				if at := e.time(); at.After(now.ModTime) {
					now.ModTime = at
				}
			}
			from = page[len(page)-1].Name
		}
	}
}

// used reports whether the object's manifest names the parts of an upload.
func (d *Driver) used(ctx context.Context, l store.Leftover) (bool, error) {
	m, err := d.manifest(ctx, l.Key)
	return m.names("/" + d.segments + "/" + l.Name + "/"), err
}

// Discard removes the parts of an upload, unless the object is made of them.
// That is asked before each page of them, and no lock holds it so: an upload
// that commits in this moment makes an object without parts.
func (d *Driver) Discard(ctx context.Context, l store.Leftover) error {
	if key, _, ours := store.ParseTemp(l.Name); !ours || key != l.Key {
		return driver.Permanent(errors.New("not the name of an unfinished upload"), "")
	}
	for from := ""; ; {
		page, err := d.list(ctx, d.segments, l.Name+"/", from)
		if err != nil || len(page) == 0 { // fs.ErrNotExist: there are no parts at all
			return err
		}
		used, err := d.used(ctx, l)
		if err != nil {
			return err
		}
		if used {
			return driver.Permanent(errors.New("the object is made of these parts"), "")
		}
		names := make([]string, len(page))
		for i, e := range page {
			names[i] = "/" + d.segments + "/" + e.Name
		}
		if err := d.remove(ctx, names); err != nil {
			return err
		}
		from = page[len(page)-1].Name // a listing may lag behind, and show them again
	}
}

var (
	_ driver.Driver     = (*Driver)(nil)
	_ driver.Unfinished = (*Driver)(nil)
)
