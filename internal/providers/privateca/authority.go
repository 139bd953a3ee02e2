package privateca

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// Authorities remembers for a few seconds how CAs are, so that the assignments of an
// account do not each ask for the same. The zero value is ready for use.
type Authorities struct {
	mu  sync.Mutex
	all map[authorityKey]*remembered
}

type authorityKey struct {
	client *huaweicloud.Client
	id     string
}

type remembered struct {
	turn turn // of asking
	ca   authority
	at   time.Time
}

// authorityAge is for how long an answer is good. What has changed since, the service
// says when a certificate is asked for.
const authorityAge = 10 * time.Second

// get returns what is remembered, or asks; never twice at the same time.
func (a *Authorities) get(ctx context.Context, key authorityKey, ask func(context.Context) (authority, error)) (authority, error) {
	a.mu.Lock()
	if a.all == nil {
		a.all = make(map[authorityKey]*remembered)
	}
	r := a.all[key]
	if r == nil {
		r = &remembered{turn: make(turn, 1)}
		a.all[key] = r
	}
	a.mu.Unlock()
	done, err := r.turn.take(ctx)
	if err != nil {
		return authority{}, ended("show private CA "+key.id, err)
	}
	defer done()
	if !r.at.IsZero() && time.Since(r.at) < authorityAge {
		return r.ca, nil
	}
	ca, err := ask(ctx)
	if err != nil {
		return authority{}, err
	}
	r.ca, r.at = ca, time.Now()
	return ca, nil
}

// authority describes the CA; one that does not exist has a Problem only. The quota is
// the account's, and nil where the service does not tell.
func (i *Issuer) authority(ctx context.Context) (providers.Authority, *quota, error) {
	ca, err := i.authorities.get(ctx, authorityKey{i.client, i.spec.IssuerID}, i.readAuthority)
	if isNotFound(err) {
		return providers.Authority{Problem: fmt.Sprintf(
			"there is no private CA %s in this account and region: correct the issuer id", i.spec.IssuerID)}, nil, nil
	}
	if err != nil {
		return providers.Authority{}, nil, err
	}
	return providers.Authority{
		Name: string(ca.Subject.CommonName), Status: string(ca.Status), NotAfter: ca.NotAfter.Millis(),
		Problem: i.spec.refusedBy(ca, time.Now()),
	}, ca.quota, nil
}

// readAuthority reads the CA, and how much of the account's quota is used.
func (i *Issuer) readAuthority(ctx context.Context) (authority, error) {
	ca, err := i.showAuthority(ctx)
	if err != nil {
		return ca, err
	}
	ca.quota, err = i.quota(ctx)
	switch providers.KindOf(err) {
	case providers.KindDenied, providers.KindNotFound, providers.KindInvalid:
		return ca, nil // when it matters the service will say it itself
	default:
		return ca, err
	}
}

// quota reads how many certificates the account has and may have, and reports it; nil
// where the service does not tell.
func (i *Issuer) quota(ctx context.Context) (*quota, error) {
	answer, err := i.showQuota(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range answer.Quotas.Resources {
		if q.Type.Is("CERTIFICATE") {
			i.client.ReportQuota(huaweicloud.CCM, int(q.Used), int(q.Quota))
			return &q, nil
		}
	}
	return nil, nil
}

// refusedBy says why the CA would not issue what is asked for; empty where it would, as
// far as can be told.
func (s Spec) refusedBy(ca authority, now time.Time) string {
	until := ca.NotAfter.Millis()
	switch {
	case ca.Status.Is("PENDING"):
		return "the CA waits for its activation: activate it in the console"
	case ca.Status.Is("DISABLED"):
		return "the CA is disabled: enable it in the console"
	case ca.Status.Is("DELETED"):
		return "the CA is about to be deleted: restore it in the console, or name another one"
	case ca.Status.Is(statusExpired), !until.IsZero() && now.After(until):
		return "the CA has expired: name another one"
	case ca.Status.Is(statusRevoked):
		return "the CA was revoked: name another one"
	case !may(ca.Status, "ACTIVED") && !ca.Status.Is("ACTIVE"):
		return fmt.Sprintf("the CA's status is %s, and only one that is ACTIVED issues", ca.Status)
	case ca.FreezeFlag != 0:
		return "the CA is frozen: see the account's bills"
	}
	start := now.Add(-s.Backdate)
	if end := s.Validity.end(start); !until.IsZero() && end.After(until) {
		return fmt.Sprintf("a certificate of %d %s would end at %s, after the CA itself, which ends at %s: ask for at most %d days, or name a CA that lives longer",
			s.Validity.Value, s.Validity.Type, end.UTC().Format(time.RFC3339), until.Format(time.RFC3339), until.Sub(start)/day)
	}
	return ""
}

// mayIssue refuses what the CA or the quota would refuse, with the reason.
func (i *Issuer) mayIssue(ctx context.Context) error {
	ca, q, err := i.authority(ctx)
	if err != nil {
		return err
	}
	if ca.Problem != "" {
		name := i.spec.IssuerID
		if ca.Name != "" {
			name = fmt.Sprintf("%s (%s)", ca.Name, name)
		}
		return fail(providers.KindInvalid, opIssue, "private CA %s: %s", name, ca.Problem)
	}
	if q != nil && q.Quota > 0 && q.Used >= q.Quota {
		return fail(providers.KindQuota, opIssue,
			"the account has %d private certificates and may have %d: delete some that are not needed, or have the quota raised", q.Used, q.Quota)
	}
	return nil
}
