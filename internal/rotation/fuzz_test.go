package rotation

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// FuzzRecord: the journal may hold anything that reads as a record. What is planned with it ends,
// is the same each time, and takes nothing away that is served or that rotatord does not own: that
// comes from the look, not from the record.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"state":"converged","targets":{"edge":{"kind":"waf","endpoints":["shop.example.com"],"active":{"handle":"a","fingerprint":"0100000000000000000000000000000000000000000000000000000000000000","owned":true,"since":"2026-01-01T00:00:00Z"},"superseded":[{"handle":"b","owned":true,"since":"0001-01-01T00:00:00Z"},{"handle":"x","owned":true}]}}}`,
		`{"targets":{"edge":{"superseded":[{"handle":"b","owned":true,"since":"2020-01-01T00:00:00Z"},{"handle":"b"},{"handle":"a","owned":true}],"failures":-9223372036854775808,"retry_at":"9999-12-31T23:59:59Z"},"other":{}},"intent":{"step":"retire","target":"edge","handle":"a"}}`,
		`{"verify_attempts":9223372036854775807,"successes":-1,"verify_next":"0000-01-01T00:00:00Z","rolled_back":{"times":-5},"issued":[{"handle":"","at":"2026-01-01T00:00:00Z"}],"issuing":{"since":"9999-01-01T00:00:00Z"},"outbox":[{}]}`,
		`{"wanted":null,"targets":null,"probes":[{}],"head":{"sequence":18446744073709551615}}`,
	} {
		f.Add([]byte(seed), int64(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, hours int64) {
		var record Record
		if json.Unmarshal(data, &record) != nil {
			return
		}
		now := epoch.Add(time.Duration(hours%100_000) * time.Hour)
		o := Observation{
			ID: ID{Policy: "shop", Certificate: "shop.example.com"}, Policy: testPolicy(), Began: now, Trigger: TriggerFile, Record: record,
			Wanted: &Wanted{Info: certs.Info{Fingerprint: certs.Fingerprint{1}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour)}},
		}
		v := View{Name: "edge", Kind: "waf", Endpoints: []string{"shop.example.com", "www.example.com"}, Looked: true}
		v.Observed.Endpoints = []providers.Endpoint{{Name: "shop.example.com", Serves: "a"}, {Name: "www.example.com", Serves: "b"}}
		for _, handle := range []providers.Handle{"a", "b", "c"} {
			v.Observed.Remotes = append(v.Observed.Remotes, providers.Remote{Handle: handle, Fingerprint: certs.Fingerprint{handle[0]}, Owned: handle != "b"})
		}
		v.Observed.Remotes[0].InUse = []string{"somewhere else"}
		o.Targets = []View{v}
		steps := Plan(o, now)
		if again := Plan(o, now); !reflect.DeepEqual(steps, again) {
			t.Errorf("first %v, then %v", steps, again)
		}
		for _, s := range steps {
			if s.Kind == StepRetire && (s.Handle == "a" || s.Handle == "b") {
				t.Errorf("%+v is served, or not ours", s)
			}
		}
		written, err := json.Marshal(record)
		var again Record
		if err != nil || json.Unmarshal(written, &again) != nil {
			t.Errorf("a record that was read cannot be written: %v", err)
		}
	})
}
