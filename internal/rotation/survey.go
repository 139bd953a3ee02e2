package rotation

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// thorough is how many comparisons there are for one that reads everything: a list shows
// what is bound, and not the content.
const thorough = 24

// survey reports whether a list, read once for many assignments, shows a target as the record
// has it. It is for the regular comparison alone: where anything else asks for a look, the
// target is read.
func (r *run) survey(ctx context.Context, v *View) bool {
	s, ok := r.assembly.Targets[v.Name].(providers.Surveyor)
	t, now, every := r.o.target(v.Name), r.now(), r.o.Policy.Drift.Every.Std()
	if !ok || v.Looked || suspect(&r.o, v, now) || t.Active == nil || t.Drift != "" || every <= 0 || readsAll(r.o.ID, every, now) {
		return false
	}
	since := now.Add(-every / 4)
	if r.o.Record.LookedAt.After(since) {
		return false // a list may be older than the last look, and show what was served before
	}
	a := t.Active
	return s.Survey(ctx, r.request(v), providers.Remote{Handle: a.Handle, Fingerprint: a.Fingerprint, NotBefore: a.NotBefore, NotAfter: a.NotAfter, Owned: a.Owned}, since)
}

// readsAll reports whether it is the turn of an assignment to be read: one time in so many, each
// at another time, and the same for whichever daemon asks.
func readsAll(id ID, every time.Duration, now time.Time) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id.Policy + "/" + id.Certificate))
	return (int64(h.Sum32())+now.UnixNano()/int64(every))%thorough == 0
}
