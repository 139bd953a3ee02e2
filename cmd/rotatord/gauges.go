package main

import (
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
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
	return is.current(before) && is.snapshot == before.snapshot && is.records == before.records
}

// current is follows for all but the records and the directory.
func (is *gaugesOf) current(before *gaugesOf) bool {
	return is.generation == before.generation &&
		(before.until.IsZero() || is.at.Before(before.until)) && !is.at.Round(0).Before(before.at.Round(0))
}

// sameSource reports whether the directory has the same of a certificate as before. A source
// that issues has nothing that is not in the record.
func (is *gaugesOf) sameSource(before *gaugesOf, certificate string) bool {
	return is.snapshot == before.snapshot || before.snapshot != nil && is.snapshot.Same(before.snapshot, certificate)
}

// finder finds assignments by name. It is quick where they are asked for in the order of the list.
func finder(list []*metrics.Assignment) func(certificate string) *metrics.Assignment {
	next := 0
	var places map[string]int
	return func(certificate string) *metrics.Assignment {
		if next >= len(list) || list[next].ID.Certificate != certificate {
			if places == nil {
				places = make(map[string]int, len(list))
				for i, a := range list {
					places[a.ID.Certificate] = i
				}
			}
			i, known := places[certificate]
			if !known {
				return nil
			}
			next = i
		}
		next++
		return list[next-1]
	}
}

// gather works the assignments of a policy out. Those that are as they were stay the same, and
// are not even worked out where their record and their certificate are.
func (d *daemon) gather(p *policy.Policy, is, before *gaugesOf) {
	current := is.current(before)
	if current {
		is.until = before.until
	}
	ids := d.assignments(p.Name)
	is.list = make([]*metrics.Assignment, 0, len(ids))
	find := finder(before.list)
	for _, id := range ids {
		record, old := d.records.peek(id), find(id.Certificate)
		if current && old != nil && old.Record == record && is.sameSource(before, id.Certificate) {
			is.list = append(is.list, old)
			continue
		}
		now, until := d.gauge(p, id, record, is)
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
func (d *daemon) gauge(p *policy.Policy, id rotation.ID, record *rotation.Record, is *gaugesOf) (*metrics.Assignment, time.Time) {
	a := &metrics.Assignment{ID: id, Record: record}
	if record == nil {
		record = &rotation.Record{}
	}
	var until time.Time
	a.State, until = d.engine.StandingUntil(id, *record, is.at)
	if w, ok := d.engine.Wanted(id, *record); ok {
		a.Wanted = is.shared(id, w.Info)
	}
	if p.Source.Issues() {
		a.Issuer, a.RenewalDue = p.Source.Kind(), record.RenewalDue(p.When.Renew)
	}
	a.RenewalDeadline = record.WindowsEnd(&p.When)
	return a, until
}

// shared is the copy of a bundle's facts that the snapshot has, so that there is no second one.
func (is *gaugesOf) shared(id rotation.ID, info certs.Info) *certs.Info {
	if is.snapshot != nil {
		if c, ok := is.snapshot.Certificate(id.Certificate); ok && c.Pair.Info.Fingerprint == info.Fingerprint {
			return c.Pair.Info
		}
	}
	return new(info)
}

// sameGauge compares what was gathered. A bundle is the same if its fingerprint is.
func sameGauge(a, b *metrics.Assignment) bool {
	sameWanted := a.Wanted == b.Wanted || a.Wanted != nil && b.Wanted != nil && a.Wanted.Fingerprint == b.Wanted.Fingerprint
	return sameWanted && a.Record == b.Record && a.State == b.State && a.Issuer == b.Issuer &&
		a.RenewalDue.Equal(b.RenewalDue) && a.RenewalDeadline.Equal(b.RenewalDeadline)
}
