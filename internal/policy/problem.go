package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says what becomes of a problem.
type Severity string

// The severities. The zero Severity is an Error.
const (
	// Error is what cannot work as it is written.
	Error Severity = "error"
	// Warning is what works, and is perhaps not what was meant or will not work for long.
	Warning Severity = "warning"
)

// Problem is one mistake in a configuration or policy file, or something that its reader
// should know before it is used.
type Problem struct {
	Severity Severity `json:"-"`
	// File is the path as it was given; Line and Column count from 1 and are 0
	// where the mistake is the file itself (it cannot be read).
	File         string `json:"file"`
	Line, Column int    `json:"-"`
	Message      string `json:"message"`
	// Host says that the mistake is not in the text but on this host: a file that it names
	// is not there, or must not be used.
	Host bool `json:"-"`
	// source is the text of the line, for the excerpt.
	source string
}

// IsWarning reports whether the problem is a warning only.
func (p Problem) IsWarning() bool { return p.Severity == Warning }

// Error is "file:line:column: message" and, below it, the line with a caret. The message
// of a warning says so, as those of compilers do.
func (p Problem) Error() string {
	message := p.Message
	if p.IsWarning() {
		message = "warning: " + message
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, message)
	}
	head := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, message)
	if p.source == "" {
		return head
	}
	gutter := fmt.Sprintf("%5d | ", p.Line)
	return head + "\n" + gutter + p.source + "\n" + strings.Repeat(" ", len(gutter)-2) + "| " + caretIndent(p.source, p.Column) + "^"
}

// caretIndent repeats the line's own tabs, so that the caret stays below its column
// whatever width the reader's terminal gives a tab.
func caretIndent(line string, column int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= column-1 {
			break
		}
		if r == '\t' {
			b.WriteRune('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Problems are all mistakes that one look found, in the order of file, line and column.
type Problems []Problem

// Error lists every problem, a paragraph each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Errors are the problems that are no warnings.
func (ps Problems) Errors() Problems {
	return slices.DeleteFunc(slices.Clone(ps), Problem.IsWarning)
}

// Sort puts the problems into the order of file, line and column.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// orNil sorts the problems and returns them as an error, or nil if there are none.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	ps.Sort()
	return ps
}
