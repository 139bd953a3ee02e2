package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running daemon.
type process struct {
	cmd     *exec.Cmd
	address string // of its HTTP listener
	started time.Time
	log     lastWords
	ended   chan error
}

// lastWords are the end of a log, which may be read while it is written.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

const longestWords = 16 << 10

// Write implements io.Writer.
func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if len(l.text) > 2*longestWords {
		l.text = append(l.text[:0], l.text[len(l.text)-longestWords:]...)
	}
	return len(p), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// startLimit bounds how long a daemon may take until it is ready.
const startLimit = 10 * time.Minute

// daemon configures and starts one in dir, and waits until it is ready. extra is added to its configuration.
func (b *bench) daemon(ctx context.Context, dir, extra string) (*process, error) {
	return b.daemonNamed(ctx, dir, "bench", extra)
}

// daemonNamed is daemon for one of several nodes.
func (b *bench) daemonNamed(ctx context.Context, dir, node, extra string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{address: address, ended: make(chan error, 1)}
	config := filepath.Join(dir, "rotatord.yaml")
	text := fmt.Sprintf("state: state\nnode: %s\nhttp: {listen: %q}\nlog: {level: warn}\n%s", node, p.address, extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.CommandContext(ctx, b.binary, "run", "--config", config)
	if b.profiles {
		p.cmd.Args = append(p.cmd.Args, "--pprof")
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	if err := p.await(ctx, "/readyz"); err != nil {
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, p.kill()), p.log.String())
	}
	return p, nil
}

// reload writes a policy of its home anew, and asks for it.
func (p *process) reload(dir, name, text string) error {
	if err := os.WriteFile(policyFile(dir, name), []byte(text), 0o600); err != nil {
		return err
	}
	return p.cmd.Process.Signal(syscall.SIGHUP)
}

// await asks until the answer is 200.
func (p *process) await(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("the daemon ended: %w", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// kill ends it at once, and fails if it had ended by itself.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	p.ended <- <-p.ended
	return err
}

// stop ends the daemon as an operator would.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := <-p.ended; err != nil {
		return fmt.Errorf("the daemon ended: %w\n%s", err, p.log.String())
	}
	return nil
}

// cpu is the processor time that its threads have used, in seconds, to the nanosecond as the scheduler counts it.
func (p *process) cpu() (float64, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return 0, errors.Join(err, errors.New("no schedstat of the daemon's threads"))
	}
	var sum uint64
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		first, _, _ := strings.Cut(string(data), " ")
		ns, parseErr := strconv.ParseUint(first, 10, 64)
		if err := errors.Join(err, parseErr); err != nil {
			return 0, err
		}
		sum += ns
	}
	return float64(sum) / 1e9, nil
}

// during is what something that is done with the daemon costs it, in seconds of processor time.
func (p *process) during(do func() error) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return after - before, err
}

// resident is its memory in MiB (VmRSS).
func (p *process) resident() (float64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmRSS of the daemon")
}

// scrape is an answer of /metrics as Prometheus asks for it.
type scrape struct {
	took   time.Duration
	sent   int // bytes on the wire
	bytes  int // of text
	series int
	text   []byte
}

func (p *process) scrape(ctx context.Context) (*scrape, error) {
	started := time.Now()
	packed, err := p.packed(ctx)
	if err != nil {
		return nil, err
	}
	s := &scrape{took: time.Since(started), sent: len(packed)}
	if s.text, err = unpack(packed); err != nil {
		return nil, err
	}
	s.bytes = len(s.text)
	for line := range bytes.Lines(s.text) {
		if line[0] != '#' {
			s.series++
		}
	}
	return s, nil
}

// packed is an answer of /metrics as it comes over the wire.
func (p *process) packed(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	packed, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("scrape: %s", response.Status)
	}
	return packed, err
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
