// Package lib_test holds the rules of the house that a compiler does not:
// which package may know which, and how large one may grow.
package lib_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers says which packages a package may import: those of lines above its
// own. A new package needs a place here.
var layers = [][]string{
	{"dirfd", "fault", "rate", "wal"},
	{"atomicfile", "awsid", "catalog", "child", "codec/lzma/raw", "crypt/ask", "decode", "fence", "store", "tarball", "timeline", "tree"},
	{"codec/brotli", "lineage", "codec/gzip", "codec/lz4", "codec/lzma", "codec/xz", "codec/zstd", "crypt", "crypt/openpgp/packet", "decode/decodetest"},
	{"codec", "lineage/listing", "retain/policy", "crypt/envelope", "crypt/kmsfake", "crypt/openpgp/armor", "crypt/openpgp/seipd", "crypt/secretstream"},
	{"crypt/awskms", "crypt/openpgp/keyring", "crypt/yckms", "pipe", "retain", "store/driver", "store/file", "store/faulttest", "store/s3list", "store/servertest", "store/storetest", "store/wire", "tarball/pack", "tarball/tartest", "tarball/unpack"},
	{"cli", "crypt/openpgp", "postgres", "postgres/pgtest", "store/azure", "store/gcs", "store/remote", "store/s3", "store/sftp", "store/swift"},
	{"crypt/open", "store/open"},
	{"postgres/session"},
}

// pure packages compute and do no I/O.
var pure = []string{"fault", "wal", "timeline", "catalog", "lineage", "lineage/listing", "retain", "retain/policy"}

// testOnly packages are for tests; no program may link them.
var testOnly = []string{"crypt/kmsfake", "decode/decodetest", "store/faulttest", "store/s3list", "store/servertest", "store/storetest", "tarball/tartest", "postgres/pgtest"}

// storage begins the name of each package that moves bytes to and from a store.
var storage = []string{
	"walg/lib/store",
	"github.com/aws/aws-sdk-go-v2/service/s3",
	"cloud.google.com/go/storage",
	"github.com/Azure/",
	"github.com/ncw/swift",
	"github.com/pkg/sftp",
}

// postgreSQL begins the name of each package that knows PostgreSQL.
var postgreSQL = []string{"walg/lib/postgres", "github.com/jackc/"}

const (
	maxPackage = 700 // lines of code, without blank lines and comments
	maxMain    = 150 // lines
)

// bigger is for packages that are larger than that, each with its reason. They
// may shrink.
var bigger = map[string]int{
	"catalog":    1000, // each of WAL-G's JSON forms
	"codec/lz4":  850,  // frames in parallel both ways, and the loop that compresses a block
	"pipe":       800,  // input, output, stage and stamp: one contract, which only makes sense as a whole
	"retain":     850,  // target, backups and WAL: one decision, which only holds as a whole
	"store/file": 850,  // four systems' calls

	"store/remote": 850, // put, get, list, delete and retry: what makes a store of any driver

	// Of each protocol all is here: settings, login, requests, what its errors mean.
	"store/azure": 750,
	"store/gcs":   750,
	"store/s3":    1400,
	"store/sftp":  1600,
	"store/swift": 1300,
}

// source is one Go file that is no test.
type source struct {
	name string // path from the top of the repository
	file *ast.File
	text []byte
	code int // lines with code
}

// sources parses all files below dir, those for other systems too, by folder.
func sources(t *testing.T, dir string) map[string][]source {
	t.Helper()
	packages := map[string][]source{}
	set := token.NewFileSet()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			return err
		}
		lines := map[int]bool{}
		base := set.File(file.Pos()).Base()
		ast.Inspect(file, func(n ast.Node) bool {
			if n != nil && int(n.Pos()) >= base {
				lines[set.Position(n.Pos()).Line] = true
				lines[set.Position(n.End()-1).Line] = true
			}
			return true
		})
		folder := filepath.ToSlash(filepath.Dir(name))
		packages[folder] = append(packages[folder], source{filepath.ToSlash(name), file, text, len(lines)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// imports returns what a package's files import, sorted.
func imports(files []source) []string {
	var all []string
	for _, f := range files {
		for _, i := range f.file.Imports {
			all = append(all, strings.Trim(i.Path.Value, `"`))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func layer(name string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, name) })
}

func TestImportsGoDownOnly(t *testing.T) {
	for folder, files := range sources(t, ".") {
		own := layer(folder)
		if own < 0 {
			t.Errorf("lib/%s has no place in layers", folder)
			continue
		}
		for _, i := range imports(files) {
			name, ours := strings.CutPrefix(i, "walg/")
			if !ours {
				continue
			}
			lib, isLib := strings.CutPrefix(name, "lib/")
			if !isLib || layer(lib) < 0 || layer(lib) >= own {
				t.Errorf("lib/%s imports %s, which is not below it", folder, i)
			}
		}
	}
}

func TestPurePackagesDoNoIO(t *testing.T) {
	for folder, files := range sources(t, ".") {
		if !slices.Contains(pure, folder) {
			continue
		}
		for _, i := range imports(files) {
			if i == "os" || i == "syscall" || i == "net" || strings.HasPrefix(i, "os/") ||
				strings.HasPrefix(i, "net/") || strings.HasPrefix(i, "golang.org/x/sys") {
				t.Errorf("lib/%s imports %s", folder, i)
			}
		}
	}
}

// TestLibLeavesTheProcessAlone: messages, exit and environment belong to a
// command's main, for which lib/cli speaks.
func TestLibLeavesTheProcessAlone(t *testing.T) {
	forbidden := map[string][]string{
		"os":  {"Exit", "Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Args"},
		"fmt": {"Print", "Printf", "Println"},
	}
	for folder, files := range sources(t, ".") {
		if folder == "cli" || slices.Contains(testOnly, folder) {
			continue
		}
		if slices.Contains(imports(files), "log") {
			t.Errorf("lib/%s imports log", folder)
		}
		for _, f := range files {
			ast.Inspect(f.file, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(forbidden[x.Name], s.Sel.Name) {
						t.Errorf("lib/%s calls %s.%s", f.name, x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// linked returns the packages that a program links.
func linked(t *testing.T, program string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "walg/cmd/"+program)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", program, err, stderr.String())
	}
	return strings.Fields(string(out))
}

func isOneOf(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

func TestProgramsLinkOnlyWhatTheyNeed(t *testing.T) {
	mayStore := map[string]bool{
		"walg-tar": false, "walg-compress": false, "walg-crypt": false,
		"walg-put": true, "walg-get": true, "walg-retain": true,
	}
	for program, may := range mayStore {
		stores := false
		for _, dep := range linked(t, program) {
			stores = stores || isOneOf(dep, storage)
			if isOneOf(dep, storage) && !may {
				t.Errorf("%s links %s; only put, get and retain know stores", program, dep)
			}
			if isOneOf(dep, postgreSQL) && program != "walg-tar" {
				t.Errorf("%s links %s; only walg-tar knows PostgreSQL", program, dep)
			}
			if lib, ok := strings.CutPrefix(dep, "walg/lib/"); dep == "testing" || ok && slices.Contains(testOnly, lib) {
				t.Errorf("%s links %s, which is for tests", program, dep)
			}
		}
		if may && !stores {
			t.Errorf("%s links no store: the rule looks for the wrong names", program)
		}
	}
}

func TestTarballKnowsNoPostgreSQL(t *testing.T) {
	for folder, files := range sources(t, "tarball") {
		for _, i := range imports(files) {
			if isOneOf(i, postgreSQL) {
				t.Errorf("lib/%s imports %s", folder, i)
			}
		}
	}
}

// TestPackagesStaySmall: a package of more than some 500 lines, or a main of
// more than 150, mostly has two jobs.
func TestPackagesStaySmall(t *testing.T) {
	for folder, files := range sources(t, ".") {
		lines := 0
		for _, f := range files {
			lines += f.code
		}
		if limit := max(maxPackage, bigger[folder]); lines > limit && !slices.Contains(testOnly, folder) {
			t.Errorf("lib/%s has %d lines of code, more than %d", folder, lines, limit)
		}
	}
	for _, files := range sources(t, "../cmd") {
		for _, f := range files {
			if n := bytes.Count(f.text, []byte("\n")); path.Base(f.name) == "main.go" && n > maxMain {
				t.Errorf("%s has %d lines, more than %d", f.name, n, maxMain)
			}
		}
	}
}
