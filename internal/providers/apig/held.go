package apig

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// serialPrefix is what the handle of a content begins with; no certificate id does.
const serialPrefix = "serial:"

func isContent(h providers.Handle) bool { return strings.HasPrefix(string(h), serialPrefix) }

func contentHandle(serial string) providers.Handle { return providers.Handle(serialPrefix + serial) }

// keepBundles is how many bundles of one owner are held: the one that comes, the one
// that it replaces, and one that came to nothing.
const keepBundles = 3

// held are the bundles that were staged in place. Expired ones go when another comes.
type held struct {
	mu      sync.Mutex
	bundles map[providers.Owner][]*certs.Bundle // newest first
}

func (h *held) put(o providers.Owner, b *certs.Bundle, now time.Time) providers.Handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bundles == nil {
		h.bundles = make(map[providers.Owner][]*certs.Bundle)
	}
	serial := b.Info().SerialNumber
	others := slices.DeleteFunc(slices.Clone(h.bundles[o]), func(other *certs.Bundle) bool {
		return other.Info().SerialNumber == serial
	})
	h.bundles[o] = append([]*certs.Bundle{b}, others[:min(len(others), keepBundles-1)]...)
	for owner, bundles := range h.bundles {
		h.bundles[owner] = slices.DeleteFunc(bundles, func(b *certs.Bundle) bool { return now.After(b.Leaf.NotAfter) })
		if len(h.bundles[owner]) == 0 {
			delete(h.bundles, owner)
		}
	}
	return contentHandle(serial)
}

func (h *held) get(o providers.Owner, handle providers.Handle) (*certs.Bundle, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bundles[o] {
		if contentHandle(b.Info().SerialNumber) == handle {
			return b, true
		}
	}
	return nil, false
}

// of returns what is held for an owner.
func (h *held) of(o providers.Owner) []*certs.Bundle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.bundles[o])
}
