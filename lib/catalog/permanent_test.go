package catalog

import (
	"bytes"
	"testing"

	"walg/lib/fault"
)

func TestSetPermanentChangesNothingElse(t *testing.T) {
	for before, want := range map[string]string{
		`{"hostname":"h","is_permanent":false,"later":[1e999, {"is_permanent":false}]}`: `{"hostname":"h","is_permanent":true,"later":[1e999, {"is_permanent":false}]}`,
		` { "is_permanent" : true } `:                      ` { "is_permanent" : true } `,
		`{"is_permanent":false,"x":1,"is_permanent":null}`: `{"is_permanent":true,"x":1,"is_permanent":true}`,
		`{"hostname":"h"}`:                                 `{"hostname":"h","is_permanent":true}`,
		"{}\n":                                             `{"is_permanent":true}` + "\n",
	} {
		got, err := SetPermanent("b", []byte(before), true)
		if err != nil || string(got) != want {
			t.Errorf("%s became %s, %v", before, got, err)
		}
		if m, err := ReadMetadata("b", bytes.NewReader(got)); err != nil || !m.IsPermanent {
			t.Errorf("%s reads as %+v, %v", got, m, err)
		}
	}
	for _, name := range goldenFiles(t, "*/store/basebackups_005/base_*/metadata.json") {
		text := read(t, name)
		marked, err := SetPermanent("b", text, true)
		if err != nil || bytes.Equal(marked, text) {
			t.Fatalf("%s: %v", name, err)
		}
		if back, err := SetPermanent("b", marked, false); err != nil || !bytes.Equal(back, text) {
			t.Errorf("%s there and back:\n%s\n%s, %v", name, text, back, err)
		}
	}
	for _, broken := range []string{"", "{", "[]", `{"a":1`, `{"a":1}x`, `{"is_permanent":1}`, `null`} {
		if got, err := SetPermanent("b", []byte(broken), true); fault.Status(err) != fault.Data {
			t.Errorf("%q became %s, %v", broken, got, err)
		}
	}
}
