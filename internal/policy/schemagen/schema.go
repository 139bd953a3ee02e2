package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf16"
)

// schema is as much of JSON Schema (draft 2020-12) as is needed here.
type schema struct {
	Schema               string              `json:"$schema,omitempty"`
	ID                   string              `json:"$id,omitempty"`
	Title                string              `json:"title,omitempty"`
	Ref                  string              `json:"$ref,omitempty"`
	Description          string              `json:"description,omitempty"`
	Type                 any                 `json:"type,omitempty"`
	Const                any                 `json:"const,omitempty"`
	Enum                 []any               `json:"enum,omitempty"`
	Pattern              string              `json:"pattern,omitempty"`
	MinLength            int                 `json:"minLength,omitempty"`
	MaxLength            int                 `json:"maxLength,omitempty"`
	Minimum              *int                `json:"minimum,omitempty"`
	Maximum              *int                `json:"maximum,omitempty"`
	MinItems             int                 `json:"minItems,omitempty"`
	MaxItems             int                 `json:"maxItems,omitempty"`
	UniqueItems          bool                `json:"uniqueItems,omitempty"`
	PrefixItems          []*schema           `json:"prefixItems,omitempty"`
	Items                *schema             `json:"items,omitempty"`
	Properties           members             `json:"properties,omitempty"`
	PropertyNames        *schema             `json:"propertyNames,omitempty"`
	AdditionalProperties any                 `json:"additionalProperties,omitempty"` // false or a *schema
	Required             []string            `json:"required,omitempty"`
	DependentRequired    map[string][]string `json:"dependentRequired,omitempty"`
	MinProperties        int                 `json:"minProperties,omitempty"`
	MaxProperties        int                 `json:"maxProperties,omitempty"`
	AllOf                []*schema           `json:"allOf,omitempty"`
	AnyOf                []*schema           `json:"anyOf,omitempty"`
	OneOf                []*schema           `json:"oneOf,omitempty"`
	Not                  *schema             `json:"not,omitempty"`
	Default              any                 `json:"default,omitempty"`
	Examples             []any               `json:"examples,omitempty"`
	Defs                 members             `json:"$defs,omitempty"`
}

// members are schemas by name, in the order in which they are written.
type members []member

type member struct {
	name string
	of   *schema
}

func (m members) find(name string) *schema {
	for _, one := range m {
		if one.name == name {
			return one.of
		}
	}
	return nil
}

// MarshalJSON writes an object in the order of the members.
func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, one := range m {
		text, err := plainJSON(one.of)
		if err != nil {
			return nil, err
		}
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		b.WriteByte(separator)
		fmt.Fprintf(&b, "%q:%s", one.name, text)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// plainJSON writes < and > as they are.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// text is the schema as a file, in ASCII: not every font has the characters of the patterns.
func (s *schema) text() ([]byte, error) {
	compact, err := plainJSON(s)
	if err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(compact), "", "  "); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, r := range indented.String() {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
