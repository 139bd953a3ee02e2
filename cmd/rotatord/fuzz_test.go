package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/bus"
)

// FuzzPast: who can write to the event stream can write anything there. It is shown without a
// panic, can be sent as JSON, and is not taken for whole.
func FuzzPast(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"com.rotatord.converged","subject":"shop/a","time":"2026-01-01T00:00:00Z","data":{"policy":"shop","certificate":"a","chain":{"sequence":1,"hash":"x"}}}`), []byte(`{"data":{"chain":null,"fingerprint":"zz","steps":[1]}}`))
	f.Add([]byte(`{"data":"x","type":"","time":"9999-12-31T23:59:59.999999999+23:59"}`), []byte(`{"subject":"shop/a","data":{"chain":{"sequence":18446744073709551615}}}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var past []bus.PastEvent
		checker := audit.NewChecker(time.Now().Add(-time.Hour))
		for i, data := range [][]byte{one, two} {
			var e bus.PastEvent
			if json.Unmarshal(data, &e) != nil {
				continue
			}
			e.Sequence = uint64(i + 1)
			past = append(past, e)
			checker.Read(audit.Entry{ID: e.ID, Type: e.Type, Subject: e.Subject, Time: e.Time, Data: e.Data})
			selection{policy: "shop", certificate: "a"}.isAbout(e)
		}
		h := historyView(past)
		if len(h.Events) != len(past) {
			t.Errorf("%d of %d are shown", len(h.Events), len(past))
		}
		if _, err := json.Marshal(h); err != nil {
			t.Errorf("it cannot be sent: %v", err)
		}
		checker.End(nil)
	})
}

// FuzzSelection: what requests over the socket and over NATS ask about is read or refused.
func FuzzSelection(f *testing.F) {
	f.Add([]byte(`{"of":"shop/a","limit":"3"}`))
	f.Add([]byte(`{"of":"/","limit":"-1"}`))
	f.Add([]byte(`{"of":"//","limit":99999999999999999999}`))
	f.Fuzz(func(t *testing.T, request []byte) {
		a, only, err := aboutOf(request)
		if err == nil && only.certificate != "" && only.policy == "" {
			t.Errorf("%q is about %+v, %+v", request, a, only)
		}
	})
}
