package privateca

import (
	"context"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// skew is how far the clocks of this host and of the service may be apart.
const skew = 5 * time.Minute

// maxCandidates bounds how many certificates are looked into. There are more only where
// others have many made under the same name at the same time.
const maxCandidates = 100

// leftSettled looks for a certificate whose key has its place already, and which the
// caller does not know: its answer was lost on the last step. Empty for none.
func (i *Issuer) leftSettled(ctx context.Context, r providers.IssueRequest) (string, error) {
	if r.Since.IsZero() {
		return "", nil // whoever has lost the journal sees it in Observe
	}
	handles, err := i.keys.handles(r.Owner)
	if err != nil {
		return "", err
	}
	for _, h := range handles {
		if slices.Contains(r.Known, h) || i.memory.isOver(string(h)) {
			continue
		}
		row, err := i.showCertificate(ctx, string(h))
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		made := row.Created.Millis()
		if may(row.Status, statusIssued) && (made.IsZero() || !made.Before(r.Since.Add(-skew))) {
			return string(h), nil
		}
	}
	return "", nil
}

// leftPending looks for a certificate that was issued for the pending key; empty for
// none. If it is one that the caller knows, the key is put in its place, and there is no
// pending key any more.
func (i *Issuer) leftPending(ctx context.Context, r *providers.IssueRequest, key *certs.PrivateKey, written time.Time) (string, error) {
	after := written
	if !r.Since.IsZero() && r.Since.Before(after) {
		after = r.Since
	}
	rows, err := i.listIssued(ctx, after.Add(-skew))
	if err != nil {
		return "", err
	}
	for _, row := range i.candidates(rows, modeCSR) {
		h := providers.Handle(row.ID)
		known := slices.Contains(r.Known, h)
		if known {
			has, err := i.keys.key(r.Owner, h)
			if err != nil {
				return "", err
			}
			if !has.IsZero() {
				continue
			}
		}
		if a := string(row.KeyAlgorithm); a != "" && a != certs.KeyAlgorithm(key.Public()) {
			continue
		}
		e, err := i.public(ctx, string(row.ID))
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		if !key.Matches(e.leaf) {
			continue
		}
		if !known {
			return string(row.ID), nil
		}
		if err := i.keys.settle(r.Owner, h); err != nil {
			return "", err
		}
		*key = certs.PrivateKey{}
		return "", nil
	}
	return "", nil
}

// leftInCloud looks for a certificate that an earlier try made: marked as the owner's, or
// marked as nobody's and all that was asked for. Empty for none.
func (i *Issuer) leftInCloud(ctx context.Context, r providers.IssueRequest) (string, error) {
	if r.Since.IsZero() {
		return "", nil // nobody has tried
	}
	rows, err := i.listIssued(ctx, r.Since.Add(-skew))
	if err != nil {
		return "", err
	}
	var unmarked []certificate
	for _, row := range i.candidates(rows, modeGenerate) {
		if slices.Contains(r.Known, providers.Handle(row.ID)) {
			continue
		}
		marked, err := i.markOf(ctx, string(row.ID))
		switch {
		case isNotFound(err):
		case err != nil:
			return "", err
		case marked == mark(r.Owner):
			return string(row.ID), nil
		case marked == "":
			unmarked = append(unmarked, row)
		}
	}
	for _, row := range unmarked {
		if !may(row.KeyAlgorithm, i.spec.KeyAlgorithm) {
			continue
		}
		e, err := i.public(ctx, string(row.ID))
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		if len(i.spec.differences(e, row.Created.Millis())) == 0 {
			return string(row.ID), nil
		}
	}
	return "", nil
}

// candidates are the rows that may be of this CA and made in that way.
func (i *Issuer) candidates(rows []certificate, mode string) []certificate {
	rows = slices.DeleteFunc(rows, func(c certificate) bool {
		return !may(label(c.IssuerID), i.spec.IssuerID) || !may(c.GenMode, mode)
	})
	if len(rows) > maxCandidates {
		i.log.Warn("too many certificates with this common name were issued since the last try; the newest are looked at",
			"common_name", i.spec.CommonName, "certificates", len(rows))
		rows = rows[:maxCandidates]
	}
	return rows
}
