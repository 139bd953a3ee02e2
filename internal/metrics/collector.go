package metrics

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// Look is everything that the gauges show, as it is at one moment. They are derived
// from it at each scrape, so that no gauge can be forgotten when its object goes.
type Look struct {
	Policies    []Policy
	Assignments []Assignment
	Sources     []Source
	// NATSConnected and the work queue's depth and oldest message.
	NATSConnected bool
	QueueDepth    uint64
	QueueOldest   time.Time
	// WorkWaiting is how many assignments of this daemon have no place in the queue yet.
	WorkWaiting      int
	WorkWaitingSince time.Time
	// Consumers by name; those of Config.Consumers that are missing are at 0.
	Consumers map[string]Consumer
}

// Consumer is what a NATS consumer has before it.
type Consumer struct {
	Pending, AckPending uint64
}

// Policy is one policy in force.
type Policy struct {
	Name string
	// Paused says that somebody holds it.
	Paused bool
}

// Assignment is one policy × certificate.
type Assignment struct {
	ID rotation.ID
	// Wanted is what the source has; nil where it has none.
	Wanted *certs.Info
	Record rotation.Record
	// Issuer is the kind of source that issues the certificate; empty for others. RenewalDue
	// is when the next one is to be issued; zero while there is none.
	Issuer     string
	RenewalDue time.Time
	// RenewalDeadline is when what is served is so close to its end that windows and freezes
	// no longer hold; zero where nothing is served.
	RenewalDeadline time.Time
}

// Source is one policy's source.
type Source struct {
	Kind   string
	Policy string
	// Certificates are those that the policy takes from it.
	Certificates int
	// Snapshot of a directory, or Issuing of a source that issues: one of the two.
	Snapshot *watcher.Snapshot
	Issuing  *rotation.Issuing
}

// collector turns a Look into const metrics.
type collector struct {
	look func() Look
	// policies with the kinds of their targets.
	policies atomic.Pointer[map[string][]string]
	// consumers of NATS by name.
	consumers []string
	desc      descriptions
}

type descriptions struct {
	notBefore, notAfter, info, state                                                *prometheus.Desc
	sourceUp, sourceCertificates, sourceQuarantined, sourceErrors                   *prometheus.Desc
	sourceEvents, sourceCoalesced, sourceRescans, sourceLastScan, sourcePolling     *prometheus.Desc
	sourceAuthority, renewalDue, renewalDeadline, inUseNotAfter, policyPaused       *prometheus.Desc
	lastSuccess, lastAttempt, consecutiveFailures, retryDue, drift, superseded      *prometheus.Desc
	probeSuccess, probeMatch, probeDuration, natsConnected, queueDepth, queueOldest *prometheus.Desc
	workWaiting, workWaitingSince                                                   *prometheus.Desc
	consumerPending, consumerAckPending                                             *prometheus.Desc
}

func newCollector(look func() Look, policies map[string][]string, consumers []string) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("rotatord_"+name, help, labels, nil)
	}
	certificate := []string{"policy", "certificate", "role", "target"}
	source := []string{"kind", "source"}
	target := []string{"policy", "certificate", "target"}
	c := &collector{look: look, consumers: consumers, desc: descriptions{
		notBefore: d("certificate_not_before_timestamp_seconds", "Beginning of a certificate's validity, as the source has it, as recorded, as served.", certificate...),
		notAfter:  d("certificate_not_after_timestamp_seconds", "End of a certificate's validity, as the source has it, as recorded, as served.", certificate...),
		info: d("certificate_info", "A live bundle; always 1.", append(certificate,
			"fingerprint_sha256", "serial_number", "subject_cn", "issuer_cn", "key_algorithm")...),
		state: d("assignment_state", "1 for the state in which an assignment is.", "policy", "certificate", "state"),

		sourceUp:           d("source_up", "1 if the source can be read.", source...),
		sourceCertificates: d("source_certificates", "Certificates that a policy takes from its source.", source...),
		sourceQuarantined:  d("source_quarantined", "Files or pairs of a source that cannot be used, by reason.", append(source, "reason")...),
		sourceErrors:       d("source_errors_total", "Problems found in a source since the start, by reason.", append(source, "reason")...),
		sourceEvents:       d("source_events_total", "Changes that the file system told of.", source...),
		sourceCoalesced:    d("source_events_coalesced_total", "Changes that were looked at together with others.", source...),
		sourceRescans:      d("source_rescans_total", "Complete looks at a source, by reason.", append(source, "reason")...),
		sourceLastScan:     d("source_last_scan_timestamp_seconds", "When a source was last looked at completely.", source...),
		sourceAuthority:    d("source_authority_not_after_timestamp_seconds", "End of validity of the CA that signs for a source that issues.", source...),
		renewalDue:         d("certificate_renewal_due_timestamp_seconds", "When the policy says to issue the next certificate.", "policy", "certificate"),
		renewalDeadline:    d("certificate_renewal_deadline_timestamp_seconds", "When what is served is so close to its end that windows and freezes no longer hold.", "policy", "certificate"),
		policyPaused:       d("policy_paused", "1 while somebody holds the policy.", "policy"),
		sourcePolling:      d("source_polling", "1 if the source is polled because the kernel has no watches left.", source...),

		lastSuccess:         d("rotation_last_success_timestamp_seconds", "When a rotation of the target last succeeded; 0 for never.", target...),
		lastAttempt:         d("rotation_last_attempt_timestamp_seconds", "When a rotation of the target was last tried; 0 for never.", target...),
		consecutiveFailures: d("rotation_consecutive_failures", "Failed steps in a row at the target.", target...),
		retryDue:            d("rotation_retry_due_timestamp_seconds", "When the target is tried again after a failure; 0 for no failure.", target...),
		drift:               d("drift_detected", "1 if what the target serves changed without rotatord.", append(target, "kind")...),
		superseded:          d("superseded_certificates", "Remote certificates of ours that nothing should serve any more.", "target_kind", "state"),
		inUseNotAfter:       d("superseded_in_use_not_after_timestamp_seconds", "First end of validity among superseded certificates that something still serves.", target...),

		probeSuccess:  d("probe_success", "1 if the last TLS handshakes with the endpoint worked and showed an accepted chain.", target...),
		probeMatch:    d("probe_fingerprint_match", "1 if the last TLS handshakes with the endpoint showed the wanted bundle.", target...),
		probeDuration: d("probe_duration_seconds", "Time of the slowest of the last TLS handshakes with the endpoint.", target...),

		natsConnected:      d("nats_connected", "1 if NATS answers."),
		consumerPending:    d("nats_consumer_pending", "Messages that a consumer has not been given yet.", "consumer"),
		consumerAckPending: d("nats_consumer_ack_pending", "Messages that a consumer has been given and has not acknowledged.", "consumer"),
		queueDepth:         d("work_queue_depth", "Assignments that are queued or being worked on."),
		workWaiting:        d("work_waiting", "Assignments of this daemon that wait for a place in the queue: theirs is taken, or NATS is away."),
		workWaitingSince:   d("work_waiting_since_timestamp_seconds", "Since when the first of them; 0 for none."),
		queueOldest:        d("work_queue_oldest_timestamp_seconds", "Since when the oldest of them; 0 for none."),
	}}
	c.policies.Store(&policies)
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	d := c.desc
	for _, desc := range []*prometheus.Desc{
		d.notBefore, d.notAfter, d.info, d.state, d.sourceUp, d.sourceCertificates, d.sourceQuarantined, d.sourceErrors,
		d.sourceEvents, d.sourceCoalesced, d.sourceRescans, d.sourceLastScan, d.sourcePolling, d.lastSuccess, d.lastAttempt,
		d.consecutiveFailures, d.retryDue, d.drift, d.superseded, d.probeSuccess, d.probeMatch, d.probeDuration,
		d.sourceAuthority, d.renewalDue, d.renewalDeadline, d.inUseNotAfter, d.policyPaused, d.natsConnected, d.queueDepth, d.queueOldest, d.workWaiting, d.workWaitingSince, d.consumerPending, d.consumerAckPending,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	look := c.look()
	o := out{ch}
	assignments := distinct(look.Assignments)
	for i := range assignments {
		c.assignment(o, &assignments[i])
	}
	c.policyGauges(o, look.Policies)
	sources := map[string]bool{}
	for i := range look.Sources {
		if s := &look.Sources[i]; !sources[s.Policy] {
			sources[s.Policy] = true
			c.source(o, s)
		}
	}
	c.supersededBy(o, assignments)
	o.gauge(c.desc.natsConnected, truth(look.NATSConnected))
	o.gauge(c.desc.queueDepth, float64(look.QueueDepth))
	for _, name := range c.consumers {
		o.gauge(c.desc.consumerPending, float64(look.Consumers[name].Pending), name)
		o.gauge(c.desc.consumerAckPending, float64(look.Consumers[name].AckPending), name)
	}
	o.gauge(c.desc.queueOldest, seconds(look.QueueOldest))
	o.gauge(c.desc.workWaiting, float64(look.WorkWaiting))
	o.gauge(c.desc.workWaitingSince, seconds(look.WorkWaitingSince))
}

// distinct makes label values of the ids. A series that comes twice would fail the whole
// scrape, so an id that comes twice, if only by being made one, counts once.
func distinct(all []Assignment) []Assignment {
	known := make(map[rotation.ID]bool, len(all))
	once := make([]Assignment, 0, len(all))
	for _, a := range all {
		a.ID = rotation.ID{Policy: text(a.ID.Policy), Certificate: text(a.ID.Certificate)}
		if !known[a.ID] {
			known[a.ID] = true
			once = append(once, a)
		}
	}
	return once
}

// out sends const metrics.
type out struct{ ch chan<- prometheus.Metric }

func (o out) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o out) counter(d *prometheus.Desc, v float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// text is a label value. What is not UTF-8 would end the scrape in a panic, and names
// come from certificates, which anybody may have written.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// policyGauges shows the policies in force; one that comes twice counts once.
func (c *collector) policyGauges(o out, policies []Policy) {
	paused := map[string]bool{}
	for _, p := range policies {
		paused[p.Name] = paused[p.Name] || p.Paused
	}
	for name, is := range paused {
		o.gauge(c.desc.policyPaused, truth(is), name)
	}
}

// The roles of a certificate: what the source has, what the journal says is active at a
// target, what a handshake with an endpoint showed.
const (
	roleSource   = "source"
	roleRecorded = "recorded"
	roleServed   = "served"
)

func (c *collector) assignment(o out, a *Assignment) {
	policy, certificate := a.ID.Policy, a.ID.Certificate
	if w := a.Wanted; w != nil {
		o.gauge(c.desc.notBefore, seconds(w.NotBefore), policy, certificate, roleSource, "")
		o.gauge(c.desc.notAfter, seconds(w.NotAfter), policy, certificate, roleSource, "")
		c.live(o, a, roleSource, "", w)
	}
	if !a.RenewalDeadline.IsZero() {
		o.gauge(c.desc.renewalDeadline, seconds(a.RenewalDeadline), policy, certificate)
	}
	if a.Issuer != "" {
		o.gauge(c.desc.renewalDue, seconds(a.RenewalDue), policy, certificate)
		o.gauge(c.desc.consecutiveFailures, float64(a.Record.Issuing.Failures), policy, certificate, a.Issuer)
		o.gauge(c.desc.retryDue, seconds(a.Record.Issuing.RetryAt), policy, certificate, a.Issuer)
	}
	for _, state := range rotation.States() {
		o.gauge(c.desc.state, truth(a.Record.State == state), policy, certificate, string(state))
	}
	for name, t := range a.Record.Targets {
		c.target(o, a, name, t)
	}
	c.probes(o, a)
}

// live shows which bundle is meant: the only series that has its fingerprint and serial.
func (c *collector) live(o out, a *Assignment, role, target string, i *certs.Info) {
	o.gauge(c.desc.info, 1, a.ID.Policy, a.ID.Certificate, role, target,
		i.Fingerprint.String(), i.SerialNumber, text(i.SubjectCN), text(i.IssuerCN), i.KeyAlgorithm)
}

// leaf is what is known of a bundle: all of it for those that were in force lately, the
// fingerprint alone for others.
func (a *Assignment) leaf(f certs.Fingerprint) *certs.Info {
	if a.Wanted != nil && a.Wanted.Fingerprint == f {
		return a.Wanted
	}
	if i := slices.IndexFunc(a.Record.Leaves, func(l certs.Info) bool { return l.Fingerprint == f }); i >= 0 {
		return &a.Record.Leaves[i]
	}
	return &certs.Info{Fingerprint: f}
}

func (c *collector) target(o out, a *Assignment, name string, t rotation.TargetRecord) {
	labels := []string{a.ID.Policy, a.ID.Certificate, name}
	o.gauge(c.desc.lastSuccess, seconds(t.LastSuccessAt), labels...)
	o.gauge(c.desc.lastAttempt, seconds(t.LastAttemptAt), labels...)
	o.gauge(c.desc.consecutiveFailures, float64(t.Failures), labels...)
	o.gauge(c.desc.retryDue, seconds(t.RetryAt), labels...)
	for _, kind := range rotation.DriftKinds() {
		o.gauge(c.desc.drift, truth(t.Drift == kind), append(labels, string(kind))...)
	}
	if p := t.Active; p != nil {
		o.gauge(c.desc.notBefore, seconds(p.NotBefore), a.ID.Policy, a.ID.Certificate, roleRecorded, name)
		o.gauge(c.desc.notAfter, seconds(p.NotAfter), a.ID.Policy, a.ID.Certificate, roleRecorded, name)
		c.live(o, a, roleRecorded, name, a.leaf(p.Fingerprint))
	}
	var first time.Time
	for _, p := range t.Superseded {
		if p.InUse && !p.NotAfter.IsZero() && (first.IsZero() || p.NotAfter.Before(first)) {
			first = p.NotAfter
		}
	}
	if !first.IsZero() {
		o.gauge(c.desc.inUseNotAfter, seconds(first), labels...)
	}
}

// endpoint sums up the handshakes with all addresses of one endpoint: as good as the
// worst of them.
type endpoint struct {
	ok, match           bool
	notBefore, notAfter time.Time
	shown               certs.Fingerprint
	duration            time.Duration
}

func (c *collector) probes(o out, a *Assignment) {
	byEndpoint := map[string]*endpoint{}
	for _, p := range a.Record.Probes {
		name := text(p.Endpoint)
		e := byEndpoint[name]
		if e == nil {
			e = &endpoint{ok: true, match: true}
			byEndpoint[name] = e
		}
		e.ok = e.ok && p.Err == ""
		// Where nothing was shown and nothing is wanted, the two are equal and no match.
		e.match = e.match && p.Fingerprint == a.Record.Wanted.Fingerprint && !p.Fingerprint.IsZero()
		e.duration = max(e.duration, p.Duration)
		if !p.NotAfter.IsZero() && (e.notAfter.IsZero() || p.NotAfter.Before(e.notAfter)) {
			e.notBefore, e.notAfter, e.shown = p.NotBefore, p.NotAfter, p.Fingerprint
		}
	}
	for name, e := range byEndpoint {
		labels := []string{a.ID.Policy, a.ID.Certificate, name}
		o.gauge(c.desc.probeSuccess, truth(e.ok), labels...)
		o.gauge(c.desc.probeMatch, truth(e.match), labels...)
		o.gauge(c.desc.probeDuration, e.duration.Seconds(), labels...)
		if !e.notAfter.IsZero() {
			o.gauge(c.desc.notBefore, seconds(e.notBefore), a.ID.Policy, a.ID.Certificate, roleServed, name)
			o.gauge(c.desc.notAfter, seconds(e.notAfter), a.ID.Policy, a.ID.Certificate, roleServed, name)
			c.live(o, a, roleServed, name, a.leaf(e.shown))
		}
	}
}

func (c *collector) source(o out, s *Source) {
	labels := []string{s.Kind, s.Policy}
	snapshot := s.Snapshot
	if snapshot == nil {
		c.issuingSource(o, s, labels)
		return
	}
	o.gauge(c.desc.sourceUp, truth(snapshot.Up), labels...)
	o.gauge(c.desc.sourceCertificates, float64(s.Certificates), labels...)
	o.counter(c.desc.sourceEvents, float64(snapshot.Events), labels...)
	o.counter(c.desc.sourceCoalesced, float64(snapshot.Coalesced), labels...)
	o.gauge(c.desc.sourceLastScan, seconds(snapshot.LastScan), labels...)
	o.gauge(c.desc.sourcePolling, truth(snapshot.Polling), labels...)
	quarantined := map[certs.Reason]int{}
	for _, p := range snapshot.Problems {
		quarantined[p.Reason]++
	}
	for _, reason := range certs.Reasons() {
		o.gauge(c.desc.sourceQuarantined, float64(quarantined[reason]), append(labels, string(reason))...)
		o.counter(c.desc.sourceErrors, float64(snapshot.Errors[reason]), append(labels, string(reason))...)
	}
	for _, reason := range watcher.RescanReasons() {
		o.counter(c.desc.sourceRescans, float64(snapshot.Rescans[reason]), append(labels, string(reason))...)
	}
}

// issuingSource shows a source that issues: up means that its last dealings worked.
func (c *collector) issuingSource(o out, s *Source, labels []string) {
	var issuing rotation.Issuing
	if s.Issuing != nil {
		issuing = *s.Issuing
	}
	a := issuing.Authority
	up := !issuing.LookedAt.IsZero() && issuing.Failures == 0 && (a == nil || a.Problem == "")
	o.gauge(c.desc.sourceUp, truth(up), labels...)
	o.gauge(c.desc.sourceCertificates, float64(s.Certificates), labels...)
	o.gauge(c.desc.sourceLastScan, seconds(issuing.LookedAt), labels...)
	if a != nil && !a.NotAfter.IsZero() {
		o.gauge(c.desc.sourceAuthority, seconds(a.NotAfter), labels...)
	}
}

// supersededBy counts by kind of target and by what keeps a certificate from going:
// its time (grace), something that serves it (in_use), failures (blocked).
func (c *collector) supersededBy(o out, assignments []Assignment) {
	type key struct{ kind, state string }
	count := map[key]int{}
	none := func(kind string) {
		for _, state := range []string{"grace", "in_use", "blocked"} {
			count[key{kind, state}] += 0
		}
	}
	for _, kinds := range *c.policies.Load() {
		for _, kind := range kinds {
			none(kind)
		}
	}
	for _, a := range assignments {
		for _, t := range a.Record.Targets {
			none(t.Kind)
			for _, p := range t.Superseded {
				switch {
				case p.InUse:
					count[key{t.Kind, "in_use"}]++
				case t.FailedStep == rotation.StepRetire:
					count[key{t.Kind, "blocked"}]++
				default:
					count[key{t.Kind, "grace"}]++
				}
			}
		}
	}
	for k, n := range count {
		o.gauge(c.desc.superseded, float64(n), k.kind, k.state)
	}
}
