package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	// fleetLatency and fleetConcurrency make the calls of one daemon the bottleneck, and not the machine that all of them,
	// the cloud and NATS share.
	fleetLatency     = 50 * time.Millisecond
	fleetConcurrency = 4
)

// issued is a policy that any daemon can work for: the cloud keeps the key.
const issued = `name: p%d
source: {private_ca: {issuer_id: %s, common_name: %s, key: {algorithm: EC256, held: cloud}, validity: 90d, extended_key_usages: [server_auth]}}
targets: [{name: edge, waf: {hosts: [%[3]s]}}]
`

// fleet has several daemons share one queue: each has the same policies, a certificate of the private CA for each host.
func fleet(ctx context.Context, b *bench, n int) error {
	var alone float64
	for _, daemons := range []int{1, 2, 4} {
		perSecond, cpu, busy, err := fleetOf(ctx, b, n, daemons)
		if err != nil {
			return err
		}
		figures := []figure{
			{Name: fmt.Sprintf("%d daemons: rotations a second", daemons), Unit: "1/s", Values: []float64{perSecond}},
			{Name: fmt.Sprintf("%d daemons: CPU of all daemons a rotation", daemons), Unit: "ms", Values: []float64{cpu * 1e3 / float64(n)}},
			{Name: fmt.Sprintf("%d daemons: processors busy, with cloud and NATS", daemons), Unit: "", Values: []float64{busy}},
		}
		if daemons == 1 {
			alone = perSecond
		} else {
			goal := map[int]string{2: "1.8", 4: "3.2"}[daemons]
			figures[0].Limit, figures[0].LimitName, figures[0].Goal = []float64{alone}, "one daemon", goal
		}
		if err := b.report.addAll(figures); err != nil {
			return err
		}
	}
	return nil
}

// fleetOf runs them until all has converged. cpu is what the daemons used, busy how many processors they, the cloud and NATS took.
func fleetOf(ctx context.Context, b *bench, n, daemons int) (perSecond, cpu, busy float64, err error) {
	c, err := startCloud(ctx, filepath.Join(b.dir, "cloud"), n, cloudsim.Config{Latency: fleetLatency})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, c.sim.Close()) }()
	raw, err := startRaw(ctx, filepath.Join(b.dir, fmt.Sprintf("nats-%d", daemons)))
	if err != nil {
		return 0, 0, 0, err
	}
	defer raw.close()
	l, err := listen(raw.server.Addr().String())
	if err != nil {
		return 0, 0, 0, err
	}
	defer l.conn.Close()
	authorities := c.sim.Authorities()
	policies := map[string]string{}
	for i := range n {
		policies[fmt.Sprintf("p%d", i)] = fmt.Sprintf(issued, i, authorities[len(authorities)-1].ID, host(i))
	}
	all := make([]*process, daemons)
	extra := c.yaml(fleetConcurrency) + fmt.Sprintf("nats: {url: %q}\n", raw.server.ClientURL())
	own, err := usage()
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() {
		for _, d := range all {
			if d != nil {
				err = errors.Join(err, d.stop())
			}
		}
	}()
	var starting errgroup.Group // without a context: a daemon outlives its start
	for i := range all {
		starting.Go(func() error {
			dir, err := home(filepath.Join(b.dir, fmt.Sprintf("node%d", i)), policies)
			if err == nil {
				all[i], err = b.daemonNamed(ctx, dir, fmt.Sprintf("node-%d", i), extra)
			}
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		return 0, 0, 0, err
	}
	last, err := l.await(ctx, n)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, d := range all {
		used, err := d.cpu()
		if err != nil {
			return 0, 0, 0, err
		}
		cpu += used
	}
	now, err := usage()
	if err != nil {
		return 0, 0, 0, err
	}
	first := c.sim.LedgerAfter(0)[0].Time
	took := last.Sub(first).Seconds()
	return float64(n) / took, cpu, (cpu + (now - own).Seconds()) / took, nil
}
