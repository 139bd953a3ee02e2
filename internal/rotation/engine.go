package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/repeat"
)

// maxRounds bounds the steps of one run. A plan gets shorter with each step, so that
// the bound is met only by a mistake; then the run ends and says so.
const maxRounds = 200

// Config is what an Engine needs.
type Config struct {
	// Assembly returns a policy's parts, or nil where the policy is not in force here.
	Assembly func(name string) *Assembly
	Journal  Journal
	Events   Events
	Prober   providers.Prober
	Meter    Meter
	// Brake says why a change must wait for a confirmation; empty: it may be made. nil: there
	// is no brake.
	Brake func(ID) string
	// Hold says whether somebody paused a policy; nil: nobody can.
	Hold func(policy string) *Hold
	// Progress hears of each step when it begins, and once more, with the error, if it fails;
	// nil: nobody listens.
	Progress func(id ID, s Step, err error)
	// PolicySHA256 is the hash of the file that a policy in force was read from; nil: it is not
	// told.
	PolicySHA256 func(policy string) string
	// Node is whose records those of a policy are, where each node has its own; nil: they are
	// everybody's.
	Node func(policy string) string
	// Skew is how far this host's clock is ahead of the clouds'; nil: nobody knows.
	Skew func() time.Duration
	// Again asks for another look at an assignment, because of a list that was read after it had
	// gone on without; nil: that is left to the next comparison.
	Again func(ID, Trigger)
	// Back is when clouds, by name, came back after they had been away; nil: nobody knows. The map
	// is not written to.
	Back   func() map[string]time.Time
	Logger *slog.Logger
}

// Engine brings assignments to where they should be. Process may be called for
// different assignments at once.
type Engine struct {
	cfg      Config
	stopping atomic.Bool
	// now is time.Now, but for tests in which a clock jumps.
	now func() time.Time
	// failing are the targets, and the steps at issuers, that the log has told of.
	failing repeat.Failures[failing]
	// away are the assignments that fail because a service does.
	away repeat.Crowds[cause, ID]
}

// failing is a target of an assignment, or a step at its issuer.
type failing struct {
	ID
	at string
}

// New returns an Engine.
func New(cfg Config) *Engine { return &Engine{cfg: cfg, now: time.Now} }

// Stop lets the steps in flight end and starts no new one.
func (e *Engine) Stop() { e.stopping.Store(true) }

// ErrStopping is returned by Process when it stopped between two steps because of
// Stop: there is more to do.
var ErrStopping = errors.New("the daemon is stopping")

// ErrReplaced is returned by Process when it stopped between two steps because the policy
// changed: another look has to begin with the new one.
var ErrReplaced = errors.New("the policy was replaced")

// Request is why an assignment is looked at.
type Request struct {
	Trigger Trigger
	Force   bool
	// Confirm releases the brake for this assignment.
	Confirm bool
	// Asked is when the trigger came.
	Asked time.Time
	// Newest is when the last trigger came that the same look answers; zero for Asked.
	Newest time.Time
	// Heard is when this process heard of the last of them; zero if it did not.
	Heard time.Time
	// By and Reason are who asked, and why, where somebody did.
	By, Reason string
}

func (q Request) newest() time.Time {
	if q.Newest.IsZero() {
		return q.Asked
	}
	return q.Newest
}

// Process looks at an assignment and does what is to be done now. An error means that
// the look should be repeated soon: the journal could not be used, or the daemon is
// stopping. Failures of targets are not errors here; they are in the record, with the
// time of the next try.
func (e *Engine) Process(ctx context.Context, id ID, q Request) error {
	r, err := e.begin(ctx, id, q)
	if r == nil || err != nil {
		return err
	}
	for range maxRounds {
		r.o.Skew = e.skew()          // the first answer of a cloud tells it
		r.o.Hold = e.hold(id.Policy) // somebody may be in a hurry to stop it
		r.o.Back = e.back()
		steps := Plan(r.o, r.now())
		r.steps = steps
		next := slices.IndexFunc(steps, Step.acts)
		if next < 0 {
			return r.finish(ctx, steps)
		}
		if e.stopping.Load() {
			return ErrStopping
		}
		if e.cfg.Assembly(id.Policy) != r.assembly {
			return ErrReplaced
		}
		if err := r.apply(providers.WithRequests(ctx, r.requests), steps[next]); err != nil {
			return err
		}
	}
	r.log.Error("a plan does not end", "steps", fmt.Sprint(Plan(r.o, r.now())))
	return r.finish(ctx, nil)
}

// Due reports whether a look at the assignment would find anything to do, from memory
// alone. It is what keeps ten thousand assignments from asking the cloud at a start.
// Unsettled files may be in the middle of a replacement: the answer may be another one
// when SettleTime has passed.
func (e *Engine) Due(id ID, record Record, t Trigger, now time.Time) (due, unsettled bool) {
	a := e.cfg.Assembly(id.Policy)
	if a == nil || watchesOnly(a.Policy) || !hears(a.Policy, t) {
		return false, false
	}
	o := observe(a, id, record, Request{Trigger: t}, now)
	o.Hold, o.Back = e.hold(id.Policy), e.back()
	return finds(o, record, now), o.Wanted != nil && o.Wanted.Unsettled(now)
}

// finds reports whether there is anything to do.
func finds(o Observation, record Record, now time.Time) bool {
	if o.Wanted == nil && !o.issues() {
		return record.State != "" && record.Reason != reasonNoSource
	}
	if record.Wanted.Fingerprint != o.wants() || len(record.Outbox) > 0 || record.Intent != nil {
		return true
	}
	steps := Plan(o, now)
	state, reason := judge(&o, steps, now)
	return slices.ContainsFunc(steps, Step.acts) || state != record.State || reason != record.Reason
}

// watchesOnly reports whether a policy has nothing to do and nothing to prove: its
// certificates are measured, and need neither work nor a record.
func watchesOnly(p *policy.Policy) bool {
	return len(p.Targets) == 0 && len(p.Verify.Endpoints) == 0
}

// ReasonUnseen is why a certificate whose record says converged is not: a bundle has come into force
// since then.
const ReasonUnseen = "another bundle is in force, and no look has begun to bring it to its targets"

// Standing says where an assignment stands: what its record says, as long as that is about the bundle
// in force, or, where its policy only watches, what can be told from the source.
func (e *Engine) Standing(id ID, record Record, now time.Time) State {
	state, _ := e.StandingUntil(id, record, now)
	return state
}

// StandingUntil is Standing with the moment until which it holds as long as record, source
// and policy stay as they are; zero for ever.
func (e *Engine) StandingUntil(id ID, record Record, now time.Time) (State, time.Time) {
	a := e.cfg.Assembly(id.Policy)
	watched := a != nil && watchesOnly(a.Policy)
	if a == nil || !watched && record.State != StateConverged {
		return record.State, time.Time{}
	}
	o := observe(a, id, record, Request{}, now)
	switch {
	case watched:
	case o.unseen():
		return StateWaiting, time.Time{}
	case record.replaces():
		return StateRotating, time.Time{}
	default:
		return StateConverged, time.Time{}
	}
	state, _ := judge(&o, nil, now)
	if o.issues() {
		return state, now // there is one of them in a policy: it can be asked each time
	}
	if o.Wanted == nil {
		return state, time.Time{}
	}
	until := time.Time{}
	if end := o.Wanted.Info.NotAfter; end.After(now) {
		until = end
	}
	if o.Wanted.Problem != "" && !o.Wanted.quarantined(now) {
		if settled := o.Wanted.ProblemSince.Add(SettleTime); until.IsZero() || settled.Before(until) {
			until = settled
		}
	}
	return state, until
}

// Wanted returns the bundle in force of an assignment, from memory alone; false where
// there is none.
func (e *Engine) Wanted(id ID, record Record) (Wanted, bool) {
	a := e.cfg.Assembly(id.Policy)
	if a == nil {
		return Wanted{}, false
	}
	if o := observe(a, id, record, Request{}, time.Time{}); o.Wanted != nil {
		return *o.Wanted, true
	}
	return Wanted{}, false
}

// run is one look at one assignment, by one goroutine.
type run struct {
	e        *Engine
	log      *slog.Logger
	assembly *Assembly
	o        Observation
	// loaded is the record as the journal has it, at revision.
	loaded   Record
	revision Revision
	asked    time.Time
	// answers is the newest wish that somebody may wait for; zero where nobody does.
	answers time.Time
	// by and why are whose wish this run answers, trigger is how it came, policySHA256 by which
	// rules.
	by, why      string
	trigger      Trigger
	policySHA256 string
	// node is whose record it is; empty for everybody's.
	node string
	// requests are those made of services of which no event has told yet, failures those of
	// the steps that failed.
	requests, failures *providers.Requests
	// decided says that this run has told of its decision; failedStep is the last that failed.
	decided    bool
	failedStep StepKind
	// crowd is what that fails with it, if it does by no fault of this assignment.
	crowd crowd
	// interrupted is a step that an earlier process had begun when it ended; nil once its target
	// was looked at.
	interrupted *Intent
	// steps is the plan of this round.
	steps []Step
	// made are the steps of this run.
	made map[string]bool
	// brakeAsked says that the brake was asked in this run.
	brakeAsked bool
}

func (r *run) now() time.Time { return r.e.now() }

// back is when clouds came back, as far as somebody knows.
func (e *Engine) back() map[string]time.Time {
	if e.cfg.Back == nil {
		return nil
	}
	return e.cfg.Back()
}

// skew is how far this host's clock is ahead of the clouds', as far as somebody knows.
func (e *Engine) skew() time.Duration {
	if e.cfg.Skew == nil {
		return 0
	}
	return e.cfg.Skew()
}

func (r *run) progress(s Step, err error) {
	if r.e.cfg.Progress != nil {
		r.e.cfg.Progress(r.o.ID, s, err)
	}
}

// begin reads the journal and the source; nil where there is nothing to do for the
// assignment here, whatever is read.
func (e *Engine) begin(ctx context.Context, id ID, q Request) (*run, error) {
	a := e.cfg.Assembly(id.Policy)
	if a == nil || watchesOnly(a.Policy) {
		return nil, nil
	}
	if q.Trigger.impatient() { // the others can wait for what the watcher hears
		if err := a.Source.Refresh(ctx, id.Certificate, q.Heard); e.stopping.Load() {
			return nil, ErrStopping
		} else if err != nil {
			return nil, fmt.Errorf("look at the source of %s/%s: %w", id.Policy, id.Certificate, err)
		}
	}
	record, revision, err := e.cfg.Journal.Load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("begin with %s/%s: %w", id.Policy, id.Certificate, err)
	}
	r := &run{
		e: e, assembly: a, loaded: record.clone(), revision: revision, asked: q.Asked, by: q.By, why: q.Reason, made: map[string]bool{},
		log: e.cfg.Logger.With("policy", id.Policy, "certificate", id.Certificate), trigger: q.Trigger, requests: &providers.Requests{}, failures: &providers.Requests{},
		interrupted: record.Intent,
	}
	if e.cfg.PolicySHA256 != nil {
		r.policySHA256 = e.cfg.PolicySHA256(id.Policy)
	}
	if e.cfg.Node != nil {
		r.node = e.cfg.Node(id.Policy)
	}
	if q.Trigger.impatient() {
		r.answers = q.newest().UTC()
	}
	r.o = observe(a, id, record, q, r.now())
	r.o.Hold, r.o.Back = e.hold(id.Policy), e.back()
	r.absorbWanted()
	if q.Confirm {
		r.o.Record.Confirmed = r.o.wants()
	}
	if record := &r.loaded; record.State == StateBraked && record.Wanted.Fingerprint == r.o.wants() {
		r.o.Braked = record.Reason // until somebody confirms: a mistake is not rolled out slowly either
	}
	return r, nil
}

func (e *Engine) hold(policy string) *Hold {
	if e.cfg.Hold == nil {
		return nil
	}
	return e.cfg.Hold(policy)
}

// observe puts together what is known without asking anybody.
func observe(a *Assembly, id ID, record Record, q Request, now time.Time) Observation {
	record = record.asOf(now)
	o := Observation{ID: id, Policy: a.Policy, Record: record, Trigger: q.Trigger, Began: now, Force: q.Force}
	if a.Issuer != nil {
		o.Asks = a.Issuer.Asks()
		if asked := q.Asked.UTC(); q.Force && asked.After(o.Record.Issuing.Forced) {
			o.Record.Issuing.Forced = asked
		}
		o.issued()
	} else if wanted, ok := a.Source.Wanted(id.Certificate); ok {
		o.Wanted = &wanted
	}
	for _, t := range a.Policy.Targets {
		v := View{Name: t.Name, Kind: t.Kind(), Last: t.Last()}
		if names := t.Endpoints(); names.Covered {
			recorded, known := record.Targets[t.Name]
			v.Covered, v.Unlisted, v.Endpoints = true, !known, recorded.Endpoints
		} else {
			d := a.divided(t.Name, names.List)
			v.Endpoints, v.Orphans = d.mine[id.Certificate], d.orphans
		}
		o.Targets = append(o.Targets, v)
	}
	return o
}

// absorbWanted notes a change of what the source wants.
func (r *run) absorbWanted() {
	record := &r.o.Record
	if record.Targets == nil {
		record.Targets = map[string]TargetRecord{}
	}
	for name := range record.Targets {
		if !slices.ContainsFunc(r.o.Targets, func(v View) bool { return v.Name == name }) {
			// No longer in the policy: what it serves is nobody's business, but to keep it valid.
			record.leave(record.Targets[name])
			delete(record.Targets, name)
		}
	}
	if r.o.Wanted == nil || record.Wanted.Fingerprint == r.o.wants() {
		return
	}
	record.Wanted, record.WantedAt = r.o.Wanted.Info, r.now().UTC()
	record.remember(r.o.Wanted.Info)
	record.VerifyAttempts, record.VerifyNext, record.Acknowledged, record.RolledBack = 0, time.Time{}, nil, nil
	for name, t := range record.Targets {
		// The new bundle deserves a try of its own, unless the service asked for a pause.
		// (A refused password is held back by the cloud's client, not here.)
		if t.FailedKind != providers.KindThrottled.String() {
			t.RetryAt = time.Time{}
		}
		t.Drift = ""
		record.Targets[name] = t
	}
}

// maxLeaves is how many bundles a record remembers: the one in force, its way back, and
// some that a target may still be found with.
const maxLeaves = 5

// remember puts a bundle at the head of the known ones.
func (r *Record) remember(leaf certs.Info) {
	others := slices.DeleteFunc(slices.Clone(r.Leaves), func(l certs.Info) bool { return l.Fingerprint == leaf.Fingerprint })
	r.Leaves = append([]certs.Info{leaf}, others...)
	r.Leaves = r.Leaves[:min(len(r.Leaves), maxLeaves)]
}

// save writes the record if it changed.
func (r *run) save(ctx context.Context) error {
	if reflect.DeepEqual(r.o.Record, r.loaded) {
		return nil
	}
	r.o.Record.WrittenAt = r.now().UTC()
	// A copy: the journal's reader may hold on to it while this run goes on changing its own.
	written := r.o.Record.clone()
	revision, err := r.e.cfg.Journal.Save(ctx, r.o.ID, written, r.revision)
	if err != nil {
		return fmt.Errorf("record %s/%s: %w", r.o.ID.Policy, r.o.ID.Certificate, err)
	}
	r.revision, r.loaded = revision, written
	return nil
}

// intend writes down what is about to be done. An effect follows only if that worked.
func (r *run) intend(ctx context.Context, s Step) error {
	r.o.Record.Intent = &Intent{Step: s.Kind, Target: s.Target, Fingerprint: s.Fingerprint, Handle: s.Handle, At: r.now().UTC()}
	return r.save(ctx)
}

// finish draws the conclusion from a plan in which nothing is left to do now.
func (r *run) finish(ctx context.Context, steps []Step) error {
	now := r.now()
	record := &r.o.Record
	record.Intent = nil
	state, reason := judge(&r.o, steps, now)
	r.decide(steps)
	if state != record.State {
		r.countDeferral(steps)
	}
	r.conclude(state, reason, now)
	record.WakeAt = wake(&r.o, steps, now)
	if r.answers.After(record.Answered) {
		record.Answered = r.answers
	}
	if err := r.save(ctx); err != nil {
		return err
	}
	return r.publish(ctx)
}

// seenAll reports whether every target of the assignment was looked at.
func (r *run) seenAll() bool {
	if r.o.issues() && !r.o.Sourced {
		return false
	}
	return !slices.ContainsFunc(r.o.Targets, func(v View) bool { return (len(v.Endpoints) > 0 || v.Covered) && !v.Seen })
}

// publish sends the outbox. What cannot be sent now stays in the record.
func (r *run) publish(ctx context.Context) error {
	if len(r.o.Record.Outbox) == 0 {
		return nil
	}
	for _, event := range r.o.Record.Outbox {
		if err := r.e.cfg.Events.Publish(ctx, event); err != nil {
			return fmt.Errorf("publish events of %s/%s: %w", r.o.ID.Policy, r.o.ID.Certificate, err)
		}
	}
	r.o.Record.Outbox = nil
	return r.save(ctx)
}

// clone copies a record so deeply that no change of one shows in the other.
func (r Record) clone() Record {
	c := r
	c.Targets = make(map[string]TargetRecord, len(r.Targets))
	for name, t := range r.Targets {
		if t.Active != nil {
			t.Active = new(*t.Active)
		}
		if t.Previous != nil {
			t.Previous = new(*t.Previous)
		}
		t.Endpoints = slices.Clone(t.Endpoints)
		t.Superseded = slices.Clone(t.Superseded)
		c.Targets[name] = t
	}
	if r.Targets == nil {
		c.Targets = nil
	}
	if r.RolledBack != nil {
		c.RolledBack = new(*r.RolledBack)
	}
	if r.Intent != nil {
		c.Intent = new(*r.Intent)
	}
	if r.Issuing.Authority != nil {
		c.Issuing.Authority = new(*r.Issuing.Authority)
	}
	c.Issued = slices.Clone(r.Issued)
	c.Acknowledged = slices.Clone(r.Acknowledged)
	c.Leaves = slices.Clone(r.Leaves)
	c.Probes = slices.Clone(r.Probes)
	c.Outbox = slices.Clone(r.Outbox)
	return c
}
