package rotation

import (
	"slices"
	"time"
)

// Hold says that somebody paused a policy: it is watched, compared and measured as ever,
// and nothing is issued, changed or removed for it.
type Hold struct {
	// By is who paused it, Reason why, in their words.
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Until is when it ends by itself; zero for never.
	Until time.Time `json:"until,omitzero"`
}

// Holds reports whether the pause is not over yet.
func (h *Hold) Holds(now time.Time) bool {
	return h != nil && (h.Until.IsZero() || h.Until.After(now))
}

// String is the pause in words for an operator.
func (h *Hold) String() string {
	text := "paused"
	if h.By != "" {
		text += " by " + h.By
	}
	text += " since " + clock(h.Since)
	if !h.Until.IsZero() {
		text += " until " + clock(h.Until)
	}
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

// hold takes all effects from the plan of a policy that is paused. What is left still looks
// and proves; one wait says what holds the rest, and for a plan that would only have
// removed something it is not one that holds the bundle back.
func hold(o *Observation, steps []Step, now time.Time) []Step {
	if !o.Hold.Holds(now) || !slices.ContainsFunc(steps, Step.changes) {
		return steps
	}
	wait := Step{Kind: StepWait, Until: o.Hold.Until, Cause: CauseBlocked, Reason: o.Hold.String()}
	for _, s := range steps {
		if s.changes() && s.Kind != StepRetire && s.Kind != StepRevoke {
			wait.Cause = CausePaused
		}
	}
	unproven := wait.Cause == CausePaused // the proof that was announced belongs to the change
	left := slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return s.changes() || unproven && s.Kind == StepVerify })
	return append(left, wait)
}

// changes reports whether the step has an effect outside rotatord.
func (s Step) changes() bool { return s.acts() && s.Kind != StepLook && s.Kind != StepVerify }
