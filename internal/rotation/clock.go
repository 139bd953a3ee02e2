package rotation

import "time"

// clockTolerance is how far the clocks of daemons that share a journal may be apart without
// anybody taking notice.
const clockTolerance = time.Minute

// asOf is the record for a look at a time. One that was written later than that was written by
// a clock that is, or was, ahead: its times are those of that clock, and move back with it.
// Otherwise a pause of seconds that began before a clock was set back by hours would last for
// hours. What others said of their own time, the dates of certificates and of messages, stays.
func (r Record) asOf(now time.Time) Record {
	ahead := r.WrittenAt.Sub(now)
	if r.WrittenAt.IsZero() || ahead <= clockTolerance {
		return r
	}
	return r.back(ahead)
}

// back is the record with its own times moved back. It is a function of its own because what it
// changes lies on the heap, and it is called next to never.
func (r Record) back(ahead time.Duration) Record {
	r = r.clone()
	move := func(times ...*time.Time) {
		for _, t := range times {
			if !t.IsZero() {
				*t = t.Add(-ahead)
			}
		}
	}
	move(r.ownTimes()...)
	for name, t := range r.Targets {
		move(t.ownTimes()...)
		r.Targets[name] = t
	}
	return r
}

// ownTimes are the times that were read from a clock of rotatord's or reckoned from one; a
// target has its own.
func (r *Record) ownTimes() []*time.Time {
	times := []*time.Time{
		&r.WrittenAt, &r.VerifiedAt, &r.VerifyTriedAt, &r.VerifyNext, &r.ProvenAt, &r.ReplacedAt, &r.WantedAt, &r.LookedAt, &r.Since, &r.WakeAt, &r.Answered,
		&r.Issuing.Since, &r.Issuing.LookedAt, &r.Issuing.RetryAt, &r.Issuing.Revoking.RetryAt, &r.Issuing.FailedAt, &r.Issuing.Revoking.FailedAt,
	}
	if r.Intent != nil {
		times = append(times, &r.Intent.At)
	}
	if r.RolledBack != nil {
		times = append(times, &r.RolledBack.At, &r.RolledBack.RetryAt)
	}
	for i := range r.Issued {
		times = append(times, &r.Issued[i].At, &r.Issued[i].SupersededAt)
	}
	for i := range r.Acknowledged {
		times = append(times, &r.Acknowledged[i].At)
	}
	return times
}

func (t *TargetRecord) ownTimes() []*time.Time {
	times := []*time.Time{&t.StartedAt, &t.LastAttemptAt, &t.LastSuccessAt, &t.RetryAt, &t.FailedAt}
	for _, p := range []*Placed{t.Active, t.Previous} {
		if p != nil {
			times = append(times, &p.Since)
		}
	}
	for i := range t.Superseded {
		times = append(times, &t.Superseded[i].Since)
	}
	return times
}

// Wakes is when the assignment wants to be looked at again, by a clock that shows now; zero
// for never.
func (r Record) Wakes(now time.Time) time.Time { return r.asOf(now).WakeAt }
