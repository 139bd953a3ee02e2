package bus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestEmbeddedKeepsItsStreams(t *testing.T) {
	dir := t.TempDir()
	b := open(t, config(t, dir))
	if err := b.Ready(); err == nil || !strings.Contains(err.Error(), "not prepared") {
		t.Errorf("Ready before Prepare: %v", err)
	}
	must(t, b.Prepare(t.Context()))
	must(t, b.Ready())
	if url := b.ListenURL(); url != "" {
		t.Errorf("a bus without a listener listens on %s", url)
	}
	must(t, b.Publish(t.Context(), Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	must(t, b.Close())

	again := prepared(t, config(t, dir))
	stream, err := again.js.Stream(t.Context(), "ROTATORD_EVENTS")
	must(t, err)
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d events after a restart, want 1", n)
	}
}

func TestEmbeddedPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	cfg := config(t, t.TempDir())
	cfg.Listener = &Listener{Host: "127.0.0.1", Port: taken.Addr().(*net.TCPAddr).Port}
	refused(t, cfg, "address already in use")
}

func TestEmbeddedStoreUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	t.Run("a file", func(t *testing.T) { refused(t, config(t, file), "not a directory") })
	t.Run("below a file", func(t *testing.T) { refused(t, config(t, filepath.Join(file, "nats")), "not a directory") })
	t.Run("without a place for its own directory", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600))
		refused(t, config(t, dir), "storage directory")
	})
}

// refused opens a bus that must fail soon, with words that tell why.
func refused(t *testing.T, cfg Config, want string) {
	t.Helper()
	started := time.Now()
	b, err := Open(cfg)
	if err == nil {
		_ = b.Close()
		t.Fatal("the bus opened")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not contain %q", err, want)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s to fail", took)
	}
}

// localPublishers are the two kinds of listener with the client that may come in.
var localPublishers = map[string]struct {
	listener Listener
	login    []nats.Option
}{
	"anybody":            {Listener{Host: "127.0.0.1", Port: -1}, nil},
	"user with password": {Listener{Host: "127.0.0.1", Port: -1, User: "hook", Password: "p w"}, []nats.Option{nats.UserInfo("hook", "p w")}},
}

func TestListenerPublishesAndListens(t *testing.T) {
	for name, row := range localPublishers {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, t.TempDir())
			cfg.Listener = &row.listener
			cfg.Subjects = []string{"certs.shop.renewed"}
			b := prepared(t, cfg)
			client := dial(t, b.ListenURL(), row.login...)
			listening, triggers := hear(t, b)
			defer listening.stop(t)

			send(t, client, "rotatord.trigger.shop", "")
			if tr := receive(t, triggers, "the trigger"); tr.Policy != "shop" {
				t.Errorf("trigger %+v", tr)
			}
			send(t, client, "certs.shop.renewed", `{"certificate":"a"}`)
			if tr := receive(t, triggers, "the trigger on the policy's own subject"); tr.Subject != "certs.shop.renewed" || tr.Certificate != "a" {
				t.Errorf("trigger %+v", tr)
			}
			answer, err := client.Request("rotatord.trigger.shop", nil, patience)
			must(t, err)
			if !strings.Contains(string(answer.Data), `"stream":"ROTATORD_TRIGGERS"`) {
				t.Errorf("answer %s", answer.Data)
			}
			events, err := client.SubscribeSync("rotatord.event.>")
			must(t, err)
			must(t, client.Flush())
			must(t, b.Publish(t.Context(), Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
			event, err := events.NextMsg(patience)
			must(t, err)
			if event.Subject != "rotatord.event.shop.issued" {
				t.Errorf("event on %s", event.Subject)
			}
		})
	}
}

func TestListenerRefusesEverythingElse(t *testing.T) {
	for name, row := range localPublishers {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, t.TempDir())
			cfg.Listener = &row.listener
			b := prepared(t, cfg)
			kv, err := b.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: b.JournalBucket()})
			must(t, err)
			_, err = kv.Put(t.Context(), "record", []byte("secret"))
			must(t, err)
			violations := make(chan error, 100)
			client := dial(t, b.ListenURL(), append(row.login, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))...)

			for _, subject := range []string{
				"rotatord.work.any.shop.a", "rotatord.event.shop.issued", "$KV.rotatord_journal.record", "$JS.API.STREAM.NAMES",
				"$JS.API.STREAM.DELETE.ROTATORD_WORK", "$JS.ACK.x", "$SYS.REQ.SERVER.PING", "_INBOX.rotatord.x", "else",
			} {
				send(t, client, subject, "{}")
				expectViolation(t, violations, "Publish to \""+subject+"\"")
			}
			for _, subject := range []string{">", "$KV.>", "rotatord.>", "rotatord.work.>", "rotatord.trigger.>", "$JS.>", "$SYS.>", "else"} {
				_, err := client.SubscribeSync(subject)
				must(t, err)
				must(t, client.Flush())
				expectViolation(t, violations, "Subscription to \""+subject+"\"")
			}
			js, err := jetstream.New(client)
			must(t, err)
			soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := js.Stream(soon, "KV_rotatord_journal"); err == nil {
				t.Error("a local client can look at the journal's stream")
			}
			if entry, err := kv.Get(t.Context(), "record"); err != nil || string(entry.Value()) != "secret" {
				t.Errorf("the record is %v, %v", entry, err)
			}
		})
	}
}

func expectViolation(t *testing.T, violations <-chan error, want string) {
	t.Helper()
	if err := receive(t, violations, "a refusal: "+want); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), want) {
		t.Errorf("refused with %q, want %q", err, want)
	}
}

// The server answers a trigger at whatever subject the sender names; that must not be
// a way into the queue, the events, the journal, or another client's ear.
func TestListenerReplySubjectLeadsNowhere(t *testing.T) {
	b := prepared(t, withListener(config(t, t.TempDir())))
	kv, err := b.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: b.JournalBucket()})
	must(t, err)
	client := dial(t, b.ListenURL())
	for _, reply := range []string{"rotatord.work.any.shop.a", "rotatord.event.shop.issued", "$KV.rotatord_journal.record", "$JS.API.STREAM.DELETE.ROTATORD_EVENTS"} {
		must(t, client.PublishRequest("rotatord.trigger.shop", reply, nil))
	}
	// The answer to this one comes after those to the others.
	_, err = client.Request("rotatord.trigger.shop", nil, patience)
	must(t, err)
	for stream, want := range map[string]uint64{"ROTATORD_WORK": 0, "ROTATORD_EVENTS": 0, "ROTATORD_TRIGGERS": 5} {
		s, err := b.js.Stream(t.Context(), stream)
		must(t, err)
		if n := s.CachedInfo().State.Msgs; n != want {
			t.Errorf("%d messages in %s, want %d", n, stream, want)
		}
	}
	if _, err := kv.Get(t.Context(), "record"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the journal has a record: %v", err)
	}
}

func TestListenerCannotOverhearRotatord(t *testing.T) {
	b := prepared(t, withListener(config(t, t.TempDir())))
	client := dial(t, b.ListenURL())
	everything, err := client.SubscribeSync("_INBOX.>")
	must(t, err)
	must(t, client.Flush())
	_, err = b.js.Stream(t.Context(), "ROTATORD_WORK") // a question with an answer
	must(t, err)
	_, err = client.Request("rotatord.trigger.shop", nil, patience) // the last message to come
	must(t, err)
	for {
		m, err := everything.NextMsg(patience)
		must(t, err)
		if strings.HasPrefix(m.Subject, "_INBOX.rotatord.") {
			t.Errorf("overheard %s: %s", m.Subject, m.Data)
		}
		if strings.Contains(string(m.Data), "ROTATORD_TRIGGERS") {
			return
		}
	}
}

func TestListenerWantsItsPassword(t *testing.T) {
	cfg := withListener(config(t, t.TempDir()))
	cfg.Listener.User, cfg.Listener.Password = "hook", "right"
	b := prepared(t, cfg)
	for name, login := range map[string][]nats.Option{
		"nobody": nil, "wrong password": {nats.UserInfo("hook", "wrong")}, "rotatord itself": {nats.UserInfo(internalUser, "")},
	} {
		if c, err := nats.Connect(b.ListenURL(), login...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				c.Close()
			}
		}
	}
}
