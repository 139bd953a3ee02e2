package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/journal"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// maxPuts bounds the single records that are written to compare with an append, and those that
	// are written by many at once.
	maxPuts = 1000
	// writers is how many write at once: as many as the daemon has at one place.
	writers = 8
)

// records starts a daemon over n pairs with an empty journal, and with one of n records, and measures what they add.
// Before that it writes single records.
func records(ctx context.Context, b *bench, n int) error {
	p, err := generate(ctx, filepath.Join(b.dir, "pairs"), n, flat)
	if err != nil {
		return err
	}
	dir, err := b.watching(p.root, "")
	if err != nil {
		return err
	}
	var empty, emptyCPU, full, fullCPU, raw, rawCPU []float64
	for range b.rounds {
		if err := startOnce(ctx, b, dir, &empty, &emptyCPU); err != nil {
			return err
		}
	}
	store := filepath.Join(dir, "state", "nats")
	if err := withJournal(ctx, store, func(js jetstream.JetStream, j *journal.Journal) error {
		return errors.Join(puts(ctx, b, dir, j), fill(ctx, b, js, j, n))
	}); err != nil {
		return err
	}
	for range b.rounds {
		if err := startOnce(ctx, b, dir, &full, &fullCPU); err != nil {
			return err
		}
		started := time.Now()
		cpu, err := ownCPU(func() error {
			return withJournal(ctx, store, func(js jetstream.JetStream, _ *journal.Journal) error { return readRaw(ctx, js, n) })
		})
		if err != nil {
			return err
		}
		raw, rawCPU = append(raw, time.Since(started).Seconds()), append(rawCPU, cpu)
	}
	const limit = "open the store, read the bucket raw"
	return errors.Join(
		b.report.add(figure{Name: "start to ready, journal empty", Unit: "s", Values: empty}),
		b.report.add(figure{Name: "start to ready, a record each", Unit: "s", Values: full}),
		b.report.add(figure{Name: "what the records add", Unit: "s", Values: less(full, empty), Limit: raw, LimitName: limit, Goal: "3 s at 100k"}),
		b.report.add(figure{Name: "what the records add, CPU", Unit: "s", Values: less(fullCPU, emptyCPU), Limit: rawCPU, LimitName: limit}),
		os.RemoveAll(filepath.Join(b.dir, "pairs")))
}

// less is what each value is above the median of others.
func less(values, others []float64) []float64 {
	var above []float64
	for _, v := range values {
		above = append(above, v-median(others))
	}
	return above
}

func startOnce(ctx context.Context, b *bench, dir string, wall, cpu *[]float64) error {
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	*wall = append(*wall, time.Since(d.started).Seconds())
	used, err := d.cpu()
	*cpu = append(*cpu, used)
	if err != nil {
		return errors.Join(err, d.kill())
	}
	err = d.stop()
	return err
}

// withJournal opens the journal as the daemon does, over the embedded server.
func withJournal(ctx context.Context, store string, use func(jetstream.JetStream, *journal.Journal) error) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	server, err := bus.Open(bus.Config{Prefix: "rotatord", Node: "bench", StoreDir: store, Logger: quiet, Meter: unmetered{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.AwaitConnection(ctx); err != nil {
		return err
	}
	j, err := journal.Open(ctx, server.JetStream(), server.JournalBucket(), 1)
	if err != nil {
		return err
	}
	return use(server.JetStream(), j)
}

// unmetered is a bus.Meter.
type unmetered struct{}

func (unmetered) Message(string, string) {}
func (unmetered) Reconnected()           {}

// recordOf is what the journal has of the i-th certificate once it has come to rest at one target.
func recordOf(i int) ([]byte, error) {
	now := time.Now()
	r := rotation.Record{State: rotation.StateConverged, Since: now, WrittenAt: now, LookedAt: now, WantedAt: now, VerifiedAt: now}
	r.Wanted.SubjectCN, r.Wanted.IssuerCN, r.Wanted.KeyAlgorithm, r.Wanted.SerialNumber = host(i), "bench intermediate", "EC256", fmt.Sprintf("%039x", i)
	r.Wanted.Names = []string{host(i)}
	r.Wanted.NotBefore, r.Wanted.NotAfter = now, now.Add(90*24*time.Hour)
	r.Wanted.Fingerprint = sha256.Sum256([]byte(host(i)))
	r.Verified, r.Good = r.Wanted.Fingerprint, r.Wanted.Fingerprint
	r.Leaves = append(r.Leaves, r.Wanted)
	r.Targets = map[string]rotation.TargetRecord{"nginx": {
		Kind: "file", Endpoints: []string{host(i)}, LookedFor: r.Wanted.Fingerprint, LastAttemptAt: now, LastSuccessAt: now,
		Active: &rotation.Placed{Fingerprint: r.Wanted.Fingerprint, Handle: providers.Handle(host(i)), NotBefore: now, NotAfter: r.Wanted.NotAfter, Since: now},
	}}
	return json.Marshal(r)
}

func keyOf(i int) (key, certificate string) { return "watched." + bus.Token(host(i)), host(i) }

// puts writes records one after the other, and appends as many bytes to a file with a sync after each, in alternation.
func puts(ctx context.Context, b *bench, dir string, j *journal.Journal) error {
	file, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var put, bare []float64
	key, certificate := "measured."+bus.Token(host(0)), host(0)
	var revision journal.Revision
	for i := range min(maxPuts, 200*b.rounds) {
		data, err := recordOf(i)
		if err != nil {
			return err
		}
		started := time.Now()
		if revision, err = j.Save(ctx, key, "measured", certificate, data, revision); err != nil {
			return err
		}
		written := time.Now()
		_, err = file.Write(data)
		if err := errors.Join(err, file.Sync()); err != nil {
			return err
		}
		put, bare = append(put, written.Sub(started).Seconds()*1e3), append(bare, time.Since(written).Seconds()*1e3)
	}
	return b.report.add(figure{Name: "one record written", Unit: "ms", Values: put, Limit: bare, LimitName: "append and sync", Goal: "ratio 1.5"})
}

// fill writes a record for each certificate. Some of them are written as a daemon's workers do in the onboarding of
// many, the others without waiting for each answer: that is the fastest that single records go.
func fill(ctx context.Context, b *bench, js jetstream.JetStream, j *journal.Journal, n int) error {
	first := min(n/2, maxPuts)
	started := time.Now()
	var group errgroup.Group
	group.SetLimit(writers)
	for i := range first {
		group.Go(func() error {
			data, err := recordOf(i)
			if err != nil {
				return err
			}
			key, certificate := keyOf(i)
			_, err = j.Save(ctx, key, "watched", certificate, data, 0)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	together := float64(first) / time.Since(started).Seconds()
	started = time.Now()
	if err := publishRecords(ctx, js, first, n); err != nil {
		return err
	}
	ahead := float64(n-first) / time.Since(started).Seconds()
	return errors.Join(
		b.report.add(figure{Name: fmt.Sprintf("records written by %d at once", writers), Unit: "1/s", Values: []float64{together}, Limit: []float64{ahead}, LimitName: "published without waiting"}))
}

func publishRecords(ctx context.Context, js jetstream.JetStream, from, to int) error {
	for i := from; i < to; i++ {
		data, err := recordOf(i)
		if err != nil {
			return err
		}
		key, certificate := keyOf(i)
		value, err := json.Marshal(map[string]any{"version": 1, "policy": "watched", "certificate": certificate, "record": json.RawMessage(data)})
		if err != nil {
			return err
		}
		for { // until there is room for one more that is not acknowledged
			_, err = js.PublishAsync("$KV.rotatord_journal."+key, value)
			if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
	}
	return ctx.Err()
}

// readRaw reads every value of the bucket, and does nothing with it.
func readRaw(ctx context.Context, js jetstream.JetStream, n int) error {
	bucket, err := js.KeyValue(ctx, "rotatord_journal")
	if err != nil {
		return err
	}
	watch, err := bucket.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }()
	count := 0
	for update := range watch.Updates() {
		if update == nil {
			break
		}
		_, err = io.Discard.Write(update.Value())
		count++
	}
	if count < n {
		err = errors.Join(err, fmt.Errorf("the bucket has %d records", count))
	}
	return err
}
