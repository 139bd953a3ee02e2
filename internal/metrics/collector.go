package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// Look is what the gauges show besides the assignments, as it is at one moment. They are
// derived from it at each scrape, so that no gauge can be forgotten when its object goes.
type Look struct {
	Policies []Policy
	Sources  []Source
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
	// consumers of NATS by name.
	consumers []string
	desc      descriptions
}

type descriptions struct {
	sourceUp, sourceCertificates, sourceQuarantined, sourceErrors               *prometheus.Desc
	sourceEvents, sourceCoalesced, sourceRescans, sourceLastScan, sourcePolling *prometheus.Desc
	sourceAuthority, policyPaused, natsConnected, queueDepth, queueOldest       *prometheus.Desc
	workWaiting, workWaitingSince                                               *prometheus.Desc
	consumerPending, consumerAckPending                                         *prometheus.Desc
}

func newCollector(look func() Look, consumers []string) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("rotatord_"+name, help, labels, nil)
	}
	source := []string{"kind", "source"}
	return &collector{look: look, consumers: consumers, desc: descriptions{
		sourceUp:           d("source_up", "1 if the source can be read.", source...),
		sourceCertificates: d("source_certificates", "Certificates that a policy takes from its source.", source...),
		sourceQuarantined:  d("source_quarantined", "Files or pairs of a source that cannot be used, by reason.", append(source, "reason")...),
		sourceErrors:       d("source_errors_total", "Problems found in a source since the start, by reason.", append(source, "reason")...),
		sourceEvents:       d("source_events_total", "Changes that the file system told of.", source...),
		sourceCoalesced:    d("source_events_coalesced_total", "Changes that were looked at together with others.", source...),
		sourceRescans:      d("source_rescans_total", "Complete looks at a source, by reason.", append(source, "reason")...),
		sourceLastScan:     d("source_last_scan_timestamp_seconds", "When a source was last looked at completely.", source...),
		sourceAuthority:    d("source_authority_not_after_timestamp_seconds", "End of validity of the CA that signs for a source that issues.", source...),
		policyPaused:       d("policy_paused", "1 while somebody holds the policy.", "policy"),
		sourcePolling:      d("source_polling", "1 if the source is polled because the kernel has no watches left.", source...),

		natsConnected:      d("nats_connected", "1 if NATS answers."),
		consumerPending:    d("nats_consumer_pending", "Messages that a consumer has not been given yet.", "consumer"),
		consumerAckPending: d("nats_consumer_ack_pending", "Messages that a consumer has been given and has not acknowledged.", "consumer"),
		queueDepth:         d("work_queue_depth", "Assignments that are queued or being worked on."),
		workWaiting:        d("work_waiting", "Assignments of this daemon that wait for a place in the queue: theirs is taken, or NATS is away."),
		workWaitingSince:   d("work_waiting_since_timestamp_seconds", "Since when the first of them; 0 for none."),
		queueOldest:        d("work_queue_oldest_timestamp_seconds", "Since when the oldest of them; 0 for none."),
	}}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	d := c.desc
	for _, desc := range []*prometheus.Desc{
		d.sourceUp, d.sourceCertificates, d.sourceQuarantined, d.sourceErrors,
		d.sourceEvents, d.sourceCoalesced, d.sourceRescans, d.sourceLastScan, d.sourcePolling, d.sourceAuthority, d.policyPaused,
		d.natsConnected, d.queueDepth, d.queueOldest, d.workWaiting, d.workWaitingSince, d.consumerPending, d.consumerAckPending,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	look := c.look()
	o := out{ch}
	c.policyGauges(o, look.Policies)
	sources := map[string]bool{}
	for i := range look.Sources {
		if s := &look.Sources[i]; !sources[s.Policy] {
			sources[s.Policy] = true
			c.source(o, s)
		}
	}
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
