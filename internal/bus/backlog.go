package bus

import (
	"context"
	"fmt"
	"time"
)

// Backlog is what waits on the server, and for whom.
type Backlog struct {
	// Depth is how many assignments are queued or being worked on in the whole cluster,
	// Oldest since when the oldest of them; zero where there is none.
	Depth  uint64
	Oldest time.Time
	// Consumers are those that this daemon uses, by the names of Consumers.
	Consumers map[string]Waiting
}

// Waiting is what a consumer has before it.
type Waiting struct {
	// Pending messages have not been delivered, AckPending have been and are not
	// acknowledged.
	Pending, AckPending uint64
}

// The consumers: triggers as this node hears them, work for any node, work for this one.
const (
	ConsumerTrigger  = "trigger"
	ConsumerWorkAny  = "work_any"
	ConsumerWorkNode = "work_node"
)

// Consumers are the names of all consumers.
func Consumers() []string { return []string{ConsumerTrigger, ConsumerWorkAny, ConsumerWorkNode} }

func workConsumer(place string) string { return "at-" + Token(place) }

func (b *Bus) triggerConsumer() string { return "node-" + Token(b.cfg.Node) }

// Backlog asks the server. A consumer that has not been made yet has nothing waiting.
func (b *Bus) Backlog(ctx context.Context) (Backlog, error) {
	work, err := b.js.Stream(ctx, b.workStream())
	if err != nil {
		return Backlog{}, fmt.Errorf("look at the work queue: %w", err)
	}
	state := work.CachedInfo().State
	backlog := Backlog{Depth: state.Msgs, Consumers: map[string]Waiting{}}
	if state.Msgs > 0 {
		backlog.Oldest = state.FirstTime
	}
	for name, at := range map[string]struct{ stream, durable string }{
		ConsumerTrigger:  {b.triggerStream(), b.triggerConsumer()},
		ConsumerWorkAny:  {b.workStream(), workConsumer(Any)},
		ConsumerWorkNode: {b.workStream(), workConsumer(b.cfg.Node)},
	} {
		consumer, err := b.js.Consumer(ctx, at.stream, at.durable)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return Backlog{}, fmt.Errorf("look at consumer %s: %w", at.durable, err)
		}
		info := consumer.CachedInfo()
		backlog.Consumers[name] = Waiting{Pending: info.NumPending, AckPending: uint64(max(info.NumAckPending, 0))}
	}
	return backlog, nil
}
