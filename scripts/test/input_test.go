//go:build linux

package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// grammar is that of all messages: program, operation, object, cause, and
// where it helps a hint.
var grammar = regexp.MustCompile(`^(walg-[a-z]+|wal-g): (hint: |warning: )?(WALG_|[^A-Z\s]).*[^.\s]$`)

// spoken checks the form of each line that programs wrote to standard error.
func spoken(t *testing.T, said string) {
	t.Helper()
	for line := range strings.Lines(said) {
		if !grammar.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("a message of another form: %q", line)
		}
	}
}

// mistake is a script with its status and parts of what is said, in order.
type mistake struct {
	script string
	status int
	says   []string
}

// mistakes runs scripts that must fail and change nothing. $D is a tree, $X an
// absent file in the empty folder $W, which must stay empty.
func mistakes(t *testing.T, cases []mistake) {
	t.Helper()
	env, _, _ := freight(t)
	c := newCargo(t, random(t), 2000)
	work := strings.TrimPrefix(env[2], "W=")
	for _, m := range cases {
		t.Run(m.script, func(t *testing.T) {
			dir := stocked(t)
			before := snapshot(t, dir)
			_, said, status := sh(t, m.script, append(env, "WALG_FILE_PREFIX="+dir, "P="+dir, "D="+c.dir, "X="+filepath.Join(work, "x"))...)
			if status != m.status {
				t.Errorf("status %d, want %d\n%s", status, m.status, said)
			}
			rest := said
			for _, part := range m.says {
				_, after, ok := strings.Cut(rest, part)
				if !ok {
					t.Errorf("no %q in\n%s", part, said)
					break
				}
				rest = after
			}
			spoken(t, said)
			if after := snapshot(t, dir); after != before {
				t.Errorf("the store has changed:\n%swas\n%s", after, before)
			}
			if names := listing(t, work); names != "" {
				t.Errorf("there are %q", names)
				sh(t, `rm -rf "$W"/*`, env...)
			}
		})
	}
}

func says(parts ...string) []string { return parts }

func TestAWrongCommandLineIsStatus64(t *testing.T) {
	cases := []mistake{
		{`walg-tar`, 64, says("walg-tar: no command", "hint: the commands are create, extract, list")},
		{`walg-tar unpack`, 64, says(`unknown command "unpack"`, "hint: ")},
		{`walg-tar create`, 64, says("no DIR")},
		{`walg-tar create "$D" "$D"`, 64, says("more operands than one DIR")},
		{`walg-tar create "$D" -- true`, 64, says("COMMAND")},
		{`walg-tar create "$D" --part-size many`, 64, says("--part-size", "not a number of bytes", "hint: see walg-tar create --help")},
		{`walg-tar create "$D" --jobs 0 --part-command cat`, 64, says("less than 1")},
		{`walg-tar create "$D" --state "$X"`, 64, says("--state needs")},
		{`walg-tar extract`, 64, says("no DIR")},
		{`walg-tar extract "$X" --begin n --join </dev/null`, 64, says("exclude each other")},
		{`walg-compress "$F" "$F"`, 64, says("more than one FILE")},
		{`walg-compress "$F" -- cat "$F"`, 64, says("both a FILE and a COMMAND")},
		{`walg-compress "$D"`, 64, says("is a directory")},
		{`walg-compress "$W/absent"`, 66, says("walg-compress: ", "/absent: no such file")},
		{`walg-compress -m gzip "$F"`, 64, says(`unknown compression method "gzip"`, "lz4, lzma, brotli, zstd, none")},
		{`walg-compress -d -m lzo "$Z"`, 64, says(`unknown compression method "lzo"`, "gzip, xz")},
		{`walg-compress -m zstd -l 99 "$F"`, 64, says("zstd has no level 99: it is 1 to 22")},
		{`walg-compress -l best "$F"`, 64, says("not a whole number")},
		{`walg-compress -T 0 "$F"`, 64, says("less than 1")},
		{`walg-crypt -m rot13 "$F"`, 64, says(`unknown encryption method "rot13"`, "libsodium")},
		{`walg-put <"$F"`, 64, says("want one KEY, not 0")},
		{`walg-put a b <"$F"`, 64, says("want one KEY, not 2")},
		{`walg-put k --meta noequals <"$F"`, 64, says("noequals", "NAME=VALUE")},
		{`walg-get`, 64, says("KEY")},
		{`walg-get a b`, 64, says("KEY")},
		{`walg-get k -- cat`, 64, says("COMMAND")},
		{`walg-get other/object --range 5-2`, 64, says("--range")},
		{`walg-get -l --name`, 64, says("exclude each other")},
		{`walg-retain`, 64, says("no command", "hint: ")},
		{`walg-retain erase`, 64, says("unknown command")},
		{`walg-retain show`, 64, says("NAME")},
	}
	for _, program := range []string{
		"walg-tar create", "walg-tar extract", "walg-tar list", "walg-tar verify",
		"walg-compress", "walg-crypt", "walg-put", "walg-get", "walg-retain list", "walg-retain leftovers",
	} {
		name, _, _ := strings.Cut(program, " ")
		cases = append(cases,
			mistake{program + ` --no-such-flag </dev/null`, 64, says(name+": unknown flag: --no-such-flag", "hint: see "+program+" --help")},
			mistake{program + ` -Q </dev/null`, 64, says("unknown shorthand flag", "hint: see ")},
		)
	}
	mistakes(t, cases)
}

func TestAKeyOrAPrefixThatCannotBeIsStatus64(t *testing.T) {
	cases := []mistake{
		{`unset WALG_FILE_PREFIX; walg-put k <"$F"`, 64, says("no storage is configured", "hint: set WALG_S3_PREFIX, WALG_FILE_PREFIX")},
		{`unset WALG_FILE_PREFIX; walg-get k`, 64, says("no storage is configured")},
		{`unset WALG_FILE_PREFIX; walg-retain list`, 64, says("no storage is configured")},
		{`WALG_FILE_PREFIX=$W/unmounted walg-put k <"$F"`, 64, says("/unmounted: no such directory", "hint: is the disk mounted?")},
		{`WALG_FILE_PREFIX=$W/unmounted walg-put deep/er/k <"$F"`, 64, says("no such directory")},
		{`WALG_FILE_PREFIX=$W/unmounted walg-get k`, 64, says("no such directory", "hint: is the disk mounted?")},
		{`WALG_FILE_PREFIX=$W/unmounted walg-get -l`, 64, says("no such directory")},
		{`WALG_FILE_PREFIX=$W/unmounted walg-retain list`, 64, says("no such directory")},
		{`WALG_FILE_PREFIX=file://$W/unmounted walg-get k`, 64, says("no such directory")},
		{`WALG_FILE_PREFIX=$F walg-put k <"$F"`, 64, says("not a directory")},
		{`WALG_FILE_PREFIX=s3://bucket/x walg-put k <"$F"`, 64, says("want a path or file:///path")},
		{`WALG_S3_PREFIX=s3://b/x walg-put k <"$F"`, 64, says("more than one storage is configured: WALG_FILE_PREFIX, WALG_S3_PREFIX")},
		{`unset WALG_FILE_PREFIX; WALG_S3_PREFIX=gs://b/x walg-put k <"$F"`, 64, says("WALG_S3_PREFIX gs://b/x: want s3://bucket/path")},
		{`unset WALG_FILE_PREFIX; WALG_S3_PREFIX=s3://b/x S3_MAX_PART_SIZE=1 walg-put k <"$F"`, 64, says("setting S3_MAX_PART_SIZE=1: ")},
	}
	for _, key := range []string{`/k`, `a//b`, `a/`, `../k`, `a/../b`, `./k`, `a/.`, `''`, `"$(printf 'a\tb')"`, `k.tmp.20260101T000000Z-0123456789abcdef`,
		`s4://b/k`, `file://relative`} {
		cases = append(cases,
			mistake{`walg-put ` + key + ` <"$F"`, 64, says("walg-put: ")},
			mistake{`walg-get ` + key, 64, says("walg-get: ")})
	}
	mistakes(t, cases)
}

func TestASettingIsJudgedByTheProgramThatUsesIt(t *testing.T) {
	mistakes(t, []mistake{
		// Used: a value that does not parse.
		{`WALG_COMPRESSION_METHOD=gzip walg-compress "$F" | walg-put k`, 64, says(`unknown compression method "gzip"`)},
		{`WALG_COMPRESSION_METHOD=zstd WALG_ZSTD_LEVEL=19 walg-compress "$F" | walg-put k`, 64, says("setting WALG_ZSTD_LEVEL=19: ")},
		{`WALG_TRUST_EOF=maybe walg-put k <"$F"`, 64, says("setting WALG_TRUST_EOF=maybe: ")},
		{`WALG_NETWORK_RATE_LIMIT=fast walg-put k <"$F"`, 64, says("setting WALG_NETWORK_RATE_LIMIT=fast: ")},
		{`WALG_TAR_SIZE_THRESHOLD=big walg-tar create "$D" | walg-put k`, 64, says("setting WALG_TAR_SIZE_THRESHOLD=big: ")},
		{`WALG_UPLOAD_DISK_CONCURRENCY=0 walg-tar create "$D" | walg-put k`, 64, says("setting WALG_UPLOAD_DISK_CONCURRENCY=0: less than 1")},
		{`WALG_DISK_RATE_LIMIT=-5 walg-tar create "$D" | walg-put k`, 64, says("setting WALG_DISK_RATE_LIMIT=-5: ")},
		// Encryption that is asked for is never left out.
		{`WALG_PGP_KEY_PATH=/key walg-crypt "$F" | walg-put k`, 64, says("setting WALG_PGP_KEY_PATH: open /key: no such file")},
		{`WALG_PGP_KEY=key walg-crypt "$F" | walg-put k`, 64, says("WALG_PGP_KEY")},
		{`WALG_LIBSODIUM_KEY=key walg-crypt "$F" | walg-put k`, 64, says("WALG_LIBSODIUM_KEY")},
		{`WALG_LIBSODIUM_KEY_PATH=/key walg-crypt "$F" | walg-put k`, 64, says("WALG_LIBSODIUM_KEY_PATH")},
		{`AWS_EC2_METADATA_DISABLED=true WALG_CSE_KMS_ID=id walg-crypt "$F" | walg-put k`, 64, says("key with id at AWS KMS: no credentials", "hint: set AWS_ACCESS_KEY_ID")},
		{`YC_METADATA_ADDR=127.0.0.1:1 YC_CSE_KMS_KEY_ID=id walg-crypt "$F" | walg-put k`, 64, says("key with id at kms.yandex: no token", "hint: set YC_SERVICE_ACCOUNT_KEY_FILE")},
		{`WALG_PGP_KEY=key walg-crypt -m none "$F" | walg-put k`, 64, says("-m none contradicts WALG_PGP_KEY")},
		{`WALG_PGP_KEY=key walg-crypt -d "$F" | walg-put k`, 64, says("WALG_PGP_KEY")},
		// Refused, whoever reads it.
		{`WALG_FAILOVER_STORAGES='{}' walg-put k <"$F"`, 64, says("setting WALG_FAILOVER_STORAGES is not supported", "hint: it changes where or how data goes")},
		{`WALG_OSS_PREFIX=oss://b walg-get other/object`, 64, says("setting WALG_OSS_PREFIX is not supported")},
		{`WALG_GPG_KEY_ID=ops walg-compress "$F" | walg-put k`, 64, says("setting WALG_GPG_KEY_ID is not supported")},
		{`WALG_ENVELOPE_PGP_KEY=k walg-tar create "$D" | walg-put k`, 64, says("setting WALG_ENVELOPE_PGP_KEY is not supported")},
		{`WALG_GPG_KEY_ID=ops walg-tar list </dev/null`, 64, says("walg-tar: setting WALG_GPG_KEY_ID")},
		{`WALG_GPG_KEY_ID=ops walg-retain list`, 64, says("walg-retain: setting WALG_GPG_KEY_ID")},
		// A slip of the pen.
		{`WALG_FILE_PREFX=/x walg-put k <"$F"`, 64, says("unknown setting WALG_FILE_PREFX", "hint: did you mean WALG_FILE_PREFIX?")},
		{`WALG_COMPRESSION_METOD=none walg-compress "$F" | walg-put k`, 64, says("hint: did you mean WALG_COMPRESSION_METHOD?")},
		{`WALG_PGP_KEYPATH=/x walg-crypt "$F" | walg-put k`, 64, says("hint: did you mean WALG_PGP_KEY_PATH?")},
	})
}

func TestASettingThatOthersUseIsNotOurs(t *testing.T) {
	env, _, _ := freight(t)
	for _, c := range []string{
		`WALG_TRUST_EOF=maybe walg-compress "$F" -o /dev/null`,
		`WALG_COMPRESSION_METHOD=gzip walg-put k <"$F"`,
		`WALG_COMPRESSION_METHOD=zstd walg-compress -d "$Z" -o /dev/null`, // it is about new objects
		`WALG_ZSTD_LEVEL=19 walg-compress "$F" -o /dev/null`,
		`WALG_PGP_KEY=key walg-compress "$F" -o /dev/null`,
		`WALG_PGP_KEY=key walg-put k <"$F"`,
		`WALG_TAR_SIZE_THRESHOLD=big walg-put k <"$F"`,
		`WALG_S3_PREFIX=s3://b/x walg-compress "$F" -o /dev/null`,
		`WALG_FILE_PREFIX=/no/such walg-crypt "$F" -o /dev/null`,
		`PGHOST=nowhere AWS_REGION=x walg-put k <"$F"`,
	} {
		if _, said, status := sh(t, c, append(env, "WALG_FILE_PREFIX="+stocked(t))...); status != 0 || said != "" {
			t.Errorf("%s: status %d\n%s", c, status, said)
		}
	}
}

// Of each pipeline one program warns, in any of its forms.
func TestASettingWithoutEffectIsSaidOnce(t *testing.T) {
	env, _, _ := freight(t)
	dir := stocked(t)
	c := newCargo(t, random(t), 2000)
	env = append(env, "WALG_FILE_PREFIX="+dir, "D="+c.dir)
	for _, setting := range []struct{ kv, want string }{
		{"WALG_UPLOAD_QUEUE=3", "warning: setting WALG_UPLOAD_QUEUE is known to WAL-G and has no effect here\n"},
		{"WALG_DELTA_MAX_STEPS=6", "warning: setting WALG_DELTA_MAX_STEPS is known to WAL-G and has no effect here\n"},
		{"WALG_SOME_VENDORS_OWN=1", "warning: unknown setting WALG_SOME_VENDORS_OWN\n"},
		{"WALG_UPLOAD_QUEUE=", ""},
		{"WALG_SERVICE_HOST=10.0.0.1", ""},
		{"WALG_SERVICE_PORT_HTTP=80", ""},
		{"WALG_PORT=tcp://10.0.0.1:80", ""},
		{"WALG_PORT_80_TCP_ADDR=10.0.0.1", ""},
		{"WALG_EXPORTER_PORT_9351_TCP=tcp://10.0.0.1:9351", ""},
		{"AWS_CA_BUNDLE=/x", ""},
	} {
		for script, speaker := range map[string]string{
			`walg-tar create "$D" | walg-compress | walg-crypt | walg-put k`:    "walg-put",
			`walg-put k -- walg-crypt -- walg-compress -- walg-tar create "$D"`: "walg-put",
			`walg-get k | walg-crypt -d | walg-compress -d | walg-tar list`:     "walg-get",
			`walg-compress -d -- walg-crypt -d -- walg-get k >"$W/out"`:         "walg-get",
			`walg-retain list --json`:                               "walg-retain",
			`walg-put k -- walg-crypt --through "$F" -- walg-crypt`: "walg-put",
		} {
			if !exists(filepath.Join(dir, "k")) || strings.Contains(script, "--through") {
				if _, msg, status := sh(t, `walg-tar create "$D" | walg-compress | walg-put k`, env...); status != 0 {
					t.Fatal(msg)
				}
			}
			want := ""
			if setting.want != "" {
				want = speaker + ": " + setting.want
			}
			if _, said, status := sh(t, script, append(env, setting.kv)...); status != 0 || said != want {
				t.Errorf("%s: %s: status %d, %q, want %q", setting.kv, script, status, said, want)
			}
			os.Remove(filepath.Join(dir, "k"))
		}
	}
}

// FILE appears whole or not at all; what is no plain file is written in place.
func TestTheFileOfOAppearsWholeOrNotAtAll(t *testing.T) {
	env, _, packed := freight(t)
	work := strings.TrimPrefix(env[2], "W=")
	dir := stocked(t)
	write(t, filepath.Join(dir, "k"), read(t, packed))
	env = append(env, "WALG_FILE_PREFIX="+dir)
	for _, program := range []string{`walg-compress "$F" -o %s`, `walg-crypt -o %s "$Z"`, `walg-get k -o %s`, `walg-compress -o %s -- cat "$F"`, `walg-crypt --through "$Z" -o %s -- cat`} {
		for _, c := range []struct {
			before, after string // scripts around it
			output        string
			status        int
		}{
			{``, `[ "$(stat -c %a x)" = 600 ]`, "x", 0},
			{`echo old >x; chmod 640 x`, `[ "$(stat -c %a x)" = 640 ]`, "x", 0},
			{`echo old >x; ln -s x l`, `[ -L l ] && [ "$(stat -c %a x)" = 644 ]`, "l", 0},
			{`echo old >x; ln x y`, `[ "$(cat y)" = old ]`, "x", 0}, // a new file under the old name
			{`ln -s x l`, `[ -L l ] && [ ! -e x ]`, "l", 64},
			{`mkdir x`, `[ -d x ] && [ -z "$(ls -A x)" ]`, "x", 64},
			{``, `[ ! -e d ]`, "d/x", 64},
			{``, `[ -c /dev/null ]`, "/dev/null", 0},
			{``, `[ -c /dev/full ]`, "/dev/full", 1},
			{`mkfifo x; cat x >x.out &`, `wait; [ -p x ] && mv x.out x.copy && rm x && mv x.copy x`, "x", 0},
		} {
			script := `cd "$W" || exit 99; ` + c.before + "\n" + fmt.Sprintf(program, c.output) + "; s=$?\n{ " + c.after + "; } || exit 99; exit $s"
			_, said, status := sh(t, script, env...)
			if status != c.status {
				t.Errorf("%s: status %d, want %d\n%s", script, status, c.status, said)
			}
			spoken(t, said)
			if c.status == 0 && exists(filepath.Join(work, "x")) && digest(t, filepath.Join(work, "x")) != digest(t, packed) {
				t.Errorf("%s: the file is not what was to be written", script)
			}
			if names := listing(t, work); strings.Contains(names, ".tmp.") {
				t.Errorf("%s: there are %q", script, names)
			}
			sh(t, `rm -rf "$W"/*`, env...)
		}
	}
	// A failure keeps what was there.
	write(t, filepath.Join(work, "x"), []byte("old"))
	before := snapshot(t, work)
	for _, script := range []string{
		`walg-compress -d "$F" -o "$W/x"`, `walg-get absent -o "$W/x"`, `walg-crypt -o "$W/x" -- sh -c 'cat "$F"; exit 1'`,
		`walg-compress -d "$Z" --size 1 -o "$W/x"`, `walg-tar create "$W/absent" -o "$W/x"`, `walg-crypt -- sh -c "$DIES" | walg-crypt -o "$W/x"`,
	} {
		if _, said, status := sh(t, script, env...); status == 0 {
			t.Errorf("%s: status 0\n%s", script, said)
		}
		if after := snapshot(t, work); after != before {
			t.Errorf("%s: there is\n%s", script, after)
		}
	}
}

func TestCorruptDataIsStatus65(t *testing.T) {
	env, _, packed := freight(t)
	work := strings.TrimPrefix(env[2], "W=")
	good := read(t, packed)
	for _, at := range append(everyKiB(len(good)), 4, 5, 6, len(good)-1, len(good)-5) {
		bent := bytes.Clone(good)
		bent[at] ^= 0x40
		write(t, filepath.Join(work, "bent"), bent)
		for _, script := range []string{
			`walg-compress -d -m lz4 "$W/bent" -o "$W/out"`,
			`walg-crypt "$W/bent" | walg-compress -d -m lz4 -o "$W/out"`,
			`walg-compress -d -m lz4 "$W/bent" | walg-crypt -o "$W/out"`,
		} {
			_, said, status := sh(t, script, env...)
			if status != 65 || !strings.Contains(said, "walg-compress: decompress ") || !strings.Contains(said, "lz4: ") {
				t.Errorf("byte %d: %s: status %d\n%s", at, script, status, said)
			}
			spoken(t, said)
			if names := listing(t, work); names != "bent" {
				t.Errorf("byte %d: %s: there are %q", at, script, names)
			}
		}
	}
	// Data of another kind is named.
	for head, name := range map[string]string{
		`\037\213\010`: "gzip: truncated", `\375\067zXZ\000`: "xz: truncated", `\050\265\057\375`: "zstd: truncated", `-----BEGIN PGP MESSAGE-----`: "OpenPGP", `hello`: "no compression method known",
	} {
		_, said, status := sh(t, `printf -- "$HEAD" | walg-compress -d -o "$W/out"`, append(env, "HEAD="+head)...)
		if status != 65 || !strings.Contains(said, name) || strings.Contains(said, "walg-compress: hint: ") == strings.HasSuffix(name, "truncated") {
			t.Errorf("%s: status %d\n%s", name, status, said)
		}
		spoken(t, said)
	}
	_, said, status := sh(t, `printf '%s' '-----BEGIN PGP MESSAGE-----' | walg-crypt -d -o "$W/out"`, env...)
	if status != 65 || !strings.Contains(said, "this is OpenPGP (armored) data and no key is configured") {
		t.Errorf("status %d\n%s", status, said)
	}
}

// tarFile makes a tar file of headers; regular files hold "data".
func tarFile(t *testing.T, name string, headers ...tar.Header) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o755
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("data"))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, name, b.Bytes())
}

func TestAHostileArchiveIsStatus65(t *testing.T) {
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for name, members := range map[string][]tar.Header{
		"a parent":                  {{Name: "../victim"}},
		"a parent inside":           {{Name: "a/../../victim"}},
		"a parent after a slash":    {{Name: "/../victim"}},
		"an absolute link":          {link("l", "/etc")},
		"a link up":                 {link("l", "../victim")},
		"a file through a link":     {link("l", "/"), {Name: "l/victim"}},
		"a hard link out":           {{Typeflag: tar.TypeLink, Name: "l", Linkname: "/etc/passwd"}},
		"a hard link up":            {{Typeflag: tar.TypeLink, Name: "l", Linkname: "../victim"}},
		"a device":                  {{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		"good files, then a parent": {{Name: "a"}, {Name: "b"}, {Name: "../victim"}},
	} {
		dir := folder(t)
		write(t, filepath.Join(dir, "victim"), []byte("precious"))
		tarFile(t, filepath.Join(dir, "tar"), members...)
		before := snapshot(t, dir)
		_, said, status := sh(t, `walg-tar extract "$W/side/root" "$W/tar"`, "W="+dir)
		if status != 65 {
			t.Errorf("%s: status %d\n%s", name, status, said)
		}
		spoken(t, said)
		os.RemoveAll(filepath.Join(dir, "side"))
		if after := snapshot(t, dir); after != before {
			t.Errorf("%s: outside there is\n%swas\n%s", name, after, before)
		}
	}
	// Names that only begin with a slash stay inside.
	dir := folder(t)
	tarFile(t, filepath.Join(dir, "tar"), tar.Header{Name: "/base/1/1259"})
	if _, said, status := sh(t, `walg-tar extract "$W/root" "$W/tar" && cat "$W/root/base/1/1259"`, "W="+dir); status != 0 {
		t.Errorf("a leading slash: status %d\n%s", status, said)
	}
	// What is there already is not touched.
	write(t, filepath.Join(dir, "full", "file"), []byte("mine"))
	before := snapshot(t, filepath.Join(dir, "full"))
	_, said, status := sh(t, `walg-tar extract "$W/full" "$W/tar"`, "W="+dir)
	if status == 0 || !strings.Contains(said, "is not empty") || snapshot(t, filepath.Join(dir, "full")) != before {
		t.Errorf("a target that is not empty: status %d\n%s", status, said)
	}
	spoken(t, said)
}

// A disk with room for 1 MiB, that nobody else sees.
func TestAFullDiskLeavesNothing(t *testing.T) {
	env, _, _ := freight(t)
	disk := filepath.Join(folder(t), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCargo(t, random(t), 4<<20)
	env = append(env, "M="+disk, "D="+c.dir, "WALG_FILE_PREFIX="+disk+"/store")
	const mount = `mount -t tmpfs -o size=1m none "$M" && mkdir "$M/store" && echo old >"$M/store/old" && echo old >"$M/out" || exit 99; `
	const look = `; s=$?; find "$M" -mindepth 1 | sort; cat "$M/store/old" "$M/out"; exit $s`
	for _, m := range []mistake{
		{`walg-tar create "$D" | walg-put new/k`, 1, says("walg-put: put file://", "/store/new/k: ", "no space left on device")},
		{`walg-tar create "$D" | walg-compress | walg-crypt | walg-put k --if-absent`, 1, says("walg-put: put file://", "no space left on device")},
		{`walg-put old -- walg-tar create "$D"`, 1, says("walg-put: put file://", "/store/old: ", "no space left on device")},
		{`walg-tar create "$D" -o "$M/out"`, 1, says("walg-tar: ", "no space left on device")},
		{`walg-compress -m none -o "$M/out" -- walg-tar create "$D"`, 1, says("walg-compress: ", "no space left on device")},
		{`walg-crypt -o "$M/new" -- walg-tar create "$D"`, 1, says("walg-crypt: ", "no space left on device")},
		{`head -c 2000000 /dev/zero >"$M/filler" 2>/dev/null; echo x | walg-put k --trust-eof; s=$?; rm "$M/filler"; (exit $s)`, 1, says("walg-put: put file://", "no space left on device")},
	} {
		left, said, status := namespace().sh(t, mount+m.script+look, env...)
		if status != m.status {
			t.Errorf("%s: status %d, want %d\n%s", m.script, status, m.status, said)
		}
		for _, part := range m.says {
			if !strings.Contains(said, part) {
				t.Errorf("%s: no %q in\n%s", m.script, part, said)
			}
		}
		spoken(t, said)
		if want := disk + "/out\n" + disk + "/store\n" + disk + "/store/old\nold\nold\n"; left != want {
			t.Errorf("%s: there is\n%swant\n%s", m.script, left, want)
		}
	}
	_, said, status := namespace().sh(t, mount+`walg-tar create "$D" | walg-tar extract "$M/tree"`, env...)
	if status != 1 || !strings.Contains(said, "no space left on device") {
		t.Errorf("walg-tar extract: status %d\n%s", status, said)
	}
	spoken(t, said)
}

func TestAStoreThatCannotBeWrittenIsStatus1(t *testing.T) {
	env, _, _ := freight(t)
	disk := filepath.Join(folder(t), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	closed := store(t)
	write(t, filepath.Join(closed, "dir", "old"), []byte("old"))
	before := snapshot(t, closed)
	shut := func(mode os.FileMode) {
		for _, name := range []string{closed, filepath.Join(closed, "dir")} {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	shut(0o555)
	for _, c := range []struct {
		user   user
		script string
		says   string
	}{
		{namespace(), `mount -t tmpfs none "$M" && mkdir "$M/s" && mount -o remount,bind,ro "$M" || exit 99; WALG_FILE_PREFIX=$M/s; walg-compress "$F" | walg-put k`, "read-only file system"},
		{namespace(), `mount -t tmpfs none "$M" && mkdir "$M/s" && mount -o remount,bind,ro "$M" || exit 99; WALG_FILE_PREFIX=$M/s; walg-put new/k <"$F"`, "read-only file system"},
		{namespace(), `mount -t tmpfs none "$M" && mount -o remount,bind,ro "$M" || exit 99; walg-compress "$F" -o "$M/out"`, "read-only file system"},
		{namespace(), `mount -t tmpfs none "$M" && mkdir "$M/t" && mount -o remount,bind,ro "$M" || exit 99; walg-tar create "$W" | walg-tar extract "$M/t"`, "read-only file system"},
		{nobody(), `walg-compress "$F" | walg-put k`, "permission denied"},
		{nobody(), `walg-compress "$F" | walg-put dir/old`, "permission denied"},
		{nobody(), `walg-compress "$F" -o "$WALG_FILE_PREFIX/out"`, "permission denied"},
	} {
		_, said, status := c.user.sh(t, c.script, append(env, "M="+disk, "WALG_FILE_PREFIX="+closed)...)
		if status != 1 || !strings.Contains(said, c.says) {
			t.Errorf("%s: status %d\n%s", c.script, status, said)
		}
		spoken(t, said)
	}
	shut(0o755)
	if after := snapshot(t, closed); after != before {
		t.Errorf("the store has changed:\n%swas\n%s", after, before)
	}
}

// terminal makes a pseudo-terminal.
func terminal(t testing.TB) (master *os.File, slave string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

// onTerminal runs a script in a session of its own whose terminal gets typed
// as input, and returns what appears on it. Messages go elsewhere.
func onTerminal(t testing.TB, typed, script string, env ...string) (shown, said string, status int) {
	t.Helper()
	master, slave := terminal(t)
	tty, err := os.OpenFile(slave, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/dash", "-c", script)
	cmd.Env = append(os.Environ(), env...)
	var msg bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, &msg
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	if _, err := master.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	screen := make(chan string)
	go func() {
		all, _ := io.ReadAll(master) // EIO when the last program has gone
		screen <- string(all)
	}()
	late := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%s: still running after %v: %v\n%s", script, limit, err, &msg)
	}
	return <-screen, msg.String(), exitStatus(cmd.ProcessState)
}

func TestBinaryDataIsNotForTerminals(t *testing.T) {
	env, _, _ := freight(t)
	dir := stocked(t)
	c := newCargo(t, random(t), 2000)
	write(t, filepath.Join(dir, "text"), []byte("hello\n"))
	write(t, filepath.Join(dir, "binary"), []byte("\x00\x01\xff"))
	env = append(env, "WALG_FILE_PREFIX="+dir, "P="+dir, "D="+c.dir)
	const refusal = "binary data is not written to a terminal"
	for _, m := range []struct {
		script string
		status int
		says   string // a part of standard error
		shows  string // a part of the screen; "" for nothing
	}{
		{`walg-compress "$F"`, 64, refusal, ""},
		{`walg-tar create "$D"`, 64, refusal, ""},
		{`walg-get binary`, 64, refusal, ""},
		{`walg-crypt "$P/binary"`, 64, refusal, ""},
		{`walg-compress "$F" | walg-crypt`, 64, refusal, ""},
		{`walg-crypt -o /dev/tty "$P/binary"`, 64, refusal, ""},
		{`walg-get binary --force`, 0, "", "\xff"},
		{`walg-crypt -f "$P/binary"`, 0, "", "\xff"},
		{`walg-get text`, 0, "", "hello"},
		{`walg-crypt "$P/text"`, 0, "", "hello"},
		{`walg-get -l`, 0, "", "other/object"},
		{`walg-tar create "$D" | walg-tar list`, 0, "", "./"},
		{`walg-compress --help`, 0, "", "usage: walg-compress"},
		{`walg-get binary >"$W/out"`, 0, "", ""},
		{`walg-put k`, 64, "standard input is a terminal", ""},
		{`walg-compress -d >"$W/out"`, 64, "standard input is a terminal", ""},
		{`walg-crypt >"$W/out"`, 64, "standard input is a terminal", ""},
		{`walg-tar extract "$W/tree"`, 64, "standard input is a terminal", ""},
		{`walg-tar list`, 64, "standard input is a terminal", ""},
	} {
		shown, said, status := onTerminal(t, "", m.script, env...)
		if status != m.status || !strings.Contains(said, m.says) || m.status != 0 && !strings.Contains(said, ": hint: ") {
			t.Errorf("%s: status %d, want %d and %q with a hint\n%s", m.script, status, m.status, m.says, said)
		}
		if !strings.Contains(shown, m.shows) || m.shows == "" && shown != "" {
			t.Errorf("%s: the screen shows %q, want %q", m.script, shown, m.shows)
		}
		spoken(t, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "k")); err == nil {
		t.Error("there is an object")
	}
	// The hint names the ways out.
	_, said, _ := onTerminal(t, "", `walg-compress "$F"`, env...)
	if !strings.Contains(said, "-o FILE") || !strings.Contains(said, "--force") {
		t.Errorf("%s", said)
	}
	// --force reads what is typed, too.
	_, said, status := onTerminal(t, "typed\n\x04", `walg-put k --force --trust-eof`, env...)
	if status != 0 || string(read(t, filepath.Join(dir, "k"))) != "typed\n" {
		t.Errorf("--force: status %d\n%s", status, said)
	}
}

// ssh and gpg ask on the terminal, so COMMAND must be its foreground; and what
// comes after the filter asks there again.
func TestACommandMayAskOnTheTerminal(t *testing.T) {
	dir := stocked(t)
	env := []string{"WALG_FILE_PREFIX=" + dir}
	for _, script := range []string{
		`walg-put k -- sh -c 'read -r x </dev/tty; echo "$x"' && read -r y </dev/tty && echo "then $y"`,
		`walg-crypt --through /dev/null -o "$WALG_FILE_PREFIX/k" -- sh -c 'read -r x </dev/tty; echo "$x"' && read -r y </dev/tty && echo "then $y"`,
	} {
		shown, said, status := onTerminal(t, "secret\nmore\n", script, env...)
		if status != 0 || !strings.Contains(shown, "then more") || string(read(t, filepath.Join(dir, "k"))) != "secret\n" {
			t.Errorf("%s: status %d, the screen shows %q\n%s", script, status, shown, said)
		}
		os.Remove(filepath.Join(dir, "k"))
	}
}

var progress = regexp.MustCompile(`(?m)^walg-[a-z]+: [0-9.]+ ([KMG]i)?B, [0-9.]+ ([KMG]i)?B/s, [0-9]+s$`)

func TestProgressSaysBytesRateAndTime(t *testing.T) {
	env, _, _ := freight(t)
	dir := stocked(t)
	env = append(env, "WALG_FILE_PREFIX="+dir)
	// A line for each second, and one at the end.
	_, said, status := sh(t, `walg-put k --progress -- sh -c 'cat "$F"; sleep 1.2'`, env...)
	if status != 0 || !progress.MatchString(said) || !strings.Contains(said, "walg-put: 293.0 KiB, ") {
		t.Errorf("status %d\n%s", status, said)
	}
	// Where the size is known, what is left.
	_, said, status = sh(t, `walg-compress --progress "$F" -o "$W/out"`, env...)
	if status != 0 || !strings.Contains(said, "293.0 KiB in all, 0s left\n") {
		t.Errorf("status %d\n%s", status, said)
	}
	// Without it nothing is said.
	if _, said, _ := sh(t, `walg-compress "$F" -o "$W/out"`, env...); said != "" {
		t.Errorf("%s", said)
	}
}

func TestSIGUSR1AsksForProgressAtAnyTime(t *testing.T) {
	dir := stocked(t)
	for _, argv := range [][]string{{"walg-crypt"}, {"walg-put", "k", "--trust-eof"}, {"walg-compress"}} {
		p := startProgram(t, []string{"WALG_FILE_PREFIX=" + dir}, argv...)
		if _, err := p.stdin.Write(make([]byte, 60_000)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the data is read", func() bool { return consumed(p.Process.Pid) >= 60_000 })
		p.Process.Signal(syscall.SIGUSR1)
		eventually(t, "a line is written", func() bool { return strings.HasSuffix(p.said(), "\n") })
		p.stdin.Close()
		if argv[0] != "walg-put" {
			io.Copy(io.Discard, p.stdout)
		}
		if status := p.status(t); status != 0 || !strings.HasPrefix(p.said(), argv[0]+": 58.6 KiB, ") || !progress.MatchString(p.said()) {
			t.Errorf("%v: status %d\n%s", argv, status, p.said())
		}
	}
}

// consumed returns how many bytes a process has read, wherever from.
func consumed(pid int) int64 { return ioCount(pid, "rchar: ") }

func TestAnInputThatStallsEndsWhereThatWasAsked(t *testing.T) {
	dir := stocked(t)
	before := snapshot(t, dir)
	for _, argv := range [][]string{
		{"walg-crypt", "--idle-input", "100ms"},
		{"walg-put", "k", "--trust-eof", "--idle-input", "100ms"},
		{"walg-put", "k", "--idle-input=100ms", "--", "sh", "-c", "echo data; exec sleep 600"},
		{"walg-tar", "list", "--idle-input", "100ms"},
	} {
		p := startProgram(t, []string{"WALG_FILE_PREFIX=" + dir}, argv...)
		p.stdin.WriteString("data")
		if status := p.status(t); status != 1 || !strings.Contains(p.said(), "no data for 100ms") {
			t.Errorf("%v: status %d\n%s", argv, status, p.said())
		}
		spoken(t, p.said())
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the store has changed:\n%swas\n%s", after, before)
	}
}
