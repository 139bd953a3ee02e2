package metrics

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// contract are all series and their labels. Alerts, dashboards and whoever has built
// their own rely on them: they are added to, and changed with a note to the users.
var contract = map[string]string{
	"rotatord_certificate_not_before_timestamp_seconds":       "policy certificate role target",
	"rotatord_certificate_not_after_timestamp_seconds":        "policy certificate role target",
	"rotatord_certificate_info":                               "policy certificate role target fingerprint_sha256 serial_number subject_cn issuer_cn key_algorithm",
	"rotatord_assignment_state":                               "policy certificate state",
	"rotatord_certificate_renewal_due_timestamp_seconds":      "policy certificate",
	"rotatord_certificate_renewal_deadline_timestamp_seconds": "policy certificate",
	"rotatord_superseded_in_use_not_after_timestamp_seconds":  "policy certificate target",
	"rotatord_policy_paused":                                  "policy",

	"rotatord_nats_consumer_pending":     "consumer",
	"rotatord_nats_consumer_ack_pending": "consumer",

	"rotatord_source_up":                                    "kind source",
	"rotatord_source_certificates":                          "kind source",
	"rotatord_source_quarantined":                           "kind source reason",
	"rotatord_source_errors_total":                          "kind source reason",
	"rotatord_source_events_total":                          "kind source",
	"rotatord_source_events_coalesced_total":                "kind source",
	"rotatord_source_rescans_total":                         "kind source reason",
	"rotatord_source_last_scan_timestamp_seconds":           "kind source",
	"rotatord_source_polling":                               "kind source",
	"rotatord_source_authority_not_after_timestamp_seconds": "kind source",

	"rotatord_triggers_total":                          "trigger",
	"rotatord_rotations_total":                         "policy target_kind result",
	"rotatord_rotation_duration_seconds":               "target_kind",
	"rotatord_trigger_to_converged_seconds":            "trigger",
	"rotatord_rotation_step_failures_total":            "policy target_kind step reason",
	"rotatord_rotation_last_success_timestamp_seconds": "policy certificate target",
	"rotatord_rotation_last_attempt_timestamp_seconds": "policy certificate target",
	"rotatord_rotation_consecutive_failures":           "policy certificate target",
	"rotatord_rotation_retry_due_timestamp_seconds":    "policy certificate target",
	"rotatord_drift_detected":                          "policy certificate target kind",
	"rotatord_superseded_certificates":                 "target_kind state",
	"rotatord_retirements_total":                       "target_kind result",
	"rotatord_rollbacks_total":                         "policy target_kind reason",
	"rotatord_rotation_deferred_total":                 "policy reason",
	"rotatord_window_overridden_total":                 "policy",

	"rotatord_api_requests_total":                       "cloud service operation code",
	"rotatord_api_request_failures_total":               "cloud service operation reason",
	"rotatord_api_request_duration_seconds":             "cloud service operation",
	"rotatord_api_wait_seconds_total":                   "cloud service",
	"rotatord_api_credentials_expiry_timestamp_seconds": "cloud",
	"rotatord_api_circuit_open":                         "cloud service",
	"rotatord_api_quota_used":                           "cloud service",
	"rotatord_api_quota_limit":                          "cloud service",
	"rotatord_clock_skew_seconds":                       "reference",

	"rotatord_probe_success":           "policy certificate target",
	"rotatord_probe_fingerprint_match": "policy certificate target",
	"rotatord_probe_duration_seconds":  "policy certificate target",

	"rotatord_nats_connected":        "",
	"rotatord_nats_reconnects_total": "",
	"rotatord_nats_messages_total":   "subject result",

	"rotatord_build_info":                                   "version revision go_version",
	"rotatord_config_last_reload_successful":                "",
	"rotatord_config_last_reload_success_timestamp_seconds": "",
	"rotatord_scheduler_heartbeat_timestamp_seconds":        "",
	"rotatord_journal_write_errors_total":                   "",
	"rotatord_work_queue_depth":                             "",
	"rotatord_work_queue_oldest_timestamp_seconds":          "",
	"rotatord_work_waiting":                                 "",
	"rotatord_work_waiting_since_timestamp_seconds":         "",
}

var description = regexp.MustCompile(`^Desc\{fqName: "(rotatord_[a-z0-9_]+)", help: "(.*?)", (?:unit: "", )?constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

func TestContract(t *testing.T) {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		New(fixedConfig(fixedLook)).Registry().Describe(descriptions)
		close(descriptions)
	}()
	found := map[string]string{}
	for d := range descriptions {
		parts := description.FindStringSubmatch(d.String())
		if parts == nil {
			if strings.Contains(d.String(), "rotatord") {
				t.Errorf("not understood: %s", d)
			}
			continue
		}
		name, help := parts[1], parts[2]
		found[name] = strings.ReplaceAll(parts[3], ",", " ")
		if !strings.HasSuffix(help, ".") || len(help) < 15 {
			t.Errorf("%s: help is %q, want a sentence", name, help)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if labels, known := contract[name]; !known || labels != found[name] {
			t.Errorf("%s has the labels %q, the contract says %q", name, found[name], labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(contract)) {
		if _, there := found[name]; !there {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestLabelValues: every value comes from the configuration, from the names of
// certificates and endpoints, or from a closed set. A key with a slash is about one
// family or a prefix of families.
func TestLabelValues(t *testing.T) {
	allowed := map[string][]string{
		"policy":      {"shop", "mail", "payments", "sso"},
		"certificate": {"www.example.com", "shop.example.com", "mx.example.com", "new.example.com", "payments.example.com"},
		"target": {"", "edge", "spare", "www.example.com:443", "shop.example.com:443", "shop.example.com:8443",
			"mx.example.com:443", "new.example.com:443", "server", "private_ca"},
		"role":                    {roleSource, roleRecorded, roleServed},
		"assignment_state/state":  texts(rotation.States()),
		"superseded/state":        {"grace", "in_use", "blocked"},
		"drift/kind":              texts(rotation.DriftKinds()),
		"source_/kind":            {"directory", "private_ca", "identity_center"},
		"source":                  {"shop", "mail", "payments", "sso"},
		"source_quarantined/":     texts(certs.Reasons()),
		"source_errors/":          texts(certs.Reasons()),
		"source_rescans/":         texts(watcher.RescanReasons()),
		"rotation_step_failures/": {"denied", "unavailable"},
		"api_request_failures/":   {"denied", "network"},
		"trigger":                 append(texts(rotation.Triggers()), "other"),
		"target_kind":             {"waf", "file"},
		"step":                    texts(rotation.StepKinds()),
		"rotations_/result":       {"ok", "failed"},
		"rollbacks_/":             {"unserved"},
		"rotation_deferred_/":     rotation.DeferralReasons(),
		"retirements_/result":     {"ok", "in_use", "failed"},
		"nats_messages_/result":   {"ack", "nak", "published", "duplicate", "failed"},
		"subject":                 {"trigger", "ack", "work", "event", "control"},
		"cloud":                   {"huawei"},
		"consumer":                {"trigger", "work_any"},
		"reference":               {"huawei"},
		"service":                 {"iam", "waf"},
		"operation":               {"create_token", "create_certificate"},
		"code":                    {"0", "200"},
		"key_algorithm":           {"EC256"},
		"issuer_cn":               {"R11"},
		"subject_cn":              {"www.example.com", "shop.example.com", "mx.example.com", "payments.example.com"},
		"serial_number":           {"0a1b"},
	}
	for _, a := range fixedLook().Assignments {
		if a.Wanted != nil {
			allowed["fingerprint_sha256"] = append(allowed["fingerprint_sha256"], a.Wanted.Fingerprint.String())
		}
		for _, l := range a.Record.Leaves {
			allowed["fingerprint_sha256"] = append(allowed["fingerprint_sha256"], l.Fingerprint.String())
		}
	}
	m := New(fixedConfig(fixedLook))
	happen(m)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name, ours := strings.CutPrefix(family.GetName(), "rotatord_")
		if !ours || name == "build_info" {
			continue
		}
		for _, series := range family.GetMetric() {
			for _, l := range series.GetLabel() {
				if !slices.Contains(allowedIn(allowed, name, l.GetName()), l.GetValue()) {
					t.Errorf("%s has %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
	if text := scrape(t, m); strings.Contains(text, "secret") || strings.Contains(text, "handle-of") {
		t.Error("a path, an error's text or a handle is in a series")
	}
}

// allowedIn finds the set for a label of a family.
func allowedIn(allowed map[string][]string, family, label string) []string {
	for key, set := range allowed {
		prefix, of, specific := strings.Cut(key, "/")
		if specific && strings.HasPrefix(family, prefix) && (of == label || of == "" && label == "reason") {
			return set
		}
	}
	return allowed[label]
}

func texts[S ~string](set []S) []string {
	all := make([]string, len(set))
	for i, s := range set {
		all[i] = string(s)
	}
	return all
}
