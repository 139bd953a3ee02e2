package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
)

// policyText is a policy as people write them: a certbot lineage that goes to nginx.
const policyText = `# The certificate of %[1]s.
name: %[2]s
source:
  directory:
    path: %[3]s
    match: {dns_names: ["%[1]s"]}
targets:
  - name: nginx
    file: {directory: %[4]s, full_chain: fullchain.pem, key: privkey.pem}
when:
  on: [file, nats, drift]
  splay: 1s
guard: {min_remaining: 7d, allow_issuer_change: true}
retain: {superseded: 1, for: 72h}
drift: {every: 1h, action: repair}
`

// policies checks n policies, and plans them: first from the files alone, then, when a daemon has done all that
// there was to do, by asking it.
func policies(ctx context.Context, b *bench, n int) error {
	dir, err := b.manyPolicies(ctx, n)
	if err != nil {
		return err
	}
	var check, offline, asked commandFigures
	var read, readCPU []float64
	// The commands need a configuration; the daemon's is the same.
	config := filepath.Join(dir, "rotatord.yaml")
	if err := os.WriteFile(config, []byte("state: state\nnode: bench\n"), 0o600); err != nil {
		return err
	}
	for range b.rounds {
		started := time.Now()
		cpu, err := ownCPU(func() error { return decodeAll(filepath.Join(dir, "policies")) })
		if err != nil {
			return err
		}
		read, readCPU = append(read, time.Since(started).Seconds()), append(readCPU, cpu)
		if err := b.command(ctx, &check, "check", "--config", config); err != nil {
			return err
		}
		if err := b.command(ctx, &offline, "plan", "--offline", "--config", config); err != nil {
			return err
		}
	}
	d, err := b.daemon(ctx, dir, "")
	if err != nil {
		return err
	}
	var served []float64
	err = d.awaitConverged(ctx, n)
	for range b.rounds {
		if err == nil {
			var cpu float64
			cpu, err = d.during(func() error { return b.command(ctx, &asked, "plan", "--config", config) })
			served = append(served, cpu)
		}
	}
	if err != nil {
		return errors.Join(err, d.kill())
	}
	if err := d.stop(); err != nil {
		return err
	}
	const limit = "read and decode the files"
	var figures []figure
	for _, of := range []struct {
		name string
		f    *commandFigures
	}{{"check", &check}, {"plan, offline", &offline}, {"plan, asked of a daemon", &asked}} {
		figures = append(figures,
			figure{Name: of.name, Unit: "s", Values: of.f.wall, Limit: read, LimitName: limit},
			figure{Name: of.name + ", CPU", Unit: "s", Values: of.f.cpu, Limit: readCPU, LimitName: limit},
			figure{Name: of.name + ", memory", Unit: "MiB", Values: of.f.resident})
	}
	figures = append(figures, figure{Name: "plan, CPU of the daemon that is asked", Unit: "s", Values: served, Limit: readCPU, LimitName: limit})
	if err := b.report.addAll(figures); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(b.dir, "lineages"))
}

// manyPolicies writes n policies, each with a directory of its own.
func (b *bench) manyPolicies(ctx context.Context, n int) (dir string, err error) {
	root := filepath.Join(b.dir, "lineages")
	if _, err := generate(ctx, root, n, directories); err != nil {
		return "", err
	}
	texts := map[string]string{}
	for i := range n {
		from, to := filepath.Join(root, host(i)), filepath.Join(root, "nginx", host(i))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", err
		}
		name := fmt.Sprintf("p%06d", i)
		texts[name] = fmt.Sprintf(policyText, host(i), name, from, to)
	}
	return home(b.dir, texts)
}

// commandFigures are those of a command that ends by itself.
type commandFigures struct{ wall, cpu, resident []float64 }

// command runs the program. A plan with changes in it ends with 2, which is no failure.
func (b *bench) command(ctx context.Context, f *commandFigures, args ...string) error {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	wall, cpu, err := timed(cmd)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 && args[0] == "plan" {
		err = nil
	}
	if err != nil {
		return err
	}
	f.wall, f.cpu = append(f.wall, wall), append(f.cpu, cpu)
	f.resident = append(f.resident, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)/1024)
	return nil
}

// awaitConverged waits until all assignments are at rest.
func (p *process) awaitConverged(ctx context.Context, n int) error {
	for started := time.Now(); time.Since(started) < startLimit; {
		s, err := p.scrape(ctx)
		if err != nil {
			return err
		}
		if s.converged() == n {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("the assignments do not converge")
}

func decodeAll(dir string) error {
	return readAll(dir, func(name string, data []byte) error {
		var document map[string]any
		if err := yaml.Unmarshal(data, &document); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}
