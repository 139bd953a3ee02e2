package rotation

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// progress notes the effects of a run.
func (w *world) progress(_ ID, s Step, err error) {
	switch {
	case err != nil:
		w.failed = true
	case s.changes():
		w.made = append(w.made, s)
	}
}

// foretell plans before a run without misfortunes, and checks that planning touched
// nothing. What it returns checks that the run does what was planned. Every look of every
// test goes through it.
func (w *world) foretell(e *Engine, q Request) (check func()) {
	w.t.Helper()
	calls, journal, revision, order := w.calls, string(w.journal), w.revision, len(w.order)
	w.calls, w.made, w.failed = nil, nil, false
	out, err := e.Planner(e.cfg.Journal, e.cfg.Brake).Plan(w.t.Context(), w.id, q)
	if err != nil {
		w.t.Errorf("plan: %v", err)
	}
	for _, call := range w.calls {
		if !slices.Contains([]string{"load", "observe", "survey", "list", "observe issuer", "observe application"}, call) {
			w.t.Errorf("planning made the call %q", call)
		}
	}
	if string(w.journal) != journal || w.revision != revision || len(w.order) != order {
		w.t.Error("planning left traces")
	}
	w.calls = calls
	planned := out.Changes()
	if len(planned) > 0 && planned[0].Kind == StepIssue {
		planned = planned[:1] // what is issued decides about the rest
	}
	proves := slices.ContainsFunc(out.Steps, func(s Step) bool { return s.Kind == StepVerify })
	return func() {
		if w.t.Failed() || w.failed {
			return
		}
		same := func(p, m Step) bool { return p.Kind == m.Kind && p.Target == m.Target }
		staged := slices.IndexFunc(planned, func(s Step) bool { return s.Kind == StepStage })
		planned := slices.DeleteFunc(slices.Clone(planned), func(p Step) bool {
			// Two targets may be of one account: what was brought to one is there for the other.
			return p.Kind == StepStage && p.Target != planned[staged].Target && !slices.ContainsFunc(w.made, func(m Step) bool { return same(p, m) })
		})
		if len(w.made) < len(planned) || !slices.EqualFunc(planned, w.made[:len(planned)], same) || len(planned) == 0 && len(w.made) > 0 && !proves {
			w.t.Errorf("planned %v, and done was %v", planned, w.made)
		}
	}
}

func TestHoldKeepsEverythingAsItIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		w.hold = &Hold{By: "ada", Reason: "the audit", Since: time.Now(), Until: time.Now().Add(3 * time.Hour)}
		w.wanted = w.bundle(2)
		effects := w.count("stage") + w.count("activate") + w.count("retire")
		w.drive(TriggerFile, 2*time.Hour)
		w.expectState(StatePaused)
		if r := w.record(); !strings.Contains(r.Reason, "paused by ada") || !strings.Contains(r.Reason, "the audit") || !slices.Contains(w.deferred, "paused") {
			t.Errorf("reason %q, deferred %v", r.Reason, w.deferred)
		}
		if n := w.count("stage") + w.count("activate") + w.count("retire"); n != effects || !w.boundTo("shop.example.com", 1) {
			t.Errorf("%d effects while the policy was paused", n-effects)
		}
		if w.look(TriggerManual); w.count("stage") != 1 {
			t.Error("an operator's trigger is no reason to change what is held")
		}
		w.drive(TriggerDeadline, 3*time.Hour) // it ends by itself
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) {
			t.Error("the bundle was forgotten")
		}
	})
}

// A pause that comes in the middle of a run counts from the next step on.
func TestHoldInMidRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		e := w.engine()
		e.cfg.Progress = func(_ ID, s Step, _ error) {
			if s.Kind == StepStage {
				w.hold = &Hold{By: "ada", Since: time.Now()}
			}
		}
		if err := e.Process(t.Context(), w.id, Request{Trigger: TriggerFile}); err != nil {
			t.Fatal(err)
		}
		w.expectState(StatePaused)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("activated after the policy was paused")
		}
		w.hold = nil
		w.look(TriggerPolicy)
		w.drive(TriggerDeadline, time.Minute)
		w.expectState(StateConverged)
		if w.count("stage") != 2 || !w.boundTo("shop.example.com", 2) {
			t.Errorf("%d uploads, want 2", w.count("stage"))
		}
	})
}

// What only waits to be removed makes nobody worry.
func TestHoldOfAConvergedPolicyIsQuiet(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for n := range byte(2) {
			w.wanted = w.bundle(n + 1)
			w.drive(TriggerFile, time.Minute)
		}
		w.hold = &Hold{Since: time.Now()}
		w.drive(TriggerDeadline, 2*time.Hour) // retain.for is an hour
		w.expectState(StateConverged)
		if w.count("retire") != 0 || len(w.certificates) != 2 {
			t.Error("the superseded certificate went while the policy was paused")
		}
		w.hold = nil
		w.look(TriggerPolicy)
		if len(w.certificates) != 1 {
			t.Error("the superseded certificate stays for good")
		}
	})
}

func TestHoldIssuesNothing(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		w.hold = &Hold{Since: time.Now()}
		w.look(TriggerPolicy)
		w.expectState(StatePaused)
		if len(i.made) != 0 {
			t.Error("a certificate was issued")
		}
		w.hold = nil
		w.look(TriggerPolicy)
		w.expectState(StateConverged)
	})
}

func TestPlanSaysWhatCannotBeRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.failing(1000, &providers.Error{Kind: providers.KindDenied, Service: "waf", Message: "may not"}, "observe")
		out, err := w.engine().Planner(worldJournal{w}, nil).Plan(t.Context(), w.id, Request{Trigger: TriggerDrift})
		if err != nil || len(out.Changes()) != 0 || out.State != StateFailed || !strings.Contains(out.Reason, "may not") {
			t.Errorf("%v, state %s %q, steps %v", err, out.State, out.Reason, out.Steps)
		}
	})
}

func TestPlanOfAnIssuer(t *testing.T) {
	inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
		out, err := w.engine().Planner(worldJournal{w}, nil).Plan(t.Context(), w.id, Request{Trigger: TriggerDrift})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []StepKind
		for _, s := range out.Steps {
			kinds = append(kinds, s.Kind)
		}
		if want := []StepKind{StepIssue, StepStage, StepActivate, StepVerify}; !slices.Equal(kinds, want) || len(i.made) != 0 {
			t.Errorf("steps %v, want %v; %d certificates made", kinds, want, len(i.made))
		}
	})
}

// A policy that is replaced in mid-rotation ends after the step in flight.
func TestReplacedPolicyEndsBetweenSteps(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		e := w.engine()
		in := e.cfg.Assembly("shop")
		e.cfg.Assembly = func(string) *Assembly { return in }
		e.cfg.Progress = func(_ ID, s Step, _ error) {
			if s.Kind == StepStage {
				in = &Assembly{Policy: in.Policy, Source: in.Source, Targets: in.Targets, Listings: in.Listings}
			}
		}
		if err := e.Process(t.Context(), w.id, Request{Trigger: TriggerFile}); !errors.Is(err, ErrReplaced) {
			t.Fatalf("err %v", err)
		}
		if w.count("stage") != 1 || w.count("activate") != 0 {
			t.Errorf("calls %v", w.calls)
		}
		if err := e.Process(t.Context(), w.id, Request{Trigger: TriggerPolicy}); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
		if w.creates[w.wanted.Info.Fingerprint] != 1 {
			t.Error("uploaded twice")
		}
	})
}

func TestAnswered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.look(TriggerFile)
		if !w.record().Answered.IsZero() {
			t.Error("a file waits for no answer")
		}
		asked := time.Now()
		w.look(TriggerManual)
		if got := w.record().Answered; !got.Equal(asked) {
			t.Errorf("answered %s, asked %s", got, asked)
		}
	})
}

// What is announced after an issue says what it will wait for.
func TestPlanAnnouncesWaits(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, _ *applicationTarget) {
		i.asks = "something else"
		out, err := w.engine().Planner(worldJournal{w}, nil).Plan(t.Context(), w.id, Request{Trigger: TriggerDrift})
		if err != nil {
			t.Fatal(err)
		}
		last := slices.IndexFunc(out.Steps, func(s Step) bool { return s.Target == policy.ApplicationTarget })
		if out.Steps[0].Kind != StepIssue || last < 0 || out.Steps[last].Kind != StepWait || out.Steps[last].Cause != CauseHandover || !strings.Contains(out.Steps[last].Reason, "acknowledgement of") {
			t.Errorf("steps %v", out.Steps)
		}
	})
}
