package file_test

import (
	"testing"

	"walg/lib/store"
	"walg/lib/store/file"
	"walg/lib/store/storetest"
)

var backend = storetest.Backend{
	New:  func(t *testing.T) string { return t.TempDir() },
	Open: func(address string) (store.Store, error) { return file.New(address) },
	Meta: true,
}

func TestMain(m *testing.M) { storetest.Main(m, backend) }

func TestFileStoreKeepsTheContract(t *testing.T) { storetest.Run(t, backend) }

func TestPrefixAndRateKeepTheContract(t *testing.T) {
	wrapped := backend
	wrapped.Open = func(address string) (store.Store, error) {
		s, err := file.New(address)
		if err != nil {
			return nil, err
		}
		p, err := store.Prefix(s, "/some/where/")
		return store.Rate(p, 1<<40), err
	}
	storetest.Run(t, wrapped)
}
