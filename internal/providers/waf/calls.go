package waf

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// contentType is what the API pages ask for (reference 1.8).
const contentType = "application/json;charset=utf8"

// The operations, a closed set of metric labels.
const (
	opListCertificates   = "list_certificates"
	opShowCertificate    = "show_certificate"
	opCreateCertificate  = "create_certificate"
	opUpdateCertificate  = "update_certificate"
	opDeleteCertificate  = "delete_certificate"
	opApplyToHosts       = "apply_certificate_to_hosts"
	opListHosts          = "list_hosts"
	opShowHost           = "show_host"
	opUpdateHost         = "update_host"
	opListDedicatedHosts = "list_dedicated_hosts"
	opShowDedicatedHost  = "show_dedicated_host"
	opUpdateDedicated    = "update_dedicated_host"
)

// Operations returns every operation that this adapter's calls are counted under.
func Operations() []string {
	return []string{
		opListCertificates, opShowCertificate, opCreateCertificate, opUpdateCertificate,
		opDeleteCertificate, opApplyToHosts, opListHosts, opShowHost, opUpdateHost,
		opListDedicatedHosts, opShowDedicatedHost, opUpdateDedicated,
	}
}

const certificatePath = "/v1/{project_id}/waf/certificate"

// mode is where a host lives: the two have calls of their own.
type mode struct {
	name               string
	wafType            string // in what a certificate tells of its hosts
	path               string
	list, show, update string // operations
	method             string // of an update
}

var (
	cloudMode = mode{
		name: ModeCloud, wafType: "cloud", path: "/v1/{project_id}/waf/instance",
		list: opListHosts, show: opShowHost, update: opUpdateHost, method: http.MethodPatch,
	}
	dedicatedMode = mode{
		name: ModeDedicated, wafType: "premium", path: "/v1/{project_id}/premium-waf/host",
		list: opListDedicatedHosts, show: opShowDedicatedHost, update: opUpdateDedicated, method: http.MethodPut,
	}
)

// call sends one call with what is common to all: the answers of some of them
// hold private keys, so each is treated as one that does.
func (t *Target) call(ctx context.Context, c huaweicloud.Call) error {
	c.Service, c.ContentType, c.Redact = huaweicloud.WAF, contentType, true
	if t.project != "" {
		query := url.Values{"enterprise_project_id": {t.project}}
		maps.Copy(query, c.Query)
		c.Query = query
	}
	return t.client.Do(ctx, c)
}

// pageSize is the most that is allowed (reference 2.3).
const pageSize = 100

// list reads all pages of a list.
func list[T huaweicloud.Row](ctx context.Context, t *Target, c huaweicloud.Call) ([]T, error) {
	c.Service, c.Method = huaweicloud.WAF, http.MethodGet
	return huaweicloud.List(c, pageSize, func(n, _ int) ([]T, int, error) {
		var p page[T]
		next := c
		next.Out, next.Query = &p, url.Values{"page": {strconv.Itoa(n)}, "pagesize": {strconv.Itoa(pageSize)}}
		maps.Copy(next.Query, c.Query)
		err := t.call(ctx, next)
		return p.Items, int(p.Total), err
	})
}

// listCertificates returns the certificates whose names hold the given text;
// the filter is fuzzy (reference 2.3), so callers look again. What host=true and
// host=false mean differs between the documents (doubt 10): the union of both
// is all of them by either.
func (t *Target) listCertificates(ctx context.Context, name string) ([]certificate, error) {
	var all []certificate
	seen := map[identifier]bool{}
	for _, bound := range []string{"true", "false"} {
		query := url.Values{"host": {bound}}
		if name != "" {
			query.Set("name", name)
		}
		rows, err := list[certificate](ctx, t, huaweicloud.Call{
			Operation: opListCertificates, Op: "list certificates", Path: certificatePath, Query: query,
		})
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if !seen[r.ID] {
				seen[r.ID] = true
				all = append(all, r)
			}
		}
	}
	return all, nil
}

func (t *Target) showCertificate(ctx context.Context, id string) (certificate, error) {
	var c certificate
	err := t.call(ctx, huaweicloud.Call{
		Operation: opShowCertificate, Op: "show certificate " + id,
		Method: http.MethodGet, Path: certificatePath + "/" + url.PathEscape(id), Out: &c,
	})
	if c.ID == "" {
		c.ID = identifier(id)
	}
	return c, err
}

// upload is the body of create and update.
type upload struct {
	Name    string `json:"name"`
	Content string `json:"content"`
	Key     string `json:"key"`
}

func (t *Target) createCertificate(ctx context.Context, u upload) (certificate, error) {
	query := url.Values{}
	if t.verify {
		query.Set("verify_cert_key", "true")
	}
	var c certificate
	err := t.call(ctx, huaweicloud.Call{
		Operation: opCreateCertificate, Op: "create certificate " + u.Name,
		Method: http.MethodPost, Path: certificatePath, Query: query, Body: u, Out: &c, Creates: true,
	})
	return c, err
}

func (t *Target) updateCertificate(ctx context.Context, id string, u upload) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opUpdateCertificate, Op: "replace the unused certificate " + id,
		Method: http.MethodPut, Path: certificatePath + "/" + url.PathEscape(id), Body: u,
	})
}

func (t *Target) deleteCertificate(ctx context.Context, id string) error {
	return t.call(ctx, huaweicloud.Call{
		Operation: opDeleteCertificate, Op: "delete certificate " + id,
		Method: http.MethodDelete, Path: certificatePath + "/" + url.PathEscape(id),
	})
}

// applyToHosts binds the certificate to all hosts in one call; both lists go
// into one body (reference 2.7).
func (t *Target) applyToHosts(ctx context.Context, id string, cloud, dedicated []string) error {
	body := struct {
		Cloud     []string `json:"cloud_host_ids,omitempty"`
		Dedicated []string `json:"premium_host_ids,omitempty"`
	}{cloud, dedicated}
	return t.call(ctx, huaweicloud.Call{
		Operation: opApplyToHosts, Op: "apply certificate " + id + " to hosts",
		Method: http.MethodPost, Path: certificatePath + "/" + url.PathEscape(id) + "/apply-to-hosts", Body: body,
	})
}

// listHosts returns the hosts of one mode; name filters, "" does not.
func (t *Target) listHosts(ctx context.Context, m mode, name string) ([]host, error) {
	query := url.Values{}
	if name != "" {
		query.Set("hostname", name)
	}
	return list[host](ctx, t, huaweicloud.Call{
		Operation: m.list, Op: "list " + m.name + " hosts", Path: m.path, Query: query,
	})
}

func (t *Target) showHost(ctx context.Context, m mode, id string) (host, error) {
	var h host
	err := t.call(ctx, huaweicloud.Call{
		Operation: m.show, Op: "show " + m.name + " host " + id,
		Method: http.MethodGet, Path: m.path + "/" + url.PathEscape(id), Out: &h,
	})
	return h, err
}

// updateHost changes the certificate of one host and nothing else. servers is
// sent where it is not nil.
func (t *Target) updateHost(ctx context.Context, m mode, id string, c certificate, servers json.RawMessage) error {
	body := struct {
		ID     identifier      `json:"certificateid"`
		Name   label           `json:"certificatename"`
		Server json.RawMessage `json:"server,omitempty"`
	}{c.ID, c.Name, servers}
	return t.call(ctx, huaweicloud.Call{
		Operation: m.update, Op: "set the certificate of " + m.name + " host " + id,
		Method: m.method, Path: m.path + "/" + url.PathEscape(id), Body: body,
	})
}

// isID reports whether an endpoint is given by its id: 32 letters or digits. No
// host name has that form, since it has a dot.
func isID(s string) bool {
	return len(s) == 32 && strings.Trim(strings.ToLower(s), "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
