package rotation

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// unavailable is what a service that is down answers.
var unavailable = &providers.Error{Kind: providers.KindUnavailable, Service: "outside", Op: "call", Message: "down"}

// failing makes the named calls fail before their effect, the first n times; n < 0 always.
func (w *world) failing(n int, err error, calls ...string) {
	w.fault = func(call string, after bool) error {
		if after || n == 0 || !slices.Contains(calls, call) {
			return nil
		}
		n--
		return err
	}
}

// rig is a world whose engine has other parts than the world's own.
type rig struct {
	*world
	issuer providers.Issuer
	names  []string
}

func (g *rig) engine() *Engine {
	assembly := &Assembly{Policy: g.policy, Issuer: g.issuer, Source: &IssuedSource{Certificate: g.id.Certificate, Names: g.names}}
	assembly.Targets = map[string]providers.Target{"edge": target{g.world}, "second": g.second}
	return New(Config{
		Assembly: func(string) *Assembly { return assembly },
		Journal:  worldJournal{g.world}, Events: worldEvents{g.world}, Prober: g.world, Meter: g.world,
		Logger: slog.New(slog.NewTextHandler(g.t.Output(), nil)),
	})
}

// drive is world.drive with the rig's engine.
func (g *rig) drive(q Request, span time.Duration) {
	end := time.Now().Add(span)
	q.Asked = time.Now()
	for looks := 0; ; looks++ {
		if looks > 2000 {
			g.t.Fatalf("2000 looks in %s; record %s", span, g.journal)
		}
		if err, dead := g.look(q); err != nil || dead {
			time.Sleep(time.Second)
			continue
		}
		q = Request{Trigger: TriggerDeadline}
		at := g.record().WakeAt
		if at.IsZero() || at.After(end) {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(time.Until(at))
		q.Asked = time.Now()
	}
}

func (g *rig) look(q Request) (err error, dead bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	return g.engine().Process(g.t.Context(), g.id, q), false
}

func inRig(t *testing.T, test func(t *testing.T, g *rig, i *issuer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, i := issuingWorld(t)
		test(t, &rig{world: w, issuer: i, names: []string{"shop.example.com", "www.example.com"}}, i)
	})
}

// inForce is what the record says is in force.
func (w *world) inForce() Issue {
	r := w.record()
	if current := r.inForce(); current != nil {
		return *current
	}
	return Issue{}
}

// A first rotation that failed once must not end the regular comparisons: without
// handshakes they are the only ones.
func TestReviewComparisonsGoOnAfterAFailedFirstTry(t *testing.T) {
	for _, m := range []struct {
		name string
		err  error
	}{{"refused", unavailable}, {"killed", processKilled{}}} {
		t.Run(m.name, func(t *testing.T) {
			inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
				w.policy.Verify.Endpoints = nil
				w.failing(1, m.err, "observe")
				w.drive(TriggerStartup, time.Hour)
				i.expectServed(1)
				if w.record().LookedAt.IsZero() {
					t.Error("it was never noted that everything was looked at, so nothing is compared ever again")
				}
				w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(480*time.Hour)))
				w.drive(TriggerDeadline, 13*time.Hour)
				i.expectServed(1) // drift.every is 6h: the drift was repaired
			})
		})
	}
}

// The same for a directory with two targets.
func TestReviewComparisonsGoOnAfterOneOfTwoTargetsFailedFirst(t *testing.T) {
	inTwoTargets(t, func(t *testing.T, w *world) {
		w.second = &failsOnce{target: target{w}}
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateConverged)
		if w.record().LookedAt.IsZero() {
			t.Error("it was never noted that everything was looked at, so nothing is compared ever again")
		}
		w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(480*time.Hour)))
		w.drive(TriggerDeadline, 13*time.Hour)
		if !w.boundTo("www.example.com", 1) {
			t.Error("drift was not repaired")
		}
	})
}

// failsOnce is a target whose first Observe fails.
type failsOnce struct {
	target
	failed bool
}

func (f *failsOnce) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	if !f.failed {
		f.failed = true
		return providers.Observation{}, unavailable
	}
	return f.target.Observe(ctx, r)
}

// inTwoTargets has a directory policy without handshakes and with one host at each target.
func inTwoTargets(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Verify.Endpoints = nil
		w.policy.Targets = []policy.Target{
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
		}
		w.second = target{w}
		w.wanted = w.bundle(1)
		test(t, w)
	})
}

// The state directory with the keys is lost, and the CA makes nothing for a while: what
// is served has no successor, so it must not be revoked (the issuer complains if it is).
func TestReviewServedIsNotRevokedWithoutSuccessor(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		w.journal, w.revision = nil, 0
		i.gone["issued-1"] = "its private key is not on this host"
		w.failing(-1, &providers.Error{Kind: providers.KindInvalid, Service: "ccm", Op: "issue", Message: "the CA is disabled"}, "issue")
		w.drive(TriggerStartup, 5*time.Hour) // retain.for is 1h
		w.expectState(StateFailed)
		if len(i.revoked) > 0 {
			i.t.Errorf("revoked %v", i.revoked)
		}
		w.fault = nil
		w.drive(TriggerDeadline, 5*time.Hour)
		i.expectServed(2)
	})
}

// The same, where what the CA makes is not what was asked for.
func TestReviewServedIsNotRevokedWhereTheSuccessorIsRejected(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		w.journal, w.revision = nil, 0
		i.gone["issued-1"] = "its private key is not on this host"
		i.wrong = "asked for 2 names, got none"
		w.drive(TriggerStartup, 5*time.Hour)
		w.expectState(StateFailed)
		if slices.Contains(i.revoked, "issued-1") {
			i.t.Errorf("revoked %v", i.revoked)
		}
	})
}

// A forced look whose message comes again, here because the event cannot be published,
// makes one certificate, also where it was rejected.
func TestReviewForceRedeliveredAfterARejectionMakesNoMore(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		i.wrong = "asked for 2 names, got none"
		w.failing(-1, unavailable, "publish")
		q := Request{Trigger: TriggerNATS, Force: true, Asked: time.Now()}
		for range 10 {
			_ = w.engine().Process(t.Context(), w.id, q) // "publish events: down": the queue delivers it again
			time.Sleep(2 * time.Second)
		}
		if len(i.made) != 2 {
			t.Errorf("%d certificates were made for one force", len(i.made)-1)
		}
	})
}

// The node that asked has a clock 5 s ahead of the one that works.
func TestReviewForceRedeliveredAcrossClocksMakesNoMore(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		q := Request{Trigger: TriggerNATS, Force: true, Asked: time.Now().Add(5 * time.Second)}
		for range 3 {
			if err := w.engine().Process(t.Context(), w.id, q); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if len(i.made) != 2 {
			t.Errorf("%d certificates were made for one force", len(i.made)-1)
		}
	})
}

// The answer of a try is lost, and before the next one the policy changes: what the first
// left behind is not what is asked for now, and must not count as the CA's answer to it.
func TestReviewPolicyChangedDuringATry(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		lost := false
		w.fault = func(call string, after bool) error {
			if call == "issue" && after && !lost {
				lost = true
				return &providers.Error{Kind: providers.KindUnknownOutcome, Service: "ccm", Op: "issue"}
			}
			return nil
		}
		i.asks = "b"
		w.drive(TriggerPolicy, time.Second)
		// The adapter adopts issued-2 by its key, and finds that it differs from the new policy.
		i.made[1].problem = "names: asked for 3, got 2"
		i.asks = "c"
		w.drive(TriggerPolicy, 3*time.Hour)
		i.expectServed(3)
	})
}

// An issuer that is down altogether fails at the look already. That a renewal is overdue
// must be told all the same.
func TestReviewIssuerDownForDaysIsNotConverged(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, 50*24*time.Hour)
		w.failing(-1, unavailable, "observe issuer", "issue")
		w.drive(TriggerDeadline, 9*24*time.Hour)
		w.expectState(StateConverged) // not due yet
		w.drive(TriggerDeadline, 11*24*time.Hour)
		w.expectState(StateFailed) // due since day 59.4
		w.drive(TriggerDeadline, 25*24*time.Hour)
		w.expectState(StateExpired)
		w.fault = nil
		w.drive(TriggerDeadline, 7*time.Hour)
		i.expectServed(2)
	})
}

// A list that is behind says "not found" of what was just made. That must not lead to
// another certificate ten minutes later, when the first one is served long since.
func TestReviewOneMissedCollectMakesNoSecondCertificate(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.failing(1, &providers.Error{Kind: providers.KindNotFound, Service: "identity_center", Op: "collect certificate"}, "collect")
		w.drive(TriggerStartup, 24*time.Hour)
		i.expectServed(1)
	})
}

// Revocation and look, or revocation and issue, fail together, as they do when the cloud
// is down: a run ends after a few steps and says when it tries again.
func TestReviewRevocationAndIssuerFailTogether(t *testing.T) {
	for name, call := range map[string]string{"look": "observe issuer", "issue": "issue"} {
		t.Run(name, func(t *testing.T) {
			inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
				w.drive(TriggerStartup, time.Hour)
				i.asks = "b"
				w.drive(TriggerPolicy, time.Minute) // issued-1 is to be revoked in 1h
				w.failing(-1, unavailable, "revoke", call)
				if call == "issue" {
					w.drive(TriggerDeadline, 62*time.Minute)
					i.asks = "c"
				} else {
					time.Sleep(7 * time.Hour) // the comparison is due, and the revocation
				}
				w.calls = nil
				if err, _ := w.look(TriggerPolicy); err != nil {
					t.Fatal(err)
				}
				if n := w.count("save"); n > 20 {
					t.Errorf("%d writes in one look: revoking and %s take turns until the plan is cut off", n, name)
				}
				if r := w.record(); r.WakeAt.IsZero() || r.WakeAt.After(time.Now().Add(time.Hour)) {
					t.Errorf("next look at %s; state %s (%s), failures %d", r.WakeAt, r.State, r.Reason, r.Issuing.Failures)
				}
				w.fault = nil
				w.drive(TriggerDeadline, 8*time.Hour)
				i.expectServed(map[string]int{"look": 2, "issue": 3}[name])
			})
		})
	}
}

// Nobody can check renew.before against a life that the service chooses.
func TestReviewRenewBeforeLongerThanTheLifeDoesNotLoop(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.policy.When.Renew.Before = policy.Duration(100 * 24 * time.Hour) // certificates live 90 days
		w.drive(TriggerStartup, 24*time.Hour)
		if len(i.made) > 2 {
			t.Errorf("%d certificates in a day", len(i.made))
		}
	})
}

// A host is added together with its name. As long as no certificate with the name can be
// had, the one without it must not be bound there.
func TestReviewOldCertificateIsNotBoundToAHostItDoesNotCover(t *testing.T) {
	for _, how := range []string{"down", "rejected"} {
		t.Run(how, func(t *testing.T) {
			inRig(t, func(t *testing.T, g *rig, i *issuer) {
				g.drive(Request{Trigger: TriggerStartup}, time.Hour)
				const host = "new.example.com"
				foreign := g.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(480*time.Hour))
				g.bind(host, foreign)
				g.names = append(g.names, host)
				g.policy.Targets[0].WAF.Hosts.List = append(g.policy.Targets[0].WAF.Hosts.List, host)
				i.asks = "b"
				if how == "down" {
					g.failing(-1, unavailable, "issue")
				} else {
					i.wrong = "names: asked for 3, got 2"
				}
				g.drive(Request{Trigger: TriggerPolicy}, 3*time.Hour)
				if g.bound[host] != foreign {
					t.Errorf("%s was bound to %s, which does not cover it; it had a valid certificate of its own", host, g.bound[host])
				}
				g.expectState(StateFailed)
			})
		})
	}
}

// A policy that the CA refuses is taken back: nothing is to be issued any more, and
// nothing is failing.
func TestReviewRefusedPolicyTakenBack(t *testing.T) {
	inIssuingWorld(t, func(_ *testing.T, w *world, i *issuer) {
		w.drive(TriggerStartup, time.Hour)
		w.failing(-1, &providers.Error{Kind: providers.KindInvalid, Service: "ccm", Op: "issue", Message: "ask for fewer names"}, "issue")
		i.asks = "b"
		w.drive(TriggerPolicy, time.Hour)
		w.expectState(StateFailed)
		i.asks = "a"
		w.drive(TriggerPolicy, 3*time.Hour)
		w.expectState(StateConverged)
		w.fault = nil
		w.drive(TriggerDeadline, 3*time.Hour)
		i.expectServed(1)
	})
}

// foreignIssuer tells of everything that it did not make in this call as somebody
// else's, as Identity Center does, which has no tags.
type foreignIssuer struct{ *issuer }

func (f foreignIssuer) Observe(ctx context.Context, r providers.IssueRequest) (providers.Issuance, error) {
	o, err := f.issuer.Observe(ctx, r)
	for n := range o.Certificates {
		o.Certificates[n].Owned = false
	}
	return o, err
}

// The first certificate is made, and the process dies before it can remember it. The
// parties must hear of it all the same, and it is ours.
func TestReviewFirstIssueKilledIsToldAndOurs(t *testing.T) {
	for _, m := range []struct {
		name  string
		after bool
		err   error
	}{{"killed", true, processKilled{}}, {"answer lost", true, &providers.Error{Kind: providers.KindUnknownOutcome, Service: "outside", Op: "call"}}} {
		t.Run(m.name, func(t *testing.T) {
			inRig(t, func(t *testing.T, g *rig, i *issuer) {
				g.issuer = foreignIssuer{i}
				struck := false
				g.fault = func(call string, after bool) error {
					if call != "issue" || after != m.after || struck {
						return nil
					}
					struck = true
					return m.err
				}
				g.drive(Request{Trigger: TriggerStartup}, time.Hour)
				i.expectServed(1)
				if !g.said(EventIssued) {
					t.Errorf("nobody was told the new certificate: %v", g.order)
				}
				if !g.inForce().Owned {
					t.Error("it counts as somebody else's: it will never be deleted or revoked")
				}
			})
		})
	}
}

// retain.superseded counts predecessors, not one per place that has them.
func TestReviewRetainCountsPredecessorsOnce(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.policy.Retain.Superseded = new(1)
		w.drive(TriggerStartup, time.Hour)
		for _, asks := range []string{"b", "c", "d"} {
			i.asks = asks
			w.drive(TriggerPolicy, 5*time.Hour)
		}
		i.expectServed(4)
		if want := []providers.Handle{"issued-1", "issued-2"}; !slices.Equal(i.revoked, want) {
			t.Errorf("revoked %v, want %v: issued-3 is the one way back", i.revoked, want)
		}
	})
}

// superseded: keep is one of the three that an Identity Center policy may say.
func TestReviewApplicationKeepsSupersededWhereThePolicySaysSo(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		w.policy.Source.IdentityCenter.Superseded = policy.SupersededKeep
		w.policy.Source.IdentityCenter.Activate = policy.Activate{After: new(policy.Duration(time.Hour))}
		w.drive(TriggerStartup, 3*time.Hour)
		i.asks = "b"
		w.drive(TriggerPolicy, 10*time.Hour)
		w.expectState(StateConverged)
		if len(i.made) != 2 || w.count("retire application") > 0 {
			t.Errorf("%d certificates are left, want both", len(i.made))
		}
	})
}

// Two hosts serve the wanted leaf under two handles, copies of somebody else.
// Nothing is to be changed, so it is proven and its predecessor goes.
func TestReviewTwoCopiesOfTheWantedLeafAreProven(t *testing.T) {
	for _, proven := range []bool{true, false} {
		t.Run(fmt.Sprint("handshakes ", proven), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if !proven {
					w.policy.Verify.Endpoints = nil
				}
				w.wanted = w.bundle(1)
				w.drive(TriggerFile, time.Minute)
				w.wanted = w.bundle(2)
				info := w.wanted.Info
				for host := range w.bound {
					w.bind(host, w.upload(info.Fingerprint, info.NotBefore, info.NotAfter))
				}
				w.drive(TriggerNATS, 20*time.Hour)
				if r := w.record(); r.State != StateConverged || r.Verified != info.Fingerprint {
					t.Errorf("state %s, verified %s; want %s", r.State, r.Verified.Short(), info.Fingerprint.Short())
				}
				for h, c := range w.certificates {
					if c.fingerprint != info.Fingerprint {
						t.Errorf("the predecessor %s is never retired", h)
					}
				}
			})
		})
	}
}

// With two targets and no handshakes, one with two copies kept the whole assignment from
// being proven only since all targets are asked.
func TestReviewTwoCopiesAtOneOfTwoTargets(t *testing.T) {
	inTwoTargets(t, func(t *testing.T, w *world) {
		w.policy.Targets[1].WAF.Hosts.List = []string{"api.example.com", "www.example.com"}
		w.bound["api.example.com"] = ""
		for n := range byte(2) {
			w.wanted = w.bundle(n + 1)
			w.wanted.Info.Names = append(w.wanted.Info.Names, "api.example.com")
			if n == 1 {
				w.bind("api.example.com", w.upload(w.wanted.Info.Fingerprint, w.wanted.Info.NotBefore, w.wanted.Info.NotAfter))
				w.bind("www.example.com", w.upload(w.wanted.Info.Fingerprint, w.wanted.Info.NotBefore, w.wanted.Info.NotAfter))
			}
			w.drive(TriggerFile, 20*time.Hour)
		}
		if r := w.record(); r.State != StateConverged || r.Verified != w.wanted.Info.Fingerprint {
			t.Errorf("state %s (%s), verified %s", r.State, r.Reason, r.Verified.Short())
		}
		for h, c := range w.certificates {
			if c.fingerprint != w.wanted.Info.Fingerprint {
				t.Errorf("the predecessor %s is never retired", h)
			}
		}
	})
}

// After the loss of all state the way back that stays is the newest predecessor, not the
// one whose handle comes first.
func TestReviewWayBackAfterLostStateIsTheNewest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Retain = policy.Retain{Superseded: new(1), For: new(policy.Duration(24 * time.Hour))}
		for n := range byte(3) {
			w.wanted = w.bundle(n + 1)
			w.wanted.Info.NotBefore = w.wanted.Info.NotBefore.Add(time.Duration(n) * time.Minute)
			w.drive(TriggerFile, time.Hour)
		}
		w.journal, w.revision = nil, 0
		w.drive(TriggerStartup, 48*time.Hour)
		var left []certs.Fingerprint
		for _, c := range w.certificates {
			left = append(left, c.fingerprint)
		}
		if len(left) != 2 || !slices.Contains(left, certs.Fingerprint{2, 0xaa}) {
			t.Errorf("%v are left, want 03 and, as the way back, 02", left)
		}
	})
}

// claimsAll is an application where rotatord may delete whatever was replaced.
type claimsAll struct{ *applicationTarget }

func (c claimsAll) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	o, err := c.applicationTarget.Observe(ctx, r)
	for n := range o.Remotes {
		o.Remotes[n].Owned = true
	}
	return o, err
}

// superseded: delete_all claims what was replaced. A certificate that somebody has just
// made, to activate it by hand, was not.
func TestReviewDeleteAllLeavesWhatWasNeverReplaced(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		w.application = claimsAll{app}
		i.existing(app)
		w.drive(TriggerStartup, time.Hour)
		now := time.Now().UTC()
		i.made = append(i.made, &madeCertificate{handle: "by-hand", at: now, info: certs.Info{
			Fingerprint: certs.FingerprintOf(leafOf("by-hand")), NotBefore: now, NotAfter: now.Add(i.life),
		}})
		w.drive(TriggerDeadline, 24*time.Hour)
		if len(i.made) != 2 {
			t.Error("a certificate that waits for its activation was deleted")
		}
	})
}

// A host is added, and its target cannot be read: that the other hosts serve the bundle
// does not make it converged.
func TestReviewAddedHostThatWasNeverSeenIsNotConverged(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.policy.Targets[0].WAF.Hosts.List = []string{"shop.example.com"}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.policy.Targets[0].WAF.Hosts.List = []string{"shop.example.com", "www.example.com"}
		w.failing(-1, unavailable, "observe")
		w.drive(TriggerPolicy, time.Hour)
		w.expectState(StateFailed)
		w.fault = nil
		w.drive(TriggerDeadline, time.Hour)
		w.checkEnd()
	})
}

// A covered target that could never be listed is not converged because another one is.
func TestReviewUnlistedTargetIsNotConverged(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.policy.Targets = []policy.Target{
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{Covered: true}}},
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
		}
		w.second = target{w}
		w.failing(-1, unavailable, "list")
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateFailed)
		w.fault = nil
		w.drive(TriggerDeadline, time.Hour)
		w.checkEnd()
	})
}

// skewed is an issuer whose adoption allows for clocks that differ, as the adapters do.
type skewed struct{ *issuer }

func (s skewed) Issue(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	r.Since = r.Since.Add(-5 * time.Minute)
	return s.issuer.Issue(ctx, r)
}

// What was made, superseded or rejected a moment ago, and forgotten, must not come back as
// what a forced try made.
func TestReviewForgottenCertificateIsNotAdoptedAsNew(t *testing.T) {
	inRig(t, func(t *testing.T, g *rig, i *issuer) {
		g.issuer = skewed{i}
		g.policy.Source.PrivateCA.Superseded = policy.SupersededKeep
		g.policy.Retain.For = new(policy.Duration(0))
		for range 3 {
			g.drive(Request{Trigger: TriggerNATS, Force: true}, time.Minute)
		}
		g.expectState(StateConverged)
		if len(i.made) != 3 || g.shown("shop.example.com") != i.newest() {
			t.Errorf("%d made for three forces; served is %s, newest %s", len(i.made), g.shown("shop.example.com").Short(), i.newest().Short())
		}
	})
}

// chainless is an issuer whose second certificate comes straight from the root.
type chainless struct{ *issuer }

func (c chainless) Issue(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	issued, err := c.issuer.Issue(ctx, r)
	if issued.Handle != "issued-1" {
		issued.Chain = 0
	}
	return issued, err
}

// Where the CA makes the certificate, a chain that is not there is not a file that was
// forgotten.
func TestReviewChangeToACAWithoutIntermediates(t *testing.T) {
	inRig(t, func(_ *testing.T, g *rig, i *issuer) {
		g.issuer = chainless{i}
		g.drive(Request{Trigger: TriggerStartup}, time.Hour)
		i.asks = "b" // another issuer_id
		g.drive(Request{Trigger: TriggerPolicy}, 3*time.Hour)
		i.expectServed(2)
	})
}

// inPlace is a target that holds nothing but what is served.
type inPlace struct{ target }

func (p inPlace) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	o, err := p.target.Observe(ctx, r)
	o.Remotes = slices.DeleteFunc(o.Remotes, func(r providers.Remote) bool { return len(r.InUse) == 0 })
	return o, err
}

// Somebody goes back to the predecessor by hand, right before it is to be revoked: a look
// comes before the end of a certificate (the issuer complains if it does not).
func TestReviewLookBeforeRevocation(t *testing.T) {
	inRig(t, func(_ *testing.T, g *rig, i *issuer) {
		g.second = inPlace{target{g.world}}
		g.policy.Targets[0].Name = "second"
		g.drive(Request{Trigger: TriggerStartup}, time.Hour)
		before := g.bound["www.example.com"]
		i.asks = "b"
		g.drive(Request{Trigger: TriggerPolicy}, 50*time.Minute)
		g.bind("www.example.com", before)
		g.drive(Request{Trigger: TriggerDeadline}, 13*time.Hour)
		i.expectServed(2)
	})
}

// A worker whose message was handed to another issues nothing more and writes nothing.
func TestReviewTwoWorkersIssueOnce(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		inner := false
		w.fault = func(call string, after bool) error {
			if call != "issue" || after || inner {
				return nil
			}
			inner = true
			if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerStartup}); err != nil {
				t.Error(err)
			}
			return nil
		}
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerStartup}); err == nil || !strings.Contains(err.Error(), ErrConflict.Error()) {
			t.Errorf("the zombie went on: %v", err)
		}
		w.fault = nil
		w.drive(TriggerDeadline, time.Hour)
		i.expectServed(1)
	})
}

// An acknowledgement of the certificate in force comes while the next one is being made.
func TestReviewAcknowledgementDuringAnIssue(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		i.existing(app)
		w.drive(TriggerStartup, time.Hour)
		w.fault = func(call string, after bool) error {
			if call == "issue" && after {
				w.fault = nil
				if taken, why, err := w.engine().Acknowledge(t.Context(), w.id, i.made[0].info.Fingerprint, "grafana"); !taken || err != nil {
					t.Errorf("taken %v %s, %v", taken, why, err)
				}
			}
			return nil
		}
		i.asks = "b"
		w.drive(TriggerPolicy, time.Hour)
		w.expectState(StateWaiting)
		if len(i.made) != 2 || app.active != "issued-1" || len(w.record().Acknowledged) != 0 {
			t.Errorf("%d made, active %s: the word for the old certificate counts for the new one; record %s", len(i.made), app.active, w.journal)
		}
	})
}

// TestReviewHandoverCrashMatrix lets every call of a rotation with hand-over go wrong
// once: in no way may the application be switched before its time.
func TestReviewHandoverCrashMatrix(t *testing.T) {
	var calls []string
	play := func(t *testing.T, n int, m misfortune) {
		inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
			i.existing(app)
			w.drive(TriggerStartup, time.Hour)
			w.calls, i.asks = nil, "b"
			struck := false
			w.fault = func(call string, after bool) error {
				if call == "activate application" && time.Now().Before(i.made[len(i.made)-1].at.Add(24*time.Hour)) {
					t.Error("activated before its time")
				}
				if struck || after != m.after || len(w.calls)-1 != n {
					return nil
				}
				struck = true
				return m.err
			}
			w.drive(TriggerPolicy, 36*time.Hour)
			w.expectState(StateConverged)
			if app.active != "issued-2" || len(i.made) != 1 || w.shown(directory) != i.newest() {
				t.Errorf("active %s, %d left, directory %s", app.active, len(i.made), w.shown(directory).Short())
			}
			if r := w.record(); r.Intent != nil || len(r.Outbox) > 0 || len(r.Issued) != 1 || !w.said(EventIssued) {
				t.Errorf("not settled: %s", w.journal)
			}
			if n < 0 {
				calls = w.calls
			}
		})
	}
	play(t, -1, misfortunes[0])
	for n := range calls {
		for _, m := range fewMisfortunes(n) {
			t.Run(fmt.Sprintf("call %d %s/%s", n, calls[n], m.name), func(t *testing.T) { play(t, n, m) })
		}
	}
	t.Logf("%d rows", len(calls)*len(misfortunes))
}

// TestReviewAnyIssuingHistoryConverges plays random renewals, policy changes, forces,
// revocations, losses, faults and kills over an issuing policy, and then peace.
func TestReviewAnyIssuingHistoryConverges(t *testing.T) {
	for seed := range few(200) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playIssuing(t, rand.New(rand.NewPCG(seed, 2))) })
		})
	}
}

func playIssuing(t *testing.T, random *rand.Rand) {
	w, i := issuingWorld(t)
	w.propagation = 2 * time.Second
	w.policy.Drift.Every = policy.Duration(48 * time.Hour)
	w.policy.Retain.Superseded = new(random.IntN(2))
	if random.IntN(2) == 0 {
		w.policy.Verify.Endpoints = nil
	}
	began := time.Now()
	reasons := 1 // the first one
	w.fault = func(_ string, after bool) error {
		m := misfortunes[random.IntN(len(misfortunes))]
		if random.IntN(12) == 0 && m.after == after {
			return m.err
		}
		return nil
	}
	var history []string
	for range 1 + random.IntN(10) {
		what, more := i.happens(random.IntN(10))
		history, reasons = append(history, what), reasons+more
	}
	w.fault = nil
	w.drive(TriggerManual, 49*time.Hour)
	w.drive(TriggerDeadline, 49*time.Hour)
	w.expectState(StateConverged)
	renewals := int(time.Since(began)/(59*24*time.Hour)) + 1
	if len(i.made) > reasons+renewals {
		t.Errorf("%d certificates were made; %d asked for and at most %d renewals explain fewer", len(i.made), reasons, renewals)
	}
	for host := range w.bound {
		if w.shown(host) != i.newest() {
			t.Errorf("%s serves %s, want the newest, %s", host, w.shown(host).Short(), i.newest().Short())
		}
	}
	r := w.record()
	if r.Intent != nil || len(r.Outbox) > 0 || r.Verified != i.newest() || !r.Issuing.Since.IsZero() || r.Issuing.Failures > 0 {
		t.Errorf("not settled: %s", w.journal)
	}
	if keep := *w.policy.Retain.Superseded; len(r.Issued) > 1+keep {
		t.Errorf("%d certificates are remembered: %s", len(r.Issued), w.journal)
	}
	for h, c := range w.certificates {
		kept := slices.ContainsFunc(r.Issued, func(i Issue) bool { return i.Info.Fingerprint == c.fingerprint })
		if !c.foreign && !kept && *w.policy.Retain.Superseded == 0 {
			t.Errorf("an orphan is left: %s %s", h, c.name)
		}
	}
	for _, m := range i.made {
		known := slices.ContainsFunc(r.Issued, func(known Issue) bool { return known.Handle == m.handle })
		if !known && i.gone[m.handle] == "" && m.info.NotAfter.After(time.Now()) {
			t.Errorf("%s is valid, and nobody knows it", m.handle)
		}
	}
	for f, n := range w.creates {
		if n > 1 {
			t.Errorf("%s was uploaded %d times", f.Short(), n)
		}
	}
	if t.Failed() {
		t.Logf("history %v", history)
	}
}

// happens is one random event of an issuing history; more is how many certificates it
// explains.
func (i *issuer) happens(event int) (what string, more int) {
	switch event {
	case 0:
		i.drive(TriggerDeadline, 61*24*time.Hour)
		return "renewal", 0
	case 1:
		i.asks += "x"
		i.drive(TriggerPolicy, time.Duration(len(i.asks)%3)*time.Second)
		return "policy changed", 1
	case 2:
		if current := i.inForce().Handle; current != "" {
			i.gone[current] = "it was revoked"
		}
		i.drive(TriggerDeadline, 72*time.Hour)
		return "revoked by hand", 1
	case 3:
		i.journal, i.revision = nil, 0
		i.drive(TriggerStartup, time.Minute)
		return "state lost", 0
	case 4: // with the whole directory: state and keys
		i.loseKeys()
		i.journal, i.revision = nil, 0
		i.drive(TriggerStartup, time.Minute)
		return "state and keys lost", 1
	case 5:
		i.loseKeys()
		i.drive(TriggerNATS, time.Hour)
		return "keys lost", 1
	case 6:
		i.force(Request{Trigger: TriggerManual, Force: true, Asked: time.Now()})
		return "forced", 1
	case 7:
		i.bind("www.example.com", i.upload(certs.Fingerprint{200}, time.Now().Add(-9000*time.Hour), time.Now().Add(9000*time.Hour)))
		i.drive(TriggerDeadline, 49*time.Hour)
		return "rebound by hand", 0
	case 8:
		yesterday := i.journal
		i.asks += "x"
		i.drive(TriggerPolicy, 49*time.Hour)
		i.journal = yesterday
		i.drive(TriggerStartup, 49*time.Hour)
		return "state of yesterday", 1
	default:
		i.drive(TriggerNATS, 3*time.Hour)
		return "asked to look", 0
	}
}

func (i *issuer) loseKeys() {
	for _, m := range i.made {
		if i.gone[m.handle] == "" {
			i.gone[m.handle] = "its private key is not on this host"
		}
	}
}

// force delivers one forced message until it is done with.
func (i *issuer) force(q Request) {
	for range 100 {
		if !i.forceOnce(q) {
			return
		}
		time.Sleep(time.Second)
	}
	i.t.Error("100 deliveries of one message")
}

func (i *issuer) forceOnce(q Request) (again bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			again = true
		}
	}()
	return i.world.engine().Process(i.t.Context(), i.id, q) != nil
}
