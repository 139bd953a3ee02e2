package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drift compares everything that is served with what is wanted, once; nothing has changed.
func drift(ctx context.Context, b *bench, n int) (err error) {
	e, err := newEstate(ctx, b, n, 0, func(p *pairs) map[string]string { return map[string]string{"all": fmt.Sprintf(firewall, p.root)} })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	p := newPlain(e.cloud)
	var wall, cpu, calls, plainWall, plainCPU []float64
	var byOperation mix
	for range b.rounds {
		before := e.sim.Calls()
		started := time.Now()
		var last time.Time
		used, err := e.daemon.during(func() (err error) {
			last, err = e.compare(ctx, n)
			return err
		})
		if err != nil {
			return err
		}
		took := last.Sub(started).Seconds()
		var total int
		byOperation, total = e.calls(before)
		wall, cpu, calls = append(wall, took), append(cpu, used), append(calls, float64(total))
		started = time.Now()
		if used, err = ownCPU(func() error { return p.read(ctx, n, byOperation) }); err != nil {
			return err
		}
		plainWall, plainCPU = append(plainWall, time.Since(started).Seconds()), append(plainCPU, used)
	}
	if err := b.report.addAll([]figure{
		{Name: "one comparison of all", Unit: "s", Values: wall, Limit: plainWall, LimitName: "the same reads by plain net/http"},
		{Name: "one comparison of all, CPU", Unit: "s", Values: cpu, Limit: plainCPU, LimitName: "plain client and simulator"},
		{Name: "one comparison of all, calls", Unit: "calls", Values: calls, Limit: []float64{float64(3*n+99) / 100}, LimitName: "each list once"},
	}); err != nil {
		return err
	}
	return b.report.note("a certificate: %s", list(byOperation, n))
}

// compare asks for a comparison, and returns when there has been no call for a while, with the time of the last one.
func (e *estate) compare(ctx context.Context, n int) (time.Time, error) {
	before := e.sim.Calls()
	if err := e.conn.Publish("rotatord.trigger.all", nil); err != nil {
		return time.Time{}, err
	}
	const quiet = 500 * time.Millisecond
	last, at := before, time.Now()
	for last == before || time.Since(at) < quiet {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return at, err
		}
		if now := e.sim.Calls(); now > last {
			last, at = now, time.Now()
		}
		if time.Since(at) > time.Minute {
			return at, fmt.Errorf("%d calls for %d certificates, and no more come\n%s", last-before, n, e.daemon.log.String())
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
