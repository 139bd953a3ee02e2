package bus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/repeat"
)

const (
	triggerAge = 7 * 24 * time.Hour
	// triggerBytes bounds what somebody who may publish can make the server keep.
	triggerBytes = 64 << 20
	// eventBytes bounds the history besides its age.
	eventBytes = 1 << 30
	// eventWindow is how long a repeated event id is recognised: longer than any
	// restart takes.
	eventWindow = time.Hour
	maxTrigger  = 64 << 10
	// lookWait bounds a look at what is on the server. A cluster does not answer at all
	// for a stream that another daemon is just making.
	lookWait = 2 * time.Second
	// retryPrepare is the pause between two attempts to reach the streams.
	retryPrepare = time.Second
)

// Prepare makes the streams that are missing and checks those that are there. While
// the server cannot be reached it waits and tries again, until ctx ends; a stream that
// is there with settings that cannot work is logged and tried again too, since only
// the server's operator can mend it, and may do so at any time.
func (b *Bus) Prepare(ctx context.Context) error {
	var failure repeat.Failure
	for {
		err := b.prepareOnce(ctx)
		if err == nil {
			b.prepared.Store(true)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.unprepared.Store(&err)
		reason := shortReason(err)
		if times, tell := failure.Met(reason); tell {
			b.log.Warn("nats streams are not ready; trying again", "times", times, "err", reason)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPrepare):
		}
	}
}

func (b *Bus) prepareOnce(ctx context.Context) error {
	if !b.Connected() {
		return b.notConnected()
	}
	if err := outdated(b.conn.ConnectedServerVersion()); err != nil {
		return err
	}
	for _, want := range []jetstream.StreamConfig{b.triggerConfig(), b.workConfig(), b.eventConfig()} {
		err := b.prepareStream(ctx, want)
		if errors.Is(err, nats.ErrNoResponders) {
			return errors.New("JetStream does not answer; is it enabled on the server, and for this user's account?")
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", want.Name, err)
		}
	}
	return nil
}

// triggerSubjects are all subjects on which triggers and acknowledgements come, each once.
func (b *Bus) triggerSubjects() []string {
	b.subjectsMu.RLock()
	defer b.subjectsMu.RUnlock()
	return union([]string{b.names.triggers(), b.names.acknowledgements()}, b.subjects)
}

// SetSubjects changes the trigger subjects besides <Prefix>.trigger.<policy>. If the server
// refuses them, as those of another stream, nothing changes and the error says why. A server
// that does not answer is no error: Prepare asks for them when it is back. Subjects that nobody
// needs any more stay with the stream, since daemons with other policies share it.
func (b *Bus) SetSubjects(ctx context.Context, subjects []string) error {
	before := b.swapSubjects(subjects)
	if slices.Equal(before, subjects) {
		return nil
	}
	if b.store != nil && b.cfg.Listener != nil {
		b.store.restart() // what local publishers may do is part of its options
	}
	err := b.prepareOnce(ctx)
	// A server of ours that has just been restarted answers in a moment.
	for end := time.Now().Add(connectWait); b.store != nil && err != nil && refusal(err) == nil && time.Now().Before(end) && pause(ctx, 20*time.Millisecond) == nil; {
		err = b.prepareOnce(ctx)
	}
	if api := refusal(err); api != nil {
		b.swapSubjects(before)
		if b.store != nil && b.cfg.Listener != nil {
			b.store.restart()
		}
		return fmt.Errorf("listen to %s: %w", strings.Join(subjects, ", "), api)
	}
	if err != nil {
		b.log.Warn("the subjects of triggers are changed when NATS answers", "err", err)
		b.prepared.Store(false)
	}
	return nil
}

// refusal is the server's no, nil where it gave none: a server that cannot now, as one whose
// cluster has no leader, refuses nothing.
func refusal(err error) *jetstream.APIError {
	if api, answered := errors.AsType[*jetstream.APIError](err); answered && api.Code != http.StatusServiceUnavailable {
		return api
	}
	return nil
}

func (b *Bus) swapSubjects(subjects []string) (before []string) {
	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	before, b.subjects = b.subjects, subjects
	return before
}

func (b *Bus) triggerConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        b.names.triggerStream(),
		Description: "Triggers for rotatord: reasons to look at certificates again",
		Subjects:    b.triggerSubjects(),
		Retention:   jetstream.LimitsPolicy,
		MaxAge:      triggerAge,
		MaxBytes:    triggerBytes,
		MaxMsgSize:  maxTrigger,
		Replicas:    b.Replicas(),
	}
}

// workConfig is the queue whose server-side refusal is rotatord's only lock.
func (b *Bus) workConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                 b.names.workStream(),
		Description:          "Work of rotatord: at most one message for each assignment",
		Subjects:             []string{b.names.work()},
		Retention:            jetstream.WorkQueuePolicy,
		MaxMsgsPerSubject:    1,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		Replicas:             b.Replicas(),
	}
}

func (b *Bus) eventConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        b.names.eventStream(),
		Description: "Events of rotatord, CloudEvents 1.0",
		Subjects:    []string{b.names.events()},
		Retention:   jetstream.LimitsPolicy,
		MaxAge:      b.cfg.EventAge,
		MaxBytes:    eventBytes,
		Duplicates:  eventWindow,
		Replicas:    b.Replicas(),
	}
}

func (b *Bus) prepareStream(ctx context.Context, want jetstream.StreamConfig) error {
	looking, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	stream, err := b.js.Stream(looking, want.Name)
	ctx, cancel = context.WithTimeout(ctx, connectWait)
	defer cancel()
	if isMissing(err) {
		if _, err = b.js.CreateStream(ctx, want); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		b.log.Info("nats stream created", "stream", want.Name, "subjects", want.Subjects)
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up: %w", err)
	}
	have := stream.CachedInfo().Config
	if problem := unusable(have, want); problem != "" {
		return fmt.Errorf("is there already, and %s", problem)
	}
	if !missingSubjects(have.Subjects, want.Subjects) && have.MaxAge == want.MaxAge {
		return nil
	}
	have.MaxAge = want.MaxAge
	// Daemons with other policies share the stream: their subjects stay.
	have.Subjects = union(have.Subjects, want.Subjects)
	if _, err := b.js.UpdateStream(ctx, have); err != nil {
		return fmt.Errorf("change subjects or age: %w", err)
	}
	return nil
}

// unusable says which setting of a stream that is there breaks what rotatord builds
// on, or "".
func unusable(have, want jetstream.StreamConfig) string {
	switch {
	case have.Retention != want.Retention:
		return fmt.Sprintf("its retention is %s, not %s", have.Retention, want.Retention)
	case want.DiscardNewPerSubject && (have.MaxMsgsPerSubject != 1 || have.Discard != jetstream.DiscardNew || !have.DiscardNewPerSubject):
		return "it does not refuse a second message of a subject (max_msgs_per_subject 1, discard new, discard_new_per_subject)"
	case have.Storage != jetstream.FileStorage:
		return "it is kept in memory only"
	}
	return ""
}

func missingSubjects(have, want []string) bool {
	return slices.ContainsFunc(want, func(s string) bool { return !slices.ContainsFunc(have, func(h string) bool { return covers(h, s) }) })
}

// union drops what another subject covers: the server refuses subjects that overlap.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		return slices.ContainsFunc(all, func(other string) bool { return other != s && covers(other, s) })
	})
}

// covers reports whether the subject pattern matches everything that s matches.
func covers(pattern, s string) bool {
	p, t := strings.Split(pattern, "."), strings.Split(s, ".")
	for i, part := range p {
		switch {
		case part == ">":
			return len(t) > i
		case i >= len(t):
			return false
		case part != "*" && part != t[i]:
			return false
		case part == "*" && t[i] == ">":
			return false
		}
	}
	return len(p) == len(t)
}
