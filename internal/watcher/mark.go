package watcher

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// marks are events of our own. The kernel queues an event before the call that caused it
// returns, and keeps their order: when a mark comes out of the queue, all that happened before it
// was set has come out too, or the news of an overflow has. A mark is a byte in a pipe: that can
// be watched like a file and lies on no disk.
type marks struct {
	mu  sync.Mutex
	all []mark // oldest first
}

// mark stays until it or a later one is reached, so that no two on their way have one path.
type mark struct {
	owner  *subscription
	number uint64
	path   string
	ends   [2]int
}

// maxMarks is how many may be on their way for one who waits: where so many did not arrive, none does.
const maxMarks = 4

// markPaths is what the paths of marks begin with.
const markPaths = "/proc/self/fd/"

var errMarksMissing = errors.New("earlier marks have not arrived")

// watches is what marks need of the source of events.
type watches interface {
	Add(path string) error
	Remove(path string) error
}

// put sets a mark for one who waits.
func (m *marks) put(source watches, owner *subscription, number uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	missing := 0
	for _, old := range m.all {
		if old.owner == owner {
			missing++
		}
	}
	if missing >= maxMarks {
		return errMarksMissing
	}
	next := mark{owner: owner, number: number}
	if err := unix.Pipe2(next.ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("set a mark: %w", err)
	}
	next.path = fmt.Sprint(markPaths, next.ends[0])
	err := source.Add(next.path)
	if err == nil {
		_, err = unix.Write(next.ends[1], []byte{0})
	}
	if err != nil {
		next.end(source)
		return fmt.Errorf("set a mark: %w", err)
	}
	m.all = append(m.all, next)
	return nil
}

// reached returns who waits for the mark with a path, and its number; nil if there is none. Those
// before it are ended too: they arrived, or an overflow ate them.
func (m *marks) reached(source watches, path string) (owner *subscription, number uint64) {
	if !strings.HasPrefix(path, markPaths) {
		return nil, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.all, func(one mark) bool { return one.path == path })
	if i < 0 {
		return nil, 0
	}
	owner, number = m.all[i].owner, m.all[i].number
	for _, old := range m.all[:i+1] {
		old.end(source)
	}
	m.all = slices.Delete(m.all, 0, i+1)
	return owner, number
}

// close ends all of them.
func (m *marks) close(source watches) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, old := range m.all {
		old.end(source)
	}
	m.all = nil
}

func (m mark) end(source watches) {
	_ = source.Remove(m.path) // it may not have come so far
	_ = unix.Close(m.ends[0])
	_ = unix.Close(m.ends[1])
}
