//go:build linux

package servertest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// owner says to the test binary to be the process that starts a server and is
// killed.
const owner = "WALG_SERVERTEST_OWNER"

func TestMain(m *testing.M) {
	name := os.Getenv(owner)
	if name == "" {
		Main(m)
	}
	s, err := Start(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, pid := range append(s.PIDs, s.cmd.Process.Pid) {
		fmt.Println(pid)
	}
	fmt.Println("ready")
	select {}
}

// servers has for each a request and the beginning of the right answer.
var servers = map[string]func(env map[string]string) (got, want string, err error){
	"minio":     func(env map[string]string) (string, string, error) { return get(env, "AWS_ENDPOINT", "/walg/a", "403") },
	"minio-tls": func(env map[string]string) (string, string, error) { return get(env, "AWS_ENDPOINT", "/walg/a", "403") },
	"versitygw": func(env map[string]string) (string, string, error) { return get(env, "AWS_ENDPOINT", "/walg/a", "403") },
	"azurite": func(env map[string]string) (string, string, error) {
		return get(env, "AZURE_ENDPOINT", "/walg/a", "403")
	},
	"azurite-tls": func(env map[string]string) (string, string, error) {
		return get(env, "AZURE_ENDPOINT", "/walg/a", "403")
	},
	"swift":    func(env map[string]string) (string, string, error) { return get(env, "OS_AUTH_URL", "", "200") },
	"swift-v3": func(env map[string]string) (string, string, error) { return get(env, "OS_AUTH_URL", "", "200") },
	"toxiproxy": func(env map[string]string) (string, string, error) {
		return get(env, "TOXIPROXY_URL", "/version", "200")
	},
	"fake-gcs-server": bucket,
	"sshd":            banner,
}

// get asks for the address in that setting and returns the response's status.
func get(env map[string]string, setting, path, want string) (string, string, error) {
	transport := &http.Transport{}
	for _, name := range []string{"WALG_S3_CA_CERT_FILE", "SSL_CERT_FILE"} {
		if env[name] == "" {
			continue
		}
		pem, err := os.ReadFile(env[name])
		if err != nil {
			return "", want, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	request, err := http.NewRequest(http.MethodGet, env[setting]+path, nil)
	if err != nil {
		return "", want, err
	}
	request.Header.Set("X-Auth-User", env["OS_USERNAME"])
	request.Header.Set("X-Auth-Key", env["OS_PASSWORD"])
	response, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		return "", want, err
	}
	transport.CloseIdleConnections()
	return response.Status, want, response.Body.Close()
}

func bucket(env map[string]string) (got, want string, err error) {
	env = map[string]string{"url": "http://" + env["STORAGE_EMULATOR_HOST"]}
	return get(env, "url", "/storage/v1/b/walg", "200")
}

func banner(env map[string]string) (got, want string, err error) {
	want = "SSH-2.0-"
	connection, err := net.Dial("tcp", net.JoinHostPort(env["SSH_HOST"], env["SSH_PORT"]))
	if err != nil {
		return "", want, err
	}
	defer connection.Close()
	got, err = bufio.NewReader(connection).ReadString('\n')
	return got, want, err
}

func TestEachServerAnswersUntilItIsClosed(t *testing.T) {
	for name, ask := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s, err := Start(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("ready after %v: %v", time.Since(began).Round(time.Millisecond), s.Env)
			got, want, err := ask(s.Env)
			if err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("got %q, %v, want %s", got, err, want)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if got, _, err := ask(s.Env); err == nil {
				t.Errorf("after Close it answers %q", got)
			}
			if len(s.PIDs) == 0 {
				t.Error("no process is known")
			}
			for _, pid := range s.PIDs {
				if runs(pid) {
					t.Errorf("after Close process %d runs", pid)
				}
			}
		})
	}
}

func TestServersEndWithAKilledOwner(t *testing.T) {
	for _, name := range []string{"minio", "sshd", "swift"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), owner+"="+name)
			cmd.Stderr = os.Stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "ready"; {
				var pid int
				if _, err := fmt.Sscan(lines.Text(), &pid); err != nil || !runs(pid) {
					t.Errorf("%q is no process that runs", lines.Text())
				}
				pids = append(pids, pid)
			}
			if len(pids) < 2 {
				t.Errorf("processes: %v", pids)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // says that it was killed
			deadline := time.Now().Add(stopLimit)
			for _, pid := range pids {
				for ; runs(pid); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("process %d runs %v after its owner's end", pid, stopLimit)
					}
				}
			}
		})
	}
}

// runs says whether a process runs; a zombie does not.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func TestStartRefusesWhatIsNoServer(t *testing.T) {
	if s, err := Start("nonsense"); err == nil || !strings.Contains(err.Error(), "usage: server.sh") {
		t.Errorf("Start = %v, %v", s, err)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	t.Setenv("WALG_TEST_CACHE", t.TempDir())
	if s, err := Start("versitygw"); err == nil || !strings.Contains(err.Error(), "run scripts/test/tools.sh") {
		t.Errorf("Start = %v, %v", s, err)
	}
}

func TestCloseTellsOfAServerThatDied(t *testing.T) {
	s, err := Start("toxiproxy")
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(s.PIDs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Without the end of stdin: server.sh finds out by itself.
	if _, err := io.Copy(io.Discard, s.stdout); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "toxiproxy died") {
		t.Errorf("Close = %v", err)
	}
}

func TestGetSharesOneServer(t *testing.T) {
	if a, b := Get(t, "toxiproxy"), Get(t, "toxiproxy"); a != b {
		t.Error("the second Get started another server")
	}
}

// echo is a server that sends back what it gets.
func echo(t *testing.T) (addr string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				io.Copy(connection, connection)
			}()
		}
	}()
	return listener.Addr().String()
}

// exchanged sends size bytes and returns how many came back. It does not end its
// side first: Toxiproxy would take that for the end of both.
func exchanged(addr string, size int64) (int64, error) {
	connection, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(30 * time.Second))
	go connection.Write(make([]byte, size)) // ends when the connection does
	return io.CopyN(io.Discard, connection, size)
}

func TestProxyBreaksConnections(t *testing.T) {
	const size = 1 << 20
	p := NewProxy(t, echo(t))
	whole := func(when string) {
		t.Helper()
		if n, err := exchanged(p.Addr(), size); n != size || err != nil {
			t.Errorf("%s: %d bytes, %v", when, n, err)
		}
	}
	whole("at first")

	p.AddToxic("limit_data", "downstream", map[string]any{"bytes": 1000})
	if n, _ := exchanged(p.Addr(), size); n != 1000 {
		t.Errorf("with a limit of 1000 bytes: %d bytes", n)
	}
	p.AddToxic("latency", "upstream", map[string]any{"latency": 1})
	p.RemoveToxics()
	whole("after RemoveToxics")

	p.AddToxic("reset_peer", "downstream", map[string]any{"timeout": 0})
	if n, err := exchanged(p.Addr(), size); err == nil {
		t.Errorf("with a reset: %d bytes and no error", n)
	}
	p.RemoveToxics()

	p.Disable()
	if n, err := exchanged(p.Addr(), size); err == nil {
		t.Errorf("disabled: %d bytes and no error", n)
	}
	p.Enable()
	whole("enabled again")
}

// complaints is a test that must fail and go on.
type complaints struct {
	testing.TB
	texts []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.texts = append(c.texts, fmt.Sprintf(format, args...))
}

func TestProxyFailsTheTestForAnUnknownToxic(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := &complaints{TB: t}
	p.t = c
	p.AddToxic("nonsense", "downstream", nil)
	p.t = t
	if len(c.texts) != 1 || !strings.Contains(c.texts[0], "400") {
		t.Errorf("complaints: %q", c.texts)
	}
}
