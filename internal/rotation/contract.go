package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// ID names an assignment: one policy and one of its certificates.
type ID = providers.Owner

// ErrConflict is returned by a Journal whose record was changed by another worker. The
// run that gets it stops at once: the assignment is somebody else's now.
var ErrConflict = errors.New("the assignment's record was changed by another worker")

// Revision is a state of a record in the journal; 0 means that there is none yet.
type Revision uint64

// Journal keeps records. Save returns when the record is durable, and only if the
// record was still at the revision that was read; otherwise ErrConflict.
type Journal interface {
	Load(ctx context.Context, id ID) (Record, Revision, error)
	Save(ctx context.Context, id ID, r Record, read Revision) (Revision, error)
}

// Events takes what happened to whoever listens. Publishing an event again, with the
// same ID, is harmless.
type Events interface {
	Publish(ctx context.Context, e Event) error
}

// Source knows what a policy's certificates should be. Its methods answer from memory,
// except Refresh and Load.
type Source interface {
	// Refresh returns when the source knows what had happened to a certificate at since, a time of
	// this process, or, if that is zero, at the call: whoever says "look now" may have written a
	// file a moment before.
	Refresh(ctx context.Context, certificate string, since time.Time) error
	// Wanted returns the bundle in force for a certificate; false if the source has
	// no such certificate (any more).
	Wanted(certificate string) (Wanted, bool)
	// Owners says which certificate of the policy is to be served at an endpoint of its
	// targets or proofs. The pointer is another one if, and only if, an answer may be.
	Owners() *Owners
	// Load reads the bundle. It fails if it is no longer the one with this
	// fingerprint.
	Load(ctx context.Context, certificate string, f certs.Fingerprint) (*certs.Bundle, error)
}

// Wanted is what a source says of a certificate.
type Wanted struct {
	Info certs.Info
	// Chain is how many intermediates were found for it.
	Chain int
	// CA says that the leaf is the certificate of a CA.
	CA bool
	// Problem, if not empty, is why what the source holds now cannot be used; Info is
	// then the last good bundle, which stays in force. ProblemSince is when it was first
	// seen.
	Problem      string
	ProblemSince time.Time
}

// SettleTime is how long a source may be at odds with itself before that is a problem:
// whoever replaces certificate and key does it one after the other.
const SettleTime = 2 * time.Second

// quarantined reports whether the source's problem has lasted.
func (w *Wanted) quarantined(now time.Time) bool {
	return w.Problem != "" && !w.Unsettled(now)
}

// Unsettled reports whether the source has a problem that may be the middle of a replacement.
func (w *Wanted) Unsettled(now time.Time) bool {
	return w.Problem != "" && now.Sub(w.ProblemSince) < SettleTime
}

// Assembly is a policy with what it needs to run: its source and its targets by name.
type Assembly struct {
	Policy *policy.Policy
	Source Source
	// Issuer makes the certificates of a policy whose source issues; nil for others. What
	// it made is in the record, so Source is then asked for owners only (see IssuedSource).
	Issuer  providers.Issuer
	Targets map[string]providers.Target
	// Listings of the targets whose endpoints are "covered", by name.
	Listings map[string]*Listing

	// divisions are the endpoints of targets, by target.
	mu        sync.Mutex
	divisions map[string]*division
}

// WatchesOnly reports whether the policy has nothing to do and nothing to prove.
func (a *Assembly) WatchesOnly() bool { return watchesOnly(a.Policy) }

// Meter hears what the engine counts. Its methods are called by any goroutine.
type Meter interface {
	// StepFailed counts a failure of a step; reason is a providers.Kind's text.
	StepFailed(policy, targetKind, step, reason string)
	// Rotated counts the end of one target's rotation, result ok or failed, with the
	// time since it began.
	Rotated(policy, targetKind, result string, took time.Duration)
	// RolledBack counts a going back to the predecessor at a target.
	RolledBack(policy, targetKind string)
	// Deferred counts a rotation that has to wait for something other than a failure; reason
	// is one of DeferralReasons.
	Deferred(policy, reason string)
	// WindowOverridden counts a change outside the policy's windows, because what was served
	// was about to expire.
	WindowOverridden(policy string)
	// Retired counts a superseded certificate that was to be removed: ok, in_use or
	// failed.
	Retired(targetKind, result string)
	// Converged observes the time from the trigger that was asked for to the proof.
	Converged(trigger string, took time.Duration)
}

// IssuedSource is the Source of a policy that issues its one certificate.
type IssuedSource struct {
	Certificate string
	// Names are those that the certificate is to have: who is served where does not wait
	// for the first one.
	Names []string

	once   sync.Once
	owners *Owners
}

// Refresh implements Source.
func (*IssuedSource) Refresh(context.Context, string, time.Time) error { return nil }

// Wanted implements Source: what was issued is in the record.
func (*IssuedSource) Wanted(string) (Wanted, bool) { return Wanted{}, false }

// Owners implements Source.
func (s *IssuedSource) Owners() *Owners {
	s.once.Do(func() {
		s.owners = NewOwners(func(yield func(string, certs.Info) bool) { yield(s.Certificate, certs.Info{Names: s.Names}) })
	})
	return s.owners
}

// Load implements Source: bundles are collected from the issuer.
func (*IssuedSource) Load(context.Context, string, certs.Fingerprint) (*certs.Bundle, error) {
	return nil, errors.New("the source issues and holds no bundle")
}
