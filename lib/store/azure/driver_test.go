package azure_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/driver"
	"walg/lib/store/storetest"
)

func content(key string, n int64) []byte {
	p, err := io.ReadAll(storetest.Content(key, n))
	if err != nil {
		panic(err) // memory does not fail
	}
	return p
}

func crc(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func get(t *testing.T, s store.Store, key string) []byte {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func leftovers(t *testing.T, s store.Store) []store.Leftover {
	t.Helper()
	var all []store.Leftover
	for l, err := range store.FindLeftovers(t.Context(), s, "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func TestMetadataAndSumComeBackAsTheyWere(t *testing.T) {
	p := azurite(t)
	d := p.driver(t)
	long := strings.Repeat("_-", 31) + "x"
	meta := map[string]string{
		"walg-put": "X", "a_2d": "", "a-b": `"`, "a_b": `""`, "a_-5f": "_2d", "a__b": `a"`, "n" + long: "v", "sha256": "a  b", "class": "=;,",
	}
	data := content("meta", 100_000)
	for _, parts := range []bool{false, true} {
		key := fmt.Sprint(p.Root, parts)
		if !parts {
			if err := d.Whole(t.Context(), key, data, driver.Options{Meta: meta}); err != nil {
				t.Fatal(err)
			}
		} else {
			up, err := d.Begin(t.Context(), key, driver.Options{Meta: meta})
			if err != nil {
				t.Fatal(err)
			}
			for n, part := range [][]byte{data[:70_000], data[70_000:]} {
				if err := up.Part(t.Context(), n+1, int64(n*70_000), part); err != nil {
					t.Fatal(err)
				}
			}
			if err := up.Commit(t.Context(), 2, driver.Sum{Size: 100_000, CRC32C: crc(data)}); err != nil {
				t.Fatal(err)
			}
		}
		body, read, err := d.Read(t.Context(), key, 99_990, 100, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if body.Close(); err != nil || !bytes.Equal(got, data[99_990:]) {
			t.Errorf("Read: %d bytes, %v", len(got), err)
		}
		stat, err := d.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for what, o := range map[string]driver.Object{"Read": read, "Stat": stat} {
			if !maps.Equal(o.Meta, meta) {
				t.Errorf("%s: metadata %q, want %q", what, o.Meta, meta)
			}
			if o.CRC32C == nil || *o.CRC32C != crc(data) || o.Size != 100_000 || o.Key != key || time.Since(o.ModTime).Abs() > time.Hour {
				t.Errorf("%s: %+v", what, o)
			}
		}
		if read.Version == "" || read.Version != stat.Version {
			t.Errorf("version %q and %q", read.Version, stat.Version)
		}
		if !parts && len(stat.MD5) != 16 {
			t.Errorf("MD5 %x", stat.MD5)
		}
	}
}

func TestReadIsOfOneVersion(t *testing.T) {
	p := azurite(t)
	d := p.driver(t)
	key := p.Root + "k"
	put := func(text string) {
		t.Helper()
		if err := d.Whole(t.Context(), key, []byte(text), driver.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	body, o, err := d.Read(t.Context(), key, 0, 2, "")
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if body, _, err = d.Read(t.Context(), key, 2, 3, o.Version); err != nil {
		t.Fatal(err)
	}
	body.Close()
	put("other")
	if _, _, err := d.Read(t.Context(), key, 2, 3, o.Version); !errors.Is(err, driver.ErrChanged) {
		t.Errorf("Read of a replaced object = %v, want ErrChanged", err)
	}
	if _, _, err := d.Read(t.Context(), key, 6, 1, ""); !errors.Is(err, driver.ErrRange) {
		t.Errorf("Read behind the end = %v, want ErrRange", err)
	}
	put("")
	if body, _, err := d.Read(t.Context(), key, 0, 1, ""); err == nil {
		body.Close()
	} else if !errors.Is(err, driver.ErrRange) {
		t.Errorf("Read of an empty object = %v", err)
	}
}

// TestObjectsOfOthersAreRead: WAL-G's have neither our metadata nor, when they
// were sent in blocks, any checksum.
func TestObjectsOfOthersAreRead(t *testing.T) {
	p := azurite(t)
	s, c := p.store(t), p.stock(t)
	want := content("other", 300_000)
	o := &blockblob.UploadStreamOptions{BlockSize: 100_000, Concurrency: 2}
	if _, err := c.NewBlockBlobClient(p.Root+"blocks").UploadStream(t.Context(), bytes.NewReader(want), o); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewBlockBlobClient(p.Root+"one").UploadBuffer(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"blocks", "one"} {
		if got := get(t, s, key); !bytes.Equal(got, want) {
			t.Errorf("%s: %d other bytes", key, len(got))
		}
		if info, err := s.Stat(t.Context(), key); err != nil || len(info.Meta) != 0 || info.Size != 300_000 {
			t.Errorf("Stat(%s) = %+v, %v", key, info, err)
		}
	}
}

// TestOthersReadOurs with the SDK and no knowledge of us.
func TestOthersReadOurs(t *testing.T) {
	p := azurite(t).with("WALG_AZURE_BUFFER_SIZE", "65536")
	want := content("ours", 300_000)
	if err := p.store(t).Put(t.Context(), "a b/ü%20", bytes.NewReader(want), store.PutOptions{Meta: map[string]string{"sha256": "x"}}); err != nil {
		t.Fatal(err)
	}
	r, err := p.stock(t).NewBlobClient(p.Root+"a b/ü%20").DownloadStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if r.Metadata["Sha256"] == nil || *r.Metadata["Sha256"] != "x" {
		t.Errorf("metadata %v", r.Metadata)
	}
}

// TestUploadsOfOneKeyNeverMix: Azure drops the blocks of all others when one
// commits.
func TestUploadsOfOneKeyNeverMix(t *testing.T) {
	t.Parallel()
	const writers, rounds, size = 4, 3, 600_000
	for _, ifAbsent := range []bool{false, true} {
		p := azurite(t).with("WALG_AZURE_BUFFER_SIZE", "65536")
		s := p.store(t)
		for round := range rounds {
			key := fmt.Sprint("k", round)
			results := make([]error, writers)
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					results[w] = s.Put(t.Context(), key, storetest.Content(fmt.Sprint(w), size+int64(w)), store.PutOptions{IfAbsent: ifAbsent})
				})
			}
			wg.Wait()
			got := get(t, s, key)
			winners, holds := 0, -1
			for w, err := range results {
				if bytes.Equal(got, content(fmt.Sprint(w), size+int64(w))) {
					holds = w
				}
				switch {
				case err == nil:
					winners++
				case ifAbsent && !errors.Is(err, fs.ErrExist), !ifAbsent && fault.Status(err) != fault.Failed:
					t.Errorf("writer %d: %v, status %d", w, err, fault.Status(err))
				case !ifAbsent && !strings.Contains(err.Error(), "another writer of this object was faster"):
					t.Errorf("writer %d: %v", w, err)
				}
			}
			if holds < 0 {
				t.Fatalf("%d bytes that no writer wrote", len(got))
			}
			if results[holds] != nil {
				t.Errorf("the object is that of writer %d, who failed: %v", holds, results[holds])
			}
			if winners < 1 || ifAbsent && winners > 1 {
				t.Errorf("%d writers succeeded", winners)
			}
		}
		if l := leftovers(t, s); len(l) > 0 {
			t.Errorf("leftovers %+v", l)
		}
	}
}

func TestCommitAgainSucceeds(t *testing.T) {
	p := azurite(t)
	d := p.driver(t)
	up, err := d.Begin(t.Context(), p.Root+"k", driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := up.Part(t.Context(), 1, 0, []byte("data")); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := up.Commit(t.Context(), 1, driver.Sum{Size: 4, CRC32C: crc([]byte("data"))}); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := d.Stat(t.Context(), p.Root+"k"); err != nil || o.Size != 4 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestBlocksOfAnAbortedUploadAreALeftover(t *testing.T) {
	p := azurite(t).with("WALG_AZURE_BUFFER_SIZE", "65536")
	d, s := p.driver(t), p.store(t)
	before := time.Now()
	abort := func() {
		t.Helper()
		up, err := d.Begin(t.Context(), p.Root+"d/k", driver.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if err := up.Part(t.Context(), n+1, int64(n*1000), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := up.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), "d/empty", strings.NewReader(""), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	abort()
	all := leftovers(t, s)
	if len(all) != 1 || all[0].Key != "d/k" || all[0].Name != "d/k" || all[0].Size != 3000 ||
		all[0].Started.Before(before) || all[0].Started.After(time.Now()) || all[0].ModTime.Before(all[0].Started) {
		t.Errorf("leftovers %+v", all)
	}
	if _, err := s.Stat(t.Context(), "d/k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
	err := s.Discard(t.Context(), all[0])
	if fault.Status(err) != fault.Usage || !strings.HasPrefix(err.Error(), "discard azure://") || !strings.Contains(err.Error(), "/d/k: ") || !strings.Contains(err.Error(), "expire by themselves a week after") {
		t.Errorf("Discard = %v, want status 64", err)
	}
	for _, absent := range []store.Leftover{{Name: "d/none", Key: "d/none", Started: all[0].Started}, {Name: "d/k", Key: "d/k", Started: before.Add(-time.Hour)}, {Name: "d/empty", Key: "d/empty"}} {
		if err := s.Discard(t.Context(), absent); err != nil {
			t.Errorf("Discard of the absent %+v = %v", absent, err)
		}
	}
	if again := leftovers(t, s); !slices.Equal(again, all) {
		t.Errorf("after that there are %+v", again)
	}
	// A Put of the key takes them away; Delete does not, and says nothing.
	if err := s.Delete(t.Context(), "d/k"); err != nil {
		t.Error(err)
	}
	if err := s.Put(t.Context(), "d/k", storetest.Content("k", 200_000), store.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	if all := leftovers(t, s); len(all) > 0 {
		t.Errorf("leftovers %+v", all)
	}
	abort()
	if got := get(t, s, "d/k"); !bytes.Equal(got, content("k", 200_000)) {
		t.Errorf("the object is now %d bytes", len(got))
	}
}

// TestKilledUploadsAreLeftovers runs the suite's child, and kills it when it has
// sent all and not committed.
func TestKilledUploadsAreLeftovers(t *testing.T) {
	t.Parallel()
	p := parse(backend.New(t))
	behind, commits := holdCommits(t, p)
	const killed = 2
	for range killed {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "STORETEST_ADDRESS="+behind.String())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-commits:
		case <-time.After(20 * time.Second):
			t.Error("the child does not commit")
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	s := p.store(t)
	all := leftovers(t, s)
	for _, l := range all {
		if l.Key != "killed/object" || l.Size != 16<<20 || time.Since(l.Started) > time.Minute {
			t.Errorf("leftover %+v", l)
		}
	}
	if len(all) != killed {
		t.Errorf("%d leftovers, want %d", len(all), killed)
	}
	for info, err := range s.List(t.Context(), "") {
		t.Errorf("List shows %+v, %v", info, err)
	}
}

// holdCommits returns a place behind a proxy that lets no Put Block List through
// and tells of each. Signatures do not cover the host.
func holdCommits(t *testing.T, p place) (place, <-chan struct{}) {
	to, err := url.Parse(p.Env["AZURE_ENDPOINT"])
	if err != nil {
		t.Fatal(err)
	}
	commits := make(chan struct{}, 10)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" && r.URL.Query().Get("comp") == "blocklist" {
			io.Copy(io.Discard, r.Body)
			commits <- struct{}{}
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return p.with("AZURE_ENDPOINT", server.URL+to.Path), commits
}

// TestBlocksOfOthersDoNotHinder: the SDK's uploads have IDs of the same length.
func TestBlocksOfOthersDoNotHinder(t *testing.T) {
	p := azurite(t).with("WALG_AZURE_BUFFER_SIZE", "65536")
	s, c := p.store(t), p.stock(t)
	stage := func(key string, id []byte) {
		t.Helper()
		name := base64.StdEncoding.EncodeToString(id)
		if _, err := c.NewBlockBlobClient(p.Root+key).StageBlock(t.Context(), name, streaming.NopCloser(strings.NewReader("block")), nil); err != nil {
			t.Fatal(err)
		}
	}
	stage("k", make([]byte, 64))
	if all := leftovers(t, s); len(all) != 1 || all[0].Size != 5 || !all[0].Started.IsZero() {
		t.Fatalf("leftovers %+v", all)
	}
	if err := s.Put(t.Context(), "k", storetest.Content("k", 200_000), store.PutOptions{}); err != nil {
		t.Error(err)
	}
	// Where they are not, it is said.
	stage("l", make([]byte, 48))
	err := s.Put(t.Context(), "l", storetest.Content("l", 200_000), store.PutOptions{})
	if fault.Status(err) != fault.Usage || !strings.Contains(fault.Hint(err), "unfinished uploads") {
		t.Errorf("Put = %v, hint %q", err, fault.Hint(err))
	}
}

// TestPagesAreInByteOrder with names that UTF-16 sorts otherwise than UTF-8.
func TestPagesAreInByteOrder(t *testing.T) {
	p := azurite(t)
	s := p.store(t)
	want := []string{"a b", "a!", "a+b", "a-b", "a.b", "a/b", "a0", "aé", "a\uff5e", "a\U0001f418", "b%2Fc", "b<&>c"}
	for _, key := range want {
		if err := s.Put(t.Context(), key, strings.NewReader("x"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	var got []string
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCancelledRequestsEndSoon(t *testing.T) {
	p := fake(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or the server does not see that the client has gone
		<-r.Context().Done()
	})
	for op, do := range operations(t, p.driver(t)) {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			cause := errors.New("told to stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
			if err := do(ctx); !errors.Is(err, cause) {
				t.Errorf("%v, want the context's cause", err)
			}
		})
	}
}
