package bus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A trigger waits for its daemon: sent while nothing listens, it is heard after a
// restart.
func TestTriggerSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	b := prepared(t, withListener(config(t, dir)))
	// With an answer: what was only sent may still be on its way into the stream.
	_, err := dial(t, b.ListenURL()).Request("rotatord.trigger.shop", []byte(`{"certificate":"shop.example.com","reason":"renewed","force":true}`), patience)
	must(t, err)
	must(t, b.Close())

	b = prepared(t, withListener(config(t, dir)))
	listening, triggers := hear(t, b)
	got := receive(t, triggers, "the trigger")
	got.Done()
	got.Done = nil
	if got.At.IsZero() || time.Since(got.At) > time.Hour {
		t.Errorf("taken at %s", got.At)
	}
	want := Trigger{Policy: "shop", Subject: "rotatord.trigger.shop", Certificate: "shop.example.com", Reason: "renewed", Force: true}
	if got.Policy != want.Policy || got.Subject != want.Subject || got.Certificate != want.Certificate || got.Reason != want.Reason || !got.Force || got.Problem != "" {
		t.Errorf("heard %+v, want %+v", got, want)
	}
	listening.stop(t)
	must(t, b.Close())

	// It was acknowledged: another restart hears only what is new.
	b = prepared(t, withListener(config(t, dir)))
	send(t, dial(t, b.ListenURL()), "rotatord.trigger.new", "")
	listening, triggers = hear(t, b)
	defer listening.stop(t)
	if got := receive(t, triggers, "the new trigger"); got.Policy != "new" {
		t.Errorf("heard %+v again", got)
	}
}

// A daemon that dies with a trigger in hand hears it again. The bubble's clock makes
// the wait short.
func TestTriggerWithoutDoneComesAgain(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, dir))
		must(t, b.conn.Publish("rotatord.trigger.shop", nil))
		_, triggers := hear(t, b)
		receive(t, triggers, "the trigger")
		must(t, b.Close()) // nobody called Done

		b = prepared(t, config(t, dir))
		defer b.Close()
		listening, triggers := hear(t, b)
		defer listening.stop(t)
		select {
		case got := <-triggers:
			if got.Policy != "shop" {
				t.Errorf("heard %+v", got)
			}
		case <-time.After(2 * triggerAckWait):
			t.Error("the trigger did not come again")
		}
	})
}

// A trigger waits as long as the assignment it means is being worked on, and must not
// come again meanwhile: a forced rotation would be done twice.
func TestTriggerInHandDoesNotComeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		must(t, b.conn.Publish("rotatord.trigger.shop", []byte(`{"force":true}`)))
		listening, triggers := hear(t, b)
		defer listening.stop(t)
		tr := receive(t, triggers, "the trigger")
		time.Sleep(10 * time.Minute)
		tr.Done()
		time.Sleep(10 * time.Minute)
		if n := len(triggers); n != 0 {
			t.Errorf("it came again %d times", n)
		}
	})
}

// Two daemons on one server each hear every trigger.
func TestEveryNodeHearsEveryTrigger(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), nil)
	var heard []<-chan Trigger
	for _, node := range []string{"node-1", "node-2"} {
		cfg := config(t, "")
		cfg.URL, cfg.Node = s.ClientURL(), node
		listening, triggers := hear(t, prepared(t, cfg))
		defer listening.stop(t)
		heard = append(heard, triggers)
	}
	send(t, dial(t, s.ClientURL()), "rotatord.trigger.shop", "")
	for _, triggers := range heard {
		receive(t, triggers, "the trigger").Done()
	}
}

func TestTriggerPayloads(t *testing.T) {
	cfg := withListener(config(t, t.TempDir()))
	cfg.Subjects = []string{"certs.renewed"}
	b := prepared(t, cfg)
	client := dial(t, b.ListenURL())
	listening, triggers := hear(t, b)
	defer listening.stop(t)
	const own = "rotatord.trigger.shop"
	binary := nats.Header{"ce-specversion": {"1.0"}, "ce-type": {"com.example.renewed"}, "ce-id": {"1"}, "ce-source": {"/x"}}
	for name, row := range map[string]struct {
		subject string
		header  nats.Header
		body    string
		want    Trigger
		problem string // part of it
	}{
		"empty":                    {own, nil, "", Trigger{Policy: "shop"}, ""},
		"white space":              {own, nil, " \r\n", Trigger{Policy: "shop"}, ""},
		"empty object":             {own, nil, "{}", Trigger{Policy: "shop"}, ""},
		"certificate":              {own, nil, `{"certificate":"a"}`, Trigger{Policy: "shop", Certificate: "a"}, ""},
		"own subject":              {"certs.renewed", nil, `{"reason":"certbot"}`, Trigger{Reason: "certbot"}, ""},
		"misspelt":                 {own, nil, `{"forse":true}`, Trigger{Policy: "shop"}, "forse"},
		"garbage":                  {own, nil, "renewed!", Trigger{Policy: "shop"}, "JSON"},
		"list":                     {own, nil, "[]", Trigger{Policy: "shop"}, "JSON"},
		"null":                     {own, nil, "null", Trigger{Policy: "shop"}, "JSON"},
		"two values":               {own, nil, `{"force":true}{"force":true}`, Trigger{Policy: "shop"}, "JSON"},
		"wrong type":               {own, nil, `{"force":"yes"}`, Trigger{Policy: "shop"}, "force"},
		"long reason":              {own, nil, `{"reason":"` + strings.Repeat("ä", 500) + `"}`, Trigger{Policy: "shop", Reason: strings.Repeat("ä", 100)}, ""},
		"structured":               {own, nil, `{"specversion":"1.0","id":"1","source":"/x","type":"t","data":{"certificate":"a","force":true,"else":1}}`, Trigger{Policy: "shop", Certificate: "a", Force: true}, ""},
		"structured, no data":      {own, nil, `{"specversion":"1.0","id":"1","source":"/x","type":"t"}`, Trigger{Policy: "shop"}, ""},
		"structured, other data":   {own, nil, `{"specversion":"1.0","id":"1","source":"/x","type":"t","data":"text"}`, Trigger{Policy: "shop"}, ""},
		"binary":                   {own, binary, `{"certificate":"a","else":1}`, Trigger{Policy: "shop", Certificate: "a"}, ""},
		"binary, no data":          {own, binary, "", Trigger{Policy: "shop"}, ""},
		"binary, data is not JSON": {own, binary, "<renewed/>", Trigger{Policy: "shop"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, client.PublishMsg(&nats.Msg{Subject: row.subject, Header: row.header, Data: []byte(row.body)}))
			got := receive(t, triggers, "the trigger")
			got.Done()
			if got.Subject != row.subject || got.Policy != row.want.Policy || got.Certificate != row.want.Certificate || got.Reason != row.want.Reason || got.Force != row.want.Force {
				t.Errorf("heard %+v, want %+v", got, row.want)
			}
			if (row.problem == "") != (got.Problem == "") || !strings.Contains(got.Problem, row.problem) {
				t.Errorf("problem %q, want %q", got.Problem, row.problem)
			}
		})
	}
}

func TestAcknowledgements(t *testing.T) {
	b := prepared(t, withListener(config(t, t.TempDir())))
	client := dial(t, b.ListenURL())
	listening, triggers := hear(t, b)
	defer listening.stop(t)
	full := Acknowledgement{Certificate: "app", Fingerprint: "ab", Party: "grafana"}
	const body = `{"certificate":"app","fingerprint":"ab","party":"grafana"}`
	for name, row := range map[string]struct {
		body    string
		want    Acknowledgement
		problem string
	}{
		"plain":      {body, full, ""},
		"CloudEvent": {`{"specversion":"1.0","id":"1","source":"/x","type":"t","data":` + body + `}`, full, ""},
		"misspelt":   {`{"fingerprnt":"ab","party":"grafana"}`, Acknowledgement{Party: ""}, "fingerprnt"},
		"empty":      {"", Acknowledgement{}, "empty"},
		"garbage":    {"yes", Acknowledgement{}, "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, client.Publish("rotatord.ack.sso", []byte(row.body)))
			got := receive(t, triggers, "the acknowledgement")
			got.Done()
			if got.Policy != "sso" || got.Acknowledgement == nil {
				t.Fatalf("heard %+v", got)
			}
			if row.problem == "" && *got.Acknowledgement != row.want {
				t.Errorf("heard %+v, want %+v", *got.Acknowledgement, row.want)
			}
			if (row.problem == "") != (got.Problem == "") || !strings.Contains(got.Problem, row.problem) {
				t.Errorf("problem %q, want %q", got.Problem, row.problem)
			}
		})
	}
}

func TestHugeTriggerIsRefused(t *testing.T) {
	b := prepared(t, withListener(config(t, t.TempDir())))
	client := dial(t, b.ListenURL())
	answer, err := client.Request("rotatord.trigger.shop", make([]byte, maxTrigger+1), patience)
	must(t, err)
	if !strings.Contains(string(answer.Data), "message size exceeds maximum allowed") {
		t.Errorf("answer %s", answer.Data)
	}
}

// A listener that the server has forgotten says so, so that its caller begins again.
func TestTriggersEndWhenTheServerLostThem(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	listening, triggers := hear(t, b)
	must(t, b.conn.Publish("rotatord.trigger.shop", nil))
	receive(t, triggers, "the trigger").Done()
	must(t, b.js.DeleteStream(t.Context(), "ROTATORD_TRIGGERS"))
	if err := receive(t, listening.ended, "the end"); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Triggers ended with %v", err)
	}
}
