package huaweicloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/providers"
)

// Whatever happens in whatever order: the circuit opens after exactly so many failures
// in a row, lets one trial through when its time has come, and never for longer than the
// longest pause keeps everybody out.
func TestCircuitProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &circuit{}
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		type call struct{ trial bool }
		var flying []call
		failures, open, trials := 0, false, 0
		var opensUntil time.Time
		pause := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"send", "send", "send", "settle", "settle", "time"}).Draw(t, "step") {
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
			case "send":
				looked := c.check(now)
				trial, err := c.admit(now)
				if (looked == nil) != (err == nil) {
					t.Fatalf("check says %v, admit %v", looked, err)
				}
				held := open && (trials > 0 || now.Before(opensUntil))
				if held != (err != nil) {
					t.Fatalf("held back %t (%v), want %t", err != nil, err, held)
				}
				if err != nil {
					e, _ := errors.AsType[*openError](err)
					if e.retryAfter <= 0 || e.retryAfter > lastCircuitPause || e.why == "" || e.since.After(now) {
						t.Fatalf("error %+v", e)
					}
					continue
				}
				if trial != open {
					t.Fatalf("trial %t while open is %t", trial, open)
				}
				if trial {
					trials++
				}
				flying = append(flying, call{trial})
			case "settle":
				if len(flying) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				f := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				o := rapid.SampledFrom([]outcome{alive, down, down, down, nothing}).Draw(t, "outcome")
				changed := c.settle(now, f.trial, o, "it is down")
				was := open
				switch {
				case open && !f.trial: // sent before
				case f.trial && o == alive:
					open, failures, trials, pause = false, 0, 0, 0
				case f.trial && o == nothing:
					trials = 0
				case f.trial:
					trials = 0
					pause = min(2*pause, lastCircuitPause)
					opensUntil = now.Add(pause)
				case o == alive:
					failures = 0
				case o == down:
					if failures++; failures == circuitFailures {
						open, pause = true, firstCircuitPause
						opensUntil = now.Add(pause)
					}
				}
				if changed != (was != open) {
					t.Fatalf("changed %t, open was %t and is %t", changed, was, open)
				}
			}
			if trials > 1 {
				t.Fatal("two trial calls at once")
			}
		}
	})
}

func TestCircuitOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		meter, out := &recorder{}, &logs{}
		cfg := keyConfig()
		cfg.Meter, cfg.Logger = meter, out.logger()
		c, cloud := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
			if !up && strings.HasPrefix(r.URL.Host, "waf") {
				return reply(503, `{"error_code":"APIGW.0201","error_msg":"backend unavailable"}`), nil
			}
			return reply(200, `{"id":"1"}`), nil
		})
		began := time.Now().UTC().Format(time.RFC3339)
		for range circuitFailures {
			wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		}
		sent := len(cloud.calls)
		// From now on nothing is sent, reads are not repeated, and it is said why.
		for _, call := range []Call{getCall(nil), createCall(nil, nil)} {
			start := time.Now()
			e := wantKind(t, c.Do(t.Context(), call), providers.KindUnavailable)
			if e.RetryAfter != firstCircuitPause || time.Since(start) != 0 || len(cloud.calls) != sent {
				t.Errorf("retry after %s, took %s, %d calls more", e.RetryAfter, time.Since(start), len(cloud.calls)-sent)
			}
			trial := time.Now().Add(firstCircuitPause).UTC().Format(time.RFC3339)
			for _, want := range []string{"since " + began, "APIGW.0201", "at " + trial, "not sent"} {
				if !strings.Contains(e.Error(), want) {
					t.Errorf("no %q in %v", want, e)
				}
			}
		}
		// The others go on.
		other := getCall(nil)
		other.Service = APIG
		if err := c.Do(t.Context(), other); err != nil {
			t.Error(err)
		}
		second, _ := fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) { return reply(200, `{}`), nil })
		if err := second.Do(t.Context(), getCall(nil)); err != nil {
			t.Error(err)
		}
		// One trial call, which fails: twice as long.
		time.Sleep(firstCircuitPause)
		wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		if e := wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnavailable); e.RetryAfter != 2*firstCircuitPause {
			t.Errorf("retry after %s", e.RetryAfter)
		}
		// One that succeeds, and all is well.
		up = true
		time.Sleep(2 * firstCircuitPause)
		for range 2 {
			if err := c.Do(t.Context(), createCall(nil, nil)); err != nil {
				t.Error(err)
			}
		}
		if got := strings.Join(meter.circuits, ", "); got != "waf open, waf closed" {
			t.Errorf("metered %s", got)
		}
		if !strings.Contains(out.String(), "service is down") || !strings.Contains(out.String(), "service is back") {
			t.Error("the log does not tell")
		}
	})
}

// What a service refuses, and callers that give up, say nothing against it.
func TestCircuitStaysClosed(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"400": func(*http.Request) (*http.Response, error) { return reply(400, ""), nil },
		"401": func(*http.Request) (*http.Response, error) { return reply(401, ""), nil },
		"404": func(*http.Request) (*http.Response, error) { return reply(404, ""), nil },
		"409": func(*http.Request) (*http.Response, error) { return reply(409, ""), nil },
		"given up": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, cloud := fakeClient(t, keyConfig(), func(r *http.Request, _ []byte) (*http.Response, error) { return answer(r) })
			for range 3 * circuitFailures {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := c.Do(ctx, createCall(nil, nil)); err == nil {
					t.Errorf("%s: no error", name)
				}
				cancel()
			}
			if len(cloud.calls) != 3*circuitFailures {
				t.Errorf("%s: %d calls were sent, want all", name, len(cloud.calls))
			}
		})
	}
}

// A trial call whose caller gives up leaves its place to the next one.
func TestCircuitTrialGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := false
		c, cloud := fakeClient(t, keyConfig(), func(r *http.Request, _ []byte) (*http.Response, error) {
			if hang {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return reply(500, ""), nil
		})
		for range circuitFailures {
			wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		}
		time.Sleep(firstCircuitPause)
		hang = true
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { gone <- c.Do(ctx, createCall(nil, nil)) }()
		synctest.Wait()
		if e := wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnavailable); e.RetryAfter != trialPause || !strings.Contains(e.Error(), "on its way") {
			t.Errorf("got %v", e)
		}
		cancel()
		<-gone
		sent := len(cloud.calls)
		hang = false
		wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		if len(cloud.calls) != sent+1 {
			t.Error("the next call was not the trial")
		}
	})
}

// 1, 2, 4 ... minutes while a service that does not say for how long goes on refusing;
// refusals of calls that were on their way together count once.
func TestThrottleEscalates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := true
		c, _ := fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) {
			time.Sleep(time.Second)
			if throttle {
				return reply(429, ""), nil
			}
			return reply(200, `{}`), nil
		})
		refused := func() time.Duration {
			longest := make(chan time.Duration)
			for range 5 {
				go func() {
					e := asError(c.Do(t.Context(), createCall(nil, nil)))
					if e.Kind != providers.KindThrottled {
						t.Errorf("got %v", e)
					}
					longest <- e.RetryAfter
				}()
			}
			var wait time.Duration
			for range 5 {
				wait = max(wait, <-longest)
			}
			return wait
		}
		for _, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute, 30 * time.Minute} {
			if got := refused(); got != want {
				t.Fatalf("wait %s, want %s", got, want)
			}
			time.Sleep(want)
		}
		throttle = false
		if err := c.Do(t.Context(), createCall(nil, nil)); err != nil {
			t.Error(err)
		}
		throttle = true
		if got := refused(); got != time.Minute {
			t.Errorf("after a success: %s", got)
		}
	})
}

func TestReportQuota(t *testing.T) {
	meter := &recorder{}
	cfg := keyConfig()
	cfg.Meter = meter
	c, _ := fakeClient(t, cfg, nil)
	c.ReportQuota(WAF, 9, 10)
	c.ReportQuota(WAF, 9, 0)
	c.ReportQuota(WAF, -1, 10)
	c.ReportQuota("elb", 1, 2)
	if got := fmt.Sprint(meter.quotas); got != "[waf 9 of 10]" {
		t.Errorf("metered %s", got)
	}
}
