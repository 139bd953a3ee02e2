// Package privateca makes a private CA of Huawei Cloud (Cloud Certificate Manager, PCA
// v1) a providers.Issuer. A Handle is the id of a private certificate.
//
// It may import internal/providers, providers/huaweicloud and internal/certs.
//
// Invariants: a key that is held locally is on the disk, synced, before its request
// leaves, and never leaves itself; a certificate is asked for only after a look for what
// an earlier try may have left; one that is marked for somebody else is never adopted or
// revoked; nothing is ever deleted; a certificate that differs from the Spec is never
// returned without its Problem.
//
// The account needs the actions issueCert and get of the CA, and list, get, export,
// revoke, quota and those of tags of private certificates.
//
// Facts are those of docs/reference/huawei-cloud.md ("reference"), section 4.
package privateca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// Config says what is asked for, and of whom.
type Config struct {
	Client *huaweicloud.Client
	// Spec is what the policy asks for.
	Spec Spec
	// Keys is the directory for keys that are held locally; it gets the permissions 0700,
	// and in it a directory for each owner. It may be empty where Held is HeldCloud.
	Keys string
	// Authorities lets Issuers share what they read of CAs; nil: this Issuer shares it
	// with nobody. All Issuers of a process should be given the same.
	Authorities *Authorities
	// Logger; nil: none.
	Logger *slog.Logger
}

// Issuer asks one private CA for the certificates of one policy. It is safe for
// concurrent use.
type Issuer struct {
	client      *huaweicloud.Client
	spec        Spec
	asks        string
	keys        keyStore
	authorities *Authorities
	log         *slog.Logger
	settle      time.Duration
	turn        turn // of Issue and Release: one at a time
	memory      memory
}

var _ providers.Issuer = (*Issuer)(nil)

// settleTime is for how long a certificate may be there and not yet in the list. It is
// not documented; nobody should build on a list that is never behind.
const settleTime = 30 * time.Second

// New checks the configuration. It sends nothing and touches no file.
func New(cfg Config) (*Issuer, error) {
	if cfg.Client == nil {
		return nil, errors.New("privateca: want a client")
	}
	if err := cfg.Spec.incomplete(); err != nil {
		return nil, fmt.Errorf("privateca: %w", err)
	}
	if cfg.Spec.Held == HeldLocal && cfg.Keys == "" {
		return nil, errors.New("privateca: want a directory for keys that are held locally")
	}
	i := &Issuer{
		client: cfg.Client, spec: cfg.Spec, asks: cfg.Spec.digest(), keys: keyStore{cfg.Keys},
		authorities: cfg.Authorities, log: cfg.Logger, settle: settleTime, turn: make(turn, 1),
	}
	if i.authorities == nil {
		i.authorities = &Authorities{}
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	return i, nil
}

// Asks is a digest of the Spec; see Spec.
func (i *Issuer) Asks() string { return i.asks }

const (
	opIssue   = "issue certificate"
	opCollect = "collect certificate"
	opRevoke  = "revoke certificate"
	opKey     = "keep private key"
)

// parallel is how many reads one verb has under way; the client's limits hold for all
// verbs together.
const parallel = 4

// fail makes an error that is found out here and not by the service.
func fail(kind providers.Kind, op, format string, args ...any) *providers.Error {
	return &providers.Error{Kind: kind, Service: huaweicloud.CCM, Op: op, Message: fmt.Sprintf(format, args...)}
}

// ended is the error of a verb whose context ended before it did anything.
func ended(op string, err error) *providers.Error {
	return &providers.Error{Kind: providers.KindUnavailable, Service: huaweicloud.CCM, Op: op, Err: err}
}

func isNotFound(err error) bool { return providers.KindOf(err) == providers.KindNotFound }

// mark is what tells an owner's certificates from those of others, as the value of a tag
// and as the name of a directory: letters, digits and _.
func mark(o providers.Owner) string { return strings.TrimSuffix(providers.NamePrefix(o), "_") }

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

// memory is what an Issuer knows without asking again. All of it may be lost.
type memory struct {
	mu sync.Mutex
	// exports by id: what an id stands for never changes.
	exports map[string]exported
	// over are ids of certificates of ours that will never be in force again.
	over map[string]bool
	// tries are the last requests for a certificate.
	tries map[providers.Owner]try
}

// try is a request for a certificate, and whether it may have had an effect that nobody
// told us of.
type try struct {
	at   time.Time
	lost bool
}

// maxExports bounds the memory; superseded certificates are few.
const maxExports = 64

func (m *memory) export(id string) (exported, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.exports[id]
	return e, ok
}

func (m *memory) keepExport(id string, e exported) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exports == nil || len(m.exports) >= maxExports {
		m.exports = make(map[string]exported)
	}
	m.exports[id] = e
}

func (m *memory) isOver(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over[id]
}

func (m *memory) markOver(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over == nil {
		m.over = make(map[string]bool)
	}
	m.over[id] = true
}

func (m *memory) tried(o providers.Owner, t try) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tries == nil {
		m.tries = make(map[providers.Owner]try)
	}
	m.tries[o] = t
}

func (m *memory) lastTry(o providers.Owner) (try, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tries[o]
	return t, ok
}

func (m *memory) forgetTry(o providers.Owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tries, o)
}
