package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// PastEvent is an event as the stream keeps it.
type PastEvent struct {
	// Sequence is its place in the stream, the newest has the highest.
	Sequence uint64          `json:"-"`
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Subject  string          `json:"subject"`
	Source   string          `json:"source"`
	Time     time.Time       `json:"time"`
	Data     json.RawMessage `json:"data"`
}

const (
	// firstPast is how far the first look back goes, in messages of the stream; each further
	// one goes four times as far.
	firstPast = 2_000
	pastBatch = 500
	// A cluster has placed a consumer a moment before whoever leads it answers.
	placingTries = 50
	placingPause = 100 * time.Millisecond
)

// Past returns the newest events that match, newest first, of one policy or, for an empty
// name, of all, and at most limit of them.
func (b *Bus) Past(ctx context.Context, policy string, limit int, match func(PastEvent) bool) ([]PastEvent, error) {
	found, _, err := b.PastPage(ctx, PastPage{Policy: policy, Limit: limit}, match)
	return found, err
}

// PastPage is a part of the history.
type PastPage struct {
	// Policy is whose events are read; empty: everybody's.
	Policy string
	// Before is the sequence number that all of them come before; 0: the newest are the first.
	Before uint64
	Limit  int
	// Reach is how many events are looked through, about; 0: all there are.
	Reach int
}

// PastPage returns events that match, newest first, and where the next page begins; 0 when
// there is nothing older. A page that ends at its reach may hold less than its limit.
func (b *Bus) PastPage(ctx context.Context, page PastPage, match func(PastEvent) bool) (found []PastEvent, next uint64, err error) {
	stream, err := b.js.Stream(ctx, b.eventStream())
	if err != nil {
		return nil, 0, fmt.Errorf("look at the events: %w", err)
	}
	filter := b.eventsOf(page.Policy)
	state := stream.CachedInfo().State
	end, seen := state.LastSeq, 0
	if page.Before > 0 {
		end = min(end, page.Before-1)
	}
	for span := uint64(firstPast); end >= state.FirstSeq && end > 0 && len(found) < page.Limit; span *= 4 {
		if page.Reach > 0 && seen >= page.Reach {
			return found, end + 1, nil
		}
		start := max(state.FirstSeq, end-min(span, end)+1)
		part, err := readPast(ctx, stream, filter, start, end, func(e PastEvent) bool {
			seen++
			return match(e)
		})
		if err != nil {
			return nil, 0, fmt.Errorf("read the events: %w", err)
		}
		slices.Reverse(part)
		found = append(found, part...)
		end = start - 1
	}
	if len(found) > page.Limit {
		found = found[:page.Limit]
		return found, found[page.Limit-1].Sequence, nil
	}
	if end >= state.FirstSeq && end > 0 {
		return found, end + 1, nil
	}
	return found, 0, nil
}

// AllPast hands on every event that is kept, of one policy or, for an empty name, of all,
// oldest first. Those that come while it reads are not among them.
func (b *Bus) AllPast(ctx context.Context, policy string, handle func(PastEvent)) error {
	stream, err := b.js.Stream(ctx, b.eventStream())
	if err != nil {
		return fmt.Errorf("look at the events: %w", err)
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		return nil
	}
	_, err = readPast(ctx, stream, b.eventsOf(policy), state.FirstSeq, state.LastSeq, func(e PastEvent) bool {
		handle(e)
		return false
	})
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	return nil
}

// eventsOf are the subjects of a policy's events, or, for an empty name, of all.
func (b *Bus) eventsOf(policy string) string {
	if policy == "" {
		return b.events()
	}
	return b.event(Token(policy), "*")
}

// readPast reads the matching events between two sequence numbers, oldest first.
func readPast(ctx context.Context, stream jetstream.Stream, filter string, start, end uint64, match func(PastEvent) bool) (found []PastEvent, err error) {
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start,
	})
	if err != nil {
		return nil, err
	}
	for tries := 0; ; {
		batch, err := consumer.FetchNoWait(pastBatch)
		if err != nil {
			return nil, err
		}
		last := end                       // of an empty batch
		for m := range batch.Messages() { // to its end, or the library waits for ever
			facts, err := m.Metadata()
			if err != nil {
				continue // none of the stream's
			}
			last = facts.Sequence.Stream
			var e PastEvent
			if last > end || json.Unmarshal(m.Data(), &e) != nil {
				continue
			}
			if e.Sequence = last; match(e) {
				found = append(found, e)
			}
		}
		err = batch.Error()
		if errors.Is(err, nats.ErrNoResponders) && tries < placingTries && pause(ctx, placingPause) == nil {
			tries++
			continue
		}
		if err != nil && !errors.Is(err, nats.ErrTimeout) {
			return nil, err
		}
		if last >= end || ctx.Err() != nil {
			return found, ctx.Err()
		}
	}
}
