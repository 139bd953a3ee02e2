package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	simulatedKey = "ROTATORDBENCH"
	// concurrency is how many calls of one service a daemon may have under way.
	concurrency = 16
	// patience bounds a wait for the daemon to have done all its work.
	patience = time.Hour
)

// cloud is a simulated account in this process, behind real TLS, with a host for each of n certificates.
type cloud struct {
	sim     *cloudsim.Sim
	latency time.Duration
	dir     string
}

// startCloud starts one with what cfg says besides.
func startCloud(ctx context.Context, dir string, n int, cfg cloudsim.Config) (*cloud, error) {
	cfg.AccessKey, cfg.SecretKey = simulatedKey, rand.Text()
	cfg.CertificateQuota, cfg.PrivateCertificateQuota = -1, 10_000_000
	cfg.Authorities = []cloudsim.Authority{{CommonName: "Bench Root"}, {CommonName: "Bench CA", Parent: "Bench Root"}}
	for i := range n {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: host(i)})
	}
	sim, err := cloudsim.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := sim.Start(ctx); err != nil {
		return nil, err
	}
	c := &cloud{sim: sim, latency: cfg.Latency, dir: dir}
	err = errors.Join(os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "secret"), []byte(cfg.SecretKey), 0o600),
		os.WriteFile(filepath.Join(dir, "ca.pem"), sim.CAPEM(), 0o600))
	if err != nil {
		return nil, errors.Join(err, sim.Close())
	}
	return c, nil
}

// yaml is the cloud as a configuration has it: nothing but the concurrency holds calls back, and no mass change is stopped.
func (c *cloud) yaml(concurrency int) string {
	cfg := c.sim.Config()
	return fmt.Sprintf(`clouds:
  default:
    region: %s
    project_id: %s
    auth: {access_key: {id: %s, secret_file: %s}}
    endpoints: {iam: "%[5]s", waf: "%[5]s", ccm: "%[5]s"}
    ca_file: %[6]s
    limits: {waf: &all {rate: 100000, burst: 1000, concurrency: %[7]d}, ccm: *all}
brake: {max_share: 99.9999%%, max_per_hour: 100000000}
`, cfg.Region, cfg.ProjectID, cfg.AccessKey, filepath.Join(c.dir, "secret"), c.sim.URL(), filepath.Join(c.dir, "ca.pem"), concurrency)
}

// calls counts the calls since there were so many, by operation.
func (c *cloud) calls(after int) (byOperation map[string]int, total int) {
	byOperation = map[string]int{}
	for _, e := range c.sim.LedgerAfter(after) {
		byOperation[e.Operation]++
		total++
	}
	return byOperation, total
}

// freeAddress is one on loopback that nobody listens at.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// listener counts the certificates that a daemon says have converged.
type listener struct {
	conn *nats.Conn

	mu    sync.Mutex
	since time.Time
	done  map[string]time.Time // by policy and certificate
	more  chan struct{}
}

// listen connects to the NATS of a daemon.
func listen(address string) (*listener, error) {
	conn, err := nats.Connect("nats://" + address)
	if err != nil {
		return nil, err
	}
	l := &listener{conn: conn, done: map[string]time.Time{}, more: make(chan struct{}, 1)}
	sub, err := conn.Subscribe("rotatord.event.*.converged", l.hear)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, errors.Join(sub.SetPendingLimits(-1, -1), conn.Flush())
}

func (l *listener) hear(m *nats.Msg) {
	var event struct {
		Subject string    `json:"subject"`
		Time    time.Time `json:"time"`
	}
	if json.Unmarshal(m.Data, &event) != nil {
		return // the wait for it will tell
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if event.Time.Before(l.since) {
		return
	}
	l.done[event.Subject] = time.Now()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// restart forgets what was heard: from now on everything is to converge anew.
func (l *listener) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.done)
	l.since = time.Now()
}

// await returns when n certificates have converged since restart, and when the last of them was heard of.
func (l *listener) await(ctx context.Context, n int) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		l.mu.Lock()
		have := len(l.done)
		for _, at := range l.done {
			if at.After(last) {
				last = at
			}
		}
		l.mu.Unlock()
		if have >= n {
			return last, nil
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d have converged: %w", have, n, ctx.Err())
		}
		// Ten thousand events are not worth ten thousand counts of ten thousand.
		if n-have > 100 {
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return last, err
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// estate is a daemon over pairs, hosts for them in a simulated cloud, and somebody who listens.
type estate struct {
	*cloud
	*listener
	daemon *process
	home   string // the directory of the daemon
	pairs  *pairs
	n      int
}

// firewall is a policy for the pairs in a directory; the targets are found by the names of the certificates.
const firewall = "name: all\nsource: {directory: {path: %s, recursive: true}}\ntargets: [{name: edge, waf: {hosts: covered}}]\n"

// newEstate starts it. It is over when all of the first rotation has converged.
func newEstate(ctx context.Context, b *bench, n int, l layout, latency time.Duration, policies func(*pairs) map[string]string) (_ *estate, err error) {
	e := &estate{n: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if e.pairs, err = generate(ctx, filepath.Join(b.dir, "pairs"), n, l); err != nil {
		return nil, err
	}
	if e.cloud, err = startCloud(ctx, filepath.Join(b.dir, "cloud"), n, cloudsim.Config{Latency: latency}); err != nil {
		return nil, err
	}
	if e.home, err = home(b.dir, policies(e.pairs)); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if e.daemon, err = b.daemon(ctx, e.home, e.yaml(concurrency)+fmt.Sprintf("nats: {embedded: {listen: %q}}\n", address)); err != nil {
		return nil, err
	}
	if e.listener, err = listen(address); err != nil {
		return nil, err
	}
	return e, e.awaitRest(ctx)
}

// awaitRest returns when the daemon says that all are converged; the first events may have been before anybody listened.
func (e *estate) awaitRest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := e.daemon.scrape(ctx)
		if err != nil {
			return err
		}
		n := s.converged()
		if n >= e.n {
			return nil
		}
		// A scrape of ten thousand that change costs a tenth of a second: it is not to be measured.
		if err := pause(ctx, max(200*time.Millisecond, time.Duration(e.n)*time.Millisecond/2)); err != nil {
			return fmt.Errorf("%d of %d are at rest: %w\n%s", n, e.n, err, e.daemon.log.String())
		}
	}
}

func (e *estate) close() (err error) {
	if e.listener != nil {
		e.conn.Close()
	}
	if e.daemon != nil {
		err = errors.Join(err, e.daemon.stop())
	}
	if e.cloud != nil {
		err = errors.Join(err, e.sim.Close())
	}
	return err
}

// converged counts the certificates that a scrape says are where they should be.
func (s *scrape) converged() (n int) {
	for line := range bytes.Lines(s.text) {
		if bytes.HasPrefix(line, []byte("rotatord_assignment_state{")) && bytes.Contains(line, []byte(`state="converged"} 1`)) {
			n++
		}
	}
	return n
}
