package identitycenter

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// What answers are made of.
type (
	number     = huaweicloud.Number
	identifier = huaweicloud.Identifier
	text       = huaweicloud.Text
)

// certificate has what is needed of a certificate (reference 5.2).
type certificate struct {
	ID      identifier `json:"certificate_id"`
	PEM     text       `json:"certificate"`
	Status  identifier `json:"status"`
	Issued  number     `json:"issue_date"`
	Expires number     `json:"expiry_date"`
}

const (
	statusActive   = "ACTIVE"
	statusInactive = "INACTIVE"
)

func (c certificate) isActive() bool   { return strings.EqualFold(string(c.Status), statusActive) }
func (c certificate) isInactive() bool { return strings.EqualFold(string(c.Status), statusInactive) }

// leaf is the certificate itself; nil where it cannot be read.
func (c certificate) leaf() *x509.Certificate {
	block, _ := pem.Decode([]byte(c.PEM))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

// expires is when it ends, by itself and else by the service's word; zero where neither
// tells.
func (c certificate) expires() time.Time {
	if leaf := c.leaf(); leaf != nil {
		return leaf.NotAfter
	}
	return c.Expires.Millis()
}

// sortNewest puts the active one of those made at one moment first: the service tells the
// time coarsely, and where the journal is lost the first is what the application signs with.
func sortNewest(all []certificate) {
	slices.SortStableFunc(all, func(a, b certificate) int {
		return cmp.Or(b.Issued.Millis().Compare(a.Issued.Millis()), activeFirst(a, b))
	})
}

func activeFirst(a, b certificate) int {
	switch {
	case a.isActive() == b.isActive():
		return 0
	case a.isActive():
		return -1
	default:
		return 1
	}
}

// Known implements huaweicloud.Row.
func (c certificate) Known() bool { return c.ID != "" }

// page is one page of the list.
type page struct {
	Rows []certificate
	Next identifier
}

var errNoList = errors.New("the answer has no list of certificates")

// UnmarshalJSON is strict about the list itself: one that cannot be read must not be
// taken for an empty one, since a second certificate would be asked for.
func (p *page) UnmarshalJSON(b []byte) error {
	var answer struct {
		Rows *[]certificate  `json:"application_instance_certificates"`
		Info json.RawMessage `json:"page_info"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	*p = page{}
	var info struct {
		Next identifier `json:"next_marker"`
	}
	if len(answer.Info) > 0 && json.Unmarshal(answer.Info, &info) != nil {
		return errNoList // there may be more, and nobody knows where
	}
	if answer.Rows == nil {
		if len(answer.Info) == 0 {
			return errNoList
		}
		return nil
	}
	p.Rows, p.Next = *answer.Rows, info.Next
	return huaweicloud.Whole(p.Rows)
}

// created is the answer of create.
type created struct {
	Certificate certificate `json:"application_instance_certificate"`
}

// application is the answer of show.
type application struct {
	Instance struct {
		Active certificate `json:"active_certificate"`
	} `json:"application_instance"`
	// Active is where the members stand without the envelope (reference 5.3).
	Active certificate `json:"active_certificate"`
}

func (a application) active() string {
	if id := string(a.Instance.Active.ID); id != "" {
		return id
	}
	return string(a.Active.ID)
}
