// Package providers is the one language that every target system speaks: the
// Target contract, the error kinds and the naming of remote certificates.
//
// It may import internal/certs and the standard library. Adapters below it
// (waf, ...) import it and never each other; internal/rotation drives it and
// knows no adapter.
//
// Invariants: a Target's verbs are idempotent, safe for concurrent use and
// return *Error for every failure of the outside world; a Handle is opaque to
// everybody but the adapter that made it; a private key never appears in a
// value of this package.
package providers

import (
	"context"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// Owner names the assignment on whose behalf a call is made. It is what remote
// names are derived from, so that an object can be recognised as ours with no
// local state at all.
type Owner struct {
	Policy      string
	Certificate string
}

// Handle identifies a certificate object inside one target, in that target's
// own terms (WAF: the certificate id). The zero Handle means "none".
type Handle string

// Request says for whom and for which endpoints a verb is called.
type Request struct {
	Owner Owner
	// Endpoints are the names that this assignment must serve at this target,
	// sorted and without duplicates.
	Endpoints []string
	// Known are handles that the journal remembers. A target reports them in
	// Observe even where their names do not tell that they are ours.
	Known []Handle
	// Made are the certificates that the policy's Issuer made, as the journal knows them,
	// for a target whose own issuer gives them the same handles.
	Made []Handle
	// Leaves are the bundles that the journal knows of, the wanted one first. A service
	// that tells a serial number and dates, and no certificate, is understood with them.
	Leaves []certs.Info
	// Seen is what Observe told earlier in the same look, brought up to date with what the
	// caller did since; nil where nothing was seen. A target need not read again what the
	// caller's own steps leave as it is: it looks for nothing that Seen would show, and
	// reads the endpoints and what they serve, whatever Seen says.
	Seen *Observation
}

// Observation is what a target holds and serves at one moment.
type Observation struct {
	// Endpoints has exactly one entry for each requested endpoint, in the same
	// order.
	Endpoints []Endpoint
	// Remotes are the certificate objects that matter to the request: those
	// created for its Owner, those bound to its endpoints and those Known.
	Remotes []Remote
}

// Lacks reports whether a look has shown that there is no object of this name; nil shows
// nothing.
func (o *Observation) Lacks(name string) bool {
	return o != nil && !slices.ContainsFunc(o.Remotes, func(r Remote) bool { return r.Name == name })
}

// Endpoint is one name inside a target that serves a certificate.
type Endpoint struct {
	Name string
	// ID is the service's own id of the endpoint; empty when Missing.
	ID string
	// Serves is the certificate bound to the endpoint; empty for none.
	Serves Handle
	// Missing says that the service knows no such endpoint.
	Missing bool
	// Problem, if not empty, is why the endpoint cannot take a certificate
	// (for instance: it does not speak HTTPS), in words for an operator.
	Problem string
	// VerifiesClients says that clients are asked for certificates there.
	VerifiesClients bool
}

// Remote is one certificate object that a target holds.
type Remote struct {
	Handle Handle
	Name   string
	// Fingerprint is the leaf's; zero where the service does not tell.
	Fingerprint certs.Fingerprint
	// NotBefore and NotAfter are the leaf's; zero where the service does not tell.
	NotBefore time.Time
	NotAfter  time.Time
	// Created is when the service says that the object was made; zero where it
	// does not tell.
	Created time.Time
	// Owned says that rotatord made the object for the request's Owner.
	// Nothing else may ever be retired.
	Owned bool
	// InUse names every endpoint that serves it, also those outside the request.
	InUse []string
}

// Lister is a Target that can tell which endpoints it has, for policies that do not name
// them.
type Lister interface {
	// List returns the names of all endpoints, in any order. It changes nothing.
	List(ctx context.Context) ([]string, error)
}

// Surveyor is a Target that can compare many assignments with lists which it reads once for
// all of them.
type Surveyor interface {
	// Survey reports whether a list that was begun at since or later shows that each of the
	// request's endpoints serves the certificate which is expected there. false says that something
	// differs, or that a list cannot tell or cannot be had: then Observe tells. It changes nothing.
	Survey(ctx context.Context, r Request, expected Remote, since time.Time) bool
}

// Target is a place that must serve a bundle.
//
// All verbs take a context and give up when it ends. An error with kind
// UnknownOutcome means that the request may have taken effect: the caller
// observes before it does anything else. Retrying is the caller's business;
// a target repeats by itself only what is harmless (a read, or a write that was
// refused for an expired token).
type Target interface {
	// Observe reads the service. It changes nothing.
	Observe(ctx context.Context, r Request) (Observation, error)

	// Stage makes the bundle available at the target without serving it, and
	// returns when it could be activated. If an object of this Owner with the
	// same leaf is there already, that one is returned (adopted) and nothing
	// is created; a Stage whose answer was lost is therefore repeated safely.
	// The bundle's key is used for this call only, except where the target can hold
	// nothing that is not served: then it stays in this process's memory until it is
	// activated or pushed out by a newer one, and Activate of a handle that is not held
	// any more is an error of kind NotFound.
	Stage(ctx context.Context, r Request, b *certs.Bundle) (Remote, error)

	// Activate makes the request's endpoints serve the handle. Doing it twice
	// changes nothing. Rolling back is Activate with an earlier handle.
	// Reading back is the caller's business, through Observe.
	Activate(ctx context.Context, r Request, h Handle) error

	// Retire removes an object that rotatord made. One that is gone already is
	// a success; one that is still served is an error of kind InUse and stays.
	Retire(ctx context.Context, r Request, h Handle) error
}
