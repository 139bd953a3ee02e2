package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// triggerRounds is how often a trigger is measured.
const triggerRounds = 50

// trigger measures from a change on disk, and from a message, to the first call that leaves for the cloud, and to the end.
func trigger(ctx context.Context, b *bench, n int) error {
	if err := fileTriggers(ctx, b, n); err != nil {
		return err
	}
	return natsTriggers(ctx, b, n)
}

func fileTriggers(ctx context.Context, b *bench, n int) (err error) {
	e, err := newEstate(ctx, b, n, flat, 0, func(p *pairs) map[string]string { return map[string]string{"all": fmt.Sprintf(firewall, p.root)} })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	notified, err := renameToEvent(filepath.Join(b.dir, "notified"))
	if err != nil {
		return err
	}
	calling, err := rawCalls(ctx, e.cloud)
	if err != nil {
		return err
	}
	var first, converged []float64
	for i := range min(triggerRounds, n) {
		bundle, err := e.pairs.issue(i % n)
		if err != nil {
			return err
		}
		left, done, err := e.react(ctx, func() error { return e.pairs.replace(bundle, host(i%n)) })
		if err != nil {
			return err
		}
		first, converged = append(first, left), append(converged, done)
	}
	return b.report.addAll([]figure{
		{Name: "file: replaced to first call", Unit: "ms", Values: first, Limit: notified, LimitName: "rename to event", Goal: "p50 10"},
		{Name: "file: replaced to converged", Unit: "ms", Values: converged, Limit: calling, LimitName: "a raw HTTPS call"},
	})
}

func natsTriggers(ctx context.Context, b *bench, n int) (err error) {
	e, err := newEstate(ctx, b, n, flat, 0, func(p *pairs) map[string]string {
		return map[string]string{"all": fmt.Sprintf(firewall, p.root) + "when: {on: [nats]}\n"}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	raw, err := startRaw(ctx, filepath.Join(b.dir, "raw"))
	if err != nil {
		return err
	}
	defer raw.close()
	delivered, err := raw.publishToConsumer(ctx)
	if err != nil {
		return err
	}
	var first, converged []float64
	for i := range min(triggerRounds, n) {
		bundle, err := e.pairs.issue(i % n)
		if err != nil {
			return err
		}
		if err := e.pairs.replace(bundle, host(i%n)); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil { // the policy does not hear of it: what is measured is the message
			return err
		}
		left, done, err := e.react(ctx, func() error {
			return e.conn.Publish("rotatord.trigger.all", fmt.Appendf(nil, `{"certificate": %q}`, host(i%n)))
		})
		if err != nil {
			return err
		}
		first, converged = append(first, left), append(converged, done)
	}
	if err := b.report.addAll([]figure{
		{Name: "NATS: published to first call", Unit: "ms", Values: first, Limit: delivered, LimitName: "published to consumer", Goal: "p50 5"},
		{Name: "NATS: published to converged", Unit: "ms", Values: converged},
	}); err != nil {
		return err
	}
	return flood(ctx, b, e, raw, n)
}

// react does something and says after how many milliseconds the cloud got its first call, and the daemon told of the end.
func (e *estate) react(ctx context.Context, do func() error) (first, converged float64, err error) {
	calls := e.sim.Calls()
	e.restart()
	started := time.Now()
	if err := do(); err != nil {
		return 0, 0, err
	}
	last, err := e.await(ctx, 1)
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, e.daemon.log.String())
	}
	entries := e.sim.LedgerAfter(calls)
	if len(entries) == 0 {
		return 0, 0, errors.New("converged without a call")
	}
	return ms(entries[0].Time.Sub(started)), ms(last.Sub(started)), nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// floodShare is how many triggers there are for each assignment.
const floodShare = 5

// flood publishes triggers for all assignments several times over, and waits until the daemon has put them into its queue.
func flood(ctx context.Context, b *bench, e *estate, raw *rawStream, n int) error {
	total := n * floodShare
	before, err := e.heard(ctx)
	if err != nil {
		return err
	}
	started := time.Now()
	var took time.Duration
	cpu, err := e.daemon.during(func() error {
		if took, err = publishAll(ctx, e.conn, "rotatord.trigger.all", total, n); err != nil {
			return err
		}
		for have := 0.0; have < float64(total); {
			if err := pause(ctx, 50*time.Millisecond); err != nil { // each scrape is work for the daemon
				return err
			}
			if have, err = e.heard(ctx); err != nil {
				return err
			}
			if have -= before; time.Since(started) > patience {
				return fmt.Errorf("%g of %d triggers were taken", have, total)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	taken := time.Since(started)
	bare, err := publishAll(ctx, raw.conn, "raw.trigger", total, n)
	if err != nil {
		return err
	}
	limit := []float64{float64(total) / bare.Seconds()}
	return b.report.addAll([]figure{
		{Name: "flood: published", Unit: "1/s", Values: []float64{float64(total) / took.Seconds()}, Limit: limit, LimitName: "raw JetStream"},
		{Name: "flood: coalesced and in the queue", Unit: "1/s", Values: []float64{float64(total) / taken.Seconds()}, Limit: limit, LimitName: "raw JetStream"},
		{Name: "flood: CPU of the daemon a trigger", Unit: "ms", Values: []float64{cpu / float64(total) * 1e3}},
	})
}

// heard is how many triggers the daemon has acknowledged.
func (e *estate) heard(ctx context.Context) (float64, error) {
	s, err := e.daemon.scrape(ctx)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(s.text)) {
		if labels, value, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(labels, "rotatord_nats_messages_total{") &&
			strings.Contains(labels, `"trigger"`) && strings.Contains(labels, `"ack"`) {
			var have float64
			_, err := fmt.Sscan(value, &have)
			return have, err
		}
	}
	return 0, nil
}

// publishAll publishes triggers for n certificates in turn, each as a request that the stream answers, with many under way.
func publishAll(ctx context.Context, conn *nats.Conn, subject string, total, n int) (time.Duration, error) {
	inbox := nats.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := answers.SetPendingLimits(-1, -1); err != nil {
		return 0, err
	}
	const ahead = 256
	started := time.Now()
	for sent, answered := 0, 0; answered < total; {
		if sent < total && sent-answered < ahead {
			if err := conn.PublishRequest(subject, inbox, fmt.Appendf(nil, `{"certificate": %q}`, host(sent%n))); err != nil {
				return 0, err
			}
			sent++
			continue
		}
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return 0, err
		}
		if strings.Contains(string(m.Data), `"error"`) {
			return 0, fmt.Errorf("publish: %s", m.Data)
		}
		answered++
	}
	return time.Since(started), nil
}

// renameToEvent is how long it takes from a rename until fsnotify tells, in milliseconds.
func renameToEvent(dir string) (values []float64, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Add(dir); err != nil {
		return nil, err
	}
	from, to := filepath.Join(dir, ".new"), filepath.Join(dir, "file")
	for range triggerRounds {
		if err := os.WriteFile(from, []byte("content"), 0o600); err != nil {
			return nil, err
		}
		started := time.Now()
		if err := os.Rename(from, to); err != nil {
			return nil, err
		}
		for event := range w.Events {
			if event.Name == to {
				break
			}
		}
		values = append(values, ms(time.Since(started)))
	}
	return values, nil
}

// rawCalls are calls of plain net/http, in milliseconds.
func rawCalls(ctx context.Context, c *cloud) (values []float64, err error) {
	p := newPlain(c)
	for range triggerRounds {
		started := time.Now()
		if err := p.call(ctx, http.MethodGet, hostPath+"/"+p.hosts[host(0)], nil, nil, nil); err != nil {
			return nil, err
		}
		values = append(values, ms(time.Since(started)))
	}
	return values, nil
}

// rawStream is a stream of an embedded server with the settings of the daemon's own.
type rawStream struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
}

func startRaw(ctx context.Context, dir string) (_ *rawStream, err error) {
	r := &rawStream{}
	r.server, err = server.NewServer(&server.Options{ServerName: "raw", JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, Host: "127.0.0.1", Port: server.RANDOM_PORT})
	if err != nil {
		return nil, err
	}
	r.server.Start()
	if !r.server.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the raw server does not start")
	}
	if r.conn, err = nats.Connect(r.server.ClientURL()); err == nil {
		r.js, err = jetstream.New(r.conn)
	}
	if err == nil {
		_, err = r.js.CreateStream(ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.>"}})
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rawStream) close() {
	if r.conn != nil {
		r.conn.Close()
	}
	r.server.Shutdown()
	r.server.WaitForShutdown()
}

// publishToConsumer is how long a message takes to a consumer that waits for it, in milliseconds.
func (r *rawStream) publishToConsumer(ctx context.Context) (values []float64, err error) {
	consumer, err := r.js.CreateConsumer(ctx, "RAW", jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	for range triggerRounds {
		started := time.Now()
		if err := r.conn.Publish("raw.latency", []byte(`{"certificate": "one"}`)); err != nil {
			return nil, err
		}
		m, err := messages.Next()
		if err != nil {
			return nil, err
		}
		values = append(values, ms(time.Since(started)))
		if err := m.Ack(); err != nil {
			return nil, err
		}
	}
	return values, nil
}
