package providertest

import (
	"runtime"
	"runtime/debug"
	"time"
)

// PeakHeap is by how many bytes more the heap was in use at most while f ran, with the collector as the
// daemon has it. What else runs in the process counts too.
func PeakHeap(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	inUse := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse) //nolint:gosec // a heap is smaller than that
	}
	runtime.GC()
	before := inUse()
	most, done, watched := before, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
				most = max(most, inUse())
			}
		}
	}()
	f()
	close(done)
	<-watched
	return most - before
}
