package huaweicloud

import (
	"errors"
	"testing"

	"github.com/rotatord/rotatord/internal/providers"
)

type listed string

func (l listed) Known() bool { return l != "" }

// TestList: a list ends where its total says, or, without one, where a page is not full; whatever
// the service says, it ends.
func TestList(t *testing.T) {
	call := Call{Service: WAF, Op: "list hosts"}
	for _, test := range []struct {
		name         string
		pages        []int // rows of each page; the last one is repeated
		total        int
		rows, asking int
	}{
		{"empty", []int{0}, 0, 0, 1},
		{"empty, whatever the total", []int{0}, 7, 0, 1},
		{"one full page", []int{10}, 10, 10, 1},
		{"two pages", []int{10, 3}, 13, 13, 2},
		{"pages that are smaller than asked for", []int{4, 4, 4}, 12, 12, 3},
		{"no total", []int{10, 10, 4}, 0, 24, 3},
		{"no total, and the last page is full", []int{10, 10, 0}, 0, 20, 3},
		{"a total that is too small", []int{10, 10}, 5, 10, 1},
		{"a total that never comes true", []int{1}, 1_000_000, maxPages, maxPages},
	} {
		asked := 0
		rows, err := List(call, 10, func(n, after int) ([]listed, int, error) {
			asked++
			if n != asked || after != sum(test.pages, n-1) {
				t.Errorf("%s: page %d after %d rows", test.name, n, after)
			}
			return make([]listed, test.pages[min(n, len(test.pages))-1]), test.total, nil
		})
		if err != nil || len(rows) != test.rows || asked != test.asking {
			t.Errorf("%s: %d rows in %d pages, %v; want %d in %d", test.name, len(rows), asked, err, test.rows, test.asking)
		}
	}

	endless := make([]listed, maxRows/10)
	_, err := List(call, len(endless), func(int, int) ([]listed, int, error) { return endless, 0, nil })
	if e, ok := errors.AsType[*providers.Error](err); !ok || e.Kind != providers.KindInvalid || e.Service != WAF || e.Op != "list hosts" {
		t.Errorf("a list without an end: %v", err)
	}
	broken := errors.New("broken")
	rows, err := List(call, 10, func(n, _ int) ([]listed, int, error) {
		if n == 2 {
			return nil, 0, broken
		}
		return make([]listed, 10), 0, nil
	})
	if rows != nil || !errors.Is(err, broken) {
		t.Errorf("half a list: %d rows, %v", len(rows), err)
	}
}

// sum is of the first n rows; the last page is repeated.
func sum(pages []int, n int) (rows int) {
	for i := range n {
		rows += pages[min(i, len(pages)-1)]
	}
	return rows
}

func TestWhole(t *testing.T) {
	if err := Whole([]listed{"a", "b"}); err != nil {
		t.Error(err)
	}
	if err := Whole([]listed(nil)); err != nil {
		t.Error(err)
	}
	if err := Whole([]listed{"a", "", "b"}); err == nil {
		t.Error("a row that cannot be read is passed over")
	}
}
