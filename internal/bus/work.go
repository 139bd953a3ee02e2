package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Any is the place of work that every node can do. Work that touches a node's own
// files has that node's name as its place.
const Any = "any"

// Work is one look at an assignment that was asked for.
type Work struct {
	ID    ID     `json:"-"`
	Place string `json:"-"`
	// Trigger is why: file, nats, deadline, drift, policy, manual or startup.
	Trigger string `json:"trigger"`
	// Urgency says which of several triggers for one look counts: the highest, of those the
	// first.
	Urgency int  `json:"-"`
	Force   bool `json:"force,omitempty"`
	Confirm bool `json:"confirm,omitempty"`
	// By and Reason are who asks, and why, where somebody does.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Newest is when the last of the triggers came that this work answers.
	Newest time.Time `json:"newest,omitzero"`
	// Asked is when the first of the triggers came that this work answers, or the newest one
	// that forces: a worker tells by it whether it was done already.
	Asked time.Time `json:"asked"`
}

// Retry is returned by a worker that wants the message again soon: the journal's
// record belongs to somebody else, or a connection is gone. It is for seconds only;
// anything longer is remembered in the record.
type Retry struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (r *Retry) Error() string { return fmt.Sprintf("again in %s: %v", r.After, r.Err) }

// Unwrap returns the cause.
func (r *Retry) Unwrap() error { return r.Err }

var errOccupied = errors.New("the assignment is queued or being worked on")

// errCodeOccupied is JetStream's "maximum messages per subject exceeded": the server's
// refusal of a second message for an assignment.
const errCodeOccupied = 10077

const (
	// workAckWait is how long a worker may be silent before the server hands its
	// message to another: longer than a cluster needs for a new leader (4 to 8 s) and a
	// client for another server, so that a NATS node may die without a worker losing its
	// work, and no longer, since a dead worker's work waits for it. workBeat keeps a long
	// step alive; beatAgain is the pause after a heartbeat failed.
	workAckWait = 30 * time.Second
	workBeat    = 10 * time.Second
	beatAgain   = time.Second
	// fetchWait is the longest that a worker waits for a message before asking again. A
	// message counts as delivered when it was asked for, so that this is lost of its
	// workAckWait; what is left must be enough for a heartbeat.
	fetchWait = 15 * time.Second
	// fetchPulse is how often the server says meanwhile that it is still waiting too:
	// after a restart it is not.
	fetchPulse = 2 * time.Second
	// The embedded server is left alone for longer, for each word of it wakes half this process:
	// a connection to it does not die in silence, and after a restart it is asked anew at once.
	// Nobody else gets a message that is delivered while it is asked for.
	embeddedWait  = 5 * time.Minute
	embeddedPulse = 30 * time.Second
	maxNak        = 30 * time.Second
	// handBack is the pause before work comes again that this process still has in hand.
	handBack = time.Second
)

// offer puts work into the queue. errOccupied means that the server refused it.
func (b *Bus) offer(ctx context.Context, w Work) error {
	body, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode work: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	_, err = b.js.Publish(ctx, b.names.workFor(w.Place, w.ID), body)
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && int(api.ErrorCode) == errCodeOccupied {
		b.cfg.Meter.Message("work", "duplicate")
		return errOccupied
	}
	if err != nil {
		b.cfg.Meter.Message("work", "failed")
		return fmt.Errorf("offer work for %s: %w", w.ID, err)
	}
	b.cfg.Meter.Message("work", "published")
	return nil
}

// Work has the work of anybody and of this node done, by as many workers at each place as
// workers says at the time, until ctx ends and the last of them has finished. handle returns
// nil or an error that it has dealt with; a *Retry brings the message back. Its context ends,
// with ErrLost for a cause, when another daemon may have the work. done is called after each
// message that is finished for good, when the assignment's place in the queue is free again.
// Work returns early, with an error, when the server has lost the queue; Prepare makes it again.
func (b *Bus) Work(ctx context.Context, workers func() int, handle func(context.Context, Work) error, done func(ID)) error {
	var consumers []placed
	for _, place := range []string{Any, b.cfg.Node} {
		consumer, err := b.workConsumer(ctx, place)
		if err != nil {
			return fmt.Errorf("subscribe to work at %s: %w", place, err)
		}
		consumers = append(consumers, placed{consumer, b.isOurs(place)})
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	desk := &desk{handle: handle, done: done, inHand: map[ID]bool{}}
	var wg sync.WaitGroup
	for _, consumer := range consumers {
		wg.Go(func() { stop(b.attend(working, consumer, desk, workers)) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return context.Cause(working)
}

// placed is a consumer of work and whether nobody but this process works at its place.
type placed struct {
	jetstream.Consumer
	ours bool
}

// isOurs reports whether nobody but this process works at a place.
func (b *Bus) isOurs(place string) bool { return place == b.cfg.Node || b.server != nil }

// desk is what the workers of a process share.
type desk struct {
	handle func(context.Context, Work) error
	done   func(ID)

	mu sync.Mutex
	// inHand are the assignments that a worker of this process is at.
	inHand map[ID]bool
}

// take reports whether nobody here is at the assignment, and notes that now somebody is.
func (d *desk) take(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inHand[id] {
		return false
	}
	d.inHand[id] = true
	return true
}

func (d *desk) leave(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inHand, id)
}

// workConsumer subscribes to the work at a place. A place that no other node works at
// begins anew: what a worker that died held in its hands is then delivered at once,
// not after workAckWait. Should that worker live after all, a second process under
// this node's name, it loses its next journal write.
func (b *Bus) workConsumer(ctx context.Context, place string) (jetstream.Consumer, error) {
	name := workConsumer(place)
	if b.isOurs(place) {
		if err := b.js.DeleteConsumer(ctx, b.names.workStream(), name); err != nil && !isMissing(err) {
			return nil, err
		}
	}
	return b.js.CreateOrUpdateConsumer(ctx, b.names.workStream(), jetstream.ConsumerConfig{
		Durable:       name,
		Description:   "Work to be done at " + place,
		FilterSubject: b.names.workAt(place),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       workAckWait,
		MaxAckPending: -1,
	})
}

// attend hands the work at a place to workers. It asks for one message at a time, and only
// while a worker is free: a message that waits in a buffer would grow old while another node
// could work on it, and workers that each ask for themselves are heard from by the server
// every two seconds, however little there is to do. It returns when ctx ends, or with an error
// when its consumer is gone from the server, and the last worker has finished.
func (b *Bus) attend(ctx context.Context, consumer placed, desk *desk, workers func() int) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var busy atomic.Int64
	freed := make(chan struct{}, 1)
	for ctx.Err() == nil {
		if busy.Load() >= int64(workers()) {
			select {
			case <-freed:
			case <-ctx.Done():
			}
			continue
		}
		asked := time.Now()
		m, err := b.nextMessage(ctx, consumer)
		switch {
		case err == nil:
			busy.Add(1)
			wg.Go(func() {
				b.process(ctx, m, asked, consumer.ours, desk)
				busy.Add(-1)
				select {
				case freed <- struct{}{}:
				default:
				}
			})
		case errors.Is(err, nats.ErrTimeout), ctx.Err() != nil:
		default:
			b.log.Debug("waiting for work", "err", err)
			if err := gone(ctx, consumer); err != nil {
				return err
			}
			_ = pause(ctx, time.Second)
		}
	}
	return ctx.Err()
}

// gone says why a consumer will never deliver again, or nil if it may.
func gone(ctx context.Context, consumer jetstream.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	if _, err := consumer.Info(ctx); isMissing(err) {
		return fmt.Errorf("the server has lost consumer %s: %w", consumer.CachedInfo().Name, err)
	}
	return nil
}

func (b *Bus) nextMessage(ctx context.Context, consumer jetstream.Consumer) (jetstream.Msg, error) {
	longest, pulse := fetchWait, fetchPulse
	if b.server != nil {
		longest, pulse = embeddedWait, embeddedPulse
	}
	wait, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	defer b.fetches.add(cancel)()
	m, err := consumer.Next(jetstream.FetchContext(wait), jetstream.FetchHeartbeat(pulse))
	if err != nil && wait.Err() != nil {
		return nil, nats.ErrTimeout
	}
	return m, err
}

// process works on one message, which was asked for at a time, and answers it. The context
// that handle gets is not ended by a graceful stop: a step in flight is finished.
func (b *Bus) process(ctx context.Context, m jetstream.Msg, asked time.Time, ours bool, desk *desk) {
	id, err := b.names.parseWork(m.Subject())
	if err != nil {
		b.log.Error("work that nobody can do is dropped", "subject", m.Subject(), "err", err)
		b.finish(m)
		return
	}
	w := Work{ID: id}
	if err := json.Unmarshal(m.Data(), &w); err != nil {
		b.log.Warn("work with an unreadable body; looking anyway", "policy", id.Policy, "certificate", id.Certificate, "err", err)
	}
	l, held, ok := b.takeLease(context.WithoutCancel(ctx), m, asked, ours)
	if !ok {
		b.log.Info("work that came too late is left to others", "policy", id.Policy, "certificate", id.Certificate)
		return
	}
	defer l.stop()
	if !desk.take(id) {
		// The server gave up on the worker that is at it, as after a long outage.
		b.nak(m, id, handBack)
		return
	}
	err = desk.handle(held, w)
	desk.leave(id)
	again, retry := errors.AsType[*Retry](err)
	switch {
	case !l.held():
		// Whoever has the message now answers it; an answer of ours would count as theirs.
		b.cfg.Meter.Message("work", "failed")
		b.log.Warn("work was lost to others before it was done", "policy", id.Policy, "certificate", id.Certificate, "err", err)
	case retry:
		b.nak(m, id, again.After)
	default:
		b.finish(m)
		desk.done(id)
	}
}

// nak hands work back for a while.
func (b *Bus) nak(m jetstream.Msg, id ID, after time.Duration) {
	b.cfg.Meter.Message("work", "nak")
	if err := m.NakWithDelay(min(after, maxNak)); err != nil {
		b.log.Debug("work cannot be handed back; it comes again by itself", "policy", id.Policy, "certificate", id.Certificate, "err", err)
	}
}

// finish acknowledges and waits for the server's word, so that the assignment's next
// offer is not refused for this very message.
func (b *Bus) finish(m jetstream.Msg) {
	ctx, cancel := context.WithTimeout(context.Background(), connectWait)
	defer cancel()
	if err := m.DoubleAck(ctx); err != nil {
		b.cfg.Meter.Message("work", "failed")
		b.log.Debug("acknowledgement of work failed; it comes again", "subject", m.Subject(), "err", err)
		return
	}
	b.cfg.Meter.Message("work", "ack")
}
