package main

import (
	"fmt"
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	draft = "https://json-schema.org/draft/2020-12/schema"
	home  = "https://raw.githubusercontent.com/rotatord/rotatord/main/internal/policy/"
)

// generator makes one schema.
type generator struct {
	source *source
	defs   map[string]*schema
	// used are the sets and patterns that were asked for, shaped and limited the rules.
	used, shaped, limited map[string]bool
}

// generate makes the schemas of the package in dir, by the names of their files.
func generate(dir string) (map[string][]byte, error) {
	s, err := readSource(dir)
	if err != nil {
		return nil, err
	}
	g := &generator{source: s, used: map[string]bool{}, shaped: map[string]bool{}, limited: map[string]bool{}}
	files := map[string][]byte{}
	for _, root := range []struct{ file, title, goType string }{
		{"schema/config.schema.json", "rotatord configuration", "Config"},
		{"schema/policy.schema.json", "rotatord policy", "Policy"},
	} {
		g.defs = map[string]*schema{}
		whole, err := g.object(root.goType)
		if err != nil {
			return nil, err
		}
		whole.Schema, whole.ID, whole.Title = draft, home+root.file, root.title
		for _, name := range slices.Sorted(maps.Keys(g.defs)) {
			whole.Defs = append(whole.Defs, member{name, g.defs[name]})
		}
		if files[root.file], err = whole.text(); err != nil {
			return nil, err
		}
	}
	return files, g.leftOver()
}

// leftOver says which rule is for nothing, and which part of a check has no rule.
func (g *generator) leftOver() error {
	for name := range shapes {
		if !g.shaped[name] {
			return fmt.Errorf("rules.go has a shape for %s, which no YAML has", name)
		}
	}
	for name := range limits {
		if !g.limited[name] {
			return fmt.Errorf("rules.go has a limit for %s, which no YAML has", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.source.sets)) {
		if !g.used[name] {
			return fmt.Errorf("no rule has the set %s, which values are checked against; add it to rules.go", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.source.values)) {
		if strings.HasSuffix(name, "Pattern") && !g.used[name] {
			return fmt.Errorf("no rule has the pattern %s; add it to rules.go", name)
		}
	}
	return nil
}

// object is the schema of a struct.
func (g *generator) object(name string) (*schema, error) {
	t := g.source.types[name]
	s := &schema{Type: "object", Description: t.doc, AdditionalProperties: false}
	for _, f := range t.fields {
		one, err := g.value(f.kind)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, f.yaml, err)
		}
		key := name + "." + f.yaml
		g.limited[key] = true
		for _, narrow := range limits[key] {
			if err := narrow(g, one); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		one.plain()
		one.Description = f.doc
		one.Default = g.defaultValue(f.doc, one)
		s.Properties = append(s.Properties, member{f.yaml, one})
	}
	if err := g.shape(name, s); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// plain leaves out what something narrower says already.
func (s *schema) plain() {
	if s.Enum != nil || s.Pattern != "" {
		s.MinLength = 0
	}
	if s.Items != nil {
		s.Items.plain()
	}
	for _, one := range s.Properties {
		one.of.plain()
	}
}

// value is the schema of what a field of this type holds.
func (g *generator) value(e ast.Expr) (*schema, error) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return g.value(e.X)
	case *ast.ArrayType:
		items, err := g.value(e.Elt)
		return &schema{Type: "array", Items: items}, err
	case *ast.MapType:
		values, err := g.value(e.Value)
		return &schema{Type: "object", AdditionalProperties: values}, err
	case *ast.Ident:
		if s, ok := basic[e.Name]; ok {
			return &s, nil
		}
		return g.reference(e.Name)
	}
	return nil, fmt.Errorf("a field of type %T is not understood", e)
}

var basic = map[string]schema{
	// Nothing is "" on purpose: a default is had by leaving the field out.
	"string":  {Type: "string", MinLength: 1},
	"bool":    {Type: "boolean"},
	"int":     {Type: "integer"},
	"float64": {Type: "number"},
}

// reference is a type of the package, defined once.
func (g *generator) reference(name string) (*schema, error) {
	ref := &schema{Ref: "#/$defs/" + name}
	t, ok := g.source.types[name]
	if _, done := g.defs[name]; done || !ok {
		if !ok {
			return nil, fmt.Errorf("there is no type %s", name)
		}
		return ref, nil
	}
	var err error
	define, scalar := scalars[name]
	switch {
	case scalar:
		g.defs[name], err = define(g)
	case t.own:
		return nil, fmt.Errorf("type %s reads its YAML itself; say in rules.go, under scalars, what that is like", name)
	case t.fields != nil || name == "Environment":
		g.defs[name], err = g.object(name)
	default:
		text := basic["string"]
		g.defs[name] = &text
	}
	if err != nil {
		return nil, err
	}
	g.defs[name].Description = t.doc
	return ref, nil
}

// shape adds what an object must have.
func (g *generator) shape(name string, s *schema) error {
	rule := shapes[name]
	g.shaped[name] = true
	var unknown error
	names := func(list string) []string {
		fields := strings.Fields(list)
		for _, field := range fields {
			if s.Properties.find(field) == nil {
				unknown = fmt.Errorf("there is no member %s", field)
			}
		}
		return fields
	}
	presence := func(list string) []*schema {
		var each []*schema
		for _, field := range names(list) {
			each = append(each, &schema{Required: []string{field}})
		}
		return each
	}
	if rule.alone {
		s.MinProperties, s.MaxProperties = 1, 1
	}
	s.Required = names(rule.required)
	for _, list := range rule.one {
		s.AllOf = append(s.AllOf, &schema{OneOf: presence(list)})
	}
	for _, list := range rule.any {
		s.AllOf = append(s.AllOf, &schema{AnyOf: presence(list)})
	}
	for _, list := range rule.no {
		all := names(list)
		for i, a := range all {
			for _, b := range all[i+1:] {
				s.AllOf = append(s.AllOf, &schema{Not: &schema{Required: []string{a, b}}})
			}
		}
	}
	for _, need := range rule.needs {
		field, others, _ := strings.Cut(need, ": ")
		if s.DependentRequired == nil {
			s.DependentRequired = map[string][]string{}
		}
		names(field)
		s.DependentRequired[field] = names(others)
	}
	return unknown
}

func (g *generator) pattern(name string) (string, error) {
	text, err := g.source.pattern(name)
	g.used[name] = true
	return literal(text), err
}

// literal writes a pattern so that Go and JavaScript read it alike, and alike with all
// others that editors are made with: characters stand for themselves. Of Chinese ones a
// few more are let through than there are.
func literal(pattern string) string {
	return strings.NewReplacer(
		`\p{Han}`, "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003fffd",
		`\x{b5}`, "\u00b5", `\x{3bc}`, "\u03bc",
	).Replace(pattern)
}

var (
	saidDefault   = regexp.MustCompile(`\b[Dd]efault (\S+)`)
	markedDefault = regexp.MustCompile(`(\S+) \(default\b`)
	quoted        = regexp.MustCompile(`^"(.*)"$`)
	// a value by itself, not a word of a sentence
	evident = regexp.MustCompile(`^[A-Z]+$|[/:0-9]`)
)

// defaultValue is what a comment says is the default, where it is a value of the member,
// or nil: "Default 5m.", "cloud (default) or dedicated". "Default: ..." is prose.
func (g *generator) defaultValue(doc string, s *schema) any {
	said := saidDefault.FindStringSubmatch(doc)
	if said == nil {
		said = markedDefault.FindStringSubmatch(doc)
	}
	if said == nil {
		return nil
	}
	text := strings.TrimRight(said[1], ".,;)")
	if plain := quoted.FindStringSubmatch(text); plain != nil {
		text = plain[1]
	} else if s.Enum == nil && !evident.MatchString(text) && s.Type == "string" {
		return nil
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		s = g.defs[name]
	}
	switch {
	case s.Type == "integer":
		return typed(strconv.Atoi(text))
	case s.Type == "number":
		return typed(strconv.ParseFloat(text, 64))
	case s.Type == "boolean":
		return typed(strconv.ParseBool(text))
	case s.Enum != nil && !slices.Contains(s.Enum, any(text)),
		s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text),
		s.Type != "string" && s.Pattern == "":
		return nil
	}
	return text
}

// typed is a value that could be read, or nil.
func typed[T any](v T, err error) any {
	if err != nil {
		return nil
	}
	return v
}
