package rotation

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// randomObservation draws anything that could be seen, sensible or not.
func randomObservation(t *rapid.T) Observation {
	fingerprint := rapid.Custom(func(t *rapid.T) certs.Fingerprint { return certs.Fingerprint{byte(rapid.IntRange(0, 3).Draw(t, "f"))} })
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 3).Draw(t, "zero") == 0 {
			return time.Time{}
		}
		return epoch.Add(time.Duration(rapid.IntRange(-100, 100).Draw(t, "h")) * time.Hour)
	})
	handle := rapid.SampledFrom([]providers.Handle{"", "a", "b", "c", "d"})
	endpoints := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"shop.example.com", "www.example.com", "api.example.com"}), 0, 3, rapid.ID[string])

	p := testPolicy()
	p.Retain = policy.Retain{Superseded: new(rapid.IntRange(0, 2).Draw(t, "keep")), For: new(policy.Duration(time.Duration(rapid.IntRange(0, 50).Draw(t, "for")) * time.Hour))}
	p.Drift.Action = rapid.SampledFrom([]string{"repair", "report"}).Draw(t, "action")
	if rapid.Bool().Draw(t, "unproven") {
		p.Verify.Endpoints = nil
	}
	o := Observation{
		ID: ID{Policy: "shop", Certificate: "shop.example.com"}, Policy: p, Began: epoch,
		Trigger: rapid.SampledFrom(Triggers()).Draw(t, "trigger"), Force: rapid.Bool().Draw(t, "force"),
	}
	if rapid.IntRange(0, 9).Draw(t, "wanted") > 0 {
		o.Wanted = &Wanted{Info: certs.Info{Fingerprint: certs.Fingerprint{byte(rapid.IntRange(1, 3).Draw(t, "w"))}, NotBefore: instant.Draw(t, "nb"), NotAfter: instant.Draw(t, "na")}}
		if rapid.IntRange(0, 4).Draw(t, "broken") == 0 {
			o.Wanted.Problem = "broken"
		}
	}
	placed := rapid.Custom(func(t *rapid.T) Placed {
		return Placed{Handle: handle.Draw(t, "h"), Fingerprint: fingerprint.Draw(t, "f"), NotAfter: instant.Draw(t, "na"), Since: instant.Draw(t, "s"), Owned: true, InUse: rapid.Bool().Draw(t, "u")}
	})
	tr := TargetRecord{Kind: "waf", Endpoints: endpoints.Draw(t, "recorded"), Attempts: Attempts{RetryAt: instant.Draw(t, "retry"), Failures: rapid.IntRange(0, 3).Draw(t, "failures")}, Superseded: rapid.SliceOfN(placed, 0, 4).Draw(t, "superseded")}
	if rapid.Bool().Draw(t, "active") {
		tr.Active = new(placed.Draw(t, "placed"))
	}
	o.Record = Record{
		Verified: fingerprint.Draw(t, "verified"), VerifiedAt: instant.Draw(t, "at"), VerifyNext: instant.Draw(t, "next"), LookedAt: instant.Draw(t, "looked"),
		Targets: map[string]TargetRecord{"edge": tr},
	}
	if rapid.Bool().Draw(t, "safety") {
		o.Policy.Verify.OnFailure = policy.OnFailureRollBack
		o.Braked = rapid.SampledFrom([]string{"", "too many"}).Draw(t, "braked")
		o.Record.Good, o.Record.VerifyAttempts = fingerprint.Draw(t, "good"), rapid.IntRange(0, 2).Draw(t, "attempts")
		if rapid.Bool().Draw(t, "previous") {
			tr.Previous = new(placed.Draw(t, "before"))
			o.Record.Targets["edge"] = tr
		}
		if rapid.Bool().Draw(t, "rolled back") {
			o.Record.RolledBack = &RollBack{From: fingerprint.Draw(t, "from"), To: fingerprint.Draw(t, "to"), RetryAt: instant.Draw(t, "again"), Reason: "unserved"}
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "issues") == 0 {
		randomIssuing(t, &o, fingerprint, instant, handle)
	}
	v := View{Name: "edge", Kind: "waf", Endpoints: endpoints.Draw(t, "endpoints"), Orphans: endpoints.Draw(t, "orphans"), Looked: rapid.Bool().Draw(t, "looked at")}
	if v.Looked {
		for _, name := range v.Endpoints {
			v.Observed.Endpoints = append(v.Observed.Endpoints, providers.Endpoint{Name: name, Serves: handle.Draw(t, "serves"), Missing: rapid.IntRange(0, 9).Draw(t, "missing") == 0})
		}
		for _, h := range rapid.SliceOfNDistinct(handle, 0, 4, rapid.ID[providers.Handle]).Draw(t, "remotes") {
			r := providers.Remote{Handle: h, Fingerprint: fingerprint.Draw(t, "rf"), NotBefore: instant.Draw(t, "rnb"), NotAfter: instant.Draw(t, "rna"), Owned: rapid.Bool().Draw(t, "owned")}
			for _, e := range v.Observed.Endpoints {
				if e.Serves == h {
					r.InUse = append(r.InUse, e.Name)
				}
			}
			v.Observed.Remotes = append(v.Observed.Remotes, r)
		}
	}
	o.Targets = []View{v}
	return o
}

// randomIssuing makes the observation one of a policy that issues.
func randomIssuing(t *rapid.T, o *Observation, fingerprint *rapid.Generator[certs.Fingerprint], instant *rapid.Generator[time.Time], handle *rapid.Generator[providers.Handle]) {
	o.Asks = "a"
	o.Sourced = rapid.Bool().Draw(t, "sourced")
	o.Policy.Source.PrivateCA = &policy.PrivateCA{}
	o.Policy.When.Renew.At = 66
	issue := rapid.Custom(func(t *rapid.T) Issue {
		return Issue{
			Handle: handle.Draw(t, "h"), Info: certs.Info{Fingerprint: fingerprint.Draw(t, "f"), NotBefore: instant.Draw(t, "nb"), NotAfter: instant.Draw(t, "na")},
			At: instant.Draw(t, "at"), SupersededAt: instant.Draw(t, "superseded"), Asks: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "asks"),
			Owned: rapid.Bool().Draw(t, "owned"), Rejected: rapid.Bool().Draw(t, "rejected"), Problem: rapid.SampledFrom([]string{"", "gone"}).Draw(t, "problem"),
		}
	})
	o.Record.Issued = rapid.SliceOfN(issue, 0, 4).Draw(t, "issued")
	o.Record.Issuing.RetryAt = instant.Draw(t, "issue retry")
	o.Record.Issuing.Forced = instant.Draw(t, "forced")
	o.Record.Issuing.Since = instant.Draw(t, "since")
	o.issued()
}

// TestPlanNever states what no plan may contain, whatever was observed.
func TestPlanNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := randomObservation(t)
		steps := Plan(o, epoch)
		wanted := o.wants()
		for _, s := range steps {
			changes := s.Kind == StepStage || s.Kind == StepActivate
			switch {
			case changes && steps[0].Kind == StepIssue:
				continue // announced, for the certificate that is still to be made
			case changes && o.Wanted == nil:
				t.Fatalf("changes a target although nothing is wanted: %v", steps)
			case changes && (!o.Wanted.Info.NotAfter.After(epoch) || o.Wanted.Info.NotBefore.After(epoch)):
				t.Fatalf("deploys a bundle that is not valid now: %v", steps)
			case changes && s.Fingerprint != wanted:
				t.Fatalf("deploys something that is not wanted: %v", steps)
			case changes && !o.Targets[0].Looked:
				t.Fatalf("changes a target that it did not look at: %v", steps)
			case changes && slices.ContainsFunc(o.Targets[0].Observed.Endpoints, func(e providers.Endpoint) bool { return e.Missing }):
				t.Fatalf("half done: an endpoint is missing: %v", steps)
			case s.Kind == StepRetire && (o.Record.Verified != wanted || !o.Targets[0].Looked):
				t.Fatalf("retires before the successor is proven: %v", steps)
			case s.Kind == StepWait && !s.Until.IsZero() && !s.Until.After(epoch):
				t.Fatalf("waits for the past: %v", steps)
			case (s.Kind == StepWait || s.Kind == StepRefuse) && s.Reason == "" && s.Cause != CauseRetry:
				t.Fatalf("a step without a reason: %v", steps)
			}
			neverOfIssuing(t, &o, steps, s)
			neverOfSafety(t, &o, steps, s)
			if s.Kind == StepRetire {
				i := slices.IndexFunc(o.target("edge").Superseded, func(p Placed) bool { return p.Handle == s.Handle && !p.InUse })
				if i < 0 {
					t.Fatalf("retires what is served or not superseded: %v", steps)
				}
			}
		}
		if again := Plan(o, epoch); !slices.EqualFunc(steps, again, func(a, b Step) bool { return a.String() == b.String() }) {
			t.Fatalf("not the same plan twice:\n%v\n%v", steps, again)
		}
	})
}

// neverOfSafety states what no plan may contain whatever went wrong before.
func neverOfSafety(t *rapid.T, o *Observation, steps []Step, s Step) {
	tr := o.target("edge")
	switch {
	case s.Kind == StepRollBack && (tr.Previous == nil || s.Handle != tr.Previous.Handle || s.Fingerprint != o.Record.Good || o.Record.Good.IsZero()):
		t.Fatalf("goes back to what was not proven: %v", steps)
	case s.Kind == StepRollBack && !tr.Previous.NotAfter.After(epoch):
		t.Fatalf("goes back to what has expired: %v", steps)
	case s.Kind == StepRollBack && (!o.Targets[0].Looked || o.Record.Verified == o.wants()):
		t.Fatalf("goes back without a look, or from what is served: %v", steps)
	case s.Kind == StepActivate && o.Braked != "" && tr.StartedAt.IsZero() && tr.Active != nil && tr.Active.Fingerprint != o.wants() &&
		tr.Active.NotAfter.After(epoch.Add(brakeReleases)) && o.Record.Confirmed != o.wants() && steps[0].Kind != StepIssue:
		t.Fatalf("replaces what is served although the brake is on: %v", steps)
	}
}

// neverOfIssuing states what no plan may contain where certificates are issued.
func neverOfIssuing(t *rapid.T, o *Observation, steps []Step, s Step) {
	current := o.Record.inForce()
	switch {
	case (s.Kind == StepIssue || s.Kind == StepRevoke) && !o.issues():
		t.Fatalf("issues or revokes for a directory: %v", steps)
	case s.Kind == StepIssue && o.Record.Issuing.RetryAt.After(epoch) && !o.Trigger.impatient():
		t.Fatalf("does not wait for the end of a delay: %v", steps)
	case s.Kind == StepIssue && !o.Record.forced() && o.rejection() != nil && o.Record.Issuing.Since.IsZero():
		t.Fatalf("asks again for what was not what it asked for: %v", steps)
	case s.Kind == StepIssue && !o.Record.forced() && o.Record.Issuing.Since.IsZero() && current != nil && current.Asks == o.Asks && current.At.After(epoch.Add(-minReissue)):
		t.Fatalf("issues in a loop: %v", steps)
	case s.Kind == StepRevoke && current != nil && s.Handle == current.Handle:
		t.Fatalf("revokes what is in force: %v", steps)
	}
	if s.Kind != StepRevoke {
		return
	}
	rejected := slices.ContainsFunc(o.Record.Issued, func(i Issue) bool { return i.Handle == s.Handle && i.Rejected })
	if o.holds(s.Fingerprint) && !rejected {
		t.Fatalf("revokes what a target still has: %v", steps)
	}
}

// few is half of n, all with ROTATORD_TEST_LONG, and a fifth in a short run, as that with the race
// detector is: what is played is deterministic, and more is played without.
func few(n uint64) uint64 {
	switch {
	case os.Getenv("ROTATORD_TEST_LONG") != "":
		return n
	case testing.Short():
		return n / 5
	}
	return n / 2
}

// TestAnyHistoryConverges plays random changes, faults and kills, and then peace.
func TestAnyHistoryConverges(t *testing.T) {
	for seed := range few(400) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playHistory(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func playHistory(t *testing.T, random *rand.Rand) {
	w := newWorld(t, testPolicy())
	w.propagation = 2 * time.Second
	version := byte(1)
	w.wanted = w.bundle(version)
	w.fault = func(_ string, after bool) error {
		m := misfortunes[random.IntN(len(misfortunes))]
		if random.IntN(12) == 0 && m.after == after {
			return m.err
		}
		return nil
	}
	for range 1 + random.IntN(12) {
		w.happens(random.IntN(11), &version)
	}
	w.fault = nil
	w.drive(TriggerManual, 12*time.Hour)
	w.checkEnd()
}

// happens is one random event of a history.
func (w *world) happens(event int, version *byte) {
	switch event {
	case 0, 1, 2:
		*version++
		w.wanted = w.bundle(*version)
		w.drive(TriggerFile, time.Duration(event)*time.Second)
	case 3:
		w.bind("www.example.com", w.upload(certs.Fingerprint{200}, time.Now().Add(-9000*time.Hour), time.Now().Add(9000*time.Hour)))
		w.drive(TriggerDeadline, 7*time.Hour)
	case 4:
		w.journal, w.revision = nil, 0 // the state directory is lost
		w.drive(TriggerStartup, time.Minute)
	case 5:
		w.wanted.Problem = "truncated"
		w.drive(TriggerFile, time.Minute)
		w.wanted.Problem = ""
	case 6:
		w.drive(TriggerNATS, time.Minute)
	case 7:
		yesterday := w.journal
		*version++
		w.wanted = w.bundle(*version)
		w.drive(TriggerFile, 3*time.Hour)
		w.journal = yesterday
		w.drive(TriggerStartup, time.Minute)
	default:
		w.drive(TriggerDeadline, 3*time.Hour)
	}
}
