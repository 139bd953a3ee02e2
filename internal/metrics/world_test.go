package metrics

import (
	"crypto/sha256"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// noon is when the tests' world stands still.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// world is what is, as a daemon would tell.
type world struct {
	Look
	Assignments []*Assignment
}

// change puts another in the place of an assignment: one that was handed out never changes.
func (w *world) change(i int, how func(*Assignment)) {
	a := *w.Assignments[i]
	a.Record = new(*a.Record)
	a.Record.Targets = maps.Clone(a.Record.Targets)
	how(&a)
	w.Assignments = slices.Clone(w.Assignments)
	w.Assignments[i] = &a
}

// fixedConfig has two policies and one cloud.
func fixedConfig(look func() world) Config {
	return Config{
		Version:            "1.2.3",
		Policies:           map[string][]string{"shop": {"waf"}, "mail": {"waf"}},
		Clouds:             []string{"huawei"},
		Operations:         map[string][]string{"iam": {"create_token"}, "waf": {"create_certificate"}},
		FailureReasons:     []string{"denied", "network"},
		StepFailureReasons: []string{"denied", "unavailable"},
		Consumers:          []string{"trigger", "work_any"},
		Look:               func() Look { return look().Look },
		Assignments:        func() []*Assignment { return look().Assignments },
	}
}

func info(name string, version int) certs.Info {
	return certs.Info{
		Fingerprint: sha256.Sum256([]byte{byte(version)}), SerialNumber: "0a1b", SubjectCN: name, IssuerCN: "R11",
		Names: []string{name}, KeyAlgorithm: "EC256",
		NotBefore: noon.Add(time.Duration(version-10) * day), NotAfter: noon.Add(time.Duration(version+80) * day),
	}
}

func placed(i certs.Info, inUse bool) rotation.Placed {
	return rotation.Placed{
		Handle: "handle-of-a-remote-object", Fingerprint: i.Fingerprint, NotBefore: i.NotBefore, NotAfter: i.NotAfter,
		Since: noon, Owned: true, InUse: inUse,
	}
}

// seen is a handshake that showed a certificate.
func seen(endpoint, address string, i certs.Info, took time.Duration) providers.Probe {
	return providers.Probe{
		Endpoint: endpoint, Address: address, Fingerprint: i.Fingerprint,
		NotBefore: i.NotBefore, NotAfter: i.NotAfter, Duration: took,
	}
}

// fixedLook has an assignment in each kind of trouble, a source with problems and one
// that is away.
func fixedLook() world {
	return world{Assignments: []*Assignment{converged(), rotating(), failed(), unknown(), issued()}, Look: Look{
		Policies: []Policy{{Name: "shop"}, {Name: "mail", Paused: true}, {Name: "payments"}, {Name: "sso"}},
		Sources: []Source{
			{Kind: "directory", Policy: "shop", Certificates: 3, Snapshot: &watcher.Snapshot{
				Ready: true, Up: true, LastScan: noon.Add(-time.Minute), Events: 70, Coalesced: 12,
				Problems: []certs.Problem{
					{Reason: certs.KeyMismatch, Path: "/secret/path/a.pem"}, {Reason: certs.KeyMismatch, Path: "/secret/path/b.pem"},
					{Reason: certs.Truncated, Path: "/secret/path/c.pem", Detail: "secret detail"},
				},
				Rescans: map[watcher.RescanReason]uint64{watcher.Startup: 1, watcher.Interval: 40},
				Errors:  map[certs.Reason]uint64{certs.KeyMismatch: 5, certs.Truncated: 1},
			}},
			{Kind: "directory", Policy: "mail", Snapshot: &watcher.Snapshot{Ready: true, Polling: true}},
			{Kind: "private_ca", Policy: "payments", Certificates: 1, Issuing: &rotation.Issuing{
				LookedAt: noon.Add(-time.Hour), Authority: &providers.Authority{Name: "secret detail", Status: "ACTIVED", NotAfter: noon.Add(900 * day)},
			}},
			{Kind: "identity_center", Policy: "sso", Certificates: 1},
		},
		NATSConnected: true, QueueDepth: 3, QueueOldest: noon.Add(-3 * time.Second), WorkWaiting: 2, WorkWaitingSince: noon.Add(-time.Second),
	}}
}

func converged() *Assignment {
	now, before := info("www.example.com", 2), info("www.example.com", 1)
	return &Assignment{
		ID: rotation.ID{Policy: "shop", Certificate: "www.example.com"}, Wanted: &now, RenewalDeadline: now.NotAfter.Add(-3 * day),
		State: rotation.StateConverged, Record: &rotation.Record{
			Wanted: now,
			Targets: map[string]rotation.TargetRecord{"edge": {
				Kind: "waf", Active: new(placed(now, true)), LastAttemptAt: noon.Add(-time.Hour), LastSuccessAt: noon.Add(-time.Hour),
				Superseded: []rotation.Placed{placed(before, false), placed(before, true)},
			}},
			Probes: []providers.Probe{
				seen("www.example.com:443", "192.0.2.1:443", now, 20*time.Millisecond),
				seen("www.example.com:443", "192.0.2.2:443", now, 30*time.Millisecond),
			},
		},
	}
}

// rotating is served by one address of two with the bundle of before.
func rotating() *Assignment {
	now, before := info("shop.example.com", 5), info("shop.example.com", 4)
	a := &Assignment{
		ID: rotation.ID{Policy: "shop", Certificate: "shop.example.com"}, Wanted: &now,
		State: rotation.StateUnconverged, Record: &rotation.Record{
			Wanted: now, Leaves: []certs.Info{now, before},
			Targets: map[string]rotation.TargetRecord{
				"edge":  {Kind: "waf", Active: new(placed(now, true)), Drift: rotation.DriftServed},
				"spare": {Kind: "waf", LastAttemptAt: noon.Add(-time.Minute)},
			},
			Probes: []providers.Probe{
				seen("shop.example.com:443", "192.0.2.1:443", now, 20*time.Millisecond),
				seen("shop.example.com:443", "192.0.2.2:443", before, time.Second),
				seen("shop.example.com:8443", "", now, 10*time.Millisecond),
			},
		},
	}
	a.Record.Probes[2].Err = "the served chain is not accepted: secret detail"
	return a
}

func failed() *Assignment {
	now := info("mx.example.com", 7)
	return &Assignment{
		ID: rotation.ID{Policy: "mail", Certificate: "mx.example.com"}, Wanted: &now,
		State: rotation.StateFailed, Record: &rotation.Record{
			Wanted: now, Reason: "secret detail",
			Targets: map[string]rotation.TargetRecord{"edge": {
				Kind: "waf", LastAttemptAt: noon, Attempts: rotation.Attempts{
					Failures: 4, FailedStep: rotation.StepRetire, FailedKind: "denied", Failure: "secret detail", RetryAt: noon.Add(time.Hour),
				}, Superseded: []rotation.Placed{placed(now, false)},
			}},
			Probes: []providers.Probe{{Endpoint: "mx.example.com:443", Err: "connect: connection refused", Duration: time.Second}},
		},
	}
}

// issued is renewed, but the next one cannot be had.
func issued() *Assignment {
	now := info("payments.example.com", 9)
	return &Assignment{
		ID: rotation.ID{Policy: "payments", Certificate: "payments.example.com"}, Wanted: &now, Issuer: "private_ca", RenewalDue: noon.Add(-day),
		State: rotation.StateFailed, Record: &rotation.Record{
			Wanted:  now,
			Issuing: rotation.Issuing{Attempts: rotation.Attempts{Failures: 2, FailedStep: rotation.StepIssue, FailedKind: "invalid", Failure: "secret detail", RetryAt: noon.Add(time.Hour)}},
			Targets: map[string]rotation.TargetRecord{"server": {Kind: "file", Active: new(placed(now, true))}},
		},
	}
}

// unknown has only just come: its source lost it and nothing is on record but a
// handshake that showed nothing.
func unknown() *Assignment {
	return &Assignment{
		ID:     rotation.ID{Policy: "mail", Certificate: "new.example.com"},
		Record: &rotation.Record{Probes: []providers.Probe{{Endpoint: "new.example.com:443", Err: "resolve: no such host"}}},
	}
}

// happen lets one of everything be counted.
func happen(m *Metrics) {
	m.Triggered("file")
	m.Triggered("sent by a newer version")
	m.StepFailed("mail", "waf", "retire", "denied")
	m.Rotated("shop", "waf", "ok", 42*time.Second)
	m.Rotated("mail", "waf", "failed", time.Second)
	m.Converged("file", 44*time.Second)
	m.Converged("sent by a newer version", time.Second)
	m.Retired("waf", "in_use")
	m.RolledBack("shop", "waf")
	m.Deferred("shop", "brake")
	m.Message("trigger", "ack")
	m.Reconnected()
	m.JournalFailed()
	m.Reloaded(true, noon.Add(-day))
	m.Reloaded(false, noon)
	m.Beat(noon)
	c := m.Cloud("huawei")
	c.Request("waf", "create_certificate", http.StatusOK, "", 300*time.Millisecond)
	c.Request("waf", "create_certificate", 0, "network", 3*time.Second)
	c.Wait("waf", 2500*time.Millisecond)
	c.CredentialsExpiry(noon.Add(day))
	c.ClockSkew(-1500 * time.Millisecond)
	c.Circuit("waf", true)
	c.Quota("waf", 9, 10)
}

// scrape is what /metrics answers, with every series of the process itself left out.
func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	handler(m).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics: %d %s", w.Code, w.Body)
	}
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "rotatord_") && !strings.HasPrefix(name, "rotatord_build_info") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

func handler(m *Metrics) http.Handler {
	return admin.Handler(admin.Config{Metrics: m.Handler(slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler)})
}
