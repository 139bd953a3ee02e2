package main

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/rotation"
)

// What somebody else heard later than this process says nothing about looks that were made here.
func TestHeardIsOfThisProcess(t *testing.T) {
	var h heard
	id := rotation.ID{Policy: "shop", Certificate: "shop.example.com"}
	if at := h.last(id, time.Now()); !at.IsZero() {
		t.Errorf("never heard, and still at %s", at)
	}
	noted := h.note(id)
	for newest, want := range map[time.Time]bool{
		noted.Round(0):                    true,  // as it comes back from the queue
		noted.Add(-time.Second).Round(0):  true,  // asked for before it was heard
		noted.Add(time.Nanosecond):        false, // heard elsewhere, later
		noted.Add(time.Minute).UTC():      false,
		noted.Add(-time.Hour).UTC():       true,
		noted.Add(time.Millisecond).UTC(): false,
	} {
		if at := h.last(id, newest); at.IsZero() == want || want && !at.Equal(noted) {
			t.Errorf("newest %s after it: %s", newest.Sub(noted), at)
		}
	}
	if at := h.last(rotation.ID{Policy: "shop"}, noted); !at.IsZero() {
		t.Errorf("of another assignment: %s", at)
	}
}
