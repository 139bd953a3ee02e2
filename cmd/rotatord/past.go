package main

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/rotation"
)

// This file answers what happened, and whether that is still what was written down.

func (d *daemon) askHistory(ctx context.Context, _ admin.Actor, request []byte) (any, error) {
	a, only, err := aboutOf(request)
	if err != nil {
		return nil, err
	}
	limit := defaultHistory
	if a.Limit != "" {
		if limit, err = strconv.Atoi(a.Limit); err != nil || limit < 1 || limit > maxHistory {
			return nil, admin.Refuse("limit %q is not a number from 1 to %d", a.Limit, maxHistory)
		}
	}
	return d.history(ctx, only, limit)
}

const (
	defaultHistory = 50
	maxHistory     = 100_000
	historyWait    = time.Minute
)

// history reads what happened, newest first.
func (d *daemon) history(ctx context.Context, only selection, limit int) (admin.History, error) {
	if err := d.bus.Ready(); err != nil {
		return admin.History{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, historyWait)
	defer cancel()
	past, err := d.bus.Past(ctx, only.policy, limit, only.isAbout)
	if err != nil {
		return admin.History{}, err
	}
	return historyView(past), nil
}

// isAbout reports whether an event of the policy is about what is selected.
func (s selection) isAbout(e bus.PastEvent) bool {
	return s.certificate == "" || e.Subject == rotation.SubjectOf(s.policy, s.certificate)
}

func historyView(past []bus.PastEvent) admin.History {
	h := admin.History{Events: []admin.Event{}}
	for _, e := range past {
		h.Events = append(h.Events, eventView(e))
	}
	// A look's events are published when it ends, and others between them.
	slices.SortStableFunc(h.Events, func(a, b admin.Event) int { return b.Time.Compare(a.Time) })
	return h
}

func eventView(e bus.PastEvent) admin.Event {
	var data rotation.EventData
	v := admin.Event{Time: e.Time, Kind: kindOf(e.Type), Sequence: e.Sequence}
	if json.Unmarshal(e.Data, &data) != nil {
		return v
	}
	v.Policy, v.Certificate, v.Target, v.Trigger, v.By, v.Reason = data.Policy, data.Certificate, data.Target, data.Trigger, data.By, data.Reason
	v.Outcome, v.Step, v.Steps, v.RequestIDs, v.PolicySHA256 = string(data.Outcome), string(data.Step), data.Steps, data.RequestIDs, data.PolicySHA256
	v.ID, v.Chain = e.ID, new(admin.Link(data.Chain))
	v.Fingerprint, v.Previous = fingerprintView(data.Fingerprint), fingerprintView(data.Previous)
	return v
}

func (d *daemon) askVerify(ctx context.Context, _ admin.Actor, request []byte) (any, error) {
	_, only, err := aboutOf(request)
	if err != nil {
		return nil, err
	}
	if !d.replayed.Load() {
		return nil, errNotReady
	}
	if err := d.bus.Ready(); err != nil {
		return nil, err
	}
	return d.verify(ctx, only)
}

// verify reads the whole history, of one policy or of all, and holds it against the journal.
func (d *daemon) verify(ctx context.Context, only selection) (admin.Verification, error) {
	v := admin.Verification{KeptSince: time.Now().Add(-time.Duration(d.inForce().set.Config.Audit.Retain)).UTC(), Chains: []admin.Chain{}, Findings: []admin.Finding{}}
	heads := d.records.heads(only) // before the events: no younger one is missed
	checker := audit.NewChecker(v.KeptSince)
	err := d.bus.AllPast(ctx, only.policy, func(e bus.PastEvent) {
		if only.isAbout(e) {
			v.Events++
			checker.Read(audit.Entry{ID: e.ID, Type: e.Type, Subject: e.Subject, Time: e.Time, Data: e.Data})
		}
	})
	if err != nil {
		return v, err
	}
	if v.Events == 0 && len(heads) == 0 && only.policy != "" {
		return v, unknown("there is no history of %s", rotation.SubjectOf(only.policy, only.certificate))
	}
	chains, findings := checker.End(heads)
	for _, c := range chains {
		_, known := heads[c.Subject]
		v.Chains = append(v.Chains, admin.Chain{Subject: c.Subject, Events: c.Events, First: c.First, Last: c.Last, Hash: c.Hash, Journal: known, Begun: c.Begun})
	}
	for _, f := range findings {
		v.Findings = append(v.Findings, admin.Finding(f))
	}
	v.OK = len(findings) == 0
	return v, nil
}
