package rotation

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// inSafeWorld has a policy that rolls back.
func inSafeWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.Verify.OnFailure = policy.OnFailureRollBack
		p.Retain.Superseded = new(1)
		w := newWorld(t, p)
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateConverged)
		test(t, w)
	})
}

func TestUnservedBundleIsRolledBack(t *testing.T) {
	inSafeWorld(t, func(t *testing.T, w *world) {
		w.wanted, w.propagation = w.bundle(2), 1000*time.Hour // it is bound, and never served
		w.drive(TriggerFile, 9*time.Minute)
		if !w.boundTo("shop.example.com", 2) {
			t.Fatal("gone back before verify.within was over")
		}
		w.propagation = 1000 * time.Hour
		w.drive(TriggerDeadline, 20*time.Minute)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
			t.Error("the predecessor is not bound again")
		}
		w.expectState(StateFailed)
		r := w.record()
		if r.RolledBack == nil || !strings.Contains(r.Reason, "rolled back at") || !strings.Contains(r.Reason, "shop.example.com") || !w.said(EventRolledBack) {
			t.Errorf("not told: %s, events %v", w.journal, w.order)
		}
		activations := w.count("activate")
		w.drive(TriggerDeadline, 30*time.Minute)
		if n := w.count("activate"); n != activations {
			t.Errorf("%d activations within half an hour of going back", n-activations)
		}
		w.propagation = 0
		w.drive(TriggerDeadline, 2*time.Hour) // the next try is after an hour
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) || w.record().RolledBack == nil || w.record().RolledBack.Times != 1 {
			t.Errorf("the second try: %s", w.journal)
		}
	})
}

func TestRollingBackBacksOff(t *testing.T) {
	inSafeWorld(t, func(t *testing.T, w *world) {
		w.wanted, w.propagation = w.bundle(2), 1000*time.Hour
		w.drive(TriggerFile, 72*time.Hour)
		if n := len(slices.DeleteFunc(slices.Clone(w.order), func(k EventKind) bool { return k != EventRolledBack })); n < 3 || n > 5 {
			t.Errorf("rolled back %d times in three days, want once an hour, six hours and a day after the one before", n)
		}
		if !w.boundTo("shop.example.com", 1) {
			t.Error("the predecessor is not bound")
		}
		w.wanted, w.propagation = w.bundle(3), 0 // a new bundle does not wait
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
	})
}

func TestNothingIsRolledBackWithoutAGoodPredecessor(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"keep":    func(w *world) { w.policy.Verify.OnFailure = policy.OnFailureKeep },
		"expired": func(w *world) { time.Sleep(91 * 24 * time.Hour) },
		"first of all": func(w *world) {
			w.journal, w.revision, w.bound["shop.example.com"], w.bound["www.example.com"] = nil, 0, "", ""
		},
		"never proven": func(w *world) {
			w.propagation = 1000 * time.Hour
			w.wanted = w.bundle(7)
			w.policy.Verify.OnFailure = policy.OnFailureKeep
			w.drive(TriggerFile, time.Hour)
			w.policy.Verify.OnFailure = policy.OnFailureRollBack
		},
		"deleted since": nil,
	} {
		t.Run(name, func(t *testing.T) {
			inSafeWorld(t, func(t *testing.T, w *world) {
				if prepare != nil {
					prepare(w)
				}
				w.wanted, w.propagation = w.bundle(2), 1000*time.Hour
				w.drive(TriggerFile, time.Minute)
				if prepare == nil { // somebody deletes the way back
					for h, c := range w.certificates {
						if len(w.users(h)) == 0 && c.fingerprint == (certs.Fingerprint{1, 0xaa}) {
							delete(w.certificates, h)
						}
					}
				}
				w.drive(TriggerDeadline, 3*time.Hour)
				w.expectState(StateFailed)
				if !w.boundTo("shop.example.com", 2) || w.said(EventRolledBack) {
					t.Errorf("gone back: %s", w.journal)
				}
			})
		})
	}
}

// The rest is changed when the canary has served the bundle, proven, for a while.
func TestCanaryServesFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets = []policy.Target{
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
		}
		w.second = target{w}
		w.policy.Canary = policy.Canary{Targets: []string{"edge"}, Bake: new(policy.Duration(15 * time.Minute))}
		w.wanted, w.propagation = w.bundle(1), 10*time.Second
		w.drive(TriggerFile, 10*time.Minute)
		w.expectState(StateWaiting)
		if !w.boundTo("shop.example.com", 1) || w.boundTo("www.example.com", 1) {
			t.Fatal("the canary is to be changed, and nothing else")
		}
		if !slices.Contains(w.deferred, "canary") || !strings.Contains(w.record().Reason, "first, until") {
			t.Errorf("deferred %v, reason %q", w.deferred, w.record().Reason)
		}
		w.drive(TriggerDeadline, 10*time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("www.example.com", 1) {
			t.Error("the rest did not follow")
		}
	})
}

// A canary that is not served goes back, and the rest is never touched.
func TestBadCanaryIsRolledBackAlone(t *testing.T) {
	inSafeWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets = []policy.Target{
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
		}
		w.second = target{w}
		w.policy.Canary = policy.Canary{Targets: []string{"edge"}, Bake: new(policy.Duration(15 * time.Minute))}
		w.drive(TriggerPolicy, time.Hour)
		w.expectState(StateConverged)
		w.wanted, w.propagation = w.bundle(2), 1000*time.Hour
		w.drive(TriggerFile, 40*time.Minute)
		w.expectState(StateFailed)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
			t.Errorf("not as before: %s", w.journal)
		}
		for _, e := range w.events {
			if e.Data.Target == "second" && e.Kind == EventActivated && e.Data.Fingerprint == (certs.Fingerprint{2, 0xaa}) {
				t.Error("the rest was touched")
			}
		}
	})
}

func TestBrakeAsks(t *testing.T) {
	inSafeWorld(t, func(t *testing.T, w *world) {
		w.braked = "too many changes; confirm"
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, 12*time.Hour)
		w.expectState(StateBraked)
		if !w.boundTo("shop.example.com", 1) || !w.said(EventBraked) || !slices.Contains(w.deferred, "brake") {
			t.Errorf("not braked: %s, events %v", w.journal, w.order)
		}
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerManual, Confirm: true, Asked: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.drive(TriggerDeadline, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) {
			t.Error("confirmed, and not deployed")
		}
		w.wanted = w.bundle(3) // a confirmation is for one bundle
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateBraked)
	})
}

// What replaces nothing is not braked, and what has begun is not stopped half way.
func TestBrakeLetsBeginningsPass(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.braked = "too many changes; confirm"
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateConverged)
	})
}

func TestGuardRules(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world)
		want   string
		allow  func(w *world)
	}{
		"weak RSA key":  {func(w *world) { w.wanted.Info.KeyAlgorithm = "RSA1024" }, "2048 bits", nil},
		"weak EC key":   {func(w *world) { w.wanted.Info.KeyAlgorithm = "EC192" }, "224 bits", nil},
		"min_remaining": {func(w *world) { w.policy.Guard.MinRemaining = policy.Duration(100 * 24 * time.Hour) }, "guard.min_remaining", func(w *world) { w.policy.Guard.MinRemaining = 0 }},
		"lost names": {func(w *world) {
			w.wanted.Info.Names = []string{"shop.example.com", "www.example.com"}
		}, "lost old.example.com", func(w *world) { w.policy.Guard.AllowLostNames = []string{"old.*"} }},
		"issuer": {func(w *world) {
			w.policy.Guard.AllowIssuerChange = new(false)
			w.wanted.Info.IssuerCN, w.wanted.Info.Names = "Another CA", append(w.wanted.Info.Names, "old.example.com")
		}, "guard.allow_issuer_change", func(w *world) { w.policy.Guard.AllowIssuerChange = new(true) }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.wanted = w.bundle(1)
				w.wanted.Info.Names = append(w.wanted.Info.Names, "old.example.com")
				w.drive(TriggerFile, time.Hour)
				w.wanted = w.bundle(2)
				if name != "lost names" {
					w.wanted.Info.Names = append(w.wanted.Info.Names, "old.example.com")
				}
				test.change(w)
				w.drive(TriggerFile, time.Hour)
				w.expectState(StateFailed)
				if r := w.record(); !strings.Contains(r.Reason, test.want) || !strings.Contains(r.Reason, "force") || !w.boundTo("shop.example.com", 1) {
					t.Errorf("reason %q, want %q", r.Reason, test.want)
				}
				if test.allow != nil {
					test.allow(w)
					w.drive(TriggerPolicy, time.Hour)
				} else if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerManual, Force: true, Asked: time.Now()}); err != nil {
					t.Fatal(err)
				}
				w.drive(TriggerDeadline, time.Minute)
				if !w.boundTo("shop.example.com", 2) {
					t.Errorf("allowed, and not deployed: %s", w.journal)
				}
			})
		})
	}
}

// A clock that is behind is told from a bundle that comes from the future.
func TestGuardBlamesTheClock(t *testing.T) {
	o := Observation{Policy: testPolicy(), Wanted: &Wanted{Info: certs.Info{NotBefore: epoch.Add(time.Hour), NotAfter: epoch.Add(1000 * time.Hour)}}}
	for skew, want := range map[time.Duration]string{0: "wait, or correct the clock", -2 * time.Hour: "2h0m0s behind the cloud's"} {
		o.Skew = skew
		step, refused := guard(&o, &View{Name: "edge", Observed: providers.Observation{}}, epoch)
		if !refused || !strings.Contains(step.Reason, want) {
			t.Errorf("skew %s: %v", skew, step)
		}
	}
}

// TestSafetyCrashMatrix lets every call of going back, and of a canary, go wrong in every
// way, once. The end is the one without misfortune.
func TestSafetyCrashMatrix(t *testing.T) {
	tales := []struct {
		name string
		play func(w *world)
		end  func(w *world)
	}{
		{"roll back", func(w *world) {
			w.wanted, w.propagation = w.bundle(2), 1000*time.Hour
			w.drive(TriggerFile, 50*time.Minute)
		}, func(w *world) {
			w.expectState(StateFailed)
			if r := w.record(); r.RolledBack == nil || r.RolledBack.Times != 1 || !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
				w.t.Errorf("not gone back once: %s", w.journal)
			}
			w.propagation = 0
			w.drive(TriggerDeadline, 3*time.Hour)
			w.expectState(StateConverged)
			if !w.boundTo("shop.example.com", 2) {
				w.t.Errorf("the next try: %s", w.journal)
			}
		}},
		{"canary", func(w *world) {
			w.wanted = w.bundle(2)
			w.drive(TriggerFile, 4*time.Hour)
		}, func(w *world) {
			w.expectState(StateConverged)
			if !w.boundTo("shop.example.com", 2) || !w.boundTo("www.example.com", 2) || w.creates[certs.Fingerprint{2, 0xaa}] > 1 {
				w.t.Errorf("not everywhere, or uploaded %d times: %s", w.creates[certs.Fingerprint{2, 0xaa}], w.journal)
			}
		}},
	}
	start := func(t *testing.T, canary bool) *world {
		p := testPolicy()
		p.Verify.OnFailure, p.Retain.Superseded = policy.OnFailureRollBack, new(1)
		if canary {
			p.Targets = []policy.Target{
				{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
				{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
			}
			p.Canary = policy.Canary{Targets: []string{"edge"}, Bake: new(policy.Duration(15 * time.Minute))}
		}
		w := newWorld(t, p)
		w.second = target{w}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, 2*time.Hour)
		w.expectState(StateConverged)
		w.calls = nil
		return w
	}
	rows := 0
	for _, tale := range tales {
		var calls []string
		synctest.Test(t, func(t *testing.T) {
			w := start(t, tale.name == "canary")
			tale.play(w)
			calls = w.calls
			tale.end(w)
		})
		for n := range calls {
			for _, m := range fewMisfortunes(n) {
				rows++
				t.Run(tale.name+"/"+calls[n]+" "+strconv.Itoa(n)+"/"+m.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := start(t, tale.name == "canary")
						struck := false
						w.fault = func(_ string, after bool) error {
							if struck || after != m.after || len(w.calls)-1 != n {
								return nil
							}
							struck = true
							return m.err
						}
						tale.play(w)
						w.fault = nil
						tale.end(w)
					})
				})
			}
		}
	}
	t.Logf("%d rows", rows)
}

// At the quota our own superseded certificate makes room, whatever its grace; what is
// served, and what others made, stays.
func TestQuotaMakesRoom(t *testing.T) {
	inSafeWorld(t, func(t *testing.T, w *world) {
		foreign := w.upload(certs.Fingerprint{9}, time.Now(), time.Now().Add(time.Hour))
		w.policy.Retain = policy.Retain{Superseded: new(5), For: new(policy.Duration(1000 * time.Hour))}
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Hour)
		w.quota = len(w.certificates)
		w.wanted = w.bundle(3)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 3) || w.certificates[foreign] == nil || len(w.certificates) != 3 {
			t.Errorf("certificates %v", w.certificates)
		}
	})
}

// Several servers behind one address: one good answer proves nothing.
func TestSuccessesInARow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Verify.Successes = 3
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		if n := w.count("probe"); n != 3 {
			t.Errorf("%d proofs, want 3", n)
		}
		w.wanted = w.bundle(2)
		seen := 0
		w.flicker = func() bool { seen++; return seen == 2 } // the second proof meets a server that lags
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		if seen != 5 {
			t.Errorf("%d proofs, want one good, one bad and three good ones", seen)
		}
	})
}
