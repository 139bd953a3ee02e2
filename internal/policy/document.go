package policy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDocument is the largest file that is parsed, in bytes. A policy is a page of
// text; anything larger is a mistake or an attack on the parser.
const maxDocument = 1 << 20

// document is one parsed YAML file that can point at its own lines. The checks add
// their findings to problems.
type document struct {
	file     string
	lines    []string
	tree     *ast.File
	problems Problems
}

// nodeError is a mistake at a token, made by the scalars of this package while the
// YAML library decodes into them.
type nodeError struct {
	at      *token.Token
	message string
}

func (e *nodeError) Error() string { return e.message }

// readDocument reads and parses a file and decodes it strictly into target, a
// pointer to a struct. The document is usable for pointing at lines even if it
// has problems.
func readDocument(file string, target any) *document {
	data, err := os.ReadFile(file)
	if err != nil {
		return &document{file: file, problems: Problems{{File: file, Message: "cannot be read: " + plainError(err)}}}
	}
	return parseDocument(file, data, target)
}

func parseDocument(file string, data []byte, target any) *document {
	d := &document{file: file}
	if len(data) > maxDocument {
		d.problems = append(d.problems, Problem{File: file, Message: fmt.Sprintf("is %d bytes long; the limit is %d", len(data), maxDocument)})
		return d
	}
	d.lines = strings.Split(string(data), "\n")
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.addError(err, target)
		return d
	}
	d.tree = tree
	if len(bytes.TrimSpace(data)) == 0 || len(tree.Docs) == 0 || isEmpty(tree.Docs[0].Body) {
		d.problems = append(d.problems, Problem{File: file, Line: 1, Column: 1, Message: "is empty"})
		return d
	}
	if len(tree.Docs) > 1 && !isEmpty(tree.Docs[1].Body) {
		d.add(tree.Docs[1].Body.GetToken(), "a second YAML document starts here; put it into a file of its own")
		return d
	}
	if err := yaml.NodeToValue(tree.Docs[0].Body, target, yaml.DisallowUnknownField()); err != nil {
		d.addError(err, target)
	}
	return d
}

func isEmpty(n ast.Node) bool {
	if n == nil || reflect.ValueOf(n).IsNil() {
		return true
	}
	return n.Type() == ast.NullType || n.Type() == ast.CommentType
}

// addError turns an error of the YAML library into a problem in words for an
// operator.
func (d *document) addError(err error, target any) {
	if own, ok := errors.AsType[*nodeError](err); ok {
		d.add(own.at, "%s", own.message)
		return
	}
	var library yaml.Error
	if !errors.As(err, &library) {
		d.problems = append(d.problems, Problem{File: d.file, Line: 1, Column: 1, Message: err.Error()})
		return
	}
	d.add(library.GetToken(), "%s", d.words(library, target))
}

func (d *document) words(err yaml.Error, target any) string {
	switch e := err.(type) {
	case *yaml.UnknownFieldError:
		name := e.GetToken().Value
		if near := nearest(name, fieldNames(reflect.TypeOf(target))); near != "" {
			return fmt.Sprintf("unknown field %q; did you mean %q?", name, near)
		}
		return fmt.Sprintf("unknown field %q", name)
	case *yaml.TypeError:
		return fmt.Sprintf("want %s, have %q", kindWords(e.DstType), e.GetToken().Value)
	case *yaml.UnexpectedNodeTypeError:
		return fmt.Sprintf("want %s here, have %s", nodeWords(e.Expected), nodeWords(e.Actual))
	}
	return err.GetMessage()
}

func kindWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Int32:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping (key: value)"
	}
	return "a string"
}

func nodeWords(n ast.NodeType) string {
	switch n {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping (key: value)"
	case ast.SequenceType:
		return "a list"
	case ast.StringType, ast.LiteralType:
		return "a string"
	case ast.IntegerType, ast.FloatType:
		return "a number"
	case ast.BoolType:
		return "true or false"
	case ast.NullType:
		return "nothing"
	}
	return n.YAMLName()
}

// add records a problem at a token.
func (d *document) add(at *token.Token, format string, args ...any) {
	p := Problem{File: d.file, Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		p.Line, p.Column = at.Position.Line, at.Position.Column
	}
	if p.Line-1 < len(d.lines) {
		p.source = strings.TrimRight(d.lines[p.Line-1], "\r")
	}
	d.problems = append(d.problems, p)
}

// addAt records a problem at a YAML path such as "$.targets[0].waf.hosts". Where the
// path does not exist, because a field is missing, the nearest parent is shown.
func (d *document) addAt(path, format string, args ...any) {
	d.add(d.find(path), format, args...)
}

func (d *document) find(path string) *token.Token {
	for path != "" && d.tree != nil {
		if p, err := yaml.PathString(path); err == nil {
			if n, err := p.FilterFile(d.tree); err == nil && n != nil {
				return startOf(n)
			}
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return nil
}

// startOf is the first token of a node: for a mapping its first key, not the colon
// that the library calls the mapping's token.
func startOf(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	case *ast.SequenceNode:
		if len(n.Values) > 0 {
			return startOf(n.Values[0])
		}
	}
	return n.GetToken()
}

// fieldNames are all YAML names reachable from a type: good enough for suggesting
// one, and free of any knowledge of where in the document the mistake is.
func fieldNames(t reflect.Type) []string {
	seen := map[reflect.Type]bool{}
	var names []string
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "" || name == "-" {
				continue
			}
			names = append(names, name)
			walk(f.Type)
		}
	}
	walk(t)
	slices.Sort(names)
	return slices.Compact(names)
}

// nearest returns the candidate at an edit distance of at most 2 (1 for short
// words), or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", 3
	if len(word) < 5 {
		bestDistance = 2
	}
	for _, c := range candidates {
		if d := editDistance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			previous, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, previous+cost)
		}
	}
	return row[len(b)]
}

// plainError drops the operation and path that the os package repeats in front of
// the reason.
func plainError(err error) string {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
