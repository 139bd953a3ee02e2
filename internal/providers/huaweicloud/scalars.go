package huaweicloud

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The members of answers as the services really send them: the same one comes as a
// number here and as a string there (reference 7.4). What cannot be read counts as
// none: it is not worth losing the rest of the answer for.

// Number reads a JSON number, a number in quotes, null or nothing.
type Number int64

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (n *Number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	*n = 0
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		*n = Number(i)
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && f > -1<<53 && f < 1<<53 {
		*n = Number(f)
	}
	return nil
}

// Millis is the time of so many milliseconds since 1970; the zero Time for 0.
func (n Number) Millis() time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// Identifier reads an id: a string or a number of up to 64 letters, digits, - and _.
// Anything else counts as none: ids stand in logs, errors, paths and names of files.
type Identifier string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (id *Identifier) UnmarshalJSON(b []byte) error {
	*id = Identifier(Scalar(b))
	if !IsIdentifier(string(*id)) {
		*id = ""
	}
	return nil
}

// IsIdentifier reports whether text has the form of an Identifier.
func IsIdentifier(text string) bool {
	return len(text) > 0 && len(text) <= 64 && !strings.ContainsFunc(text, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// Label reads a word or a name that a person gave: one printable line of up to 256
// bytes. Anything else counts as none, since names are shown.
type Label string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (l *Label) UnmarshalJSON(b []byte) error {
	s := Scalar(b)
	if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(s, "-----") {
		s = ""
	}
	*l = Label(s)
	return nil
}

// Is compares a word of the service's own, whatever its case.
func (l Label) Is(word string) bool { return strings.EqualFold(string(l), word) }

// Text reads a JSON string of any length.
type Text string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *Text) UnmarshalJSON(b []byte) error {
	*t = Text(Scalar(b))
	return nil
}

// Scalar is the text of a JSON string or number, "" of anything else.
func Scalar(b []byte) string {
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
