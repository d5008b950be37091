package s3

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

// place is what an address says: a child process opens the same.
type place struct {
	Settings map[string]string
	Root     string
}

const smallPart = 5 * mib // the smallest that S3 takes

func backend(server string) storetest.Backend {
	return storetest.Backend{
		New: func(t *testing.T) string {
			settings := maps.Clone(servertest.Get(t, server).Env)
			settings["S3_MAX_PART_SIZE"] = "5242880"
			address, err := json.Marshal(place{settings, rand.Text() + "/"})
			if err != nil {
				t.Fatal(err)
			}
			return string(address)
		},
		Open: func(address string) (store.Store, error) {
			var p place
			if err := json.Unmarshal([]byte(address), &p); err != nil {
				return nil, err
			}
			d, err := newDriver(p.Settings)
			if err != nil {
				return nil, err
			}
			return remote.New(d, p.Root, remote.Policy{}), nil
		},
		Meta:     true,
		PartSize: smallPart,
		Weak:     server == "versitygw", // promises nothing to two writers at once
	}
}

func newDriver(settings map[string]string) (*Driver, error) {
	return New(context.Background(), "walg", &driver.Settings{Get: func(name string) string { return settings[name] }})
}

func TestMain(m *testing.M) {
	storetest.Child(backend("")) // the address has all that it needs
	servertest.Main(m)
}

func TestMinIOKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, backend("minio"))
}

func TestVersitygwKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, backend("versitygw"))
}

// real returns a driver for a real server, with some settings changed, and a
// root of its own in the bucket.
func real(t *testing.T, server string, change map[string]string) (*Driver, store.Store) {
	t.Helper()
	settings := maps.Clone(servertest.Get(t, server).Env)
	maps.Copy(settings, change)
	d, err := newDriver(settings)
	if err != nil {
		t.Fatal(err)
	}
	return d, remote.New(d, strings.ToLower(rand.Text())+"/", remote.Policy{})
}
