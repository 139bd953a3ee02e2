package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/rotation"
)

// control are the verbs of the control socket.
func (d *daemon) control() admin.Control {
	return admin.Control{
		"status":  {Do: d.askStatus},
		"plan":    {Do: d.askPlan},
		"explain": {Do: d.askExplain},
		"history": {Do: d.askHistory},
		"verify":  {Do: d.askVerify},
		"follow": {Stream: func(ctx context.Context, request []byte, send func(any) error) error {
			_, only, err := aboutOf(request)
			if err == nil {
				_, err = d.selected(only)
			}
			if err != nil {
				return err
			}
			return d.steps.listen(ctx, only, send)
		}},
		"rotate":    {Changes: true, Do: d.askRotate},
		"pause":     {Changes: true, Do: d.askPause},
		"resume":    {Changes: true, Do: d.askResume},
		"log-level": {Changes: true, Do: d.askLogLevel},
		"reload": {Changes: true, Do: func(ctx context.Context, by admin.Actor, _ []byte) (any, error) {
			return d.reload(ctx, "asked by "+string(by), by), nil
		}},
	}
}

// overNATS are the verbs that the micro service offers: what a file on this host decides,
// reload, is not among them.
var overNATS = []string{"status", "plan", "explain", "history", "verify", "rotate", "pause", "resume"}

// actorNATS is who asks over NATS where the server has checked that they may, and does not say
// who they are.
const actorNATS admin.Actor = "nats"

// askerOverNATS is who asks, as far as the server says.
func askerOverNATS(by bus.Asker) admin.Actor {
	actor := actorNATS
	if by.Account != "" {
		actor += admin.Actor(" account " + by.Account)
	}
	if by.User != "" {
		actor += admin.Actor(" user " + by.User)
	}
	return actor
}

// serviceVerbs are the same verbs for the micro service.
func (d *daemon) serviceVerbs() map[string]bus.Verb {
	verbs := map[string]bus.Verb{}
	for name, verb := range d.control() {
		if !slices.Contains(overNATS, name) {
			continue
		}
		verbs[name] = func(ctx context.Context, asker bus.Asker, request []byte) (int, []byte) {
			by := askerOverNATS(asker)
			if verb.Changes {
				d.log.Info("asked over NATS", "verb", name, "by", by)
			}
			result, err := verb.Do(ctx, by, request)
			status, body := admin.Answer(result, err)
			answer, err := json.Marshal(body)
			if err != nil {
				return 500, []byte("{}")
			}
			return status, answer
		}
	}
	return verbs
}

// about is what a question is about.
type about struct {
	Of    string `json:"of"`
	Limit string `json:"limit"`
}

func aboutOf(request []byte) (about, selection, error) {
	var a about
	if err := admin.Decode(request, &a); err != nil {
		return a, selection{}, err
	}
	only, err := parseSelection(a.Of)
	return a, only, err
}

func (d *daemon) askStatus(_ context.Context, _ admin.Actor, request []byte) (any, error) {
	_, only, err := aboutOf(request)
	if err != nil {
		return nil, err
	}
	if _, err := d.selected(only); err != nil {
		return nil, err
	}
	return d.status(only), nil
}

func (d *daemon) askPlan(ctx context.Context, _ admin.Actor, request []byte) (any, error) {
	_, only, err := aboutOf(request)
	if err != nil {
		return nil, err
	}
	if !d.replayed.Load() {
		return nil, errNotReady
	}
	return d.plan(ctx, only)
}

// errNotReady refuses what needs the journal.
var errNotReady = admin.Refuse("the daemon has not read its journal yet; /readyz says what it waits for")

func (d *daemon) askExplain(ctx context.Context, _ admin.Actor, request []byte) (any, error) {
	_, only, err := aboutOf(request)
	if err != nil {
		return nil, err
	}
	id, err := d.one(only)
	if err != nil {
		return nil, err
	}
	if !d.replayed.Load() {
		return nil, errNotReady
	}
	return d.explain(ctx, id)
}

// one is the assignment that is meant; a policy with one certificate means that.
func (d *daemon) one(only selection) (rotation.ID, error) {
	if only.policy == "" {
		return rotation.ID{}, admin.Refuse("say which: POLICY/CERTIFICATE")
	}
	ids, err := d.selected(only)
	switch {
	case err != nil:
		return rotation.ID{}, err
	case len(ids) == 0:
		return rotation.ID{}, unknown("policy %s has no certificate yet", only.policy)
	case len(ids) > 1:
		var names []string
		for _, id := range ids {
			names = append(names, id.Certificate)
		}
		return rotation.ID{}, admin.Refuse("policy %s has several certificates; say which: %s", only.policy, listed(names))
	}
	return ids[0], nil
}

// askRotate puts a look that somebody asked for into the queue.
func (d *daemon) askRotate(ctx context.Context, by admin.Actor, request []byte) (any, error) {
	var w admin.Wish
	if err := admin.Decode(request, &w); err != nil {
		return nil, err
	}
	if w.Policy == "" {
		return nil, admin.Refuse("say which policy, or POLICY/CERTIFICATE")
	}
	ids, err := d.selected(selection{w.Policy, w.Certificate})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if hold := d.records.hold(w.Policy); hold.Holds(now) {
		return nil, admin.Refuse("policy %s is %s; resume it first", w.Policy, hold)
	}
	if len(ids) == 0 {
		return nil, unknown("policy %s has no certificate yet; there is nothing to rotate", w.Policy)
	}
	if a := d.assembly(w.Policy); a == nil {
		return nil, unknown("policy %s is not in force any more", w.Policy)
	} else if a.WatchesOnly() {
		return nil, admin.Refuse("policy %s only watches: it has no targets", w.Policy)
	}
	if err := d.bus.Ready(); err != nil { // nothing gets into the queue now
		return nil, admin.Refuse("nothing can be rotated now: %v", err)
	}
	d.log.Info("rotation asked for", "policy", w.Policy, "certificate", w.Certificate, "by", by, "force", w.Force, "confirm", w.Confirm, "reason", w.Reason, "assignments", len(ids))
	accepted := admin.Accepted{Asked: now.UTC(), Assignments: []string{}}
	inQueue := make(chan struct{}, len(ids))
	for _, id := range ids {
		accepted.Assignments = append(accepted.Assignments, id.Policy+"/"+id.Certificate)
		d.enqueue(id, rotation.TriggerManual, wish{force: w.Force, confirm: w.Confirm, asked: now, by: string(by), reason: w.Reason}, func() { inQueue <- struct{}{} })
	}
	// What is not in the queue would be lost with this process.
	ctx, cancel := context.WithTimeout(ctx, queueWait)
	defer cancel()
	for n := range ids {
		select {
		case <-inQueue:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d assignments could not be put into the work queue within %s: %w", len(ids)-n, len(ids), queueWait, d.queueTrouble())
		}
	}
	return accepted, nil
}

// queueWait bounds the wait for a place in the queue. An assignment that is being worked on
// has to end that first.
const queueWait = 2 * time.Minute

// queueTrouble is why work does not get into the queue.
func (d *daemon) queueTrouble() error {
	if err := d.bus.Ready(); err != nil {
		return err
	}
	return admin.Refuse("they are being worked on, and what was asked for is remembered while the daemon runs")
}

// askPause holds a policy, in the whole cluster.
func (d *daemon) askPause(ctx context.Context, by admin.Actor, request []byte) (any, error) {
	var w admin.PauseWish
	if err := admin.Decode(request, &w); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	if !w.Until.IsZero() && !w.Until.After(now) {
		return nil, admin.Refuse("the pause would be over already at %s", w.Until.Format(time.RFC3339))
	}
	return d.setHold(ctx, w.Policy, by, &rotation.Hold{By: string(by), Reason: w.Reason, Since: now, Until: w.Until.UTC()})
}

func (d *daemon) askResume(ctx context.Context, by admin.Actor, request []byte) (any, error) {
	var w admin.PauseWish
	if err := admin.Decode(request, &w); err != nil {
		return nil, err
	}
	return d.setHold(ctx, w.Policy, by, nil)
}

// holdWait bounds the writing of a hold: an operator in a hurry is to know whether it holds.
const holdWait = 15 * time.Second

func (d *daemon) setHold(ctx context.Context, policy string, by admin.Actor, hold *rotation.Hold) (any, error) {
	if policy == "" {
		return nil, admin.Refuse("say which policy")
	}
	g := d.inForce()
	if g.parts[policy] == nil {
		return nil, g.unknownPolicy(policy)
	}
	if err := d.bus.Ready(); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	event, err := d.records.setHold(ctx, policy, hold, func(head audit.Head) (rotation.Event, audit.Head, error) {
		return rotation.HoldEvent(policy, d.policySHA256(policy), string(by), hold, time.Now(), head)
	})
	if err != nil {
		return nil, err
	}
	d.log.Info("policy "+string(event.Kind), "policy", policy, "by", by, "reason", event.Data.Reason)
	d.publishHolds(ctx)
	return d.policyView(g.parts[policy], time.Now()), nil
}

// publishHolds tells of pauses, of their ends, and of reloads.
func (d *daemon) publishHolds(ctx context.Context) {
	err := d.records.publishHolds(ctx, events{d}.Publish)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		d.untold.Over("")
	default:
		if times, tell := d.untold.Met("", err.Error()); tell {
			d.log.Warn("events of policies cannot be published; trying again", "times", times, "err", err)
		}
	}
}

// followHolds publishes what could not be published when it happened, until ctx ends.
func (d *daemon) followHolds(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.records.unpublished:
		}
		if !sleep(ctx, tryAgain) {
			d.records.notePublishing() // for whoever comes next
			return ctx.Err()
		}
		d.publishHolds(ctx)
	}
}

// holdChanged looks at a policy's assignments when it is held or released; and again when a
// hold ends by itself.
func (d *daemon) holdChanged(policy string) {
	d.changes.tell()
	if d.inForce().parts[policy] == nil || !d.replayed.Load() {
		return
	}
	if d.alarmHold(policy) {
		d.offerDueOf(policy, rotation.TriggerPolicy)
		return
	}
	d.lookAtAll(policy)
}

// holdAlarm begins the alarm of a hold's end; no policy begins so.
const holdAlarm = "=hold/"

// setHoldAlarms sets the alarms of holds that were there when the journal was read.
func (d *daemon) setHoldAlarms() {
	for _, name := range d.inForce().names() {
		d.alarmHold(name)
	}
}

// alarmHold sets the alarm of a hold's end, and reports whether the policy is held.
func (d *daemon) alarmHold(policy string) bool {
	hold := d.records.hold(policy)
	if !hold.Holds(time.Now()) {
		return false
	}
	d.alarm.Set(holdAlarm+policy, hold.Until)
	return true
}
