package rotation

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

var eventSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(EventSchema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("event.json", text); err != nil {
		return nil, err
	}
	return c.Compile("event.json")
})

// cloudEvent is an event as the bus publishes it.
func cloudEvent(t *testing.T, e Event) []byte {
	t.Helper()
	text, err := json.Marshal(struct {
		SpecVersion     string    `json:"specversion"`
		ID              string    `json:"id"`
		Source          string    `json:"source"`
		Type            string    `json:"type"`
		Subject         string    `json:"subject"`
		Time            time.Time `json:"time"`
		DataContentType string    `json:"datacontenttype"`
		Data            EventData `json:"data"`
	}{"1.0", e.ID, "/rotatord/web-1", e.Type(), e.Subject(), e.Time, "application/json", e.Data})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkEvent holds an event against the schema and the chain.
func (w *world) checkEvent(e Event) {
	w.t.Helper()
	// The schema costs more than all the rest of a look: some of each kind are enough for it.
	if w.judged[e.Kind]++; w.judged[e.Kind] <= 3 {
		checkSchema(w.t, e)
	}
	data, err := json.Marshal(e.Data)
	if err != nil {
		w.t.Fatal(err)
	}
	hash, err := audit.Hash(audit.Entry{ID: e.ID, Type: e.Type(), Subject: e.Subject(), Time: e.Time, Data: data})
	link := e.Data.Chain
	if err != nil || hash != link.Hash {
		w.t.Errorf("event %s has hash %s, not %s: %v", e.ID, link.Hash, hash, err)
	}
	if !w.follows(link) {
		w.t.Errorf("event %s does not follow %+v: %+v", e.ID, w.head, link)
	}
	w.head = audit.Head{Sequence: link.Sequence, Hash: link.Hash, At: e.Time}
}

// follows reports whether an event follows the one before, or, once the journal was lost or set
// back, an older one.
func (w *world) follows(link audit.Link) bool {
	after := func(head audit.Head) bool {
		next := head.Next()
		return link.Sequence == next.Sequence && link.Previous == next.Previous && link.PreviousAt.Equal(next.PreviousAt)
	}
	if after(w.head) || after(audit.Head{}) || w.lost {
		w.lost = false
		return true
	}
	for _, e := range w.events {
		if link.Sequence <= w.head.Sequence && after(audit.Head{Sequence: e.Data.Chain.Sequence, Hash: e.Data.Chain.Hash, At: e.Time}) {
			return true
		}
	}
	return false
}

func checkSchema(t *testing.T, e Event) {
	t.Helper()
	schema, err := eventSchema()
	if err != nil {
		t.Fatal(err)
	}
	text := cloudEvent(t, e)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s\n%v", text, err)
	}
}

// TestEventSchema: the schema knows every kind and every member, and takes nothing that is not
// an event.
func TestEventSchema(t *testing.T) {
	var schema struct {
		Properties struct {
			Type struct{ Enum []string }
		}
		Defs map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(EventSchema, &schema); err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, kind := range EventKinds() {
		types = append(types, audit.TypePrefix+string(kind))
	}
	if slices.Sort(types); !slices.Equal(types, slices.Sorted(slices.Values(schema.Properties.Type.Enum))) {
		t.Errorf("the schema has %v, the engine %v", schema.Properties.Type.Enum, types)
	}
	var members []string
	for field := range reflect.TypeFor[EventData]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		members = append(members, name)
	}
	known := schema.Defs["data"].Properties
	for _, name := range members {
		if known[name] == nil {
			t.Errorf("the schema does not know %q", name)
		}
	}
	if len(known) != len(members) {
		t.Errorf("the schema knows %d members, there are %d", len(known), len(members))
	}
	compiled, err := eventSchema()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{}`, `[]`, `{"specversion":"1.0","id":"1","source":"/rotatord/a","type":"io.rotatord.paused","subject":"shop","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{}}`} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if compiled.Validate(value) == nil {
			t.Errorf("the schema takes %s", bad)
		}
	}
}

var update = flag.Bool("update", false, "write the examples of docs/events.md anew")

const eventDocs = "../../docs/events.md"

// TestEventsAreDocumented: every kind has a section in docs/events.md, with an example that was
// published like this.
func TestEventsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(eventDocs)
	if err != nil {
		t.Fatal(err)
	}
	examples := eventExamples(t)
	doc := string(text)
	for _, kind := range EventKinds() {
		e, ok := examples[kind]
		if !ok {
			t.Errorf("no story leads to %s", kind)
			continue
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, cloudEvent(t, e), "", "  "); err != nil {
			t.Fatal(err)
		}
		section := regexp.MustCompile("(?s)\n### " + string(kind) + "\n\n.+?\n\n```json\n(.*?)\n```\n")
		at := section.FindStringSubmatchIndex(doc)
		switch {
		case at == nil:
			t.Errorf("docs/events.md has no section %q with text and an example", kind)
		case *update:
			doc = doc[:at[2]] + pretty.String() + doc[at[3]:]
		case doc[at[2]:at[3]] != pretty.String():
			t.Errorf("the example of %s in docs/events.md is not what is published; go test ./internal/rotation -run Documented -update\n%s", kind, pretty.String())
		}
	}
	if *update {
		if err := os.WriteFile(eventDocs, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// eventExamples lives through a story for each kind, and keeps the first event of it
// that says most.
func eventExamples(t *testing.T) map[EventKind]Event {
	t.Helper()
	examples := map[EventKind]Event{}
	story := func(p *policy.Policy, tell func(w *world)) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, p)
			tell(w)
			var all []Event
			for _, e := range w.events {
				all = append(all, e)
			}
			slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Data.Chain.Sequence, b.Data.Chain.Sequence) })
			for _, e := range all {
				if known, ok := examples[e.Kind]; !ok || known.Data.Previous.IsZero() && !e.Data.Previous.IsZero() {
					examples[e.Kind] = e
				}
			}
		})
	}
	replaced := func(w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.wanted = w.bundle(2)
	}
	story(testPolicy(), func(w *world) {
		replaced(w)
		w.drive(TriggerFile, 3*time.Hour) // retired
		w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(48*time.Hour)))
		w.drive(TriggerDeadline, 7*time.Hour) // drifted, repaired
		w.wanted.Problem = "shop.pem: block 1: truncated"
		w.drive(TriggerFile, time.Minute) // quarantined
	})
	story(testPolicy(), func(w *world) {
		w.fault = func(call string, after bool) error {
			if call == "stage" && !after {
				return &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "create certificate", Code: "WAF.00021010", Message: "no permission", RequestID: "request-7"}
			}
			return nil
		}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute) // failed
	})
	story(testPolicy(), func(w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.braked, w.wanted = "3 of 10 certificates changed within an hour; brake.max_share is 20%", w.bundle(2)
		w.drive(TriggerFile, time.Minute) // braked
	})
	unserved := testPolicy()
	unserved.Verify.OnFailure, unserved.Retain.Superseded = policy.OnFailureRollBack, new(1)
	story(unserved, func(w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.wanted, w.propagation = w.bundle(2), 1000*time.Hour
		w.drive(TriggerFile, time.Hour) // rolled back
	})
	frozen := testPolicy()
	frozen.When = parsedWhen(t, `{freeze: [{from: 2000-01-01, to: 2001-01-01}], expiry_wins: 10d}`)
	story(frozen, func(w *world) {
		w.bind("shop.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-80*24*time.Hour), time.Now().Add(5*24*time.Hour)))
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute) // expiring
	})
	synctest.Test(t, func(t *testing.T) {
		w, i := issuingWorld(t)
		w.drive(TriggerStartup, time.Minute)
		for _, e := range w.events {
			if e.Kind == EventIssued {
				examples[EventIssued] = e
			}
		}
		if i.newest().IsZero() {
			t.Error("nothing was issued")
		}
	})
	at := time.Date(2000, 1, 3, 9, 30, 0, 0, time.UTC)
	hold := &Hold{By: "user alice", Reason: "the cloud is being moved", Since: at, Until: at.Add(8 * time.Hour)}
	policySHA256 := fmt.Sprintf("%x", sha256.Sum256([]byte("shop")))
	paused, head, err := HoldEvent("shop", policySHA256, hold.By, hold, at, audit.Head{})
	if err != nil {
		t.Fatal(err)
	}
	resumed, _, err := HoldEvent("shop", policySHA256, "nats account OPERATORS user bob", nil, at.Add(time.Hour), head)
	if err != nil {
		t.Fatal(err)
	}
	reloaded, _, err := ReloadEvent("shop", policySHA256, "user alice", "changed, on node web-1", at, audit.Head{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Event{paused, resumed, reloaded} {
		checkSchema(t, e)
		examples[e.Kind] = e
	}
	return examples
}

// TestDecisionsAreToldOnce: a decision is told when it is another one, an operator hears of each,
// and triggers that lead to nothing leave no trace, however many there are.
func TestDecisionsAreToldOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ask := func(q Request) (told []Event) {
			t.Helper()
			before := len(w.order)
			q.Asked = time.Now()
			if err := w.engine().Process(t.Context(), w.id, q); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			for _, e := range w.events {
				if int(e.Data.Chain.Sequence) > before && e.Kind == EventPlanned {
					told = append(told, e)
				}
			}
			return told
		}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		for range 3 {
			if told := ask(Request{Trigger: TriggerNATS, By: "nats"}); len(told) > 0 {
				t.Errorf("a trigger that led to nothing is told: %+v", told)
			}
		}
		if told := ask(Request{Trigger: TriggerManual, By: "user ada"}); len(told) != 1 || told[0].Data.By != "user ada" || told[0].Data.Reason != "nothing is to be done now" {
			t.Errorf("an operator's wish: %+v", told)
		}
		w.hold = &Hold{By: "user ada", Since: time.Now()}
		w.wanted = w.bundle(2)
		if told := ask(Request{Trigger: TriggerFile}); len(told) != 1 || told[0].Data.Outcome != OutcomeHeld || len(told[0].Data.Steps) != 1 || told[0].Data.Steps[0] != "hold (paused)" {
			t.Errorf("a held change: %+v", told)
		}
		if told := ask(Request{Trigger: TriggerNATS, By: "nats"}); len(told) > 0 {
			t.Errorf("told again: %+v", told)
		}
		w.hold = nil
		if told := ask(Request{Trigger: TriggerPolicy}); len(told) != 1 || told[0].Data.Outcome != OutcomeOK || len(told[0].Data.Steps) != 2 {
			t.Errorf("what is done then: %+v", told)
		}
	})
}

// TestStreamThatTakesNoEvents: a certificate is rotated all the same, as often as there is a new
// one, the record does not grow without end, and what is left is published once that works again.
func TestStreamThatTakesNoEvents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.fault = func(call string, _ bool) error {
			if call == "publish" {
				return errors.New("the stream refuses it")
			}
			return nil
		}
		for n := byte(1); n <= 40; n++ {
			w.wanted = w.bundle(n)
			w.wanted.Info.NotBefore = time.Now().UTC()
			if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerFile, Asked: time.Now()}); err == nil {
				t.Fatal("that nothing can be published is not said")
			}
			time.Sleep(3 * time.Hour)
			if !w.boundTo("shop.example.com", n) {
				t.Fatalf("bundle %d is not bound: %s", n, w.journal)
			}
		}
		if r := w.record(); len(r.Outbox) != maxOutbox || len(w.journal) > 200<<10 {
			t.Errorf("%d events wait in a record of %d bytes", len(r.Outbox), len(w.journal))
		}
		w.fault = nil
		w.lost = true
		w.drive(TriggerDeadline, time.Hour)
		if r := w.record(); len(r.Outbox) != 0 || len(w.order) < maxOutbox {
			t.Errorf("%d events wait, %d were published", len(r.Outbox), len(w.order))
		}
	})
}
