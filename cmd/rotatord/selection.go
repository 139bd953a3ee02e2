package main

import (
	"fmt"
	"strings"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/rotation"
)

// selection is a policy, one certificate of it, or, empty, everything.
type selection struct{ policy, certificate string }

// parseSelection reads POLICY or POLICY/CERTIFICATE. The certificate may hold slashes. A part
// that is empty, as of a script's variable, is a mistake and does not mean all.
func parseSelection(text string) (selection, error) {
	policy, certificate, both := strings.Cut(text, "/")
	if both && (policy == "" || certificate == "") {
		return selection{}, admin.Refuse("%q is neither POLICY nor POLICY/CERTIFICATE", text)
	}
	return selection{policy, certificate}, nil
}

func (s selection) has(id rotation.ID) bool {
	return (s.policy == "" || s.policy == id.Policy) && (s.certificate == "" || s.certificate == id.Certificate)
}

// selected are the assignments that are meant; a Refusal where there is no such policy or
// certificate.
func (d *daemon) selected(s selection) ([]rotation.ID, error) {
	g := d.inForce()
	if s.policy != "" && g.parts[s.policy] == nil {
		return nil, g.unknownPolicy(s.policy)
	}
	var ids []rotation.ID
	for _, name := range g.names() {
		for _, id := range d.assignments(name) {
			if s.has(id) {
				ids = append(ids, id)
			}
		}
	}
	if s.certificate != "" && len(ids) == 0 {
		var names []string
		for _, id := range d.assignments(s.policy) {
			names = append(names, id.Certificate)
		}
		return nil, unknown("policy %s has no certificate %q; it has: %s", s.policy, s.certificate, listed(names))
	}
	return ids, nil
}

func (g *generation) unknownPolicy(name string) error {
	return unknown("there is no policy %q in force on node %s; there are: %s", name, g.set.Config.Node, listed(g.names()))
}

func unknown(format string, args ...any) error {
	return &admin.Refusal{Unknown: true, Message: fmt.Sprintf(format, args...)}
}

// listed is a list for a sentence, cut where it gets long.
func listed(names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
