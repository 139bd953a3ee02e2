package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
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
	"github.com/rotatord/rotatord/internal/repeat"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/scheduler"
)

const (
	// leastWorkers is how many assignments of one place are worked on at once, at least.
	leastWorkers = 8
	// staleBeat is the age of the scheduler's heartbeat at which the process counts as
	// stuck: several times its longest sleep.
	staleBeat = 3 * time.Minute
	// tryAgain is the pause after a part of the daemon failed.
	tryAgain = 2 * time.Second
	askQueue = time.Second
)

// daemon is everything that rotatord run starts.
type daemon struct {
	log     *slog.Logger
	metrics *metrics.Metrics
	lock    io.Closer
	http    *admin.Server
	socket  *admin.Socket
	// answers is set while the control socket is bound.
	answers atomic.Bool
	// notify tells systemd; nil where that did not start this process.
	notify *notifier
	// began is when the process did; quotas is what services last told, by holder.
	began   time.Time
	quotas  sync.Map
	bus     *bus.Bus
	queue   *bus.Queue
	records *records
	alarm   *scheduler.Alarm
	// comparisons are those whose alarm went off and whose turn has not come.
	comparisons *comparisons
	engine      *rotation.Engine
	brake       *brake
	steps       *progress
	// unworkable are the assignments that cannot be worked on, by no fault of a target.
	unworkable repeat.Failures[rotation.ID]
	// untold is why events of policies cannot be published.
	untold repeat.Failures[string]
	gauges gauges
	// onboarding is how far many assignments are.
	onboarding onboarding
	changes    changes
	heard      heard
	// generation is what is in force; reloading is held by who builds the next one.
	generation atomic.Pointer[generation]
	reloading  sync.Mutex
	lastReload atomic.Pointer[admin.Reload]
	// files are the configuration and the policies as they were when they were last read.
	files atomic.Pointer[map[string]fileState]
	// configFile is where the configuration was read from; empty: it cannot be read again.
	configFile string
	// logLevel is what the log shows; nil: it cannot be changed. levelFlag says that a flag rules
	// over the configuration.
	logLevel  *slog.LevelVar
	levelFlag bool
	// profiles says that the control socket serves profiles of the process.
	profiles bool
	// running ends with the daemon, group is everything that runs in it; set by Run.
	running context.Context
	group   *errgroup.Group
	started chan struct{} // closed when these two are there
	// beat is when the scheduler last woke, by the clock that nobody sets and that stands still
	// while the machine sleeps: neither makes it look stuck. replayed is set when
	// the journal has been read.
	beat atomic.Pointer[time.Time]
	// skew is how far this host's clock is ahead of a cloud's, as last told, in nanoseconds.
	skew atomic.Int64
	// tidied gives back, once, the memory that the start took.
	tidied sync.Once
	// back is when clouds came back that had been away.
	back     atomic.Pointer[map[string]time.Time]
	replayed atomic.Bool
}

// newDaemon is newDaemonOn without a listener that somebody else has bound.
func newDaemon(set *policy.Set, log *slog.Logger) (*daemon, error) { return newDaemonOn(set, log, nil) }

// newDaemonOn builds everything and binds the listeners, that for HTTP only if it is nil;
// nothing runs before Run. What it started is undone if it fails.
func newDaemonOn(set *policy.Set, log *slog.Logger, http net.Listener) (_ *daemon, err error) {
	d := &daemon{log: log, alarm: scheduler.NewAlarm(), began: time.Now().UTC(), started: make(chan struct{}), steps: newProgress()}
	d.comparisons = newComparisons(d.compare, d.comparers)
	defer func() {
		if err != nil {
			_ = d.close()
		}
	}()
	d.metrics = metrics.New(metrics.Config{
		Version: versionText(), Revision: revision, Policies: targetKinds(set), Clouds: slices.Sorted(maps.Keys(set.Config.Clouds)),
		Operations: operations(), FailureReasons: huaweicloud.Reasons(), StepFailureReasons: kindNames(), Consumers: bus.Consumers(),
		Look: d.look, Assignments: d.shown,
	})
	d.metrics.Reloaded(true, time.Now())
	if d.lock, err = lockState(set.Config.State); err != nil {
		return nil, err
	}
	if err := admin.CheckWebConfig(set.Config.HTTP.WebConfig); err != nil {
		return nil, policy.Problems{{File: set.Config.HTTP.WebConfig, Message: err.Error()}}
	}
	d.http, err = admin.Listen(admin.Config{
		Listen: set.Config.HTTP.Listen, Listener: http, WebConfig: set.Config.HTTP.WebConfig, Metrics: d.metrics.Handler(log), Ready: d.ready, Alive: d.alive, Reader: site{d}, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.wire(set); err != nil {
		return nil, err
	}
	if err := d.listenSocket(); err != nil && !bus.IsPassing(err) {
		return nil, err
	}
	return d, d.openBus(set)
}

// inForce is the configuration in force with what was built for it.
func (d *daemon) inForce() *generation { return d.generation.Load() }

func targetKinds(set *policy.Set) map[string][]string {
	kinds := map[string][]string{}
	for _, p := range set.Policies {
		kinds[p.Name] = nil
		if p.Source.Issues() {
			kinds[p.Name] = append(kinds[p.Name], p.Source.Kind())
		}
		for _, t := range p.Targets {
			kinds[p.Name] = append(kinds[p.Name], t.Kind())
		}
	}
	return kinds
}

// wire builds the policies' sources and targets and the engine.
func (d *daemon) wire(set *policy.Set) error {
	first, err := d.build(set, nil)
	if err != nil {
		return err
	}
	d.generation.Store(first)
	d.records = newRecords(func(id rotation.ID, r rotation.Record) { d.recordChanged(id, r) }, d.metrics.JournalFailed)
	d.records.holdChanged, d.records.node, d.records.here = d.holdChanged, d.recordsOf, set.Config.Node
	d.brake = &brake{limits: set.Config.Brake, records: d.records}
	d.engine = rotation.New(rotation.Config{
		Assembly: d.assembly, Journal: d.records, Events: events{d}, Prober: probe.Prober{}, Meter: d.metrics, Logger: d.log,
		Brake: d.brake.ask, Hold: d.records.hold, Progress: d.steps.step, PolicySHA256: d.policySHA256, Node: d.recordsOf, Skew: func() time.Duration { return time.Duration(d.skew.Load()) }, Back: d.cloudsBack,
		Again: func(id rotation.ID, t rotation.Trigger) { d.enqueue(id, t, wish{}, nil) },
	})
	return nil
}

func (d *daemon) openBus(set *policy.Set) error {
	cfg, err := busConfig(set, d.metrics, d.log)
	if err != nil {
		return err
	}
	if d.bus, err = bus.Open(cfg); err != nil {
		return err
	}
	d.queue = bus.NewQueue(d.bus)
	return nil
}

// listenSocket binds the control socket.
func (d *daemon) listenSocket() (err error) {
	d.socket, err = admin.ListenSocket(d.inForce().set.Config.Socket, d.control(), d.log)
	d.answers.Store(err == nil)
	return err
}

// serveSocket serves the control socket, which may be on a disk that was not well before.
func (d *daemon) serveSocket(ctx context.Context) error {
	if d.socket == nil {
		if err := d.listenSocket(); err != nil {
			return err
		}
	}
	if d.profiles {
		d.socket.ServeProfiles()
	}
	err := d.socket.Serve(ctx)
	if err != nil {
		d.socket = nil // it is bound anew
		d.answers.Store(false)
	}
	return err
}

// lockState makes the state directory and takes it for this process.
func lockState(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = os.Open(path) // good enough for a lock: the bus says what is wrong, and waits
	}
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
	if d.socket != nil {
		_ = d.socket.Close() // and this one too
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, finishes the steps in flight, and releases everything.
func (d *daemon) Run(ctx context.Context) error {
	set := d.inForce().set
	d.log.Info("rotatord started", "version", versionText(), "policies", len(set.Policies), "http", d.http.Addr(), "nats", d.bus.ListenURL(), "node", set.Config.Node)
	stop := context.AfterFunc(ctx, func() {
		d.log.Info("stopping: steps in flight are finished, no new one starts", "cause", context.Cause(ctx))
		d.engine.Stop()
	})
	defer stop()
	// A name of its own: the function above keeps the context that it was given.
	g, running := errgroup.WithContext(ctx)
	d.group, d.running = g, running
	d.start(running, d.inForce(), nil)
	close(d.started)
	told := d.tellSystemd(running)
	defer told()
	g.Go(func() error {
		<-running.Done()
		d.reloading.Lock() // a reload adds to the group: it ends first, and no other begins
		defer d.reloading.Unlock()
		return nil
	})
	g.Go(func() error {
		d.watchFiles(running)
		return nil
	})
	g.Go(func() error {
		d.followOnboarding(running)
		return nil
	})
	g.Go(func() error { return d.http.Serve(running) })
	g.Go(func() error {
		return orStopped(running, d.persist(running, "listen on the control socket", d.serveSocket))
	})
	g.Go(func() error {
		d.alarm.Run(running, d.wake, d.beats)
		return nil
	})
	g.Go(func() error {
		d.comparisons.run(running)
		return nil
	})
	g.Go(func() error { return orStopped(running, d.serveBus(running)) })
	err := errors.Join(g.Wait(), d.close())
	if err != nil {
		return err
	}
	d.log.Info("rotatord stopped")
	return nil
}

// orStopped turns the end of the context into success: it is how everything ends.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// serveBus works over NATS until ctx ends. Whatever breaks on the way, even a server
// that came back with an empty store, is answered by beginning again from the streams.
func (d *daemon) serveBus(ctx context.Context) error {
	return d.persist(ctx, "work over NATS", d.session)
}

// session prepares the streams, reads the journal, offers what is due, hears triggers
// and works, until one of these breaks or ctx ends.
func (d *daemon) session(ctx context.Context) error {
	d.replayed.Store(false)
	d.changes.tell()
	if err := d.bus.Prepare(ctx); err != nil {
		return err
	}
	j, err := journal.Open(ctx, d.bus.JetStream(), d.bus.JournalBucket(), d.bus.Replicas())
	if err != nil {
		return err
	}
	d.records.attach(j)
	g, ctx := errgroup.WithContext(ctx)
	replayed := make(chan struct{})
	g.Go(func() error { return d.records.watch(ctx, func() { close(replayed) }) })
	g.Go(func() error {
		d.queue.Run(ctx)
		return nil
	})
	g.Go(func() error { return d.bus.Serve(ctx, semantic(versionText()), d.serviceVerbs()) })
	g.Go(func() error {
		if !d.awaitStart(ctx, replayed) {
			return ctx.Err()
		}
		d.replayed.Store(true)
		d.changes.tell()
		d.offerDue(rotation.TriggerStartup)
		d.setHoldAlarms()
		d.publishHolds(ctx)
		g.Go(func() error { return d.listen(ctx) })
		g.Go(func() error { return d.followHolds(ctx) })
		g.Go(func() error {
			// To read all files takes half as much again as to keep what is in them.
			d.tidied.Do(debug.FreeOSMemory)
			return nil
		})
		return d.bus.Work(ctx, d.workers, d.work, func(id bus.ID) { d.queue.Freed(id) })
	})
	return g.Wait()
}

// awaitStart waits for the journal and the first scan of every source: before that
// nothing can be told from nothing.
func (d *daemon) awaitStart(ctx context.Context, replayed <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-replayed:
	}
	for {
		g := d.inForce()
		if !g.awaitScans(ctx) {
			return false
		}
		if g == d.inForce() {
			return true
		}
	}
}

// persist repeats f until it succeeds or ctx ends, and says why when that changes, and hourly.
func (d *daemon) persist(ctx context.Context, what string, f func(context.Context) error) error {
	var failure repeat.Failure
	for {
		began := time.Now()
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > tryAgain {
			failure.Over() // it worked for a while
		}
		if times, tell := failure.Met(err.Error()); tell {
			d.log.Warn("trying again", "what", what, "times", times, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tryAgain):
		}
	}
}

// recordsOf says whose the records of a policy are. With the embedded server there is one
// node only, which may be given another name and keeps its records.
func (d *daemon) recordsOf(policy string) string {
	g := d.inForce()
	if p, ok := g.parts[policy]; ok && p.place != bus.Any && g.set.Config.NATS.URL != "" {
		return p.place
	}
	return ""
}

// policySHA256 is the hash of the file that a policy in force was read from.
func (d *daemon) policySHA256(name string) string {
	if p := d.inForce().set.Policy(name); p != nil {
		return p.SHA256
	}
	return ""
}

func (d *daemon) assembly(policy string) *rotation.Assembly {
	if p, ok := d.inForce().parts[policy]; ok {
		return p.assembly
	}
	return nil
}
