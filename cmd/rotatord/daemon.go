package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/journal"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/scheduler"
	"github.com/rotatord/rotatord/internal/watcher"
)

const (
	// workersPerPlace is how many assignments of one place are worked on at once; the
	// limits of each cloud's services are what really bounds the calls.
	workersPerPlace = 8
	// staleBeat is the age of the scheduler's heartbeat at which the process counts as
	// stuck: several times its longest sleep.
	staleBeat = 3 * time.Minute
	// tryAgain is the pause after a part of the daemon failed.
	tryAgain = 2 * time.Second
	askQueue = time.Second
)

// daemon is everything that rotatord run starts.
type daemon struct {
	set     *policy.Set
	log     *slog.Logger
	metrics *metrics.Metrics
	lock    io.Closer
	http    *admin.Server
	bus     *bus.Bus
	queue   *bus.Queue
	records *records
	alarm   *scheduler.Alarm
	engine  *rotation.Engine
	parts   map[string]*part
	// beat is when the scheduler last woke, in Unix nanoseconds; replayed is set when
	// the journal has been read.
	beat     atomic.Int64
	replayed atomic.Bool
}

// newDaemon builds everything and binds the listeners; nothing runs before Run. What it
// started is undone if it fails.
func newDaemon(set *policy.Set, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{set: set, log: log, alarm: scheduler.NewAlarm(), parts: map[string]*part{}}
	defer func() {
		if err != nil {
			_ = d.close()
		}
	}()
	d.metrics = metrics.New(metrics.Config{
		Version: versionText(), Policies: targetKinds(set), Clouds: slices.Sorted(maps.Keys(set.Config.Clouds)),
		Operations: operations(), FailureReasons: huaweicloud.Reasons(), StepFailureReasons: kindNames(), Look: d.look,
	})
	d.metrics.Reloaded(true, time.Now())
	if d.lock, err = lockState(set.Config.State); err != nil {
		return nil, err
	}
	d.http, err = admin.Listen(admin.Config{
		Listen: set.Config.HTTP.Listen, Registry: d.metrics.Registry(), Ready: d.ready, Alive: d.alive, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.wire(); err != nil {
		return nil, err
	}
	return d, d.openBus()
}

func targetKinds(set *policy.Set) map[string][]string {
	kinds := map[string][]string{}
	for _, p := range set.Policies {
		kinds[p.Name] = nil
		for _, t := range p.Targets {
			kinds[p.Name] = append(kinds[p.Name], t.Kind())
		}
	}
	return kinds
}

// wire builds the policies' sources and targets and the engine.
func (d *daemon) wire() error {
	w := newWiring(d.set, d.metrics, d.log)
	for _, p := range d.set.Policies {
		part, err := w.part(p, func(watcher.Change) { d.sourceChanged(p.Name) })
		if err != nil {
			return err
		}
		d.parts[p.Name] = part
	}
	d.records = newRecords(func(id rotation.ID, r rotation.Record) { d.recordChanged(id, r) }, d.metrics.JournalFailed)
	d.engine = rotation.New(rotation.Config{
		Assembly: d.assembly, Journal: d.records, Events: events{d}, Prober: probe.Prober{}, Meter: d.metrics, Logger: d.log,
	})
	return nil
}

func (d *daemon) openBus() error {
	cfg, err := busConfig(d.set, d.metrics, d.log)
	if err != nil {
		return err
	}
	if d.bus, err = bus.Open(cfg); err != nil {
		return err
	}
	d.queue = bus.NewQueue(d.bus)
	return nil
}

// lockState makes the state directory and takes it for this process.
func lockState(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s is in use by another rotatord; stop that one or set another state", dir)
		}
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return f, nil
}

// close releases what newDaemon took.
func (d *daemon) close() error {
	var errs []error
	if d.bus != nil {
		errs = append(errs, d.bus.Close())
	}
	if d.http != nil {
		_ = d.http.Close() // closed already where it was served
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, finishes the steps in flight, and releases everything.
func (d *daemon) Run(ctx context.Context) error {
	d.log.Info("rotatord started", "version", versionText(), "policies", len(d.set.Policies), "http", d.http.Addr(), "node", d.set.Config.Node)
	stop := context.AfterFunc(ctx, func() {
		d.log.Info("stopping: steps in flight are finished, no new one starts", "cause", context.Cause(ctx))
		d.engine.Stop()
	})
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range d.parts {
		g.Go(func() error { return orStopped(ctx, p.watcher.Run(ctx)) })
	}
	g.Go(func() error { return d.http.Serve(ctx) })
	g.Go(func() error {
		d.alarm.Run(ctx, d.wake, d.beats)
		return nil
	})
	g.Go(func() error { return orStopped(ctx, d.serveBus(ctx)) })
	err := errors.Join(g.Wait(), d.close())
	d.log.Info("rotatord stopped", "err", err)
	return err
}

// orStopped turns the end of the context into success: it is how everything ends.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveBus reads the journal, offers what is due, and works.
func (d *daemon) serveBus(ctx context.Context) error {
	if err := d.bus.Prepare(ctx); err != nil {
		return err
	}
	var g sync.WaitGroup
	defer g.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := d.persist(ctx, "open the journal", func(ctx context.Context) error {
		j, err := journal.Open(ctx, d.bus.JetStream(), d.bus.JournalBucket(), d.bus.Replicas())
		if err == nil {
			d.records.attach(j)
		}
		return err
	}); err != nil {
		return err
	}
	replayed := make(chan struct{})
	var once sync.Once
	g.Go(func() {
		_ = d.persist(ctx, "follow the journal", func(ctx context.Context) error {
			return d.records.watch(ctx, func() { once.Do(func() { close(replayed) }) })
		})
	})
	g.Go(func() { d.queue.Run(ctx) })
	if !d.awaitStart(ctx, replayed) {
		return ctx.Err()
	}
	d.replayed.Store(true)
	d.offerDue(rotation.TriggerStartup)
	g.Go(func() {
		_ = d.persist(ctx, "hear triggers", func(ctx context.Context) error { return d.bus.Triggers(ctx, d.triggered) })
	})
	return d.persist(ctx, "work", func(ctx context.Context) error {
		return d.bus.Work(ctx, workersPerPlace, d.work, func(id bus.ID) { d.queue.Freed(id) })
	})
}

// awaitStart waits for the journal and the first scan of every source: before that
// nothing can be told from nothing.
func (d *daemon) awaitStart(ctx context.Context, replayed <-chan struct{}) bool {
	waitFor := []<-chan struct{}{replayed}
	for _, p := range d.parts {
		waitFor = append(waitFor, p.watcher.Ready())
	}
	for _, c := range waitFor {
		select {
		case <-ctx.Done():
			return false
		case <-c:
		}
	}
	return true
}

// persist repeats f until it succeeds or ctx ends, and says why when that changes.
func (d *daemon) persist(ctx context.Context, what string, f func(context.Context) error) error {
	last := ""
	for {
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != last {
			d.log.Warn("trying again", "what", what, "err", err)
			last = text
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tryAgain):
		}
	}
}

func (d *daemon) assembly(policy string) *rotation.Assembly {
	if p, ok := d.parts[policy]; ok {
		return p.assembly
	}
	return nil
}

// work does what a message of the work queue asks for.
func (d *daemon) work(ctx context.Context, w bus.Work) error {
	err := d.engine.Process(ctx, rotation.ID(w.ID), rotation.Request{Trigger: rotation.Trigger(w.Trigger), Force: w.Force, Asked: w.Asked})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rotation.ErrStopping):
		return &bus.Retry{Err: err}
	case errors.Is(err, rotation.ErrConflict):
		d.log.Info("another worker has the assignment", "policy", w.ID.Policy, "certificate", w.ID.Certificate)
		return &bus.Retry{After: time.Second, Err: err}
	}
	d.log.Error("assignment cannot be worked on now", "policy", w.ID.Policy, "certificate", w.ID.Certificate, "err", err)
	return &bus.Retry{After: tryAgain, Err: err}
}

// enqueue asks for a look. Every reason to look ends here.
func (d *daemon) enqueue(id rotation.ID, t rotation.Trigger, force bool, accepted func()) {
	d.metrics.Triggered(string(t))
	// A directory is this node's own: nobody else can read its files.
	d.queue.Enqueue(bus.Work{ID: bus.ID(id), Place: d.set.Config.Node, Trigger: string(t), Force: force, Asked: time.Now()}, accepted)
}

// offerDue enqueues every assignment of every policy that has something to do.
func (d *daemon) offerDue(t rotation.Trigger) {
	for name := range d.parts {
		d.offerDueOf(name, t)
	}
}

func (d *daemon) offerDueOf(policy string, t rotation.Trigger) {
	now := time.Now()
	for _, id := range d.assignments(policy) {
		if d.engine.Due(id, d.records.get(id), t, now) {
			d.enqueue(id, t, false, nil)
		}
	}
}

// assignments are the certificates that a policy takes now and those that the journal
// remembers of it.
func (d *daemon) assignments(policy string) []rotation.ID {
	part, ok := d.parts[policy]
	if !ok {
		return nil
	}
	var ids []rotation.ID
	known := map[string]bool{}
	for _, name := range part.source.names() {
		known[name] = true
		ids = append(ids, rotation.ID{Policy: policy, Certificate: name})
	}
	for _, id := range d.records.ids() {
		if id.Policy == policy && !known[id.Certificate] {
			ids = append(ids, id)
		}
	}
	return ids
}

// sourceChanged looks at all assignments of a policy, in memory: a new certificate may
// also take an endpoint over from another.
func (d *daemon) sourceChanged(policy string) {
	if d.replayed.Load() {
		d.offerDueOf(policy, rotation.TriggerFile)
	}
}

// recordChanged sets the alarm of an assignment of ours.
func (d *daemon) recordChanged(id rotation.ID, r rotation.Record) {
	if d.parts[id.Policy] != nil {
		d.alarm.Set(id.Policy+"/"+id.Certificate, r.WakeAt)
	}
}

// wake is the alarm of an assignment.
func (d *daemon) wake(key string) {
	policy, certificate, _ := strings.Cut(key, "/")
	id := rotation.ID{Policy: policy, Certificate: certificate}
	if a := d.assembly(policy); a != nil {
		d.enqueue(id, rotation.WakeTrigger(a.Policy, d.records.get(id), time.Now()), false, nil)
	}
}

// triggered handles a trigger message: it is acknowledged when all the work that it
// means is in the queue.
func (d *daemon) triggered(t bus.Trigger) {
	log := d.log.With("subject", t.Subject)
	if t.Problem != "" {
		log.Warn("trigger with a payload that cannot be read; taken as a plain one", "err", t.Problem)
	}
	ids, matched := d.meant(t)
	if len(ids) == 0 {
		if !matched {
			log.Warn("trigger for a policy that is not here")
		} else {
			log.Warn("trigger for no certificate that the policy has", "certificate", t.Certificate)
		}
		t.Done()
		return
	}
	log.Info("trigger heard", "certificate", t.Certificate, "reason", t.Reason, "force", t.Force, "assignments", len(ids))
	var left atomic.Int64
	left.Store(int64(len(ids)))
	for _, id := range ids {
		d.enqueue(id, rotation.TriggerNATS, t.Force, func() {
			if left.Add(-1) == 0 {
				t.Done()
			}
		})
	}
}

// meant lists the assignments that a trigger means, and whether any policy hears it.
func (d *daemon) meant(t bus.Trigger) (ids []rotation.ID, matched bool) {
	for _, p := range d.set.Policies {
		if t.Policy != p.Name && !slices.Contains(p.When.Subjects, t.Subject) {
			continue
		}
		matched = true
		if !p.When.Hears(policy.OnNATS) {
			continue
		}
		for _, id := range d.assignments(p.Name) {
			if t.Certificate == "" || t.Certificate == id.Certificate {
				ids = append(ids, id)
			}
		}
	}
	return ids, matched
}

func (d *daemon) beats() {
	now := time.Now()
	d.beat.Store(now.UnixNano())
	d.metrics.Beat(now)
}

// alive says nil while the scheduler makes progress.
func (d *daemon) alive() error {
	last := d.beat.Load()
	if age := time.Since(time.Unix(0, last)); last != 0 && age > staleBeat {
		return fmt.Errorf("the scheduler has made no progress for %s", age.Round(time.Second))
	}
	return nil
}

// ready tells the state of each component.
func (d *daemon) ready() []admin.Component {
	components := []admin.Component{{Name: "configuration"}, {Name: "nats", Reason: reasonOf(d.bus.Ready())}, {Name: "journal"}, {Name: "sources"}}
	if !d.replayed.Load() {
		components[2].Reason = "the journal has not been read yet"
	}
	var scanning []string
	for name, p := range d.parts {
		if !p.watcher.Snapshot().Ready {
			scanning = append(scanning, name)
		}
	}
	if slices.Sort(scanning); len(scanning) > 0 {
		components[3].Reason = "the first scan is not done of " + strings.Join(scanning, ", ")
	}
	return components
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// look gathers what the gauges show.
func (d *daemon) look() metrics.Look {
	l := metrics.Look{NATSConnected: d.bus.Connected()}
	for _, p := range d.set.Policies {
		part := d.parts[p.Name]
		l.Sources = append(l.Sources, metrics.Source{
			Kind: "directory", Policy: p.Name, Certificates: len(part.source.names()), Snapshot: part.watcher.Snapshot(),
		})
		for _, id := range d.assignments(p.Name) {
			a := metrics.Assignment{ID: id, Record: d.records.get(id)}
			if w, ok := part.source.Wanted(id.Certificate); ok {
				a.Wanted = &w.Info
			}
			l.Assignments = append(l.Assignments, a)
		}
	}
	if l.NATSConnected && d.replayed.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), askQueue)
		defer cancel()
		if depth, oldest, err := d.bus.Depth(ctx); err == nil {
			l.QueueDepth, l.QueueOldest = depth, oldest
		}
	}
	return l
}

// events publishes the engine's events on the bus.
type events struct{ d *daemon }

// Publish implements rotation.Events.
func (e events) Publish(ctx context.Context, event rotation.Event) error {
	return e.d.bus.Publish(ctx, bus.Event{
		ID: event.ID, Kind: string(event.Kind), Policy: event.Data.Policy,
		Subject: event.Data.Policy + "/" + event.Data.Certificate, Time: event.Time, Data: event.Data,
	})
}
