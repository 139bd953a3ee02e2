package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a configuration or policy file.
type Problem struct {
	// File is the path as it was given; Line and Column count from 1 and are 0
	// where the mistake is the file itself (it cannot be read).
	File         string `json:"file"`
	Line, Column int    `json:"-"`
	Message      string `json:"message"`
	// source is the text of the line, for the excerpt.
	source string
}

// Error is "file:line:column: message" and, below it, the line with a caret.
func (p Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	}
	head := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
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

// orNil sorts the problems and returns them as an error, or nil if there are none.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}
