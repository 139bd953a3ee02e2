// Package repeat tells which failures deserve a line in the log: one that is new, one that is
// other than before, and, once an hour, one that stays; of many with one cause, the first few and
// how many they are.
//
// It imports the standard library only.
//
// Invariants: a failure that lasts is never silent for longer than [Every], as long as somebody
// meets it; the number of times that it was met is not lost.
package repeat

import (
	"sync"
	"time"
)

// Every is how often a failure that stays is told again: whoever reads the log of a night
// finds it in each hour.
const Every = time.Hour

// Failure remembers what was last told of one thing that may fail. The zero value has told
// nothing.
type Failure struct {
	text  string
	told  time.Time
	times int
}

// Met notes the failure, and reports whether it is to be told, with how many times in a row
// it was met.
func (f *Failure) Met(text string) (times int, tell bool) {
	if f.times > 0 && f.text != text {
		*f = Failure{}
	}
	f.text = text
	f.times++
	if tell = f.told.IsZero() || time.Since(f.told) >= Every; tell {
		f.told = time.Now()
	}
	return f.times, tell
}

// Over forgets: the next failure is told, whatever it is.
func (f *Failure) Over() { *f = Failure{} }

// Failures are those of many things. The zero value is empty. Its methods may be called by
// any goroutine.
type Failures[K comparable] struct {
	mu  sync.Mutex
	all map[K]*Failure
}

// Met is [Failure.Met] for one of them.
func (f *Failures[K]) Met(of K, text string) (times int, tell bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[K]*Failure{}
	}
	if f.all[of] == nil {
		f.all[of] = &Failure{}
	}
	return f.all[of].Met(text)
}

// Over is [Failure.Over] for one of them.
func (f *Failures[K]) Over(of K) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, of)
}
