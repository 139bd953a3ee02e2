package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// least is the shortest drift.every that a policy may have.
const least = 10 * time.Second

// drift compares everything that is served with what is wanted: because somebody asks, which reads each
// assignment, and as it is done regularly, with lists. Nothing has changed.
func drift(ctx context.Context, b *bench, n int) (err error) {
	var policy string
	e, err := newEstate(ctx, b, n, flat, 0, func(p *pairs) map[string]string {
		policy = fmt.Sprintf(firewall, p.root)
		return map[string]string{"all": policy}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	p, every := newPlain(e.cloud), max(b.window, least)
	var asked, plain, regular compared
	var byOperation mix
	for range b.rounds {
		byOperation, err = e.compare(ctx, &asked, func() error { return e.conn.Publish("rotatord.trigger.all", nil) })
		if err != nil {
			return err
		}
		started := time.Now()
		used, err := ownCPU(func() error { return p.read(ctx, n, byOperation) })
		if err != nil {
			return err
		}
		plain.add(time.Since(started), used, 0)
	}
	// A policy that changed is looked at as if somebody had asked; the next comparison is a regular one.
	often := policy + fmt.Sprintf("drift: {every: %s}\n", every)
	if _, err := e.compare(ctx, &compared{}, func() error { return e.daemon.reload(e.home, "all", often) }); err != nil {
		return err
	}
	byList, err := e.compare(ctx, &regular, func() error { return nil })
	if err != nil {
		return err
	}
	if err := b.report.addAll([]figure{
		{Name: "all compared, asked", Unit: "s", Values: asked.wall, Limit: plain.wall, LimitName: "the same reads by plain net/http"},
		{Name: "all compared, asked, CPU", Unit: "s", Values: asked.cpu, Limit: plain.cpu, LimitName: "plain client and simulator"},
		{Name: "all compared, asked, calls", Unit: "calls", Values: asked.calls},
		{Name: "all compared, regularly, CPU", Unit: "s", Values: regular.cpu, Limit: asked.cpu, LimitName: "asked"},
		{Name: "all compared, regularly, calls", Unit: "calls", Values: regular.calls, Limit: []float64{float64(n+99) / 100}, LimitName: "the list once"},
	}); err != nil {
		return err
	}
	return b.report.note("a certificate, asked: %s; regularly: %s", list(byOperation, n), list(byList, n))
}

// compared is what comparisons took.
type compared struct{ wall, cpu, calls []float64 }

func (c *compared) add(wall time.Duration, cpu float64, calls int) {
	c.wall, c.cpu, c.calls = append(c.wall, wall.Seconds()), append(c.cpu, cpu), append(c.calls, float64(calls))
}

// compare measures from an occasion until there has been no call for a while.
func (e *estate) compare(ctx context.Context, c *compared, occasion func() error) (mix, error) {
	before, started := e.sim.Calls(), time.Now()
	var last time.Time
	used, err := e.daemon.during(func() (err error) {
		if err := occasion(); err != nil {
			return err
		}
		last, err = e.awaitQuiet(ctx, before)
		return err
	})
	if err != nil {
		return nil, err
	}
	byOperation, total := e.calls(before)
	c.add(last.Sub(started), used, total)
	return byOperation, nil
}

// awaitQuiet returns when there has been no call for a while, with the time of the last one.
func (e *estate) awaitQuiet(ctx context.Context, before int) (time.Time, error) {
	const quiet = 3 * time.Second
	last, at := before, time.Now()
	for last == before || time.Since(at) < quiet {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return at, err
		}
		if now := e.sim.Calls(); now > last {
			last, at = now, time.Now()
		}
		if time.Since(at) > 3*time.Minute {
			return at, fmt.Errorf("%d calls, and no more come\n%s", last-before, e.daemon.log.String())
		}
	}
	return at, nil
}

// read makes as many reads of each operation as the mix has.
func (p *plain) read(ctx context.Context, n int, m mix) error {
	ids := make([]string, n)
	for i, h := range p.sim.Hosts() {
		if i < n {
			ids[i] = h.CertificateID
		}
	}
	return p.each(ctx, n, func(ctx context.Context, i int) error {
		for operation := range m {
			if err := p.reads(ctx, operation, m.share(operation, i, n), p.hosts[host(i)], ids[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
