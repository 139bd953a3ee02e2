package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// apply makes one step. Its error is the journal's; a failure of the step itself goes
// into the record.
func (r *run) apply(ctx context.Context, s Step) error {
	r.log.Debug("step", "step", s.Kind, "target", s.Target, "fingerprint", short(s.Fingerprint))
	if s.Kind == StepVerify {
		r.progress(s, nil)
		r.verify(ctx, s.Endpoints)
		return nil
	}
	if s.Target == "" {
		return r.applySource(ctx, s)
	}
	v := r.view(s.Target)
	if r.brakes(v, s) {
		return nil
	}
	if again := r.once(s); again != nil {
		return r.failed(ctx, v, s, again)
	}
	r.progress(s, nil)
	if s.Kind != StepLook {
		r.decide(r.steps)
		r.announce(v, s)
		if err := r.intend(ctx, s); err != nil {
			return err
		}
	}
	err := r.effect(ctx, v, s)
	if s.Kind == StepActivate && providers.KindOf(err) == providers.KindNotFound && v.Staged == "" {
		// The target no longer knows what it is to serve: a bundle that it held for us, or an
		// object that somebody deleted just now. Staging it again is what a first try would do.
		r.log.Info("bundle is staged again: the target does not know it any more", "target", v.Name, "handle", s.Handle, "err", err)
		v.Restage, r.o.Record.Intent = true, nil
		return nil
	}
	if s.Kind == StepRollBack && providers.KindOf(err) == providers.KindNotFound {
		r.noWayBack(v, s, err)
		err = nil
	}
	if err != nil {
		return r.failed(ctx, v, s, err)
	}
	r.update(s.Target, func(t *TargetRecord) { t.succeeded(s.Kind) })
	r.o.Record.Intent = nil
	return nil
}

// once refuses a step that this run has made already: it worked, and the plan asks for
// it again, so it made no difference. Going on would hammer the service.
func (r *run) once(s Step) error {
	key := Step{Kind: s.Kind, Target: s.Target, Fingerprint: s.Fingerprint, Handle: s.Handle}.String()
	if r.made[key] {
		return &providers.Error{Kind: providers.KindConflict, Service: s.Target, Op: string(s.Kind), Message: "it worked and made no difference"}
	}
	r.made[key] = true
	return nil
}

// announce says what the step means for the assignment: a change is the beginning of a
// rotation; retiring is planned only when everything wanted is served and proven.
func (r *run) announce(v *View, s Step) {
	switch s.Kind {
	case StepRetire: // mostly the last thing of a rotation that is proven already
		if r.o.placed() && r.o.Record.Verified == r.o.wants() {
			r.conclude(StateConverged, "", r.now())
		}
	case StepRollBack: // it is the end of a rotation, not the beginning of one
	case StepActivate:
		r.start(v)
		r.rememberPrevious(v)
	default:
		r.start(v)
	}
}

func (r *run) effect(ctx context.Context, v *View, s Step) error {
	switch s.Kind {
	case StepLook:
		return r.look(ctx, v)
	case StepStage:
		return r.stage(ctx, v)
	case StepActivate:
		return r.activate(ctx, v, s.Handle)
	case StepRollBack:
		return r.rollBack(ctx, v, s)
	case StepRetire:
		return r.retire(ctx, v, s)
	default: // verify is apply's own; wait and refuse do not act
		return fmt.Errorf("step %s has no effect", s.Kind)
	}
}

func (r *run) view(target string) *View {
	i := slices.IndexFunc(r.o.Targets, func(v View) bool { return v.Name == target })
	return &r.o.Targets[i]
}

// update changes the record of a target.
func (r *run) update(target string, change func(*TargetRecord)) {
	t := r.o.Record.Targets[target]
	change(&t)
	r.o.Record.Targets[target] = t
}

// request is what a target's verbs are told.
func (r *run) request(v *View) providers.Request {
	t := r.o.target(v.Name)
	q := providers.Request{Owner: r.o.ID, Endpoints: v.Endpoints, Leaves: r.o.Record.Leaves, Made: r.o.Record.made()}
	if ic := r.o.Policy.Source.IdentityCenter; ic != nil && ic.Superseded == policy.SupersededKeep {
		q.Made = nil // nothing is to be deleted
	}
	if t.Active != nil {
		q.Known = append(q.Known, t.Active.Handle)
	}
	for _, p := range t.Superseded {
		q.Known = append(q.Known, p.Handle)
	}
	if v.Looked && !v.Restage { // a target that did not know what it held has changed since
		q.Seen = &v.Observed
	}
	return q
}

// start notes the beginning of a rotation at a target.
func (r *run) start(v *View) {
	now := r.now().UTC()
	r.begun()
	r.update(v.Name, func(t *TargetRecord) {
		t.Kind, t.LastAttemptAt = v.Kind, now
		if !t.StartedAt.IsZero() {
			return
		}
		t.StartedAt = now
		d := EventData{Target: v.Name, Endpoints: v.Endpoints}
		if t.Active != nil {
			d.Previous = t.Active.Fingerprint
		}
		if !d.Previous.IsZero() && d.Previous != r.o.wants() {
			r.o.Record.ReplacedAt = now
		}
		r.override(v, now)
		r.log.Info("rotation started", "target", v.Name, "fingerprint", short(r.o.wants()), "previous", short(d.Previous), "trigger", r.o.Trigger)
		r.tell(EventStarted, d)
	})
}

// begun notes what the rotation under way answers.
func (r *run) begun() {
	record, now := &r.o.Record, r.now().UTC()
	if !record.Asked.IsZero() {
		return
	}
	record.Trigger, record.Asked = string(r.o.Trigger), r.asked.UTC()
	if record.Asked.IsZero() || record.Asked.After(now) {
		record.Asked = now
	}
}

// look reads the target.
func (r *run) look(ctx context.Context, v *View) error {
	if v.Covered {
		if err := r.listEndpoints(ctx, v); err != nil {
			return err
		}
	}
	if r.survey(ctx, v) {
		v.Surveyed, v.Seen = true, true
		r.noteLook()
		return nil
	}
	observed, err := r.assembly.Targets[v.Name].Observe(ctx, r.request(v))
	if err != nil {
		return err
	}
	v.Observed, v.Looked, v.Seen = observed, true, true
	if v.Covered {
		v.dropUnfit()
	}
	r.absorbLook(v)
	r.noteLook()
	return nil
}

// noteLook remembers when everything was last looked at.
func (r *run) noteLook() {
	if r.seenAll() {
		r.o.Record.LookedAt = r.now().UTC()
	}
}

// stage brings the bundle to the target.
func (r *run) stage(ctx context.Context, v *View) error {
	bundle, err := r.load(ctx)
	if err != nil {
		return err
	}
	remote, err := r.assembly.Targets[v.Name].Stage(ctx, r.request(v), bundle)
	if err != nil {
		return err
	}
	v.Observed.Remotes = append(v.Observed.Remotes, remote)
	v.Staged = remote.Handle
	r.log.Info("bundle staged", "target", v.Name, "fingerprint", short(r.o.wants()), "handle", remote.Handle, "name", remote.Name)
	r.tell(EventDeployed, EventData{Step: StepStage, Target: v.Name})
	return nil
}

// load fetches the bundle from where it is.
func (r *run) load(ctx context.Context) (*certs.Bundle, error) {
	if r.o.issues() {
		return r.collect(ctx)
	}
	bundle, err := r.assembly.Source.Load(ctx, r.o.ID.Certificate, r.o.wants())
	if err != nil {
		return nil, &providers.Error{Kind: providers.KindConflict, Service: "source", Op: "load the bundle", Err: err}
	}
	return bundle, nil
}

// activate binds the endpoints and reads them back: the service's own word is the
// first half of the proof.
func (r *run) activate(ctx context.Context, v *View, h providers.Handle) error {
	previous := r.servedBefore(v)
	if err := r.assembly.Targets[v.Name].Activate(ctx, r.request(v), h); err != nil {
		return err
	}
	if err := r.look(ctx, v); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !v.serves(r.o.wants()) {
		return &providers.Error{Kind: providers.KindConflict, Service: v.Kind, Op: "read back after activation", Message: unbound(v, h)}
	}
	v.Forced = true
	record := &r.o.Record
	record.Verified, record.Proven, record.VerifyAttempts, record.VerifyNext = [32]byte{}, [32]byte{}, 0, time.Time{}
	r.log.Info("bundle activated", "target", v.Name, "fingerprint", short(r.o.wants()), "handle", h, "endpoints", v.Endpoints)
	r.tell(EventActivated, EventData{Step: StepActivate, Target: v.Name, Endpoints: v.Endpoints, Previous: previous})
	return nil
}

func (r *run) servedBefore(v *View) (f [32]byte) {
	if a := r.o.target(v.Name).Active; a != nil {
		return a.Fingerprint
	}
	return f
}

// unbound names the endpoints that are still bound to something else.
func unbound(v *View, h providers.Handle) string {
	var names []string
	for _, e := range v.Observed.Endpoints {
		if e.Serves != h {
			names = append(names, fmt.Sprintf("%s is bound to %q", e.Name, e.Serves))
		}
	}
	return strings.Join(names, ", ")
}

// retire removes a superseded certificate.
func (r *run) retire(ctx context.Context, v *View, s Step) error {
	err := r.assembly.Targets[v.Name].Retire(ctx, r.request(v), s.Handle)
	switch {
	case err == nil:
		r.e.cfg.Meter.Retired(v.Kind, "ok")
	case providers.KindOf(err) == providers.KindInUse:
		r.e.cfg.Meter.Retired(v.Kind, "in_use")
		r.staysInUse(v, s, err)
		return nil
	default:
		r.e.cfg.Meter.Retired(v.Kind, "failed")
		return err
	}
	r.update(v.Name, func(t *TargetRecord) {
		t.Superseded = slices.DeleteFunc(t.Superseded, func(p Placed) bool { return p.Handle == s.Handle })
		if t.lacksRoom() {
			t.RetryAt = r.now().Add(time.Second).UTC() // there is some now
		}
	})
	r.log.Info("superseded certificate retired", "target", v.Name, "fingerprint", short(s.Fingerprint), "handle", s.Handle)
	r.tell(EventRetired, EventData{Step: StepRetire, Target: v.Name, Fingerprint: s.Fingerprint})
	return nil
}

// staysInUse notes, and tells once, that something still serves what is superseded.
func (r *run) staysInUse(v *View, s Step, err error) {
	known := false
	r.update(v.Name, func(t *TargetRecord) {
		for i := range t.Superseded {
			if p := &t.Superseded[i]; p.Handle == s.Handle {
				known, p.InUse = p.InUse, true
			}
		}
	})
	if known {
		r.requests.Take()
		return
	}
	r.requests.Note(providers.RequestIDOf(err))
	r.log.Warn("superseded certificate is still served by something; it stays", "target", v.Name, "handle", s.Handle, "err", err)
	r.tell(EventFailed, EventData{Step: StepRetire, Outcome: OutcomeRefused, Target: v.Name, Fingerprint: s.Fingerprint, Reason: err.Error()})
}

// verify makes the handshakes. With no endpoints in the policy, the targets' own word,
// just read, is all the proof there is.
func (r *run) verify(ctx context.Context, of []string) {
	wanted, record := r.o.wants(), &r.o.Record
	var probes []providers.Probe
	if endpoints := r.endpointsToProve(of); len(endpoints) > 0 {
		v := r.o.Policy.Verify
		probes = r.e.cfg.Prober.Probe(ctx, providers.ProbeRequest{
			Endpoints: endpoints, Addresses: v.Addresses, CheckChain: v.Chain != "ignore", CAFile: v.CAFile,
		})
	}
	now := r.now()
	record.Probes, record.VerifyTriedAt = probes, now.UTC()
	failing := slices.IndexFunc(probes, func(p providers.Probe) bool { return !p.Serves(wanted) })
	if failing < 0 {
		if record.Successes++; record.Verified != wanted && record.Successes < r.o.Policy.Verify.Successes && len(probes) > 0 {
			record.VerifyNext = now.Add(successGap).UTC()
			return
		}
		record.VerifiedAt, record.VerifyAttempts, record.VerifyNext, record.Successes = now.UTC(), 0, time.Time{}, 0
		if !r.o.placed() {
			r.provenInPart(len(probes), of)
			return
		}
		if record.Verified != wanted {
			r.log.Info("bundle verified", "fingerprint", short(wanted), "handshakes", len(probes))
			r.tell(EventVerified, EventData{Step: StepVerify, Endpoints: of})
		}
		record.Verified, record.Good, record.Chain, record.Proven = wanted, wanted, r.o.Wanted.Chain, [32]byte{}
		r.setDriftServed(false, "")
		return
	}
	record.Proven, record.Successes = [32]byte{}, 0
	if record.Verified == wanted {
		// It was proven, and is no more.
		record.Verified = [32]byte{}
		r.setDriftServed(true, probes[failing].Complaint(wanted))
	}
	record.VerifyAttempts++
	delay := nth(proofDelays, record.VerifyAttempts)
	if late(&r.o, now) {
		delay = lateProofDelay
	}
	record.VerifyNext = now.Add(delay).UTC()
	r.log.Debug("not yet served", "reason", probes[failing].Complaint(wanted), "attempt", record.VerifyAttempts)
}

// provenInPart notes a proof of those targets that have the bundle while others wait.
func (r *run) provenInPart(handshakes int, of []string) {
	record, wanted := &r.o.Record, r.o.wants()
	if record.Proven != wanted {
		r.log.Info("bundle verified where it is deployed so far", "fingerprint", short(wanted), "handshakes", handshakes, "endpoints", of)
		record.Proven, record.ProvenAt = wanted, record.VerifiedAt
	}
}

// endpointsToProve are the endpoints that this certificate covers: with several
// certificates in a policy, each proves its own.
func (r *run) endpointsToProve(of []string) []string {
	return slices.DeleteFunc(slices.Clone(of), func(endpoint string) bool {
		host, _, err := net.SplitHostPort(endpoint)
		if err != nil {
			return false // the proof will say what is wrong with it
		}
		owner, covered := r.assembly.Source.Owners().Of(strings.ToLower(host))
		return covered && owner != r.o.ID.Certificate
	})
}

// failed puts a failure into the record, with the time of the next try, and writes it.
func (r *run) failed(ctx context.Context, v *View, s Step, err error) error {
	if errors.Is(err, ErrConflict) {
		return err
	}
	r.progress(s, err)
	r.failedStep = s.Kind
	r.join(v.Name, err)
	now := r.now()
	kind := providers.KindOf(err).String()
	r.e.cfg.Meter.StepFailed(r.o.ID.Policy, v.Kind, string(s.Kind), kind)
	r.update(v.Name, func(t *TargetRecord) {
		t.Kind = v.Kind
		if t.Failure == "" {
			r.e.failing.Over(failing{r.o.ID, v.Name}) // what failed before has worked since
		}
		repeated := t.Failure == err.Error()
		if r.o.isBack(v.Name, t.Attempts) {
			t.Failures = 0 // that outage is over; this is something else
		}
		t.Attempts.failed(s.Kind, err, now)
		if t.room() != nil {
			t.RetryAt = now.Add(time.Second).UTC() // it can be made, and need not be waited for
		}
		times, tell := r.e.failing.Met(failing{r.o.ID, v.Name}, string(s.Kind)+": "+err.Error())
		if r.noteFailure(err, repeated); tell {
			r.log.Log(ctx, r.crowd.level(slog.LevelWarn, slog.LevelDebug), "step failed", "step", s.Kind, "target", v.Name, "kind", kind, "times", times, "retry_at", clock(t.RetryAt), "request_id", providers.RequestIDOf(err), "err", err)
		}
		if t.Failures == 1 && !t.StartedAt.IsZero() {
			r.e.cfg.Meter.Rotated(r.o.ID.Policy, v.Kind, "failed", now.Sub(t.StartedAt))
		}
	})
	// What the service holds now is not known any more; the next round does not act on
	// what was seen before.
	v.Looked = false
	r.o.Record.Intent = nil
	r.tried()
	return r.save(ctx)
}

// noteFailure keeps the ids of a step that failed for the event that tells of it when the look
// ends: its calls are not the next step's. Of a failure that is no news there is no event.
func (r *run) noteFailure(err error, repeated bool) {
	ids := append(r.requests.Take(), providers.RequestIDOf(err))
	if repeated {
		return
	}
	for _, id := range ids {
		r.failures.Note(id)
	}
}

// tried ends somebody's impatience: one try is what it buys.
func (r *run) tried() {
	if r.o.Trigger.impatient() {
		r.o.Trigger = TriggerDeadline
	}
}
