package cloudsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (b *bench) add(f Fault) int {
	b.t.Helper()
	id, err := b.sim.Faults().Add(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func lastEntry(b *bench) Entry {
	all := b.sim.Ledger()
	return all[len(all)-1]
}

// The answers that a fault gives instead of the service's, with the codes and texts of reference 6.2 and 6.6.
func TestFaultAnswers(t *testing.T) {
	tests := map[string]struct {
		status int
		code   string
		text   string
	}{
		FaultInternal:     {500, "WAF.00010001", ""},
		FaultBusy:         {500, "WAF.00010002", "5 minutes"},
		FaultThrottle:     {429, "APIGW.0308", "policy user over ratelimit,limit:200,time:5 minute"},
		FaultUnauthorized: {401, "APIGW.0301", "Incorrect IAM authentication information: "},
		FaultTokenInvalid: {400, "WAF.00012001", ""},
		FaultBadGateway:   {502, "", "<html>"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			for _, phase := range []Phase{Before, After} {
				b.add(Fault{Service: "waf", Operation: "CreateCertificate", Name: name, Count: 1, Phase: phase})
				before := len(b.sim.Certificates())
				r := b.waf("POST", "/waf/certificate", upl("c-"+string(phase), newPair(apiHost)))
				if r.status != tt.status || r.code() != tt.code || !strings.Contains(r.text, tt.text) {
					t.Errorf("got %d %s", r.status, r.text)
				}
				effect := len(b.sim.Certificates()) > before
				if effect != (phase == After) || lastEntry(b).Effect != effect || lastEntry(b).Fault != name || lastEntry(b).Status != tt.status {
					t.Errorf("%s: effect %v, ledger %+v", phase, effect, lastEntry(b))
				}
			}
			wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
		})
	}
	b := newBench(t, nil)
	b.add(Fault{Name: FaultAnswer, Status: 403, Code: "WAF.00022005", Message: "insufficient", Count: 1})
	wantError(t, b.waf("GET", "/waf/certificate", nil), 403, "WAF.00022005")
}

// Count and After count matching calls only; List tells what was struck.
func TestFaultCounting(t *testing.T) {
	b := newBench(t, nil)
	b.add(Fault{Service: "waf", Operation: "ListHost", Name: FaultInternal, After: 1, Count: 2})
	var got []int
	for range 4 {
		wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
		got = append(got, b.waf("GET", "/waf/instance", nil).status)
	}
	if fmt.Sprint(got) != "[200 500 500 200]" {
		t.Errorf("statuses %v", got)
	}
	if list := b.sim.Faults().List(); len(list) != 1 || list[0].Hits != 2 {
		t.Errorf("list: %+v", list)
	}
	b.add(Fault{Name: FaultInternal})
	wantStatus(t, b.waf("GET", "/waf/instance", nil), 500)
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 500)
	b.sim.Faults().Clear()
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
	for _, bad := range []Fault{
		{Name: "nonsense"}, {Name: FaultAnswer}, {Name: FaultDelay}, {Name: FaultHold, Phase: "during"}, {Name: FaultLost, Count: -1},
		{Name: FaultLost, Operation: OperationConnect},
	} {
		if _, err := b.sim.Faults().Add(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// Cut connections: refuse has no effect, lost has one; a caller sees the same.
func TestCutConnections(t *testing.T) {
	b := newBench(t, nil)
	for name, wantEffect := range map[string]bool{FaultRefuse: false, FaultLost: true, FaultCut: true} {
		b.add(Fault{Operation: "CreateCertificate", Name: name, Count: 1})
		before := len(b.sim.Certificates())
		r := b.waf("POST", "/waf/certificate", upl(name, newPair(apiHost)))
		if !errors.Is(r.err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v %s", name, r.err, r.text)
		}
		if effect := len(b.sim.Certificates()) > before; effect != wantEffect || lastEntry(b).Effect != wantEffect || lastEntry(b).Status != -1 {
			t.Errorf("%s: effect %v, ledger %+v", name, effect, lastEntry(b))
		}
	}
}

// Timeouts: without effect and with one; the call ends with the client's patience, or after Delay.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for name, wantEffect := range map[string]bool{FaultTimeout: false, FaultTimeoutAfter: true} {
			b.add(Fault{Operation: "CreateCertificate", Name: name, Count: 2, Delay: time.Minute})
			before := len(b.sim.Certificates())
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			start := time.Now()
			path := "/v1/" + b.sim.Config().ProjectID + "/waf/certificate"
			r := b.sendCtx(ctx, "POST", path, upl(name, newPair(apiHost)), b.withToken)
			cancel()
			if !errors.Is(r.err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
				t.Errorf("%s: %v after %s", name, r.err, time.Since(start))
			}
			if effect := len(b.sim.Certificates()) > before; effect != wantEffect {
				t.Errorf("%s: effect %v", name, effect)
			}
			start = time.Now()
			if r := b.waf("POST", "/waf/certificate", upl(name+"2", newPair(apiHost))); r.err == nil || time.Since(start) != time.Minute {
				t.Errorf("%s without a client's limit: %v after %s", name, r.err, time.Since(start))
			}
		}
	})
}

// Latency and delay pass before the effect, and the effect comes although the caller has left.
func TestDelayOutlivesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Latency = 100 * time.Millisecond })
		start := time.Now()
		wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("latency %s", took)
		}
		b.add(Fault{Operation: "CreateCertificate", Name: FaultDelay, Delay: 20 * time.Second, Count: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r := b.sendCtx(ctx, "POST", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", upl("late", newPair(apiHost)), b.withToken)
		if r.err == nil || len(b.sim.Certificates()) != 1 {
			t.Fatalf("%v, %d certificates", r.err, len(b.sim.Certificates()))
		}
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if got := len(b.sim.Certificates()); got != 2 {
			t.Errorf("%d certificates after the delay", got)
		}
	})
}

// Answers that are broken: half JSON, the wrong type, too much, too slow.
func TestBrokenAnswers(t *testing.T) {
	b := newBench(t, nil)
	b.add(Fault{Operation: "ListCertificates", Name: FaultTruncate, Count: 1})
	r := b.waf("GET", "/waf/certificate?host=true", nil)
	if r.status != 200 || r.err != nil || r.json != nil || !strings.HasPrefix(r.text, "{") {
		t.Errorf("truncate: %d %q %v", r.status, r.text, r.err)
	}
	b.add(Fault{Operation: "ListCertificates", Name: FaultWrongType, Count: 1, Field: "name"})
	r = b.waf("GET", "/waf/certificate?host=true", nil)
	if _, isObject := r.items()[0]["name"].(map[string]any); !isObject {
		t.Errorf("wrong type: %s", r.text)
	}
	b.add(Fault{Operation: "ListCertificates", Name: FaultHuge, Count: 1})
	if r = b.waf("GET", "/waf/certificate?host=true", nil); len(r.text) < hugeMember || !strings.Contains(r.text, "console-shop") {
		t.Errorf("huge: %d bytes, %v", len(r.text), r.err)
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.add(Fault{Operation: "ListCertificates", Name: FaultDrip, Count: 1, Delay: time.Second})
		start := time.Now()
		r := b.waf("GET", "/waf/certificate?host=true", nil)
		if took := time.Since(start); len(r.items()) != 1 || took != time.Duration(len(r.text))*time.Second {
			t.Errorf("drip: %d bytes in %s", len(r.text), took)
		}
	})
}

// expire-token ends the very token that the call carries.
func TestExpireTokenFault(t *testing.T) {
	b := newBench(t, nil)
	other := b.login("project")
	b.add(Fault{Operation: "ShowCertificate", Name: FaultExpireToken, Count: 1})
	wantError(t, b.waf("GET", "/waf/certificate/"+b.sim.Certificates()[0].ID, nil), 401, "APIGW.0301")
	wantError(t, b.waf("GET", "/waf/certificate", nil), 401, "APIGW.0301")
	b.token = other
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
}

// Doubt 13: apply-to-hosts may stop half way, and say so or not.
func TestPartialApply(t *testing.T) {
	for _, status := range []int{0, 500} {
		b := newBench(t, nil)
		id := b.create("new", newPair(shopHost))
		b.add(Fault{Operation: "ApplyCertificateToHost", Name: FaultPartial, Count: 1, Status: status, Code: "WAF.00010001", Message: "Internal error"})
		body := applyBody([]string{b.sim.HostID(apiHost), b.sim.HostID(shopHost)}, []string{b.sim.HostID(inHost)})
		r := b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", body)
		if status == 0 {
			if got := names(asRows(r.json["bind_host"]), "hostname"); r.status != 200 || len(got) != 1 || got[0] != apiHost {
				t.Errorf("answer: %s", r.text)
			}
		} else {
			wantError(t, r, 500, "WAF.00010001")
		}
		if got := b.sim.Certificates()[1].Hosts; fmt.Sprint(got) != "[api.example.com]" || !lastEntry(b).Effect {
			t.Errorf("bound: %v", got)
		}
		wantStatus(t, b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", body), 200)
		if got := b.sim.Certificates()[1].Hosts; len(got) != 3 {
			t.Errorf("after the repeat: %v", got)
		}
	}
}

// hold: a call stands still before or after its effect until it is let go, also when the caller is killed meanwhile.
func TestHold(t *testing.T) {
	for _, phase := range []Phase{Before, After} {
		b := newBench(t, nil)
		id := b.add(Fault{Operation: "CreateCertificate", Name: FaultHold, Phase: phase, Count: 1})
		ctx, kill := context.WithCancel(t.Context())
		ended := make(chan reply, 1)
		go func() {
			ended <- b.sendCtx(ctx, "POST", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", upl("held", newPair(apiHost)), b.withToken)
		}()
		entry, err := b.sim.Faults().WaitHeld(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		effect := len(b.sim.Certificates()) == 2
		if effect != (phase == After) || entry.Effect != effect || entry.Status != 0 || lastEntry(b).Status != 0 {
			t.Errorf("%s: effect %v, entry %+v", phase, effect, entry)
		}
		wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200) // other calls go on
		kill()
		if r := <-ended; !errors.Is(r.err, context.Canceled) {
			t.Errorf("%s: %v", phase, r.err)
		}
		done := make(chan Entry, 1)
		b.sim.Faults().OnCall(func(e Entry, p Phase) {
			if p == After {
				done <- e
			}
		})
		if got := b.sim.Faults().Release(id); got != 1 {
			t.Errorf("%s: released %d", phase, got)
		}
		if phase == Before { // the cloud carries out what it has read, although the caller is dead
			if e := <-done; !e.Effect || len(b.sim.Certificates()) != 2 {
				t.Errorf("after the release: %+v", e)
			}
		}
		b.sim.Faults().OnCall(nil)
		if got := b.sim.Faults().Release(99); got != 0 {
			t.Errorf("released %d of nothing", got)
		}
		if _, err := b.sim.Faults().WaitHeld(t.Context(), 99); err == nil {
			t.Error("waited for nothing")
		}
		if _, err := b.sim.Faults().WaitHeld(ctx, id); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting: %v", err)
		}
	}
}

// Close and Clear let go of held calls; Close without effect.
func TestHoldEnds(t *testing.T) {
	for name, end := range map[string]func(*Sim){"close": func(s *Sim) { _ = s.Close() }, "clear": func(s *Sim) { s.Faults().Clear() }} {
		b := newBench(t, nil)
		id := b.add(Fault{Operation: "CreateCertificate", Name: FaultHold})
		ended := make(chan reply, 1)
		go func() { ended <- b.waf("POST", "/waf/certificate", upl("held", newPair(apiHost))) }()
		if _, err := b.sim.Faults().WaitHeld(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		end(b.sim)
		r := <-ended
		if wantEffect := name == "clear"; (r.err == nil) != wantEffect || (len(b.sim.Certificates()) == 2) != wantEffect {
			t.Errorf("%s: %d %v, %d certificates", name, r.status, r.err, len(b.sim.Certificates()))
		}
	}
}

// OnCall sees both phases of calls that passed authentication, and only those; it may use the simulator.
func TestOnCall(t *testing.T) {
	b := newBench(t, nil)
	var seen []string
	b.sim.Faults().OnCall(func(e Entry, p Phase) {
		seen = append(seen, fmt.Sprintf("%s %s effect=%v certificates=%d", e.Operation, p, e.Effect, len(b.sim.Certificates())))
	})
	wantStatus(t, b.send("GET", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", nil), 401)
	b.create("new", newPair(apiHost))
	want := "[CreateCertificate before effect=false certificates=1 CreateCertificate after effect=true certificates=2]"
	if got := fmt.Sprint(seen); got != want {
		t.Errorf("seen %s", got)
	}
}

// Faults of both groups can strike one call, and a fault that needs the service is not used up by a refused call.
func TestFaultGroups(t *testing.T) {
	b := newBench(t, nil)
	b.add(Fault{Operation: "CreateCertificate", Name: FaultLost, Count: 1})
	wantStatus(t, b.send("POST", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", "{}"), 401)
	b.add(Fault{Operation: "CreateCertificate", Name: FaultDelay, Delay: time.Millisecond, Count: 1})
	if r := b.waf("POST", "/waf/certificate", upl("new", newPair(apiHost))); r.err == nil {
		t.Error("the answer is not lost")
	}
	if got := lastEntry(b).Fault; got != "delay+lost" {
		t.Errorf("fault %q", got)
	}
}

// The handler behind net/http: a cut is what that server makes of http.ErrAbortHandler.
func TestHandlerBehindServer(t *testing.T) {
	b := newBench(t, nil)
	server := httptest.NewServer(b.sim.Handler())
	defer server.Close()
	b.base, b.client = server.URL, server.Client()
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
	b.add(Fault{Operation: "CreateCertificate", Name: FaultLost, Count: 1})
	if r := b.waf("POST", "/waf/certificate", upl("new", newPair(apiHost))); r.err == nil || len(b.sim.Certificates()) != 2 {
		t.Errorf("lost: %v", r.err)
	}
	b.add(Fault{Operation: "CreateCertificate", Name: FaultCut, Count: 1})
	if r := b.waf("POST", "/waf/certificate", upl("new2", newPair(apiHost))); !errors.Is(r.err, io.ErrUnexpectedEOF) || r.status != 200 {
		t.Errorf("cut: %d %v", r.status, r.err)
	}
	r := b.waf("POST", "/waf/certificate", strings.Repeat("x", bodyLimit+1))
	if r.err == nil && r.status < 400 {
		t.Errorf("a huge body: %d", r.status)
	}
}
