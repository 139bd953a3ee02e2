package privateca

import (
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// What answers are made of.
type (
	number     = huaweicloud.Number
	identifier = huaweicloud.Identifier
	label      = huaweicloud.Label
)

// text reads a JSON string of any length, or null. It is strict, since what is in it
// must not be taken for missing.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s *string
	if json.Unmarshal(b, &s) != nil {
		return errNoText
	}
	*t = ""
	if s != nil {
		*t = text(*s)
	}
	return nil
}

var errNoText = errors.New("want a text")

// secret reads a JSON string into bytes that can be wiped, without a copy in between.
// Anything else counts as none.
type secret []byte

func (s *secret) UnmarshalJSON(b []byte) error {
	*s = nil
	if len(b) < 2 || b[0] != '"' {
		return nil
	}
	b = b[1 : len(b)-1]
	plain := make([]byte, 0, len(b)) // escapes are longer than what they stand for
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			plain = append(plain, b[i])
			continue
		}
		i++
		switch b[i] {
		case 'n':
			plain = append(plain, '\n')
		case 'r':
			plain = append(plain, '\r')
		case 't':
			plain = append(plain, '\t')
		case 'b':
			plain = append(plain, '\b')
		case 'f':
			plain = append(plain, '\f')
		case 'u':
			r, n := escaped(b[i+1:])
			plain = utf8.AppendRune(plain, r)
			i += n
		default:
			plain = append(plain, b[i])
		}
	}
	*s = plain
	return nil
}

// escaped reads what follows a \u, and how much of it.
func escaped(b []byte) (r rune, n int) {
	digits := func(b []byte) rune {
		if len(b) < 4 {
			return utf8.RuneError
		}
		v, err := strconv.ParseInt(string(b[:4]), 16, 32)
		if err != nil {
			return utf8.RuneError
		}
		return rune(v)
	}
	first := digits(b)
	if !utf16.IsSurrogate(first) || len(b) < 10 || b[4] != '\\' || b[5] != 'u' {
		return first, min(4, len(b))
	}
	return utf16.DecodeRune(first, digits(b[6:])), 10
}

// wipe makes the bytes unreadable.
func (s *secret) wipe() {
	clear(*s)
	*s = nil
}

// subject has what is needed of a distinguished name.
type subject struct {
	CommonName label
}

func (s *subject) UnmarshalJSON(b []byte) error {
	var answer struct {
		CommonName label `json:"common_name"`
	}
	*s = subject{}
	if json.Unmarshal(b, &answer) == nil { // else it tells nothing
		s.CommonName = answer.CommonName
	}
	return nil
}

// certificate has what is needed of a private certificate, of a list or of Show
// (reference 4.4). What it is valid for only its export tells.
type certificate struct {
	ID           identifier `json:"certificate_id"`
	Status       label      `json:"status"`
	IssuerID     identifier `json:"issuer_id"`
	KeyAlgorithm label      `json:"key_algorithm"`
	FreezeFlag   number     `json:"freeze_flag"`
	GenMode      label      `json:"gen_mode"`
	Created      number     `json:"create_time"`
	NotAfter     number     `json:"not_after"`
	Subject      subject    `json:"distinguished_name"`
}

// The states of a certificate.
const (
	statusIssued  = "ISSUED"
	statusRevoked = "REVOKED"
	statusExpired = "EXPIRED"
)

// The ways in which a key came to be.
const (
	modeGenerate = "GENERATE"
	modeCSR      = "CSR"
)

// may reports whether a word of the service is the expected one; where it tells none,
// it may be.
func may(l label, word string) bool { return l == "" || l.Is(word) }

// Known implements huaweicloud.Row.
func (c certificate) Known() bool { return c.ID != "" }

// page is one page of the list of certificates.
type page struct {
	Rows  []certificate
	Total number
}

var errNoList = errors.New("the answer has no list of certificates")

// UnmarshalJSON is strict about the list itself: one that cannot be read must not be
// taken for an empty one, since a second certificate would be asked for.
func (p *page) UnmarshalJSON(b []byte) error {
	var answer struct {
		Rows  *[]certificate `json:"certificates"`
		Total *number        `json:"total"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	*p = page{}
	if answer.Total != nil {
		p.Total = *answer.Total
	}
	switch {
	case answer.Rows != nil:
		p.Rows = *answer.Rows
	case answer.Total == nil || p.Total > 0:
		return errNoList
	}
	return huaweicloud.Whole(p.Rows)
}

// authority has what is needed of a CA (reference 4.7).
type authority struct {
	ID         identifier `json:"ca_id"`
	Status     label      `json:"status"`
	FreezeFlag number     `json:"freeze_flag"`
	NotAfter   number     `json:"not_after"`
	Subject    subject    `json:"distinguished_name"`
	// quota is the account's, read with the CA.
	quota *quota
}

// created is the answer of both calls that issue.
type created struct {
	ID identifier `json:"certificate_id"`
}

// exportAnswer is what Export returns in JSON (reference 4.5).
type exportAnswer struct {
	Certificate text   `json:"certificate"`
	Chain       text   `json:"certificate_chain"`
	Key         secret `json:"private_key"`
}

// quotas tells how many certificates the account has and may have.
type quotas struct {
	Quotas struct {
		Resources []quota `json:"resources"`
	} `json:"quotas"`
}

type quota struct {
	Type  label  `json:"type"`
	Used  number `json:"used"`
	Quota number `json:"quota"`
}

// tag is one tag of a certificate; as a whole it cannot be read wrongly, since a missing
// one counts as one of nobody.
type tag struct {
	Key   label `json:"key"`
	Value label `json:"value"`
}

type tags struct {
	Tags []tag `json:"tags"`
}

// tagged is one page of the certificates that have a tag.
type tagged struct {
	Total     number `json:"total_count"`
	Resources []struct {
		ID identifier `json:"resource_id"`
	} `json:"resources"`
}
