package sftp

import (
	"net"
	"sync"
	"testing"
)

// proxy stands between driver and server, and looks at each piece of data that
// passes. It can cut all connections, in the middle of one too, and freeze.
type proxy struct {
	upstream string
	listener net.Listener

	mu     sync.Mutex
	conns  map[net.Conn]bool
	up     func(n int) bool // asked with the bytes of each piece; true cuts before it passes
	down   func(n int) bool
	frozen chan struct{} // closed: nothing passes until thaw
	cuts   int
}

// newProxy returns the place with the proxy before its server.
func (p place) newProxy(t *testing.T) (*proxy, place) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	x := &proxy{upstream: net.JoinHostPort(p.Env["SSH_HOST"], p.Env["SSH_PORT"]), listener: listener, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() { x.serve(&running) })
	t.Cleanup(func() {
		listener.Close()
		x.thaw()
		x.cut()
		running.Wait()
	})
	// Known hosts have the server's own port.
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return x, p.with("SSH_PORT", port, "SSH_KNOWN_HOSTS", "", "SSH_STRICT_HOST_KEY", "false")
}

func (x *proxy) serve(running *sync.WaitGroup) {
	for {
		client, err := x.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", x.upstream)
		if err != nil {
			client.Close()
			continue
		}
		x.mu.Lock()
		x.conns[client], x.conns[server] = true, true
		x.mu.Unlock()
		running.Go(func() { x.pass(server, client, func() func(int) bool { return x.up }) })
		running.Go(func() { x.pass(client, server, func() func(int) bool { return x.down }) })
	}
}

func (x *proxy) pass(to, from net.Conn, look func() func(int) bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		x.mu.Lock()
		frozen, cut := x.frozen, false
		if f := look(); f != nil && n > 0 {
			cut = f(n)
		}
		x.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		if cut {
			x.cut()
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut ends all connections.
func (x *proxy) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts++
	for c := range x.conns {
		c.Close()
		delete(x.conns, c)
	}
}

// after sets what cuts the connection.
func (x *proxy) after(up, down func(n int) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.up, x.down = up, down
}

func (x *proxy) wasCut() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cuts
}

// freeze lets nothing pass until thaw.
func (x *proxy) freeze() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.frozen = make(chan struct{})
}

func (x *proxy) thaw() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.frozen != nil {
		close(x.frozen)
		x.frozen = nil
	}
}

// bytes is true each time when so many have passed since the last.
func bytes(limits ...int) func(int) bool {
	return func(n int) bool {
		if len(limits) == 0 {
			return false
		}
		if limits[0] -= n; limits[0] >= 0 {
			return false
		}
		limits = limits[1:]
		return true
	}
}

// pieces is true once, when so many pieces have passed.
func pieces(limit int) func(int) bool {
	return func(int) bool { limit--; return limit == -1 }
}

// once is true when f is for the first time.
func once(f func() bool) func(int) bool {
	done := false
	return func(int) bool {
		if done || !f() {
			return false
		}
		done = true
		return true
	}
}
