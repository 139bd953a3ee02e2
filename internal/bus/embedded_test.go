package bus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// What no new start would mend is an error: somebody has to change the configuration.
func TestEmbeddedStoreUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	t.Run("a file", func(t *testing.T) { refused(t, config(t, file), "not a directory") })
	t.Run("below a file", func(t *testing.T) { refused(t, config(t, filepath.Join(file, "nats")), "not a directory") })
}

// used is a store with something in each stream, an assignment in the queue, and a trigger
// that was heard and another that was not.
func used(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "nats")
	b := prepared(t, withListener(config(t, dir)))
	must(t, b.Publish(t.Context(), Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	kv, err := b.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: b.JournalBucket()})
	must(t, err)
	_, err = kv.Put(t.Context(), "record", []byte("1"))
	must(t, err)
	client := dial(t, b.ListenURL())
	listening, triggers := hear(t, b)
	send(t, client, "rotatord.trigger.first", "")
	receive(t, triggers, "the trigger").Done()
	eventually(t, "the acknowledgement", func() bool { return b.cfg.Meter.(*tally).count("trigger ack") == 1 })
	listening.stop(t)
	send(t, client, "rotatord.trigger.second", "")
	worked := make(chan Work, 1)
	working := work(t, b, 1, func(_ context.Context, w Work) error { worked <- w; return nil }, nil)
	must(t, b.offer(t.Context(), Work{ID: ID{"shop", "a"}, Place: Any}))
	receive(t, worked, "the work")
	eventually(t, "the end of the work", func() bool { return b.cfg.Meter.(*tally).count("work ack") == 1 })
	working.stop(t)
	must(t, b.offer(t.Context(), Work{ID: ID{"shop", "b"}, Place: Any}))
	must(t, b.Close())
	return dir
}

// works shows that everything can be done with a bus, whatever became of its past.
func works(t *testing.T, b *Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, b.Prepare(ctx))
	must(t, b.Publish(ctx, Event{ID: "2", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	kv, err := b.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: b.JournalBucket()})
	must(t, err)
	_, err = kv.Put(ctx, "record", []byte("2"))
	must(t, err)
	entry, err := kv.Get(ctx, "record")
	must(t, err)
	if string(entry.Value()) != "2" {
		t.Errorf("the record is %s", entry.Value())
	}
	client := dial(t, b.ListenURL())
	listening, triggers := hear(t, b)
	send(t, client, "rotatord.trigger.third", "")
	for tr := receive(t, triggers, "the trigger"); tr.Policy != "third"; tr = receive(t, triggers, "the trigger") {
		tr.Done()
	}
	listening.stop(t)
	worked := make(chan Work, 10)
	working := work(t, b, 1, func(_ context.Context, w Work) error { worked <- w; return nil }, nil)
	must(t, b.offer(ctx, Work{ID: ID{"shop", "c"}, Place: Any}))
	for w := receive(t, worked, "the work"); w.ID.Certificate != "c"; w = receive(t, worked, "the work") {
	}
	working.stop(t)
}

// spoilers are what becomes of a file.
var spoilers = map[string]func([]byte) []byte{
	"emptied": func([]byte) []byte { return nil },
	"halved":  func(data []byte) []byte { return data[:len(data)/2] },
	"garbage": func(data []byte) []byte {
		garbage := make([]byte, len(data)+100)
		for i := range garbage {
			garbage[i] = byte(i*7 + 13)
		}
		return garbage
	},
	"one bit": func(data []byte) []byte {
		data = slices.Clone(data)
		if len(data) > 0 {
			data[len(data)*2/3] ^= 4
		}
		return data
	},
}

// TestEmbeddedSpoiltStore spoils each kind of file of a store in each way: the bus opens, and
// everything works again. What had to be given up for it is said, and kept.
func TestEmbeddedSpoiltStore(t *testing.T) {
	dir := used(t)
	const own = "jetstream/rotatord/streams/"
	for pattern, givenUp := range map[string]string{ // givenUp if the file cannot be read
		own + "KV_rotatord_journal/meta.inf":            own + "KV_rotatord_journal",
		own + "KV_rotatord_journal/msgs/*.blk":          "",
		own + "KV_rotatord_journal/msgs/index.db":       "",
		own + "ROTATORD_WORK/meta.sum":                  own + "ROTATORD_WORK",
		own + "ROTATORD_WORK/msgs/*.blk":                "",
		own + "ROTATORD_WORK/obs/at-any/meta.inf":       own + "ROTATORD_WORK/obs/at-any",
		own + "ROTATORD_WORK/obs/at-any/o.dat":          own + "ROTATORD_WORK/obs/at-any",
		own + "ROTATORD_TRIGGERS/meta.inf":              own + "ROTATORD_TRIGGERS",
		own + "ROTATORD_TRIGGERS/msgs/*.blk":            "",
		own + "ROTATORD_TRIGGERS/obs/node-node-1/o.dat": own + "ROTATORD_TRIGGERS/obs/node-node-1",
		own + "ROTATORD_EVENTS/msgs/*.blk":              "",
	} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		if len(files) == 0 {
			t.Fatalf("there is no %s", pattern)
		}
		file := strings.TrimPrefix(files[0], dir)
		for how, spoil := range spoilers {
			t.Run(strings.TrimPrefix(pattern, own)+" "+how, func(t *testing.T) {
				t.Parallel()
				copied := filepath.Join(t.TempDir(), "nats")
				must(t, os.CopyFS(copied, os.DirFS(dir)))
				data, err := os.ReadFile(filepath.Join(copied, file))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(copied, file), spoil(data), 0o600))
				cfg, said := withListener(config(t, copied)), &logs{}
				cfg.Logger = said.logger()
				works(t, open(t, cfg))
				kept, err := filepath.Glob(filepath.Join(copied+".broken-*", givenUp))
				must(t, err)
				if told := strings.Contains(said.String(), "level=ERROR msg=\"a part of the NATS store cannot be read; it is set aside"); told != (givenUp != "" && len(kept) == 1) {
					t.Errorf("set aside: %v, want %q\n%s", kept, givenUp, said)
				}
			})
		}
	}
}

// A store that is no store at all is set aside as a whole.
func TestEmbeddedStoreOfRubbish(t *testing.T) {
	for _, file := range []string{"jetstream", "jetstream/rotatord", "jetstream/rotatord/streams", "jetstream/rotatord/streams/ROTATORD_WORK", "jetstream/else"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir := used(t)
			path := filepath.Join(dir, file)
			must(t, os.RemoveAll(path))
			must(t, os.WriteFile(path, []byte("rubbish"), 0o600))
			works(t, open(t, withListener(config(t, dir))))
		})
	}
}

// A server whose store failed while it ran is started anew, on the same port, with all that
// it had; whoever used it goes on.
func TestEmbeddedStartsAnewWhenItsStoreFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	cfg, said := withListener(config(t, dir)), &logs{}
	cfg.Logger = said.logger()
	b := prepared(t, cfg)
	must(t, b.Publish(t.Context(), Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	client := dial(t, b.ListenURL())
	triggers, worked := make(chan Trigger, 10), make(chan Work, 10)
	again := func(f func(context.Context) error) { // as the daemon does
		background(t, func(ctx context.Context) error {
			for ctx.Err() == nil {
				if b.Prepare(ctx) == nil && f(ctx) != nil {
					_ = pause(ctx, 50*time.Millisecond)
				}
			}
			return ctx.Err()
		})
	}
	again(func(ctx context.Context) error { return b.Triggers(ctx, func(tr Trigger) { triggers <- tr }) })
	again(func(ctx context.Context) error {
		return b.Work(ctx, one, func(_ context.Context, w Work) error { worked <- w; return nil }, func(ID) {})
	})

	failStore(t, b)
	eventually(t, "the server's new start", func() bool { return strings.Contains(said.String(), "the NATS store can be written again") })
	if !strings.Contains(said.String(), "level=ERROR msg=\"the NATS store fails; nothing is rotated until it can be written again\"") {
		t.Errorf("the log does not say what happened:\n%s", said)
	}
	eventually(t, "the connection", b.Connected)
	must(t, b.Publish(t.Context(), Event{ID: "2", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	stream, err := b.js.Stream(t.Context(), "ROTATORD_EVENTS")
	must(t, err)
	if n := stream.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	eventually(t, "a trigger that is taken", func() bool {
		_, err := client.Request("rotatord.trigger.shop", nil, time.Second)
		return err == nil
	})
	receive(t, triggers, "the trigger").Done()
	must(t, b.offer(t.Context(), Work{ID: ID{"shop", "a"}, Place: Any}))
	receive(t, worked, "the work")
	must(t, b.Close())
}

// failStore does what the server does itself when it may not write any more, and says.
func failStore(t *testing.T, b *Bus) {
	t.Helper()
	b.store.mu.Lock()
	s := b.store.running
	b.store.mu.Unlock()
	must(t, s.ShutdownJetStream())
	s.Warnf("Filesystem permission denied while writing msg, disabling JetStream")
}

// A server that complains is looked at soon, one that is silent now and then.
func TestEmbeddedIsLookedAtWhenItComplains(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg, said := config(t, t.TempDir()), &logs{}
		cfg.Logger = said.logger()
		b := prepared(t, cfg)
		defer b.Close()
		mended := func() int { return strings.Count(said.String(), "the NATS store can be written again") }
		time.Sleep(3*checkStore + checkAnyway/2)
		failStore(t, b)
		time.Sleep(2 * checkStore)
		if n := mended(); n != 1 {
			t.Fatalf("it was started anew %d times, soon after it complained", n)
		}
		time.Sleep(3*checkStore + checkAnyway/2)
		must(t, b.store.running.ShutdownJetStream())
		time.Sleep(checkAnyway + 2*checkStore)
		if n := mended(); n != 2 {
			t.Fatalf("it was started anew %d times, the second time without a complaint", n)
		}
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
