// Package apig makes the dedicated gateways of API Gateway (APIG v2, Huawei Cloud
// and Open Telekom Cloud) a providers.Target. An endpoint is a domain name of one
// gateway, or its id.
//
// There are two ways to replace a certificate, and a Handle is something else in
// each. In place, the content of the certificate object that a domain is attached to
// changes, whoever made the object: a Handle is that content, "serial:" and the serial
// number in hexadecimal. With a new object, domains are attached to another object: a
// Handle is its id.
//
// It may import internal/providers, providers/huaweicloud and internal/certs.
//
// Invariants: a certificate that providers.Owns denies is never deleted; one that
// serves a domain which the new leaf does not cover is never changed; a stored CA
// for client authentication is never dropped; whether a domain verifies its clients
// stays as it is.
//
// Facts are those of docs/reference/huawei-cloud.md ("reference"), section 3.
package apig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// The scopes of a certificate object that is made here.
const (
	// ScopeInstance: for the one gateway. The default.
	ScopeInstance = "instance"
	// ScopeGlobal: for all gateways of the project.
	ScopeGlobal = "global"
)

// The ways to replace a certificate.
const (
	// ReplaceInPlace changes the content of the object. The default.
	ReplaceInPlace = "in_place"
	// ReplaceNew makes another object and attaches the domains to it.
	ReplaceNew = "new"
)

// Config says which gateway is meant, and how certificates are replaced there.
type Config struct {
	Client *huaweicloud.Client
	// Scope is ScopeInstance or ScopeGlobal; empty: ScopeInstance.
	Scope string
	// InstanceID is the gateway's id, with either scope: that is where the domains are.
	InstanceID string
	// Replace is ReplaceInPlace or ReplaceNew; empty: ReplaceInPlace.
	Replace string
	// TrustedRootCA returns the CA that clients of the domains are checked against, as
	// PEM, read anew for each use; nil, or an empty answer: none. The service does not
	// tell the one it has, and may drop it when a certificate is replaced without.
	TrustedRootCA func() ([]byte, error)
	// Locks makes Targets of the same gateway take turns in writing; nil: this Target
	// knows of no other. All Targets of a process should be given the same.
	Locks *Locks
	// Logger; nil: none.
	Logger *slog.Logger
}

// Target is one gateway. It is safe for concurrent use, and meant to be shared by all
// assignments of a policy's target: it remembers groups, and staged bundles.
type Target struct {
	client   *huaweicloud.Client
	scope    string
	instance string
	inPlace  bool
	ca       func() ([]byte, error)
	log      *slog.Logger
	turn     turn
	places   places
	held     held
	owed     owed
}

var (
	_ providers.Target = (*Target)(nil)
	_ providers.Lister = (*Target)(nil)
)

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Target, error) {
	t := &Target{client: cfg.Client, scope: cfg.Scope, instance: cfg.InstanceID, ca: cfg.TrustedRootCA, log: cfg.Logger}
	if t.client == nil {
		return nil, errors.New("apig: want a client")
	}
	if !huaweicloud.IsIdentifier(t.instance) {
		return nil, fmt.Errorf("apig: instance id %q: want the id of a gateway", t.instance)
	}
	switch t.scope {
	case "":
		t.scope = ScopeInstance
	case ScopeInstance, ScopeGlobal:
	default:
		return nil, fmt.Errorf("apig: scope %q: want %q or %q", t.scope, ScopeInstance, ScopeGlobal)
	}
	switch cfg.Replace {
	case "", ReplaceInPlace:
		t.inPlace = true
	case ReplaceNew:
	default:
		return nil, fmt.Errorf("apig: replace %q: want %q or %q", cfg.Replace, ReplaceInPlace, ReplaceNew)
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	locks := cfg.Locks
	if locks == nil {
		locks = &Locks{}
	}
	t.turn = locks.of(t.client, t.instance)
	return t, nil
}

// Stage makes the bundle ready. In place that is a check and no call: the service has
// nowhere to put it yet, so the Target keeps the last bundles of each owner, keys
// included, for Activate. With a new object: see stageObject.
func (t *Target) Stage(ctx context.Context, r providers.Request, b *certs.Bundle) (providers.Remote, error) {
	if err := ctx.Err(); err != nil {
		return providers.Remote{}, ended(opStage, err)
	}
	if err := check(b, r.Endpoints, time.Now()); err != nil {
		return providers.Remote{}, err
	}
	if !t.inPlace {
		return t.stageObject(ctx, r, b)
	}
	h := t.held.put(r.Owner, b, time.Now())
	return providers.Remote{Handle: h, Fingerprint: b.Fingerprint(), NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter}, nil
}

// Activate makes the endpoints serve the handle: see activateContent and
// activateObject. Only one Activate at a time works on a gateway.
func (t *Target) Activate(ctx context.Context, r providers.Request, h providers.Handle) error {
	if h == "" {
		return fail(providers.KindInvalid, opActivate, "no certificate is named")
	}
	if err := ctx.Err(); err != nil {
		return ended(opActivate, err)
	}
	if len(r.Endpoints) == 0 {
		return nil
	}
	done, err := t.turn.take(ctx)
	if err != nil {
		return ended(opActivate, err)
	}
	defer done()
	if t.inPlace {
		err = t.activateContent(ctx, r, h)
	} else {
		err = t.activateObject(ctx, r, h)
	}
	t.places.forget(err, r.Endpoints)
	return err
}

const (
	opStage    = "stage certificate"
	opActivate = "activate certificate"
	opRetire   = "retire certificate"
)

// parallel is how many reads one verb has under way; the client's limits hold for all
// verbs together.
const parallel = 4

// fail makes an error that is found out here and not by the service.
func fail(kind providers.Kind, op, format string, args ...any) *providers.Error {
	return &providers.Error{Kind: kind, Service: huaweicloud.APIG, Op: op, Message: fmt.Sprintf(format, args...)}
}

// ended is the error of a verb whose context ended before it did anything.
func ended(op string, err error) *providers.Error {
	return &providers.Error{Kind: providers.KindUnavailable, Service: huaweicloud.APIG, Op: op, Err: err}
}

// Locks makes writers of the same gateway take turns: parallel writes fail with
// APIG.3500 and APIG.3718 (reference 3.5). The zero value is ready for use.
type Locks struct {
	mu    sync.Mutex
	turns map[gateway]turn
}

type gateway struct {
	client   *huaweicloud.Client
	instance string
}

func (l *Locks) of(client *huaweicloud.Client, instance string) turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns == nil {
		l.turns = make(map[gateway]turn)
	}
	g := gateway{client, instance}
	if l.turns[g] == nil {
		l.turns[g] = make(turn, 1)
	}
	return l.turns[g]
}

// turn is a mutex that one can stop waiting for.
type turn chan struct{}

// take waits for the turn. Without error the caller must call done.
func (t turn) take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
