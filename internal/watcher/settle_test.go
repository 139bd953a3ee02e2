package watcher

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle runs the debouncer under fake time.
func TestSettle(t *testing.T) {
	const quiet, maxQuiet = 20 * time.Millisecond, 250 * time.Millisecond
	brief := time.Duration(0)
	inBubble := func(name string, f func(t *testing.T, in chan<- hint, out <-chan batch)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				in, out := make(chan hint), make(chan batch)
				go settle(ctx, in, out, brief, quiet, maxQuiet)
				f(t, in, out)
				cancel()
				synctest.Wait()
			})
		})
	}
	inBubble("quiet after the last", func(t *testing.T, in chan<- hint, out <-chan batch) {
		from := time.Now()
		in <- hint{path: "/a"}
		time.Sleep(15 * time.Millisecond)
		in <- hint{path: "/b", gone: true}
		in <- hint{path: "/a"}
		b := <-out
		if waited := time.Since(from); waited != 35*time.Millisecond {
			t.Errorf("offered after %v", waited)
		}
		if b.events != 3 || b.coalesced != 1 || !maps.Equal(b.paths, map[string]bool{"/a": false, "/b": true}) {
			t.Errorf("%+v", b)
		}
	})
	inBubble("at most so long", func(t *testing.T, in chan<- hint, out <-chan batch) {
		from := time.Now()
		go func() {
			for range 100 {
				in <- hint{path: "/a"}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		var waited []time.Duration
		events := uint64(0)
		for events < 100 {
			b := <-out
			events += b.events
			waited = append(waited, time.Since(from))
			from = time.Now()
		}
		for _, w := range waited {
			if w > maxQuiet+2*quiet {
				t.Errorf("a batch took %v", w)
			}
		}
		if len(waited) < 4 {
			t.Errorf("only %d batches in a second", len(waited))
		}
	})
	inBubble("joins while nobody takes", func(t *testing.T, in chan<- hint, out <-chan batch) {
		for i := range 50 {
			in <- hint{path: fmt.Sprint(i)}
			time.Sleep(quiet * 2)
		}
		if b := <-out; len(b.paths) != 50 {
			t.Errorf("%d paths", len(b.paths))
		}
		in <- hint{path: "/next"}
		if b := <-out; !slices.Equal(slices.Collect(maps.Keys(b.paths)), []string{"/next"}) {
			t.Errorf("the next batch has %v", b.paths)
		}
	})
	inBubble("gone is not forgotten", func(t *testing.T, in chan<- hint, out <-chan batch) {
		in <- hint{path: "/a", gone: true}
		in <- hint{path: "/a"}
		if b := <-out; !b.paths["/a"] {
			t.Error("the loss of a watch was forgotten")
		}
	})
	inBubble("too many are lost", func(t *testing.T, in chan<- hint, out <-chan batch) {
		for i := range maxPaths + 1 {
			in <- hint{path: fmt.Sprint(i)}
		}
		if b := <-out; !b.lost || len(b.paths) != maxPaths {
			t.Errorf("lost %v with %d paths", b.lost, len(b.paths))
		}
	})
	inBubble("lost", func(t *testing.T, in chan<- hint, out <-chan batch) {
		in <- hint{lost: true}
		if b := <-out; !b.lost || b.events != 1 {
			t.Errorf("%+v", b)
		}
	})
	inBubble("a mark brings what came before it", func(t *testing.T, in chan<- hint, out <-chan batch) {
		from := time.Now()
		in <- hint{path: "/a"}
		in <- hint{mark: 7}
		in <- hint{path: "/b"} // before anybody takes it
		if b := <-out; b.mark != 7 || b.events != 2 || time.Since(from) != 0 {
			t.Errorf("%+v after %v", b, time.Since(from))
		}
		in <- hint{path: "/c"}
		if b := <-out; b.mark != 0 || len(b.paths) != 1 || time.Since(from) != quiet {
			t.Errorf("the next: %+v after %v", b, time.Since(from))
		}
		in <- hint{mark: 8}
		if b := <-out; b.mark != 8 || b.events != 0 {
			t.Errorf("a mark alone: %+v", b)
		}
	})
	brief = 2 * time.Millisecond
	inBubble("a mark does not wait for early looks", func(t *testing.T, in chan<- hint, out <-chan batch) {
		in <- hint{path: "/a"}
		time.Sleep(3 * time.Millisecond) // an early look is on offer
		in <- hint{mark: 9}
		if b := <-out; b.early || b.mark != 9 {
			t.Errorf("%+v", b)
		}
	})
	inBubble("a few are offered early, and again", func(t *testing.T, in chan<- hint, out <-chan batch) {
		from := time.Now()
		in <- hint{path: "/a"}
		time.Sleep(time.Millisecond)
		in <- hint{path: "/b"}
		for _, want := range []struct {
			early bool
			after time.Duration
		}{{true, 3 * time.Millisecond}, {false, 21 * time.Millisecond}} {
			b := <-out
			if took := time.Since(from); b.early != want.early || took != want.after || len(b.paths) != 2 {
				t.Errorf("%+v after %s, want %+v", b, took, want)
			}
		}
	})
	inBubble("an early offer that nobody takes is the settled one", func(t *testing.T, in chan<- hint, out <-chan batch) {
		in <- hint{path: "/a"}
		time.Sleep(2 * quiet)
		if b := <-out; b.early {
			t.Error("it has settled")
		}
	})
	inBubble("many are not", func(t *testing.T, in chan<- hint, out <-chan batch) {
		for i := range maxEarly + 1 {
			in <- hint{path: fmt.Sprint(i)}
		}
		if b := <-out; b.early {
			t.Errorf("%d paths were offered early", len(b.paths))
		}
	})
}
