package policy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
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
	sha256   string // of what is in it
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
	data, err := readAtMost(file, maxDocument+1)
	if err != nil {
		return &document{file: file, problems: Problems{{File: file, Message: "cannot be read: " + plainError(err)}}}
	}
	return parseDocument(file, data, target)
}

// readAtMost reads the beginning of a file: enough to tell that it is too long.
func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func parseDocument(file string, data []byte, target any) *document {
	d := &document{file: file, sha256: fmt.Sprintf("%x", sha256.Sum256(data))}
	if !d.parse(data, target) {
		return d
	}
	if d.checkKeys(); len(d.problems) > 0 {
		return d
	}
	if err := yaml.NodeToValue(d.tree.Docs[0].Body, target, yaml.DisallowUnknownField()); err != nil {
		d.addError(err, target)
	}
	return d
}

// parse makes the tree of exactly one document, and reports whether there is one. Of
// target only the type counts, for the words of a mistake.
func (d *document) parse(data []byte, target any) bool {
	if len(data) > maxDocument {
		d.problems = append(d.problems, Problem{File: d.file, Message: fmt.Sprintf("is longer than %d bytes", maxDocument)})
		return false
	}
	d.lines = strings.Split(string(data), "\n")
	tokens := lexer.Tokenize(string(data))
	if at := tooDeep(tokens); at != nil {
		d.add(at, "nested more than %d levels deep", maxDepth)
		return false
	}
	tree, err := parser.Parse(tokens, 0)
	if err != nil {
		d.addError(err, target)
		return false
	}
	d.tree = tree
	if len(bytes.TrimSpace(data)) == 0 || len(tree.Docs) == 0 || isEmpty(tree.Docs[0].Body) {
		d.problems = append(d.problems, Problem{File: d.file, Line: 1, Column: 1, Message: "is empty"})
		return false
	}
	if at := secondDocument(tokens); at != nil {
		d.add(at, "a second YAML document starts here; put it into a file of its own")
		return false
	}
	return true
}

// maxDepth is how deep lists and mappings may be nested by brackets, and by dashes on one
// line. The parser takes minutes for a file full of them.
const maxDepth = 50

// tooDeep is the token that goes too deep, or nil.
func tooDeep(tokens token.Tokens) *token.Token {
	brackets, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType:
			dashes++
		}
		if brackets+dashes > maxDepth {
			return t
		}
	}
	return nil
}

// secondDocument is the first content of a second document, or nil. The parser cannot
// tell: it drops what follows an empty document.
func secondDocument(tokens token.Tokens) *token.Token {
	content, ended := false, false
	for _, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType, token.DocumentEndType:
			ended = content
		case token.CommentType:
		default:
			if ended {
				return t
			}
			content = true
		}
	}
	return nil
}

// checkKeys refuses keys that are not text: the library ignores a whole mapping that
// has one.
func (d *document) checkKeys() {
	for _, n := range ast.Filter(ast.MappingValueType, d.tree.Docs[0].Body) {
		key := n.(*ast.MappingValueNode).Key
		switch key.Type() {
		case ast.StringType, ast.MergeKeyType:
		case ast.MappingKeyType:
			d.add(key.GetToken(), "a key must be plain text")
		default:
			d.add(key.GetToken(), "key %s is not text; quote it", key)
		}
	}
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
		d.add(nil, "%s", err)
		return
	}
	d.add(library.GetToken(), "%s", d.words(library, target))
}

func (d *document) words(err yaml.Error, target any) string {
	switch e := err.(type) {
	case *yaml.UnknownFieldError:
		name := e.GetToken().Value
		switch near := nearest(name, fieldNames(reflect.TypeOf(target))); near {
		case "":
		case name:
			return fmt.Sprintf("field %q does not belong here", name)
		default:
			return fmt.Sprintf("unknown field %q; did you mean %q?", name, near)
		}
		return fmt.Sprintf("unknown field %q", name)
	case *yaml.TypeError:
		return fmt.Sprintf("want %s, have %s", kindWords(e.DstType), tokenWords(e.GetToken()))
	case *yaml.OverflowError:
		return fmt.Sprintf("%s is too large a number", e.GetToken().Value)
	case *yaml.UnexpectedNodeTypeError:
		return fmt.Sprintf("want %s here, have %s", nodeWords(e.Expected), nodeWords(e.Actual))
	}
	return err.GetMessage()
}

func tokenWords(t *token.Token) string {
	switch t.Type {
	case token.SequenceStartType, token.SequenceEntryType:
		return "a list"
	case token.MappingStartType, token.MappingValueType:
		return "a mapping (key: value)"
	}
	return strconv.Quote(t.Value)
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
		p.source = excerpt(d.lines[p.Line-1])
	}
	d.problems = append(d.problems, p)
}

// maxExcerpt is the longest line that is shown, in bytes.
const maxExcerpt = 400

// login is what a URL may hold before its host, with or without a scheme.
var login = regexp.MustCompile(`[^\s"',]+:[^\s"']*@`)

// excerpt is a line as it may be shown: not endless, without characters that would
// steer a terminal, and without a password that somebody wrote into a URL.
func excerpt(line string) string {
	line = strings.TrimRight(line, "\r")
	if len(line) > maxExcerpt {
		return ""
	}
	line = login.ReplaceAllString(line, "[redacted]@")
	return strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, line)
}

// checkWhole refuses a fraction where a whole number is wanted: the library would cut
// it off.
func (d *document) checkWhole(path string) {
	if at := d.find(path); at != nil && at.Type == token.FloatType {
		d.add(at, "want a whole number, have %q", at.Value)
	}
}

// addAt records a problem at a YAML path such as "$.targets[0].waf.hosts". Where the
// path does not exist, because a field is missing, the nearest parent is shown.
func (d *document) addAt(path, format string, args ...any) {
	d.add(d.find(path), format, args...)
}

// addHost is addAt for what is wrong on this host and not in the text.
func (d *document) addHost(path, format string, args ...any) {
	d.addAt(path, format, args...)
	d.problems[len(d.problems)-1].Host = true
}

// addAtKey records a problem with the last name of a path itself, not with what it
// stands for.
func (d *document) addAtKey(path, format string, args ...any) {
	d.add(d.findKey(path), format, args...)
}

func (d *document) findKey(path string) *token.Token {
	cut := strings.LastIndex(path, ".")
	if p, err := yaml.PathString(path[:cut]); err == nil {
		n, _ := p.FilterFile(d.tree)
		if mapping, ok := n.(*ast.MappingNode); ok {
			for _, v := range mapping.Values {
				if v.Key.GetToken().Value == path[cut+1:] {
					return v.Key.GetToken()
				}
			}
		}
	}
	return d.find(path)
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
