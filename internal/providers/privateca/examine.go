package privateca

import (
	"context"
	"fmt"
	"time"
)

// spare is how many private certificates an account should be able to hold besides those
// it has: one try may be lost.
const spare = 2

// Examine reads the CA and the quota, for somebody who wants to know before anything is
// issued: problems keep it from being issued, warnings will some day. It changes nothing.
func (i *Issuer) Examine(ctx context.Context) (problems, warnings []string, err error) {
	ca, q, err := i.authority(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ca.Problem != "" {
		problems = append(problems, ca.Problem)
	}
	now := time.Now()
	life := i.spec.Validity.end(now).Sub(now)
	if last := ca.NotAfter.Add(-life); ca.Problem == "" && !ca.NotAfter.IsZero() && last.Before(now.Add(life)) {
		warnings = append(warnings, fmt.Sprintf("the CA ends at %s: from %s on it issues nothing any more that is valid for that long", ca.NotAfter.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339)))
	}
	if q == nil || q.Quota <= 0 {
		return problems, warnings, nil
	}
	switch left := int(q.Quota) - int(q.Used); {
	case left <= 0:
		problems = append(problems, fmt.Sprintf("the account has %d private certificates and may have %d: delete some that are not needed, or have the quota raised", q.Used, q.Quota))
	case left < spare:
		warnings = append(warnings, fmt.Sprintf("the account has %d private certificates and may have %d: there is room for %d more", q.Used, q.Quota, left))
	}
	return problems, warnings, nil
}
