package waf

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/rotatord/rotatord/internal/providers"
)

// hostRef is where a host lives.
type hostRef struct {
	mode mode
	id   string
}

// hostIDs remembers the ids of host names. A host keeps its id for life, so an
// entry goes only when the service does not know the id any more.
type hostIDs struct {
	mu   sync.Mutex
	refs map[string]hostRef
}

func (h *hostIDs) get(name string) (hostRef, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.refs[name]
	return r, ok
}

func (h *hostIDs) put(name string, r hostRef) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refs == nil {
		h.refs = make(map[string]hostRef)
	}
	h.refs[name] = r
}

func (h *hostIDs) drop(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.refs, name)
}

// canonical is how host names are compared.
func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// found is what a look for one endpoint gave: nothing, one host or several.
type found struct {
	refs []hostRef
}

// problem is why several hosts of one name cannot be served; "" for one or none.
func (f found) problem() string {
	if len(f.refs) < 2 {
		return ""
	}
	ids := make([]string, len(f.refs))
	for i, r := range f.refs {
		ids[i] = r.mode.name + " " + r.id
	}
	return "several hosts have this name (" + strings.Join(ids, ", ") + "); set the mode or name the host by its id"
}

// wholeListing is the number of unknown names from which on one listing of all
// hosts is cheaper than one filtered listing for each.
const wholeListing = 4

// resolve finds the hosts of endpoints by name. Known ones cost nothing.
// Endpoints given by id are not looked for here: only Show tells their mode.
func (t *Target) resolve(ctx context.Context, endpoints []string) (map[string]found, error) {
	result := make(map[string]found)
	var unknown []string
	for _, e := range endpoints {
		if ref, ok := t.hosts.get(canonical(e)); ok {
			result[e] = found{refs: []hostRef{ref}}
		} else if !isID(e) {
			unknown = append(unknown, e)
		}
	}
	filters := unknown
	if len(unknown) >= wholeListing {
		filters = []string{""}
	}
	byName := make(map[string][]hostRef)
	for _, filter := range filters {
		for _, m := range t.modes {
			rows, err := t.listHosts(ctx, m, filter)
			if err != nil {
				return nil, err
			}
			for _, row := range rows {
				name := canonical(string(row.Hostname))
				ref := hostRef{mode: m, id: string(row.ID)}
				if filter == "" || name == canonical(filter) {
					byName[name] = append(byName[name], ref)
				}
			}
		}
	}
	for name, refs := range maps.All(byName) {
		if len(refs) == 1 {
			t.hosts.put(name, refs[0])
		}
	}
	for _, e := range unknown {
		result[e] = found{refs: byName[canonical(e)]}
	}
	return result, nil
}

// seen is one endpoint as the service shows it.
type seen struct {
	ref     hostRef
	host    host
	missing bool
	problem string
}

// look reads one endpoint. f is what resolve found for it.
func (t *Target) look(ctx context.Context, name string, f found) (seen, error) {
	if p := f.problem(); p != "" {
		return seen{problem: p}, nil
	}
	refs := f.refs
	if len(refs) == 0 && isID(name) {
		for _, m := range t.modes {
			refs = append(refs, hostRef{mode: m, id: name})
		}
	}
	for _, ref := range refs {
		h, err := t.showHost(ctx, ref.mode, ref.id)
		switch {
		case err == nil:
			if isID(name) {
				t.hosts.put(canonical(name), ref)
			}
			s := seen{ref: ref, host: h}
			if !h.speaksHTTPS() {
				s.problem = "the host does not speak HTTPS to its clients, so WAF takes no certificate for it"
			}
			return s, nil
		case !isNotFound(err):
			return seen{}, err
		}
		t.hosts.drop(canonical(name))
	}
	return seen{missing: true}, nil
}

// lookAgain is look, with one more search by name where a remembered id proved
// to be gone: the host may have been made anew.
func (t *Target) lookAgain(ctx context.Context, name string, f found, remembered bool) (seen, error) {
	s, err := t.look(ctx, name, f)
	if err != nil || !s.missing || !remembered || isID(name) {
		return s, err
	}
	again, err := t.resolve(ctx, []string{name})
	if err != nil {
		return seen{}, err
	}
	return t.look(ctx, name, again[name])
}

func isNotFound(err error) bool { return providers.KindOf(err) == providers.KindNotFound }

// isMissingAPI reports whether the service does not know a call at all, as
// opposed to the object that the call names: the codes that say so, or a 404
// that is not WAF's own.
func isMissingAPI(err error) bool {
	e, ok := errors.AsType[*providers.Error](err)
	if !ok {
		return false
	}
	switch e.Code {
	case "WAF.00014009", "WAF.00013002": // API not found, feature not supported
		return true
	}
	return e.Kind == providers.KindNotFound && !strings.HasPrefix(e.Code, "WAF.")
}
