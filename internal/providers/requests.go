package providers

import (
	"context"
	"slices"
	"sync"
)

// maxRequests is how many ids are kept until somebody takes them: the newest say most.
const maxRequests = 32

// Requests gathers what services called the requests that were made to change something, so
// that a history can be held against the services' own. Its methods may be called by several
// goroutines.
type Requests struct {
	mu  sync.Mutex
	ids []string
}

// requestsKey is the key of a context's Requests.
type requestsKey struct{}

// WithRequests returns a context whose changing requests are noted; nil: they are not.
func WithRequests(ctx context.Context, r *Requests) context.Context {
	return context.WithValue(ctx, requestsKey{}, r)
}

// NoteRequest notes the id of a changing request that was made with ctx, if somebody wants to
// know. It must be safe to show.
func NoteRequest(ctx context.Context, id string) {
	if r, _ := ctx.Value(requestsKey{}).(*Requests); r != nil {
		r.Note(id)
	}
}

// Note notes an id; an empty one is none.
func (r *Requests) Note(id string) {
	if id == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.ids, id) {
		r.ids = append(r.ids[max(0, len(r.ids)-maxRequests+1):], id)
	}
}

// Take returns the ids since the last time, oldest first.
func (r *Requests) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.ids
	r.ids = nil
	return ids
}
