package gcs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

// place is where a test keeps its objects: its JSON is the suite's address.
type place struct {
	Env          map[string]string
	Bucket, Root string
}

// server returns a new, empty place on the server, in a bucket of its own: the
// server looks at all objects of a bucket for each request. It has all in
// memory, so that the place goes with it.
func server(t testing.TB, settings ...string) place {
	t.Helper()
	p := place{maps.Clone(servertest.Get(t, "fake-gcs-server").Env), "walg-" + strings.ToLower(rand.Text()), "a root/"}
	for i := 0; i < len(settings); i += 2 {
		p.Env[settings[i]] = settings[i+1]
	}
	resp, err := http.Post("http://"+p.Env["STORAGE_EMULATOR_HOST"]+"/storage/v1/b?project=test", "application/json",
		strings.NewReader(`{"name":"`+p.Bucket+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("a bucket: %s", resp.Status)
	}
	return p
}

func (p place) String() string {
	address, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings do not fail
	}
	return string(address)
}

func settings(env map[string]string) *driver.Settings {
	return &driver.Settings{Get: func(name string) string { return env[name] }, Stall: 20 * time.Second}
}

func (p place) driver(t testing.TB) *Driver {
	t.Helper()
	d, err := New(t.Context(), p.Bucket, settings(p.Env))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (p place) store(t testing.TB) *remote.Store {
	t.Helper()
	return remote.New(p.driver(t), p.Root, remote.Policy{MinDelay: time.Millisecond})
}

const suiteChunk = 8 << 20

var backend = storetest.Backend{
	New: func(t *testing.T) string { return server(t, "GCS_MAX_CHUNK_SIZE", "8388608").String() },
	Open: func(address string) (store.Store, error) {
		var p place
		if err := json.Unmarshal([]byte(address), &p); err != nil {
			return nil, err
		}
		d, err := New(context.Background(), p.Bucket, settings(p.Env))
		if err != nil {
			return nil, err
		}
		return remote.New(d, p.Root, remote.Policy{}), nil
	},
	Meta:     true,
	PartSize: suiteChunk,
}

func TestMain(m *testing.M) {
	storetest.Child(backend)
	servertest.Main(m)
}

func TestGCSKeepsTheContract(t *testing.T) { storetest.Run(t, backend) }
