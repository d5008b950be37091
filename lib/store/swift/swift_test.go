package swift

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

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

// smallPart makes large objects of what the suite puts.
const smallPart = mib

var backend = storetest.Backend{
	New: func(t *testing.T) string {
		address, err := json.Marshal(place{servertest.Get(t, "swift").Env, rand.Text() + "/"})
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
		d.partSize = smallPart
		return remote.New(d, p.Root, remote.Policy{}), nil
	},
	Meta:     true,
	PartSize: smallPart,
	Weak:     true, // see the package comment and TestWritersThatRace
}

func newDriver(settings map[string]string) (*Driver, error) {
	s := &driver.Settings{Get: func(name string) string { return settings[name] }}
	return New(context.Background(), "walg", s)
}

func TestMain(m *testing.M) {
	storetest.Child(backend)
	servertest.Main(m)
}

func TestSwiftKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, backend)
}

// real returns a driver for the real server, and a root of its own in it.
func real(t *testing.T, server string, change map[string]string) (*Driver, string) {
	t.Helper()
	settings := maps.Clone(servertest.Get(t, server).Env)
	maps.Copy(settings, change)
	d, err := newDriver(settings)
	if err != nil {
		t.Fatal(err)
	}
	return d, fmt.Sprintf("%s-%d/", rand.Text(), time.Now().Unix())
}
