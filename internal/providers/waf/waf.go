// Package waf makes the web application firewall of Huawei Cloud (cloud and
// dedicated mode) and of Open Telekom Cloud (WAF-Dedicated) a providers.Target.
// An endpoint is a host that WAF protects, by its name or its id; a Handle is a
// certificate id.
//
// It may import internal/providers, providers/huaweicloud and internal/certs.
//
// Invariants: a certificate that providers.Owns denies is never changed or
// deleted; the private key that WAF returns with a certificate is never decoded;
// of a host only the members that name its certificate are ever changed.
//
// Facts are those of docs/reference/huawei-cloud.md ("reference"), section 2.
package waf

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// Modes say where a host is looked for.
const (
	ModeCloud     = "cloud"
	ModeDedicated = "dedicated"
	// ModeAny looks in both; a host that is in both must be named by its id.
	ModeAny = ""
)

// Config says which part of an account's WAF is meant.
type Config struct {
	Client *huaweicloud.Client
	// Mode is ModeCloud, ModeDedicated or ModeAny.
	Mode string
	// EnterpriseProject is sent with every call where set: a certificate or host
	// of another one is not found (reference 2.2). Not on Open Telekom Cloud.
	EnterpriseProject string
	// VerifyCertKey asks WAF to check that key and certificate belong together.
	// nil: true on Huawei Cloud; Open Telekom Cloud does not know it.
	VerifyCertKey *bool
	// Logger; nil: none.
	Logger *slog.Logger
}

// Target is the WAF of one account. It is safe for concurrent use, and meant to
// be shared by all assignments: it remembers host ids.
type Target struct {
	client  *huaweicloud.Client
	modes   []mode
	project string
	verify  bool
	log     *slog.Logger
	hosts   hostIDs
	surveys surveys

	mu      sync.Mutex
	noApply bool // the service has no apply-to-hosts
}

var _ providers.Target = (*Target)(nil)

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Target, error) {
	if cfg.Client == nil {
		return nil, errors.New("waf: want a client")
	}
	t := &Target{client: cfg.Client, project: cfg.EnterpriseProject, log: cfg.Logger}
	otc := cfg.Client.OpenTelekomCloud()
	t.verify = !otc
	if cfg.VerifyCertKey != nil {
		t.verify = *cfg.VerifyCertKey
	}
	// WAF-Dedicated documents neither of these (reference 2.12).
	if otc && (t.verify || t.project != "") {
		return nil, errors.New("waf: Open Telekom Cloud knows neither enterprise projects nor verify_cert_key")
	}
	t.noApply = otc
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.surveys.log = t.log
	switch cfg.Mode {
	case ModeCloud:
		t.modes = []mode{cloudMode}
	case ModeDedicated:
		t.modes = []mode{dedicatedMode}
	case ModeAny:
		t.modes = []mode{cloudMode, dedicatedMode}
	default:
		return nil, fmt.Errorf("waf: mode %q: want %q, %q or none", cfg.Mode, ModeCloud, ModeDedicated)
	}
	return t, nil
}

// parallel is how many calls one verb has under way; the client's limits hold
// for all verbs together.
const parallel = 4

// fail makes an error that is found out here and not by the service.
func fail(kind providers.Kind, op, format string, args ...any) *providers.Error {
	return &providers.Error{
		Kind: kind, Service: huaweicloud.WAF, Op: op, Message: fmt.Sprintf(format, args...),
	}
}
