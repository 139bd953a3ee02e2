package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// issued takes what the record says is in force for what is wanted.
func (o *Observation) issued() {
	o.Wanted = nil
	if current := o.Record.inForce(); current != nil {
		o.Wanted = &Wanted{Info: current.Info, Chain: current.Chain}
	}
}

// forced reports whether somebody asked for a new certificate and has not got it. It is
// told from the record, so that neither a failure nor a restart makes it be forgotten.
func (r *Record) forced() bool {
	current := r.inForce()
	return r.Issuing.Forced.After(r.Issuing.Honoured) && (current == nil || current.At.Before(r.Issuing.Forced))
}

// made are the handles of what the issuer made for the assignment.
func (r *Record) made() []providers.Handle {
	var handles []providers.Handle
	for _, i := range r.Issued {
		if i.Owned {
			handles = append(handles, i.Handle)
		}
	}
	return handles
}

func (r *run) issueRequest() providers.IssueRequest {
	q := providers.IssueRequest{Owner: r.o.ID, Since: r.tryingSince()}
	for _, i := range r.o.Record.Issued {
		q.Known = append(q.Known, i.Handle)
	}
	return q
}

// tryingSince is when the try under way began, by the issuer's clock, as the certificates
// are that it is compared with; zero for none. It is not later than by ours.
func (r *run) tryingSince() time.Time {
	since := r.o.Record.Issuing.Since
	if since.IsZero() {
		return since
	}
	return since.Add(-max(r.e.skew(), 0))
}

// applySource makes one step at the issuer.
func (r *run) applySource(ctx context.Context, s Step) error {
	err := r.once(s)
	if err == nil && s.Kind != StepLook {
		r.decide(r.steps)
		if s.Kind == StepIssue {
			r.begun()
			if r.o.Record.Issuing.Since.IsZero() {
				r.o.Record.Issuing.Since, r.o.Record.Issuing.Asks = r.now().UTC(), r.o.Asks
			}
		}
		if err := r.intend(ctx, s); err != nil {
			return err
		}
	}
	if err == nil {
		r.progress(s, nil)
		err = r.sourceEffect(ctx, s)
	}
	r.o.Record.Intent = nil
	if err != nil {
		return r.sourceFailed(ctx, s, err)
	}
	r.attempts(s.Kind).succeeded(s.Kind)
	if s.Kind == StepLook {
		return nil
	}
	return r.save(ctx) // what was made, or ended, is remembered before anything builds on it
}

func (r *run) sourceEffect(ctx context.Context, s Step) error {
	switch s.Kind {
	case StepLook:
		return r.lookSource(ctx)
	case StepIssue:
		return r.issue(ctx, s.Reason)
	case StepRevoke:
		return r.revoke(ctx, s)
	default:
		return fmt.Errorf("step %s has no effect at an issuer", s.Kind)
	}
}

// attempts are those that a step at the issuer counts among: what cannot be revoked must
// not hide what cannot be issued.
func (r *run) attempts(s StepKind) *Attempts {
	if s == StepRevoke {
		return &r.o.Record.Issuing.Revoking
	}
	return &r.o.Record.Issuing.Attempts
}

// sourceFailed is failed for steps at the issuer.
func (r *run) sourceFailed(ctx context.Context, s Step, err error) error {
	if errors.Is(err, ErrConflict) {
		return err
	}
	r.progress(s, err)
	r.failedStep = s.Kind
	r.join("", err)
	issuing, kind := r.attempts(s.Kind), providers.KindOf(err).String()
	r.e.cfg.Meter.StepFailed(r.o.ID.Policy, r.o.Policy.Source.Kind(), string(s.Kind), kind)
	if issuing.Failure == "" {
		r.e.failing.Over(failing{r.o.ID, string(s.Kind)})
	}
	repeated := issuing.Failure == err.Error()
	if r.o.isBack("", *issuing) {
		issuing.Failures = 0
	}
	issuing.failed(s.Kind, err, r.now())
	times, tell := r.e.failing.Met(failing{r.o.ID, string(s.Kind)}, err.Error())
	if r.noteFailure(err, repeated); tell {
		r.log.Log(ctx, r.crowd.level(slog.LevelWarn, slog.LevelDebug), "step failed", "step", s.Kind, "source_kind", r.o.Policy.Source.Kind(), "kind", kind, "times", times, "retry_at", clock(issuing.RetryAt), "request_id", providers.RequestIDOf(err), "err", err)
	}
	r.tried()
	return r.save(ctx)
}

// lookSource reads the issuer.
func (r *run) lookSource(ctx context.Context) error {
	issuance, err := r.assembly.Issuer.Observe(ctx, r.issueRequest())
	if err != nil {
		return err
	}
	record := &r.o.Record
	r.o.Sourced = true
	record.Issuing.LookedAt, record.Issuing.Authority = r.now().UTC(), issuance.Authority
	r.absorbIssued(issuance.Certificates)
	r.noteLook()
	return nil
}

// absorbIssued brings the record up to what the issuer has. Where nothing is recorded as
// in force, as after the loss of all state, the newest usable certificate is adopted; where
// the record is older than what the issuer has, as after a restore of yesterday's state, the
// one that overtook it.
func (r *run) absorbIssued(found []providers.Issued) {
	record := &r.o.Record
	var unknown []providers.Issued
	for _, c := range found {
		i := slices.IndexFunc(record.Issued, func(i Issue) bool { return i.Handle == c.Handle })
		if i < 0 {
			unknown = append(unknown, c)
		} else if known := &record.Issued[i]; !known.Rejected && known.Problem != c.Problem {
			known.Problem = c.Problem
			r.log.Warn("what the issuer says of a certificate has changed", "handle", c.Handle, "fingerprint", short(known.Info.Fingerprint), "reason", c.Problem)
		}
	}
	if record.inForce() == nil {
		for _, c := range unknown {
			if c.Problem == "" || c.Owned {
				r.adopt(c)
			}
		}
	} else if i := slices.IndexFunc(unknown, r.overtook); i >= 0 {
		r.adoptNewer(unknown[i])
		for _, c := range slices.Delete(unknown, i, i+1) {
			r.adopt(c) // what came and went meanwhile
		}
	}
	r.o.issued()
	r.absorbWanted()
}

// overtook reports whether a certificate that the record does not know took the place of
// the one in force: it is newer and usable, and the one in force is not any more, every
// target serves the newer one, or it is ours and another would be made now. That it is newer
// is not enough: somebody may have had it made for something else. What the try under way
// made is adopted when it is repeated.
func (r *run) overtook(c providers.Issued) bool {
	current := r.o.Record.inForce()
	if c.Problem != "" || c.Info.NotBefore.Before(current.Info.NotBefore) || !r.o.Record.Issuing.Since.IsZero() {
		return false
	}
	_, next := r.o.nextIssue(r.now())
	due := !next.After(r.now()) && !r.o.Record.forced()
	return current.Problem != "" || c.Owned && due || r.servedEverywhere(c.Info.Fingerprint)
}

// servedEverywhere reports whether every target was last seen to serve a leaf.
func (r *run) servedEverywhere(f certs.Fingerprint) bool {
	targets := 0
	for _, v := range r.o.Targets {
		if len(v.Endpoints) == 0 {
			continue
		}
		if targets++; r.o.target(v.Name).Active == nil || r.o.target(v.Name).Active.Fingerprint != f {
			return false
		}
	}
	return targets > 0
}

// adopt takes a certificate over that the record does not know: the first usable one for
// the one in force, others of ours as superseded.
func (r *run) adopt(c providers.Issued) {
	record, now := &r.o.Record, r.now().UTC()
	issue := issueOf(c, r.o.Asks, now)
	switch {
	case c.Problem == "" && record.inForce() == nil:
		r.log.Info("certificate adopted from the issuer", "handle", c.Handle, "fingerprint", short(c.Info.Fingerprint))
		if since := r.tryingSince(); !since.IsZero() && !c.Created.Before(since.Add(-clockSkew)) {
			issue.Owned = true
			r.adoptTry(c, issue)
			return
		}
	case c.Owned:
		issue.SupersededAt = now
	default:
		return // somebody else's, and not in force: none of our business
	}
	record.Issued = append(record.Issued, issue)
}

// adoptNewer puts a certificate in force that took the place of the one that the record has.
func (r *run) adoptNewer(c providers.Issued) {
	record, now := &r.o.Record, r.now().UTC()
	current := record.inForce()
	r.log.Warn("certificate adopted from the issuer: it is newer than the one in the journal, which may be an old copy",
		"handle", c.Handle, "fingerprint", short(c.Info.Fingerprint), "journal", short(current.Info.Fingerprint))
	current.SupersededAt = now
	issue := issueOf(c, r.o.Asks, now)
	if !c.Created.IsZero() && c.Created.Before(now) {
		issue.At = c.Created.UTC() // it answers nobody who asked for a new one since
	}
	record.Issued = slices.Insert(record.Issued, 0, issue)
}

// adoptTry takes over what the try under way made before its answer was lost.
func (r *run) adoptTry(c providers.Issued, issue Issue) {
	record := &r.o.Record
	record.Issuing.Since = time.Time{}
	record.Issuing.succeeded(StepIssue)
	record.Issued = append(record.Issued, issue)
	r.o.issued()
	r.absorbWanted()
	r.tell(EventIssued, EventData{Step: StepIssue, Reason: "an earlier try", CertificatePEM: string(c.PEM)})
}

func issueOf(c providers.Issued, asks string, now time.Time) Issue {
	return Issue{Handle: c.Handle, Info: c.Info, Chain: c.Chain, At: now, Asks: asks, Owned: c.Owned, Problem: c.Problem}
}

// issue gets a new certificate.
func (r *run) issue(ctx context.Context, reason string) error {
	issued, err := r.assembly.Issuer.Issue(ctx, r.issueRequest())
	if err != nil {
		return err
	}
	record, now := &r.o.Record, r.now().UTC()
	record.Issuing.Since, record.Issuing.Honoured = time.Time{}, record.Issuing.Forced
	issue := issueOf(issued, r.o.Asks, now)
	if issued.Problem != "" {
		if issue.Rejected, issue.Asks = true, record.Issuing.Asks; issued.Adopted {
			issue.Asks = "" // asking again does not lead to the same
		}
		r.log.Error("certificate is not what was asked for; it is not used", "handle", issued.Handle, "reason", issued.Problem)
	} else if current := record.inForce(); current != nil {
		current.SupersededAt = now
	}
	record.Issued = slices.DeleteFunc(record.Issued, func(i Issue) bool {
		return i.Rejected && !i.SupersededAt.IsZero() && i.At.Before(now.Add(-minReissue)) && !r.o.holds(i.Info.Fingerprint)
	})
	record.Issued = slices.Insert(record.Issued, 0, issue)
	r.o.issued()
	r.absorbWanted()
	if issued.Problem == "" {
		r.log.Info("certificate issued", "fingerprint", short(issued.Info.Fingerprint), "handle", issued.Handle, "reason", reason, "not_after", clock(issued.Info.NotAfter))
		r.tell(EventIssued, EventData{Step: StepIssue, Reason: reason, CertificatePEM: string(issued.PEM)})
	}
	return nil
}

// collect fetches the bundle in force from the issuer.
func (r *run) collect(ctx context.Context) (*certs.Bundle, error) {
	current := r.o.Record.inForce()
	bundle, err := r.assembly.Issuer.Collect(ctx, r.issueRequest(), current.Handle)
	if providers.KindOf(err) == providers.KindNotFound {
		current.Problem = err.Error() // the next one is issued
	}
	if err != nil {
		return nil, err
	}
	if f := bundle.Fingerprint(); f != current.Info.Fingerprint {
		return nil, &providers.Error{Kind: providers.KindInvalid, Service: r.o.Policy.Source.Kind(), Op: "collect the certificate",
			Message: fmt.Sprintf("it has fingerprint %s, and %s was issued", f.Short(), current.Info.Fingerprint.Short())}
	}
	return bundle, nil
}

// revoke ends a superseded certificate as the policy says, and forgets it.
func (r *run) revoke(ctx context.Context, s Step) error {
	record := &r.o.Record
	i := slices.IndexFunc(record.Issued, func(i Issue) bool { return i.Handle == s.Handle })
	issue := record.Issued[i]
	kind := r.o.Policy.Source.Kind()
	if r.o.revokes(issue, r.now()) {
		if err := r.assembly.Issuer.Revoke(ctx, r.issueRequest(), s.Handle); err != nil {
			r.e.cfg.Meter.Retired(kind, "failed")
			return err
		}
		r.e.cfg.Meter.Retired(kind, "ok")
		r.log.Info("superseded certificate revoked", "fingerprint", short(s.Fingerprint), "handle", s.Handle)
		r.tell(EventRetired, EventData{Step: StepRevoke, Target: kind, Fingerprint: s.Fingerprint})
	}
	kept := r.issueRequest()
	kept.Known = slices.DeleteFunc(kept.Known, func(h providers.Handle) bool { return h == s.Handle })
	if err := r.assembly.Issuer.Release(ctx, kept, kept.Known); err != nil {
		return err
	}
	// A rejection is remembered as long as it is what asking again would lead to.
	if rejected := r.o.rejection(); rejected != nil && rejected.Handle == s.Handle {
		rejected.SupersededAt = r.now().UTC()
		return nil
	}
	record.Issued = slices.Delete(record.Issued, i, i+1)
	return nil
}

// Acknowledge notes that a party has the bundle with this fingerprint. It reports false,
// and why, for one that nobody waits for. A record that somebody else is changing is an
// error that wraps ErrConflict: try again.
func (e *Engine) Acknowledge(ctx context.Context, id ID, f certs.Fingerprint, party string) (taken bool, reason string, err error) {
	a := e.cfg.Assembly(id.Policy)
	if a == nil || a.Policy.Source.IdentityCenter == nil {
		return false, "the policy waits for no acknowledgements", nil
	}
	if !slices.Contains(a.Policy.Source.IdentityCenter.Activate.Acknowledgements, party) {
		return false, "party " + cmp.Or(party, "(none)") + " is not one that the policy waits for", nil
	}
	record, revision, err := e.cfg.Journal.Load(ctx, id)
	if err != nil {
		return false, "", fmt.Errorf("acknowledge %s/%s: %w", id.Policy, id.Certificate, err)
	}
	if record.Wanted.Fingerprint != f {
		return false, "it is not the certificate in force", nil
	}
	if slices.ContainsFunc(record.Acknowledged, func(a Acknowledgement) bool { return a.Party == party }) {
		return true, "", nil
	}
	now := e.now().UTC()
	record = record.asOf(now).clone()
	record.Acknowledged, record.WrittenAt = append(record.Acknowledged, Acknowledgement{Party: party, At: now}), now
	if _, err := e.cfg.Journal.Save(ctx, id, record, revision); err != nil {
		return false, "", fmt.Errorf("acknowledge %s/%s: %w", id.Policy, id.Certificate, err)
	}
	return true, "", nil
}
