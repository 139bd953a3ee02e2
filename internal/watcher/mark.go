package watcher

import (
	"errors"
	"fmt"
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
	set []mark // oldest first
}

// mark stays until it or a later one is reached, so that no two on their way have one path.
type mark struct {
	number uint64
	path   string
	ends   [2]int
}

// maxMarks is how many may be on their way: where so many did not arrive, none does.
const maxMarks = 4

// markPaths is what the paths of marks begin with.
const markPaths = "/proc/self/fd/"

var errMarksMissing = errors.New("earlier marks have not arrived")

// watches is what marks need of the source of events.
type watches interface {
	Add(path string) error
	Remove(path string) error
}

// put sets a mark.
func (m *marks) put(source watches, number uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.set) >= maxMarks {
		return errMarksMissing
	}
	next := mark{number: number}
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
	m.set = append(m.set, next)
	return nil
}

// reached returns the number of the mark with a path, 0 if there is none. Those before it are
// ended too: they arrived, or an overflow ate them.
func (m *marks) reached(source watches, path string) uint64 {
	if !strings.HasPrefix(path, markPaths) {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.set {
		if m.set[i].path == path {
			number := m.set[i].number
			for _, old := range m.set[:i+1] {
				old.end(source)
			}
			m.set = append([]mark(nil), m.set[i+1:]...)
			return number
		}
	}
	return 0
}

// close ends all of them.
func (m *marks) close(source watches) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, old := range m.set {
		old.end(source)
	}
	m.set = nil
}

func (m mark) end(source watches) {
	_ = source.Remove(m.path) // it may not have come so far
	_ = unix.Close(m.ends[0])
	_ = unix.Close(m.ends[1])
}
