package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
)

// at returns a store over a driver, below a root of its own, and that root.
// Nothing is tried twice: a refusal that is not final shows.
func at(d *Driver) (store.Store, string) {
	root := strings.ToLower(rand.Text()) + "/"
	return remote.New(once{d}, root, remote.Policy{}), root
}

type once struct{ *Driver }

func (o once) Traits() driver.Traits {
	t := o.Driver.Traits()
	t.Tries = 1
	return t
}

// raw is the SDK as the driver set it up.
func raw(t *testing.T, d *Driver) *s3.Client {
	t.Helper()
	api, err := d.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// bucket makes one for this test alone, and returns a driver for it.
func bucket(t *testing.T, server string, lock, versions bool, change m) *Driver {
	t.Helper()
	settings := maps.Clone(servertest.Get(t, server).Env)
	maps.Copy(settings, change)
	d, err := New(t.Context(), strings.ToLower(rand.Text()), &driver.Settings{Get: func(name string) string { return settings[name] }})
	if err != nil {
		t.Fatal(err)
	}
	api := raw(t, d)
	_, err = api.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &d.bucket, ObjectLockEnabledForBucket: aws.Bool(lock),
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(fakeRegion)}})
	if err == nil && versions {
		_, err = api.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &d.bucket,
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func put(t *testing.T, s store.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func get(ctx context.Context, s store.Store, key string) (string, error) {
	r, _, err := s.Get(ctx, key, 0)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

// sizes are those of an object of one request, and of one in parts.
var sizes = map[string]int{"whole": 1000, "parts": smallPart + 7}

func withParts(change m) m {
	all := m{"S3_MAX_PART_SIZE": "5242880"}
	maps.Copy(all, change)
	return all
}

func random(n int) string {
	data := make([]byte, n)
	rand.Read(data)
	return string(data)
}

// Class and encryption, as the server tells of them afterwards.
func TestObjectsAreAsTheSettingsWant(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings m
		class    types.StorageClass
		sse      types.ServerSideEncryption
		key      string // in the id
	}{
		"nothing":       {m{}, "", "", ""},
		"AES256":        {m{"WALG_S3_SSE": "AES256"}, "", "AES256", ""},
		"KMS":           {m{"WALG_S3_SSE": "aws:kms", "WALG_S3_SSE_KMS_ID": "my-minio-key"}, "", "aws:kms", "my-minio-key"},
		"storage class": {m{"WALG_S3_STORAGE_CLASS": "REDUCED_REDUNDANCY"}, "REDUCED_REDUNDANCY", "", ""},
	} {
		for kind, size := range sizes {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				d, _ := real(t, "minio", withParts(c.settings))
				s, root := at(d)
				data := random(size)
				put(t, s, "k", data)
				if got, err := get(t.Context(), s, "k"); err != nil || got != data {
					t.Errorf("read %d bytes: %v", len(got), err)
				}
				head, err := raw(t, d).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &d.bucket, Key: aws.String(root + "k")})
				if err != nil {
					t.Fatal(err)
				}
				if head.StorageClass != c.class || head.ServerSideEncryption != c.sse || !strings.Contains(aws.ToString(head.SSEKMSKeyId), c.key) {
					t.Errorf("class %q, encryption %q, key %q", head.StorageClass, head.ServerSideEncryption, aws.ToString(head.SSEKMSKeyId))
				}
			})
		}
	}
}

func TestWhatAServerCannotDoIsFinal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings    m
		words, hint string
	}{
		"key of KMS":    {m{"WALG_S3_SSE": "aws:kms", "WALG_S3_SSE_KMS_ID": "absent-key"}, "kms:KeyNotFound", "WALG_S3_SSE_KMS_ID"},
		"storage class": {m{"WALG_S3_STORAGE_CLASS": "STANDARD_IA"}, "InvalidStorageClass", "WALG_S3_STORAGE_CLASS"},
		"object lock":   {m{"S3_RETENTION_PERIOD": "60"}, "", "S3_RETENTION_PERIOD"}, // the bucket has none
	} {
		for kind, size := range sizes {
			d, _ := real(t, "minio", withParts(c.settings))
			s, _ := at(d)
			err := s.Put(t.Context(), "k", strings.NewReader(random(size)), store.PutOptions{})
			if fault.Status(err) != fault.Usage || !strings.Contains(fmt.Sprint(err), c.words) || !strings.Contains(fault.Hint(err), c.hint) {
				t.Errorf("%s, %s: status %d, %v, hint %q", name, kind, fault.Status(err), err, fault.Hint(err))
			}
			if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: then %v", name, kind, err)
			}
		}
	}
}

func TestCustomersKeyIsNeededToRead(t *testing.T) {
	t.Parallel()
	for kind, size := range sizes {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			key := rand.Text()[:24] + "01234567"
			d, _ := real(t, "minio-tls", withParts(m{"WALG_S3_SSE_C": key}))
			root := strings.ToLower(rand.Text()) + "/"
			open := func(d *Driver) store.Store { return remote.New(once{d}, root, remote.Policy{}) }
			data := random(size)
			put(t, open(d), "k", data)
			encoded, _ := real(t, "minio-tls", m{"WALG_S3_SSE_C": base64.StdEncoding.EncodeToString([]byte(key))})
			for _, d := range []*Driver{d, encoded} {
				if got, err := get(t.Context(), open(d), "k"); err != nil || got != data {
					t.Errorf("with the key: %d bytes, %v", len(got), err)
				}
			}
			without, _ := real(t, "minio-tls", nil)
			other, _ := real(t, "minio-tls", m{"WALG_S3_SSE_C": "0123456789abcdef0123456789abcdef"})
			for name, d := range map[string]*Driver{"without the key": without, "with another key": other} {
				if got, err := get(t.Context(), open(d), "k"); fault.Status(err) != fault.Usage {
					t.Errorf("%s: %d bytes, status %d, %v", name, len(got), fault.Status(err), err)
				}
				if _, err := open(d).Stat(t.Context(), "k"); fault.Status(err) != fault.Usage {
					t.Errorf("%s, Stat: status %d, %v", name, fault.Status(err), err)
				}
			}
		})
	}
}

// versions counts what there is of a key: objects and delete markers.
func versions(t *testing.T, d *Driver, key string) (objects, markers int) {
	t.Helper()
	answer, err := raw(t, d).ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &d.bucket, Prefix: &key})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range answer.Versions {
		if *v.Key == key {
			objects++
		}
	}
	for _, v := range answer.DeleteMarkers {
		if *v.Key == key {
			markers++
		}
	}
	return objects, markers
}

func TestDeletingHidesVersionsOrRemovesThem(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			plain := bucket(t, server, false, true, nil)
			s := remote.New(once{plain}, "", remote.Policy{})
			put(t, s, "k", "first")
			put(t, s, "k", "second")
			put(t, s, "k2", "stays")
			if err := s.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("deleted: %v", err)
			}
			if objects, markers := versions(t, plain, "k"); objects != 2 || markers != 1 {
				t.Errorf("deleted: %d versions and %d markers are left", objects, markers)
			}
			settings := maps.Clone(servertest.Get(t, server).Env)
			settings["S3_ENABLE_VERSIONING"] = "enabled"
			all, err := New(t.Context(), plain.bucket, &driver.Settings{Get: func(name string) string { return settings[name] }})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // absent ones are no error
				if err := remote.New(once{all}, "", remote.Policy{}).Delete(t.Context(), "k", "absent"); err != nil {
					t.Fatal(err)
				}
			}
			if objects, markers := versions(t, plain, "k"); objects != 0 || markers != 0 {
				t.Errorf("with S3_ENABLE_VERSIONING: %d versions and %d markers are left", objects, markers)
			}
			if got, err := get(t.Context(), s, "k2"); err != nil || got != "stays" {
				t.Errorf("its neighbour: %q, %v", got, err)
			}
		})
	}
}

func TestLockedObjectsStay(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		for _, mode := range []string{"GOVERNANCE", "COMPLIANCE"} {
			for kind, size := range sizes {
				t.Run(server+", "+mode+", "+kind, func(t *testing.T) {
					t.Parallel()
					d := bucket(t, server, true, false, withParts(m{"S3_RETENTION_PERIOD": "3600", "S3_RETENTION_MODE": mode, "S3_ENABLE_VERSIONING": "enabled"}))
					s := remote.New(once{d}, "", remote.Policy{})
					put(t, s, "k", random(size))
					head, err := raw(t, d).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &d.bucket, Key: aws.String("k")})
					if err != nil {
						t.Fatal(err)
					}
					if left := time.Until(aws.ToTime(head.ObjectLockRetainUntilDate)); string(head.ObjectLockMode) != mode || left < 50*time.Minute || left > time.Hour {
						t.Errorf("locked by %s for %v", head.ObjectLockMode, left)
					}
					err = s.Delete(t.Context(), "k")
					if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "locked") {
						t.Errorf("delete: status %d, %v, hint %q", fault.Status(err), err, fault.Hint(err))
					}
					if _, err := s.Stat(t.Context(), "k"); err != nil {
						t.Errorf("then: %v", err)
					}
				})
			}
		}
	}
}

func TestOnlyAKnownAuthorityIsTrusted(t *testing.T) {
	t.Parallel()
	env := servertest.Get(t, "minio-tls").Env
	list := func(change m) error {
		d, _ := real(t, "minio-tls", change)
		s, _ := at(d)
		_, err := s.Stat(t.Context(), "k")
		return err
	}
	ca := env["WALG_S3_CA_CERT_FILE"]
	for name, change := range map[string]m{
		"WALG_S3_CA_CERT_FILE": nil,
		"S3_CA_CERT_FILE":      {"WALG_S3_CA_CERT_FILE": "", "S3_CA_CERT_FILE": ca},
		"AWS_CA_BUNDLE":        {"WALG_S3_CA_CERT_FILE": "", "AWS_CA_BUNDLE": ca},
		"the first of both":    {"AWS_CA_BUNDLE": "/dev/null/none"},
	} {
		if err := list(change); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		change m
		hint   string
	}{
		"no authority":  {m{"WALG_S3_CA_CERT_FILE": ""}, "WALG_S3_CA_CERT_FILE"},
		"HTTP to HTTPS": {m{"AWS_ENDPOINT": strings.Replace(env["AWS_ENDPOINT"], "https:", "http:", 1)}, "https"},
		"HTTPS to HTTP": {m{"AWS_ENDPOINT": strings.Replace(servertest.Get(t, "minio").Env["AWS_ENDPOINT"], "http:", "https:", 1)}, "http://"},
	} {
		if err := list(c.change); fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%s: status %d, %v, hint %q", name, fault.Status(err), err, fault.Hint(err))
		}
	}
}

// What no second try can mend, and which setting to look at.
func TestRealRefusalsAreFinal(t *testing.T) {
	t.Parallel()
	none := keyless(t, m{})
	for name, c := range map[string]struct {
		change m
		hint   string
	}{
		"wrong secret": {m{"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "AWS_SECRET_ACCESS_KEY"},
		"wrong key":    {m{"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"},
		"wrong region": {m{"AWS_REGION": "us-west-2"}, "AWS_REGION"},
		"no key":       {none, "AWS_ACCESS_KEY_ID"},
		"wrong token":  {m{"AWS_SESSION_TOKEN": "not-a-token"}, ""},
	} {
		for _, server := range []string{"minio", "versitygw"} {
			if name == "wrong token" && server == "versitygw" {
				continue // looks at none
			}
			d, _ := real(t, server, c.change)
			s, _ := at(d)
			var listed error
			for _, listed = range s.List(t.Context(), "") {
			}
			_, read := get(t.Context(), s, "k")
			for op, err := range map[string]error{
				"Put":    s.Put(t.Context(), "k", strings.NewReader("data"), store.PutOptions{}),
				"Get":    read,
				"List":   listed,
				"Delete": s.Delete(t.Context(), "k"),
			} {
				if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), c.hint) {
					t.Errorf("%s, %s, %s: status %d, %v, hint %q", server, name, op, fault.Status(err), err, fault.Hint(err))
				}
			}
			// HEAD has no body that says more.
			if _, err := s.Stat(t.Context(), "k"); fault.Status(err) != fault.Usage {
				t.Errorf("%s, %s, Stat: status %d, %v", server, name, fault.Status(err), err)
			}
		}
	}
}

func TestAnAbsentRealBucketIsFinal(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		for _, region := range []string{fakeRegion, ""} {
			settings := maps.Clone(servertest.Get(t, server).Env)
			settings["AWS_REGION"] = region
			d, err := New(t.Context(), strings.ToLower(rand.Text()), &driver.Settings{Get: func(name string) string { return settings[name] }})
			if err != nil {
				t.Fatal(err)
			}
			s, _ := at(d)
			_, stat := s.Stat(t.Context(), "k")
			_, read := get(t.Context(), s, "k")
			for op, err := range map[string]error{
				"Put":    s.Put(t.Context(), "k", strings.NewReader("data"), store.PutOptions{}),
				"Get":    read,
				"Stat":   stat,
				"Delete": s.Delete(t.Context(), "k"),
			} {
				if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "WALG_S3_PREFIX") {
					t.Errorf("%s, region %q, %s: status %d, %v, hint %q", server, region, op, fault.Status(err), err, fault.Hint(err))
				}
			}
		}
	}
}

func TestRealServersAreReachedInOtherWays(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		env := servertest.Get(t, server).Env
		address, err := url.Parse(env["AWS_ENDPOINT"])
		if err != nil {
			t.Fatal(err)
		}
		source := newFake(t)
		source.answer("", sends(200, address.Hostname()))
		for name, change := range map[string]m{
			"region not set": {"AWS_REGION": ""},
			"other names": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY": env["AWS_ACCESS_KEY_ID"], "AWS_SECRET_KEY": env["AWS_SECRET_ACCESS_KEY"],
				"AWS_REGION": "", "AWS_DEFAULT_REGION": fakeRegion},
			"another host":     {"AWS_ENDPOINT": "http://storage.invalid", "S3_ENDPOINT_SOURCE": source.URL, "S3_ENDPOINT_PORT": address.Port()},
			"old listing":      {"S3_USE_LIST_OBJECTS_V1": "true"},
			"without asking":   {"S3_DISABLE_100_CONTINUE": "true"},
			"with more to say": {"S3_REQUEST_ADDITIONAL_HEADERS": `{"X-One": "a  b"}`},
		} {
			d, _ := real(t, server, withParts(change))
			s, _ := at(d)
			for kind, size := range sizes {
				data := random(size)
				put(t, s, kind, data)
				if got, err := get(t.Context(), s, kind); err != nil || got != data {
					t.Errorf("%s, %s, %s: %d bytes, %v", server, name, kind, len(got), err)
				}
			}
			var keys []string
			for info, err := range s.List(t.Context(), "") {
				if err != nil {
					t.Fatalf("%s, %s: %v", server, name, err)
				}
				keys = append(keys, info.Key)
			}
			if !slices.Equal(keys, []string{"parts", "whole"}) {
				t.Errorf("%s, %s: lists %q", server, name, keys)
			}
		}
	}
}

// More than a page, by both requests, with names that need an encoding.
func TestLongListingsAreWhole(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			d, _ := real(t, server, nil)
			_, root := at(d)
			var want []string
			for i := range 1003 {
				want = append(want, fmt.Sprintf("a+b %%41&é<%04d>", i))
			}
			var wg sync.WaitGroup
			for worker := range 8 {
				wg.Go(func() {
					for i := worker; i < len(want); i += 8 {
						if err := d.Whole(t.Context(), root+want[i], nil, driver.Options{}); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			for _, v1 := range []string{"true", "false"} {
				d, _ := real(t, server, m{"S3_USE_LIST_OBJECTS_V1": v1})
				var keys []string
				for info, err := range remote.New(once{d}, root, remote.Policy{}).List(t.Context(), "a+b ") {
					if err != nil {
						t.Fatal(err)
					}
					keys = append(keys, info.Key)
				}
				if !slices.Equal(keys, want) {
					t.Errorf("V1 %s: %d keys, want %d", v1, len(keys), len(want))
				}
			}
		})
	}
}

func TestUnfinishedUploadsAreListed(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		d, _ := real(t, server, nil)
		_, root := at(d)
		ctx := t.Context()
		up, err := d.Begin(ctx, root+"a b", driver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Part(ctx, 1, 0, []byte("data")); err != nil {
			t.Fatal(err)
		}
		list := func(prefix string) (found []store.Leftover) {
			t.Helper()
			for l, err := range d.Unfinished(ctx, prefix) {
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, l)
			}
			return found
		}
		found := list(root + "a b")
		if len(found) != 1 || found[0].Key != root+"a b" || !strings.HasPrefix(found[0].Name, root+"a b?uploadId=") ||
			time.Since(found[0].Started).Abs() > time.Hour {
			t.Errorf("%s: %v", server, found)
		}
		if found := list(root); len(found) != 1 && server != "minio" { // which shows them only by their key
			t.Errorf("%s, by prefix: %v", server, found)
		}
		beside := remote.New(once{d}, root, remote.Policy{})
		put(t, beside, "a b", "stays")
		if err := d.Discard(ctx, store.Leftover{Name: root + "a b", Key: root + "a b"}); fault.Status(err) != fault.Usage {
			t.Errorf("%s: discard of an object: %v", server, err)
		}
		for range 2 { // an absent one is no error
			if err := d.Discard(ctx, found[0]); err != nil {
				t.Errorf("%s: discard: %v", server, err)
			}
		}
		if got, err := get(ctx, beside, "a b"); got != "stays" {
			t.Errorf("%s: the object is %q, %v", server, got, err)
		}
		if err := beside.Delete(ctx, "a b"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := up.Abort(ctx); err != nil {
				t.Errorf("%s: abort of what was discarded: %v", server, err)
			}
		}
		if found := list(root + "a b"); len(found) != 0 {
			t.Errorf("%s, aborted: %v", server, found)
		}
		if err := up.Commit(ctx, 1, driver.Sum{}); fault.Status(err) != fault.Failed || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: commit of an aborted upload: %v", server, err)
		}
	}
}

// What the servers keep: a checksum of the whole, of one request and of parts.
func TestServersKeepTheChecksumOfAll(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		for kind, size := range sizes {
			d, _ := real(t, server, withParts(nil))
			s, root := at(d)
			data := random(size)
			put(t, s, "k", data)
			sum := crc32.Checksum([]byte(data), castagnoli)
			head, err := raw(t, d).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &d.bucket, Key: aws.String(root + "k"), ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatal(err)
			}
			if head.ChecksumType != types.ChecksumTypeFullObject || aws.ToString(head.ChecksumCRC32C) != *encode(sum) {
				t.Errorf("%s, %s: %s of type %q, want %s", server, kind, aws.ToString(head.ChecksumCRC32C), head.ChecksumType, *encode(sum))
			}
			if o, err := d.Stat(t.Context(), root+"k"); err != nil || o.CRC32C == nil || *o.CRC32C != sum {
				t.Errorf("%s, %s: Stat %v, %v", server, kind, o, err)
			}
		}
	}
}

// Damage on the way is found by the server, for a request and for the whole.
func TestServersRefuseWhatIsDamaged(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		d, _ := real(t, server, nil)
		s, root := at(d)
		api, ctx := raw(t, d), t.Context()
		wrong := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, 1))
		_, err := api.PutObject(ctx, &s3.PutObjectInput{Bucket: &d.bucket, Key: aws.String(root + "k"), Body: bytes.NewReader([]byte("data")), ChecksumCRC32C: &wrong}, unsigned)
		if err := d.judge(ctx, err); fault.Status(err) != fault.Failed {
			t.Errorf("%s: put: %v", server, err)
		}
		up, err := d.Begin(ctx, root+"k", driver.Options{})
		if err == nil {
			err = up.Part(ctx, 1, 0, []byte("data"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Commit(ctx, 1, driver.Sum{Size: 4, CRC32C: 1}); fault.Status(err) != fault.Failed || !strings.Contains(strings.ToLower(err.Error()), "checksum") {
			t.Errorf("%s: commit with a checksum that is wrong: %v", server, err)
		}
		if err := up.Abort(ctx); err != nil {
			t.Error(err)
		}
		if _, err := s.Stat(ctx, "k"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: then %v", server, err)
		}
	}
}

func TestOneOfFourWritersInPartsWins(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"minio", "versitygw"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			d, _ := real(t, server, nil)
			s, root := at(d)
			const writers = 4
			var contents [writers]string
			var ups [writers]driver.Upload
			for i := range writers {
				contents[i] = random(smallPart) + "end"
				up, err := d.Begin(t.Context(), root+"k", driver.Options{IfAbsent: true})
				if err == nil {
					err = up.Part(t.Context(), 1, 0, []byte(contents[i][:smallPart]))
				}
				if err == nil {
					err = up.Part(t.Context(), 2, smallPart, []byte("end"))
				}
				if err != nil {
					t.Fatal(err)
				}
				ups[i] = up
			}
			var errs [writers]error
			var wg sync.WaitGroup
			start := make(chan bool)
			for i := range writers { // all are ready, and commit at once
				wg.Go(func() {
					<-start
					errs[i] = ups[i].Commit(t.Context(), 2, driver.Sum{Size: int64(len(contents[i])), CRC32C: crc32.Checksum([]byte(contents[i]), castagnoli)})
				})
			}
			close(start)
			wg.Wait()
			var won []int
			for i, err := range errs {
				switch {
				case err == nil:
					won = append(won, i)
				case !errors.Is(err, fs.ErrExist) && fault.Status(err) != fault.Failed:
					t.Errorf("%v", err)
				}
				if err := ups[i].Abort(t.Context()); err != nil {
					t.Error(err)
				}
			}
			got, err := get(t.Context(), s, "k")
			whose := slices.Index(contents[:], got)
			if err != nil || !slices.Contains(won, whose) {
				t.Errorf("%d bytes of writer %d, %v; winners %v: %v", len(got), whose, err, won, errs)
			}
			if len(won) != 1 && server == "minio" { // versitygw does not promise it
				t.Errorf("%d winners", len(won))
			}
		})
	}
}

// versitygw takes what it cannot do for a wish. Whoever relies on encryption
// there must know.
func TestVersitygwDoesNotEncrypt(t *testing.T) {
	t.Parallel()
	d, _ := real(t, "versitygw", m{"WALG_S3_SSE": "AES256"})
	s, root := at(d)
	put(t, s, "k", "data")
	head, err := raw(t, d).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &d.bucket, Key: aws.String(root + "k")})
	if err != nil || head.ServerSideEncryption != "" {
		t.Errorf("encryption %q, %v", head.ServerSideEncryption, err)
	}
}
