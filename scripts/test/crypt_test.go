//go:build linux

package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walg/lib/crypt/kmsfake"
	"walg/lib/postgres/pgtest"
)

// goldenKey copies a key of the golden archives to where the site's user may
// read it.
func goldenKey(t testing.TB, s *site, name string) string {
	t.Helper()
	path := filepath.Join(s.Dir, strings.ReplaceAll(name, "/", "-"))
	write(t, path, read(t, filepath.Join("../../testdata/golden", name)))
	pgtest.Own(t, path)
	return path
}

// encryptions are settings with a key that opens what it closes.
func encryptions(t testing.TB, s *site) map[string][]string {
	return map[string][]string{
		"plain":     nil,
		"openpgp":   {"WALG_PGP_KEY_PATH=" + goldenKey(t, s, "pgp/keys/priv.gpg")},
		"libsodium": {"WALG_LIBSODIUM_KEY_PATH=" + goldenKey(t, s, "libsodium/keys/key.hex"), "WALG_LIBSODIUM_KEY_TRANSFORM=hex"},
	}
}

var extensions = map[string]string{"lz4": ".lz4", "lzma": ".lzma", "brotli": ".br", "zstd": ".zst", "none": ""}

func TestEachMethodArchivesAndRestores(t *testing.T) {
	s := desk(t)
	for name, keys := range encryptions(t, s) {
		for method, ext := range extensions {
			t.Run(name+" "+method, func(t *testing.T) {
				env := append([]string{"WALG_COMPRESSION_METHOD=" + method}, keys...)
				path := s.wal(segment, 1, segmentSize)
				object := s.object("wal_005/" + segment + ext)
				defer os.Remove(object)
				s.must("walg-wal-push "+path, env...)
				ours := read(t, object)
				if plain := method == "none" && name == "plain"; bytes.Equal(ours, read(t, path)) != plain {
					t.Errorf("the object is the file: %v", !plain)
				}
				s.must("walg-wal-push "+path, env...)
				if !bytes.Equal(read(t, object), ours) {
					t.Error("the second push changed the object")
				}
				dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
				defer os.Remove(dest)
				// What the archive holds is found whatever is configured for new objects.
				s.must("walg-wal-fetch "+segment+" "+dest, append(keys, "WALG_COMPRESSION_METHOD=lz4")...)
				if !bytes.Equal(read(t, dest), read(t, path)) {
					t.Error("fetched other content")
				}
				s.wal(segment, 2, segmentSize)
				if _, msg, status := s.run("walg-wal-push "+path, env...); status != 73 || !strings.Contains(msg, "exists with other content") {
					t.Errorf("other content: status %d\n%s", status, msg)
				}
				if name == "plain" {
					return
				}
				// Without the key, and with another method's.
				must(t, os.Remove(dest))
				for _, env := range [][]string{nil, {"WALG_LIBSODIUM_KEY=another-text-of-more-than-32-bytes-in-all"}} {
					if _, msg, status := s.run("walg-wal-fetch "+segment+" "+dest, env...); status != 126 || exists(dest) {
						t.Errorf("with %v: status %d\n%s", env, status, msg)
					}
				}
			})
		}
	}
}

// The scripts of a host with only the public key need no other program.
func TestHostWithOnlyThePublicKeyArchivesByItself(t *testing.T) {
	s := desk(t)
	public := "WALG_PGP_KEY_PATH=" + goldenKey(t, s, "pgp/keys/pub.gpg")
	private := "WALG_PGP_KEY_PATH=" + goldenKey(t, s, "pgp/keys/priv.gpg")
	for name, size := range archivable {
		path := s.wal(name, 1, size)
		s.must("walg-wal-push "+path, public)
		object := s.object("wal_005/" + name + ".lz4")
		ours := read(t, object)
		for _, key := range []string{public, private} {
			if _, msg, status := s.run("walg-wal-push "+path, key); status != 0 || strings.Contains(msg, "private key") {
				t.Errorf("%s, again: status %d\n%s", name, status, msg)
			}
		}
		want := read(t, path)
		s.wal(name, 2, size)
		for _, key := range []string{public, private} {
			_, msg, status := s.run("walg-wal-push "+path, key)
			if status < 1 || status > 125 || !strings.Contains(msg, hexSum(want)) || !strings.Contains(msg, hexSum(read(t, path))) {
				t.Errorf("%s, other content: status %d, want a failure with both digests\n%s", name, status, msg)
			}
		}
		if !bytes.Equal(read(t, object), ours) {
			t.Errorf("%s: the object changed", name)
		}
		dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
		if _, msg, status := s.run("walg-wal-fetch "+name+" "+dest, public); status != 126 || exists(dest) || !strings.Contains(msg, "private key") {
			t.Errorf("%s with the public key: status %d\n%s", name, status, msg)
		}
		s.must("walg-wal-fetch "+name+" "+dest, private)
		if !bytes.Equal(read(t, dest), want) {
			t.Errorf("%s: fetched other content", name)
		}
		must(t, os.Remove(dest))
	}
}

// Nothing is committed downstream of data that is damaged: no file, no object,
// and of a tree not pg_control, without which no server starts on it.
func TestDamagedObjectsCommitNothing(t *testing.T) {
	s := desk(t)
	tree := s.Mkdir("tree")
	for i := range 20 {
		write(t, filepath.Join(tree, fmt.Sprint("file", i)), walBytes(uint64(i), 50_000))
	}
	write(t, filepath.Join(s.Mkdir("tree/global"), "pg_control"), walBytes(1, 8192))
	pgtest.Own(t, tree)
	r := random(t)
	for name, keys := range encryptions(t, s) {
		for method, ext := range extensions {
			if name == "plain" && method == "none" {
				continue // nothing to find the damage by
			}
			if r.IntN(rounds(3, 1)) != 0 {
				continue // one of three
			}
			t.Run(name+" "+method, func(t *testing.T) {
				env := append([]string{"WALG_COMPRESSION_METHOD=" + method}, keys...)
				dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
				path := s.wal(segment, 1, segmentSize)
				wal, tarball := s.object("wal_005/"+segment+ext), s.object("tree.tar"+ext)
				defer os.Remove(wal)
				defer os.Remove(tarball)
				s.must("walg-wal-push "+path, env...)
				s.must("walg-tar create "+tree+" | walg-compress | walg-crypt | walg-put tree.tar"+ext, env...)
				checked := name != "plain" || method == "lz4" || method == "zstd"
				for _, damage := range []string{"cut", "flip"} {
					if damage == "flip" && !checked {
						continue
					}
					for _, object := range []string{wal, tarball} {
						good := read(t, object)
						bad := bytes.Clone(good)
						if damage == "cut" {
							bad = bad[:r.IntN(len(bad))]
						} else {
							bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
						}
						must(t, os.WriteFile(object, bad, 0o644))
					}
					if _, msg, status := s.run("walg-wal-fetch "+segment+" "+dest, keys...); status != 126 || exists(dest) {
						t.Errorf("%s, walg-wal-fetch: status %d\n%s", damage, status, msg)
					}
					back := "walg-get tree.tar" + ext + " | walg-crypt -d | walg-compress -d -m " + method
					file, copied, out := filepath.Join(s.Dir, "file"), s.object("copy.tar"), filepath.Join(s.Dir, "out")
					for commit, leaves := range map[string]string{
						" -o " + file: file, " | walg-put copy.tar": copied, " | walg-tar extract " + out: filepath.Join(out, "global/pg_control"),
					} {
						if _, msg, status := s.run(back+commit, keys...); status != 65 || exists(leaves) {
							t.Errorf("%s, %s%s: status %d, committed %v\n%s", damage, back, commit, status, exists(leaves), msg)
						}
						must(t, os.RemoveAll(out))
					}
					s.wal(segment, 1, segmentSize)
					for _, object := range []string{wal, tarball} {
						must(t, os.Remove(object))
					}
					s.must("walg-wal-push "+path, env...)
					s.must("walg-tar create "+tree+" | walg-compress | walg-crypt | walg-put tree.tar"+ext, env...)
				}
			})
		}
	}
}

// age, gpg and zstd stand in the place of ours; what zstd wrote ours reads.
func TestTheUsersProgramsTakeEachStage(t *testing.T) {
	s := desk(t)
	identity := filepath.Join(s.Dir, "age.key")
	recipient := strings.TrimSpace(s.must("age-keygen -o " + identity + " 2>/dev/null && age-keygen -y " + identity))
	public, private := keyrings(t, s)
	gpg := "gpg --batch --quiet --no-permission-warning --homedir "
	for name, env := range map[string][]string{
		"age":           {"WALG_CRYPT_COMMAND=age -r " + recipient, "WALG_DECRYPT_COMMAND=age -d -i " + identity},
		"gpg":           {"WALG_CRYPT_COMMAND=" + gpg + public + " --trust-model always -e -r ops", "WALG_DECRYPT_COMMAND=" + gpg + private + " -d"},
		"zstd":          {"WALG_COMPRESS_COMMAND=zstd -q -T0", "WALG_COMPRESS_EXT=.zst", "WALG_DECOMPRESS_COMMAND=zstd -q -d"},
		"zstd and ours": {"WALG_COMPRESS_COMMAND=zstd -q -T0", "WALG_COMPRESS_EXT=.zst"},
	} {
		t.Run(name, func(t *testing.T) {
			path := s.wal(segment, 1, segmentSize)
			dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
			object := s.object("wal_005/" + segment + ".lz4")
			if strings.HasPrefix(name, "zstd") {
				object = s.object("wal_005/" + segment + ".zst")
			}
			s.must("walg-wal-push "+path, env...)
			s.must("walg-wal-push "+path, env...)
			s.must("walg-wal-fetch "+segment+" "+dest, env...)
			if !bytes.Equal(read(t, dest), read(t, path)) {
				t.Error("fetched other content")
			}
			must(t, os.Remove(dest))
			good := read(t, object)
			must(t, os.WriteFile(object, good[:len(good)-100], 0o644))
			if _, msg, status := s.run("walg-wal-fetch "+segment+" "+dest, env...); status != 126 || exists(dest) {
				t.Errorf("a cut object: status %d\n%s", status, msg)
			}
			must(t, os.Remove(object))
			// A stage upstream that dies is no end of its input.
			for _, program := range []string{"walg-compress", "walg-crypt"} {
				bin := stage(t, program, `head -c 1000; kill -9 $$`)
				if _, msg, status := s.run("walg-wal-push "+path, append(env, first(bin))...); status < 1 || status > 125 || exists(object) {
					t.Errorf("%s killed: status %d\n%s", program, status, msg)
				}
			}
		})
	}
}

// Fakes of our own play the key services.
func TestKeyServicesGuardWhatIsArchived(t *testing.T) {
	aws, yandex := kmsfake.NewAWS(t), kmsfake.NewYandex(t)
	for name, settings := range map[string]map[string]string{"aws-kms": aws.Env(), "yc-kms": yandex.Env()} {
		t.Run(name, func(t *testing.T) {
			s := desk(t)
			var env []string
			for setting, value := range settings {
				if setting == "YC_SERVICE_ACCOUNT_KEY_FILE" { // which the site's user must be able to read
					readable := filepath.Join(s.Dir, "account.json")
					write(t, readable, read(t, value))
					pgtest.Own(t, readable)
					value = readable
				}
				env = append(env, setting+"="+value)
			}
			path := s.wal(segment, 1, segmentSize)
			object := s.object("wal_005/" + segment + ".lz4")
			dest := filepath.Join(s.DataDir, "pg_wal", "fetched")
			s.must("walg-wal-push "+path, env...)
			s.must("walg-wal-push "+path, env...)
			s.must("walg-wal-fetch "+segment+" "+dest, env...)
			if !bytes.Equal(read(t, dest), read(t, path)) {
				t.Error("fetched other content")
			}
			must(t, os.Remove(dest))
			if out := s.must("walg-get wal_005/"+segment+".lz4 | walg-crypt --inspect", env...); !strings.Contains(out, "method: "+name+"\n") || !strings.Contains(out, "fits: yes\n") {
				t.Errorf("--inspect prints %q", out)
			}
			// Another key's: as if nothing were configured, or what another service guards.
			if _, msg, status := s.run("walg-wal-fetch " + segment + " " + dest); status != 126 || exists(dest) {
				t.Errorf("without a key: status %d\n%s", status, msg)
			}
			good := read(t, object)
			must(t, os.WriteFile(object, good[:len(good)-1], 0o644))
			if _, msg, status := s.run("walg-wal-fetch "+segment+" "+dest, env...); status != 126 || exists(dest) {
				t.Errorf("a cut object: status %d\n%s", status, msg)
			}
			must(t, os.Remove(object))
			// A service that is not there: nothing is archived, and trying again may help.
			away := append(env, "AWS_ENDPOINT_URL_KMS=http://127.0.0.1:1", "YC_KMS_ENDPOINT=http://127.0.0.1:1")
			_, msg, status := s.run("walg-compress "+path+" | walg-crypt --timeout 100ms | walg-put wal_005/"+segment+".lz4", away...)
			if status != 1 || exists(object) || !strings.Contains(msg, "127.0.0.1:1") {
				t.Errorf("a service that is not there: status %d\n%s", status, msg)
			}
		})
	}
}
