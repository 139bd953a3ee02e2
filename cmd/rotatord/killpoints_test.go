package main

import (
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// TestKillPoints kills the built binary with SIGKILL at random moments of rotations, starts
// it again, and checks after each story that the end is the one of a faultless run. One
// cloud and one state directory live through all stories.
//
// ROTATORD_TEST_KILLS is how many kills there are, ROTATORD_TEST_SEED what they are drawn
// from; test/chaos has more of both. The same seed draws the same stories; what the clock does in them is its own.
func TestKillPoints(t *testing.T) {
	t.Parallel()
	kills := numberFrom(t, "ROTATORD_TEST_KILLS", 15)
	seed := numberFrom(t, "ROTATORD_TEST_SEED", uint64(time.Now().UnixNano()%1_000_000))
	story := 0
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("story %d of seed %d; to repeat it: ROTATORD_TEST_SEED=%d ROTATORD_TEST_KILLS=%d go test -run TestKillPoints ./cmd/rotatord", story, seed, seed, kills)
		}
	})
	e := newEstate(t, "")
	k := &killer{estate: e}
	t.Cleanup(func() {
		if t.Failed() {
			for i, p := range e.processes[max(0, len(e.processes)-4):] {
				t.Logf("log of one of the last daemons, %d:\n%s", i, p.log.text())
			}
		}
	})
	k.faultless()
	began, asked := time.Now(), k.asked()
	how := map[string]int{}
	for done := uint64(0); done < kills && !t.Failed(); {
		story++
		k.rand = rand.New(rand.NewPCG(seed, uint64(story)))
		begun := time.Now()
		names := k.story()
		for _, name := range names {
			how[name]++
			done++
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Logf("story %d took %s: %v", story, took.Round(time.Millisecond), names)
		}
	}
	e.checkSecrets()
	total := 0
	for _, n := range how {
		total += n
	}
	t.Logf("seed %d: %d kills in %d stories (%v), %d new bundles and triggers answered, %d certificates created, each once, in %s",
		seed, total, story, how, k.asked()-asked, k.creations(), time.Since(began).Round(time.Second))
}

// asked is how often something was to be rotated so far.
func (k *killer) asked() int {
	n := k.forces
	for _, all := range k.bundles {
		n += len(all)
	}
	return n
}

func numberFrom(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// creations is how many certificates there ever were of ours, wherever.
func (k *killer) creations() int {
	n := 0
	for what, times := range k.created {
		if service, _, uploaded := strings.Cut(what, " "); uploaded && service != "ccm" {
			n += times
		}
	}
	for _, made := range k.made {
		n += made
	}
	return n
}

// killer tells stories: something happens, the daemon is killed, once or several times, and
// is at last left alone.
type killer struct {
	*estate
	rand *rand.Rand
	// calls are the operations that a rotation makes, for choosing where to strike.
	calls []cloudsim.Entry
}

// faultless lets everything happen once without a kill, which shows the calls that there
// are to strike at.
func (k *killer) faultless() {
	k.t.Helper()
	p := k.started(k.launch())
	k.converged(p)
	for _, policy := range directoryPolicies {
		k.renew(policy)
	}
	for _, policy := range issuingPolicies {
		k.force(p, policy)
	}
	k.converged(p)
	for range 2 { // so that there is something to remove at Identity Center
		k.force(p, ssoPolicy)
		k.converged(p)
	}
	k.terminate(p.process)
	k.check()
	for _, entry := range k.cloud.ledger() {
		if entry.Service != "console" && !slices.ContainsFunc(k.calls, func(c cloudsim.Entry) bool { return c.Service == entry.Service && c.Operation == entry.Operation }) {
			k.calls = append(k.calls, entry)
		}
	}
	slices.SortFunc(k.calls, func(a, b cloudsim.Entry) int {
		return slices.Compare([]string{a.Service, a.Operation}, []string{b.Service, b.Operation})
	})
	k.t.Logf("%d operations to strike at", len(k.calls))
}

// story plays one and returns how the daemon was killed in it.
func (k *killer) story() (kills []string) {
	k.t.Helper()
	before := k.look()
	var busy, forced []string
	for _, policy := range slices.Concat(directoryPolicies, issuingPolicies) {
		issues := slices.Contains(issuingPolicies, policy)
		draw := k.rand.IntN(8)
		if draw > 2 {
			busy = append(busy, policy)
		}
		switch {
		case draw <= 2: // nothing
		case draw < 7:
			if issues {
				forced = append(forced, policy)
			} else {
				k.renew(policy)
			}
		default:
			forced = append(forced, policy)
		}
	}
	for n := 1 + k.rand.IntN(3); n > 0; n-- {
		s := k.draw(busy)
		if s.fault != nil && len(forced) == 0 {
			k.cloud.call(http.MethodPost, "faults", s.fault, nil)
		}
		p := k.launch()
		if len(forced) > 0 {
			r := k.started(p)
			if s.fault != nil {
				k.cloud.call(http.MethodPost, "faults", s.fault, nil)
			}
			for _, policy := range forced {
				k.force(r, policy)
			}
			forced = nil
		}
		kills = append(kills, k.strike(p, s))
		k.checkDead(before)
		if n > 1 && k.rand.IntN(4) == 0 {
			// The next bundle comes before the last one is in place.
			k.renew(wwwPolicy)
		}
	}
	p := k.started(k.launch())
	k.converged(p)
	if k.rand.IntN(3) == 0 {
		p.kill()
	} else {
		k.terminate(p.process)
	}
	k.check()
	return kills
}

// stroke is one way to kill.
type stroke struct {
	name string
	// fault, if not nil, makes a call stand still, and the kill comes when it does.
	fault map[string]any
	// due is asked every now and then, until the kill is due.
	due func(k *killer, p *process) bool
}

// linger is how long a daemon is waited for that says nothing, and may have nothing to do.
const linger = 250 * time.Millisecond

// services are those that a policy's rotation calls.
var services = map[string][]string{
	shopPolicy: {"waf"}, wwwPolicy: {"waf"}, gatewayPolicy: {"apig"}, inPlacePolicy: {"apig"},
	localPolicy: {"ccm", "waf"}, cloudPolicy: {"ccm"}, ssoPolicy: {"identity_center"},
}

// draw chooses a stroke; policies are those with something to do.
func (k *killer) draw(policies []string) stroke {
	phase := []string{"before", "after"}[k.rand.IntN(2)]
	switch k.rand.IntN(10) {
	case 0, 1, 2, 3: // around a certain operation
		calls := slices.DeleteFunc(slices.Clone(k.calls), func(c cloudsim.Entry) bool {
			return !slices.ContainsFunc(policies, func(p string) bool { return slices.Contains(services[p], c.Service) })
		})
		if len(calls) == 0 {
			calls = k.calls
		}
		call := calls[k.rand.IntN(len(calls))]
		return stroke{"at an operation", map[string]any{"name": "hold", "service": call.Service, "operation": call.Operation, "phase": phase, "count": 1, "after": k.rand.IntN(2)}, (*killer).held}
	case 4, 5: // around the n-th call, whichever
		return stroke{"at a call", map[string]any{"name": "hold", "phase": phase, "count": 1, "after": k.rand.IntN(40)}, (*killer).held}
	case 6: // after the n-th call that the cloud saw
		n, first := 1+k.rand.IntN(40), k.checked
		return stroke{"after a call", nil, func(k *killer, _ *process) bool { return k.called(first) >= n }}
	case 7, 8: // after the n-th line of its log
		n := 1 + k.rand.IntN(250)
		return stroke{"after a line", nil, func(_ *killer, p *process) bool { return p.log.count() >= n }}
	default:
		end := time.Now().Add(time.Duration(k.rand.IntN(600)) * time.Millisecond)
		return stroke{"after a time", nil, func(*killer, *process) bool { return time.Now().After(end) }}
	}
}

// strike kills when the stroke is due, or when nothing has come of it for a while, and says
// which it was.
func (k *killer) strike(p *process, s stroke) (how string) {
	k.t.Helper()
	how = s.name
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	lines := 0
	for end := time.Now().Add(linger); !s.due(k, p); <-tick.C {
		if n := p.log.count(); n > lines {
			lines, end = n, time.Now().Add(linger)
		}
		if time.Now().After(end) {
			how = "when nothing more came"
			break
		}
	}
	p.kill()
	if s.fault != nil {
		k.cloud.call(http.MethodDelete, "faults", nil, nil)
	}
	// What had left the process has its effect, or not, before the next one starts.
	eventually(k.t, "the end of all calls", func() bool {
		return !slices.ContainsFunc(k.entries(k.checked), func(e cloudsim.Entry) bool { return e.Status == 0 })
	})
	return how
}

// held reports whether a call stands still.
func (k *killer) held(*process) bool {
	var state struct {
		Faults []struct {
			Held []any `json:"held"`
		} `json:"faults"`
	}
	k.cloud.call(http.MethodGet, "faults", nil, &state)
	return len(state.Faults) > 0 && len(state.Faults[0].Held) > 0
}

// called is how many calls there were after one.
func (k *killer) called(seq int) int { return len(k.entries(seq)) }

// count is how many lines there are.
func (l *logTap) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}
