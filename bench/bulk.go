package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// bulkLatency is that of a call of a cloud that is not on the same machine.
const bulkLatency = 50 * time.Millisecond

// bulk replaces all certificates of an estate at once.
func bulk(ctx context.Context, b *bench, n int) error {
	one := func(p *pairs) map[string]string { return map[string]string{"all": fmt.Sprintf(firewall, p.root)} }
	if err := bulkWith(ctx, b, n, "one policy", flat, 0, one); err != nil {
		return err
	}
	if err := bulkWith(ctx, b, n, "one policy", flat, bulkLatency, one); err != nil {
		return err
	}
	if n > 1000 {
		return nil // nobody has as many policies, and a scrape has a hundred series for each
	}
	return bulkWith(ctx, b, n, "a policy each", directories, 0, func(p *pairs) map[string]string {
		all := map[string]string{}
		for i := range n {
			all[fmt.Sprintf("p%d", i)] = fmt.Sprintf("name: p%d\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\n", i, filepath.Join(p.root, host(i)), host(i))
		}
		return all
	})
}

type bulkFigures struct {
	wall, cpu, plainWall, plainCPU, ideal []float64
	perRotation                           []float64
	mix                                   mix
}

func bulkWith(ctx context.Context, b *bench, n int, name string, l layout, latency time.Duration, policies func(*pairs) map[string]string) (err error) {
	began := time.Now()
	e, err := newEstate(ctx, b, n, l, latency, policies)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	onboarded := time.Since(began).Seconds()
	first, total := e.calls(0)
	name = fmt.Sprintf("%s, %s a call: ", name, latency)
	f := &bulkFigures{}
	rounds := b.rounds
	if latency > 0 {
		rounds = 1 // what is measured is waiting
	}
	for range rounds {
		if err := bulkOnce(ctx, e, n, f); err != nil {
			return err
		}
	}
	figures := []figure{
		{Name: name + "first rotation, with generation and start", Unit: "s", Values: []float64{onboarded}},
		{Name: name + "first rotation, calls", Unit: "calls", Values: []float64{float64(total) / float64(n)}},
		{Name: name + "calls a rotation", Unit: "calls", Values: f.perRotation},
		{Name: name + "CPU of the daemon a rotation", Unit: "ms", Values: f.cpu, Limit: f.plainCPU, LimitName: "plain client and simulator"},
	}
	if latency == 0 {
		figures = append(figures, figure{Name: name + "calls a second", Unit: "1/s", Values: f.wall, Limit: f.plainWall, LimitName: "plain net/http", Goal: "0.5"})
	} else {
		figures = append(figures, figure{Name: name + "time", Unit: "s", Values: f.wall, Limit: f.ideal, LimitName: "calls x latency / concurrency", Goal: "1.15"})
	}
	if err := b.report.addAll(figures); err != nil {
		return err
	}
	return b.report.note("%s%s; first: %s", name, list(f.mix, n), list(first, n))
}

// list is calls by operation, a rotation.
func list(m mix, n int) string {
	var parts []string
	for _, operation := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %s", operation, short(float64(m[operation])/float64(n))))
	}
	return strings.Join(parts, ", ")
}

// bulkOnce replaces all pairs and waits for their convergence; then plain net/http makes the same calls.
func bulkOnce(ctx context.Context, e *estate, n int, f *bulkFigures) error {
	bundles, err := e.pairs.issueAll(ctx, n)
	if err != nil {
		return err
	}
	before := e.sim.Calls()
	e.restart()
	started := time.Now()
	var last time.Time
	cpu, err := e.daemon.during(func() error {
		for i, bundle := range bundles {
			if err := e.pairs.replace(bundle, host(i)); err != nil {
				return err
			}
		}
		last, err = e.await(ctx, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, e.daemon.log.String())
	}
	took := last.Sub(started).Seconds()
	byOperation, calls := e.calls(before)
	f.mix = byOperation
	f.perRotation = append(f.perRotation, float64(calls)/float64(n))
	f.cpu = append(f.cpu, cpu/float64(n)*1e3)
	if e.latency > 0 {
		f.wall = append(f.wall, took)
		f.ideal = append(f.ideal, float64(calls)*e.latency.Seconds()/concurrency)
		return nil
	}
	f.wall = append(f.wall, float64(calls)/took)
	return plainBulk(ctx, e, n, f)
}

// plainBulk has the plain client make the calls, in a cloud of its own.
func plainBulk(ctx context.Context, e *estate, n int, f *bulkFigures) (err error) {
	bundles, err := e.pairs.issueAll(ctx, n)
	if err != nil {
		return err
	}
	c, err := startCloud(ctx, filepath.Join(e.dir, "plain"), n, cloudsim.Config{Latency: e.latency})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.sim.Close()) }()
	p := newPlain(c)
	if err := p.rotate(ctx, bundles, mix{"CreateCertificate": n, "ApplyCertificateToHost": n}); err != nil { // so that there are as many as in the other
		return err
	}
	if bundles, err = e.pairs.issueAll(ctx, n); err != nil {
		return err
	}
	p.sent.Store(0)
	started := time.Now()
	cpu, err := ownCPU(func() error { return p.rotate(ctx, bundles, f.mix) })
	if err != nil {
		return err
	}
	f.plainWall = append(f.plainWall, float64(p.sent.Load())/time.Since(started).Seconds())
	f.plainCPU = append(f.plainCPU, cpu/float64(n)*1e3)
	return nil
}

// issueAll makes another version of all certificates.
func (p *pairs) issueAll(ctx context.Context, n int) ([]*certs.Bundle, error) {
	bundles := make([]*certs.Bundle, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for i := range n {
		group.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			bundles[i], err = p.issue(i)
			return err
		})
	}
	return bundles, group.Wait()
}
