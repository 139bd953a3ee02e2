package admin

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// upcoming says what comes next for an assignment and who keeps it from going on, from what
// is recorded: nothing is looked at, so that it is less than what explain says. It is pure.
func upcoming(a *Assignment, paused *Pause, now time.Time) (next Next, blocked string) {
	switch a.State {
	case "expired":
		if a.RenewalDue.IsZero() {
			return Next{What: "serve a new bundle when the source has one", At: a.NextLook}, "the source: what it has has expired"
		}
		return Next{What: "issue the next certificate", At: cmpTime(a.NextLook, a.RenewalDue), Why: a.Reason}, "what is wanted has expired"
	case "failed":
		if t := firstRetry(a.Targets); t != nil {
			return Next{What: "try again at target " + t.Name, At: t.RetryAt, Why: t.Failure}, "a failure: the next try waits for its time"
		}
		return Next{What: "look again", At: a.NextLook, Why: a.Reason}, "a refusal or a failure: the reason says which"
	case "unconverged":
		return Next{What: "prove again that it is served", At: a.NextLook, Why: a.Reason}, "the service: the change is not seen everywhere yet"
	case "quarantined":
		return Next{What: "go on when the files can be used", At: a.NextLook, Why: a.Reason}, "the source's files, which cannot be used"
	case "braked":
		return Next{What: "go on when somebody confirms (rotatord rotate POLICY --confirm)", Why: a.Reason}, "the brake: an operator has to confirm"
	case "paused":
		next := Next{What: "go on when the policy is resumed", Why: a.Reason}
		if paused != nil {
			next.At = paused.Until
		}
		return next, "whoever paused the policy"
	case "rotating":
		return Next{What: "make the next step", At: now}, ""
	case "waiting":
		return Next{What: "look whether it can go on", At: a.NextLook, Why: a.Reason}, "the reason says what it waits for"
	case "converged":
		return quietly(a), ""
	}
	return Next{What: "the first look"}, ""
}

// quietly is what comes next where nothing is to be done.
func quietly(a *Assignment) Next {
	superseded := slices.ContainsFunc(a.Targets, func(t Target) bool { return t.Superseded > 0 })
	switch {
	case !a.RenewalDue.IsZero() && !a.RenewalDue.After(a.NextLook):
		return Next{What: "issue the next certificate", At: a.RenewalDue}
	case a.NextLook.IsZero() && len(a.Targets) == 0:
		return Next{What: "nothing: the policy only watches"}
	case a.NextLook.IsZero():
		return Next{What: "nothing by itself: it waits for a trigger"}
	case superseded:
		return Next{What: "look again, remove what is superseded", At: a.NextLook}
	}
	return Next{What: "compare wanted and served", At: a.NextLook}
}

// firstRetry is the target that is tried again first; nil if none has failed.
func firstRetry(targets []Target) (first *Target) {
	for i, t := range targets {
		if t.Failures > 0 && (first == nil || t.RetryAt.Before(first.RetryAt)) {
			first = &targets[i]
		}
	}
	return first
}

// lastError is what went wrong last, in words; empty where nothing did.
func lastError(a *Assignment) string {
	var words []string
	if a.Reason != "" && troubled(a.State) && a.State != "paused" && a.State != "braked" {
		words = append(words, a.Reason)
	}
	for _, t := range a.Targets {
		if t.Failure != "" && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, t.Failure) }) {
			words = append(words, t.Name+": "+t.Failure)
		}
	}
	return strings.Join(words, "; ")
}

// cmpTime is the first of the times that is set.
func cmpTime(times ...time.Time) time.Time { return cmp.Or(times...) }
