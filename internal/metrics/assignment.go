package metrics

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
)

// Assignment is one policy × certificate.
type Assignment struct {
	ID rotation.ID
	// Wanted is what the source has; nil where it has none.
	Wanted *certs.Info
	// Record is what the journal has; nil where it has none.
	Record *rotation.Record
	// State is where it stands; empty where nobody knows.
	State rotation.State
	// Issuer is the kind of source that issues the certificate; empty for others. RenewalDue
	// is when the next one is to be issued; zero while there is none.
	Issuer     string
	RenewalDue time.Time
	// RenewalDeadline is when what is served is so close to its end that windows and freezes
	// no longer hold; zero where nothing is served.
	RenewalDeadline time.Time
}

// family is a gauge that assignments have.
type family int

const (
	famDrift family = iota
	famInfo
	famNotAfter
	famNotBefore
	famRenewalDeadline
	famRenewalDue
	famState
	famProbeDuration
	famProbeMatch
	famProbeSuccess
	famFailures
	famLastAttempt
	famLastSuccess
	famRetryDue
	famInUseNotAfter
	families
)

// mostLabels is how many labels the series with the most of them has.
const mostLabels = 9

// definition is what a family is called and said to be.
type definition struct {
	name, help string
	labels     []string
}

// The labels of most of them.
var (
	labelsOfBundle   = []string{"policy", "certificate", "role", "target"}
	labelsOfTarget   = []string{"policy", "certificate", "target"}
	labelsOfPlanning = []string{"policy", "certificate"}
)

// definitions are those of all families.
var definitions = [families]definition{
	famNotBefore:       {"rotatord_certificate_not_before_timestamp_seconds", "Beginning of a certificate's validity, as the source has it, as recorded, as served.", labelsOfBundle},
	famNotAfter:        {"rotatord_certificate_not_after_timestamp_seconds", "End of a certificate's validity, as the source has it, as recorded, as served.", labelsOfBundle},
	famInfo:            {"rotatord_certificate_info", "A live bundle; always 1.", []string{"policy", "certificate", "role", "target", "fingerprint_sha256", "serial_number", "subject_cn", "issuer_cn", "key_algorithm"}},
	famState:           {"rotatord_assignment_state", "1 for the state in which an assignment is.", []string{"policy", "certificate", "state"}},
	famRenewalDue:      {"rotatord_certificate_renewal_due_timestamp_seconds", "When the policy says to issue the next certificate.", labelsOfPlanning},
	famRenewalDeadline: {"rotatord_certificate_renewal_deadline_timestamp_seconds", "When what is served is so close to its end that windows and freezes no longer hold.", labelsOfPlanning},
	famLastSuccess:     {"rotatord_rotation_last_success_timestamp_seconds", "When a rotation of the target last succeeded; 0 for never.", labelsOfTarget},
	famLastAttempt:     {"rotatord_rotation_last_attempt_timestamp_seconds", "When a rotation of the target was last tried; 0 for never.", labelsOfTarget},
	famFailures:        {"rotatord_rotation_consecutive_failures", "Failed steps in a row at the target.", labelsOfTarget},
	famRetryDue:        {"rotatord_rotation_retry_due_timestamp_seconds", "When the target is tried again after a failure; 0 for no failure.", labelsOfTarget},
	famDrift:           {"rotatord_drift_detected", "1 if what the target serves changed without rotatord.", []string{"policy", "certificate", "target", "kind"}},
	famInUseNotAfter:   {"rotatord_superseded_in_use_not_after_timestamp_seconds", "First end of validity among superseded certificates that something still serves.", labelsOfTarget},
	famProbeSuccess:    {"rotatord_probe_success", "1 if the last TLS handshakes with the endpoint worked and showed an accepted chain.", labelsOfTarget},
	famProbeMatch:      {"rotatord_probe_fingerprint_match", "1 if the last TLS handshakes with the endpoint showed the wanted bundle.", labelsOfTarget},
	famProbeDuration:   {"rotatord_probe_duration_seconds", "Time of the slowest of the last TLS handshakes with the endpoint.", labelsOfTarget},
}

// reading is one value of a family, with its labels in the definition's order.
type reading struct {
	family family
	value  float64
	labels [mostLabels]string
}

// rows are an assignment's series, in an order that is always the same.
type rows []reading

func (r *rows) add(f family, value float64, labels ...string) {
	s := reading{family: f, value: value}
	for i, l := range labels {
		s.labels[i] = text(l)
	}
	*r = append(*r, s)
}

// The roles of a certificate: what the source has, what the journal says is active at a
// target, what a handshake with an endpoint showed.
const (
	roleSource   = "source"
	roleRecorded = "recorded"
	roleServed   = "served"
)

// noRecord stands for what the journal does not have.
var noRecord rotation.Record

func (a *Assignment) record() *rotation.Record {
	if a.Record == nil {
		return &noRecord
	}
	return a.Record
}

// of works out the series of an assignment.
func (r *rows) of(a *Assignment) {
	*r = (*r)[:0]
	policy, certificate, record := a.ID.Policy, a.ID.Certificate, a.record()
	if w := a.Wanted; w != nil {
		r.validity(a, roleSource, "", w.NotBefore, w.NotAfter, w)
	}
	if !a.RenewalDeadline.IsZero() {
		r.add(famRenewalDeadline, seconds(a.RenewalDeadline), policy, certificate)
	}
	if a.Issuer != "" {
		r.add(famRenewalDue, seconds(a.RenewalDue), policy, certificate)
		r.add(famFailures, float64(record.Issuing.Failures), policy, certificate, a.Issuer)
		r.add(famRetryDue, seconds(record.Issuing.RetryAt), policy, certificate, a.Issuer)
	}
	for _, state := range rotation.States() {
		r.add(famState, truth(a.State == state), policy, certificate, string(state))
	}
	for _, name := range sortedKeys(record.Targets) {
		r.target(a, name, record.Targets[name])
	}
	r.probes(a)
}

// sortedKeys spares the common case, one or none, the work of sorting.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	if len(keys) > 1 {
		slices.Sort(keys)
	}
	return keys
}

// validity shows a bundle's dates and which bundle is meant: the latter is the only series
// that has its fingerprint and serial. What is not known has no series: neither a date nor a
// fingerprint is 0.
func (r *rows) validity(a *Assignment, role, target string, notBefore, notAfter time.Time, i *certs.Info) {
	policy, certificate := a.ID.Policy, a.ID.Certificate
	if !notBefore.IsZero() {
		r.add(famNotBefore, seconds(notBefore), policy, certificate, role, target)
	}
	if !notAfter.IsZero() {
		r.add(famNotAfter, seconds(notAfter), policy, certificate, role, target)
	}
	if i.Fingerprint.IsZero() {
		return
	}
	r.add(famInfo, 1, policy, certificate, role, target, i.Fingerprint.String(), i.SerialNumber, i.SubjectCN, i.IssuerCN, i.KeyAlgorithm)
}

// leaf is what is known of a bundle: all of it for those that were in force lately, the
// fingerprint alone for others.
func (a *Assignment) leaf(f certs.Fingerprint) *certs.Info {
	if a.Wanted != nil && a.Wanted.Fingerprint == f {
		return a.Wanted
	}
	leaves := a.record().Leaves
	if i := slices.IndexFunc(leaves, func(l certs.Info) bool { return l.Fingerprint == f }); i >= 0 {
		return &leaves[i]
	}
	return &certs.Info{Fingerprint: f}
}

func (r *rows) target(a *Assignment, name string, t rotation.TargetRecord) {
	policy, certificate := a.ID.Policy, a.ID.Certificate
	r.add(famLastSuccess, seconds(t.LastSuccessAt), policy, certificate, name)
	r.add(famLastAttempt, seconds(t.LastAttemptAt), policy, certificate, name)
	r.add(famFailures, float64(t.Failures), policy, certificate, name)
	r.add(famRetryDue, seconds(t.RetryAt), policy, certificate, name)
	for _, kind := range rotation.DriftKinds() {
		r.add(famDrift, truth(t.Drift == kind), policy, certificate, name, string(kind))
	}
	if p := t.Active; p != nil {
		r.validity(a, roleRecorded, name, p.NotBefore, p.NotAfter, a.leaf(p.Fingerprint))
	}
	var first time.Time
	for _, p := range t.Superseded {
		if p.InUse && !p.NotAfter.IsZero() && (first.IsZero() || p.NotAfter.Before(first)) {
			first = p.NotAfter
		}
	}
	if !first.IsZero() {
		r.add(famInUseNotAfter, seconds(first), policy, certificate, name)
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

func (r *rows) probes(a *Assignment) {
	record := a.record()
	byEndpoint := map[string]*endpoint{}
	for _, p := range record.Probes {
		name := text(p.Endpoint)
		e := byEndpoint[name]
		if e == nil {
			e = &endpoint{ok: true, match: true}
			byEndpoint[name] = e
		}
		e.ok = e.ok && p.Err == ""
		// Where nothing was shown and nothing is wanted, the two are equal and no match.
		e.match = e.match && p.Fingerprint == record.Wanted.Fingerprint && !p.Fingerprint.IsZero()
		e.duration = max(e.duration, p.Duration)
		if !p.NotAfter.IsZero() && (e.notAfter.IsZero() || p.NotAfter.Before(e.notAfter)) {
			e.notBefore, e.notAfter, e.shown = p.NotBefore, p.NotAfter, p.Fingerprint
		}
	}
	for _, name := range sortedKeys(byEndpoint) {
		e := byEndpoint[name]
		r.add(famProbeSuccess, truth(e.ok), a.ID.Policy, a.ID.Certificate, name)
		r.add(famProbeMatch, truth(e.match), a.ID.Policy, a.ID.Certificate, name)
		r.add(famProbeDuration, e.duration.Seconds(), a.ID.Policy, a.ID.Certificate, name)
		if !e.notAfter.IsZero() {
			r.validity(a, roleServed, name, e.notBefore, e.notAfter, a.leaf(e.shown))
		}
	}
}

// distinct leaves out ids that come twice, if only by being made label values: a series that
// comes twice would fail a whole scrape.
func distinct(all []*Assignment) []*Assignment {
	known := make(map[rotation.ID]bool, len(all))
	once := make([]*Assignment, 0, len(all))
	for _, a := range all {
		id := rotation.ID{Policy: text(a.ID.Policy), Certificate: text(a.ID.Certificate)}
		if !known[id] {
			known[id] = true
			once = append(once, a)
		}
	}
	return once
}

// assignments is the plain collector of the assignments' series: it makes all of them at
// each scrape. What is kept ready is held against it.
type assignments struct{ all func() []*Assignment }

func (c assignments) describe(f family) *prometheus.Desc {
	d := definitions[f]
	return prometheus.NewDesc(d.name, d.help, d.labels, nil)
}

// Describe implements prometheus.Collector.
func (c assignments) Describe(ch chan<- *prometheus.Desc) {
	for f := range families {
		ch <- c.describe(f)
	}
}

// Collect implements prometheus.Collector.
func (c assignments) Collect(ch chan<- prometheus.Metric) {
	var descriptions [families]*prometheus.Desc
	for f := range families {
		descriptions[f] = c.describe(f)
	}
	var r rows
	for _, a := range distinct(c.all()) {
		r.of(a)
		for i := range r {
			s := &r[i]
			ch <- prometheus.MustNewConstMetric(descriptions[s.family], prometheus.GaugeValue, s.value, s.labels[:len(definitions[s.family].labels)]...)
		}
	}
}

func (c assignments) superseded() map[pile]int {
	count := map[pile]int{}
	for _, a := range distinct(c.all()) {
		a.pileUp(count)
	}
	return count
}

// pile is a kind of target with what keeps superseded certificates there from going: their
// time (grace), something that serves them (in_use), failures (blocked).
type pile struct{ kind, state string }

const (
	pileGrace   = "grace"
	pileInUse   = "in_use"
	pileBlocked = "blocked"
)

// pileUp adds what the assignment has superseded; kinds of target that have nothing are there too.
func (a *Assignment) pileUp(count map[pile]int) {
	for _, t := range a.record().Targets {
		none(count, t.Kind)
		for _, p := range t.Superseded {
			switch {
			case p.InUse:
				count[pile{t.Kind, pileInUse}]++
			case t.FailedStep == rotation.StepRetire:
				count[pile{t.Kind, pileBlocked}]++
			default:
				count[pile{t.Kind, pileGrace}]++
			}
		}
	}
}

func none(count map[pile]int, kind string) {
	for _, state := range []string{pileGrace, pileInUse, pileBlocked} {
		count[pile{kind, state}] += 0
	}
}

// superseded shows the piles, with zeros for all kinds of target that policies have.
type superseded struct {
	desc  *prometheus.Desc
	kinds *atomic.Pointer[map[string][]string]
	count func() map[pile]int
}

func newSuperseded(kinds *atomic.Pointer[map[string][]string], count func() map[pile]int) superseded {
	return superseded{prometheus.NewDesc("rotatord_superseded_certificates",
		"Remote certificates of ours that nothing should serve any more.", []string{"target_kind", "state"}, nil), kinds, count}
}

// Describe implements prometheus.Collector.
func (c superseded) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c superseded) Collect(ch chan<- prometheus.Metric) {
	count := map[pile]int{}
	for _, kinds := range *c.kinds.Load() {
		for _, kind := range kinds {
			none(count, kind)
		}
	}
	maps.Copy(count, c.count())
	for p, n := range count {
		out{ch}.gauge(c.desc, float64(n), p.kind, p.state)
	}
}
