package metrics

import (
	"strings"
	"testing"
)

// A circuit is closed before anything was called; a quota is not known before a service
// told it.
func TestCloudGaugesAtTheStart(t *testing.T) {
	text := scrape(t, New(fixedConfig(func() world { return world{} })))
	for _, service := range []string{"iam", "waf"} {
		if line := `rotatord_api_circuit_open{cloud="huawei",service="` + service + `"} 0` + "\n"; !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(text, "rotatord_api_quota_") {
		t.Error("there is a quota that nobody told")
	}
}
