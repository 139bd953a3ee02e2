package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/journal"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/scheduler"
)

// journalWait bounds the reading of a journal by a command.
const journalWait = 15 * time.Second

// withOffline looks at everything from this process, without a daemon and without changing
// anything: directories and clouds as the configuration says, and the journal, of which a
// copy is read. Where that cannot be had, notes say what is not known.
func withOffline(ctx context.Context, g *globals, look func(context.Context, *daemon, []string) error) error {
	set, err := policy.Load(g.config, os.Getenv)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	d := &daemon{log: log, alarm: scheduler.NewAlarm(), began: time.Now(), started: make(chan struct{}), configFile: g.config}
	d.metrics = metrics.New(metrics.Config{Version: versionText(), Revision: revision, Look: func() metrics.Look { return metrics.Look{} }})
	inForce, err := d.build(set, nil)
	if err != nil {
		return err
	}
	d.generation.Store(inForce)
	d.records = newRecords(func(rotation.ID, rotation.Record) {}, func() {})
	d.records.node, d.records.here = d.recordsOf, set.Config.Node
	d.brake = &brake{limits: set.Config.Brake, records: d.records}
	d.engine = rotation.New(rotation.Config{
		Assembly: d.assembly, Journal: readRecords{d.records}, Prober: probe.Prober{}, Hold: d.records.hold, Logger: log,
		Skew: func() time.Duration { return time.Duration(d.skew.Load()) },
	})
	ctx, cancel := context.WithCancel(ctx)
	group, running := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		_ = group.Wait()
	}()
	d.group, d.running = group, running
	notes := []string{"no daemon was asked: this is how it looks from here"}
	if err := d.readJournal(ctx, set); err != nil {
		notes = append(notes, "the journal cannot be read ("+err.Error()+"): times of grace and of retries, and what was proven, are not known")
	}
	d.start(running, inForce, nil)
	if !inForce.awaitScans(ctx) {
		return ctx.Err()
	}
	return look(ctx, d, notes)
}

// readRecords are the mirrored records as a journal.
type readRecords struct{ *records }

// Load implements rotation.Journal.
func (r readRecords) Load(_ context.Context, id rotation.ID) (rotation.Record, rotation.Revision, error) {
	return r.get(id), 0, nil
}

// readJournal mirrors the journal as it is now.
func (d *daemon) readJournal(ctx context.Context, set *policy.Set) error {
	ctx, cancel := context.WithTimeout(ctx, journalWait)
	defer cancel()
	cfg, err := busConfig(set, d.metrics, d.log)
	if err != nil {
		return err
	}
	if cfg.URL == "" {
		scratch, err := os.MkdirTemp("", "rotatord-journal-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		if err := copyStore(cfg.StoreDir, filepath.Join(scratch, "nats")); err != nil {
			return err
		}
		cfg.StoreDir, cfg.Listener = filepath.Join(scratch, "nats"), nil
	}
	b, err := bus.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if err := b.AwaitConnection(ctx); err != nil {
		return err
	}
	j, err := journal.Existing(ctx, b.JetStream(), b.JournalBucket())
	if err != nil {
		return err
	}
	d.records.attach(j)
	watching, done := context.WithCancel(ctx)
	defer done()
	if err := d.records.watch(watching, done); !errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return err
	}
	return nil
}

// copyStore copies the buckets of the embedded server's directory; the history, which may be
// large, is not looked at. A server writes to its store even where it only reads, as another
// user perhaps, so that the original is left alone.
func copyStore(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("find the journal: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("the journal's directory %s is no directory", from)
	}
	buckets, err := fs.Glob(os.DirFS(from), "jetstream/*/streams/KV_*")
	if err == nil && len(buckets) == 0 {
		_, err = os.ReadDir(from) // there is none, or it may not be seen
	}
	for _, bucket := range buckets {
		if err == nil {
			err = os.CopyFS(filepath.Join(to, bucket), os.DirFS(filepath.Join(from, bucket)))
		}
	}
	if err != nil {
		return fmt.Errorf("copy the journal: %w", err)
	}
	return nil
}
