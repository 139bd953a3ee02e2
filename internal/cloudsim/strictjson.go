package cloudsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// members is a JSON object of a request, read without any of encoding/json's courtesies: names are compared
// exactly, unknown and repeated ones are refused, null is no value, and every type must be the documented one.
type members map[string]json.RawMessage

// parseMembers reads one object whose names are all among allowed.
func parseMembers(data []byte, allowed ...string) (members, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("the body is not a JSON object")
	}
	found := members{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, errors.New("the body is not valid JSON")
		}
		name, _ := token.(string)
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("the value of %s is not valid JSON", shownName(name))
		}
		if !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("the parameter %s is unknown", shownName(name))
		}
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("the parameter %q is there twice", name)
		}
		found[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("the body is not valid JSON")
	}
	if dec.More() {
		return nil, errors.New("something follows the JSON object")
	}
	return found, nil
}

// shownName is a member's name as an error message may repeat it: a caller's slip can put anything in its place, a
// private key too, and messages are kept in the ledger.
func shownName(name string) string {
	odd := func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	if len(name) > 40 || strings.ContainsFunc(name, odd) {
		return "with an odd name"
	}
	return strconv.Quote(name)
}

// text returns a string member; given is false when it is absent.
func (m members) text(name string) (value string, given bool, err error) {
	given, err = m.value(name, "a string", '"', &value)
	return value, given, err
}

// needText is text for a mandatory member.
func (m members) needText(name string) (string, error) {
	value, given, err := m.text(name)
	if err == nil && !given {
		err = fmt.Errorf("the parameter %q is missing", name)
	}
	return value, err
}

// texts returns a list of strings; nil where it is not given.
func (m members) texts(name string) (values []string, err error) {
	given, err := m.value(name, "a list of strings", '[', &values)
	if err != nil || !given {
		return nil, err
	}
	var raw []json.RawMessage
	_ = json.Unmarshal(m[name], &raw) // it has just been read as a list
	if slices.ContainsFunc(raw, func(r json.RawMessage) bool { return r[0] != '"' }) {
		return nil, fmt.Errorf("the parameter %q is not a list of strings", name)
	}
	return values, nil
}

// list returns the raw members of a list.
func (m members) list(name string) (values []json.RawMessage, given bool, err error) {
	given, err = m.value(name, "a list", '[', &values)
	return values, given, err
}

// whole returns an integer member; 0 where it is not given.
func (m members) whole(name string) (value int, err error) {
	_, err = m.value(name, "a whole number", 0, &value)
	return value, err
}

// truth returns a boolean member.
func (m members) truth(name string) (value, given bool, err error) {
	given, err = m.value(name, "true or false", 0, &value)
	return value, given, err
}

// need returns a mandatory object member whose names are among allowed.
func (m members) need(name string, allowed ...string) (members, error) {
	raw, given := m[name]
	if !given {
		return nil, fmt.Errorf("the parameter %q is missing", name)
	}
	inner, err := parseMembers(raw, allowed...)
	if err != nil {
		return nil, fmt.Errorf("in %q: %w", name, err)
	}
	return inner, nil
}

// value decodes a member; first is the first byte that its JSON must have, 0 for any but null.
func (m members) value(name, kind string, first byte, into any) (given bool, err error) {
	raw, given := m[name]
	if !given {
		return false, nil
	}
	raw = bytes.TrimSpace(raw)
	if first != 0 && raw[0] != first || string(raw) == "null" || json.Unmarshal(raw, into) != nil {
		return true, fmt.Errorf("the parameter %q is not %s", name, kind)
	}
	return true, nil
}
