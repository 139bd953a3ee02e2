package metrics

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

var update = flag.Bool("update", false, "write testdata/metrics.golden")

func TestScrape(t *testing.T) {
	m := New(fixedConfig(fixedLook))
	happen(m)
	got := scrape(t, m)
	golden := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("/metrics differs from %s (go test -update writes it):\n%s", golden, difference(string(want), got))
	}
}

// difference lists the lines that went and came.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for _, line := range w {
		if !slices.Contains(g, line) {
			fmt.Fprintln(&out, "-", line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			fmt.Fprintln(&out, "+", line)
		}
	}
	return out.String()
}

func TestLint(t *testing.T) {
	m := New(fixedConfig(fixedLook))
	happen(m)
	problems, err := promlint.New(strings.NewReader(scrape(t, m))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestFirstScrape: before anything happened there is a zero for everything that can be
// counted, so that the first time is seen as an increase.
func TestFirstScrape(t *testing.T) {
	text := scrape(t, New(fixedConfig(func() world { return world{} })))
	for _, series := range []string{
		`rotatord_triggers_total{trigger="nats"} 0`,
		`rotatord_trigger_to_converged_seconds_count{trigger="startup"} 0`,
		`rotatord_rotations_total{policy="mail",result="failed",target_kind="waf"} 0`,
		`rotatord_rotation_duration_seconds_count{target_kind="waf"} 0`,
		`rotatord_rotation_step_failures_total{policy="shop",reason="unavailable",step="activate",target_kind="waf"} 0`,
		`rotatord_retirements_total{result="in_use",target_kind="waf"} 0`,
		`rotatord_superseded_certificates{state="blocked",target_kind="waf"} 0`,
		`rotatord_api_request_failures_total{cloud="huawei",operation="create_token",reason="denied",service="iam"} 0`,
		`rotatord_api_wait_seconds_total{cloud="huawei",service="waf"} 0`,
		`rotatord_nats_messages_total{result="failed",subject="event"} 0`,
		`rotatord_nats_connected 0`,
		`rotatord_journal_write_errors_total 0`,
		`rotatord_work_queue_oldest_timestamp_seconds 0`,
		`rotatord_work_waiting 0`,
		`rotatord_work_waiting_since_timestamp_seconds 0`,
	} {
		if !strings.Contains(text, "\n"+series+"\n") {
			t.Errorf("no %s", series)
		}
	}
}

// TestFirstScrapeHasWhatCanFail: there are zeros for the steps that a kind of target or source has,
// and for no others: a thousand policies have enough of them.
func TestFirstScrapeHasWhatCanFail(t *testing.T) {
	cfg := fixedConfig(func() world { return world{} })
	cfg.Policies = map[string][]string{"shop": {"file"}, "payments": {"private_ca"}, "sso": {"identity_center"}}
	text := scrape(t, New(cfg))
	for kind, steps := range map[string]string{
		"file":            "activate look retire roll_back stage",
		"private_ca":      "issue look revoke",
		"identity_center": "activate issue look retire revoke roll_back stage",
	} {
		var have []string
		for _, found := range regexp.MustCompile(`rotation_step_failures_total\{policy="\w+",reason="denied",step="(\w+)",target_kind="`+kind+`"} 0`).FindAllStringSubmatch(text, -1) {
			have = append(have, found[1])
		}
		if got := strings.Join(have, " "); got != steps {
			t.Errorf("%s: %s; want %s", kind, got, steps)
		}
	}
}

// TestSeriesGoWithTheirObject: gauges are derived at each scrape, so none can stay.
func TestSeriesGoWithTheirObject(t *testing.T) {
	look := fixedLook()
	m := New(fixedConfig(func() world { return look }))
	for _, test := range []struct {
		what, label string
		remove      func()
	}{
		{"endpoint", `target="shop.example.com:8443"`, func() { look.change(1, func(a *Assignment) { a.Record.Probes = a.Record.Probes[:2] }) }},
		{"target", `target="spare"`, func() { look.change(1, func(a *Assignment) { delete(a.Record.Targets, "spare") }) }},
		{"certificate in the source", `certificate="shop.example.com",policy="shop",role="source"`, func() { look.change(1, func(a *Assignment) { a.Wanted = nil }) }},
		{"assignment", `certificate="shop.example.com"`, func() { look.Assignments = slices.Delete(slices.Clone(look.Assignments), 1, 2) }},
		{"source", `source="mail"`, func() { look.Sources = look.Sources[:1] }},
		{"policy", `rotatord_policy_paused{policy="mail"}`, func() { look.Policies = look.Policies[:1] }},
	} {
		if text := scrape(t, m); !strings.Contains(text, test.label) {
			t.Fatalf("no series with %s", test.label)
		}
		test.remove()
		if text := scrape(t, m); strings.Contains(text, test.label) {
			t.Errorf("the %s went and %s stays", test.what, test.label)
		}
	}
	if text := scrape(t, m); !strings.Contains(text, `certificate="www.example.com"`) {
		t.Error("everything went")
	}
}

// TestNothingFailsAScrape: what comes twice, or is no text, costs neither the scrape nor
// the process.
func TestNothingFailsAScrape(t *testing.T) {
	look := fixedLook()
	look.Assignments = append(look.Assignments, fixedLook().Assignments...)
	look.Sources = append(look.Sources, look.Sources...)
	odd := info("odd\xff", 3)
	odd.IssuerCN = "\xc3("
	for _, name := range []string{"odd\xff", "odd\xfe", "odd\ufffd", "", "quote\"\n\\"} {
		look.Assignments = append(look.Assignments, &Assignment{
			ID: rotation.ID{Policy: "shop", Certificate: name}, Wanted: &odd,
			Record: &rotation.Record{Probes: []providers.Probe{
				seen("odd\xff:443", "", odd, 0), seen("odd\xfe:443", "", odd, 0), seen("odd\xfe:443", "", odd, 0),
			}},
		})
	}
	m := New(fixedConfig(func() world { return look }))
	if _, err := m.Registry().Gather(); err != nil {
		t.Error(err)
	}
	text := scrape(t, m)
	if n := strings.Count(text, `rotatord_probe_success{certificate="odd`+"\ufffd"); n != 1 {
		t.Errorf("%d series for three names that became one, want 1", n)
	}
	if n := strings.Count(text, `rotatord_superseded_certificates{state="grace",target_kind="waf"} 1`); n != 1 {
		t.Errorf("what came twice was counted twice:\n%s", text)
	}
}

// TestProbesAreAsGoodAsTheWorst sums up the addresses of an endpoint.
func TestProbesAreAsGoodAsTheWorst(t *testing.T) {
	now, before := info("a.example", 2), info("a.example", 1)
	down := providers.Probe{Endpoint: "a:443", Err: "connect: connection refused"}
	for name, test := range map[string]struct {
		probes   []providers.Probe
		wanted   certs.Info
		ok       bool
		match    bool
		notAfter float64
	}{
		"all right":       {[]providers.Probe{seen("a:443", "1", now, 0), seen("a:443", "2", now, 0)}, now, true, true, seconds(now.NotAfter)},
		"one is old":      {[]providers.Probe{seen("a:443", "1", now, 0), seen("a:443", "2", before, 0)}, now, true, false, seconds(before.NotAfter)},
		"one is down":     {[]providers.Probe{seen("a:443", "1", now, 0), down}, now, false, false, seconds(now.NotAfter)},
		"nothing at all":  {[]providers.Probe{down}, now, false, false, 0},
		"nothing wanted":  {[]providers.Probe{down}, certs.Info{}, false, false, 0},
		"other than none": {[]providers.Probe{seen("a:443", "1", now, 0)}, certs.Info{}, true, false, seconds(now.NotAfter)},
	} {
		m := New(fixedConfig(func() world {
			return world{Assignments: []*Assignment{{
				ID:     rotation.ID{Policy: "shop", Certificate: "a.example"},
				Record: &rotation.Record{Wanted: test.wanted, Probes: test.probes},
			}}}
		}))
		text := scrape(t, m)
		const labels = `{certificate="a.example",policy="shop",target="a:443"}`
		for series, want := range map[string]float64{"probe_success": truth(test.ok), "probe_fingerprint_match": truth(test.match)} {
			if line := fmt.Sprintf("rotatord_%s%s %v\n", series, labels, want); !strings.Contains(text, line) {
				t.Errorf("%s: no %s", name, line)
			}
		}
		line := fmt.Sprintf(`rotatord_certificate_not_after_timestamp_seconds{certificate="a.example",policy="shop",role="served",target="a:443"} %v`, test.notAfter)
		if strings.Contains(text, `role="served"`) != (test.notAfter != 0) || test.notAfter != 0 && !strings.Contains(text, line+"\n") {
			t.Errorf("%s: no %s", name, line)
		}
	}
}

// What is not known of a certificate that a target serves has no series: as 0 it would be one
// that expired long ago, and all zeros are nobody's fingerprint.
func TestUnknownCertificateHasNoSeries(t *testing.T) {
	id := rotation.ID{Policy: "shop", Certificate: "shop.example.com"}
	record := &rotation.Record{State: rotation.StateFailed, Targets: map[string]rotation.TargetRecord{"web": {Kind: "file", Active: &rotation.Placed{Handle: "1"}}}}
	text := scrape(t, New(fixedConfig(func() world { return world{Assignments: []*Assignment{{ID: id, State: record.State, Record: record}}} })))
	if strings.Contains(text, `role="recorded"`) {
		t.Errorf("there are series of a certificate of which nothing is known:\n%s", text)
	}
	if !strings.Contains(text, `rotatord_assignment_state{certificate="shop.example.com",policy="shop",state="failed"} 1`) {
		t.Errorf("the assignment is not shown:\n%s", text)
	}
}
