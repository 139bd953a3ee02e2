package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	soakRate   = 8 // certificates renewed a second
	soakSample = 10 * time.Second
	// soakFault is how often something goes wrong, soakTrouble for how long.
	soakFault   = 3 * time.Second
	soakTrouble = time.Second
	soakReload  = time.Minute
	// soakAge is how often each certificate was renewed before: a record remembers five bundles, and grows until then.
	soakAge = 4
	// soakThrottle is as many misfortunes: every ten minutes.
	soakThrottle = 200
)

// misfortunes of the cloud, one of them every soakFault.
var misfortunes = []cloudsim.Fault{
	{Name: cloudsim.FaultInternal, Count: 5},
	{Name: cloudsim.FaultBadGateway, Count: 5}, {Name: cloudsim.FaultLost, Count: 3}, {Name: cloudsim.FaultRefuse, Count: 3},
	{Name: cloudsim.FaultTruncate, Count: 3}, {Name: cloudsim.FaultCut, Count: 3}, {Name: cloudsim.FaultHuge, Count: 1},
	{Name: cloudsim.FaultTimeoutAfter, Count: 1, Delay: 5 * time.Second}, {Name: cloudsim.FaultDelay, Count: 5, Delay: 2 * time.Second},
	{Name: cloudsim.FaultWrongType, Count: 1}, {Name: cloudsim.FaultRefuse, Operation: cloudsim.OperationConnect, Count: 3},
}

// throttled is a misfortune that comes once in soakThrottle: for a minute after it the client asks nothing.
var throttled = cloudsim.Fault{Name: cloudsim.FaultAnswer, Status: http.StatusTooManyRequests, Code: "APIGW.0308", Message: "The throttling threshold has been reached", Count: 1}

// sample is what the daemon holds at a moment.
type sample struct {
	At         float64 `json:"at_s"`
	Resident   float64 `json:"resident_mib"`
	Live       float64 `json:"live_heap_mib"` // after a collection
	Goroutines float64 `json:"goroutines"`
	Files      float64 `json:"open_files"`
	Journal    float64 `json:"journal_mib"` // of the records, on disk
	History    float64 `json:"history_mib"` // of the stream of events, which is kept for audit.retain
	CPU        float64 `json:"cpu_s"`
	Renewed    int     `json:"renewed"`
	Behind     int     `json:"behind"` // certificates that their host does not serve yet
	Faults     int     `json:"faults"`
}

// soaking is one daemon to which everything happens that may, for a long time.
type soaking struct {
	*bench
	pairs   *pairs
	cloud   *cloud
	daemon  *process
	dir     string
	nats    *nats.Conn
	newest  map[int]certs.Fingerprint
	control *http.Client
	random  *rand.Rand
	begun   time.Time
	renewed int
	faults  int
	samples []sample
}

// soak renews certificates for the time of -for, while calls fail, triggers and reloads come, and scrapes are made.
func soak(ctx context.Context, b *bench, n int) error {
	s, err := newSoaking(ctx, b, n)
	if err != nil {
		return err
	}
	defer func() { _ = s.cloud.sim.Close() }()
	if err := s.age(ctx, n); err != nil {
		return s.failed(err)
	}
	if err := s.play(ctx, n); err != nil {
		return s.failed(err)
	}
	if err := s.settle(ctx); err != nil {
		return s.failed(err)
	}
	leaked, err := s.leaks(ctx)
	if err != nil {
		return err
	}
	s.nats.Close()
	if err := s.daemon.stop(); err != nil {
		return err
	}
	return s.tell(leaked)
}

func newSoaking(ctx context.Context, b *bench, n int) (*soaking, error) {
	s := &soaking{bench: b, newest: map[int]certs.Fingerprint{}, random: rand.New(rand.NewPCG(8, uint64(n)))}
	var err error
	if s.pairs, err = generate(ctx, filepath.Join(b.dir, "pairs"), n, flat); err != nil {
		return nil, err
	}
	if s.cloud, err = startCloud(ctx, filepath.Join(b.dir, "cloud"), n, cloudsim.Config{Misbehave: true}); err != nil {
		return nil, err
	}
	policy := fmt.Sprintf(firewall, s.pairs.root) + "retain: {superseded: 1, for: 1m}\ndrift: {every: 10m}\n"
	if s.dir, err = home(b.dir, map[string]string{"all": policy}); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	binary, err := buildLeakFinding(ctx, b.dir)
	if err != nil {
		return nil, err
	}
	finding := *b
	finding.binary, finding.profiles = binary, true
	extra := s.cloud.yaml(concurrency) + fmt.Sprintf("nats: {embedded: {listen: %q}}\n", address)
	if s.daemon, err = finding.daemon(ctx, s.dir, extra); err != nil {
		return nil, err
	}
	s.control = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "state", "rotatord.sock"))
	}}}
	s.nats, err = nats.Connect(address)
	return s, err
}

// buildLeakFinding makes a program that has the profile of leaked goroutines, an experiment of Go 1.26.
func buildLeakFinding(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "rotatord-leaks")
	_, _, err := timed(building(ctx, binary, "GOEXPERIMENT=goroutineleakprofile"))
	return binary, err
}

// age renews every certificate as often as years would: what a daemon holds of a young estate grows.
func (s *soaking) age(ctx context.Context, n int) error {
	if err := s.until(ctx, "the first convergence", func() bool { return s.bound() == n }); err != nil {
		return err
	}
	for range soakAge {
		for i := range n {
			if err := s.renew(i); err != nil {
				return err
			}
		}
		if err := s.until(ctx, "everything to be renewed", func() bool { return s.behind() == 0 }); err != nil {
			return err
		}
	}
	s.renewed = 0
	return nil
}

// play is everything that happens.
func (s *soaking) play(ctx context.Context, n int) error {
	s.begun = time.Now()
	end := time.After(s.lasts)
	every := func(d time.Duration) <-chan time.Time { return time.NewTicker(d).C }
	renew, fault, look, reload, trigger := every(time.Second/soakRate), every(soakFault), every(soakSample), every(soakReload), every(100*time.Millisecond)
	var over <-chan time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-renew:
			err = s.renew(s.random.IntN(n))
		case <-fault:
			over, err = time.After(soakTrouble), s.misfortune()
		case <-over:
			s.cloud.sim.Faults().Clear()
		case <-look:
			err = s.sample(ctx)
		case <-reload:
			err = s.reload()
		case <-trigger:
			err = s.nats.Publish("rotatord.trigger.all", fmt.Appendf(nil, `{"certificate":%q}`, host(s.random.IntN(n))))
		case err = <-s.daemon.ended:
			s.daemon.ended <- err
			return fmt.Errorf("the daemon ended: %w", err)
		}
		if err != nil {
			return err
		}
	}
}

// failed ends the daemon and adds its last words.
func (s *soaking) failed(err error) error {
	err = errors.Join(err, s.daemon.kill())
	return fmt.Errorf("%w\n%s", err, s.daemon.log.String())
}

func (s *soaking) until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(time.Second):
		}
	}
	return nil
}

// bound is how many hosts have a certificate.
func (s *soaking) bound() (n int) {
	for _, h := range s.cloud.sim.Hosts() {
		if h.CertificateID != "" {
			n++
		}
	}
	return n
}

// misfortune begins one. It ends by itself: one that waited for those who come would meet each call that is made on trial,
// and a circuit that is open would never close.
func (s *soaking) misfortune() error {
	s.faults++
	next := misfortunes[s.random.IntN(len(misfortunes))]
	if s.faults%soakThrottle == 0 {
		next = throttled
	}
	_, err := s.cloud.sim.Faults().Add(next)
	return err
}

// behind is how many hosts do not serve the newest certificate yet.
func (s *soaking) behind() (n int) {
	served := map[string]string{}
	for _, h := range s.cloud.sim.Hosts() {
		served[h.Name] = h.Fingerprint
	}
	for i, wanted := range s.newest {
		if served[host(i)] != wanted.String() {
			n++
		}
	}
	return n
}

func (s *soaking) renew(i int) error {
	b, err := s.pairs.issue(i)
	if err != nil {
		return err
	}
	s.newest[i] = b.Fingerprint()
	s.renewed++
	return s.pairs.replace(b, host(i))
}

// reload writes the policy with another comment, and asks for it.
func (s *soaking) reload() error {
	old, err := os.ReadFile(policyFile(s.dir, "all"))
	if err != nil {
		return err
	}
	rules, _, _ := bytes.Cut(old, []byte("# "))
	return s.daemon.reload(s.dir, "all", fmt.Sprintf("%s# %s\n", rules, time.Now().Format(time.TimeOnly)))
}

// settle lets the faults end, and waits until the newest certificate of each host is what it serves.
func (s *soaking) settle(ctx context.Context) error {
	s.cloud.sim.Faults().Clear()
	return s.until(ctx, "the newest certificates", func() bool { return s.behind() == 0 })
}

// profile asks the control socket for a profile.
func (s *soaking) profile(ctx context.Context, name string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://rotatord/debug/pprof/"+name, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.control.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("profile %s: %s: %s", name, response.Status, data)
	}
	return data, err
}

// leaks is the profile of goroutines that wait for what can never come: its first line tells how many.
func (s *soaking) leaks(ctx context.Context) (float64, error) {
	data, err := s.profile(ctx, "goroutineleak?debug=1")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(data), "total ")
	total, _, _ := strings.Cut(after, "\n")
	leaked, err := strconv.ParseFloat(strings.TrimSpace(total), 64)
	if leaked > 0 {
		fmt.Fprintf(os.Stderr, "%s\n", data)
	}
	return leaked, err
}

// sample looks at everything that could grow.
func (s *soaking) sample(ctx context.Context) error {
	if _, err := s.profile(ctx, "heap?gc=1"); err != nil { // collects
		return err
	}
	scraped, err := s.daemon.scrape(ctx)
	if err != nil {
		return err
	}
	series := map[string]float64{}
	for line := range strings.Lines(string(scraped.text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")) {
			series[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	now := sample{
		At: time.Since(s.begun).Seconds(), Live: series["go_memstats_heap_alloc_bytes"] / (1 << 20), Goroutines: series["go_goroutines"],
		Files: series["process_open_fds"], CPU: series["process_cpu_seconds_total"], Renewed: s.renewed, Behind: s.behind(), Faults: s.faults,
	}
	if now.Resident, err = s.daemon.resident(); err != nil {
		return err
	}
	streams := filepath.Join(s.dir, "state", "nats", "jetstream", "rotatord", "streams")
	if now.Journal, err = size(filepath.Join(streams, "KV_rotatord_journal")); err != nil {
		return err
	}
	if now.History, err = size(filepath.Join(streams, "ROTATORD_EVENTS")); err != nil {
		return err
	}
	s.samples = append(s.samples, now)
	return json.NewEncoder(os.Stderr).Encode(now)
}

// size of all files below a directory, in MiB. Files come and go meanwhile.
func size(root string) (float64, error) {
	var sum int64
	err := filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				sum += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return float64(sum) / (1 << 20), err
}

// tell compares the last third with the middle one: the first warms up.
func (s *soaking) tell(leaked float64) error {
	if len(s.samples) < 6 {
		return fmt.Errorf("%d samples are too few; let it run longer", len(s.samples))
	}
	third := len(s.samples) / 3
	middle, last := s.samples[third:2*third], s.samples[2*third:]
	for _, quantity := range []struct {
		name, unit string
		of         func(sample) float64
	}{
		{"resident, last third beside middle", "MiB", func(m sample) float64 { return m.Resident }},
		{"live heap, last third beside middle", "MiB", func(m sample) float64 { return m.Live }},
		{"goroutines, last third beside middle", "", func(m sample) float64 { return m.Goroutines }},
		{"open files, last third beside middle", "", func(m sample) float64 { return m.Files }},
		{"journal on disk, last third beside middle", "MiB", func(m sample) float64 { return m.Journal }},
		{"renewed and not served yet, last third beside middle", "", func(m sample) float64 { return float64(m.Behind) }},
	} {
		var before, after []float64
		for _, m := range middle {
			before = append(before, quantity.of(m))
		}
		for _, m := range last {
			after = append(after, quantity.of(m))
		}
		f := figure{Name: quantity.name, Unit: quantity.unit, Values: after, Limit: before, LimitName: "middle third", Goal: "flat"}
		if err := s.report.add(f); err != nil {
			return err
		}
	}
	first, end := s.samples[0], s.samples[len(s.samples)-1]
	renewed := float64(end.Renewed - first.Renewed)
	return errors.Join(
		s.report.add(figure{Name: "leaked goroutines", Values: []float64{leaked}, Goal: "0"}),
		s.report.add(figure{Name: "certificates renewed", Values: []float64{float64(end.Renewed)}}),
		s.report.add(figure{Name: "misfortunes of the cloud", Values: []float64{float64(end.Faults)}}),
		s.report.add(figure{Name: "processor time a renewal, all else in it", Unit: "ms", Values: []float64{(end.CPU - first.CPU) * 1e3 / renewed}}),
		s.report.add(figure{Name: "history a renewal", Unit: "kiB", Values: []float64{(end.History - first.History) * 1024 / renewed}}),
	)
}
