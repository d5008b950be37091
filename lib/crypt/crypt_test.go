package crypt

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestDetectNamesWhatTheFirstBytesShow(t *testing.T) {
	for _, c := range []struct {
		head, want string
	}{
		{"", ""},
		{"\x85", ""},
		{"-----BEGIN PGP MESSAGE-----\n", "OpenPGP (armored)"},
		{"-----BEGIN PGP", "OpenPGP (armored)"},
		{"-----BEGIN CERTIFICATE", ""},
		{"yckms\x01\x00", "Yandex KMS"},
		{"envelope-yc-kms", "OpenPGP with a Yandex KMS envelope"},
		{"yckm", ""},

		// Old format, one, two and four octets of length, to a public key.
		{"\x84\x5e\x03rest", "OpenPGP"},
		{"\x85\x01\x0c\x03rest", "OpenPGP"},
		{"\x86\x00\x00\x01\x0c\x03rest", "OpenPGP"},
		{"\x85\x01\x0c\x06rest", "OpenPGP"},
		{"\x85\x01\x0c\x04rest", ""},
		{"\x85\x01\x0c", ""},
		{"\x86\x00\x00\x01", ""},
		{"\x87\x00\x00\x01\x0c\x03rest", ""}, // no message begins with an endless key
		{"\x85\x01\x0c\x0312345678\x01", "OpenPGP"},
		{"\x85\x01\x0c\x0312345678\x12", "OpenPGP"},
		{"\x85\x01\x0c\x0312345678\x63", ""}, // no algorithm has that number
		// New format.
		{"\xc1\x5e\x03rest", "OpenPGP"},
		{"\xc1\xc0\x4c\x03rest", "OpenPGP"},
		{"\xc1\xc0\x4c", ""},
		{"\xc1\x5e\x02rest", ""},
		// To a passphrase.
		{"\x8c\x0d\x04\x09rest", "OpenPGP"},
		{"\xc3\x0d\x04\x07rest", "OpenPGP"},
		{"\xc3\x0d\x04rest", ""}, // no cipher has that number
		{"\xc3\x1e\x06rest", "OpenPGP"},
		{"\xc3\x0d\x03rest", ""},
		// Packets that begin no encrypted message.
		{"\x99\x01\x0d\x04", ""}, // a public key
		{"\xcb\x0d\x03b", ""},    // literal data

		{"\x04\x22\x4d\x18\x64\x40\xa7", ""}, // lz4
		{"\x28\xb5\x2f\xfd\x04\x00", ""},     // zstd
		{"\xfd7zXZ\x00", ""},
		{"PK\x03\x04", ""},
		{"plain text", ""},
		{"\x00\x00\x00\x00", ""},
	} {
		if got := Detect([]byte(c.head)).Name; got != c.want {
			t.Errorf("%q: %q, want %q", c.head, got, c.want)
		}
	}
}

// What the stock program writes is recognised, in its variants.
func TestDetectKnowsWhatGPGWrites(t *testing.T) {
	home, err := os.MkdirTemp("", "gpg") // a short path, for the agent's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run()
		os.RemoveAll(home)
	})
	gpg := func(args ...string) []byte {
		t.Helper()
		// The agent takes 1.5 s for a passphrase, unless it is told how often to hash.
		args = append([]string{"--homedir", home, "--batch", "--quiet", "--trust-model", "always",
			"--pinentry-mode", "loopback", "--passphrase", "pw", "--s2k-count", "1024"}, args...)
		cmd := exec.Command("gpg", args...)
		cmd.Stdin = bytes.NewReader(make([]byte, 100_000))
		var out, msg bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &msg
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, &msg)
		}
		return out.Bytes()
	}
	gpg("--passphrase", "", "--quick-gen-key", "rsa", "rsa2048", "encrypt,sign")
	gpg("--passphrase", "", "--quick-gen-key", "curve", "future-default")
	for _, args := range [][]string{
		{"-e", "-r", "rsa"},
		{"-e", "-r", "curve"},
		{"-e", "-R", "rsa"},
		{"-e", "-r", "rsa", "-r", "curve", "-z", "0"},
		{"-c"},
		{"-e", "-c", "-r", "rsa"},
	} {
		if got := Detect(gpg(args...)).Name; got != "OpenPGP" {
			t.Errorf("gpg %v: %q", args, got)
		}
	}
	if got := Detect(gpg("-e", "-r", "rsa", "--armor")).Name; got != "OpenPGP (armored)" {
		t.Errorf("gpg --armor: %q", got)
	}
}

func TestDetectKnowsWALGsObjects(t *testing.T) {
	for _, c := range []struct {
		set, want string
	}{
		{"pgp", "OpenPGP"}, {"pgp_pass", "OpenPGP"}, {"lz4_full", ""}, {"zstd", ""}, {"brotli", ""},
	} {
		parts, err := filepath.Glob("../../testdata/golden/" + c.set + "/store/basebackups_005/*/tar_partitions/*")
		if err != nil || len(parts) == 0 {
			t.Fatalf("golden set %s: %d parts, %v", c.set, len(parts), err)
		}
		for _, name := range parts {
			head, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := Detect(head).Name; got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte("\x85\x01\x0c\x03rest"))
	f.Add([]byte("\xc1\xc0\x4c\x03rest"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if what := Detect(head); what.Name != "" && Detect(head[:min(len(head), 16)]) != what {
			t.Errorf("more than 16 bytes were needed for %q", what.Name)
		}
	})
}
