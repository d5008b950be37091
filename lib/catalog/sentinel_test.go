package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"walg/lib/fault"
)

const golden = "../../testdata/golden"

func goldenFiles(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(golden, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files %s: %v", pattern, err)
	}
	return names
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSentinelsOfWALGAreWrittenAgainByteForByte(t *testing.T) {
	deltas, specs := 0, 0
	for _, name := range goldenFiles(t, "*/store/basebackups_005/base_*_sentinel.json") {
		want := read(t, name)
		s, err := ReadSentinel("b", bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if s.Delta() {
			// The one key that we add, for WAL-G before 2021.
			deltas++
			old := `"DeltaFromLSN":` + field(t, want, "DeltaLSN") + `,`
			if !bytes.Contains(got, []byte(old)) {
				t.Errorf("%s: no %s in %s", name, old, got)
			}
			got = bytes.Replace(got, []byte(old), nil, 1)
		}
		if s.Spec != nil {
			specs++
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if deltas != 2 || specs != 1 {
		t.Errorf("%d deltas and %d with tablespaces, want 2 and 1", deltas, specs)
	}
}

func field(t *testing.T, object []byte, key string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		t.Fatal(err)
	}
	return string(fields[key])
}

func TestMetadataOfWALGIsWrittenAgainByteForByte(t *testing.T) {
	for _, name := range goldenFiles(t, "*/store/basebackups_005/base_*/metadata.json") {
		want := read(t, name)
		m, err := ReadMetadata("b", bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Encode(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, want)
		}
	}
}

func TestMetadataFollowsFromTheSentinel(t *testing.T) {
	for _, name := range goldenFiles(t, "*/store/basebackups_005/base_*_sentinel.json") {
		s, err := ReadSentinel("b", bytes.NewReader(read(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		want := read(t, strings.TrimSuffix(name, sentinelSuffix)+metadataFile)
		if got, err := s.Metadata().Encode(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, want)
		}
	}
}

func TestWhatIsLeftOutAndWhatIsNull(t *testing.T) {
	s := Sentinel{LSN: 1, PgVersion: 150018, FinishLSN: 2, StartTime: time.Unix(0, 1).In(time.FixedZone("", 7200)), FinishTime: time.Unix(1, 0)}
	want := `{"LSN":1,"PgVersion":150018,"FinishLSN":2,"UncompressedSize":0,"CompressedSize":0,"ChkpNum":null,"Version":2,` +
		`"StartTime":"1970-01-01T00:00:00.000001Z","FinishTime":"1970-01-01T00:00:01Z","DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ",` +
		`"Hostname":"","DataDir":"","IsPermanent":false}`
	if got, err := s.Encode(); err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
	s.UserData = json.RawMessage(` {"a": [1, "x"]} `)
	s.SystemIdentifier = 1<<64 - 1
	s.FilesMetadataDisabled = true
	got, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"UserData":{"a":[1,"x"]},`, `"SystemIdentifier":18446744073709551615,`, `"FilesMetadataDisabled":true,"ChkpNum":null,`} {
		if !strings.Contains(string(got), part) {
			t.Errorf("no %s in %s", part, got)
		}
	}
	s.UserData, s.SystemIdentifier = json.RawMessage("null"), 0
	want = `{"start_time":"1970-01-01T00:00:00.000001Z","finish_time":"1970-01-01T00:00:01Z","date_fmt":"%Y-%m-%dT%H:%M:%S.%fZ","hostname":"",` +
		`"data_dir":"","pg_version":150018,"start_lsn":1,"finish_lsn":2,"is_permanent":false,"system_identifier":null,"uncompressed_size":0,"compressed_size":0}`
	if got, err := s.Metadata().Encode(); err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
}

func TestTimesAreRoundedUp(t *testing.T) {
	second := time.Date(2026, 11, 22, 16, 44, 59, 0, time.UTC)
	for ns, want := range map[int]int{0: 0, 1: 1000, 999: 1000, 1000: 1000, 1001: 2000, 999_999_001: 1_000_000_000} {
		if got := micro(second.Add(time.Duration(ns))); !got.Equal(second.Add(time.Duration(want))) {
			t.Errorf("%d ns became %v", ns, got)
		}
	}
}

func TestSentinelOf2020IsRead(t *testing.T) {
	old := `{"LSN":67109056,"DeltaFromLSN":33554472,"DeltaFrom":"base_000000010000000000000002","DeltaFullName":"base_000000010000000000000002","DeltaCount":1,
	 "Files":{"/base/1":{"IsIncremented":true,"deep":[{"x":[1,2,{}]}],"MTime":"2020-03-24T00:00:00Z"}},"TarFileSets":{"part_001.tar.lz4":["/base/1"]},
	 "PgVersion":120002,"FinishLSN":67109300,"SystemIdentifier":6808000000000000001,"UncompressedSize":1,"CompressedSize":2,"Spec":null,"UserData":null}`
	s, err := ReadSentinel("b", strings.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	if s.LSN != 67109056 || s.DeltaLSN != 33554472 || s.SystemIdentifier != 6808000000000000001 || s.Spec != nil || s.UserData != nil || s.Version != 0 || !s.StartTime.IsZero() {
		t.Errorf("%+v", s)
	}
	if _, err := s.Encode(); err != nil {
		t.Error(err)
	}
}

func TestSentinelsOfOtherDatabasesAreRead(t *testing.T) {
	for _, name := range goldenFiles(t, "mysql_stream/store/basebackups_005/*_sentinel.json") {
		s, err := ReadSentinel("b", bytes.NewReader(read(t, name)))
		if err != nil || s.LSN != 0 || s.Delta() || s.Hostname == "" {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestLongListsInASentinelAreNotHeld(t *testing.T) {
	const n = 200_000
	r := io.MultiReader(strings.NewReader(`{"LSN":1,"Files":{"":0`), &repeat{text: `,"/base/16384/2619":{"IsSkipped":true,"MTime":"2020-03-24T00:00:00Z"}`, n: n},
		strings.NewReader(`},"PgVersion":120002}`))
	s, err := ReadSentinel("b", r)
	if err != nil || s.PgVersion != 120002 {
		t.Errorf("%+v, %v", s, err)
	}
}

type repeat struct {
	text string
	n    int
	rest string
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n--
		r.rest = r.text
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func TestBrokenJSONNamesTheObject(t *testing.T) {
	good := string(read(t, golden+"/tablespace/store/basebackups_005/base_000000010000000000000004_backup_stop_sentinel.json"))
	delta := `{"LSN":3,"DeltaLSN":1,"DeltaFrom":"a","DeltaFullName":"a","DeltaCount":1}`
	if _, err := ReadSentinel("b", strings.NewReader(delta)); err != nil {
		t.Fatal(err)
	}
	cases := []string{
		"", " ", "null", "[]", "1", `"x"`, "{", "}", "{}{}", "{} x", `{"LSN":"0/3000028"}`, `{"LSN":-1}`, `{"LSN":1.5}`, `{"LSN":18446744073709551616}`,
		`{"LSN":1e3}`, `{"PgVersion":-1}`, `{"CompressedSize":-5}`, `{"StartTime":"yesterday"}`, `{"IsPermanent":"yes"}`, "\x00\x01\x02", good + good,
		strings.Replace(delta, `"DeltaCount":1`, `"DeltaCount":0`, 1),
		strings.Replace(delta, `"DeltaLSN":1,`, "", 1),
		strings.Replace(delta, `"DeltaFullName":"a",`, "", 1),
		strings.Replace(delta, `"DeltaFrom":"a"`, `"DeltaFrom":"../../x"`, 1),
		strings.Replace(delta, `"DeltaFrom":"a"`, `"DeltaFrom":"LATEST"`, 1),
		strings.Replace(delta, `"DeltaFullName":"a"`, `"DeltaFullName":"a/b"`, 1),
		strings.Replace(good, `"link":"pg_tblspc/16421"`, `"link":"../../../etc"`, 1),
		strings.Replace(good, `"link":"pg_tblspc/16421"`, `"link":"pg_tblspc/16422"`, 1),
		strings.Replace(good, `"loc":"/srv/pg/ts1"`, `"loc":"srv"`, 1),
		strings.Replace(good, `"loc":"/srv/pg/ts1"`, `"loc":""`, 1),
		strings.Replace(good, `["16421"]`, `["16421","16422"]`, 1),
		strings.Replace(good, `["16421"]`, `["16421","16421"]`, 1),
		strings.Replace(good, `["16421"]`, `[]`, 1),
		strings.Replace(good, `["16421"]`, `"16421"`, 1),
		strings.ReplaceAll(good, `16421`, `..`),
		`{"UserData":"` + strings.Repeat("x", maxValue) + `"}`,
		`{"Files":"` + strings.Repeat("x", 2*maxValue+8192) + `"}`,
		`{"Files":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		`{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	}
	for i := range len(good) {
		cases = append(cases, good[:i])
	}
	for _, text := range cases {
		_, err := ReadSentinel("base_X", strings.NewReader(text))
		if fault.Status(err) != fault.Data || !strings.HasPrefix(err.Error(), "read basebackups_005/base_X_backup_stop_sentinel.json: ") {
			t.Errorf("sentinel %.100q: %v", text, err)
		}
	}
	for _, text := range []string{"", "null", "[]", `{"start_time":5}`, `{"system_identifier":-1}`, `{"pg_version":"15"}`, "{}}"} {
		_, err := ReadMetadata("base_X", strings.NewReader(text))
		if fault.Status(err) != fault.Data || !strings.HasPrefix(err.Error(), "read basebackups_005/base_X/metadata.json: ") {
			t.Errorf("metadata %q: %v", text, err)
		}
	}
}

func TestAnOutageIsNoBrokenSentinel(t *testing.T) {
	cause := errors.New("connection reset")
	r := io.MultiReader(strings.NewReader(`{"LSN":1,`), iotest.ErrReader(cause))
	if _, err := ReadSentinel("b", r); !errors.Is(err, cause) || fault.Status(err) != fault.Failed {
		t.Errorf("%v, status %d", err, fault.Status(err))
	}
}

func TestInconsistentSentinelIsNotWritten(t *testing.T) {
	for _, s := range []Sentinel{
		{DeltaFrom: "a"}, {DeltaFrom: "a", DeltaLSN: 1, DeltaFullName: "a"}, {DeltaFrom: "a/b", DeltaLSN: 1, DeltaFullName: "a", DeltaCount: 1},
		{CompressedSize: -1}, {UserData: json.RawMessage("{")}, {Spec: &Spec{Tablespaces: []Tablespace{{OID: "1", Location: "/a", Link: "/etc"}}}},
		{Spec: &Spec{Tablespaces: []Tablespace{{"1", "/a", "pg_tblspc/1"}, {"1", "/b", "pg_tblspc/1"}}}},
	} {
		if p, err := s.Encode(); err == nil {
			t.Errorf("%+v was written: %s", s, p)
		}
	}
}

func FuzzReadSentinel(f *testing.F) {
	for _, name := range []string{"delta_chain", "tablespace", "mysql_stream"} {
		names, _ := filepath.Glob(filepath.Join(golden, name, "store/basebackups_005/*_sentinel.json"))
		for _, name := range names {
			p, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p)
		}
	}
	f.Add([]byte(`{"Files":{"a":[]},"TarFileSets":null,"DeltaFromLSN":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadSentinel("b", bytes.NewReader(data))
		if err != nil {
			if fault.Status(err) != fault.Data {
				t.Fatal(err)
			}
			return
		}
		p, err := s.Encode()
		if err != nil {
			return // a time that JSON cannot hold
		}
		again, err := ReadSentinel("b", bytes.NewReader(p))
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if s.Delta() != again.Delta() || s.LSN != again.LSN || !reflect.DeepEqual(s.Spec, again.Spec) {
			t.Fatalf("%+v became %+v", s, again)
		}
	})
}
