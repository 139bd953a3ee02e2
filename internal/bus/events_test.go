package bus

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestEventOnTheWire(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	event := Event{
		ID: "0195-1", Kind: "issued", Policy: "shop", Subject: "shop/shop.example.com",
		Time: time.Date(2026, 1, 2, 4, 4, 5, 600_000_000, time.FixedZone("", 3600)),
		Data: map[string]any{"policy": "shop", "fingerprint": "ab"},
	}
	must(t, b.Publish(t.Context(), event))
	must(t, b.Publish(t.Context(), event)) // said again after a lost answer
	stream, err := b.js.Stream(t.Context(), "ROTATORD_EVENTS")
	must(t, err)
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	must(t, err)
	if m.Subject != "rotatord.event.shop.issued" {
		t.Errorf("subject %s", m.Subject)
	}
	if got := m.Header.Get("Content-Type"); got != "application/cloudevents+json" {
		t.Errorf("content type %q", got)
	}
	if got := m.Header.Get(jetstream.MsgIDHeader); got != event.ID {
		t.Errorf("message id %q", got)
	}
	const golden = `{"specversion":"1.0","id":"0195-1","source":"/rotatord/node-1","type":"io.rotatord.issued",` +
		`"subject":"shop/shop.example.com","time":"2026-01-02T03:04:05.6Z","datacontenttype":"application/json",` +
		`"data":{"fingerprint":"ab","policy":"shop"}}`
	if string(m.Data) != golden {
		t.Errorf("event\n%s\nwant\n%s", m.Data, golden)
	}
	meter := b.cfg.Meter.(*tally)
	if p, d := meter.count("event published"), meter.count("event duplicate"); p != 1 || d != 1 {
		t.Errorf("counted %d published and %d duplicate", p, d)
	}
}

func TestEventThatCannotBeStored(t *testing.T) {
	b := open(t, config(t, t.TempDir())) // no streams yet
	event := Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}
	err := b.Publish(t.Context(), event)
	if err == nil || !strings.Contains(err.Error(), "publish event issued of shop/a") {
		t.Errorf("without a stream: %v", err)
	}
	if n := b.cfg.Meter.(*tally).count("event failed"); n != 1 {
		t.Errorf("counted %d failed", n)
	}
	event.Data = func() {}
	if err := b.Publish(t.Context(), event); err == nil {
		t.Error("data that is not JSON was published")
	}
	must(t, b.Prepare(t.Context()))
	event.Data = nil
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Publish(ended, event); err == nil {
		t.Error("published after the end of the context")
	}
	must(t, b.Publish(t.Context(), event))
}
