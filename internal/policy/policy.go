package policy

import (
	"net"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/scheduler"
)

// Policy is one YAML document: a source, targets, and the rules of when and how.
type Policy struct {
	// Name has 1 to 63 of a-z, 0-9 and hyphens, and is unique.
	Name    string   `yaml:"name"`
	Source  Source   `yaml:"source"`
	Targets []Target `yaml:"targets"`
	When    When     `yaml:"when"`
	Verify  Verify   `yaml:"verify"`
	Guard   Guard    `yaml:"guard"`
	Retain  Retain   `yaml:"retain"`
	Drift   Drift    `yaml:"drift"`
	Canary  Canary   `yaml:"canary"`

	// File is where the policy was read from, SHA256 the hash of what was in it: what sha256sum
	// prints.
	File   string `yaml:"-"`
	SHA256 string `yaml:"-"`
}

// Directory takes bundles from PEM files.
type Directory struct {
	// Path is the directory.
	Path string `yaml:"path"`
	// Recursive looks below the directory too.
	Recursive bool  `yaml:"recursive"`
	Match     Match `yaml:"match"`
	// KeyPasswordFile holds the password of encrypted keys.
	KeyPasswordFile SecretFile `yaml:"key_password_file"`
	// Rescan is how often everything is looked at even if nothing was heard. Default 5m.
	Rescan Duration `yaml:"rescan"`
}

// Match selects certificates; an absent condition holds for all.
type Match struct {
	// DNSNames are patterns with *, of which one must match one of the leaf's names.
	DNSNames []string `yaml:"dns_names"`
	// Issuer is a pattern with * for the issuer's common name.
	Issuer string `yaml:"issuer"`
}

// Matches reports whether the policy takes the certificate.
func (m Match) Matches(info certs.Info) bool {
	if m.Issuer != "" && !globMatch(m.Issuer, info.IssuerCN) {
		return false
	}
	if len(m.DNSNames) == 0 {
		return true
	}
	return slices.ContainsFunc(m.DNSNames, func(pattern string) bool {
		return slices.ContainsFunc(info.Names, func(name string) bool { return globMatch(strings.ToLower(pattern), name) })
	})
}

// globMatch matches * with any characters. Names hold no slash, so path.Match's rule
// about slashes does not bite; common names may, and are matched with it replaced.
func globMatch(pattern, name string) bool {
	clean := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(clean.Replace(pattern), clean.Replace(name))
	return err == nil && ok
}

// When says what makes the daemon look.
type When struct {
	// On lists the triggers that count, of file, nats and drift. Default all.
	On []string `yaml:"on"`
	// Subjects are NATS subjects besides <prefix>.trigger.<policy>.
	Subjects []string `yaml:"subjects"`
	// Renew says when a source that issues makes the next certificate.
	Renew Renew `yaml:"renew"`
	// Schedule is a cron expression of five fields, in UTC: when everything is looked at,
	// drift repaired, and what is due rotated.
	Schedule string `yaml:"schedule"`
	// Windows are when targets may be changed. Default: always.
	Windows []Window `yaml:"windows"`
	// Freeze are spans of time in which they may not.
	Freeze []Freeze `yaml:"freeze"`
	// ExpiryWins is how long before the end of what is served windows and freezes no longer
	// hold. Default 72h.
	ExpiryWins *Duration `yaml:"expiry_wins"`
	// Splay spreads the changes of many assignments over this time, each always at the same
	// place in it. Default 0.
	Splay Duration `yaml:"splay"`

	calendar scheduler.Calendar
	schedule cron.Schedule
}

// Renew is when the next certificate is issued: at a share of the life of the one in
// force, or some time before its end, whichever is earlier.
type Renew struct {
	// At is the share of the life. Default 66%.
	At Percent `yaml:"at"`
	// Before is the time before the end; zero for none.
	Before Duration `yaml:"before"`
}

// Due is when a certificate with this life is to be replaced.
func (r Renew) Due(notBefore, notAfter time.Time) time.Time {
	due := notBefore.Add(time.Duration(float64(notAfter.Sub(notBefore)) * float64(r.At) / 100))
	if before := notAfter.Add(-r.Before.Std()); r.Before > 0 && before.Before(due) {
		due = before
	}
	return due
}

// Hears reports whether a trigger of this kind counts for the policy.
func (w When) Hears(kind string) bool { return slices.Contains(w.On, kind) }

// Verify says how it is proven that the bundle is served.
type Verify struct {
	// Endpoints are host:port pairs that get TLS handshakes.
	Endpoints []string `yaml:"endpoints"`
	// Addresses pin where the endpoints are reached: IP addresses, with a port if it
	// differs. Default: every address that the name resolves to.
	Addresses []string `yaml:"addresses"`
	// CAFile holds the roots for the served chain. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// Chain is verify (default) or ignore, which compares fingerprints only.
	Chain string `yaml:"chain"`
	// Within is how long it may take until the bundle is served everywhere. Default 10m.
	Within Duration `yaml:"within"`
	// Successes is how many proofs in a row must succeed, 250 ms apart, for endpoints with
	// several servers behind one address. Default: 1, or 3 where a target reloads a program, whose
	// old process may answer for a moment beside the new one.
	Successes int `yaml:"successes"`
	// OnFailure is rollback (default) or keep: what becomes of a bundle that is not served
	// within that time. Back goes only what was proven to be served before.
	OnFailure string `yaml:"on_failure"`
}

// Guard refuses bundles that would make things worse. Rules that need no setting hold
// always: pair and chain, dates, key strength, covered endpoints, nothing older than what
// is served.
type Guard struct {
	// MinRemaining is how long a bundle must still be valid. Default 0.
	MinRemaining Duration `yaml:"min_remaining"`
	// AllowLostNames are patterns with * of names that a new bundle may lack although its
	// predecessor had them.
	AllowLostNames []string `yaml:"allow_lost_names"`
	// AllowIssuerChange lets another CA issue the next bundle. Default true.
	AllowIssuerChange *bool `yaml:"allow_issuer_change"`
}

// AllowsLost reports whether a name may be lost.
func (g Guard) AllowsLost(name string) bool {
	return slices.ContainsFunc(g.AllowLostNames, func(pattern string) bool { return globMatch(strings.ToLower(pattern), name) })
}

// Canary changes some targets first, and the rest when these have served the bundle for a
// while.
type Canary struct {
	// Targets are names of targets of the policy; none: all at once.
	Targets []string `yaml:"targets"`
	// Bake is how long they serve it, proven, before the rest follows. Default 15m.
	Bake *Duration `yaml:"bake"`
}

// Retain says what becomes of superseded certificates.
type Retain struct {
	// Superseded is how many stay as the way back. Default 1.
	Superseded *int `yaml:"superseded"`
	// For is how long each stays at least. Default 72h.
	For *Duration `yaml:"for"`
}

// Drift says how often wanted and served are compared without another reason.
type Drift struct {
	// Every is the span between two comparisons. Default 1h. Where a service can list what its hosts
	// use, one list serves all assignments, and one comparison in 24 reads everything.
	Every Duration `yaml:"every"`
	// Action is repair (default) or report.
	Action string `yaml:"action"`
}

// What becomes of a bundle that is not served in time.
const (
	OnFailureRollBack = "rollback"
	OnFailureKeep     = "keep"
)

// The trigger kinds that when.on may name.
const (
	OnFile  = "file"
	OnNATS  = "nats"
	OnDrift = "drift"
)

// The closed sets of a policy, for the check and for the schema.
var (
	triggers     = []string{OnFile, OnNATS, OnDrift}
	chains       = []string{"verify", "ignore"}
	onFailures   = []string{OnFailureRollBack, OnFailureKeep}
	driftActions = []string{"repair", "report"}
)

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostPattern    = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	subjectPattern = regexp.MustCompile(`^[^\s.*>]+(\.[^\s.*>]+)*$`)
)

const (
	defaultRescan = Duration(5 * time.Minute)
	minRescan     = Duration(time.Second)
	defaultWithin = Duration(10 * time.Minute)
	defaultRetain = Duration(72 * time.Hour)
	defaultDrift  = Duration(time.Hour)
	defaultBake   = Duration(15 * time.Minute)
	maxSuccesses  = 100
	// successesAfterReload at 250 ms from one to the next: nginx starts its new worker 100 ms
	// before it tells the old one to go (ngx_master_process_cycle), and takes its time when busy.
	successesAfterReload = 3
	// defaultRenewAt: two thirds of a life over, and a third left to find out why it failed.
	defaultRenewAt = Percent(66)
	minDrift       = Duration(10 * time.Second)
)

// SameRules reports whether two policies say the same, however they were written.
func (p *Policy) SameRules(other *Policy) bool {
	a, b := *p, *other
	a.SHA256, b.SHA256 = "", ""
	return reflect.DeepEqual(a, b)
}

// complete fills defaults in, resolves paths and checks everything that can be
// checked with the configuration at hand.
func (p *Policy) complete(d *document, r resolver, c *Config) {
	p.File, p.SHA256 = d.file, d.sha256
	switch {
	case p.Name == "":
		d.addAt("$", "name is missing")
	case !namePattern.MatchString(p.Name):
		d.addAt("$.name", "a policy's name has 1 to 63 of a-z, 0-9 and hyphens; %q has not", p.Name)
	}
	p.completeTargets(d, r, c)
	p.completeSource(d, r, c)
	p.When.complete(d, c)
	p.When.Renew.complete(d, &p.Source)
	p.When.completeTimes(d)
	p.Verify.complete(d, r, slices.ContainsFunc(p.Targets, Target.reloads))
	p.Guard.complete(d)
	p.Retain.complete(d)
	p.Drift.complete(d)
	p.completeCanary(d)
}

func knownClouds(c *Config) string {
	if len(c.Clouds) == 0 {
		return ", which has no clouds"
	}
	return ", which has " + strings.Join(sortedKeys(c.Clouds), ", ")
}

func (w *When) complete(d *document, c *Config) {
	if len(w.On) == 0 {
		w.On = slices.Clone(triggers)
	}
	for i, on := range w.On {
		oneOf(d, "$.when.on["+strconv.Itoa(i)+"]", on, triggers)
	}
	for i, subject := range w.Subjects {
		at := "$.when.subjects[" + strconv.Itoa(i) + "]"
		switch {
		case !subjectPattern.MatchString(subject):
			d.addAt(at, "%q is not a NATS subject; wildcards cannot be used here", subject)
		case subject == c.NATS.Prefix || strings.HasPrefix(subject, c.NATS.Prefix+".") || strings.HasPrefix(subject, "$") || strings.HasPrefix(subject, "_INBOX."):
			d.addAt(at, "subject %q is one of rotatord's or the server's own; <prefix>.trigger.<policy> is heard anyway", subject)
		}
	}
}

func (r *Renew) complete(d *document, s *Source) {
	const at = "$.when.renew"
	if !s.Issues() {
		if *r != (Renew{}) {
			d.addAt(at, "renew is for sources that issue; what is in a directory is renewed by whoever writes it")
		}
		return
	}
	if r.At == 0 {
		r.At = defaultRenewAt
	}
	if ca := s.PrivateCA; ca != nil && r.Before > 0 && ca.Validity.Type != "" && r.Before.Std() >= ca.Validity.Span() {
		d.addAt(at+".before", "before %s is as long as the certificate's whole life: it would be renewed without end", r.Before)
	}
}

func (v *Verify) complete(d *document, r resolver, reloads bool) {
	for i, endpoint := range v.Endpoints {
		at := "$.verify.endpoints[" + strconv.Itoa(i) + "]"
		host, port, err := net.SplitHostPort(endpoint)
		switch {
		case err != nil || !isPort(port):
			d.addAt(at, "%q is not host:port, as in shop.example.com:443", endpoint)
		case strings.HasPrefix(host, "*.") || !hostPattern.MatchString(strings.ToLower(host)):
			d.addAt(at, "%q is not a host name that can be connected to", host)
		}
	}
	for i, address := range v.Addresses {
		host := address
		if h, port, err := net.SplitHostPort(address); err == nil && isPort(port) {
			host = h
		}
		if net.ParseIP(host) == nil {
			d.addAt("$.verify.addresses["+strconv.Itoa(i)+"]", "%q is not an IP address, with or without a port", address)
		}
	}
	if len(v.Addresses) > 0 && len(v.Endpoints) == 0 {
		d.addAt("$.verify.addresses", "addresses pins endpoints, and there are none")
	}
	v.CAFile = checkedFile(d, r, "$.verify.ca_file", v.CAFile)
	if v.Chain == "" {
		v.Chain = "verify"
	}
	oneOf(d, "$.verify.chain", v.Chain, chains)
	if v.Within == 0 {
		v.Within = defaultWithin
	}
	switch {
	case v.Successes == 0 && reloads:
		v.Successes = successesAfterReload
	case v.Successes == 0:
		v.Successes = 1
	}
	d.checkWhole("$.verify.successes")
	if v.Successes < 0 || v.Successes > maxSuccesses {
		d.addAt("$.verify.successes", "successes is %d; want 1 to %d", v.Successes, maxSuccesses)
	}
	if v.OnFailure == "" {
		v.OnFailure = OnFailureRollBack
	}
	oneOf(d, "$.verify.on_failure", v.OnFailure, onFailures)
}

func (g *Guard) complete(d *document) {
	for i, pattern := range g.AllowLostNames {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			d.addAt("$.guard.allow_lost_names["+strconv.Itoa(i)+"]", "%q is not a pattern", pattern)
		}
	}
	if g.AllowIssuerChange == nil {
		g.AllowIssuerChange = new(true)
	}
}

func (p *Policy) completeCanary(d *document) {
	c := &p.Canary
	for i, name := range c.Targets {
		at := "$.canary.targets[" + strconv.Itoa(i) + "]"
		known := slices.IndexFunc(p.Targets, func(t Target) bool { return t.Name == name })
		switch {
		case known < 0:
			d.addAt(at, "target %q is not one of this policy's", name)
		case p.Targets[known].Last():
			d.addAt(at, "target %q comes last and cannot come first", name)
		case slices.Index(c.Targets, name) < i:
			d.addAt(at, "target %q is there twice", name)
		}
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(c.Targets))); len(distinct) > 0 && len(distinct) >= len(p.Targets) {
		d.addAt("$.canary.targets", "all targets are canaries; leave out those that come after")
	}
	if c.Bake != nil && len(c.Targets) == 0 {
		d.addAt("$.canary.bake", "bake is for canary.targets, and there are none")
	}
	if c.Bake == nil {
		c.Bake = new(defaultBake)
	}
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func (r *Retain) complete(d *document) {
	if r.Superseded == nil {
		r.Superseded = new(1)
	}
	d.checkWhole("$.retain.superseded")
	if *r.Superseded < 0 {
		d.addAt("$.retain.superseded", "superseded is %d; it cannot be negative", *r.Superseded)
	}
	if r.For == nil {
		r.For = new(defaultRetain)
	}
}

func (dr *Drift) complete(d *document) {
	if dr.Every == 0 {
		dr.Every = defaultDrift
	}
	if dr.Every < minDrift {
		d.addAt("$.drift.every", "every %s is shorter than %s", dr.Every, minDrift)
	}
	if dr.Action == "" {
		dr.Action = "repair"
	}
	oneOf(d, "$.drift.action", dr.Action, driftActions)
}
