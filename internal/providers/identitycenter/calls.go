package identitycenter

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// The operations, a closed set of metric labels.
const (
	opListCertificates    = "list_certificates"
	opCreateCertificate   = "create_certificate"
	opActivateCertificate = "activate_certificate"
	opDeleteCertificate   = "delete_certificate"
	opShowApplication     = "show_application"
)

// Operations returns every operation that this adapter's calls are counted under.
func Operations() []string {
	return []string{opListCertificates, opCreateCertificate, opActivateCertificate, opDeleteCertificate, opShowApplication}
}

func (a *Application) path() string {
	return "/v1/instances/" + url.PathEscape(a.instance) + "/application-instances/" + url.PathEscape(a.id)
}

func (a *Application) certificatePath(id string) string {
	return a.path() + "/certificates/" + url.PathEscape(id)
}

func (a *Application) call(ctx context.Context, c huaweicloud.Call) error {
	c.Service = huaweicloud.IdentityCenter
	return a.client.Do(ctx, c)
}

const (
	pageSize = 100 // the most that is allowed (reference 5.2)
	maxPages = 50
	maxPage  = 1 << 20 // in bytes: some 10 kB for each, of which a PEM block has 2
)

// list returns all certificates, newest first.
func (a *Application) list(ctx context.Context) ([]certificate, error) {
	var all []certificate
	seen := make(map[identifier]bool)
	marker := ""
	for range maxPages {
		var p page
		query := url.Values{"limit": {strconv.Itoa(pageSize)}}
		if marker != "" {
			query.Set("marker", marker)
		}
		err := a.call(ctx, huaweicloud.Call{
			Operation: opListCertificates, Op: "list the certificates of application instance " + a.id,
			Method: http.MethodGet, Path: a.path() + "/certificates", Query: query, Out: &p, MaxAnswer: maxPage,
		})
		if err != nil {
			return nil, err
		}
		if len(all)+len(p.Rows) > maxPages*pageSize {
			return nil, fail(providers.KindInvalid, "list the certificates of application instance "+a.id, "there are more than %d", maxPages*pageSize)
		}
		fresh := false
		for _, row := range p.Rows {
			if !seen[row.ID] {
				seen[row.ID], fresh = true, true
				all = append(all, row)
			}
		}
		// A page with nothing new comes from a service that has lost its place.
		if marker = string(p.Next); marker == "" || !fresh {
			break
		}
	}
	sortNewest(all)
	return all, nil
}

// showActive returns the id of the active certificate; empty where the answer names none.
func (a *Application) showActive(ctx context.Context) (string, error) {
	var answer application
	err := a.call(ctx, huaweicloud.Call{
		Operation: opShowApplication, Op: "show application instance " + a.id,
		Method: http.MethodGet, Path: a.path(), Out: &answer,
	})
	return answer.active(), err
}

// create asks for a certificate: a request without body, and so without Content-Type.
func (a *Application) create(ctx context.Context) (certificate, error) {
	var answer created
	op := "create a certificate of application instance " + a.id
	err := a.call(ctx, huaweicloud.Call{
		Operation: opCreateCertificate, Op: op, Method: http.MethodPost, Path: a.path() + "/certificates", Out: &answer, Creates: true,
	})
	if err == nil && answer.Certificate.ID == "" {
		err = fail(providers.KindUnknownOutcome, op, "the answer names no certificate id")
	}
	return answer.Certificate, err
}

func (a *Application) activate(ctx context.Context, id string) error {
	return a.call(ctx, huaweicloud.Call{
		Operation: opActivateCertificate, Op: "activate certificate " + id, Method: http.MethodPut, Path: a.certificatePath(id),
	})
}

func (a *Application) delete(ctx context.Context, id string) error {
	return a.call(ctx, huaweicloud.Call{
		Operation: opDeleteCertificate, Op: "delete certificate " + id, Method: http.MethodDelete, Path: a.certificatePath(id),
	})
}
