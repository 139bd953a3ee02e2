package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// many is a tree of certificates under one policy that says covered, hosts for them, and
// on both sides some that are nobody's.
type many struct {
	*rig
	certificates int
	strays       int
}

// newMany makes the tree and the hosts. Certificates are three directories deep.
func newMany(t *testing.T, certificates int) *many {
	t.Helper()
	m := &many{certificates: certificates, strays: certificates / 20}
	cfg := cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Misbehave: true}
	for i := range certificates {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: m.host(i)})
	}
	for i := range m.strays {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: fmt.Sprintf("nobody%d.example.net", i)})
	}
	m.rig = newRigWith(t, cfg)
	for i := range certificates {
		m.issueInto(m.directory(i), m.host(i))
	}
	for i := range m.strays {
		name := fmt.Sprintf("stray%d.example.org", i)
		m.issueInto(filepath.Join("strays", name), name)
	}
	m.write("rotatord.yaml", m.generous())
	m.write("policies/all.yaml", "name: all\nsource: {directory: {path: ../tree, recursive: true, match: {dns_names: [\"*.example.com\"]}}}\ntargets: [{name: edge, waf: {hosts: covered}}]\n")
	return m
}

// generous is the configuration with limits that the simulator does not need.
func (m *many) generous() string {
	data, err := os.ReadFile(m.path("rotatord.yaml"))
	must(m.t, err)
	return strings.Replace(string(data), "{rate: 50, burst: 50, concurrency: 8}", "{rate: 100000, burst: 1000, concurrency: 16}", 1)
}

func (m *many) host(i int) string { return fmt.Sprintf("h%d.s%d.example.com", i, i%13) }

func (m *many) issueInto(dir, name string) {
	m.t.Helper()
	bundle, err := m.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: time.Now().Add(-time.Minute)})
	must(m.t, err)
	path := filepath.Join(m.dir, "tree", dir)
	must(m.t, os.MkdirAll(path, 0o755))
	must(m.t, certstest.WritePair(path, name, bundle))
}

// served are the hosts with a certificate, and how many certificates they have together.
func (m *many) served() (hosts, certificates int) {
	all := map[string]bool{}
	for _, h := range m.sim.Hosts() {
		if h.CertificateID != "" {
			hosts++
			all[h.CertificateID] = true
		}
	}
	return hosts, len(all)
}

// TestManyFromOne: one policy over a large tree converges every certificate that it takes
// with a bounded number of calls for each, and a restart changes nothing.
func TestManyFromOne(t *testing.T) {
	t.Parallel()
	n := 300
	switch {
	case os.Getenv("ROTATORD_TEST_LONG") != "":
		n = 1000
	case raceDetector:
		n = 150
	}
	m := newMany(t, n)
	started := time.Now()
	code, said := m.check()
	t.Logf("check took %s: %s", time.Since(started), said)
	if code != 0 || strings.Count(said, "\n") > 5 {
		t.Errorf("check: code %d, and\n%s", code, said)
	}
	m.during("first", func(*daemon) {
		m.onboarding(n)
		m.allConverged(n)
		m.log.wait("the end of the onboarding", func(line map[string]any) bool {
			// Who asks for the status sees the end at once, the log within paceEvery.
			return line["msg"] == "assignments came to rest" && line["at_rest"] == float64(n) && line["under_way"] == 0.0
		})
		m.expectServedByAll(n)
	}, 12*n, 2*n)
	m.during("again", func(d *daemon) { awaitReady(m.t, d) }, 0, 0)
	// The next to renew costs what one costs, however many there are.
	m.during("one renewed", func(d *daemon) {
		awaitReady(m.t, d)
		m.issueInto(m.directory(7), m.host(7))
		m.log.wait("its convergence", func(line map[string]any) bool {
			return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") && line["certificate"] == m.host(7)
		})
	}, 14+m.pages(), 2)
	must(t, os.RemoveAll(m.path("state")))
	m.during("without its journal", func(*daemon) {
		m.allConverged(n)
		m.expectServedByAll(n)
	}, 6*n, 0)
}

// onboarding asks for the status until all have come to rest: it shows how far they are, from
// the first on, and never less than before.
func (m *many) onboarding(n int) {
	m.t.Helper()
	var seen []int
	// An answer has all assignments in it: to ask all the time costs more than the onboarding.
	every(m.t, 200*time.Millisecond, 5*patience, "the end of the onboarding", func() bool {
		o := asked[admin.Status](m.rig, 0, "status").Onboarding
		if o == nil {
			return len(seen) > 0
		}
		if o.Total != n || o.AtRest+o.UnderWay != n || len(seen) > 0 && o.AtRest < seen[len(seen)-1] {
			m.t.Errorf("after %v: %+v", seen, o)
		}
		seen = append(seen, o.AtRest)
		return false
	})
	if middle := slices.IndexFunc(seen, func(atRest int) bool { return atRest > 0 && atRest < n }); middle < 0 {
		m.t.Errorf("the status showed %v at rest", seen)
	}
	m.t.Logf("at rest: %v", seen)
}

// during runs a daemon for a part of the story, and bounds what it asks of the cloud and
// what it changes there.
func (m *many) during(name string, story func(d *daemon), calls, effects int) {
	outer := m.t
	outer.Run(name, func(t *testing.T) {
		m.t, m.log.t = t, t
		before, started := len(m.sim.Ledger()), time.Now()
		story(m.start())
		counts, total, changed := map[string]int{}, 0, 0
		for _, e := range m.sim.Ledger()[before:] {
			counts[e.Operation]++
			total++
			if e.Effect {
				changed++
			}
		}
		t.Logf("%s, %d calls: %s", time.Since(started).Round(time.Millisecond), total, listCounts(counts))
		if total > calls || changed != effects {
			t.Errorf("%d calls of which %d change something; want at most %d, and %d", total, changed, calls, effects)
		}
	})
	m.t, m.log.t = outer, outer
}

// pages is how many calls it takes to list all hosts.
func (m *many) pages() int { return (m.certificates+m.strays)/100 + 1 }

func (m *many) directory(i int) string {
	return filepath.Join(fmt.Sprintf("r%d", i%7), fmt.Sprintf("c%d", i%31), m.host(i))
}

func (m *many) expectServedByAll(n int) {
	m.t.Helper()
	hosts, certificates := m.served()
	if hosts != n || certificates != n {
		m.t.Errorf("%d hosts serve %d certificates, want %d", hosts, certificates, n)
	}
}

func (m *many) allConverged(n int) {
	m.t.Helper()
	seen := map[string]bool{}
	m.log.wait("convergence of all", func(line map[string]any) bool {
		if strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") {
			seen[fmt.Sprint(line["certificate"])] = true
		}
		return len(seen) == n
	})
}

func listCounts(counts map[string]int) string {
	var parts []string
	for _, operation := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", operation, counts[operation]))
	}
	return strings.Join(parts, ", ")
}

// TestManyWhileTheCloudIsAway: what fails for one cause is told of together, and each of them once
// for whoever looks for it.
func TestManyWhileTheCloudIsAway(t *testing.T) {
	t.Parallel()
	const n = 200
	m := newMany(t, n)
	_, err := m.sim.Faults().Add(cloudsim.Fault{Service: "waf", Name: cloudsim.FaultAnswer, Status: http.StatusServiceUnavailable})
	must(t, err)
	m.start()
	failed := func() (loud int, each map[string]int) {
		each = map[string]int{}
		m.log.mu.Lock()
		defer m.log.mu.Unlock()
		for _, line := range m.log.lines {
			if line["msg"] != "assignment failed" && line["msg"] != "step failed" {
				continue
			}
			if line["level"] == "ERROR" || line["level"] == "WARN" {
				loud++
			}
			if line["msg"] == "assignment failed" && line["level"] != "DEBUG" {
				each[fmt.Sprint(line["certificate"])]++
			}
		}
		return loud, each
	}
	eventually(t, "all assignments to fail", func() bool { _, each := failed(); return len(each) == n })
	loud, each := failed()
	// Five, the tenth and the hundredth, a line of each for the step and for the assignment; the first may be met again.
	if loud < 8 || loud > 40 {
		t.Errorf("%d lines at warn and error", loud)
	}
	t.Logf("%d lines at warn and error, of %d assignments", loud, len(each))
	for certificate, times := range each {
		if times > 10 {
			t.Errorf("%s is said to fail %d times", certificate, times)
		}
	}
	m.sim.Faults().Clear()
	eventually(t, "all of them to be served", func() bool { hosts, _ := m.served(); return hosts == n })
}
