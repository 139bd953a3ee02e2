package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// at is a bus that uses an external server.
func at(t testing.TB, url string) Config {
	cfg := config(t, "")
	cfg.URL = url
	return cfg
}

func onPort(port int) string { return fmt.Sprintf("nats://127.0.0.1:%d", port) }

// logged makes a configuration log where the test can read it.
func logged(cfg Config) (Config, *logs) {
	l := &logs{}
	cfg.Logger = l.logger()
	return cfg, l
}

func TestExternalComesUpLater(t *testing.T) {
	port := freePort(t)
	started := time.Now()
	b := open(t, at(t, onPort(port)))
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("Open took %s", took)
	}
	if b.Connected() {
		t.Error("connected to nothing")
	}
	if err := b.Ready(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("127.0.0.1:%d", port)) {
		t.Errorf("Ready says %v", err)
	}
	preparing := background(t, b.Prepare)
	external(t, port, t.TempDir(), nil)
	if err := receive(t, preparing.ended, "Prepare"); err != nil {
		t.Fatal(err)
	}
	must(t, b.Ready())
	must(t, b.Publish(t.Context(), Event{ID: "1", Kind: "issued", Policy: "shop", Subject: "shop/a"}))
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	b := open(t, at(t, onPort(freePort(t))))
	background(t, b.Prepare).stop(t)
}

func TestBadURLs(t *testing.T) {
	for _, url := range []string{"nats://user:hunter2@:bad:port", "nats://user:hun/ter2@127.0.0.1:4222", "nats://127.0.0.1:port", "nats://", "http://user:hunter2@127.0.0.1:1:2"} {
		b, err := Open(at(t, url))
		if err == nil {
			_ = b.Close()
			t.Errorf("Open(%q) succeeded", url)
			continue
		}
		if strings.Contains(err.Error(), "ter2") {
			t.Errorf("the password is in %q", err)
		}
	}
}

// The server goes away in the middle of everything and comes back: what was sent
// before and what is sent after is all done, and nothing has to be started again.
func TestExternalRestarts(t *testing.T) {
	port, store := freePort(t), t.TempDir()
	s := external(t, port, store, nil)
	b := prepared(t, at(t, onPort(port)))
	listening, triggers := hear(t, b)
	defer listening.stop(t)
	q := NewQueue(b)
	defer background(t, func(ctx context.Context) error { q.Run(ctx); return ctx.Err() }).stop(t)
	done := make(chan ID, 10)
	defer work(t, b, 1, func(_ context.Context, w Work) error { done <- w.ID; return nil }, q.Freed).stop(t)
	trigger := func(certificate string) {
		c := dial(t, onPort(port))
		defer c.Close()
		send(t, c, "rotatord.trigger.shop", `{"certificate":"`+certificate+`"}`)
	}
	pass := func(certificate string) {
		for { // an acknowledgement may have been lost with the server: then it comes again
			tr := receive(t, triggers, "the trigger for "+certificate)
			q.Enqueue(Work{ID: ID{"shop", tr.Certificate}, Place: Any, Asked: time.Now()}, tr.Done)
			if tr.Certificate == certificate {
				break
			}
		}
		for receive(t, done, "the work for "+certificate).Certificate != certificate {
		}
	}
	trigger("before")
	pass("before")

	kill(s)
	eventually(t, "the disconnection", func() bool { return !b.Connected() })
	if err := b.Ready(); err == nil {
		t.Error("ready without a server")
	}
	accepted := make(chan bool, 1)
	q.Enqueue(Work{ID: ID{"shop", "meanwhile"}, Place: Any, Asked: time.Now()}, func() { accepted <- true })
	external(t, port, store, nil)
	receive(t, accepted, "the offer made while the server was away")
	for receive(t, done, "the work offered meanwhile").Certificate != "meanwhile" {
	}
	trigger("after")
	pass("after")
	must(t, b.Ready())
	meter := b.cfg.Meter.(*tally)
	meter.mu.Lock()
	defer meter.mu.Unlock()
	if meter.reconnected != 1 {
		t.Errorf("%d reconnections were counted", meter.reconnected)
	}
}

// A server that comes back without its store has lost the streams. Both listeners say
// so; after Prepare everything works again.
func TestExternalLosesItsStore(t *testing.T) {
	port := freePort(t)
	s := external(t, port, t.TempDir(), nil)
	b := prepared(t, at(t, onPort(port)))
	listening, _ := hear(t, b)
	working := work(t, b, 1, func(context.Context, Work) error { return nil }, nil)
	eventually(t, "the subscriptions", func() bool {
		_, err := b.js.Consumer(t.Context(), "ROTATORD_WORK", "at-node-1")
		_, err2 := b.js.Consumer(t.Context(), "ROTATORD_TRIGGERS", "node-node-1")
		return err == nil && err2 == nil
	})
	kill(s)
	external(t, port, t.TempDir(), nil)
	for what, r := range map[string]*running{"Triggers": listening, "Work": working} {
		if err := receive(t, r.ended, "the end of "+what); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s ended with %v", what, err)
		}
	}
	must(t, b.Prepare(t.Context()))
	offer(t, b, Any, shop, nil)
}

func TestStreamsThatCannotBeUsed(t *testing.T) {
	for name, row := range map[string]struct {
		stream jetstream.StreamConfig
		want   string
	}{
		"queue with another retention": {
			jetstream.StreamConfig{Name: "A_WORK", Subjects: []string{"a.work.>"}},
			"stream A_WORK: is there already, and its retention is Limits, not WorkQueue",
		},
		"queue that takes everything": {
			jetstream.StreamConfig{Name: "A_WORK", Subjects: []string{"a.work.>"}, Retention: jetstream.WorkQueuePolicy},
			"stream A_WORK: is there already, and it does not refuse a second message of a subject",
		},
		"events in memory": {
			jetstream.StreamConfig{Name: "A_EVENTS", Subjects: []string{"a.event.>"}, Storage: jetstream.MemoryStorage},
			"stream A_EVENTS: is there already, and it is kept in memory only",
		},
		"subjects of another stream": {
			jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"a.>"}},
			"stream A_TRIGGERS: create: nats: API error: code=400 err_code=10065 description=subjects overlap with an existing stream",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A server of its own: one that has just deleted a stream may refuse to make it again.
			s := external(t, -1, t.TempDir(), nil)
			js, err := jetstream.New(dial(t, s.ClientURL()))
			must(t, err)
			_, err = js.CreateStream(t.Context(), row.stream)
			must(t, err)
			cfg, l := logged(at(t, s.ClientURL()))
			cfg.Prefix = "a"
			b := open(t, cfg)
			preparing := background(t, b.Prepare)
			eventually(t, "the message "+row.want, func() bool { return strings.Contains(l.String(), row.want) })
			if err := b.Ready(); err == nil {
				t.Error("ready with a stream that cannot be used")
			}
			// The operator mends it, and nobody has to restart rotatord.
			must(t, js.DeleteStream(t.Context(), row.stream.Name))
			if err := receive(t, preparing.ended, "Prepare"); err != nil {
				t.Error(err)
			}
			for _, stream := range []string{"A_TRIGGERS", "A_WORK", "A_EVENTS"} {
				must(t, js.DeleteStream(t.Context(), stream))
			}
		})
	}
}

// Daemons with other policies share the trigger stream.
func TestTriggerStreamKeepsOthersSubjects(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), nil)
	cfg := at(t, s.ClientURL())
	cfg.Subjects = []string{"certs.shop", "certs.shop"}
	prepared(t, cfg)
	cfg.Subjects = []string{"certs.api"}
	b := prepared(t, cfg)
	prepared(t, cfg) // and nothing is lost by those that begin again
	stream, err := b.js.Stream(t.Context(), "ROTATORD_TRIGGERS")
	must(t, err)
	have := stream.CachedInfo().Config.Subjects
	slices.Sort(have)
	if want := []string{"certs.api", "certs.shop", "rotatord.ack.*", "rotatord.trigger.*"}; !slices.Equal(have, want) {
		t.Errorf("subjects %v, want %v", have, want)
	}
}

// The server is the judge of what union makes.
func TestServerAcceptsUnion(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), nil)
	_, err := jetstream.New(dial(t, s.ClientURL()))
	must(t, err)
	for i, subjects := range [][2][]string{
		{{"certs.*"}, {"certs.shop", "certs.api"}},
		{{"certs.shop"}, {"certs.>", "other"}},
		{{"a.*.c"}, {"a.b.c", "a.b.d"}},
	} {
		cfg := at(t, s.ClientURL())
		cfg.Prefix = fmt.Sprintf("p%d", i)
		for j := range subjects {
			cfg.Subjects = nil
			for _, subject := range subjects[j] {
				cfg.Subjects = append(cfg.Subjects, fmt.Sprintf("s%d.%s", i, subject))
			}
			prepared(t, cfg)
		}
	}
}

const (
	goodPassword = "right-Hunter2"
	badPassword  = "wrong-Hunter2"
)

func withUser(o *server.Options) { o.Username, o.Password = "rotatord", goodPassword }

// A wrong password is said, never shown, and looked up again until it is right.
func TestWrongPasswordIsReplaced(t *testing.T) {
	t.Parallel()
	s := external(t, -1, t.TempDir(), withUser)
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte(badPassword), 0o600))
	cfg, l := logged(at(t, s.ClientURL()))
	var asked atomic.Int64
	cfg.User, cfg.Password = "rotatord", func() (string, error) {
		asked.Add(1)
		data, err := os.ReadFile(file)
		return string(data), err
	}
	b := open(t, cfg)
	preparing := background(t, b.Prepare)
	eventually(t, "a reason in Ready", func() bool {
		err := b.Ready()
		return err != nil && strings.Contains(strings.ToLower(err.Error()), "authorization violation")
	})
	eventually(t, "a warning in the log", func() bool {
		return slices.ContainsFunc(strings.Split(l.String(), "\n"), func(line string) bool {
			return strings.Contains(line, "level=WARN") && strings.Contains(strings.ToLower(line), "authorization violation")
		})
	})
	// Several refusals later it is still trying.
	eventually(t, "several attempts", func() bool { return asked.Load() >= 4 })
	must(t, os.WriteFile(file, []byte(goodPassword), 0o600))
	if err := receive(t, preparing.ended, "Prepare"); err != nil {
		t.Fatal(err)
	}
	must(t, b.Ready())
	if n := strings.Count(l.String(), "level=WARN msg=\"nats cannot be reached"); n != 1 {
		t.Errorf("one reason was told %d times", n)
	}
	for _, secret := range []string{goodPassword, badPassword} {
		if strings.Contains(l.String(), secret) {
			t.Error("a password is in the log")
		}
	}
}

// The password is read again at each connection: it may be replaced while the server
// is away.
func TestPasswordIsReadAtReconnect(t *testing.T) {
	port, store := freePort(t), t.TempDir()
	s := external(t, port, store, withUser)
	password := make(chan string, 1)
	password <- goodPassword
	cfg := at(t, onPort(port))
	cfg.User, cfg.Password = "rotatord", func() (string, error) {
		p := <-password
		password <- p
		return p, nil
	}
	b := prepared(t, cfg)
	kill(s)
	external(t, port, store, func(o *server.Options) { o.Username, o.Password = "rotatord", "new" })
	eventually(t, "the refusal in Ready", func() bool {
		err := b.Ready()
		return err != nil && strings.Contains(strings.ToLower(err.Error()), "authorization violation")
	})
	<-password
	password <- "new"
	eventually(t, "the new connection", b.Connected)
	offer(t, b, Any, shop, nil)
}

func TestPasswordThatCannotBeRead(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), withUser)
	cfg, l := logged(at(t, s.ClientURL()))
	cfg.User, cfg.Password = "rotatord", func() (string, error) { return "", errors.New("no such file") }
	b := open(t, cfg)
	if b.Ready() == nil {
		t.Error("ready without a password")
	}
	if !strings.Contains(l.String(), "no such file") {
		t.Errorf("the log does not say why:\n%s", l)
	}
}

func TestNKeyLogin(t *testing.T) {
	// Made once for this test; it opens nothing else.
	const (
		public = "UDHN2QOMNW3LHGTY3MW557VXXRMU4YWVSL2MJMF25QIIVHAZ6HR6Z5SC"
		seed   = "SUAOICISC5IPFGDRTZ3BIQ6UIS7SVFGLD76DEPBDIT2NFISFM63POT5UOA"
	)
	s := external(t, freePort(t), t.TempDir(), func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	file := filepath.Join(t.TempDir(), "seed")
	must(t, os.WriteFile(file, []byte(seed), 0o600))
	cfg := at(t, s.ClientURL())
	cfg.NKeySeedFile = file
	b := prepared(t, cfg)
	offer(t, b, Any, shop, nil)

	must(t, os.WriteFile(file, []byte("not a seed"), 0o600))
	if b, err := Open(cfg); err == nil {
		_ = b.Close()
		t.Error("a file without a seed was taken")
	} else if !strings.Contains(err.Error(), file) {
		t.Errorf("error %q does not name the file", err)
	}
}

func TestTLS(t *testing.T) {
	authority, pair := selfSigned(t)
	s := external(t, freePort(t), t.TempDir(), func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	})
	cfg := at(t, s.ClientURL())
	cfg.TLS = &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}
	b := prepared(t, cfg)
	offer(t, b, Any, shop, nil)

	strange, l := logged(at(t, s.ClientURL()))
	strange.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	b = open(t, strange)
	eventually(t, "the reason in Ready", func() bool {
		err := b.Ready()
		return err != nil && strings.Contains(err.Error(), "certificate signed by unknown authority")
	})
	background(t, b.Prepare)
	eventually(t, "the reason in the log", func() bool { return strings.Contains(l.String(), "unknown authority") })
}

// A server without JetStream is a mistake of the operator's that the log explains.
func TestServerWithoutJetStream(t *testing.T) {
	s := external(t, freePort(t), "", func(o *server.Options) { o.JetStream = false })
	cfg, l := logged(at(t, s.ClientURL()))
	b := open(t, cfg)
	background(t, b.Prepare)
	eventually(t, "a warning", func() bool { return strings.Contains(l.String(), "JetStream does not answer") })
}

// Each server of a cluster has its own reason. Each is told once, until the next loss.
func TestReasonsAreToldOnce(t *testing.T) {
	cfg, l := logged(at(t, onPort(freePort(t))))
	cfg.URL = strings.Join([]string{onPort(freePort(t)), onPort(freePort(t)), onPort(freePort(t))}, ",")
	b := open(t, cfg)
	eventually(t, "many attempts", func() bool { return strings.Count(l.String(), "nats cannot be reached") > 12 })
	// The first attempt of all has one of its own.
	if n := strings.Count(l.String(), "level=WARN msg=\"nats cannot be reached"); n != 4 {
		t.Errorf("four reasons were told %d times:\n%s", n, l)
	}
	for i := range 2 * maxTold {
		b.unreachable(fmt.Errorf("another port in each: %d", i))
	}
	if n := strings.Count(l.String(), "level=WARN msg=\"nats cannot be reached"); n != maxTold {
		t.Errorf("%d reasons were told", n)
	}
}
