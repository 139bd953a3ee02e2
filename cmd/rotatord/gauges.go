package main

import (
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// gauges keeps what the metrics show of assignments, and works it out again where something
// may have changed. Its lock is held by scrapes only: nobody who works waits for it.
type gauges struct {
	mu       sync.Mutex
	policies map[string]*gaugesOf
	// all are those of all policies, one after the other.
	all []*metrics.Assignment
}

// gaugesOf are those of one policy, with everything that they depend on.
type gaugesOf struct {
	generation *generation
	snapshot   *watcher.Snapshot
	// records is the version of the policy's records.
	records uint64
	// at is when they were worked out; some of them hold until then only, zero for ever.
	at, until time.Time
	list      []*metrics.Assignment
}

// shown is metrics.Config.Assignments.
func (d *daemon) shown() []*metrics.Assignment {
	g := &d.gauges
	g.mu.Lock()
	defer g.mu.Unlock()
	inForce, now := d.inForce(), time.Now()
	next, same := map[string]*gaugesOf{}, len(g.policies) == len(inForce.parts)
	for _, p := range inForce.set.Policies {
		before := g.policies[p.Name]
		if before == nil {
			before = &gaugesOf{}
		}
		is := &gaugesOf{generation: inForce, records: d.records.version(p.Name), at: now}
		if part := inForce.parts[p.Name]; part.watcher != nil {
			is.snapshot = part.watcher.Snapshot()
		}
		if is.follows(before) {
			next[p.Name] = before
			continue
		}
		d.gather(p, is, before)
		next[p.Name] = is
		same = same && slices.Equal(is.list, before.list)
	}
	g.policies = next
	if same {
		return g.all
	}
	g.all = nil
	for _, p := range inForce.set.Policies {
		g.all = append(g.all, next[p.Name].list...)
	}
	return g.all
}

// follows reports whether nothing that counts has changed since. A clock that was set back
// is a change too.
func (is *gaugesOf) follows(before *gaugesOf) bool {
	return is.sources(before) && is.records == before.records
}

// sources is follows for all but the records.
func (is *gaugesOf) sources(before *gaugesOf) bool {
	return is.generation == before.generation && is.snapshot == before.snapshot &&
		(before.until.IsZero() || is.at.Before(before.until)) && !is.at.Round(0).Before(before.at.Round(0))
}

// gather works the assignments of a policy out. Those that are as they were stay the same.
func (d *daemon) gather(p *policy.Policy, is, before *gaugesOf) {
	known := make(map[string]*metrics.Assignment, len(before.list))
	for _, a := range before.list {
		known[a.ID.Certificate] = a
	}
	recordsOnly := is.sources(before)
	if recordsOnly {
		is.until = before.until
	}
	for _, id := range d.assignments(p.Name) {
		record, old := d.records.peek(id), known[id.Certificate]
		if recordsOnly && old != nil && old.Record == record {
			is.list = append(is.list, old)
			continue
		}
		now, until := d.gauge(p, id, record, is.at)
		if !until.IsZero() && (is.until.IsZero() || until.Before(is.until)) {
			is.until = until
		}
		if old != nil && sameGauge(old, now) {
			now = old
		}
		is.list = append(is.list, now)
	}
}

// gauge is what is shown of one assignment, and until when; zero for ever.
func (d *daemon) gauge(p *policy.Policy, id rotation.ID, record *rotation.Record, now time.Time) (*metrics.Assignment, time.Time) {
	a := &metrics.Assignment{ID: id, Record: record}
	if record == nil {
		record = &rotation.Record{}
	}
	var until time.Time
	a.State, until = d.engine.StandingUntil(id, *record, now)
	if w, ok := d.engine.Wanted(id, *record); ok {
		a.Wanted = new(w.Info) // a copy, so that the rest of it goes
	}
	if p.Source.Issues() {
		a.Issuer, a.RenewalDue = p.Source.Kind(), record.RenewalDue(p.When.Renew)
	}
	a.RenewalDeadline = record.WindowsEnd(&p.When)
	return a, until
}

// sameGauge compares what was gathered. A bundle is the same if its fingerprint is.
func sameGauge(a, b *metrics.Assignment) bool {
	sameWanted := a.Wanted == b.Wanted || a.Wanted != nil && b.Wanted != nil && a.Wanted.Fingerprint == b.Wanted.Fingerprint
	return sameWanted && a.Record == b.Record && a.State == b.State && a.Issuer == b.Issuer &&
		a.RenewalDue.Equal(b.RenewalDue) && a.RenewalDeadline.Equal(b.RenewalDeadline)
}
