package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/rotation"
)

func (d *daemon) beats() {
	now := time.Now()
	d.beat.Store(&now)
	d.metrics.Beat(now)
}

// alive says nil while the scheduler makes progress.
func (d *daemon) alive() error {
	last := d.beat.Load()
	if last == nil {
		return nil
	}
	if age := time.Since(*last); age > staleBeat {
		return fmt.Errorf("the scheduler has made no progress for %s", age.Round(time.Second))
	}
	return nil
}

// ready tells the state of each component.
func (d *daemon) ready() []admin.Component {
	components := []admin.Component{{Name: "configuration"}, {Name: "nats", Reason: reasonOf(d.bus.Ready())}, {Name: "journal"}, {Name: "sources"}}
	if !d.replayed.Load() {
		components[2].Reason = "the journal has not been read yet"
	}
	var scanning []string
	for name, p := range d.inForce().parts {
		if p.watcher != nil && !p.watcher.Snapshot().Ready {
			scanning = append(scanning, name)
		}
	}
	if slices.Sort(scanning); len(scanning) > 0 {
		components[3].Reason = "the first scan is not done of " + strings.Join(scanning, ", ")
	}
	return components
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// look gathers what the gauges show besides the assignments.
func (d *daemon) look() metrics.Look {
	l := metrics.Look{NATSConnected: d.bus.Connected()}
	now := time.Now()
	inForce := d.inForce()
	for _, p := range inForce.set.Policies {
		part := inForce.parts[p.Name]
		l.Policies = append(l.Policies, metrics.Policy{Name: p.Name, Paused: d.records.hold(p.Name).Holds(now)})
		names := part.source.names()
		source := metrics.Source{Kind: p.Source.Kind(), Policy: p.Name, Certificates: len(names)}
		if part.watcher != nil {
			source.Snapshot = part.watcher.Snapshot()
		}
		if p.Source.Issues() {
			source.Issuing = new(rotation.Issuing)
			if record := d.records.peek(rotation.ID{Policy: p.Name, Certificate: names[0]}); record != nil {
				source.Issuing = &record.Issuing
			}
		}
		l.Sources = append(l.Sources, source)
	}
	l.WorkWaiting, l.WorkWaitingSince = d.queue.Waiting()
	if l.NATSConnected && d.replayed.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), askQueue)
		defer cancel()
		if backlog, err := d.bus.Backlog(ctx); err == nil {
			l.QueueDepth, l.QueueOldest, l.Consumers = backlog.Depth, backlog.Oldest, map[string]metrics.Consumer{}
			for name, w := range backlog.Consumers {
				l.Consumers[name] = metrics.Consumer(w)
			}
		}
	}
	return l
}

// events publishes the engine's events on the bus.
type events struct{ d *daemon }

// Publish implements rotation.Events.
func (e events) Publish(ctx context.Context, event rotation.Event) error {
	return e.d.bus.Publish(ctx, bus.Event{
		ID: event.ID, Kind: string(event.Kind), Policy: event.Data.Policy,
		Subject: event.Subject(), Time: event.Time, Data: event.Data,
	})
}
