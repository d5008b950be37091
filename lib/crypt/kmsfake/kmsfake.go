// Package kmsfake holds fakes of the services that keep keys, for tests. They
// speak the protocols as these are documented, and check signatures, tokens and
// keys; aws-cli works with the one of AWS. But nobody has compared them with
// the real services.
package kmsfake

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Server is what the fakes have in common.
type Server struct {
	URL string

	mu      sync.Mutex
	asked   map[string]int
	instead map[string]*instead
}

type instead struct {
	times  int
	answer http.HandlerFunc
}

// Instead lets the next questions of an operation, so many times, be answered
// by h; -1 is for ever.
func (s *Server) Instead(op string, times int, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead[op] = &instead{times, h}
}

// Asked is how often an operation was asked for.
func (s *Server) Asked(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[op]
}

// start serves. op names the operation of a request, and answer answers it.
func (s *Server) start(t testing.TB, op func(*http.Request) string, answer func(http.ResponseWriter, *http.Request, []byte)) {
	s.asked, s.instead = map[string]int{}, map[string]*instead{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if h := s.count(op(r)); h != nil {
			h(w, r)
			return
		}
		answer(w, r, body)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.URL = server.URL
}

func (s *Server) count(op string) http.HandlerFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[op]++
	if i := s.instead[op]; i != nil && i.times != 0 {
		i.times--
		return i.answer
	}
	return nil
}

// Sends answers with a status and a body.
func Sends(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// Answers that none of the services means.
var (
	Garbage = Sends(http.StatusOK, "<html>Sign in to the network</html>")
	Huge    = Sends(http.StatusOK, strings.Repeat(" ", 1<<20))
	// Silence lasts until the client goes away.
	Silence http.HandlerFunc = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	// Cut closes the connection in place of an answer.
	Cut http.HandlerFunc = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
)

// vault is the cipher of a key, which is made of its name alone, so that what
// one fake has encrypted another decrypts.
func vault(key string) cipher.AEAD {
	material := sha256.Sum256([]byte("a fake key: " + key))
	block, err := aes.NewCipher(material[:])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
