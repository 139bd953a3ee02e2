package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// work does what a message of the work queue asks for.
func (d *daemon) work(ctx context.Context, w bus.Work) error {
	err := d.engine.Process(ctx, rotation.ID(w.ID), rotation.Request{
		Trigger: rotation.Trigger(w.Trigger), Force: w.Force, Confirm: w.Confirm, Asked: w.Asked, Newest: w.Newest, Heard: d.heard.last(rotation.ID(w.ID), w.Newest),
		By: w.By, Reason: w.Reason,
	})
	switch {
	case err == nil:
		d.unworkable.Over(rotation.ID(w.ID))
		return nil
	case errors.Is(context.Cause(ctx), bus.ErrLost):
		return context.Cause(ctx) // whoever has it now looks again
	case errors.Is(err, rotation.ErrStopping), errors.Is(err, rotation.ErrReplaced):
		return &bus.Retry{Err: err}
	case errors.Is(err, rotation.ErrConflict):
		d.log.Info("another worker has the assignment", "policy", w.ID.Policy, "certificate", w.ID.Certificate)
		return &bus.Retry{After: time.Second, Err: err}
	}
	if times, tell := d.unworkable.Met(rotation.ID(w.ID), err.Error()); tell {
		d.log.Error("assignment cannot be worked on now", "policy", w.ID.Policy, "certificate", w.ID.Certificate, "times", times, "err", err)
	}
	return &bus.Retry{After: tryAgain, Err: err}
}

// workers is how many assignments of one place are worked on at once: twice as many as calls
// may be under way at the clouds, since each makes one call after the other and writes the
// journal between them. More would only hold what other daemons could do.
func (d *daemon) workers() int {
	n := 0
	for _, c := range d.inForce().wiring.clients {
		n += 2 * c.Concurrency()
	}
	return max(n, leastWorkers)
}

// comparers is how many workers regular comparisons may keep busy: the others, and most of what a
// cloud lets through, are for what somebody waits for.
func (d *daemon) comparers() int { return max(1, d.workers()/4) }

// wish is what somebody who asks for a look wants besides.
type wish struct {
	force, confirm bool
	// asked is when; the zero time for now.
	asked time.Time
	// by and reason are who asks and why, where somebody does.
	by, reason string
}

// enqueue asks for a look.
func (d *daemon) enqueue(id rotation.ID, t rotation.Trigger, w wish, accepted func()) {
	d.queue.Enqueue(d.workFor(id, t, w), accepted)
}

// workFor is the request for a look. Every reason to look ends here.
func (d *daemon) workFor(id rotation.ID, t rotation.Trigger, w wish) bus.Work {
	d.metrics.Triggered(string(t))
	// What somebody waits for is by this host's clock; a message's time is by the server's.
	newest := d.heard.note(id)
	if w.asked.IsZero() {
		w.asked = newest
	}
	if w.asked.Before(newest) {
		newest = w.asked
	}
	inForce := d.inForce()
	place := inForce.set.Config.Node
	if p, ok := inForce.parts[id.Policy]; ok {
		place = p.place
	}
	return bus.Work{
		ID: bus.ID(id), Place: place, Trigger: string(t), Urgency: t.Urgency(), Force: w.force, Confirm: w.confirm,
		Asked: w.asked, Newest: newest, By: w.by, Reason: w.reason,
	}
}

// offerDue enqueues every assignment of every policy that has something to do.
func (d *daemon) offerDue(t rotation.Trigger) {
	for name := range d.inForce().parts {
		d.offerDueOf(name, t)
	}
}

func (d *daemon) offerDueOf(policy string, t rotation.Trigger) {
	if a := d.assembly(policy); a == nil || a.WatchesOnly() {
		return
	}
	d.offerDueAmong(d.assignments(policy), t)
}

func (d *daemon) offerDueAmong(ids []rotation.ID, t rotation.Trigger) {
	now := time.Now()
	var unsettled []rotation.ID
	for _, id := range ids {
		due, again := d.engine.Due(id, d.records.get(id), t, now)
		if due {
			d.enqueue(id, t, wish{}, nil)
		}
		if again {
			unsettled = append(unsettled, id)
		}
	}
	if len(unsettled) > 0 {
		// What is wrong now may be the middle of a replacement; if it lasts, it is said.
		time.AfterFunc(rotation.SettleTime, func() { d.offerDueAmong(unsettled, t) })
	}
}

// assignments are the certificates that a policy takes now and those that the journal
// remembers of it.
func (d *daemon) assignments(policy string) []rotation.ID {
	part, ok := d.inForce().parts[policy]
	if !ok {
		return nil
	}
	names := part.source.names()
	ids := make([]rotation.ID, 0, len(names))
	for _, name := range names {
		ids = append(ids, rotation.ID{Policy: policy, Certificate: name})
	}
	for _, id := range d.records.idsOf(policy) {
		if _, known := slices.BinarySearch(names, id.Certificate); !known {
			ids = append(ids, id)
		}
	}
	return ids
}

// has reports whether an assignment is one of assignments.
func (d *daemon) has(id rotation.ID) bool {
	part, ok := d.inForce().parts[id.Policy]
	if !ok {
		return false
	}
	return part.source.has(id.Certificate) || d.records.peek(id) != nil
}

// sourceChanged looks at the assignments of a policy that changed, in memory, or at all of
// them: a certificate with new names may also take an endpoint over from another.
func (d *daemon) sourceChanged(policy string, c watcher.Change) {
	d.changes.tell()
	if !d.replayed.Load() {
		return // everything is looked at when the journal has been read
	}
	if c.All || c.Renamed {
		d.offerDueOf(policy, rotation.TriggerFile)
		return
	}
	ids := make([]rotation.ID, len(c.Certificates))
	for i, name := range c.Certificates {
		ids[i] = rotation.ID{Policy: policy, Certificate: name}
	}
	d.offerDueAmong(ids, rotation.TriggerFile)
}

// settleBack is how long a service is to be back before all are sent to it that waited.
const settleBack = time.Second

// cloudBack has those looked at that failed while a service of a cloud was away: the pauses between their tries
// have grown with the outage.
func (d *daemon) cloudBack(cloud string) {
	for {
		old := d.back.Load()
		now := map[string]time.Time{}
		if old != nil {
			maps.Copy(now, *old)
		}
		now[cloud] = time.Now()
		if d.back.CompareAndSwap(old, &now) {
			break
		}
	}
	time.AfterFunc(settleBack, func() {
		if d.replayed.Load() { // before, everything is still to be looked at
			d.offerDue(rotation.TriggerDeadline)
		}
	})
}

// cloudsBack is when each cloud came back.
func (d *daemon) cloudsBack() map[string]time.Time {
	if back := d.back.Load(); back != nil {
		return *back
	}
	return nil
}

// recordChanged sets the alarm of an assignment of ours.
func (d *daemon) recordChanged(id rotation.ID, r rotation.Record) {
	d.changes.tell()
	d.comparisons.looked(id)
	if d.inForce().parts[id.Policy] != nil {
		d.alarm.Set(id.Policy+"/"+id.Certificate, r.Wakes(time.Now()))
	}
}

// wake is the alarm of an assignment.
func (d *daemon) wake(key string) {
	if policy, ok := strings.CutPrefix(key, holdAlarm); ok {
		d.lookAtAll(policy)
		return
	}
	policy, certificate, _ := strings.Cut(key, "/")
	id := rotation.ID{Policy: policy, Certificate: certificate}
	switch t, comparison := d.wakes(id); {
	case comparison:
		d.comparisons.due(id)
	case t != "":
		d.enqueue(id, t, wish{}, nil)
	}
}

// wakes is what an alarm of an assignment is about now, and whether that is no more than its
// regular comparison, which can wait for its turn.
func (d *daemon) wakes(id rotation.ID) (t rotation.Trigger, comparison bool) {
	a := d.assembly(id.Policy)
	if a == nil {
		return "", false
	}
	record := d.records.get(id)
	t = rotation.WakeTrigger(a.Policy, record, time.Now())
	return t, t == rotation.TriggerDrift && record.State == rotation.StateConverged
}

// compare puts a comparison whose turn it is into the queue. Its alarm is over: what else has
// come due while it waited, as a schedule, is looked at with it.
func (d *daemon) compare(id rotation.ID) {
	if t, _ := d.wakes(id); t != "" {
		d.enqueue(id, t, wish{}, nil)
	}
}

// triggered handles a trigger message: it is acknowledged when all the work that it
// means is in the queue.
func (d *daemon) triggered(t bus.Trigger) {
	log := d.log.With("subject", t.Subject)
	if t.Problem != "" {
		log.Warn("trigger with a payload that cannot be read; taken as a plain one", "err", t.Problem)
	}
	ids, topic := d.meant(t)
	if len(ids) == 0 {
		if topic == "" {
			log.Warn("trigger for a policy that is not here")
		} else {
			log.Warn("trigger for no certificate that the policy has", "certificate", t.Certificate)
		}
		t.Done()
		return
	}
	log.Info("trigger heard", "certificate", t.Certificate, "reason", t.Reason, "force", t.Force, "confirm", t.Confirm, "assignments", len(ids))
	all := make([]bus.Work, len(ids))
	for i, id := range ids {
		all[i] = d.workFor(id, rotation.TriggerNATS, wish{force: t.Force, confirm: t.Confirm, asked: t.At, by: string(actorNATS), reason: t.Reason})
	}
	d.queue.EnqueueAll(topic, all, t.Done)
}

// heard is when this process last heard a reason to look at an assignment: a look at its
// source that began later need not be repeated. It is kept in memory, by a clock that nobody
// sets; there is one entry for each assignment at most.
type heard struct {
	mu sync.Mutex
	at map[rotation.ID]time.Time
}

// note returns the time that it noted.
func (h *heard) note(id rotation.ID) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[rotation.ID]time.Time{}
	}
	now := time.Now()
	h.at[id] = now
	return now
}

// last is zero where the newest reason that the work bears was heard by another process, or by
// the one before this: how old a look may be for it is not known here.
func (h *heard) last(id rotation.ID, newest time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.at[id]
	if at.Round(0).Before(newest) {
		return time.Time{}
	}
	return at
}

// meant lists the assignments that a trigger means. Triggers of one topic mean the same; it
// is empty where no policy hears the trigger.
func (d *daemon) meant(t bus.Trigger) (ids []rotation.ID, topic string) {
	for _, p := range d.inForce().set.Policies {
		if t.Policy != p.Name && !slices.Contains(p.When.Subjects, t.Subject) {
			continue
		}
		topic += p.Name + "/" + t.Certificate + "\n"
		if !p.When.Hears(policy.OnNATS) {
			continue
		}
		if t.Certificate == "" {
			ids = append(ids, d.assignments(p.Name)...)
		} else if id := (rotation.ID{Policy: p.Name, Certificate: t.Certificate}); d.has(id) {
			ids = append(ids, id)
		}
	}
	return ids, topic
}
