package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/rotation"
)

// plansAtOnce is how many assignments are looked at together; each cloud's limits bound the
// calls besides.
const plansAtOnce = 16

// plan looks at what is asked for and shows what would be done now.
func (d *daemon) plan(ctx context.Context, only selection) (admin.Plan, error) {
	// A plan takes its time, and a reload does not wait for it.
	reach, g := newRadius(), d.inForce()
	ids, err := d.selected(only)
	if err != nil {
		return admin.Plan{}, err
	}
	outlooks := d.outlooks(ctx, ids)
	if ctx.Err() != nil {
		return admin.Plan{}, fmt.Errorf("plan: %w", ctx.Err())
	}
	plan := admin.Plan{Assignments: []admin.PlannedAssignment{}}
	for i, out := range outlooks {
		planned := admin.PlannedAssignment{Policy: ids[i].Policy, Certificate: ids[i].Certificate, Steps: []admin.Step{}}
		if out.err != nil {
			planned.State, planned.Error = stateUnknown, out.err.Error()
		} else {
			planned.State, planned.Reason, planned.Steps = string(out.State), out.Reason, stepViews(out.Steps)
			planned.Changes = len(out.Changes()) > 0
			reach.add(g, &out.Outlook)
			if out.Wanted != nil {
				planned.Wanted = bundleView(out.Wanted.Info)
			}
			if slices.ContainsFunc(out.Steps, func(s rotation.Step) bool { return s.Cause == rotation.CauseBraked }) {
				plan.Braked++
			}
		}
		plan.Assignments = append(plan.Assignments, planned)
	}
	plan.Changes, plan.Quotas = reach.sum(), d.quotasAfter(reach)
	return plan, nil
}

// outlookOf is an outlook, or why there is none.
type outlookOf struct {
	rotation.Outlook
	err error
}

// outlooks plans several assignments with one brake: what is let pass for one counts for the
// next, as it does for the daemon.
func (d *daemon) outlooks(ctx context.Context, ids []rotation.ID) []outlookOf {
	outlooks := make([]outlookOf, len(ids))
	// As it is mirrored here: with NATS away, plans are what an operator asks for.
	planner := d.engine.Planner(readRecords{d.records}, d.brake.rehearsal().ask)
	var g errgroup.Group
	g.SetLimit(plansAtOnce)
	for i, id := range ids {
		g.Go(func() error {
			// Drift: it looks at everything, and sits out what the daemon sits out.
			outlooks[i].Outlook, outlooks[i].err = planner.Plan(ctx, id, rotation.Request{Trigger: rotation.TriggerDrift, Asked: time.Now()})
			return nil
		})
	}
	_ = g.Wait()
	return outlooks
}

// quotasAfter is what the accounts hold, as far as their services tell, before and after.
func (d *daemon) quotasAfter(r *radius) []admin.Quota {
	var quotas []admin.Quota
	d.quotas.Range(func(key, value any) bool {
		at, q := key.(holder), value.(quota)
		quotas = append(quotas, admin.Quota{Cloud: at.cloud, Service: at.service, Used: q.used, After: max(0, q.used+r.stages[at]-r.retires[at]), Limit: q.limit})
		return true
	})
	slices.SortFunc(quotas, func(a, b admin.Quota) int {
		return cmp.Or(cmp.Compare(a.Cloud, b.Cloud), cmp.Compare(a.Service, b.Service))
	})
	return quotas
}

// quota is what a service last told of an account.
type quota struct{ used, limit int }

// explain tells an assignment's story: where it stands and why, what was done, what comes
// next and when, and who keeps it from going on.
func (d *daemon) explain(ctx context.Context, id rotation.ID) (admin.Explanation, error) {
	part := d.inForce().parts[id.Policy]
	if part == nil {
		return admin.Explanation{}, unknown("policy %s is not in force any more", id.Policy)
	}
	out := d.outlooks(ctx, []rotation.ID{id})[0]
	if out.err != nil {
		return admin.Explanation{}, out.err
	}
	now := time.Now()
	e := admin.Explanation{Assignment: d.assignmentOf(id, out.Record, now), Policy: d.policyView(part, now), Steps: stepViews(out.Steps)}
	e.Assignment.State, e.Assignment.Reason = string(out.State), out.Reason
	e.Next, e.Blocked = next(&out.Outlook, now), blockedBy(&out.Outlook)
	if d.bus != nil {
		history, err := d.history(ctx, selection{id.Policy, id.Certificate}, explainHistory)
		if err != nil {
			e.Notes = append(e.Notes, "the history cannot be read: "+err.Error())
		}
		e.History = history.Events
	}
	return e, nil
}

// explainHistory is how many events an explanation shows.
const explainHistory = 8

// next is what happens next.
func next(out *rotation.Outlook, now time.Time) admin.Next {
	if out.Watched {
		return admin.Next{What: "nothing: the policy only watches"}
	}
	if changes := out.Changes(); len(changes) > 0 {
		return admin.Next{What: describe(changes[0]), At: now, Why: changes[0].Reason}
	}
	for _, s := range out.Steps {
		if s.Kind == rotation.StepVerify {
			return admin.Next{What: describe(s), At: now}
		}
	}
	var first *rotation.Step
	for i, s := range out.Steps {
		if !s.Until.IsZero() && (first == nil || s.Until.Before(first.Until)) {
			first = &out.Steps[i]
		}
	}
	switch {
	case first != nil:
		return admin.Next{What: afterWait(first.Cause), At: first.Until, Why: first.Reason}
	case !out.WakeAt.IsZero():
		return admin.Next{What: "another look", At: out.WakeAt}
	}
	return admin.Next{What: "nothing by itself: it waits for a trigger"}
}

// describe says what a step does, in words.
func describe(s rotation.Step) string {
	at := ""
	if s.Target != "" {
		at = " at target " + s.Target
	}
	switch s.Kind {
	case rotation.StepIssue:
		return "issue a new certificate"
	case rotation.StepStage:
		return "bring the bundle there" + at
	case rotation.StepActivate:
		return "serve the bundle" + at + " for " + listed(s.Endpoints)
	case rotation.StepVerify:
		if len(s.Endpoints) == 0 {
			return "take the targets' word that it is served"
		}
		return "prove it by handshakes with " + listed(s.Endpoints)
	case rotation.StepRollBack:
		return "go back to the predecessor" + at
	case rotation.StepRetire:
		return "remove superseded certificate " + string(s.Handle) + at
	case rotation.StepRevoke:
		return "end superseded certificate " + string(s.Handle)
	case rotation.StepLook, rotation.StepWait, rotation.StepRefuse: // not what comes next
	}
	return string(s.Kind) + at
}

// afterWait says what follows a wait.
func afterWait(c rotation.Cause) string {
	switch c {
	case rotation.CauseDrift:
		return "compare wanted and served"
	case rotation.CauseRetry, rotation.CauseRolledBack, rotation.CauseBlocked:
		return "try again"
	case rotation.CausePropagation:
		return "prove again that it is served"
	case rotation.CauseGrace:
		return "remove what is superseded"
	case rotation.CauseRenewal:
		return "issue the next certificate"
	default: // what was held back
		return "go on"
	}
}

// blockers say who keeps an assignment from going on, by cause.
var blockers = map[rotation.Cause]string{
	rotation.CauseRetry:           "a failure: the next try waits for its time",
	rotation.CausePropagation:     "the service: the change has not reached all its servers",
	rotation.CauseInUse:           "something outside the policy serves what is superseded",
	rotation.CauseRejected:        "the issuer: what it made is not what the policy asks for",
	rotation.CauseHandover:        "the policy's order: other targets come first",
	rotation.CauseAcknowledgement: "a relying party that has not acknowledged",
	rotation.CauseReported:        "the policy: drift is reported, not repaired",
	rotation.CauseNoSource:        "the source: it has no such certificate",
	rotation.CauseQuarantined:     "the source's files, which cannot be used",
	rotation.CauseCanary:          "the policy's canary",
	rotation.CauseRolledBack:      "the bundle, which was not served when it was tried",
	rotation.CauseWindow:          "the policy's windows",
	rotation.CauseFreeze:          "the policy's freeze",
	rotation.CauseSplay:           "the policy's splay",
	rotation.CauseBraked:          "the brake: an operator has to confirm",
	rotation.CausePaused:          "whoever paused the policy",
	rotation.CauseNotYetValid:     "the bundle, which is not valid yet",
	rotation.CauseUncovered:       "the bundle's names: they do not cover an endpoint",
	rotation.CauseNoEndpoint:      "the service: it knows no such endpoint",
	rotation.CauseBadEndpoint:     "the service: an endpoint there cannot take a certificate",
}

// blockedBy names who holds the assignment back; empty where nothing that is wanted waits.
func blockedBy(out *rotation.Outlook) string {
	var who []string
	for _, s := range out.Steps {
		blocker, known := blockers[s.Cause]
		switch {
		case s.Kind == rotation.StepRefuse && !known:
			blocker = "the guard (" + string(s.Cause) + ")"
		case s.Kind != rotation.StepWait && s.Kind != rotation.StepRefuse, !known:
			continue
		}
		if s.Target != "" {
			blocker += ", at target " + s.Target
		}
		if !slices.Contains(who, blocker) {
			who = append(who, blocker)
		}
	}
	return strings.Join(who, "; ")
}
