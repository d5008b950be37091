package wire

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
)

const stall = 100 * time.Millisecond

// client is one for a server that the test has stopped to serve properly.
func client(t *testing.T, o Options) *http.Client {
	t.Helper()
	if o.Stall == 0 {
		o.Stall = stall
	}
	c, err := Client(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// serve answers with f until the test ends; done is closed then.
func serve(t *testing.T, f func(w http.ResponseWriter, r *http.Request, done <-chan struct{})) string {
	t.Helper()
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, done) }))
	t.Cleanup(func() { close(done); server.Close() })
	return server.URL
}

func wantStalled(t *testing.T, begun time.Time, err error) {
	t.Helper()
	if !errors.Is(err, ErrStalled) || time.Since(begun) > 50*stall {
		t.Errorf("%v after %v, want ErrStalled", err, time.Since(begun))
	}
}

func TestAnAnswerThatNeverComesIsAStall(t *testing.T) {
	url := serve(t, func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done })
	begun := time.Now()
	_, err := client(t, Options{}).Get(url)
	wantStalled(t, begun, err)
}

func TestABodyThatStopsIsAStall(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		<-done
	})
	resp, err := client(t, Options{}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begun := time.Now()
	n, err := io.Copy(io.Discard, resp.Body)
	wantStalled(t, begun, err)
	if n != 100_000 {
		t.Errorf("%d bytes came", n)
	}
}

func TestATrickleIsAStall(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request, done <-chan struct{}) {
		for {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			select {
			case <-done:
				return
			case <-time.After(stall / 10):
			}
		}
	})
	resp, err := client(t, Options{}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begun := time.Now()
	_, err = io.Copy(io.Discard, resp.Body)
	wantStalled(t, begun, err)
}

// TestASlowReaderIsNoStall: the server has sent all it can; we are slow.
func TestASlowReaderIsNoStall(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) { w.Write(make([]byte, 20_000)) })
	resp, err := client(t, Options{}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 2000)
	for range 3 {
		time.Sleep(2 * stall)
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 14_000 {
		t.Errorf("%d bytes more, %v", n, err)
	}
}

// TestAServerThatDoesNotReadIsAStall: what is sent fills the buffers between.
func TestAServerThatDoesNotReadIsAStall(t *testing.T) {
	url := serve(t, func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done })
	begun := time.Now()
	_, err := client(t, Options{}).Post(url, "", bytes.NewReader(make([]byte, 64<<20)))
	wantStalled(t, begun, err)
}

// TestASlowButSteadyUploadIsNoStall: it takes many times the limit.
func TestASlowButSteadyUploadIsNoStall(t *testing.T) {
	const limit = 5 * stall // what lies in the kernel's buffers at the end must be read in this
	url := serve(t, func(_ http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		buf := make([]byte, 1<<20)
		for {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				return
			}
			time.Sleep(limit / 25)
		}
	})
	begun := time.Now()
	resp, err := client(t, Options{Stall: limit}).Post(url, "", bytes.NewReader(make([]byte, 64<<20)))
	if err != nil {
		t.Fatalf("%v after %v", err, time.Since(begun))
	}
	resp.Body.Close()
	if time.Since(begun) < 2*limit {
		t.Errorf("done after %v: nothing is shown", time.Since(begun))
	}
}

func TestTheCallersCancelIsNotAStall(t *testing.T) {
	url := serve(t, func(_ http.ResponseWriter, _ *http.Request, done <-chan struct{}) { <-done })
	ctx, cancel := context.WithTimeout(t.Context(), stall/4)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, Options{}).Do(req); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStalled) {
		t.Errorf("%v, want the caller's deadline", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	resp, err := client(t, Options{Stall: time.Minute}).Get(url)
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestAnAuthorityOfTheUsers(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of our refusal
	server.StartTLS()
	defer server.Close()
	var unknown x509.UnknownAuthorityError
	if _, err := client(t, Options{Stall: time.Minute}).Get(server.URL); !errors.As(err, &unknown) {
		t.Errorf("without a CA: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	resp, err := client(t, Options{CA: ca, Stall: time.Minute}).Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	for _, bad := range []string{"", "no certificate"} {
		if err := os.WriteFile(ca, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Client(Options{CA: ca}); fault.Status(err) != fault.Usage || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("CA of %q: %v", bad, err)
		}
	}
	if _, err := Client(Options{CA: ca + "x"}); fault.Status(err) != fault.Usage {
		t.Errorf("absent CA: %v", err)
	}
}

// TestConnectionsAreKept: parallel requests do not pay for a handshake each.
func TestConnectionsAreKept(t *testing.T) {
	opened := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("x")) }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened++
		}
	}
	server.Start()
	defer server.Close()
	c := client(t, Options{Parallel: 4, Stall: time.Minute})
	for range 20 {
		resp, err := c.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	c.CloseIdleConnections()
	if opened != 1 {
		t.Errorf("%d connections were made", opened)
	}
}
