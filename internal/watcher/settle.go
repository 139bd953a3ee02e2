package watcher

import (
	"context"
	"maps"
	"time"
)

// hint says that something happened to a path, or that hints were lost.
type hint struct {
	path string
	// mark, if not 0, is the number of a mark that was reached; nothing happened.
	mark uint64
	// gone: the path was removed or renamed. If it was a watched directory, the
	// kernel has dropped the watch.
	gone bool
	lost bool
}

// maxPaths bounds a batch: beyond it a rescan is cheaper than the list.
const maxPaths = 1 << 16

// batch is what happened since the last look.
type batch struct {
	paths             map[string]bool // path -> gone
	lost              bool
	events, coalesced uint64
	// mark, if not 0, is the last mark that was reached: all that happened before it is here, or
	// was in a batch before. It is not waited for quiet then.
	mark uint64
	// early: it is not settled yet. The same paths come again, and count then.
	early bool
}

// earlier is the batch as it is looked at before it has settled.
func (b *batch) earlier() batch { return batch{paths: maps.Clone(b.paths), early: true} }

func (b *batch) add(h hint) {
	if h.mark != 0 {
		b.mark = h.mark
		return
	}
	b.events++
	if h.lost {
		b.lost = true
		return
	}
	if b.paths == nil {
		b.paths = make(map[string]bool)
	}
	gone, known := b.paths[h.path]
	switch {
	case known:
		b.coalesced++
	case len(b.paths) >= maxPaths:
		b.lost = true
		b.coalesced++
		return
	}
	b.paths[h.path] = gone || h.gone
}

// maxEarly is how many paths are worth an early look: more are no replacement of one pair.
const maxEarly = 64

// settle collects hints until none came for quiet, or the first is maxQuiet old,
// and then offers them as one batch. While nobody takes it, further hints join
// and it settles anew. When none came for brief, and they are few, it offers them for an
// early look, and goes on as if it had not; 0 for never. A mark is offered at once, with all
// that came before it. It has no state but its own and ends with ctx.
func settle(ctx context.Context, in <-chan hint, out chan<- batch, brief, quiet, maxQuiet time.Duration) {
	var (
		pending batch
		first   time.Time
		offer   chan<- batch // nil until settled
		early   chan<- batch // nil but for an early look, at hasty
		hasty   batch
	)
	timer, soon := time.NewTimer(maxQuiet), time.NewTimer(maxQuiet)
	timer.Stop()
	soon.Stop()
	defer timer.Stop()
	defer soon.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-in:
			now := time.Now()
			if pending.events == 0 {
				first = now
			}
			pending.add(h)
			offer, early = nil, nil
			soon.Stop()
			if pending.mark != 0 { // somebody waits for what there is until now
				timer.Stop()
				offer = out
				continue
			}
			timer.Reset(max(0, min(quiet, first.Add(maxQuiet).Sub(now))))
			if 0 < brief && brief < quiet && !pending.lost && len(pending.paths) <= maxEarly {
				soon.Reset(brief)
			}
		case <-soon.C:
			early, hasty = out, pending.earlier()
		case early <- hasty:
			early, hasty = nil, batch{}
		case <-timer.C:
			offer, early = out, nil
		case offer <- pending:
			pending, offer = batch{}, nil
		}
	}
}
