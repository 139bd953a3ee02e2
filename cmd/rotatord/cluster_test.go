//go:build cluster

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/rotation"
)

// issuedBy is who made which policy's certificates, as the daemons' logs have it.
func (f *crew) issuedBy() map[string][]string {
	by := map[string][]string{}
	for _, s := range f.said(func(line map[string]any) bool { return line["msg"] == "certificate issued" }) {
		by[s.node] = append(by[s.node], fmt.Sprint(s.line["policy"]))
	}
	return by
}

// TestClusterSharesTheWork: what any daemon can do is spread over all, what only one can do
// stays with it, and nothing is done twice; neither when every daemon hears a trigger.
func TestClusterSharesTheWork(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 30)
	f.startAll()
	f.awaitServed(f.times(1))
	f.expectOnce(f.times(1))
	for _, m := range f.daemons {
		f.ownWork(m)
	}
	f.awaitReady()

	f.force(f.hosts...)
	f.awaitServed(f.times(2))
	f.settled()
	f.awaitServed(f.times(2))
	f.expectOnce(f.times(2))
	by := f.issuedBy()
	for _, m := range f.daemons {
		t.Logf("%s issued %d", m.node, len(by[m.node]))
		if len(by[m.node]) == 0 {
			t.Errorf("%s did nothing of the common work: %v", m.node, by)
		}
	}
	f.noComplaints()
}

// TestClusterKeepsNodesApart: a policy of one name on every node, from each node's own files
// to its own files, is each node's own business. One gets its new files long after another.
func TestClusterKeepsNodesApart(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 1)
	web := func(m *peer, name string) string { return filepath.Join(f.dir, m.node, "web", name) }
	for _, m := range f.daemons {
		if err := os.MkdirAll(web(m, "out"), 0o755); err != nil {
			t.Fatal(err)
		}
		f.write(m.node+"/policies/web.yaml", fmt.Sprintf("name: web\nsource: {directory: {path: %s}}\ntargets: [{name: web, file: {directory: %s, full_chain: web.pem, key: web.key}}]\n", web(m, "in"), web(m, "out")))
	}
	converged := func(m *peer, b *certs.Bundle) {
		m.log.wait("its part of web", func(line map[string]any) bool {
			return line["policy"] == "web" && strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") && line["fingerprint"] == b.Fingerprint().Short()
		})
		if got := certificateIn(t, web(m, "out/web.pem")); got != b.Fingerprint() {
			t.Errorf("%s has %s, want %s", m.node, got.Short(), b.Fingerprint().Short())
		}
	}
	f.startAll()
	f.awaitReady()
	for range 2 {
		b, err := f.ca.Issue(certstest.Options{Names: []string{"web.example.com"}, NotBefore: time.Now().Add(-time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.daemons {
			f.put(m.node+"/web/in", b)
			converged(m, b)
			f.settled()
		}
	}
	f.noComplaints()
}

// TestClusterHearsATriggerOnce: a daemon that was down hears what the others have heard and
// done since. So does one that was never there before.
func TestClusterHearsATriggerOnce(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 3)
	f.start(f.daemons[0])
	f.start(f.daemons[1])
	f.awaitServed(f.times(1))
	if err := f.daemons[1].stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	f.force(f.hosts...)
	f.awaitServed(f.times(2))
	for _, m := range f.daemons[1:] {
		f.start(m)
		for _, host := range f.hosts {
			m.log.wait("the trigger of "+host, func(line map[string]any) bool {
				return line["msg"] == "trigger heard" && strings.HasSuffix(fmt.Sprint(line["subject"]), policyOf(host))
			})
		}
	}
	f.settled()
	f.awaitServed(f.times(2))
	f.expectOnce(f.times(2))
	f.noComplaints()
}

// TestClusterHearsAcknowledgements: a relying party, which may do no more than that, hears of a
// new certificate and says that it has it. Every daemon hears the party; what waited for it is
// activated, once.
func TestClusterHearsAcknowledgements(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 0)
	for _, m := range f.daemons {
		f.write(m.node+"/policies/sso.yaml", fmt.Sprintf("name: sso\nsource: {identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 1h, acknowledgements: [grafana]}}}\n",
			f.cloud.info.InstanceID, f.cloud.info.ApplicationID))
	}
	party := f.nats.dial("party")
	events, err := party.SubscribeSync("rotatord.event.*.issued")
	if err == nil {
		err = party.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.startAll()
	f.awaitReady()
	f.settled()
	for round := range 3 {
		before := f.state().Applications[0].Certificates
		f.force("sso")
		m, err := events.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var event struct{ Data rotation.EventData }
		if err := json.Unmarshal(m.Data, &event); err != nil {
			t.Fatal(err)
		}
		got := fingerprintOf(t, []byte(event.Data.CertificatePEM))
		if n := f.nats.messages("ROTATORD_TRIGGERS"); n != 2*round+1 {
			t.Errorf("%d triggers and acknowledgements in round %d", n, round)
		}
		f.nats.trigger(party, "rotatord.ack.sso", fmt.Sprintf(`{"party": "grafana", "fingerprint": %q}`, got))
		long(t, "the activation of what was acknowledged", func() bool {
			return slices.ContainsFunc(f.state().Applications[0].Certificates, func(c cloudsim.IdentityCertificateInfo) bool {
				return c.Status == "ACTIVE" && c.Fingerprint == got.String()
			})
		})
		f.settled()
		for _, c := range before {
			if c.Fingerprint == got.String() {
				t.Errorf("%s was there before", got.Short())
			}
		}
		for _, m := range f.daemons {
			m.log.wait("the acknowledgement", func(line map[string]any) bool {
				return line["msg"] == "acknowledgement heard" && line["fingerprint"] == got.String()
			})
		}
	}
	made := 0
	for _, e := range f.cloud.ledger() {
		if e.Effect && e.Service == "identity_center" && strings.HasPrefix(e.Operation, "create") {
			made++
		}
	}
	if made != 3 {
		t.Errorf("%d certificates were made", made)
	}
	f.noComplaints()
}

// TestClusterTakesOverFromTheDead kills two of three daemons in the middle of a step: the
// third does their work, and makes nothing a second time.
func TestClusterTakesOverFromTheDead(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 4)
	f.startAll()
	f.awaitServed(f.times(1))
	f.awaitReady()
	f.settled()

	first := f.heldAt("ccm", "create_certificate", "before", f.hosts[0])
	_ = first.stop(syscall.SIGKILL)
	second := f.heldAt("ccm", "create_certificate", "after", f.hosts[1])
	_ = second.stop(syscall.SIGKILL)
	killed := time.Now()
	f.cloud.call(http.MethodDelete, "faults", nil, nil)

	each := f.times(1)
	each[f.hosts[0]], each[f.hosts[1]] = 2, 2
	f.awaitServed(each)
	t.Logf("taken over and done %s after the second death", time.Since(killed).Round(100*time.Millisecond))
	f.settled()
	f.expectOnce(each)
	f.noComplaints()
}

// TestClusterFencesTheSleeper stops a daemon for longer than NATS waits for it, in the
// middle of looking, before it writes down what it is going to do. Another takes over. Awake
// again while that one is at it, the first neither goes on nor has the work handed to a third.
func TestClusterFencesTheSleeper(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 6)
	f.startAll()
	f.awaitServed(f.times(1))
	f.awaitReady()
	f.settled()

	sleeper := f.heldAt("ccm", "filter_certificates", "before", f.hosts[0])
	f.signal(sleeper, syscall.SIGSTOP)
	stopped := time.Now()
	f.cloud.call(http.MethodDelete, "faults", nil, nil)
	f.cloud.hold("ccm", "create_certificate", "before")
	long(t, "another to take over", func() bool { return f.cloud.held() > 0 })
	t.Logf("taken over %s after %s fell asleep", time.Since(stopped).Round(100*time.Millisecond), sleeper.node)

	f.signal(sleeper, syscall.SIGCONT)
	sleeper.log.waitMessage("work was lost to others before it was done")
	each := f.times(2)
	each[f.hosts[0]] = 1
	f.force(f.hosts[1:]...)
	long(t, "all the other work", func() bool {
		return !slices.ContainsFunc(f.hosts[1:], func(host string) bool { return f.unserved(host, 2) != "" })
	})
	f.expectOnce(each)
	f.cloud.call(http.MethodDelete, "faults", nil, nil)
	f.awaitServed(f.times(2))
	f.settled()
	f.expectOnce(f.times(2))
	f.noComplaints()
}

// TestClusterAdoptsWhatTheSleeperMade stops a daemon in the middle of making something.
// Another finds what was made. Awake again, the first does not begin with what it was handed
// in its sleep, which others are at, and then works as before.
func TestClusterAdoptsWhatTheSleeperMade(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 12)
	f.startAll()
	f.awaitServed(f.times(1))
	f.awaitReady()
	f.settled()

	sleeper := f.heldAt("ccm", "create_certificate", "after", f.hosts[0])
	f.signal(sleeper, syscall.SIGSTOP)
	stopped := time.Now()
	f.cloud.call(http.MethodDelete, "faults", nil, nil)
	// NATS hands some of this to the sleeper, which asked for work before; the rest is done.
	f.force(f.hosts[1:]...)
	var stale []string
	steady := 0
	long(t, "all that the sleeper did not get", func() bool {
		rest := slices.DeleteFunc(slices.Clone(f.hosts[1:]), func(host string) bool { return f.unserved(host, 2) == "" })
		begun := slices.ContainsFunc(rest, func(host string) bool {
			return len(f.said(func(line map[string]any) bool { return line["step"] == "issue" && line["policy"] == policyOf(host) })) > 1
		})
		if steady++; begun || len(rest) == 0 || !slices.Equal(rest, stale) {
			steady = 0
		}
		stale = rest
		return steady > 30
	})
	t.Logf("in the hands of the sleeper: %v", stale)
	f.cloud.call(http.MethodPost, "faults", map[string]any{"name": "hold", "service": "ccm", "operation": "create_certificate"}, nil)
	long(t, "others to take over", func() bool { return f.cloud.held() > 0 })
	t.Logf("taken over %s after %s fell asleep", time.Since(stopped).Round(100*time.Millisecond), sleeper.node)
	f.signal(sleeper, syscall.SIGCONT)
	sleeper.log.waitMessage("work was lost to others before it was done")
	f.ownWork(sleeper) // it is awake, and has had the time to begin with the wrong things
	f.cloud.call(http.MethodDelete, "faults", nil, nil)
	f.awaitServed(f.times(2))
	f.awaitReady()
	f.settled()
	f.awaitServed(f.times(2))
	f.expectOnce(f.times(2))

	// It has to work now: the others go.
	for _, m := range f.daemons {
		if m != sleeper {
			if err := m.stop(syscall.SIGTERM); err != nil {
				t.Errorf("after SIGTERM: %v", err)
			}
		}
	}
	f.force(f.hosts...)
	f.awaitServed(f.times(3))
	f.settled()
	f.expectOnce(f.times(3))
	f.noComplaints()
}

// ownWork gives a daemon work that is its alone, and waits for it.
func (f *crew) ownWork(m *peer) {
	f.t.Helper()
	b := f.issue(m.node+"/in", m.node+".example.com")
	m.log.wait("its own files", func(line map[string]any) bool {
		return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") && line["fingerprint"] == b.Fingerprint().Short()
	})
}

func (f *crew) signal(m *peer, s syscall.Signal) {
	f.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// force asks for new certificates of hosts.
func (f *crew) force(hosts ...string) {
	f.t.Helper()
	publisher := f.nats.dial("publisher")
	defer publisher.Close()
	for _, host := range hosts {
		f.nats.trigger(publisher, "rotatord.trigger."+policyOf(host), `{"force": true}`)
	}
}

// heldAt asks for a new certificate of a host, has its first call of an operation held, and
// returns the daemon that made it.
func (f *crew) heldAt(service, operation, phase, host string) *peer {
	f.t.Helper()
	before := f.cloud.held()
	f.cloud.hold(service, operation, phase)
	f.force(host)
	eventually(f.t, "a held call", func() bool { return f.cloud.held() > before })
	steps := f.said(func(line map[string]any) bool { return line["msg"] == "step" && line["policy"] == policyOf(host) })
	m := steps[len(steps)-1].peer
	f.t.Logf("%s is held at %s of %s", m.node, operation, host)
	return m
}

// held is how many calls stand still.
func (s *remoteSim) held() (n int) {
	var state struct {
		Faults []struct {
			Held []any `json:"held"`
		} `json:"faults"`
	}
	s.call(http.MethodGet, "faults", nil, &state)
	for _, fault := range state.Faults {
		n += len(fault.Held)
	}
	return n
}

// settled waits until the work queue is empty and nothing waits for a place in it.
func (f *crew) settled() {
	f.t.Helper()
	for _, m := range f.daemons {
		if m.process == nil || m.cmd.ProcessState != nil {
			continue
		}
		long(f.t, m.node+" to have nothing to do", func() bool {
			for _, zero := range []string{"work_waiting", "work_queue_depth", `nats_consumer_pending{consumer="trigger"}`, `nats_consumer_ack_pending{consumer="trigger"}`} {
				if m.metric(f.t, "rotatord_"+zero) != "0" {
					return false
				}
			}
			return true
		})
	}
}

// metric is the value of a series as a daemon shows it now; empty where there is none.
func (m *peer) metric(t *testing.T, series string) string {
	t.Helper()
	_, text := m.get(t, "/metrics")
	_, rest, _ := strings.Cut(text, "\n"+series+" ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// noComplaints says what the NATS servers refused.
func (f *crew) noComplaints() {
	f.t.Helper()
	for _, s := range f.said(func(line map[string]any) bool { return strings.Contains(fmt.Sprint(line), "ermissions") }) {
		f.t.Errorf("%s: %v", s.node, s.line)
	}
}
