package huaweicloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Agency acts for another account, which has made an agency for the account that Base
// logs in to. IAM gives temporary keys for it (reference 1.3), and these sign every
// request. Project and domain ids are those of the other account.
type Agency struct {
	// Name is the agency's, Domain or DomainID the account that made it.
	Name             string
	Domain, DomainID string
	// Duration is how long the keys are to live, 15 minutes to 24 hours; 0: an hour.
	Duration time.Duration
	// Base logs in first: any Auth but another Agency.
	Base Auth
}

const (
	defaultAgencyKeys  = time.Hour
	shortestAgencyKeys = 15 * time.Minute
	longestAgencyKeys  = 24 * time.Hour
)

func (a Agency) open(c *Client, expiry func(time.Time)) (session, error) {
	if a.Duration == 0 {
		a.Duration = defaultAgencyKeys
	}
	switch {
	case a.Name == "":
		return nil, errors.New("agency: want its name")
	case (a.Domain == "") == (a.DomainID == ""):
		return nil, errors.New("agency: want the account that made it, by name or by id")
	case a.Duration < shortestAgencyKeys || a.Duration > longestAgencyKeys:
		return nil, fmt.Errorf("agency: duration %s: want %s to %s", a.Duration, shortestAgencyKeys, longestAgencyKeys)
	case a.Base == nil:
		return nil, errors.New("agency: want a way to log in first")
	}
	if _, nested := a.Base.(Agency); nested {
		return nil, errors.New("agency: IAM gives no keys of an agency to another agency")
	}
	// Nobody has to act when the base's token ends: it is asked for again when needed.
	base, err := a.Base.open(c, func(time.Time) {})
	if err != nil {
		return nil, fmt.Errorf("agency: %w", err)
	}
	if c.bases[IAM] == nil {
		return nil, errors.New("agency: no endpoint for iam")
	}
	fetch := func(ctx context.Context) (lease[keys], error) { return a.assume(ctx, c, base, expiry) }
	return &keySession{
		source: leasedKeys{newHeld(c.patience(), fetch, c.renewedLate)}, client: c,
		domain: a.DomainID, account: a.Domain,
	}, nil
}

// assume asks IAM for keys. A token must be one of the account: the right to assume
// agencies is not a project's.
func (a Agency) assume(ctx context.Context, c *Client, base session, expiry func(time.Time)) (lease[keys], error) {
	type role struct {
		Agency   string `json:"agency_name"`
		Domain   string `json:"domain_name,omitempty"`
		DomainID string `json:"domain_id,omitempty"`
		Seconds  int64  `json:"duration_seconds"`
	}
	var answer keysAnswer
	var header http.Header
	j := &job{
		Call: Call{
			Service: IAM, Operation: opAssumeAgency, Op: fmt.Sprintf("assume agency %q", a.Name),
			Method: http.MethodPost, Path: "/v3.0/OS-CREDENTIAL/securitytokens",
			Body: map[string]any{"auth": map[string]any{"identity": map[string]any{
				"methods":     []string{"assume_role"},
				"assume_role": role{a.Name, a.Domain, a.DomainID, int64(a.Duration / time.Second)},
			}}},
			Out: &answer, Redact: true,
		},
		// Keys whose answer is lost end by themselves, so this may be asked again.
		by: base, global: true, harmless: true, again: true, errand: true, header: &header,
	}
	if err := c.do(ctx, j); err != nil {
		return lease[keys]{}, err
	}
	l, err := answer.lease(header, a.Duration, expiry)
	if err != nil {
		return lease[keys]{}, j.fail(providers.KindUnavailable, "", err)
	}
	return l, nil
}
