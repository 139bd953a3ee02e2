package rotation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Planner shows what an engine would do, and does nothing of it: it reads the journal, the
// sources and the targets, and writes to none of them. Its methods may be called by several
// goroutines.
type Planner struct{ dry *Engine }

// Outlook is what would be done for an assignment now, and what comes later.
type Outlook struct {
	ID ID
	// Wanted is the bundle in force; nil where there is none.
	Wanted *Wanted
	// Record is what the journal holds, the looks of this plan absorbed.
	Record Record
	// Targets as they were observed.
	Targets []View
	// Steps are what would be done, in order, as far as it can be known now.
	Steps []Step
	// State and Reason are where it would stand if nothing of that were done.
	State  State
	Reason string
	// WakeAt is when it would be looked at again by itself; zero for never.
	WakeAt time.Time
	// Watched says that the policy has no target and proves nothing: nothing is ever done.
	Watched bool
}

// Planner returns a planner that looks with the engine's eyes. The journal is read in place of
// the engine's, which may be away; brake answers in place of the engine's, for what is planned
// must not count as done; nil: there is no brake.
func (e *Engine) Planner(journal Journal, brake func(ID) string) *Planner {
	cfg := e.cfg
	cfg.Brake, cfg.Journal, cfg.Events, cfg.Meter = brake, readOnly{journal}, silent{}, silent{}
	cfg.Progress, cfg.Logger = nil, slog.New(slog.DiscardHandler)
	dry := New(cfg)
	dry.now = e.now
	return &Planner{dry}
}

// Plan looks at everything that the assignment touches and returns what would be done. A
// target that cannot be read is no error: its step waits, and says why.
func (p *Planner) Plan(ctx context.Context, id ID, q Request) (Outlook, error) {
	r, err := p.dry.begin(ctx, id, q)
	if err != nil {
		return Outlook{}, err
	}
	if r == nil {
		return p.watched(ctx, id)
	}
	for range maxRounds {
		steps := Plan(r.o, r.now())
		next := slices.IndexFunc(steps, func(s Step) bool { return s.Kind == StepLook }) // all of them first
		if next < 0 {
			next = slices.IndexFunc(steps, Step.acts)
		}
		switch {
		case ctx.Err() != nil:
			return Outlook{}, fmt.Errorf("plan %s/%s: %w", id.Policy, id.Certificate, ctx.Err())
		case next >= 0 && steps[next].Kind == StepLook:
			if err := r.apply(ctx, steps[next]); err != nil {
				return Outlook{}, err
			}
		case q.Trigger == TriggerDrift && r.o.Trigger == q.Trigger && r.o.Record.Verified == r.o.wants():
			r.o.Trigger = TriggerDeadline // it was for the looks; what is proven need not be proven again
		case next >= 0 && steps[next].Target != "" && r.brakes(r.view(steps[next].Target), steps[next]):
		default:
			return r.outlook(steps), nil
		}
	}
	return Outlook{}, fmt.Errorf("the plan of %s/%s does not end", id.Policy, id.Certificate)
}

// watched is the outlook of a policy that only watches.
func (p *Planner) watched(ctx context.Context, id ID) (Outlook, error) {
	record, _, err := p.dry.cfg.Journal.Load(ctx, id)
	if err != nil {
		return Outlook{}, fmt.Errorf("plan %s/%s: %w", id.Policy, id.Certificate, err)
	}
	out := Outlook{ID: id, Record: record, Watched: true, State: p.dry.Standing(id, record, time.Now())}
	if wanted, ok := p.dry.Wanted(id, record); ok {
		out.Wanted = &wanted
	}
	return out, nil
}

func (r *run) outlook(steps []Step) Outlook {
	now := r.now()
	out := Outlook{ID: r.o.ID, Wanted: r.o.Wanted, Record: r.o.Record, Targets: r.o.Targets, Steps: steps, WakeAt: wake(&r.o, steps, now)}
	out.State, out.Reason = judge(&r.o, steps, now)
	return out
}

// Changes are the steps that would have an effect outside rotatord.
func (o *Outlook) Changes() []Step {
	return slices.DeleteFunc(slices.Clone(o.Steps), func(s Step) bool { return !s.changes() })
}

// readOnly is a journal that pretends to write.
type readOnly struct{ Journal }

// Load implements Journal. A plan changes its copy.
func (j readOnly) Load(ctx context.Context, id ID) (Record, Revision, error) {
	record, revision, err := j.Journal.Load(ctx, id)
	return record.clone(), revision, err
}

// Save implements Journal.
func (readOnly) Save(_ context.Context, _ ID, _ Record, read Revision) (Revision, error) {
	return read, nil
}

// silent tells nobody.
type silent struct{}

func (silent) Publish(context.Context, Event) error          { return nil }
func (silent) StepFailed(string, string, string, string)     {}
func (silent) Rotated(string, string, string, time.Duration) {}
func (silent) RolledBack(string, string)                     {}
func (silent) Deferred(string, string)                       {}
func (silent) WindowOverridden(string)                       {}
func (silent) Retired(string, string)                        {}
func (silent) Converged(string, time.Duration)               {}
