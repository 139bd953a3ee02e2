package main

import (
	"context"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/rotation"
)

// progress tells whoever listens which steps this daemon makes, as it makes them.
type progress struct {
	mu        sync.Mutex
	listeners map[chan admin.Progress]selection
}

// progressAhead is how many steps a listener may lag behind before it loses some: nobody
// waits for one.
const progressAhead = 1024

func newProgress() *progress { return &progress{listeners: map[chan admin.Progress]selection{}} }

// step is rotation.Config.Progress.
func (p *progress) step(id rotation.ID, s rotation.Step, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.listeners) == 0 {
		return
	}
	line := admin.Progress{
		Time: time.Now().UTC(), Policy: id.Policy, Certificate: id.Certificate, Step: string(s.Kind), Target: s.Target,
		Fingerprint: fingerprintView(s.Fingerprint), Endpoints: s.Endpoints, Reason: s.Reason,
	}
	if err != nil {
		line.Error = err.Error()
	}
	for listener, only := range p.listeners {
		if only.has(id) {
			select {
			case listener <- line:
			default:
			}
		}
	}
}

// listen sends the steps of what is selected until ctx ends.
func (p *progress) listen(ctx context.Context, only selection, send func(any) error) error {
	lines := make(chan admin.Progress, progressAhead)
	p.mu.Lock()
	p.listeners[lines] = only
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.listeners, lines)
	}()
	// The first line says that from here on nothing is missed.
	if err := send(admin.Progress{Time: time.Now().UTC()}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-lines:
			if err := send(line); err != nil {
				return err
			}
		}
	}
}
