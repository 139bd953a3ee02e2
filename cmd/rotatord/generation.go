package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/watcher"
)

// generation is a configuration with everything that was built for it. It does not change;
// a reload builds another and swaps the two.
type generation struct {
	set    *policy.Set
	parts  map[string]*part
	wiring *wiring
}

// build makes a generation. What is the same as in the one before, nil for none, is taken
// over as it runs: watchers with what they have seen, clients with their logins, limits and
// circuits. Nothing new runs yet.
func (d *daemon) build(set *policy.Set, before *generation) (*generation, error) {
	g := &generation{set: set, parts: map[string]*part{}, wiring: newWiring(set, d.metrics, d.log)}
	g.wiring.skew = func(ahead time.Duration) { d.skew.Store(int64(ahead)) }
	g.wiring.quota = func(at holder, q quota) { d.quotas.Store(at, q) }
	g.wiring.back = d.cloudBack
	if before != nil {
		g.wiring.takeOver(before.wiring)
	}
	for _, p := range set.Policies {
		if before != nil && g.unchanged(p, before) {
			g.parts[p.Name] = before.parts[p.Name]
			continue
		}
		part, err := g.wiring.part(p, func(c watcher.Change) { d.sourceChanged(p.Name, c) })
		if err != nil {
			return nil, err
		}
		g.parts[p.Name] = part
	}
	return g, nil
}

// unchanged reports whether a policy, and all that was built for it, is as it was before.
func (g *generation) unchanged(p *policy.Policy, before *generation) bool {
	old, ok := before.parts[p.Name]
	if !ok || !old.assembly.Policy.SameRules(p) {
		return false
	}
	for _, cloud := range p.Clouds() {
		if g.wiring.clients[cloud] == nil || g.wiring.clients[cloud] != before.wiring.clients[cloud] {
			return false
		}
	}
	if dir := p.Source.Directory; dir != nil {
		password, err := secretBytes(dir.KeyPasswordFile)
		return err == nil && bytes.Equal(password, old.keyPassword)
	}
	return true
}

// start runs what the generation has and the one before had not.
func (d *daemon) start(ctx context.Context, g, before *generation) {
	for name, p := range g.parts {
		if p.watcher == nil || before != nil && before.parts[name] == p {
			continue
		}
		running, stop := context.WithCancel(ctx)
		p.stop, p.ended = stop, running.Done()
		d.group.Go(func() error {
			defer stop()
			return orStopped(running, p.watcher.Run(running))
		})
	}
}

// dismiss ends what the generation had and the one that is in force now has not.
func (g *generation) dismiss(now *generation) {
	for name, p := range g.parts {
		if p.stop != nil && now.parts[name] != p {
			p.stop()
		}
	}
}

// awaitScans returns when every directory has been looked at once, or was dismissed: before
// that, nothing can be told from nothing. It reports false if ctx ended first.
func (g *generation) awaitScans(ctx context.Context) bool {
	for _, p := range g.parts {
		if p.watcher == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.watcher.Ready():
		case <-p.ended:
		}
	}
	return ctx.Err() == nil
}

// subjects are the trigger subjects of all policies besides their own.
func (g *generation) subjects() []string {
	var all []string
	for _, p := range g.set.Policies {
		all = append(all, p.When.Subjects...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// takeOver keeps the clients of the clouds that are as they were, and what is shared through
// them.
func (w *wiring) takeOver(before *wiring) {
	w.authorities, w.gateways, w.events = before.authorities, before.gateways, before.events
	for name, client := range before.clients {
		spec, ok := w.set.Config.Clouds[name]
		if ok && reflect.DeepEqual(spec, before.set.Config.Clouds[name]) && bytes.Equal(before.roots[name], fileContents(spec.CAFile)) {
			w.clients[name], w.roots[name] = client, before.roots[name]
		}
	}
	for shared, target := range before.wafs {
		if w.clients[shared.cloud] == nil {
			continue
		}
		w.wafs[shared] = target
		if l, ok := before.listings[target]; ok {
			w.listings[target] = l
		}
	}
}

// fileContents is what a file holds, for telling whether it changed; nil if it cannot be read.
func fileContents(path string) []byte {
	if path == "" {
		return nil
	}
	data, _ := os.ReadFile(path)
	return data
}

// names are the generation's policies, sorted.
func (g *generation) names() []string { return slices.Sorted(maps.Keys(g.parts)) }
