package identitycenter

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// number reads a JSON number, a number in quotes, null or nothing (reference 7.4).
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	*n = 0 // what is no number is not worth losing the rest of the answer for
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		*n = number(i)
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && f > -1<<53 && f < 1<<53 {
		*n = number(f)
	}
	return nil
}

// millis is a time in milliseconds since 1970; 0 means none.
func (n number) millis() time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// identifier reads an id: a string or a number of up to 64 letters, digits, - and _.
// Anything else counts as none: ids stand in logs, errors and paths.
type identifier string

func (id *identifier) UnmarshalJSON(b []byte) error {
	*id = identifier(scalar(b))
	if !isIdentifier(string(*id)) {
		*id = ""
	}
	return nil
}

func isIdentifier(s string) bool {
	return len(s) > 0 && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// text reads a JSON string of any length; anything else counts as none.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = text(scalar(b))
	return nil
}

// scalar is the text of a JSON string or number, "" of anything else.
func scalar(b []byte) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return ""
	}
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

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
	return c.Expires.millis()
}

func sortNewest(all []certificate) {
	slices.SortStableFunc(all, func(a, b certificate) int { return b.Issued.millis().Compare(a.Issued.millis()) })
}

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
	for _, row := range p.Rows {
		if row.ID == "" {
			return errNoList
		}
	}
	return nil
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
