package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/admin"
)

// startNATSServer is a server of its own, with JetStream.
func startNATSServer(t *testing.T) (url string) {
	t.Helper()
	return runNATSServer(t).ClientURL()
}

func runNATSServer(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// With NATS away nobody waits for long: a plan is made, and a pause is known not to hold.
func TestAskedWithNATSAway(t *testing.T) {
	t.Parallel()
	server := runNATSServer(t)
	r := newRig(t, host)
	r.configure("nats: {url: \"" + server.ClientURL() + "\"}\n")
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	d := r.start()
	r.recorded(b)
	server.Shutdown()
	server.WaitForShutdown()
	eventually(t, "NATS to be away", func() bool { return d.bus.Ready() != nil })
	began := time.Now()
	r.says(0, []string{"status"}, "not ready, nats", "converged")
	r.says(0, []string{"plan"}, "1 certificate is converged, nothing to do")
	r.says(0, []string{"explain", "shop"}, "is converged", "the history cannot be read")
	r.says(1, []string{"pause", "shop"}, "nothing was changed", "is not connected")
	r.says(1, []string{"rotate", "shop"}, "nothing can be rotated now", "is not connected")
	r.says(1, []string{"history"}, "is not connected")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("answered after %s", took)
	}
}

// TestOverNATS asks and tells a daemon over the micro service.
func TestOverNATS(t *testing.T) {
	url := startNATSServer(t)
	r := newRig(t, host)
	r.configure("nats: {url: \"" + url + "\"}\n")
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	r.start()
	r.recorded(b)
	client, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	ask := func(verb, request string, into any) (code string) {
		t.Helper()
		m, err := client.Request("rotatord.control."+verb, []byte(request), 10*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if err := json.Unmarshal(m.Data, into); err != nil {
			t.Fatalf("%s: %v in %s", verb, err, m.Data)
		}
		return m.Header.Get("Nats-Service-Error-Code")
	}
	var status admin.Status
	if code := ask("status", `{"of":"shop"}`, &status); code != "" || status.Assignments[0].State != "converged" {
		t.Errorf("status: %s %+v", code, status)
	}
	var accepted admin.Accepted
	if code := ask("rotate", `{"policy":"shop","force":true,"reason":"a test"}`, &accepted); code != "" || len(accepted.Assignments) != 1 {
		t.Errorf("rotate: %s %+v", code, accepted)
	}
	eventually(t, "the answer to the wish", func() bool {
		ask("status", "", &status)
		return !status.Assignments[0].Answered.Before(accepted.Asked) && status.Assignments[0].State == "converged"
	})
	var plan admin.Plan
	if code := ask("plan", "{}", &plan); code != "" || len(plan.Assignments) != 1 || plan.Changes.Assignments != 0 {
		t.Errorf("plan: %s %+v", code, plan)
	}
	var explanation admin.Explanation
	if code := ask("explain", `{"of":"shop"}`, &explanation); code != "" || explanation.Next.What == "" {
		t.Errorf("explain: %s %+v", code, explanation)
	}
	var policy admin.Policy
	if code := ask("pause", `{"policy":"shop"}`, &policy); code != "" || policy.Paused == nil || policy.Paused.By != "nats" {
		t.Errorf("pause: %s %+v", code, policy)
	}
	policy = admin.Policy{}
	if code := ask("resume", `{"policy":"shop"}`, &policy); code != "" || policy.Paused != nil {
		t.Errorf("resume: %s %+v", code, policy)
	}
	var history admin.History
	if code := ask("history", `{"of":"shop","limit":"200"}`, &history); code != "" || history.Events[0].Kind != "resumed" && history.Events[0].Kind != "converged" {
		t.Errorf("history: %s %+v", code, history)
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if code := ask("rotate", `{"policy":"nope"}`, &refusal); code != "404" || !strings.Contains(refusal.Error, `there is no policy "nope"`) {
		t.Errorf("unknown policy: %s %+v", code, refusal)
	}
	if code := ask("rotate", `{"polcy":"shop"}`, &refusal); code != "409" || !strings.Contains(refusal.Error, "unknown field") {
		t.Errorf("misspelt: %s %+v", code, refusal)
	}
	if _, err := client.Request("rotatord.control.reload", nil, time.Second); err == nil {
		t.Error("reload is offered over NATS")
	}
}
