package journal

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzDecode: whatever lies in the bucket, it is a record or a problem, never both and never
// neither.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"version":1,"policy":"shop","certificate":"a","record":{"state":"converged"}}`, `{"version":2,"record":{}}`, `{"version":1,"policy":"a,\"record\":1","record":{},"record":{"a":1}}`, `{"version":1,"record":{}},"policy":{}}`, `{,"record":[]}`, `{"a":{"b":1,"record":2},"record":[3]}`, `{"version":1,"record":null}`, `{"version":-1,"policy":[]}`, ``, `[]`, `{"record":"` + "\xff" + `"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		e := decode(value, 7)
		if (e.Problem == nil) != (e.Record != nil) || e.Revision != 7 {
			t.Errorf("%+v", e)
		}
		var plain envelope
		problem := json.Unmarshal(value, &plain)
		if e, err := unwrap(value); (err == nil) != (problem == nil) || err == nil && !reflect.DeepEqual(e, plain) {
			t.Errorf("opened %+v, %v; plainly decoded %+v, %v", e, err, plain, problem)
		}
		if e.Record != nil && !json.Valid(e.Record) {
			t.Errorf("the record is %q", e.Record)
		}
	})
}
