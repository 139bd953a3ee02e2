package main

import (
	"context"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/bus"
)

// site is the daemon as the status page and the read API see it: records and the history, and
// nothing that looks at a cloud.
type site struct{ d *daemon }

// Status implements admin.Reader.
func (s site) Status() admin.Status { return s.d.status(selection{}) }

// Unread implements admin.Reader.
func (s site) Unread() error {
	if !s.d.replayed.Load() {
		return errNotReady
	}
	return nil
}

// Chain implements admin.Reader. It is as the files' names and key ids link it.
func (s site) Chain(policy, certificate string) (chain []admin.Intermediate) {
	part := s.d.inForce().parts[policy]
	if part == nil || part.watcher == nil {
		return nil
	}
	found, _ := part.watcher.Snapshot().Certificate(certificate)
	for _, c := range found.Pair.Intermediates {
		chain = append(chain, admin.Intermediate{
			Subject: c.Info.SubjectCN, Issuer: c.Info.IssuerCN, Fingerprint: c.Info.Fingerprint.String(), NotAfter: c.Info.NotAfter,
		})
	}
	return chain
}

const (
	// pastReach is how many events one page of the history looks through, about, and pastWait
	// how long that may take: anybody may ask.
	pastReach = 20_000
	pastWait  = 5 * time.Second
)

// History implements admin.Reader.
func (s site) History(ctx context.Context, q admin.HistoryQuery) (admin.History, error) {
	if err := s.d.bus.Ready(); err != nil {
		return admin.History{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, pastWait)
	defer cancel()
	page := bus.PastPage{Policy: q.Policy, Before: q.Before, Limit: q.Limit, Reach: pastReach}
	past, next, err := s.d.bus.PastPage(ctx, page, selection{q.Policy, q.Certificate}.isAbout)
	if err != nil {
		return admin.History{}, err
	}
	h := historyView(past)
	h.NextBefore = next
	return h, nil
}

// Changed implements admin.Reader.
func (s site) Changed() <-chan struct{} { return s.d.changes.next() }

// changes tells whoever waits that something changed.
type changes struct {
	mu sync.Mutex
	// waited is closed at the next change; nil where nobody waits.
	waited chan struct{}
}

// next is closed when something changes after the call.
func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited == nil {
		c.waited = make(chan struct{})
	}
	return c.waited
}

func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited != nil {
		close(c.waited)
		c.waited = nil
	}
}
