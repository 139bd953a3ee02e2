package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
)

// This file turns what the engine knows into what is answered over the socket.

func bundleView(info certs.Info) *admin.Bundle {
	return &admin.Bundle{
		Fingerprint: info.Fingerprint.String(), SerialNumber: info.SerialNumber, Names: info.Names, Issuer: info.IssuerCN,
		KeyAlgorithm: info.KeyAlgorithm, NotBefore: info.NotBefore, NotAfter: info.NotAfter,
	}
}

func fingerprintView(f certs.Fingerprint) string {
	if f.IsZero() {
		return ""
	}
	return f.String()
}

// assignmentView shows an assignment as its record has it.
func (d *daemon) assignmentView(id rotation.ID, now time.Time) admin.Assignment {
	return d.assignmentOf(id, d.records.get(id), now)
}

func (d *daemon) assignmentOf(id rotation.ID, r rotation.Record, now time.Time) admin.Assignment {
	a := admin.Assignment{
		Policy: id.Policy, Certificate: id.Certificate, State: string(d.engine.Standing(id, r, now)), Since: r.Since, Reason: r.Reason,
		Targets: []admin.Target{}, VerifiedAt: r.VerifiedAt, NextLook: r.WakeAt, Answered: r.Answered,
	}
	if a.State == "" {
		a.State = stateUnknown
	}
	if r.State == rotation.StateConverged {
		switch rotation.State(a.State) {
		case rotation.StateWaiting:
			a.Reason = rotation.ReasonUnseen
		case rotation.StateRotating:
			a.Since = r.Intent.At
		default:
		}
	}
	wanted, ok := d.engine.Wanted(id, r)
	if ok {
		a.Wanted = bundleView(wanted.Info)
	}
	part := d.inForce().parts[id.Policy]
	if part == nil {
		return a
	}
	p := part.assembly.Policy
	if p.Source.Issues() && ok {
		a.RenewalDue = r.RenewalDue(p.When.Renew)
	}
	for _, t := range p.Targets {
		a.Targets = append(a.Targets, targetView(t.Name, t.Kind(), r.Targets[t.Name], wanted.Info.Fingerprint))
	}
	for _, probe := range r.Probes {
		a.Probes = append(a.Probes, admin.Probe{
			Endpoint: probe.Endpoint, Address: probe.Address, Fingerprint: fingerprintView(probe.Fingerprint),
			Current: ok && probe.Serves(wanted.Info.Fingerprint), Error: probe.Err,
		})
	}
	return a
}

// stateUnknown is the state of an assignment that was never looked at.
const stateUnknown = "unknown"

func targetView(name, kind string, t rotation.TargetRecord, wanted certs.Fingerprint) admin.Target {
	v := admin.Target{
		Name: name, Kind: kind, Endpoints: t.Endpoints, Drift: string(t.Drift), Superseded: len(t.Superseded),
		Failures: t.Failures, Failure: t.Failure, RetryAt: t.RetryAt, LastSuccess: t.LastSuccessAt,
	}
	if t.Active != nil {
		v.Serves, v.NotAfter = fingerprintView(t.Active.Fingerprint), t.Active.NotAfter
		v.Current = t.Active.Fingerprint == wanted && !wanted.IsZero()
	}
	return v
}

func stepViews(steps []rotation.Step) []admin.Step {
	views := []admin.Step{}
	for _, s := range steps {
		views = append(views, admin.Step{
			Kind: string(s.Kind), Target: s.Target, Fingerprint: fingerprintView(s.Fingerprint), Handle: string(s.Handle),
			Endpoints: s.Endpoints, Until: s.Until, Cause: string(s.Cause), Reason: s.Reason,
		})
	}
	return views
}

// policyView shows a policy of a generation.
func (d *daemon) policyView(part *part, now time.Time) admin.Policy {
	p := part.assembly.Policy
	v := admin.Policy{Name: p.Name, File: p.File, Source: p.Source.Kind(), Place: part.place}
	if hold := d.records.hold(p.Name); hold.Holds(now) {
		v.Paused = &admin.Pause{By: hold.By, Reason: hold.Reason, Since: hold.Since, Until: hold.Until}
	}
	if part.watcher != nil {
		snapshot := part.watcher.Snapshot()
		if snapshot.Ready && !snapshot.Up && snapshot.Err != nil {
			v.Problems = append(v.Problems, snapshot.Err.Error())
		}
		for _, problem := range snapshot.Problems {
			v.Problems = append(v.Problems, problem.Error())
		}
	}
	return v
}

// status shows everything, or the policies and assignments that are asked for.
func (d *daemon) status(only selection) admin.Status {
	now := time.Now()
	s := admin.Status{Daemon: d.daemonView(), Policies: []admin.Policy{}, Assignments: []admin.Assignment{}}
	if only == (selection{}) {
		s.Onboarding = d.onboardingNow()
	}
	g := d.inForce()
	for _, name := range g.names() {
		if only.policy != "" && only.policy != name {
			continue
		}
		s.Policies = append(s.Policies, d.policyView(g.parts[name], now))
		for _, id := range d.assignments(name) {
			if only.has(id) {
				s.Assignments = append(s.Assignments, d.assignmentView(id, now))
			}
		}
	}
	slices.SortFunc(s.Assignments, func(a, b admin.Assignment) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Certificate, b.Certificate))
	})
	return s
}

func (d *daemon) daemonView() admin.Daemon {
	v := admin.Daemon{Version: versionText(), Node: d.inForce().set.Config.Node, PID: pid(), Since: d.began, Components: d.ready(), Configuration: d.configFile, LastReload: d.lastReload.Load()}
	v.Ready = !slices.ContainsFunc(v.Components, func(c admin.Component) bool { return c.Reason != "" })
	for i := range v.Components {
		v.Components[i].Ready = v.Components[i].Reason == ""
	}
	return v
}

// radius adds up how far the changes of plans reach.
type radius struct {
	admin.Radius
	stages, retires map[holder]int
	verifies        map[string]bool
}

// holder is what holds certificates: one service of one account.
type holder struct{ cloud, service string }

func newRadius() *radius {
	return &radius{Radius: admin.Radius{Endpoints: map[string]int{}}, stages: map[holder]int{}, retires: map[holder]int{}, verifies: map[string]bool{}}
}

func (r *radius) add(g *generation, out *rotation.Outlook) {
	changes := out.Changes()
	if len(changes) > 0 {
		r.Assignments++
	}
	for _, s := range changes {
		target := g.holder(out.ID.Policy, s.Target)
		switch s.Kind {
		case rotation.StepIssue:
			r.Issued++
			r.stages[target]++
		case rotation.StepStage:
			r.stages[target]++
		case rotation.StepRetire, rotation.StepRevoke:
			r.Removed++
			r.retires[target]++
		case rotation.StepActivate, rotation.StepRollBack:
			i := slices.IndexFunc(out.Targets, func(v rotation.View) bool { return v.Name == s.Target })
			r.Endpoints[out.Targets[i].Kind] += len(s.Endpoints)
			for _, e := range out.Targets[i].Observed.Endpoints {
				if e.VerifiesClients {
					r.verifies[e.Name] = true
				}
			}
		case rotation.StepLook, rotation.StepVerify, rotation.StepWait, rotation.StepRefuse: // no changes
		}
	}
}

// sum is the radius as it is shown.
func (r *radius) sum() admin.Radius {
	r.ClientVerification = slices.Sorted(maps.Keys(r.verifies))
	return r.Radius
}

// holder is where a step's certificate counts: of a target, or of the policy's issuer.
func (g *generation) holder(policy, target string) holder {
	part := g.parts[policy]
	if part == nil {
		return holder{} // it came into force while others were planned
	}
	p := part.assembly.Policy
	if target == "" && p.Source.PrivateCA != nil {
		return holder{p.Source.PrivateCA.Cloud, "ccm"}
	}
	for _, t := range p.Targets {
		switch {
		case t.Name != target:
		case t.WAF != nil:
			return holder{t.WAF.Cloud, "waf"}
		case t.APIG != nil:
			return holder{t.APIG.Cloud, "apig"}
		}
	}
	return holder{}
}
