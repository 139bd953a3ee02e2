package metrics

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// blockSize is how many assignments are encoded together, on average: fewer make a change
	// cheaper, more make the answer smaller.
	blockSize = 128
	maxBlock  = 4 * blockSize
	// formatKept is how long a format is kept ready that nobody asks for any more.
	formatKept = 15 * time.Minute
)

// board keeps the assignments' series ready to be sent: encoded and compressed once, in
// blocks, and again only where something changed.
type board struct {
	assignments func() []*Assignment
	seed        maphash.Seed

	mu sync.Mutex
	// listed is the list that blocks were cut from.
	listed []*Assignment
	blocks []*block
	asked  [formats]time.Time
	packer packer
}

// block is some assignments that follow each other. Where the list is cut depends on the
// names at the cut alone, so that one that comes or goes changes one block only.
type block struct {
	assignments []*Assignment
	piles       map[pile]int
	// encoded are the families' series; nil for a format that nobody asked for.
	encoded [formats]*[families]piece
}

func newBoard(assignments func() []*Assignment) *board {
	return &board{assignments: assignments, seed: maphash.MakeSeed()}
}

// follow cuts the list into blocks, and keeps those that are as they were. The lock is held.
func (b *board) follow() {
	list := b.assignments()
	if slices.Equal(list, b.listed) {
		return
	}
	known := make(map[*Assignment]*block, len(b.blocks))
	for _, old := range b.blocks {
		known[old.assignments[0]] = old
	}
	b.listed, b.blocks = list, nil
	for _, part := range b.cut(distinct(list)) {
		if old := known[part[0]]; old != nil && slices.Equal(old.assignments, part) {
			b.blocks = append(b.blocks, old)
			continue
		}
		now := &block{assignments: part, piles: map[pile]int{}}
		for _, a := range part {
			a.pileUp(now.piles)
		}
		b.blocks = append(b.blocks, now)
	}
}

// cut parts a list.
func (b *board) cut(list []*Assignment) (parts [][]*Assignment) {
	from := 0
	for i, a := range list {
		if i > from && (i-from == maxBlock || b.cutsAt(a.ID)) {
			parts = append(parts, list[from:i:i])
			from = i
		}
	}
	if from < len(list) {
		parts = append(parts, list[from:])
	}
	return parts
}

func (b *board) cutsAt(id rotation.ID) bool { return maphash.Comparable(b.seed, id)%blockSize == 0 }

// superseded adds up what the blocks have.
func (b *board) superseded() map[pile]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.follow()
	count := map[pile]int{}
	for _, one := range b.blocks {
		for p, n := range one.piles {
			count[p] += n
		}
	}
	return count
}

// answer is live, which is in the format, with the assignments' families behind it.
func (b *board) answer(f format, live []byte, now time.Time) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.follow()
	b.forget(f, now)
	body, tail := f.split(live)
	s := &stream{}
	s.add(b.packer.pack(body))
	b.encode(f)
	for of := range families {
		size := 0
		for _, one := range b.blocks {
			size += one.encoded[f][of].size
		}
		if size == 0 {
			continue
		}
		s.add(b.packer.pack(f.header(of, size)))
		for _, one := range b.blocks {
			s.add(one.encoded[f][of])
		}
	}
	s.add(b.packer.pack(tail))
	return s
}

// forget drops the formats that nobody asks for any more.
func (b *board) forget(asked format, now time.Time) {
	b.asked[asked] = now
	for f := range formats {
		if !b.asked[f].IsZero() && now.Sub(b.asked[f]) > formatKept {
			b.asked[f] = time.Time{}
			for _, one := range b.blocks {
				one.encoded[f] = nil
			}
		}
	}
}

// encode writes and compresses the blocks that are not there in the format.
func (b *board) encode(f format) {
	var r rows
	var plain [families][]byte
	for _, one := range b.blocks {
		if one.encoded[f] != nil {
			continue
		}
		for of := range plain {
			plain[of] = plain[of][:0]
		}
		for _, a := range one.assignments {
			r.of(a)
			for i := range r {
				s := &r[i]
				plain[s.family] = f.write(plain[s.family], s)
			}
		}
		one.encoded[f] = new([families]piece)
		for of := range plain {
			one.encoded[f][of] = b.packer.pack(plain[of])
		}
	}
}
