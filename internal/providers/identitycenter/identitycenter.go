// Package identitycenter makes an application instance of IAM Identity Center both a
// providers.Issuer and a providers.Target: the service makes key and certificate itself,
// the key never leaves it, and the one endpoint is the application instance, which signs
// with the certificate that is active. A Handle is a certificate id.
//
// It may import internal/providers, providers/huaweicloud and internal/certs.
//
// Invariants: a certificate is asked for only after a look for what an earlier try may
// have left; an active certificate is never deleted, and none that the journal does not
// name, unless Config says All.
//
// The calls must be signed: a login by token is not documented for them.
//
// Facts are those of docs/reference/huawei-cloud.md ("reference"), section 5.
package identitycenter

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// Config names one application instance.
type Config struct {
	Client *huaweicloud.Client
	// InstanceID is the Identity Center instance, ApplicationInstanceID begins with
	// app-ins-.
	InstanceID            string
	ApplicationInstanceID string
	// All lets Retire delete superseded certificates also where somebody else made them.
	All bool
	// Logger; nil: none.
	Logger *slog.Logger
}

// Application is one application instance. It is safe for concurrent use.
type Application struct {
	client   *huaweicloud.Client
	instance string
	id       string
	all      bool
	log      *slog.Logger
	settle   time.Duration
	turn     turn // of Issue

	mu   sync.Mutex
	lost time.Time // when a request for a certificate had no answer; zero for never
}

// settleTime is for how long a certificate may be there and not yet in the list. It is
// not documented; nobody should build on a list that is never behind.
const settleTime = 30 * time.Second

// The forms of ids (reference 5.2).
var (
	instancePattern    = regexp.MustCompile(`^[a-zA-Z0-9-]{1,64}$`)
	applicationPattern = regexp.MustCompile(`^app-ins-[A-Za-z0-9]{16}$`)
)

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Application, error) {
	a := &Application{
		client: cfg.Client, instance: cfg.InstanceID, id: cfg.ApplicationInstanceID, all: cfg.All,
		log: cfg.Logger, settle: settleTime, turn: make(turn, 1),
	}
	switch {
	case a.client == nil:
		return nil, errors.New("identitycenter: want a client")
	case !instancePattern.MatchString(a.instance):
		return nil, fmt.Errorf("identitycenter: instance id %q: want 1 to 64 letters, digits and -", a.instance)
	case !applicationPattern.MatchString(a.id):
		return nil, fmt.Errorf("identitycenter: application instance id %q: want app-ins- and 16 letters or digits", a.id)
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	return a, nil
}

// Issuer returns the side that makes certificates.
func (a *Application) Issuer() providers.Issuer { return issuer{a} }

// Target returns the side that makes one of them the active one.
func (a *Application) Target() providers.Target { return target{a} }

// fail makes an error that is found out here and not by the service.
func fail(kind providers.Kind, op, format string, args ...any) *providers.Error {
	return &providers.Error{Kind: kind, Service: huaweicloud.IdentityCenter, Op: op, Message: fmt.Sprintf(format, args...)}
}

// ended is the error of a verb whose context ended before it did anything.
func ended(op string, err error) *providers.Error {
	return &providers.Error{Kind: providers.KindUnavailable, Service: huaweicloud.IdentityCenter, Op: op, Err: err}
}

func isNotFound(err error) bool { return providers.KindOf(err) == providers.KindNotFound }
