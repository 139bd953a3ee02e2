package apig

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// What answers are made of.
type (
	number     = huaweicloud.Number
	identifier = huaweicloud.Identifier
	label      = huaweicloud.Label
)

// labels reads a list of names, or one name.
type labels []label

func (l *labels) UnmarshalJSON(b []byte) error {
	*l = nil
	var many []label
	if json.Unmarshal(b, &many) == nil {
		*l = many
		return nil
	}
	var one label
	if json.Unmarshal(b, &one) == nil && one != "" {
		*l = labels{one}
	}
	return nil
}

// flag reads true, false, either in quotes, 1 or 0. Its value is nil where the
// service does not tell.
type flag struct{ value *bool }

func (f *flag) UnmarshalJSON(b []byte) error {
	f.value = nil
	if v, err := strconv.ParseBool(strings.Trim(string(b), `"`)); err == nil {
		f.value = &v
	}
	return nil
}

// on reports whether the service says true.
func (f flag) on() bool { return f.value != nil && *f.value }

// moment reads a time: RFC 3339 (reference 3.3), without zone taken as UTC, or
// milliseconds since 1970. Anything else is the zero time.
type moment struct{ time.Time }

func (m *moment) UnmarshalJSON(b []byte) error {
	m.Time = time.Time{}
	text := huaweicloud.Scalar(b)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			m.Time = t.UTC()
			return nil
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		m.Time = time.UnixMilli(n).UTC()
	}
	return nil
}

// certificate has what is needed of a certificate, from create, list or Show;
// list rows have neither serial number nor start (reference 3.3).
type certificate struct {
	ID         identifier `json:"id"`
	Name       label      `json:"name"`
	Type       label      `json:"type"`
	InstanceID identifier `json:"instance_id"`
	SAN        labels     `json:"san"`
	NotBefore  moment     `json:"not_before"`
	NotAfter   moment     `json:"not_after"`
	Created    moment     `json:"create_time"`
	HasCA      flag       `json:"is_has_trusted_root_ca"`
	Algorithm  label      `json:"algorithm_type"`
	Serial     label      `json:"serial_number"`
}

// attachment is a domain as the certificate side shows it (reference 3.7).
type attachment struct {
	ID            identifier `json:"id"`
	Domain        label      `json:"url_domain"`
	GroupID       identifier `json:"api_group_id"`
	InstanceID    identifier `json:"instance_id"`
	MinSSLVersion label      `json:"min_ssl_version"`
	Redirects     flag       `json:"is_http_redirect_to_https"`
	Verifies      flag       `json:"verified_client_certificate_enabled"`
}

// group is an API group with its domains.
type group struct {
	ID      identifier `json:"id"`
	Domains []domain   `json:"url_domains"`
}

// domain is a domain as the group side shows it (reference 3.7). ssl_id names the
// RSA certificate only; older answers know nothing else.
type domain struct {
	ID        identifier `json:"id"`
	Domain    label      `json:"domain"`
	SSLID     identifier `json:"ssl_id"`
	SSLName   label      `json:"ssl_name"`
	SSLs      []binding  `json:"ssl_infos"`
	Verifies  flag       `json:"verified_client_certificate_enabled"`
	HasCA     flag       `json:"is_has_trusted_root_ca"`
	HTTPSPort number     `json:"ingress_https_port"`
}

// binding is one certificate of a domain.
type binding struct {
	ID        identifier `json:"ssl_id"`
	Name      label      `json:"ssl_name"`
	Algorithm label      `json:"algorithm_type"`
	Type      number     `json:"type"` // 1: of the gateway, 2: of all
	HasCA     flag       `json:"is_has_trusted_root_ca"`
}

// isGlobal reports whether the certificate is one of all gateways; where the service does
// not tell, it is taken for one like ours.
func (b binding) isGlobal(scope string) bool {
	return b.Type == 2 || b.Type != 1 && scope == ScopeGlobal
}

func (c certificate) Known() bool { return c.ID != "" }

func (a attachment) Known() bool { return a.ID != "" }

func (g group) Known() bool {
	return g.ID != "" && !slices.ContainsFunc(g.Domains, func(d domain) bool { return d.ID == "" || d.Domain == "" })
}

// page is one page of a list. Each list has its rows under a name of its own.
type page[T huaweicloud.Row] struct {
	Rows  []T
	Total number
}

func (p *page[T]) UnmarshalJSON(b []byte) error {
	var answer struct {
		Certificates []json.RawMessage `json:"certs"`
		Domains      []json.RawMessage `json:"bound_domains"`
		Groups       []json.RawMessage `json:"groups"`
		Total        number            `json:"total"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	p.Rows, p.Total = nil, answer.Total
	for _, raw := range append(append(answer.Certificates, answer.Domains...), answer.Groups...) {
		var row T
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		p.Rows = append(p.Rows, row)
	}
	return huaweicloud.Whole(p.Rows)
}
