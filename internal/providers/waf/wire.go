package waf

import (
	"encoding/json"
	"strings"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// What answers are made of.
type (
	number     = huaweicloud.Number
	identifier = huaweicloud.Identifier
	label      = huaweicloud.Label
	text       = huaweicloud.Text
)

// certificate has what is needed of a certificate. The member "key" is missing
// on purpose: Show returns the private key in clear (reference 2.4).
type certificate struct {
	ID         identifier  `json:"id"`
	Name       label       `json:"name"`
	Content    text        `json:"content"`
	ExpireTime number      `json:"expire_time"`
	Timestamp  number      `json:"timestamp"`
	BindHost   []boundHost `json:"bind_host"`
}

type boundHost struct {
	ID       identifier `json:"id"`
	Hostname label      `json:"hostname"`
	Type     label      `json:"waf_type"`
}

// host has what is needed of a host, of a list or of Show.
type host struct {
	ID            identifier `json:"id"`
	Hostname      label      `json:"hostname"`
	CertificateID identifier `json:"certificateid"`
	Protocol      label      `json:"protocol"`
	Server        server     `json:"server"`
}

// server is the list of origins. The raw form is sent back unchanged, members
// that we do not know included.
type server struct {
	raw       json.RawMessage
	protocols []string // of the client side
}

func (s *server) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil // sent back it would clear the list
	}
	s.raw = append(json.RawMessage(nil), b...)
	var rows []struct {
		FrontProtocol label `json:"front_protocol"`
	}
	if json.Unmarshal(b, &rows) == nil { // else it names no protocols; it can still be sent back
		for _, r := range rows {
			s.protocols = append(s.protocols, string(r.FrontProtocol))
		}
	}
	return nil
}

// speaksHTTPS reports whether the host can take a certificate. It is generous:
// only an answer that names protocols, none of them HTTPS, says no.
func (h *host) speaksHTTPS() bool {
	protocols := strings.ToUpper(strings.Join(append(h.Server.protocols, string(h.Protocol)), " "))
	return strings.TrimSpace(protocols) == "" || strings.Contains(protocols, "HTTPS") || h.CertificateID != ""
}

func (c certificate) Known() bool { return c.ID != "" }

func (h host) Known() bool { return h.ID != "" && h.Hostname != "" }

// page is one page of a list.
type page[T huaweicloud.Row] struct {
	Items []T
	Total number
}

func (p *page[T]) UnmarshalJSON(b []byte) error {
	var answer struct {
		Items []T    `json:"items"`
		Total number `json:"total"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	p.Items, p.Total = answer.Items, answer.Total
	return huaweicloud.Whole(p.Items)
}
