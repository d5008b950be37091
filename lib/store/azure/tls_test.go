package azure_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// makePair writes cert.pem and key.pem for 127.0.0.1, signed by itself.
func makePair(t *testing.T, dir string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "walg test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func loadPair(t *testing.T, dir string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

// azuriteOverTLS starts an Azurite that takes tokens too, which it does over
// TLS only, and returns its endpoint. The account is walgtest, its key the
// same word. Only the form of a token is checked, not who signed it.
func azuriteOverTLS(t *testing.T, dir string) string {
	cache, err := exec.Command("../../../scripts/test/tools.sh", "--cache").Output()
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	free.Close()
	var log strings.Builder
	// The shell ends with its stdin, so that the server does not outlive us.
	cmd := exec.Command("sh", "-c", `"$@" & cat >/dev/null; kill $!; wait`, "sh",
		"node", filepath.Join(strings.TrimSpace(string(cache)), "azurite/node_modules/.bin/azurite-blob"),
		"--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence", "--oauth", "basic",
		"--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"), "--blobHost", "127.0.0.1", "--blobPort", port)
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS=walgtest:"+base64.StdEncoding.EncodeToString([]byte("walgtest")))
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("azurite: %v\n%s", err, log.String())
		}
	})
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return "https://" + addr + "/walgtest"
		}
	}
	t.Fatal("azurite does not answer")
	return ""
}
