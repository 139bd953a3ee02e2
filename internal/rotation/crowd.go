package rotation

import (
	"context"
	"errors"
	"log/slog"

	"github.com/rotatord/rotatord/internal/providers"
)

// cause is what many assignments may fail for at once: how a service of a cloud fails.
type cause struct {
	cloud, service string
	kind           providers.Kind
}

// crowd are the assignments that fail for the same cause as this one, itself among them; none
// where the failure is its own. The log tells of all of them together: thousands of lines would
// hide what they have in common.
type crowd struct {
	together int
	// quiet says that others were told in its place, first that it fails for the first time.
	quiet, first bool
}

// level is loud, unless others were told in this assignment's place.
func (c crowd) level(loud, quiet slog.Level) slog.Level {
	if c.quiet {
		return quiet
	}
	return loud
}

// join notes for what cause a step failed. The empty target is the source. Of several steps of one
// run the loudest counts.
func (r *run) join(target string, err error) {
	before := r.crowd
	r.crowd = crowd{}
	e, ok := errors.AsType[*providers.Error](err)
	cloud := r.o.Policy.CloudOf(target)
	if !ok || cloud == "" || !isShared(e.Kind) {
		r.e.away.Leave(r.o.ID)
		return
	}
	together, aloud, first := r.e.away.Join(cause{cloud, e.Service, e.Kind}, r.o.ID)
	r.crowd = crowd{together, !aloud && (before.together == 0 || before.quiet), first || before.first}
}

// isShared reports whether a failure of a service is one of the service, or of the login to it,
// and not of what was asked for.
func isShared(k providers.Kind) bool {
	switch k {
	case providers.KindUnavailable, providers.KindUnknownOutcome, providers.KindThrottled, providers.KindUnauthenticated:
		return true
	case providers.KindUnknown, providers.KindNotFound, providers.KindInUse, providers.KindExists, providers.KindQuota, providers.KindDenied, providers.KindInvalid, providers.KindConflict:
	}
	return false
}

// tellFailed tells the log that the assignment failed: aloud, or, where others were told in its
// place, once for whoever looks for it.
func (r *run) tellFailed(state State, reason string) {
	level := slog.LevelError
	if state == StateFailed {
		quiet := slog.LevelDebug
		if r.crowd.first {
			quiet = slog.LevelInfo
		}
		level = r.crowd.level(level, quiet)
	}
	r.log.Log(context.Background(), level, "assignment "+string(state), "fingerprint", short(r.o.wants()), "reason", reason, "assignments", max(r.crowd.together, 1))
}
