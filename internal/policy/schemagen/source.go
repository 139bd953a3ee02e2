package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// source is what a schema can be made of.
type source struct {
	types map[string]*goType
	// values are the initial values of the package's constants and variables.
	values map[string]ast.Expr
	// sets are the sets that values are checked against, by the name of the variable.
	sets map[string]bool
}

// goType is a declared type.
type goType struct {
	doc string
	// fields are those with a name in YAML; nil for what is no struct.
	fields []goField
	// own says that the type reads its YAML itself.
	own bool
}

type goField struct {
	name, yaml, doc string
	kind            ast.Expr
}

// readSource reads the package in a directory, without its tests.
func readSource(dir string) (*source, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	s := &source{types: map[string]*goType{}, values: map[string]ast.Expr{}, sets: map[string]bool{}}
	var methods []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.GenDecl:
				s.readDecl(decl)
			case *ast.FuncDecl:
				if decl.Name.Name == "UnmarshalYAML" {
					methods = append(methods, decl.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name)
				}
				if err := s.readSets(decl); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, name := range methods {
		s.types[name].own = true
	}
	return s, nil
}

func (s *source) readDecl(decl *ast.GenDecl) {
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			s.types[spec.Name.Name] = readType(spec, decl.Doc)
		case *ast.ValueSpec:
			for i, name := range spec.Names {
				if i < len(spec.Values) {
					s.values[name.Name] = spec.Values[i]
				}
			}
		}
	}
}

func readType(spec *ast.TypeSpec, doc *ast.CommentGroup) *goType {
	if spec.Doc != nil {
		doc = spec.Doc
	}
	t := &goType{doc: firstParagraph(doc)}
	structure, ok := spec.Type.(*ast.StructType)
	if !ok {
		t.describe(spec.Name.Name)
		return t
	}
	for _, f := range structure.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		text := firstParagraph(f.Doc)
		if text == "" {
			text = firstParagraph(f.Comment)
		}
		t.fields = append(t.fields, goField{name: f.Names[0].Name, yaml: name, doc: text, kind: f.Type})
	}
	t.describe(spec.Name.Name)
	return t
}

func firstParagraph(group *ast.CommentGroup) string {
	text, _, _ := strings.Cut(group.Text(), "\n\n")
	return strings.Join(strings.Fields(text), " ")
}

var (
	word    = regexp.MustCompile(`[A-Za-z0-9]+`)
	acronym = regexp.MustCompile(`^[A-Z0-9]+$`)
	verb    = regexp.MustCompile(`^(is|are) `)
	// capital is the beginning of a text up to a capitalised word, as before the last word
	// of a proper name.
	capital = regexp.MustCompile(`\b[A-Z]\w* $`)
)

// describe makes the comments of a Go programmer those of somebody who writes YAML: fields
// have their names in YAML, and a field without a comment has the one before it that names
// it. A type's own name, with which its comment begins, is left out.
func (t *goType) describe(name string) {
	yamlName, shared := map[string]string{}, ""
	for i := range t.fields {
		f := &t.fields[i]
		yamlName[f.name] = f.yaml
		if f.doc != "" {
			shared = f.doc
		} else if !acronym.MatchString(f.name) && slices.Contains(word.FindAllString(shared, -1), f.name) {
			f.doc = shared
		}
	}
	for i := range t.fields {
		t.fields[i].doc = renamed(t.fields[i].doc, yamlName)
	}
	if rest, ok := strings.CutPrefix(t.doc, name+" "); ok {
		rest = renamed(verb.ReplaceAllString(rest, ""), yamlName)
		t.doc = strings.ToUpper(rest[:1]) + rest[1:]
	}
}

// renamed has names instead of those in Go. Inside a text NATS is the system, not the
// field, and the Cloud of Open Telekom Cloud none either.
func renamed(text string, names map[string]string) string {
	var b strings.Builder
	end := 0
	for _, at := range word.FindAllStringIndex(text, -1) {
		found := text[at[0]:at[1]]
		name, ok := names[found]
		if !ok || at[0] > 0 && (acronym.MatchString(found) || capital.MatchString(text[:at[0]])) {
			continue
		}
		b.WriteString(text[end:at[0]] + name)
		end = at[1]
	}
	return b.String() + text[end:]
}

// readSets notes which sets a function checks values against. They must have names, or
// nothing else could have them.
func (s *source) readSets(function *ast.FuncDecl) error {
	var problem error
	ast.Inspect(function, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 4 {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "oneOf" {
			return true
		}
		set, ok := call.Args[3].(*ast.Ident)
		if !ok {
			problem = fmt.Errorf("%s calls oneOf with a set that has no name; make it a variable of the package", function.Name.Name)
			return false
		}
		s.sets[set.Name] = true
		return true
	})
	return problem
}

// set is the value of a slice of strings or numbers.
func (s *source) set(name string) ([]any, error) {
	literal, ok := s.values[name].(*ast.CompositeLit)
	if !ok {
		return nil, fmt.Errorf("there is no set %s", name)
	}
	var values []any
	for _, e := range literal.Elts {
		v, err := s.value(e)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
		values = append(values, v)
	}
	return values, nil
}

// pattern is the text of a regular expression.
func (s *source) pattern(name string) (string, error) {
	if call, ok := s.values[name].(*ast.CallExpr); ok && len(call.Args) == 1 {
		if text, err := s.value(call.Args[0]); err == nil {
			return fmt.Sprint(text), nil
		}
	}
	return "", fmt.Errorf("there is no pattern %s", name)
}

// number is the value of a constant.
func (s *source) number(name string) (int, error) {
	v, err := s.value(&ast.Ident{Name: name})
	if err != nil {
		return 0, err
	}
	n, ok := v.(int)
	if !ok {
		return 0, fmt.Errorf("%s is no number", name)
	}
	return n, nil
}

func (s *source) value(e ast.Expr) (any, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return strconv.Unquote(e.Value)
		}
		return strconv.Atoi(e.Value)
	case *ast.Ident:
		if of, ok := s.values[e.Name]; ok {
			return s.value(of)
		}
		return nil, fmt.Errorf("there is no %s", e.Name)
	}
	return nil, fmt.Errorf("%T is not understood", e)
}
