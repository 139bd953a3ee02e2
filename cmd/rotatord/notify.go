package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/repeat"
)

// This file tells systemd how the daemon is, by the protocol of sd_notify(3).

const (
	// startEvery is how often it is looked whether the start is over, statusEvery whether there
	// is another status to tell: more rarely where that takes long, for a share of the time.
	startEvery  = 50 * time.Millisecond
	statusEvery = 5 * time.Second
	statusShare = 100
	// natsPatience is how long the start waits for an answer of NATS, journalPatience for all
	// else that may be away: then it is over without, and the status says so.
	natsPatience    = 10 * time.Second
	journalPatience = time.Minute
	// While steps in flight end, the stop is drawn out by extendBy every extendEvery, for
	// stopPatience at most: longer than any reload command may take.
	extendEvery  = 5 * time.Second
	extendBy     = 30 * time.Second
	stopPatience = 15 * time.Minute
	// maxStatus is the length of a status, in bytes.
	maxStatus = 400
)

// notifier tells systemd. A nil one tells nobody.
type notifier struct {
	// send hands one message on.
	send func(message string) error
	// watchdog is within what time systemd wants a sign of life; 0: never.
	watchdog time.Duration
	log      *slog.Logger

	mu       sync.Mutex
	stage    stage
	status   string // the last one that was told
	failures repeat.Failure
}

// stage is how far the daemon has come, as systemd was told.
type stage int

const (
	starting stage = iota
	serving
	stopping
)

// newNotifier returns nil where nobody wants to be told.
func newNotifier() (*notifier, error) {
	if told, err := sd.SdNotify(false, "STATUS=starting"); err != nil || !told {
		if err != nil {
			err = fmt.Errorf("tell systemd: %w", err)
		}
		return nil, err
	}
	watchdog, err := sd.SdWatchdogEnabled(true)
	if err != nil {
		return nil, fmt.Errorf("read what systemd says of its watchdog: %w", err)
	}
	send := func(message string) error {
		_, err := sd.SdNotify(false, message)
		return err
	}
	return &notifier{send: send, watchdog: watchdog, log: slog.New(slog.DiscardHandler)}, nil
}

// tellLocked sends assignments, and a status that differs from the last one.
func (n *notifier) tellLocked(status string, assignments ...string) {
	status = oneLine(status)
	fresh := status != "" && status != n.status
	if fresh {
		assignments = append(assignments, "STATUS="+status)
	}
	if len(assignments) == 0 {
		return
	}
	if err := n.send(strings.Join(assignments, "\n")); err != nil {
		if times, tell := n.failures.Met(err.Error()); tell {
			n.log.Warn("systemd cannot be told", "times", times, "err", err)
		}
		return
	}
	if n.failures.Over(); fresh {
		n.status = status
	}
}

func (n *notifier) tell(status string, assignments ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tellLocked(status, assignments...)
}

// enter is tell for what begins a stage.
func (n *notifier) enter(s stage, status string, assignments ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stage = s
	n.tellLocked(status, assignments...)
}

// oneLine is a status as systemd takes it.
func oneLine(text string) string {
	text = strings.ToValidUTF8(printable(text), "?")
	if len(text) > maxStatus {
		const more = "..."
		text = strings.ToValidUTF8(text[:maxStatus-len(more)], "") + more
	}
	return text
}

// reloading tells that a reload begins; its end is told by what it returns. Before the start
// is over nothing is told, since the end of a reload would be taken for that of the start.
func (n *notifier) reloading(status func() string) (reloaded func()) {
	if n == nil {
		return func() {}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stage != serving {
		return func() {}
	}
	n.tellLocked("reading configuration and policies again", sd.SdNotifyReloading, "MONOTONIC_USEC="+monotonic())
	return func() {
		is := status()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.stage == serving {
			n.tellLocked(is, sd.SdNotifyReady)
		}
	}
}

// monotonic is the time by the clock that systemd compares a reload's with, in microseconds.
func monotonic() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "0" // every system that has systemd has this clock
	}
	return fmt.Sprint(now.Nano() / int64(time.Microsecond))
}

// ends tells why the daemon ends, if it failed: systemctl status shows it.
func (n *notifier) ends(err error) {
	if n == nil {
		return
	}
	if err == nil {
		n.tell("stopped")
		return
	}
	n.tell("failed: " + err.Error())
}

// vitals are what systemd is told from.
type vitals struct {
	// lacks is why the start is not over yet after this time; empty: it is.
	lacks func(waited time.Duration) string
	// alive returns nil while the process makes progress.
	alive func() error
	// status is how things are, in one line.
	status func() string
}

// follow tells how things are: until ctx ends, and then, until ended is closed, that steps in
// flight are still being finished.
func (n *notifier) follow(ctx context.Context, v vitals, ended <-chan struct{}) {
	if n.start(ctx, v) {
		n.serve(ctx, v)
	}
	n.stop(ended)
}

// start tells when the start is over. It reports false if ctx ended first.
func (n *notifier) start(ctx context.Context, v vitals) bool {
	begun := time.Now()
	for {
		reason := v.lacks(time.Since(begun))
		if reason == "" {
			break
		}
		n.tell("starting: " + reason)
		if !sleep(ctx, startEvery) {
			return false
		}
	}
	n.enter(serving, v.status(), sd.SdNotifyReady)
	n.log.Info("the start is over, and systemd was told", "took", time.Since(begun).Round(time.Millisecond))
	return true
}

// serve tells the status when it changes, and that the daemon lives while it does.
func (n *notifier) serve(ctx context.Context, v vitals) {
	status := time.NewTimer(statusEvery)
	defer status.Stop()
	var sign <-chan time.Time
	if n.watchdog > 0 {
		ticker := time.NewTicker(n.watchdog / 2)
		defer ticker.Stop()
		sign = ticker.C
	}
	var stuck repeat.Failure
	for {
		select {
		case <-ctx.Done():
			return
		case <-status.C:
			began := time.Now()
			n.tell(v.status())
			status.Reset(max(statusEvery, statusShare*time.Since(began)))
		case <-sign:
			if err := v.alive(); err != nil {
				if _, tell := stuck.Met(""); tell {
					n.log.Error("no sign of life for systemd, whose watchdog ends this process", "err", err)
				}
				continue
			}
			stuck.Over()
			n.tell("", sd.SdNotifyWatchdog)
		}
	}
}

// stop asks systemd for patience while steps in flight end, until ended is closed.
func (n *notifier) stop(ended <-chan struct{}) {
	begun := time.Now()
	patience := fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds())
	n.enter(stopping, "stopping: steps in flight are finished, no new one starts", sd.SdNotifyStopping, patience)
	every := extendEvery
	if n.watchdog > 0 {
		every = min(every, n.watchdog/2)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
		waited := time.Since(begun)
		status := fmt.Sprintf("stopping: steps in flight are finished, for %s now", waited.Round(time.Second))
		if waited < stopPatience {
			n.tell(status, sd.SdNotifyWatchdog, patience)
		}
	}
}

// tellSystemd tells how the daemon is, until what it returns is called, at its very end.
func (d *daemon) tellSystemd(ctx context.Context) (ended func()) {
	if d.notify == nil {
		return func() {}
	}
	over := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		d.notify.follow(ctx, vitals{d.lacks, d.alive, d.standing}, over)
	})
	return func() {
		close(over)
		telling.Wait()
	}
}

// lacks is vitals.lacks. Sources are waited for as long as it takes, since before their first
// scan nothing is known; what may be away for hours, only for a while.
func (d *daemon) lacks(waited time.Duration) string {
	var reasons []string
	patience := journalPatience
	for _, c := range d.ready() {
		if c.Name == "nats" && c.Reason != "" {
			patience = natsPatience // the journal cannot be read before
		}
		if c.Reason != "" && (c.Name == "sources" || waited < patience) {
			reasons = append(reasons, c.Reason)
		}
	}
	if !d.answers.Load() && waited < patience {
		reasons = append(reasons, "the control socket is not bound yet")
	}
	return strings.Join(reasons, "; ")
}

// standing is vitals.status: how many certificates stand where, and what is not well.
func (d *daemon) standing() string {
	list := d.shown()
	parts := []string{counted(len(list), "certificate", "certificates")}
	if d.replayed.Load() && len(list) > 0 {
		t := d.onboarding.count(list)
		parts[0] += ": " + t.String()
		if o := d.onboardingNow(); o != nil && !o.Done.IsZero() {
			parts = append(parts, fmt.Sprintf("at %.0f a minute those on their way are through at about %s", o.PerMinute, stamp(o.Done)))
		}
	}
	var reasons []string
	for _, c := range d.ready() {
		if c.Reason != "" {
			reasons = append(reasons, c.Reason)
		}
	}
	if len(reasons) > 0 {
		parts = append(parts, "not ready: "+strings.Join(reasons, ", "))
	}
	if r := d.lastReload.Load(); r != nil && !r.OK && len(r.Problems) > 0 {
		p := r.Problems[0]
		at := ""
		if p.File != "" {
			at = fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
		}
		parts = append(parts, "the last reload was refused: "+at+p.Message)
	}
	if err := d.alive(); err != nil {
		parts = append(parts, err.Error())
	}
	return strings.Join(parts, "; ")
}

// String lists how many stand where, those that need nobody first.
func (t *tally) String() string {
	var parts []string
	if t.atRest > 0 {
		parts = append(parts, fmt.Sprintf("%d converged", t.atRest))
	}
	if t.underWay > 0 {
		parts = append(parts, fmt.Sprintf("%d on their way", t.underWay))
	}
	if held := heldText(t.states()); held != "" {
		parts = append(parts, held)
	}
	return strings.Join(parts, ", ")
}
