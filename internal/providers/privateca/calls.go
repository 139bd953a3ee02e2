package privateca

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// The operations, a closed set of metric labels.
const (
	opShowAuthority     = "show_authority"
	opListCertificates  = "list_certificates"
	opShowCertificate   = "show_certificate"
	opCreateCertificate = "create_certificate"
	opCreateByRequest   = "create_certificate_by_csr"
	opExportCertificate = "export_certificate"
	opRevokeCertificate = "revoke_certificate"
	opShowQuota         = "show_quota"
	opListTags          = "list_tags"
	opCreateTags        = "create_tags"
	opFilter            = "filter_certificates"
)

// Operations returns every operation that this adapter's calls are counted under.
func Operations() []string {
	return []string{
		opShowAuthority, opListCertificates, opShowCertificate, opCreateCertificate, opCreateByRequest,
		opExportCertificate, opRevokeCertificate, opShowQuota, opListTags, opCreateTags, opFilter,
	}
}

const (
	certificatesPath = "/v1/private-certificates"
	authoritiesPath  = "/v1/private-certificate-authorities"
)

func certificateAt(id string) string { return certificatesPath + "/" + url.PathEscape(id) }

func (i *Issuer) call(ctx context.Context, c huaweicloud.Call) error {
	c.Service = huaweicloud.CCM
	return i.client.Do(ctx, c)
}

// read sends a call that changes nothing although it is no GET: nobody has to look what
// became of it, and the history does not tell of it.
func (i *Issuer) read(ctx context.Context, c huaweicloud.Call) error {
	err := i.call(providers.WithRequests(ctx, nil), c)
	if e, ok := errors.AsType[*providers.Error](err); ok && e.Kind == providers.KindUnknownOutcome {
		e.Kind = providers.KindUnavailable
	}
	return err
}

func (i *Issuer) showAuthority(ctx context.Context) (authority, error) {
	var ca authority
	err := i.call(ctx, huaweicloud.Call{
		Operation: opShowAuthority, Op: "show private CA " + i.spec.IssuerID,
		Method: http.MethodGet, Path: authoritiesPath + "/" + url.PathEscape(i.spec.IssuerID), Out: &ca,
	})
	return ca, err
}

const (
	pageSize = 100
	maxPages = 50
)

// listIssued returns the issued certificates that have the Spec's common name and were
// created after a time, newest first. Of a row that does not tell it may be so.
func (i *Issuer) listIssued(ctx context.Context, after time.Time) ([]certificate, error) {
	var all []certificate
	seen := make(map[identifier]bool)
	for offset := 0; offset < maxPages*pageSize; {
		var p page
		err := i.call(ctx, huaweicloud.Call{
			Operation: opListCertificates, Op: "list private certificates", Method: http.MethodGet, Path: certificatesPath, Out: &p,
			Query: url.Values{
				"name": {i.spec.CommonName}, "status": {statusIssued}, "sort_key": {"create_time"}, "sort_dir": {"DESC"},
				"offset": {strconv.Itoa(offset)}, "limit": {strconv.Itoa(pageSize)},
			},
		})
		if err != nil {
			return nil, err
		}
		fresh, recent := false, false
		for _, row := range p.Rows {
			if seen[row.ID] {
				continue
			}
			seen[row.ID], fresh = true, true
			if made := row.Created.Millis(); !made.IsZero() && made.Before(after) {
				continue
			}
			recent = true
			// The filter finds parts of names (reference 4.4).
			if cn := row.Subject.CommonName; may(row.Status, statusIssued) && (cn == "" || string(cn) == i.spec.CommonName) {
				all = append(all, row)
			}
		}
		offset += len(p.Rows)
		// A page with nothing recent ends it, since the list is sorted; one with nothing
		// new comes from a service that cannot count.
		if !fresh || !recent || offset >= int(p.Total) && (p.Total > 0 || len(p.Rows) < pageSize) {
			break
		}
	}
	return all, nil
}

func (i *Issuer) showCertificate(ctx context.Context, id string) (certificate, error) {
	var c certificate
	err := i.call(ctx, huaweicloud.Call{
		Operation: opShowCertificate, Op: "show private certificate " + id,
		Method: http.MethodGet, Path: certificateAt(id), Out: &c,
	})
	return c, err
}

func (i *Issuer) create(ctx context.Context, operation, path string, body any) (string, error) {
	var answer created
	op := "issue a certificate for " + i.spec.CommonName
	err := i.call(ctx, huaweicloud.Call{
		Operation: operation, Op: op, Method: http.MethodPost, Path: path, Body: body, Out: &answer, Creates: true, Redact: true,
	})
	if err == nil && answer.ID == "" {
		err = fail(providers.KindUnknownOutcome, op, "the answer names no certificate id")
	}
	return string(answer.ID), err
}

// exportCertificate returns certificate, chain and, where the service has it, the key,
// which the caller must wipe. The type is the one that gives PEM in JSON for every way
// in which a key is held (reference 4.5).
func (i *Issuer) exportCertificate(ctx context.Context, id string) (exportAnswer, error) {
	var answer exportAnswer
	err := i.read(ctx, huaweicloud.Call{
		Operation: opExportCertificate, Op: "export private certificate " + id,
		Method: http.MethodPost, Path: certificateAt(id) + "/export", Out: &answer, Redact: true, Creates: true,
		Body: map[string]string{"type": "OTHER", "is_compressed": "false"},
	})
	return answer, err
}

func (i *Issuer) revokeCertificate(ctx context.Context, id string) error {
	return i.call(ctx, huaweicloud.Call{
		Operation: opRevokeCertificate, Op: "revoke private certificate " + id,
		Method: http.MethodPost, Path: certificateAt(id) + "/revoke", Body: map[string]string{"reason": "SUPERSEDED"},
	})
}

func (i *Issuer) showQuota(ctx context.Context) (quotas, error) {
	var q quotas
	err := i.call(ctx, huaweicloud.Call{
		Operation: opShowQuota, Op: "show the quota of private certificates",
		Method: http.MethodGet, Path: certificatesPath + "/quotas", Out: &q,
	})
	return q, err
}

// tagKey is the key of the tag that says whose a certificate is.
const tagKey = "rotatord"

// markOf returns the mark that a certificate has; empty for none.
func (i *Issuer) markOf(ctx context.Context, id string) (string, error) {
	var answer tags
	err := i.call(ctx, huaweicloud.Call{
		Operation: opListTags, Op: "list the tags of private certificate " + id,
		Method: http.MethodGet, Path: certificateAt(id) + "/tags", Out: &answer,
	})
	for _, t := range answer.Tags {
		if t.Key == tagKey {
			return string(t.Value), err
		}
	}
	return "", err
}

// setMark marks a certificate; doing it again changes nothing.
func (i *Issuer) setMark(ctx context.Context, id, value string) error {
	return i.call(ctx, huaweicloud.Call{
		Operation: opCreateTags, Op: "tag private certificate " + id,
		Method: http.MethodPost, Path: certificateAt(id) + "/tags/create", Body: tags{[]tag{{tagKey, label(value)}}},
	})
}

// listMarked returns the ids of the certificates with a mark.
func (i *Issuer) listMarked(ctx context.Context, value string) ([]string, error) {
	const size = 50 // the most that is allowed (reference 4.8)
	type tagFilter struct {
		Key    string   `json:"key"`
		Values []string `json:"values"`
	}
	type filter struct {
		Tags   []tagFilter `json:"tags"`
		Limit  int         `json:"limit"`
		Offset int         `json:"offset"`
	}
	var ids []string
	seen := make(map[identifier]bool)
	for offset := 0; offset < maxPages*size; {
		var p tagged
		err := i.read(ctx, huaweicloud.Call{
			Operation: opFilter, Op: "list private certificates by tag",
			Method: http.MethodPost, Path: certificatesPath + "/resource-instances/filter", Out: &p, Creates: true,
			Body: filter{Tags: []tagFilter{{tagKey, []string{value}}}, Limit: size, Offset: offset},
		})
		if err != nil {
			return nil, err
		}
		fresh := false
		for _, r := range p.Resources {
			if r.ID != "" && !seen[r.ID] {
				seen[r.ID], fresh = true, true
				ids = append(ids, string(r.ID))
			}
		}
		offset += len(p.Resources)
		if !fresh || offset >= int(p.Total) && (p.Total > 0 || len(p.Resources) < size) {
			break
		}
	}
	return ids, nil
}
