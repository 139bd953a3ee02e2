package huaweicloud

import (
	"errors"
	"fmt"

	"github.com/rotatord/rotatord/internal/providers"
)

const (
	// maxPages ends a list whose total never comes true, maxRows one that is longer than
	// anybody's.
	maxPages = 1000
	maxRows  = 100_000
)

// Row is one row of a list. Known reports whether it could be read as far as it must be.
type Row interface{ Known() bool }

var errRow = errors.New("a row of the list has no id, or no name")

// Whole is an error unless every row is known. What is not on a list is taken for gone, so that
// a row which cannot be read must not be passed over: an answer with one is refused.
func Whole[T Row](rows []T) error {
	for _, row := range rows {
		if !row.Known() {
			return errRow
		}
	}
	return nil
}

// List reads a list page by page until it has as many rows as the service says that there are.
// Call says what is read, where it fails; size is how many rows a page has at most. The function
// reads page n, from 1, which follows so many rows, and returns the total, 0 where there is none.
func List[T Row](c Call, size int, page func(n, after int) (rows []T, total int, err error)) ([]T, error) {
	var all []T
	for n := 1; n <= maxPages; n++ {
		rows, total, err := page(n, len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if len(all) > maxRows {
			return nil, &providers.Error{
				Kind: providers.KindInvalid, Service: c.Service, Op: c.Op, Message: fmt.Sprintf("there are more than %d", maxRows),
			}
		}
		// A total of zero beside rows means that there is none.
		if len(rows) == 0 || len(all) >= total && (total > 0 || len(rows) < size) {
			break
		}
	}
	return all, nil
}
