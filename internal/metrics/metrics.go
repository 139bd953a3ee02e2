// Package metrics holds every metric of rotatord: its name, help and labels.
//
// It may import internal/rotation, internal/watcher, internal/providers and
// internal/certs for their types and closed sets, golang.org/x/sync, and the Prometheus client. It is told
// what happens through small interfaces of its users and reads what is through one
// function; it asks nobody over a network.
//
// Invariants: a series exists from the first scrape on and goes when its object goes;
// label values come from the configuration or from a closed set, never from an error's
// text or a path; instants are exported, never "seconds until".
package metrics

import (
	"cmp"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/rotatord/rotatord/internal/rotation"
)

// Config names the objects whose series are to exist from the start.
type Config struct {
	Version string
	// Revision of the repository. Default: what the build knows of itself.
	Revision string
	// Policies with the kinds of their targets.
	Policies map[string][]string
	// Clouds by name.
	Clouds []string
	// Operations of the cloud's services: service → operations.
	Operations map[string][]string
	// FailureReasons of cloud calls, a closed set.
	FailureReasons []string
	// StepFailureReasons of rotation steps, a closed set.
	StepFailureReasons []string
	// Consumers of NATS, a closed set.
	Consumers []string
	// Look returns what is, for the gauges.
	Look func() Look
	// Assignments are all that there are; nil for none. One that has not changed since is the
	// same pointer, and nothing that it points to ever changes.
	Assignments func() []*Assignment
}

// Metrics is what the daemon counts. Its methods may be called by any goroutine.
type Metrics struct {
	// live has everything but what assignments have, which board keeps ready; registry has all.
	live, registry *prometheus.Registry
	board          *board
	cfg            Config
	// kinds are the policies with the kinds of their targets.
	kinds atomic.Pointer[map[string][]string]

	triggers       *prometheus.CounterVec
	rotations      *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	toConverged    *prometheus.HistogramVec
	stepFailures   *prometheus.CounterVec
	retirements    *prometheus.CounterVec
	rollBacks      *prometheus.CounterVec
	deferred       *prometheus.CounterVec
	overridden     *prometheus.CounterVec
	apiRequests    *prometheus.CounterVec
	apiFailures    *prometheus.CounterVec
	apiDuration    *prometheus.HistogramVec
	apiWait        *prometheus.CounterVec
	apiExpiry      *prometheus.GaugeVec
	apiCircuit     *prometheus.GaugeVec
	apiQuotaUsed   *prometheus.GaugeVec
	apiQuotaLimit  *prometheus.GaugeVec
	clockSkew      *prometheus.GaugeVec
	natsReconnects prometheus.Counter
	natsMessages   *prometheus.CounterVec
	journalErrors  prometheus.Counter
	reloadOK       prometheus.Gauge
	reloadAt       prometheus.Gauge
	heartbeat      prometheus.Gauge
}

// New registers everything and makes the series of the configured objects.
func New(cfg Config) *Metrics {
	if cfg.Assignments == nil {
		cfg.Assignments = func() []*Assignment { return nil }
	}
	m := &Metrics{live: prometheus.NewRegistry(), registry: prometheus.NewRegistry(), cfg: cfg}
	m.kinds.Store(&cfg.Policies)
	m.board = newBoard(cfg.Assignments)
	m.makeWork()
	m.makeCloud()
	m.makeProcess()
	shared := []prometheus.Collector{
		m.triggers, m.rotations, m.duration, m.toConverged, m.stepFailures, m.retirements, m.rollBacks, m.deferred, m.overridden,
		m.apiRequests, m.apiFailures, m.apiDuration, m.apiWait, m.apiExpiry, m.clockSkew,
		m.apiCircuit, m.apiQuotaUsed, m.apiQuotaLimit,
		m.natsReconnects, m.natsMessages, m.journalErrors, m.reloadOK, m.reloadAt, m.heartbeat,
		newBuildInfo(cfg.Version, cfg.Revision), newCollector(cfg.Look, cfg.Consumers),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	plain := assignments{cfg.Assignments}
	m.live.MustRegister(append(shared, newSuperseded(&m.kinds, m.board.superseded))...)
	m.registry.MustRegister(append(shared, plain, newSuperseded(&m.kinds, plain.superseded))...)
	m.precreate(cfg)
	return m
}

// Configure follows a reload: the series of new policies and clouds come, those of policies
// and clouds that are gone go. It is called by one goroutine at a time.
func (m *Metrics) Configure(policies map[string][]string, clouds []string) {
	before := m.cfg
	m.cfg.Policies, m.cfg.Clouds = policies, clouds
	m.kinds.Store(&policies)
	for policy, kinds := range before.Policies {
		now, stays := policies[policy]
		if !stays {
			m.forget(prometheus.Labels{"policy": policy})
		}
		for _, kind := range kinds {
			if !slices.Contains(now, kind) {
				m.forget(prometheus.Labels{"policy": policy, "target_kind": kind})
			}
		}
	}
	for kind := range kindsOf(before.Policies) {
		if !kindsOf(policies)[kind] {
			m.duration.DeleteLabelValues(kind)
			m.retirements.DeletePartialMatch(prometheus.Labels{"target_kind": kind})
		}
	}
	for _, cloud := range before.Clouds {
		if !slices.Contains(clouds, cloud) {
			m.forget(prometheus.Labels{"cloud": cloud})
			m.clockSkew.DeleteLabelValues(cloud)
		}
	}
	m.precreate(m.cfg)
}

// kindsOf are the kinds of target that any policy has.
func kindsOf(policies map[string][]string) map[string]bool {
	all := map[string]bool{}
	for _, kinds := range policies {
		for _, kind := range kinds {
			all[kind] = true
		}
	}
	return all
}

// forget drops all series with these labels.
func (m *Metrics) forget(labels prometheus.Labels) {
	for _, vec := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.rotations, m.stepFailures, m.rollBacks, m.deferred, m.overridden,
		m.apiRequests, m.apiFailures, m.apiDuration, m.apiWait, m.apiExpiry, m.apiCircuit, m.apiQuotaUsed, m.apiQuotaLimit,
	} {
		vec.DeletePartialMatch(labels)
	}
}

// Registry has every series, made anew at each gathering: what [Metrics.Handler] answers, at
// a hundred times the price.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// histogram buckets, in seconds: from a local file to an hour of propagation, and from
// a loopback call to the longest time-out.
var (
	rotationBuckets = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}
	apiBuckets      = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rotatord_" + name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rotatord_" + name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "rotatord_" + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

func (m *Metrics) makeWork() {
	m.triggers = counter("triggers_total", "Reasons to look at assignments again, by kind.", "trigger")
	m.rotations = counter("rotations_total", "Rotations of single targets that ended, by result.", "policy", "target_kind", "result")
	m.duration = histogram("rotation_duration_seconds", "Time from the first step of a target's rotation to its proof.", rotationBuckets, "target_kind")
	m.toConverged = histogram("trigger_to_converged_seconds", "Time from the trigger of a rotation to the proof that every target serves the bundle.", rotationBuckets, "trigger")
	m.stepFailures = counter("rotation_step_failures_total", "Steps of rotations that failed, by step and reason.", "policy", "target_kind", "step", "reason")
	m.rollBacks = counter("rollbacks_total", "Goings back of a target to the predecessor of a bundle that was not served.", "policy", "target_kind", "reason")
	m.deferred = counter("rotation_deferred_total", "Rotations that had to wait for something other than a failure, by reason.", "policy", "reason")
	m.overridden = counter("window_overridden_total", "Changes outside a policy's windows, because what was served was about to expire.", "policy")
	m.retirements = counter("retirements_total", "Superseded certificates that were to be removed, by result.", "target_kind", "result")
}

func (m *Metrics) makeCloud() {
	m.apiRequests = counter("api_requests_total", "Calls of the cloud's API, by HTTP status; 0 is no answer.", "cloud", "service", "operation", "code")
	m.apiFailures = counter("api_request_failures_total", "Calls of the cloud's API that failed, by reason.", "cloud", "service", "operation", "reason")
	m.apiDuration = histogram("api_request_duration_seconds", "Time of a call of the cloud's API.", apiBuckets, "cloud", "service", "operation")
	m.apiWait = counter("api_wait_seconds_total", "Time that calls waited behind rotatord's own limits.", "cloud", "service")
	m.apiExpiry = gauge("api_credentials_expiry_timestamp_seconds", "When the token or the temporary keys in use end; 0 for keys that do not.", "cloud")
	m.apiCircuit = gauge("api_circuit_open", "1 while calls to a service are stopped because it is down.", "cloud", "service")
	m.apiQuotaUsed = gauge("api_quota_used", "Objects that the account holds in a service, where it tells.", "cloud", "service")
	m.apiQuotaLimit = gauge("api_quota_limit", "Objects that the account may hold in a service, where it tells.", "cloud", "service")
	m.clockSkew = gauge("clock_skew_seconds", "How far this host's clock is ahead of the reference's.", "reference")
}

func (m *Metrics) makeProcess() {
	m.natsReconnects = prometheus.NewCounter(prometheus.CounterOpts{Name: "rotatord_nats_reconnects_total", Help: "Connections to NATS that were made again."})
	m.natsMessages = counter("nats_messages_total", "Messages, by what they carry and what became of them.", "subject", "result")
	m.journalErrors = prometheus.NewCounter(prometheus.CounterOpts{Name: "rotatord_journal_write_errors_total", Help: "Records that could not be written."})
	m.reloadOK = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rotatord_config_last_reload_successful", Help: "1 if the configuration in force is the one in the files as last read."})
	m.reloadAt = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rotatord_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read."})
	m.heartbeat = prometheus.NewGauge(prometheus.GaugeOpts{Name: "rotatord_scheduler_heartbeat_timestamp_seconds", Help: "When the scheduler last made progress."})
}

// precreate makes the series at zero, so that a rate over them sees the first event.
func (m *Metrics) precreate(cfg Config) {
	for _, t := range append(rotation.Triggers(), triggerOther) {
		m.triggers.WithLabelValues(string(t))
		m.toConverged.WithLabelValues(string(t))
	}
	for policy, kinds := range cfg.Policies {
		m.overridden.WithLabelValues(policy)
		for _, reason := range rotation.DeferralReasons() {
			m.deferred.WithLabelValues(policy, reason)
		}
		for _, kind := range kinds {
			m.precreateTarget(policy, kind, cfg.StepFailureReasons)
		}
	}
	for _, cloud := range cfg.Clouds {
		m.apiExpiry.WithLabelValues(cloud)
		m.clockSkew.WithLabelValues(cloud)
		for service, operations := range cfg.Operations {
			m.apiWait.WithLabelValues(cloud, service)
			m.apiCircuit.WithLabelValues(cloud, service)
			for _, operation := range operations {
				m.apiDuration.WithLabelValues(cloud, service, operation)
				for _, reason := range cfg.FailureReasons {
					m.apiFailures.WithLabelValues(cloud, service, operation, reason)
				}
			}
		}
	}
	for subject, results := range map[string][]string{
		"trigger": {"ack", "failed"}, "ack": {"ack", "failed"}, "control": {"ack", "failed"},
		"work": {"published", "duplicate", "failed", "ack", "nak"}, "event": {"published", "duplicate", "failed"},
	} {
		for _, result := range results {
			m.natsMessages.WithLabelValues(subject, result)
		}
	}
}

func (m *Metrics) precreateTarget(policy, kind string, reasons []string) {
	m.duration.WithLabelValues(kind)
	for _, result := range []string{"ok", "failed"} {
		m.rotations.WithLabelValues(policy, kind, result)
	}
	for _, result := range []string{"ok", "in_use", "failed"} {
		m.retirements.WithLabelValues(kind, result)
	}
	m.rollBacks.WithLabelValues(policy, kind, reasonUnserved)
	for _, step := range rotation.StepKindsOf(kind) {
		for _, reason := range reasons {
			m.stepFailures.WithLabelValues(policy, kind, string(step), reason)
		}
	}
}

// triggerOther stands for a trigger that is not known here. Triggers come over NATS
// too, from nodes of other versions; the label's values are a closed set all the same.
const triggerOther rotation.Trigger = "other"

func triggerLabel(trigger string) string {
	if slices.Contains(rotation.Triggers(), rotation.Trigger(trigger)) {
		return trigger
	}
	return string(triggerOther)
}

// Triggered counts a reason to look.
func (m *Metrics) Triggered(trigger string) {
	m.triggers.WithLabelValues(triggerLabel(trigger)).Inc()
}

// StepFailed implements rotation.Meter.
func (m *Metrics) StepFailed(policy, targetKind, step, reason string) {
	m.stepFailures.WithLabelValues(policy, targetKind, step, reason).Inc()
}

// Rotated implements rotation.Meter.
func (m *Metrics) Rotated(policy, targetKind, result string, took time.Duration) {
	m.rotations.WithLabelValues(policy, targetKind, result).Inc()
	if result == "ok" {
		m.duration.WithLabelValues(targetKind).Observe(took.Seconds())
	}
}

// Converged implements rotation.Meter.
func (m *Metrics) Converged(trigger string, took time.Duration) {
	m.toConverged.WithLabelValues(triggerLabel(trigger)).Observe(took.Seconds())
}

// Retired implements rotation.Meter.
func (m *Metrics) Retired(targetKind, result string) {
	m.retirements.WithLabelValues(targetKind, result).Inc()
}

// reasonUnserved is why rotations are rolled back so far.
const reasonUnserved = "unserved"

// RolledBack implements rotation.Meter.
func (m *Metrics) RolledBack(policy, targetKind string) {
	m.rollBacks.WithLabelValues(policy, targetKind, reasonUnserved).Inc()
}

// Deferred implements rotation.Meter.
func (m *Metrics) Deferred(policy, reason string) { m.deferred.WithLabelValues(policy, reason).Inc() }

// WindowOverridden implements rotation.Meter.
func (m *Metrics) WindowOverridden(policy string) { m.overridden.WithLabelValues(policy).Inc() }

// Message implements bus.Meter.
func (m *Metrics) Message(subject, result string) {
	m.natsMessages.WithLabelValues(subject, result).Inc()
}

// Reconnected implements bus.Meter.
func (m *Metrics) Reconnected() { m.natsReconnects.Inc() }

// JournalFailed counts a record that could not be written.
func (m *Metrics) JournalFailed() { m.journalErrors.Inc() }

// Reloaded notes the outcome of reading the configuration.
func (m *Metrics) Reloaded(ok bool, at time.Time) {
	m.reloadOK.Set(truth(ok))
	if ok {
		m.reloadAt.Set(seconds(at))
	}
}

// Beat notes that the scheduler made progress.
func (m *Metrics) Beat(at time.Time) { m.heartbeat.Set(seconds(at)) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is an instant as Prometheus has it; the zero time is 0.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func newBuildInfo(version, revision string) prometheus.Collector {
	goVersion := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && revision == "" {
				revision = s.Value
			}
		}
	}
	revision = cmp.Or(revision, "unknown")
	g := gauge("build_info", "The running program; always 1.", "version", "revision", "go_version")
	g.WithLabelValues(version, revision, goVersion).Set(1)
	return g
}
