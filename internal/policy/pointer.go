package policy

import "fmt"

// Pointer makes problems of what is found wrong after the files were read: by comparing
// them with each other, with the disk, or with a service. It reads a file again to point
// at its lines, once, since findings are few and syntax trees are large. The zero value
// is ready for use.
type Pointer struct{ read map[string]*document }

// At returns a problem at a YAML path of a file, such as "$.targets[0].waf.hosts". Where
// the path does not exist, because a default counts, the nearest parent is shown.
func (p *Pointer) At(severity Severity, file, path, format string, args ...any) Problem {
	found := Problem{Severity: severity, File: file, Message: fmt.Sprintf(format, args...)}
	d := p.document(file)
	if d == nil {
		return found
	}
	before := len(d.problems)
	d.addAt(path, "%s", found.Message)
	found = d.problems[before]
	d.problems, found.Severity = d.problems[:before], severity
	return found
}

// document is nil where the file has gone bad since it was loaded.
func (p *Pointer) document(file string) *document {
	if d, known := p.read[file]; known {
		return d
	}
	if p.read == nil {
		p.read = map[string]*document{}
	}
	p.read[file] = nil
	if data, err := readAtMost(file, maxDocument+1); err == nil {
		if d := (&document{file: file}); d.parse(data, Policy{}) {
			p.read[file] = d
		}
	}
	return p.read[file]
}
