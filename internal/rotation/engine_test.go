package rotation

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// inWorld runs a test in fake time.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, testPolicy())) })
}

func (w *world) expectState(want State) {
	w.t.Helper()
	if r := w.record(); r.State != want {
		w.t.Errorf("state %s (%s), want %s; record %s", r.State, r.Reason, want, w.journal)
	}
}

func TestFirstRotation(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted, w.propagation = w.bundle(1), 3*time.Second
		if err, _ := w.look(TriggerFile); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateUnconverged)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
			t.Error("the hosts are not bound after the first look")
		}
		w.drive(TriggerDeadline, time.Minute)
		w.expectState(StateConverged)
		want := []EventKind{EventPlanned, EventStarted, EventDeployed, EventActivated, EventVerified, EventConverged}
		if !slices.Equal(w.order, want) {
			t.Errorf("events %v, want %v", w.order, want)
		}
		if r := w.record(); r.Verified != w.wanted.Info.Fingerprint || r.Intent != nil || len(r.Outbox) != 0 {
			t.Errorf("record after convergence: %s", w.journal)
		}
	})
}

func TestRenewalRetiresThePredecessorAfterItsGrace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, 30*time.Minute)
		if len(w.certificates) != 2 {
			t.Errorf("%d certificates during the grace, want 2", len(w.certificates))
		}
		w.expectState(StateConverged)
		w.drive(TriggerDeadline, time.Hour)
		if len(w.certificates) != 1 || !w.boundTo("shop.example.com", 2) {
			t.Errorf("after the grace: %v, bound %v", w.certificates, w.bound)
		}
		if !w.said(EventRetired) {
			t.Errorf("events %v lack retired", w.order)
		}
		w.expectState(StateConverged)
	})
}

func TestRetainKeepsTheNewestAsTheWayBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Retain = policy.Retain{Superseded: new(1), For: new(policy.Duration(time.Hour))}
		for n := byte(1); n <= 4; n++ {
			w.wanted = w.bundle(n)
			w.drive(TriggerFile, 2*time.Hour)
		}
		held := map[certs.Fingerprint]bool{}
		for _, c := range w.certificates {
			held[c.fingerprint] = true
		}
		if len(held) != 2 || !held[certs.Fingerprint{4, 0xaa}] || !held[certs.Fingerprint{3, 0xaa}] {
			t.Errorf("held at the end: %v, want versions 3 and 4", held)
		}
	})
}

func TestServedAlreadyIsLeftAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		h := w.upload(w.wanted.Info.Fingerprint, w.wanted.Info.NotBefore, w.wanted.Info.NotAfter)
		w.bind("shop.example.com", h)
		w.bind("www.example.com", h)
		w.drive(TriggerStartup, time.Minute)
		w.expectState(StateConverged)
		if w.count("stage")+w.count("activate") > 0 {
			t.Errorf("calls %v: nothing was to be done", w.calls)
		}
	})
}

func TestForeignCertificatesAreNeverTouched(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		now := time.Now()
		foreign := w.upload(certs.Fingerprint{9}, now.Add(-48*time.Hour), now.Add(48*time.Hour))
		w.bind("shop.example.com", foreign)
		w.bind("www.example.com", foreign)
		w.wanted = w.bundle(1)
		w.wanted.Info.NotBefore = now.Add(time.Hour).UTC() // until then the journal learns what is served
		w.drive(TriggerFile, 24*time.Hour)
		w.expectState(StateConverged)
		if w.certificates[foreign] == nil {
			t.Error("the foreign certificate is gone")
		}
	})
}

func TestConvergedStartsWithoutAskingTheCloud(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.calls = nil
		if w.finds(TriggerStartup) {
			t.Error("a converged assignment is due at a start")
		}
		if err, _ := w.look(TriggerStartup); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.calls, []string{"load"}) {
			t.Errorf("calls %v, want the journal only", w.calls)
		}
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(w *world)
		state   State
		reason  string
	}{
		{"expired", func(w *world) { w.wanted.Info.NotAfter = time.Now().Add(-time.Hour) }, StateExpired, "expired"},
		{"not yet valid", func(w *world) { w.wanted.Info.NotBefore = time.Now().Add(time.Hour) }, StateFailed, "correct the clock"},
		{"certificate of a CA", func(w *world) { w.wanted.CA = true }, StateFailed, "one of a CA"},
		{"unknown host", func(w *world) { delete(w.bound, "www.example.com") }, StateFailed, "knows no host www.example.com"},
		{"uncovered host", func(w *world) { w.wanted.Info.Names = []string{"other.example.com"} }, StateFailed, "covered by no certificate"},
		{"older than served", func(w *world) {
			now := time.Now()
			w.bind("shop.example.com", w.upload(certs.Fingerprint{9}, now, now.Add(time.Hour)))
		}, StateFailed, "issued later"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.wanted = w.bundle(1)
				test.prepare(w)
				bound := w.bound["shop.example.com"]
				if err, _ := w.look(TriggerFile); err != nil {
					t.Fatal(err)
				}
				w.expectState(test.state)
				if reason := w.record().Reason; !strings.Contains(reason, test.reason) {
					t.Errorf("reason %q does not say %q", reason, test.reason)
				}
				if w.count("stage")+w.count("activate") > 0 || w.bound["shop.example.com"] != bound {
					t.Errorf("something was changed: calls %v", w.calls)
				}
				if !w.said(EventFailed) {
					t.Errorf("events %v lack failed", w.order)
				}
			})
		})
	}
}

func TestNotYetValidIsDeployedWhenItIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.wanted.Info.NotBefore = time.Now().Add(time.Hour).UTC()
		w.drive(TriggerFile, 2*time.Hour)
		w.expectState(StateConverged)
	})
}

func TestLostNameKeepsWhatIsServed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		w.wanted.Info.Names = []string{"shop.example.com"}
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateFailed)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
			t.Error("a bundle without a served name was deployed")
		}
		if reason := w.record().Reason; !strings.Contains(reason, "lost the name www.example.com") {
			t.Errorf("reason %q", reason)
		}
	})
}

func TestForceDeploysAnOlderBundle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.wanted.Info.NotBefore = time.Now().Add(-time.Hour).UTC()
		now := time.Now()
		w.bind("shop.example.com", w.upload(certs.Fingerprint{9}, now, now.Add(time.Hour)))
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerManual, Force: true}); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("not deployed")
		}
	})
}

func TestQuarantineKeepsTheLastGoodBundle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted.Problem = "shop.pem: block 1: truncated"
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateQuarantined)
		if !w.said(EventQuarantined) {
			t.Errorf("events %v", w.order)
		}
		// And somebody unbinds it in the console: it cannot be loaded, but it is there still.
		w.bind("shop.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)))
		w.drive(TriggerNATS, time.Minute)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("the last good bundle was not bound again")
		}
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
	})
}

func TestDriftIsRepaired(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"rebound": func(w *world) {
			w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(48*time.Hour)))
		},
		"deleted": func(w *world) {
			for h := range w.certificates {
				delete(w.certificates, h)
			}
			w.bound["shop.example.com"], w.bound["www.example.com"] = "", ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.wanted = w.bundle(1)
				w.drive(TriggerFile, time.Minute)
				change(w)
				w.drive(TriggerDeadline, 7*time.Hour)
				w.expectState(StateConverged)
				if !w.said(EventDrifted) || !w.said(EventRepaired) {
					t.Errorf("events %v", w.order)
				}
				if d := w.targetRecord().Drift; d != "" {
					t.Errorf("drift %q is still there", d)
				}
			})
		})
	}
}

func TestDriftIsOnlyReportedWhereThePolicySaysSo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Drift.Action = "report"
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		foreign := w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(48*time.Hour))
		w.bind("www.example.com", foreign)
		w.drive(TriggerDeadline, 24*time.Hour)
		w.expectState(StateWaiting)
		if w.bound["www.example.com"] != foreign {
			t.Error("drift was repaired")
		}
		if n := len(slices.DeleteFunc(slices.Clone(w.order), func(k EventKind) bool { return k != EventDrifted })); n != 1 {
			t.Errorf("drift was told %d times, want once: %v", n, w.order)
		}
		w.drive(TriggerManual, time.Minute)
		w.expectState(StateConverged)
	})
}

func TestServedDriftIsSeenByHandshakeOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		// An edge falls back to what it had before, for a while.
		w.before["shop.example.com"] = certs.Fingerprint{9}
		w.boundAt["shop.example.com"], w.propagation = time.Now(), 8*time.Hour
		time.Sleep(6 * time.Hour)
		w.drive(TriggerDeadline, 10*time.Second)
		w.expectState(StateFailed) // activated six hours ago: later than verify.within
		if d := w.targetRecord().Drift; d != DriftServed {
			t.Errorf("drift %q, want served", d)
		}
		w.drive(TriggerDeadline, 3*time.Hour)
		w.expectState(StateConverged)
		if d := w.targetRecord().Drift; d != "" {
			t.Errorf("drift %q is still there", d)
		}
	})
}

func TestNeverServedEndsAsFailedAndGoesOnLooking(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted, w.propagation = w.bundle(1), 2*time.Hour
		looks := w.drive(TriggerFile, time.Hour)
		w.expectState(StateFailed)
		if looks > 60 {
			t.Errorf("%d looks in an hour", looks)
		}
		if n := w.count("activate"); n != 1 {
			t.Errorf("activated %d times", n)
		}
		w.drive(TriggerDeadline, 2*time.Hour)
		w.expectState(StateConverged)
	})
}

func TestFailuresBackOffAndHeal(t *testing.T) {
	for _, kind := range []providers.Kind{providers.KindUnavailable, providers.KindDenied, providers.KindQuota, providers.KindThrottled, providers.KindUnknownOutcome, providers.KindUnauthenticated} {
		t.Run(kind.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.wanted = w.bundle(1)
				w.fault = func(call string, after bool) error {
					if call == "stage" && !after {
						return &providers.Error{Kind: kind, Service: "waf", Op: "create certificate", RetryAfter: 90 * time.Second}
					}
					return nil
				}
				w.drive(TriggerFile, time.Hour)
				w.expectState(StateFailed)
				if n := w.count("stage"); n < 2 || n > 45 {
					t.Errorf("%d tries in an hour", n)
				}
				first := slices.Index(w.order, EventFailed)
				if rest := w.order[first+1:]; slices.Contains(rest, EventFailed) {
					t.Errorf("the same failure was told again: %v", w.order)
				}
				w.fault = nil
				w.drive(TriggerDeadline, 3*time.Hour)
				w.expectState(StateConverged)
				if f := w.targetRecord().Failures; f != 0 {
					t.Errorf("%d failures in a row after a success", f)
				}
			})
		})
	}
}

func TestNewBundleDoesNotSitOutAnOldDelay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.fault = func(call string, after bool) error {
			if call == "stage" {
				return &providers.Error{Kind: providers.KindInvalid, Service: "waf", Op: "create certificate"}
			}
			return nil
		}
		w.drive(TriggerFile, 2*time.Hour)
		w.fault, w.wanted = nil, w.bundle(2)
		if err, _ := w.look(TriggerFile); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
	})
}

func TestVanishedCertificateIsLeftAsItIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = nil
		w.drive(TriggerFile, 48*time.Hour)
		w.expectState(StateWaiting)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("the binding was changed")
		}
	})
}

func TestStopBetweenTwoSteps(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		e := w.engine()
		w.fault = func(call string, after bool) error {
			if call == "stage" && after {
				e.Stop()
			}
			return nil
		}
		if err := e.Process(t.Context(), w.id, Request{Trigger: TriggerFile}); !errors.Is(err, ErrStopping) {
			t.Fatalf("Process: %v, want ErrStopping", err)
		}
		if w.count("activate") != 0 || len(w.certificates) != 1 {
			t.Errorf("calls %v", w.calls)
		}
		w.fault = nil
		w.drive(TriggerStartup, time.Minute)
		w.expectState(StateConverged)
		if w.creates[w.wanted.Info.Fingerprint] != 1 {
			t.Errorf("uploaded %d times", w.creates[w.wanted.Info.Fingerprint])
		}
	})
}

func TestZombieWorkerActsNoMore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.fault = func(call string, after bool) error {
			if call == "observe" && after {
				w.revision++ // another worker wrote the record meanwhile
			}
			return nil
		}
		err, _ := w.look(TriggerFile)
		if !errors.Is(err, ErrConflict) {
			t.Errorf("Process: %v, want ErrConflict", err)
		}
		if w.count("stage") != 0 {
			t.Errorf("a fenced worker acted: %v", w.calls)
		}
	})
}

func TestPredecessorStaysUntilTheSuccessorIsProven(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted, w.propagation = w.bundle(2), 5*time.Hour
		w.drive(TriggerFile, 4*time.Hour) // four times the grace
		if len(w.certificates) != 2 {
			t.Errorf("%d certificates while the edges still serve the predecessor, want 2", len(w.certificates))
		}
		w.drive(TriggerDeadline, 2*time.Hour)
		w.expectState(StateConverged)
		if len(w.certificates) != 1 {
			t.Errorf("%d certificates at the end, want 1", len(w.certificates))
		}
	})
}

func TestAddedHostIsBoundAndProven(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets[0].WAF.Hosts.List = []string{"shop.example.com"}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.policy.Targets[0].WAF.Hosts.List = []string{"shop.example.com", "www.example.com"}
		w.policy.Verify.Endpoints = []string{"www.example.com:443"}
		w.propagation = 20 * time.Second
		if err, _ := w.look(TriggerPolicy); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateUnconverged)
		w.drive(TriggerDeadline, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("www.example.com", 1) || w.creates[w.wanted.Info.Fingerprint] != 1 {
			t.Errorf("bound %v, uploads %v", w.bound, w.creates)
		}
	})
}

func TestLostChainWaitsForTheChain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.wanted.Chain = 1
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2) // a renewal of which the chain is not on disk yet
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateFailed)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("a bundle without its chain was deployed")
		}
		w.wanted.Chain = 1
		if !w.finds(TriggerFile) {
			t.Error("the chain came, and nothing is due")
		}
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
	})
}

func TestFailingRetirementKeepsNothingFromBeingServed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		w.fault = func(call string, after bool) error {
			if call == "retire" {
				return &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "delete certificate"}
			}
			return nil
		}
		w.drive(TriggerFile, 6*time.Hour)
		w.expectState(StateConverged)
		if n := w.count("retire"); n < 2 || n > 10 {
			t.Errorf("%d tries in six hours", n)
		}
		w.wanted = w.bundle(3)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 3) {
			t.Error("a failing retirement held the next rotation up")
		}
		w.fault = nil
		w.drive(TriggerDeadline, 6*time.Hour)
		if len(w.certificates) != 1 {
			t.Errorf("%d certificates at the end, want 1", len(w.certificates))
		}
	})
}

func TestFailingLookTakesNothingBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.fault = func(call string, after bool) error {
			if call == "observe" {
				return &providers.Error{Kind: providers.KindUnavailable, Service: "waf", Op: "show host"}
			}
			return nil
		}
		w.drive(TriggerDeadline, 12*time.Hour)
		w.expectState(StateConverged)
		if f := w.targetRecord(); f.Failures < 3 || !f.RetryAt.After(time.Now()) {
			t.Errorf("failures %d, next try %s", f.Failures, f.RetryAt)
		}
		w.fault = nil
		w.drive(TriggerDeadline, time.Hour)
		if f := w.targetRecord().Failures; f != 0 {
			t.Errorf("%d failures in a row after a success", f)
		}
	})
}

func TestRecordRemembersTheLastBundles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for n := byte(1); n <= 8; n++ {
			w.wanted = w.bundle(n)
			w.drive(TriggerFile, time.Minute)
		}
		leaves := w.record().Leaves
		if len(leaves) != maxLeaves || leaves[0].Fingerprint != w.wanted.Info.Fingerprint || leaves[1].Fingerprint != (certs.Fingerprint{7, 0xaa}) {
			t.Errorf("remembered %v", leaves)
		}
	})
}

// TestNothingIsConvergedOnAnotherBundle: between a new bundle and the first look at it, nobody is told that
// all is served.
func TestNothingIsConvergedOnAnotherBundle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stands := func(when string, want State) {
			t.Helper()
			if got := w.engine().Standing(w.id, w.record(), time.Now()); got != want {
				t.Errorf("%s: state %s, want %s", when, got, want)
			}
		}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		stands("after the first rotation", StateConverged)
		w.wanted = w.bundle(2)
		stands("with a new bundle", StateWaiting)
		w.drive(TriggerFile, time.Minute)
		stands("after the second", StateConverged)
		w.policy.Targets = nil
		stands("without targets", StateConverged)
		w.wanted = w.bundle(3)
		stands("with a new bundle to be proven", StateWaiting)
	})
}

// TestNothingIsConvergedUntilItIsServed: while a target is being brought another bundle, whatever the
// outside is asked, nobody is told that it serves it.
func TestNothingIsConvergedUntilItIsServed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		during := map[State]int{}
		w.fault = func(string, bool) error {
			if !w.boundTo("shop.example.com", 2) || !w.boundTo("www.example.com", 2) {
				during[w.engine().Standing(w.id, w.record(), time.Now())]++
			}
			return nil
		}
		w.drive(TriggerFile, time.Minute)
		w.fault = nil
		if got := w.engine().Standing(w.id, w.record(), time.Now()); got != StateConverged {
			t.Errorf("in the end it is %s", got)
		}
		if during[StateConverged] > 0 || during[StateRotating] == 0 {
			t.Errorf("before it was served it was %v", during)
		}
	})
}

func TestWatchedOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets, w.policy.Verify.Endpoints = nil, nil
		w.wanted = w.bundle(1)
		stands := func(want State) {
			t.Helper()
			if got := w.engine().Standing(w.id, Record{}, time.Now()); got != want {
				t.Errorf("state %s, want %s", got, want)
			}
		}
		// until is when it stands otherwise, and not a moment earlier.
		until := func(want time.Time, then State) {
			t.Helper()
			state, until := w.engine().StandingUntil(w.id, Record{}, time.Now())
			if !until.Equal(want) {
				t.Errorf("it stands until %s, want %s", until, want)
			}
			if got := w.engine().Standing(w.id, Record{}, until.Add(-1)); got != state {
				t.Errorf("it is %s already before that, not %s", got, state)
			}
			if got := w.engine().Standing(w.id, Record{}, until); got != then {
				t.Errorf("it is %s then, want %s", got, then)
			}
		}
		stands(StateConverged)
		until(w.wanted.Info.NotAfter, StateExpired)
		w.wanted.Problem, w.wanted.ProblemSince = "truncated", time.Now()
		until(time.Now().Add(SettleTime), StateQuarantined)
		time.Sleep(SettleTime)
		stands(StateQuarantined)
		until(w.wanted.Info.NotAfter, StateExpired)
		w.wanted.Info.NotAfter = time.Now()
		stands(StateExpired)
		if _, until := w.engine().StandingUntil(w.id, Record{}, time.Now()); !until.IsZero() {
			t.Errorf("it is expired until %s", until)
		}
		w.drive(TriggerNATS, time.Minute)
		if w.finds(TriggerStartup) || len(w.calls) > 0 {
			t.Errorf("something was done: %v", w.calls)
		}
	})
}

func TestWhatTheTargetForgotIsStagedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		forgot := false
		w.fault = func(call string, after bool) error {
			if call == "activate" && !after && !forgot {
				forgot = true
				clear(w.certificates) // between the look and the activation
			}
			return nil
		}
		if err, _ := w.look(TriggerFile); err != nil {
			t.Fatal(err)
		}
		// Staged in this very look and gone: that is a failure, and the next look stages.
		w.drive(TriggerDeadline, time.Hour)
		w.expectState(StateConverged)

		// Held by name since an earlier look, and gone: staged again at once.
		w.fault = nil
		w.bound["www.example.com"] = ""
		forgot = false
		w.fault = func(call string, after bool) error {
			if call == "activate" && !after && !forgot {
				forgot = true
				clear(w.certificates)
			}
			return nil
		}
		if err, _ := w.look(TriggerManual); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
		if w.targetRecord().Failures != 0 {
			t.Errorf("%d failures", w.targetRecord().Failures)
		}
	})
}

func TestTheMiddleOfAReplacementIsNoProblem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted.Problem, w.wanted.ProblemSince = "shop.crt: key_mismatch", time.Now()
		if due, unsettled := w.engine().Due(w.id, w.record(), TriggerFile, time.Now()); due || !unsettled {
			t.Errorf("at once: due %t, unsettled %t", due, unsettled)
		}
		time.Sleep(SettleTime)
		if due, unsettled := w.engine().Due(w.id, w.record(), TriggerFile, time.Now()); !due || unsettled {
			t.Errorf("it lasts: due %t, unsettled %t", due, unsettled)
		}
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateQuarantined)
	})
}
