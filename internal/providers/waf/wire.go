package waf

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// number reads a JSON number, a number in quotes, null or nothing: the same
// member comes in different forms from different calls (reference 7.4).
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		*n = number(i)
		return nil
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && f > -1<<53 && f < 1<<53 {
		*n = number(f)
		return nil
	}
	*n = 0 // not worth losing the rest of the answer for
	return nil
}

// millis is a time in milliseconds since 1970; 0 means none.
func (n number) millis() time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// identifier reads an id: a string or a number of up to 64 letters, digits, - and
// _. Anything else counts as none: ids stand in logs, errors and paths.
type identifier string

func (id *identifier) UnmarshalJSON(b []byte) error {
	s := scalar(b)
	for _, r := range s {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			s = ""
			break
		}
	}
	if len(s) > 64 {
		s = ""
	}
	*id = identifier(s)
	return nil
}

// label reads a name that a person gave: one printable line of up to 256 bytes.
// Anything else counts as none, since names are shown.
type label string

func (l *label) UnmarshalJSON(b []byte) error {
	s := scalar(b)
	if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(s, "-----") {
		s = ""
	}
	*l = label(s)
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

// text reads a JSON string of any length; anything else counts as none.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = text(scalar(b))
	return nil
}

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

// page is one page of a list.
type page[T any] struct {
	Items []T    `json:"items"`
	Total number `json:"total"`
}
