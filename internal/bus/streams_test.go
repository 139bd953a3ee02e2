package bus

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Subjects change while everything runs: those of local publishers too.
func TestSubjectsChange(t *testing.T) {
	cfg := withListener(config(t, t.TempDir()))
	cfg.Subjects = []string{"certs.old"}
	b := prepared(t, cfg)
	triggers := make(chan Trigger, 10)
	background(t, func(ctx context.Context) error { // as the daemon does
		for ctx.Err() == nil {
			_ = b.Triggers(ctx, func(tr Trigger) { triggers <- tr })
		}
		return ctx.Err()
	})
	must(t, b.SetSubjects(t.Context(), []string{"certs.new.*"}))
	eventually(t, "the connection", b.Connected)
	must(t, b.Prepare(t.Context())) // on a busy machine the change may be put off until then
	client := dial(t, b.ListenURL())
	send(t, client, "certs.new.one", "")
	if tr := receive(t, triggers, "the trigger"); tr.Subject != "certs.new.one" {
		t.Errorf("heard %s", tr.Subject)
	} else {
		tr.Done()
	}
}

// A subject that another stream has is refused, and nothing changes.
func TestSubjectsOfAnotherStream(t *testing.T) {
	port := freePort(t)
	external(t, port, t.TempDir(), nil)
	cfg := at(t, onPort(port))
	cfg.Subjects = []string{"certs.ours"}
	b := prepared(t, cfg)
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"other.>"}})
	must(t, err)
	if err := b.SetSubjects(t.Context(), []string{"other.certs"}); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("err %v", err)
	}
	must(t, b.Ready())
	if got := b.triggerSubjects(); strings.Join(got, " ") != "certs.ours rotatord.ack.* rotatord.trigger.*" {
		t.Errorf("subjects %v", got)
	}
}

// A server that is away is asked when it is back.
func TestSubjectsWhileTheServerIsAway(t *testing.T) {
	b := open(t, at(t, onPort(freePort(t))))
	must(t, b.SetSubjects(t.Context(), []string{"certs.new"}))
	if b.Ready() == nil {
		t.Error("ready")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if b.Prepare(ctx) == nil {
		t.Error("prepared")
	}
}

// Who cannot answer now is asked again, and keeps no reload from its other policies.
func TestRefusal(t *testing.T) {
	no := &jetstream.APIError{Code: 500, ErrorCode: 10065, Description: "subjects overlap with an existing stream"}
	if refusal(fmt.Errorf("stream X: %w", no)) != no {
		t.Error("a refusal is none")
	}
	for _, err := range []error{nil, context.DeadlineExceeded, fmt.Errorf("stream X: %w", &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"})} {
		if api := refusal(err); api != nil {
			t.Errorf("%v is taken for a refusal", err)
		}
	}
}
