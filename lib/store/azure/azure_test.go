package azure_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"walg/lib/store"
	"walg/lib/store/azure"
	"walg/lib/store/driver"
	"walg/lib/store/remote"
	"walg/lib/store/servertest"
	"walg/lib/store/storetest"
)

// place is where a test keeps its objects: its JSON is the suite's address.
type place struct {
	Env             map[string]string
	Container, Root string
}

// azurite returns a new, empty place: a container that goes when the test ends,
// because Azurite searches its objects one by one.
func azurite(t *testing.T) place {
	p := place{servertest.Get(t, "azurite").Env, "t" + strings.ToLower(rand.Text()), "root of " + t.Name() + "/"}
	c := p.stock(t)
	if _, err := c.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.Delete(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	return p
}

// stock is the SDK's own client, as other programs use it.
func (p place) stock(t *testing.T) *container.Client {
	t.Helper()
	key, err := container.NewSharedKeyCredential(p.Env["AZURE_STORAGE_ACCOUNT"], p.Env["AZURE_STORAGE_ACCESS_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(p.Env["AZURE_ENDPOINT"]+"/"+p.Container, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// with returns the place with other settings; "" takes one away.
func (p place) with(settings ...string) place {
	env := map[string]string{}
	for name, value := range p.Env {
		env[name] = value
	}
	for i := 0; i < len(settings); i += 2 {
		env[settings[i]] = settings[i+1]
	}
	p.Env = env
	return p
}

func parse(address string) (p place) {
	if err := json.Unmarshal([]byte(address), &p); err != nil {
		panic(err)
	}
	return p
}

func (p place) String() string {
	address, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(address)
}

func settings(env map[string]string) *driver.Settings {
	return &driver.Settings{Get: func(name string) string { return env[name] }, Stall: 20 * time.Second}
}

func (p place) driver(t *testing.T) *azure.Driver {
	t.Helper()
	d, err := azure.New(t.Context(), p.Container, settings(p.Env))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (p place) store(t *testing.T) *remote.Store {
	t.Helper()
	return remote.New(p.driver(t), p.Root, remote.Policy{})
}

var backend = storetest.Backend{
	New: func(t *testing.T) string { return azurite(t).with("WALG_AZURE_BUFFER_SIZE", "1048576").String() },
	Open: func(address string) (store.Store, error) {
		p := parse(address)
		d, err := azure.New(context.Background(), p.Container, settings(p.Env))
		if err != nil {
			return nil, err
		}
		return remote.New(d, p.Root, remote.Policy{}), nil
	},
	Meta:     true,
	PartSize: 1 << 20,
	Lingers:  true, // blocks that were sent stay for a week
}

func TestMain(m *testing.M) {
	storetest.Child(backend)
	servertest.Main(m)
}

func TestAzureKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, backend)
}
