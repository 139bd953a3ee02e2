package apig

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// The operations, a closed set of metric labels.
const (
	opListCertificates  = "list_certificates"
	opShowCertificate   = "show_certificate"
	opCreateCertificate = "create_certificate"
	opUpdateCertificate = "update_certificate"
	opDeleteCertificate = "delete_certificate"
	opListAttached      = "list_attached_domains"
	opAttach            = "attach_domains"
	opDetach            = "detach_domains"
	opListGroups        = "list_api_groups"
	opShowGroup         = "show_api_group"
	opUpdateDomain      = "update_domain"
)

// Operations returns every operation that this adapter's calls are counted under.
func Operations() []string {
	return []string{
		opListCertificates, opShowCertificate, opCreateCertificate, opUpdateCertificate,
		opDeleteCertificate, opListAttached, opAttach, opDetach, opListGroups, opShowGroup, opUpdateDomain,
	}
}

const certificatePath = "/v2/{project_id}/apigw/certificates"

func certificateAt(id string) string { return certificatePath + "/" + url.PathEscape(id) }

func (t *Target) groupPath() string {
	return "/v2/{project_id}/apigw/instances/" + url.PathEscape(t.instance) + "/api-groups"
}

// call sends one call. No answer is documented to hold a key; should one quote
// the request it is treated as if it did.
func (t *Target) call(ctx context.Context, c huaweicloud.Call) error {
	c.Service, c.Redact = huaweicloud.APIG, true
	return t.client.Do(ctx, c)
}

const pageSize = 500 // the most that is allowed (reference 3.4)

// list reads all pages of a list.
func list[T huaweicloud.Row](ctx context.Context, t *Target, c huaweicloud.Call) ([]T, error) {
	c.Service, c.Method = huaweicloud.APIG, http.MethodGet
	return huaweicloud.List(c, pageSize, func(_, after int) ([]T, int, error) {
		var p page[T]
		next := c
		next.Out, next.Query = &p, url.Values{"offset": {strconv.Itoa(after)}, "limit": {strconv.Itoa(pageSize)}}
		maps.Copy(next.Query, c.Query)
		err := t.call(ctx, next)
		return p.Rows, int(p.Total), err
	})
}

// listCertificates returns the certificates of the scope; name, where given, is a
// whole name: whether the service compares whole names or parts is not documented
// (reference 3.4), so callers look again, and prefixes are not asked for.
//
// Certificates of all gateways are asked for with the gateway's id, which the SDK
// calls mandatory, and, where that shows none, without: the id might filter them
// out (doubt 8).
func (t *Target) listCertificates(ctx context.Context, name string) ([]certificate, error) {
	query := url.Values{"type": {t.scope}, "instance_id": {t.instance}}
	if name != "" {
		query.Set("name", name)
	}
	c := huaweicloud.Call{Operation: opListCertificates, Op: "list certificates", Path: certificatePath, Query: query}
	rows, err := list[certificate](ctx, t, c)
	if t.scope != ScopeGlobal || err == nil && len(rows) > 0 || err != nil && providers.KindOf(err) != providers.KindInvalid {
		return rows, err
	}
	query.Del("instance_id")
	without, errWithout := list[certificate](ctx, t, c)
	if err == nil && providers.KindOf(errWithout) == providers.KindInvalid {
		return rows, nil // it is mandatory indeed
	}
	return without, errWithout
}

func (t *Target) showCertificate(ctx context.Context, id string) (certificate, error) {
	var c certificate
	err := t.call(ctx, huaweicloud.Call{
		Operation: opShowCertificate, Op: "show certificate " + id,
		Method: http.MethodGet, Path: certificateAt(id), Out: &c,
	})
	if c.ID == "" {
		c.ID = identifier(id)
	}
	return c, err
}

// form is the body of create and update: there are no partial updates
// (reference 3.5).
type form struct {
	Name       string `json:"name"`
	Content    string `json:"cert_content"`
	Key        string `json:"private_key"`
	Type       string `json:"type,omitempty"`
	InstanceID string `json:"instance_id,omitempty"`
	TrustedCA  string `json:"trusted_root_ca,omitempty"`
}

func (t *Target) createCertificate(ctx context.Context, f form) (certificate, error) {
	var c certificate
	err := t.call(ctx, huaweicloud.Call{
		Operation: opCreateCertificate, Op: "create certificate " + f.Name,
		Method: http.MethodPost, Path: certificatePath, Body: f, Out: &c, Creates: true,
	})
	if err == nil && c.ID == "" {
		err = fail(providers.KindUnknownOutcome, "create certificate "+f.Name, "the answer names no certificate id")
	}
	return c, err
}

func (t *Target) updateCertificate(ctx context.Context, id string, f form) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opUpdateCertificate, Op: "replace the content of certificate " + id,
		Method: http.MethodPut, Path: certificateAt(id), Body: f,
	})
}

func (t *Target) deleteCertificate(ctx context.Context, id string) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opDeleteCertificate, Op: "delete certificate " + id,
		Method: http.MethodDelete, Path: certificateAt(id),
	})
}

// attached returns the domains that serve a certificate, on all ports and
// gateways.
func (t *Target) attached(ctx context.Context, id string) ([]attachment, error) {
	return list[attachment](ctx, t, huaweicloud.Call{
		Operation: opListAttached, Op: "list the domains of certificate " + id, Path: certificateAt(id) + "/attached-domains",
	})
}

// attachTo is one domain in the body of attach and detach. The flag is always sent
// where it is known: left out it follows the certificate's CA (reference 3.6).
type attachTo struct {
	Domain    string   `json:"domain"`
	Instances []string `json:"instance_ids,omitempty"`
	Verifies  *bool    `json:"verified_client_certificate_enabled,omitempty"`
}

type attachBody struct {
	Domains []attachTo `json:"domains"`
}

func (t *Target) attach(ctx context.Context, id string, domains []attachTo) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opAttach, Op: "attach certificate " + id,
		Method: http.MethodPost, Path: certificateAt(id) + "/domains/attach", Body: attachBody{domains},
	})
}

func (t *Target) detach(ctx context.Context, id string, domains []attachTo) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opDetach, Op: "detach certificate " + id,
		Method: http.MethodPost, Path: certificateAt(id) + "/domains/detach", Body: attachBody{domains},
	})
}

func (t *Target) listGroups(ctx context.Context) ([]group, error) {
	return list[group](ctx, t, huaweicloud.Call{Operation: opListGroups, Op: "list API groups", Path: t.groupPath()})
}

func (t *Target) showGroup(ctx context.Context, id string) (group, error) {
	var g group
	err := t.call(ctx, huaweicloud.Call{
		Operation: opShowGroup, Op: "show API group " + id,
		Method: http.MethodGet, Path: t.groupPath() + "/" + url.PathEscape(id), Out: &g,
	})
	if g.ID == "" {
		g.ID = identifier(id)
	}
	if err == nil && !g.Known() {
		return group{}, fail(providers.KindUnavailable, "show API group "+id, "a domain of the answer has no id, or no name")
	}
	return g, err
}

// restoreDomain sets a domain's client verification as it was. What else the body
// must or may hold goes back as it was read; ports that are left out stay
// (reference 3.8).
func (t *Target) restoreDomain(ctx context.Context, was attachment) error {
	body := struct {
		MinSSLVersion string `json:"min_ssl_version"`
		Redirects     *bool  `json:"is_http_redirect_to_https,omitempty"`
		Verifies      *bool  `json:"verified_client_certificate_enabled,omitempty"`
	}{string(was.MinSSLVersion), was.Redirects.value, was.Verifies.value}
	instance := t.instance
	if was.InstanceID != "" {
		instance = string(was.InstanceID)
	}
	return t.call(ctx, huaweicloud.Call{
		Operation: opUpdateDomain, Op: "restore client verification of " + string(was.Domain),
		Method: http.MethodPut, Body: body,
		Path: "/v2/{project_id}/apigw/instances/" + url.PathEscape(instance) + "/api-groups/" + url.PathEscape(string(was.GroupID)) +
			"/domains/" + url.PathEscape(string(was.ID)),
	})
}
