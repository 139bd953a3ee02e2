package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// offered are verbs that answer what they were asked, or refuse.
func offered() map[string]Verb {
	return map[string]Verb{
		"status": func(_ context.Context, _ Asker, request []byte) (int, []byte) { return 200, request },
		"rotate": func(context.Context, Asker, []byte) (int, []byte) { return 409, []byte(`{"error":"paused"}`) },
	}
}

func TestService(t *testing.T) {
	port := freePort(t)
	external(t, port, t.TempDir(), nil)
	b := prepared(t, at(t, onPort(port)))
	serving := background(t, func(ctx context.Context) error { return b.Serve(ctx, "1.2.3", offered()) })
	client := dial(t, onPort(port))
	for _, subject := range []string{"rotatord.control.status", "rotatord.control.node-1.status"} {
		eventually(t, "an answer on "+subject, func() bool {
			answer, err := client.Request(subject, []byte(`{"of":"shop"}`), time.Second)
			return err == nil && string(answer.Data) == `{"of":"shop"}`
		})
	}
	answer, err := client.Request("rotatord.control.rotate", nil, patience)
	must(t, err)
	if answer.Header.Get(micro.ErrorCodeHeader) != "409" || string(answer.Data) != `{"error":"paused"}` {
		t.Errorf("header %v, body %s", answer.Header, answer.Data)
	}
	// What `nats micro info rotatord` asks.
	found, err := client.Request("$SRV.INFO.rotatord", nil, patience)
	must(t, err)
	var info micro.Info
	must(t, json.Unmarshal(found.Data, &info))
	if info.Version != "1.2.3" || info.Metadata["node"] != "node-1" || len(info.Endpoints) != 4 {
		t.Errorf("info %+v", info)
	}
	// An answer is counted when it has been sent.
	eventually(t, "three answers to be counted", func() bool { return b.cfg.Meter.(*tally).count("control ack") >= 3 })
	serving.stop(t)
	eventually(t, "the end of the service", func() bool {
		_, err := client.Request("rotatord.control.status", nil, 200*time.Millisecond)
		return err != nil
	})
}

// The server says who asks from another account, whatever the client says of itself, and
// nobody does within the daemon's own.
func TestServiceKnowsWhoAsks(t *testing.T) {
	port, conf := freePort(t), filepath.Join(t.TempDir(), "nats.conf")
	must(t, os.WriteFile(conf, []byte(`accounts {
  DAEMONS {
    jetstream: enabled
    users: [{user: daemon, password: d}]
    exports: [{service: "rotatord.control.>"}]
  }
  OPEN { users: [{user: alice, password: a}], imports: [{service: {account: DAEMONS, subject: "rotatord.control.>"}, share: true}] }
  CLOSED { users: [{user: bob, password: b}], imports: [{service: {account: DAEMONS, subject: "rotatord.control.>"}}] }
}`), 0o600))
	external(t, port, t.TempDir(), func(o *server.Options) { must(t, o.ProcessConfigFile(conf)) })
	as := func(user string) string { return fmt.Sprintf("nats://%s@127.0.0.1:%d", user, port) }
	b := prepared(t, at(t, as("daemon:d")))
	verbs := map[string]Verb{"who": func(_ context.Context, by Asker, _ []byte) (int, []byte) {
		return 200, fmt.Appendf(nil, "%s/%s", by.Account, by.User)
	}}
	defer background(t, func(ctx context.Context) error { return b.Serve(ctx, "1.2.3", verbs) }).stop(t)
	for user, want := range map[string]string{"alice:a": "OPEN/alice", "bob:b": "CLOSED/", "daemon:d": "/"} {
		client := dial(t, as(user))
		m := nats.NewMsg("rotatord.control.who")
		m.Header.Set("Nats-Request-Info", `{"acc":"ADMINS","user":"root"}`)
		eventually(t, "the service", func() bool {
			answer, err := client.RequestMsg(m, time.Second)
			if err == nil && string(answer.Data) != want {
				t.Errorf("%s is taken for %s, want %s", user, answer.Data, want)
			}
			return err == nil
		})
	}
}

// What the server does not take is said, so that nobody waits for it in vain.
func TestServiceAnswerTooLarge(t *testing.T) {
	port := freePort(t)
	external(t, port, t.TempDir(), nil)
	b := prepared(t, at(t, onPort(port)))
	verbs := offered()
	verbs["plan"] = func(context.Context, Asker, []byte) (int, []byte) { return 200, make([]byte, 2<<20) }
	defer background(t, func(ctx context.Context) error { return b.Serve(ctx, "1.2.3", verbs) }).stop(t)
	client := dial(t, onPort(port))
	eventually(t, "the service", func() bool { _, err := client.Request("rotatord.control.status", nil, time.Second); return err == nil })
	answer, err := client.Request("rotatord.control.plan", nil, patience)
	must(t, err)
	var problem struct {
		Error string `json:"error"`
	}
	must(t, json.Unmarshal(answer.Data, &problem))
	if answer.Header.Get(micro.ErrorCodeHeader) != "413" || !strings.Contains(problem.Error, "2097152 bytes") {
		t.Errorf("header %v, body %s", answer.Header, answer.Data)
	}
}

// A slow verb keeps nobody else waiting.
func TestServiceAnswersSideBySide(t *testing.T) {
	port := freePort(t)
	external(t, port, t.TempDir(), nil)
	b := prepared(t, at(t, onPort(port)))
	release := make(chan struct{})
	verbs := offered()
	verbs["plan"] = func(context.Context, Asker, []byte) (int, []byte) { <-release; return 200, []byte("{}") }
	defer background(t, func(ctx context.Context) error { return b.Serve(ctx, "1.2.3", verbs) }).stop(t)
	defer close(release)
	client := dial(t, onPort(port))
	eventually(t, "the service", func() bool { _, err := client.Request("rotatord.control.status", nil, time.Second); return err == nil })
	for range 3 {
		must(t, client.Publish("rotatord.control.plan", nil))
	}
	_, err := client.Request("rotatord.control.status", []byte("{}"), patience)
	must(t, err)
}

func TestPast(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	for i := range 25 {
		for _, policy := range []string{"shop", "blog"} {
			must(t, b.Publish(t.Context(), Event{ID: fmt.Sprint(policy, i), Kind: "issued", Policy: policy, Subject: fmt.Sprintf("%s/%d", policy, i%3)}))
		}
	}
	ids := func(policy string, limit int, subject string) (found []string) {
		t.Helper()
		past, err := b.Past(t.Context(), policy, limit, func(e PastEvent) bool { return subject == "" || e.Subject == subject })
		must(t, err)
		for _, e := range past {
			found = append(found, e.ID)
		}
		return found
	}
	if got, want := ids("shop", 3, ""), []string{"shop24", "shop23", "shop22"}; !slices.Equal(got, want) {
		t.Errorf("newest %v, want %v", got, want)
	}
	if got, want := ids("shop", 2, "shop/0"), []string{"shop24", "shop21"}; !slices.Equal(got, want) {
		t.Errorf("of one certificate %v, want %v", got, want)
	}
	if got := ids("", 100, ""); len(got) != 50 || got[0] != "blog24" {
		t.Errorf("all: %v", got)
	}
	if got := ids("nope", 100, ""); len(got) != 0 {
		t.Errorf("of nobody: %v", got)
	}
}

// TestPastInPages: pages follow each other without a gap, and one that looks through no more
// than its reach says where to go on.
func TestPastInPages(t *testing.T) {
	t.Parallel()
	b := prepared(t, config(t, t.TempDir()))
	must(t, b.Publish(t.Context(), Event{ID: "first", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	for i := range 2*firstPast - 1 {
		_, err := b.js.PublishAsync(b.event("blog", "issued"), fmt.Appendf(nil, `{"id":"%d","subject":"blog/b"}`, i))
		must(t, err)
	}
	select {
	case <-b.js.PublishAsyncComplete():
	case <-time.After(patience):
		t.Fatal("the events were not stored")
	}
	any := func(PastEvent) bool { return true }
	last := uint64(0)
	for pages, before := 0, uint64(0); ; pages++ {
		found, next, err := b.PastPage(t.Context(), PastPage{Before: before, Limit: 900}, any)
		must(t, err)
		for _, e := range found {
			if last != 0 && e.Sequence != last-1 {
				t.Fatalf("%d follows %d", e.Sequence, last)
			}
			last = e.Sequence
		}
		if before = next; next == 0 {
			if last != 1 || pages != 4 {
				t.Errorf("%d pages end at %d", pages+1, last)
			}
			break
		}
	}
	shop := func(e PastEvent) bool { return e.Subject == "shop/a" }
	found, next, err := b.PastPage(t.Context(), PastPage{Limit: 1, Reach: 100}, shop)
	must(t, err)
	if len(found) != 0 || next != firstPast+1 {
		t.Errorf("looked through a hundred or so: %v, and goes on at %d", found, next)
	}
	found, next, err = b.PastPage(t.Context(), PastPage{Limit: 1, Reach: 100, Before: next}, shop)
	must(t, err)
	if len(found) != 1 || found[0].ID != "first" || next != 0 {
		t.Errorf("the second page: %+v, and goes on at %d", found, next)
	}
}

// A history that is longer than one look back is found all the same.
func TestPastGoesFurtherBack(t *testing.T) {
	t.Parallel()
	b := prepared(t, config(t, t.TempDir()))
	must(t, b.Publish(t.Context(), Event{ID: "first", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	for i := range firstPast + 10 {
		_, err := b.js.PublishAsync(b.event("blog", "issued"), fmt.Appendf(nil, `{"id":"%d","subject":"blog/b"}`, i))
		must(t, err)
	}
	select {
	case <-b.js.PublishAsyncComplete():
	case <-time.After(patience):
		t.Fatal("the events were not stored")
	}
	past, err := b.Past(t.Context(), "", 1, func(e PastEvent) bool { return e.Subject == "shop/a" })
	must(t, err)
	if len(past) != 1 || past[0].ID != "first" {
		t.Errorf("found %+v", past)
	}
}

// How long events are kept follows the configuration.
func TestEventAgeChanges(t *testing.T) {
	dir := t.TempDir()
	for _, age := range []time.Duration{24 * time.Hour, 48 * time.Hour} {
		cfg := config(t, dir)
		cfg.EventAge = age
		b := prepared(t, cfg)
		stream, err := b.js.Stream(t.Context(), "ROTATORD_EVENTS")
		must(t, err)
		if got := stream.CachedInfo().Config.MaxAge; got != age {
			t.Errorf("events are kept %s, want %s", got, age)
		}
		must(t, b.Close())
	}
}
