package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/admin"
)

// TestHistoryTellsWhoAndHow: each entry has its actor, its policy, its outcome and the ids of the
// requests that were made, which the cloud has too.
func TestHistoryTellsWhoAndHow(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	r.start()
	r.recorded(first)
	second := r.issue("shop", host)
	r.recorded(second)
	r.says(0, []string{"pause", "shop", "--reason", "a look"})
	r.says(0, []string{"resume", "shop"})
	r.says(0, []string{"rotate", "shop", "--wait"})
	var events []admin.Event
	eventually(t, "the last event", func() bool { // it is published after the record says so
		events = asked[admin.History](r, 0, "history", "shop", "-n", "1000").Events
		return events[0].Kind == "planned" && events[0].By != ""
	})
	slices.Reverse(events)

	calls := map[string]string{} // request ids of changes, as the cloud has them
	for _, e := range r.sim.Ledger() {
		if e.Effect {
			calls[e.RequestID] = e.Operation
		}
	}
	var kinds []string
	told := 0
	for _, e := range events {
		kinds = append(kinds, e.Kind)
		if e.Policy != "shop" || e.Outcome == "" || e.Trigger == "" || e.Chain == nil || e.Chain.Hash == "" || e.Chain.Sequence == 0 || e.ID == "" {
			t.Errorf("%s lacks something: %+v", e.Kind, e)
		}
		if want := sha256Of(t, r.dir+"/policies/shop.yaml"); e.PolicySHA256 != want {
			t.Errorf("%s was decided by policy %s, which is %s", e.Kind, e.PolicySHA256, want)
		}
		for _, id := range e.RequestIDs {
			if calls[id] == "" {
				t.Errorf("%s tells of request %s, of which the cloud knows nothing", e.Kind, id)
			}
			told++
		}
		switch e.Kind {
		case "deployed", "activated":
			if len(e.RequestIDs) == 0 || e.Step == "" {
				t.Errorf("%s: by which request? %+v", e.Kind, e)
			}
		case "paused", "resumed":
			if !strings.HasPrefix(e.By, "user ") {
				t.Errorf("%s by %q", e.Kind, e.By)
			}
		}
	}
	if told != len(calls) {
		t.Errorf("the history tells of %d changing requests, the cloud had %d", told, len(calls))
	}
	rotation := []string{"planned", "started", "deployed", "activated", "verified", "converged"}
	want := slices.Concat(rotation, rotation, []string{"paused", "resumed", "planned"})
	if !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
	if i := len(rotation); events[i+3].Previous != first.Fingerprint().String() || events[i+3].Fingerprint != second.Fingerprint().String() {
		t.Errorf("before and after: %+v", events[i+3])
	}
	if last := events[len(events)-1]; !strings.HasPrefix(last.By, "user ") || last.Reason != "nothing is to be done now" {
		t.Errorf("the wish that led to nothing: %+v", last)
	}
	r.says(0, []string{"history", "shop"}, "stage edge, activate edge", "requests ", "by user ")
}

func sha256Of(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

const otherHost = "blog.example.com"

// TestHistoryIsVerified: nobody who can write to NATS changes what was written without its being
// seen.
func TestHistoryIsVerified(t *testing.T) {
	t.Parallel()
	r := newRig(t, host, otherHost)
	r.policy("shop", host, "")
	r.policy("blog", otherHost, "")
	r.issue("shop", host)
	r.issue("blog", otherHost)
	d := r.start()
	eventually(t, "both to be served, and told of", func() bool {
		code, history, _ := r.ask("history")
		return code == 0 && strings.Count(history, " converged ") == 2
	})
	r.says(0, []string{"pause", "shop"})
	whole := r.says(0, []string{"history", "verify"}, "in 3 histories, kept since ", "whole, and as they were written")
	if strings.Contains(whole, "HISTORY") {
		t.Errorf("more than was asked for:\n%s", whole)
	}
	r.says(0, []string{"history", "verify", "shop", "--all"}, "LAST HASH", "shop/"+host, "journal")
	v := asked[admin.Verification](r, 0, "history", "verify")
	if !v.OK || v.Events != 13 || len(v.Chains) != 3 || slices.ContainsFunc(v.Chains, func(c admin.Chain) bool { return !c.Journal || c.First != 1 }) {
		t.Errorf("verification %+v", v)
	}
	r.says(1, []string{"history", "verify", "nope"}, "there is no history of nope")

	ctx := t.Context()
	stream, err := d.bus.JetStream().Stream(ctx, "ROTATORD_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	deployed, err := stream.GetLastMsgForSubject(ctx, "rotatord.event.shop.deployed")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(ctx, deployed.Sequence); err != nil {
		t.Fatal(err)
	}
	r.says(1, []string{"history", "verify"}, "shop/"+host+": event 3 is missing before this one", "1 thing does not fit")
	republish(ctx, t, d.bus.JetStream(), deployed, strings.Replace(string(deployed.Data), `"target":"edge"`, `"target":"other"`, 1))
	r.says(1, []string{"history", "verify"}, "event 3 (shop/"+host+"-3-", "was changed")
	r.says(0, []string{"history", "verify", "blog"}, "6 events in 1 history")
	converged, err := stream.GetLastMsgForSubject(ctx, "rotatord.event.blog.converged")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(ctx, converged.Sequence); err != nil {
		t.Fatal(err)
	}
	r.says(1, []string{"history", "verify", "blog"}, "blog/"+otherHost+": event 6 is missing at the end: the journal knows of them")
}

func republish(ctx context.Context, t *testing.T, js jetstream.JetStream, m *jetstream.RawStreamMsg, body string) {
	t.Helper()
	if _, err := js.Publish(ctx, m.Subject, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

// TestHistoryHasReloads: what became of a policy, and by whom, before what it led to.
func TestHistoryHasReloads(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	r.start()
	r.recorded(b)
	first := sha256Of(t, r.dir+"/policies/shop.yaml")
	r.policy("shop", host, "guard: {min_remaining: 1d}\n")
	second := sha256Of(t, r.dir+"/policies/shop.yaml")
	r.says(0, []string{"reload"}, "changed: shop")
	if err := os.Rename(r.dir+"/policies/shop.yaml", r.dir+"/shop.gone"); err != nil {
		t.Fatal(err)
	}
	r.says(0, []string{"reload"}, "removed: shop")
	var reloads []admin.Event
	eventually(t, "the events", func() bool {
		reloads = slices.DeleteFunc(asked[admin.History](r, 0, "history").Events, func(e admin.Event) bool { return e.Kind != "reloaded" })
		return len(reloads) == 2
	})
	for i, want := range []struct{ policy, reason string }{{"", "removed, on node test: asked by user "}, {second, "changed, on node test: asked by user "}} {
		if e := reloads[i]; e.PolicySHA256 != want.policy || !strings.HasPrefix(e.Reason, want.reason) || !strings.HasPrefix(e.By, "user ") || e.Chain.Sequence != uint64(2-i) {
			t.Errorf("event %+v, want %+v", e, want)
		}
	}
	if first == second {
		t.Error("the policies are the same")
	}
	r.says(0, []string{"history", "verify"}, "whole, and as they were written")
}

// TestUntoldHolds: an event of a policy that could not be published is published when the
// stream takes it, whether or not anything else happens to the policy.
func TestUntoldHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	d := r.start()
	r.recorded(b)
	limit := func(size int32) {
		t.Helper()
		stream, err := d.bus.JetStream().Stream(t.Context(), "ROTATORD_EVENTS")
		must(t, err)
		config := stream.CachedInfo().Config
		config.MaxMsgSize = size
		_, err = d.bus.JetStream().UpdateStream(t.Context(), config)
		must(t, err)
	}
	limit(10)
	r.says(0, []string{"pause", "shop"})
	if history := r.says(0, []string{"history", "shop"}); strings.Contains(history, " paused ") {
		t.Fatalf("the stream took the event:\n%s", history)
	}
	limit(-1)
	eventually(t, "the event", func() bool {
		_, history, _ := r.ask("history", "shop")
		return strings.Contains(history, " paused ")
	})
	r.says(0, []string{"history", "verify"}, "whole, and as they were written")
}
