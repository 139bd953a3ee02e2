package metrics

import (
	"strings"
	"testing"
)

// TestConfigure: what a reload brings has its series at once, what it takes away has none
// any more.
func TestConfigure(t *testing.T) {
	cfg := fixedConfig(func() world { return world{} })
	m := New(cfg)
	m.StepFailed("mail", "waf", "stage", "quota")
	m.Deferred("mail", "window")
	for policy := range cfg.Policies {
		if policy != "mail" {
			m.StepFailed(policy, cfg.Policies[policy][0], "stage", "quota")
		}
	}
	m.Configure(map[string][]string{"shop": {"apig"}, "new": {"file"}}, []string{"other"})
	text := scrape(t, m)
	if strings.Contains(text, `rotatord_rotation_duration_seconds_count{target_kind="waf"}`) || strings.Contains(text, `rotatord_retirements_total{result="ok",target_kind="waf"}`) {
		t.Error("no policy has this kind of target any more, and its series are there")
	}
	for _, gone := range []string{`policy="mail"`, `policy="shop",reason="quota",step="stage",target_kind="waf"`, `cloud="` + cfg.Clouds[0] + `"`} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, there := range []string{
		`rotatord_rotations_total{policy="new",result="ok",target_kind="file"} 0`,
		`rotatord_rotations_total{policy="shop",result="ok",target_kind="apig"} 0`,
		`rotatord_superseded_certificates{state="grace",target_kind="file"} 0`,
		`rotatord_api_circuit_open{cloud="other",service="waf"} 0`,
	} {
		if !strings.Contains(text, there) {
			t.Errorf("%s is missing", there)
		}
	}
}
