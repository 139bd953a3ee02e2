package rotation

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// deniedTarget refuses what is staged, by a request that has an id.
type deniedTarget struct{ target }

func (d deniedTarget) Stage(ctx context.Context, _ providers.Request, _ *certs.Bundle) (providers.Remote, error) {
	providers.NoteRequest(ctx, "denied-1")
	return providers.Remote{}, &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "create certificate", RequestID: "denied-1"}
}

// TestRequestsOfFailures: the request that failed at one target is told with the failure, not
// with what another target does meanwhile.
func TestRequestsOfFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets = []policy.Target{
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
		}
		w.second = deniedTarget{target{w}}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		told := 0
		for _, e := range w.events {
			if slices.Contains(e.Data.RequestIDs, "denied-1") {
				told++
				if e.Kind != EventFailed {
					t.Errorf("%s of target %q has the request that failed at another", e.Kind, e.Data.Target)
				}
			}
		}
		if told != 1 || !w.said(EventDeployed) {
			t.Errorf("the request that failed is told %d times; %v", told, w.order)
		}
	})
}
